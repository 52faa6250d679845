"""Make everything in `sample_data/` again: ``python training/make_sample_data.py [FOLDER]``.

`cells` is a made-up fluorescence stack of touching cells, from a seed. `coins` is the photograph that scikit-image
carries; here are its clicks, read by eye from the enlarged photograph, and reference labels, made by a threshold
around each coin and looked at one by one.
"""

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from scipy import ndimage

from napari_delse.geometry import ExtremePoints

SEED = 2019
SHAPE = (5, 256, 256)
N_CELLS = 22
FOLDER = Path(__file__).resolve().parents[1] / "sample_data"

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.uint16]
Labels = npt.NDArray[np.uint16]
Row = tuple[int, str, tuple[float, ...], tuple[float, ...]]

# top, bottom, left, right of 15 coins as (y, x)
COIN_CLICKS = (
    ((34, 45), (72, 43), (54, 22), (51, 65)),
    ((39, 103), (73, 99), (55, 81), (56, 119)),
    ((28, 157), (72, 154), (49, 132), (50, 178)),
    ((30, 214), (71, 214), (51, 192), (51, 238)),
    ((34, 275), (70, 276), (51, 255), (50, 295)),
    ((16, 334), (71, 334), (43, 305), (43, 363)),
    ((105, 205), (143, 204), (122, 186), (120, 225)),
    ((95, 267), (143, 271), (121, 245), (116, 295)),
    ((105, 335), (144, 336), (123, 317), (123, 355)),
    ((170, 212), (216, 211), (191, 189), (192, 235)),
    ((172, 272), (216, 281), (195, 251), (197, 296)),
    ((156, 349), (217, 347), (183, 315), (187, 378)),
    ((232, 46), (287, 46), (258, 18), (257, 73)),
    ((244, 115), (286, 115), (265, 92), (264, 135)),
    ((236, 173), (287, 172), (261, 144), (257, 200)),
)
# The largest coin: its lower left is worn, the outline runs a little outside the rim there, and the drag moves it back.
COIN_DRAGS = ((12, (208, 325), (206, 327)),)


# ---------------------------------------------------------------- cells


def place_cells(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Centres (y, x) and mean radii of cells that are packed loosely enough to touch without swallowing each other."""
    centres: list[Floats] = []
    radii: list[float] = []
    while len(centres) < N_CELLS:
        centre = rng.uniform(12, 244, size=2)
        radius = rng.uniform(20, 31)
        gaps = [np.hypot(*(centre - other)) - 0.80 * (radius + r) for other, r in zip(centres, radii, strict=True)]
        if all(gap > 0 for gap in gaps):
            centres.append(centre)
            radii.append(radius)
        elif rng.uniform() < 1e-3:  # a full plane: start again
            centres, radii = [], []
    return np.array(centres), np.array(radii)


def draw_labels(rng: np.random.Generator) -> Labels:
    """Cells with wavy outlines that drift, swell and shrink from plane to plane and keep their id."""
    centres, radii = place_cells(rng)
    drift = rng.normal(0, 1.2, size=(N_CELLS, 2)) + np.array([1.0, -0.7])
    middle = rng.uniform(0.8, 3.2, size=N_CELLS)
    height = rng.uniform(3.0, 5.5, size=N_CELLS)
    orders = np.arange(2, 6)
    waves = rng.normal(0, 0.16, size=(N_CELLS, orders.size)) / (orders - 1)
    phases = rng.uniform(0, 2 * np.pi, size=(N_CELLS, orders.size))
    turn = rng.normal(0, 0.08, size=(N_CELLS, orders.size))

    labels = np.zeros(SHAPE, np.uint16)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]].astype(float)
    for z in range(SHAPE[0]):
        nearest = np.full(SHAPE[1:], 1.0)
        for cell in range(N_CELLS):
            dy, dx = y - (centres[cell, 0] + z * drift[cell, 0]), x - (centres[cell, 1] + z * drift[cell, 1])
            angle = np.arctan2(dy, dx)
            wave = sum(
                amplitude * np.cos(order * angle + phase + z * step)
                for order, amplitude, phase, step in zip(orders, waves[cell], phases[cell], turn[cell], strict=True)
            )
            flat = 1 - ((z - middle[cell]) / height[cell]) ** 2
            radius = radii[cell] * np.sqrt(max(flat, 0.05)) * (1 + wave)
            reach = np.hypot(dy, dx) / np.maximum(radius, 1.0)
            labels[z][reach < nearest] = cell + 1
            nearest = np.minimum(nearest, reach)
    return keep_largest_parts(labels)


def keep_largest_parts(labels: Labels, smallest: int = 120) -> Labels:
    """One connected part for each id and plane; slivers at the border go."""
    kept = np.zeros_like(labels)
    for z, plane in enumerate(labels):
        for cell in range(1, N_CELLS + 1):
            parts, count = ndimage.label(plane == cell)
            sizes = np.bincount(parts.ravel(), minlength=2)[1:]
            if count and sizes.max() >= smallest:
                kept[z][parts == 1 + sizes.argmax()] = cell
    return kept


def render(labels: Labels, rng: np.random.Generator) -> Counts:
    """Camera counts: cells of different brightness with nuclei and texture, out-of-focus light, uneven light, noise.

    The noise is drawn independently of the picture, so that the last bit of a float on another platform cannot change
    the whole image: Gaussian noise whose variance is the number of photons.
    """
    brightness = rng.uniform(0.45, 1.0, size=N_CELLS + 1)
    texture = sum(
        weight * _unit(ndimage.gaussian_filter(rng.normal(size=SHAPE), (0.7, scale, scale)))
        for scale, weight in ((1.5, 0.10), (4.0, 0.14))
    )
    signal = np.zeros(SHAPE)
    for z, plane in enumerate(labels):
        for cell in np.unique(plane[plane > 0]):
            inside = plane == cell
            depth = ndimage.distance_transform_edt(np.pad(inside, 1, mode="edge"))[1:-1, 1:-1]
            thickness = np.sqrt(1 - (1 - np.minimum(depth / 9, 1)) ** 2)
            nucleus = 1 / (1 + np.exp(-(depth - 0.62 * depth.max()) / 1.2))
            signal[z] += np.where(inside, brightness[cell] * (0.25 + 0.6 * thickness + 0.45 * nucleus), 0)
    signal *= np.clip(1 + texture, 0.2, None)
    focused = ndimage.gaussian_filter(signal, (0, 1.3, 1.3))
    blurred = ndimage.gaussian_filter(signal, (0.8, 7, 7))
    y, x = np.mgrid[-1 : 1 : SHAPE[1] * 1j, -1 : 1 : SHAPE[2] * 1j]
    light = 1.05 - 0.30 * (y - 0.3) ** 2 - 0.25 * (x + 0.2) ** 2
    bleaching = np.exp(-0.05 * np.arange(SHAPE[0]))[:, None, None]
    photons = 15 + 420 * light * bleaching * (0.85 * focused + 0.25 * blurred)
    counts = 100 + 6 * (photons + np.sqrt(photons) * rng.normal(size=SHAPE)) + 8 * rng.normal(size=SHAPE)
    clipped: Counts = np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
    return clipped


def _unit(field: Floats) -> Floats:
    unit: Floats = (field - field.mean()) / field.std()
    return unit


def click_cells(labels: Labels, rng: np.random.Generator) -> list[Row]:
    """Four clicks for each cell and plane, each up to a pixel beside the true extreme point."""
    rows: list[Row] = []
    for z, plane in enumerate(labels):
        for cell in np.unique(plane[plane > 0]):
            points = np.array(ExtremePoints.from_mask(plane == cell).points) + rng.uniform(-1, 1, size=(4, 2))
            points = np.clip(points.round(1), 0, np.array(SHAPE[1:]) - 1)
            rows += [(int(cell), "extreme", (z, *map(float, point)), ()) for point in points]
    return rows


def make_cells(seed: int = SEED) -> tuple[Counts, Labels, list[Row]]:
    """Image, labels and clicks of the stack."""
    rng = np.random.default_rng(seed)
    labels = draw_labels(rng)
    return render(labels, rng), labels, click_cells(labels, rng)


# ---------------------------------------------------------------- coins


def label_coins(photograph: npt.NDArray[np.uint8]) -> Labels:
    """Reference labels: around each clicked coin, half way between the grey of its rim and of its surroundings."""
    smooth = ndimage.gaussian_filter(photograph.astype(float), 1.0)
    y, x = np.mgrid[: photograph.shape[0], : photograph.shape[1]]
    disk = np.hypot(*np.mgrid[-3:4, -3:4]) <= 3
    labels = np.zeros(photograph.shape, np.uint16)
    for coin, (top, bottom, left, right) in enumerate(COIN_CLICKS, start=1):
        centre = (top[0] + bottom[0]) / 2, (left[1] + right[1]) / 2
        radii = (bottom[0] - top[0] + 1) / 2, (right[1] - left[1] + 1) / 2
        reach = np.hypot((y - centre[0]) / radii[0], (x - centre[1]) / radii[1])
        surroundings = np.median(smooth[(reach > 1.12) & (reach < 1.3)])
        rim = np.median(smooth[(reach < 1) & (reach > 0.85)])
        mask = (reach < 1.3) & (smooth > (surroundings + rim) / 2)
        mask = ndimage.binary_fill_holes(ndimage.binary_closing(mask, iterations=2))
        parts, _ = ndimage.label(ndimage.binary_opening(mask, disk))
        largest = 1 + np.bincount(parts.ravel())[1:].argmax()
        labels[ndimage.binary_fill_holes(parts == largest)] = coin
    return labels


def click_coins() -> list[Row]:
    """Return the recorded clicks and the recorded drag."""
    clicks: list[Row] = [
        (coin, "extreme", point, ()) for coin, points in enumerate(COIN_CLICKS, start=1) for point in points
    ]
    drags: list[Row] = [(coin, "drag", start, end) for coin, start, end in COIN_DRAGS]
    return clicks + drags


# ---------------------------------------------------------------- files


def write_clicks(path: Path, rows: Iterable[Row], axes: int) -> None:
    """Write the prompt table of the command line."""
    header = ["label", "kind", *(f"axis-{n}" for n in range(axes)), *(f"to-{n}" for n in range(axes))]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        for label, kind, start, end in rows:
            table.writerow([label, kind, *map(_short, start), *(map(_short, end) if end else [""] * axes)])


def _short(number: float) -> str:
    return f"{number:g}"


def write_labels(path: Path, labels: Labels, axes: str) -> None:
    tifffile.imwrite(path, labels, compression="zlib", metadata={"axes": axes})


def main(arguments: Sequence[str]) -> None:
    from skimage import data

    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    image, labels, clicks = make_cells()
    tifffile.imwrite(folder / "cells.tif", image, compression="zlib", metadata={"axes": "ZYX"})
    write_labels(folder / "cells_labels.tif", labels, "ZYX")
    write_clicks(folder / "cells_clicks.csv", clicks, axes=3)
    write_labels(folder / "coins_labels.tif", label_coins(data.coins()), "YX")
    write_clicks(folder / "coins_clicks.csv", click_coins(), axes=2)


if __name__ == "__main__":
    main(sys.argv[1:])
