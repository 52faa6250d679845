"""How the contour evolves: combs at large time steps, and whether it passes where drags end.

    python training/evolution_study.py steps MODEL DATA [--objects 60]
    python training/evolution_study.py drags MODEL DATA [--objects 25] [--steps 10 --dt 0.5]

Both take objects of the held-out images (training/validation.txt), from exact extreme points. `steps` evolves the
same fields with several T and dt; a contour is rough that is more than a tenth longer than that of phi smoothed a
little. `drags` makes up to three simulated drags and looks how far from where it should the new contour passes at each
drag's end, and how far it passes at the clicks of the beginning, in network pixels. Clicks and ends are centres of
pixels just inside the object, so the contour should pass half a pixel of the image outside them. The tables in
results/choices.md are theirs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import find_contours

from napari_delse.annotator import simulated_drag, simulated_prompt
from napari_delse.data.samples import IGNORE, Sample, read_folder
from napari_delse.evaluation import ObjectKey, choose_objects, objects_of, read_list, set_names
from napari_delse.evolution import EvolutionConfig
from napari_delse.geometry import Correction, ObjectMask
from napari_delse.metrics import WIDTHS, score_object
from napari_delse.predict import Prediction, Predictor

SETS = ("dsb2018", "usiigaci", "coco128", "emps", "usgra", "nasa_meltpool", "sunnybrook_lv", "ads_sem")
WAYS = ((5, 1.0), (6, 5 / 6), (7, 5 / 7), (10, 0.5), (20, 0.25))  # T and dt
ROUGH = 1.1
FAR = 2.0  # network pixels
FloatArray = npt.NDArray[np.floating]


def held_out(data: Path, count: int, sets: Sequence[str]) -> Iterator[tuple[ObjectKey, Sample, ObjectMask]]:
    """Objects of the held-out images, at most so many of each set."""
    folders = set_names([data / name for name in sets])
    names = read_list(Path(__file__).parent / "validation.txt", folders)
    for name, keys in choose_objects(folders, count, 0, names).items():
        for sample in read_folder(folders[name], list(dict.fromkeys(key.name for key in keys))):
            here = [key for key in keys if (key.name, key.plane) == (sample.name, sample.plane)]
            objects = objects_of(sample.labels) if here else {}
            for key in here:
                yield key, sample, objects[key.label]


def roughness(phi: FloatArray, threshold: float) -> float:
    """Length of the contour over that of phi smoothed a little, near the contour only."""
    if not (phi > threshold).any():
        return 1.0
    soft = ndimage.gaussian_filter(np.clip(phi - threshold, -6, 6), 1.5)
    one, other = (
        sum(np.hypot(*np.diff(line, axis=0).T).sum() for line in find_contours(a, level))
        for a, level in ((phi, threshold), (soft, 0.0))
    )
    return float(one / max(other, 1.0))


def missed(found: Prediction, point: Sequence[float]) -> float:
    """How much farther in than half a pixel of the image outside a point the contour passes, network pixels."""
    phi, place = found.states[-1] - found.threshold, found.crop.to_network(np.array([point]))
    lines = find_contours(phi, 0.0)
    away = min((np.hypot(*(line - place[0]).T).min() for line in lines), default=np.inf)
    inside = ndimage.map_coordinates(phi, place.T, order=1, mode="nearest")[0] > 0
    return float(np.mean(found.crop.scale)) / 2 - float(away if inside else -away)


def scores_of(mask: ObjectMask, sample: Sample, truth: ObjectMask) -> list[float]:
    """IoU, and F within 1 and 2 pixels."""
    ignore = sample.labels == IGNORE
    found = score_object(mask, truth, sample.image.shape, ignore if ignore.any() else None)
    return [found.iou, *(found.boundary_f[WIDTHS.index(k)] for k in (1, 2))]


def steps(predictor: Predictor, data: Path, count: int) -> None:
    """Print scores and roughness for several T and dt."""
    rows: dict[tuple[int, float], list[list[float]]] = {way: [] for way in WAYS}
    for _, sample, truth in held_out(data, count, SETS):
        found = predictor.segment(sample.image, simulated_prompt(truth, np.random.default_rng(0)))
        for (number, dt), row in rows.items():
            evolved = predictor.evolve(found, replace(predictor.config.evolution, steps=number, dt=dt))
            rough = roughness(evolved.states[-1], evolved.threshold)
            row.append([*scores_of(evolved.mask, sample, truth), rough > ROUGH])
    for (number, dt), row in rows.items():
        iou, f1, f2, rough = 100 * np.mean(row, axis=0)
        print(f"{number} x {dt:.3g}: mIoU {iou:.2f}, F {f1:.2f} / {f2:.2f}, rough {rough:.1f} % of {len(row)}")


def drags(predictor: Predictor, data: Path, count: int, evolution: EvolutionConfig) -> None:
    """Print scores after 0 to 3 drags, and how far from where it should the contour passes at their ends."""
    rows, ends, clicks = [], list[float](), list[float]()
    for _, sample, truth in held_out(data, count, SETS[:-1]):
        shape, made = sample.image.shape, list[Correction]()
        ignore = sample.labels == IGNORE
        found = predictor.segment(sample.image, simulated_prompt(truth, np.random.default_rng(0)), (), evolution)
        scores = [scores_of(found.mask, sample, truth)]
        clicks.extend(missed(found, point) for point in found.prompt.points)
        while len(made) < 3 and (drag := simulated_drag(found.mask, truth, shape, ignore if ignore.any() else None)):
            made.append(drag)
            found = predictor.segment(sample.image, found.prompt, made, evolution)
            ends.append(missed(found, drag.end))
            scores.append(scores_of(found.mask, sample, truth))
        rows.append(scores + [scores[-1]] * (4 - len(scores)))
    table = 100 * np.array(rows)
    worst = np.argsort(table[:, 0, 0])[: len(table) // 4]
    for name, values in (
        ("mIoU", table[..., 0]),
        ("F 2 px", table[..., 2]),
        ("mIoU, worst quarter", table[worst, :, 0]),
    ):
        print(f"{name}: {' / '.join(f'{v:.1f}' for v in values.mean(axis=0))}")
    print(f"{len(table)} objects")
    for name, misses in ("drags", ends), ("clicks", clicks):
        half, most = np.percentile(np.abs(misses), (50, 90))
        far = 100 * np.mean(np.abs(misses) > FAR)
        print(
            f"{len(misses)} {name}: missed by {half:.2f} px in the median, nine of ten within {most:.2f}, "
            f"{far:.0f} % by more than {FAR:g}; in the median {np.median(misses):+.2f} too far in"
        )


def main() -> None:
    """Study steps or drags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("steps", "drags"))
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--objects", type=int, default=25, help="of each set at most")
    parser.add_argument("--steps", type=int, help="T instead of the model's")
    parser.add_argument("--dt", type=float, help="dt instead of the model's")
    args = parser.parse_args()
    predictor = Predictor.load(args.model, device="cpu")
    if args.what == "steps":
        steps(predictor, args.data, args.objects)
        return
    own = predictor.config.evolution
    drags(predictor, args.data, args.objects, replace(own, steps=args.steps or own.steps, dt=args.dt or own.dt))


if __name__ == "__main__":
    main()
