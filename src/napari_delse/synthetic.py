"""Seeded synthetic images with instance labels, for training without any data set.

Each scene imitates one way an object shows itself in a microscope, a scanner or a photograph; random degradations of
the camera follow. Shapes are implicit functions: the image is rendered antialiased from them, the labels by the sign
at each pixel centre, so that an object's boundary is the intended one and not that of a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from skimage.measure import label as connected_components

Field = NDArray[np.float32]
Labels = NDArray[np.uint16]
Scene = Callable[[np.random.Generator, "SyntheticConfig"], "_Canvas"]

_SCENES: dict[str, Scene] = {}


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What the generator draws; lengths are in pixels."""

    size: int = 256  # height and width of the image
    kinds: tuple[str, ...] = field(default_factory=lambda: tuple(_SCENES))  # scenes to choose from
    min_diameter: float = 8.0  # of the smallest objects
    max_diameter: float = 200.0  # of the largest objects
    max_objects: int = 40  # upper bound for scenes that place objects one by one
    min_area: int = 12  # visible pixels below which an object loses its label
    degradation: float = 1.0  # 0: as rendered; 1: the full range of blur, noise, uneven light, ...
    tint: float = 0.15  # probability that a grey scene comes as an RGB image

    def __post_init__(self) -> None:
        """Refuse values no image could be drawn with."""
        if unknown := set(self.kinds) - set(_SCENES):
            raise ValueError(f"unknown kinds {sorted(unknown)}; choose from {sorted(_SCENES)}")
        if not self.kinds:
            raise ValueError(f"kinds must name at least one of {sorted(_SCENES)}")
        if self.size < 64:
            raise ValueError(f"size must be at least 64 pixels, got {self.size}")
        if not 4 <= self.min_diameter <= self.max_diameter:
            raise ValueError(f"need 4 <= min_diameter <= max_diameter, got {self.min_diameter}, {self.max_diameter}")


def synthetic_image(
    rng: np.random.Generator, config: SyntheticConfig | None = None, kind: str | None = None
) -> tuple[NDArray[Any], Labels]:
    """Draw one image and its instance labels.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of randomness.
    config : SyntheticConfig, optional
        Sizes, scenes and strength of the degradations.
    kind : str, optional
        The scene; one of ``config.kinds`` at random if not given.

    Returns
    -------
    image : ndarray, shape (H, W) or (H, W, 3)
        uint8, uint16 or float32.
    labels : ndarray of uint16, shape (H, W)
        Consecutive instance ids, 0 for background; an id may have several parts and holes.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    config = config or SyntheticConfig()
    kind = kind or str(rng.choice(config.kinds))
    if kind not in _SCENES:
        raise ValueError(f"unknown kind {kind!r}; choose from {sorted(_SCENES)}")
    canvas = _SCENES[kind](rng, config)
    image = canvas.image
    if image.ndim == 2 and rng.random() < config.tint:
        image = _tinted(rng, image)
    if config.degradation > 0:
        image = _degraded(rng, image, config.degradation)
    return _digitised(rng, image), _tidied(canvas.labels, config.min_area)


def synthetic_set(n: int, seed: int, config: SyntheticConfig | None = None) -> Iterator[tuple[NDArray[Any], Labels]]:
    """Yield n images and labels, the kinds in turn.

    Parameters
    ----------
    n : int
        How many.
    seed : int
        Item i depends on the seed and on i alone, not on n.
    config : SyntheticConfig, optional
        Sizes, scenes and strength of the degradations.

    Yields
    ------
    image, labels : ndarray
        As `synthetic_image` returns them.
    """
    config = config or SyntheticConfig()
    for i in range(n):
        yield synthetic_image(np.random.default_rng([seed, i]), config, config.kinds[i % len(config.kinds)])


# ---------------------------------------------------------------------------------------------------- shapes


@dataclass(frozen=True)
class _Shape:
    """An implicit shape on a window of the image; distance in pixels, positive inside, exact only near zero."""

    window: tuple[slice, slice]
    distance: Field

    @property
    def coverage(self) -> Field:
        """Covered part of each pixel."""
        return np.asarray(np.clip(self.distance + 0.5, 0, 1))


class _Canvas:
    """Image and labels being painted, later shapes on top."""

    def __init__(self, image: NDArray[Any]) -> None:
        self.image = np.array(image, dtype=np.float32)
        self.labels = np.zeros(image.shape[:2], np.uint16)
        self.count = 0

    def overlap(self, shape: _Shape) -> float:
        """Part of the shape that is already labelled."""
        inside = shape.distance > 0
        return float(np.mean(self.labels[shape.window][inside] > 0)) if inside.any() else 1.0

    def paint(self, shape: _Shape, value: Any, alpha: float = 1.0) -> None:
        """Blend a value, a colour or a patch into the image."""
        cover = shape.coverage * alpha
        view = self.image[shape.window]
        if view.ndim == 3:
            cover = cover[..., None]
            value = np.asarray(value)[..., None] if np.shape(value) == view.shape[:2] else value
        view += cover * (value - view)

    def mark(self, shape: _Shape, background: bool = False) -> None:
        """Label the shape by its pixel centres, or clear what lies below it."""
        self.count += not background
        self.labels[shape.window][shape.distance > 0] = 0 if background else self.count


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _radii(
    rng: np.random.Generator, config: SyntheticConfig, fill: float, largest: float = 1.0, smallest: float = 1.0
) -> Field:
    """Radii of the objects of one scene: one typical size, and as many as fill this part of the image."""
    scale = config.size / 256
    low, high = scale * config.min_diameter / 2 * smallest, scale * config.max_diameter / 2 * largest
    typical = _log_uniform(rng, min(low, high), high)
    n = int(np.clip(fill * config.size**2 / (np.pi * typical**2), 1, config.max_objects))
    spread = rng.uniform(0.05, 0.5)
    return np.clip(typical * np.exp(spread * rng.standard_normal(n)), min(low, high), high).astype(np.float32)


def _window(
    size: int, centre: NDArray[np.float64], reach: float
) -> tuple[tuple[slice, slice], NDArray[Any], NDArray[Any]]:
    """Window around a centre and the coordinates relative to it."""
    low = np.clip(np.floor(centre - reach - 2), 0, size - 4).astype(int)
    high = np.clip(np.ceil(centre + reach + 3), low + 4, size).astype(int)
    y = np.arange(low[0], high[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(low[1], high[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    return (slice(low[0], high[0]), slice(low[1], high[1])), y, x


def _normalised(f: NDArray[Any]) -> Field:
    """Make an implicit function a distance near its zero level; the clip guards its centre, where it is singular."""
    gy, gx = np.gradient(f)
    return np.asarray(f / np.clip(np.hypot(gy, gx), 0.4, 2.5), dtype=np.float32)


def _centre(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    return rng.uniform(0, size - 1, 2)


def _blob(
    rng: np.random.Generator,
    size: int,
    centre: NDArray[np.float64],
    radius: float,
    roughness: float = 0.1,
    elongation: float = 1.6,
) -> _Shape:
    """Ellipse of random elongation whose radius is perturbed by Fourier modes 2 to 7."""
    ratio = np.sqrt(rng.uniform(1, elongation))
    window, y, x = _window(size, centre, radius * ratio * (1 + 2.5 * roughness))
    turn = rng.uniform(0, np.pi)
    u = (np.cos(turn) * y + np.sin(turn) * x) / ratio
    v = (np.cos(turn) * x - np.sin(turn) * y) * ratio
    angles = np.linspace(-np.pi, np.pi, 721)
    modes = np.arange(2, 8)
    amplitudes = roughness * rng.standard_normal(6) * 1.5 / modes
    table = 1 + amplitudes @ np.cos(modes[:, None] * angles + rng.uniform(0, 2 * np.pi, (6, 1)))
    bearing = np.arctan2(u, v)
    reach = np.clip(table, 0.25, 2).astype(np.float32)[((bearing + np.pi) * (720 / (2 * np.pi))).astype(int)]
    return _Shape(window, _normalised(radius * reach - np.hypot(u, v)))


def _polygon(rng: np.random.Generator, size: int, centre: NDArray[np.float64], radius: float) -> tuple[_Shape, Field]:
    """Convex polygon as an intersection of half planes, and for each pixel the number of its nearest edge."""
    n = int(rng.integers(3, 9))
    turn = rng.uniform(0, 2 * np.pi) + 2 * np.pi / n * (np.arange(n) + rng.uniform(-0.25, 0.25, n))
    stretch = rng.uniform(0.35, 1)
    window, y, x = _window(size, centre, 2 * radius)
    away = radius * rng.uniform(0.55, 0.95, n) * np.sqrt(stretch**2 + (1 - stretch**2) * np.cos(turn - turn[0]) ** 2)
    planes = away[:, None, None] - (np.sin(turn)[:, None, None] * y + np.cos(turn)[:, None, None] * x)
    limit = 1.9 * radius - np.hypot(y, x)
    return _Shape(window, np.minimum(planes.min(0), limit).astype(np.float32)), planes.argmin(0).astype(np.float32)


def _path(rng: np.random.Generator, start: NDArray[Any], heading: float, length: float, wiggle: float) -> NDArray[Any]:
    """Points half a pixel apart on a curve whose curvature wanders."""
    n = max(4, int(2 * length))
    bend = ndimage.gaussian_filter1d(rng.standard_normal(n), 12, mode="nearest")
    turn = heading + 0.5 * wiggle * np.cumsum(bend)
    return np.asarray(start + 0.5 * np.cumsum(np.stack([np.sin(turn), np.cos(turn)], 1), 0))


def _tube(size: int, points: NDArray[Any], radii: NDArray[Any]) -> _Shape:
    """Union of discs along curves, on the whole image."""
    flat = np.full(size * size, -4, np.float32)
    reach = int(np.ceil(radii.max())) + 2
    offset = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    cells = np.rint(points).astype(int)[:, None] + offset
    depth = radii[:, None] - np.hypot(*np.moveaxis(cells - points[:, None], -1, 0))
    keep = (depth > -3) & np.all((cells >= 0) & (cells < size), -1)
    np.maximum.at(flat, (cells[..., 0] * size + cells[..., 1])[keep], depth[keep].astype(np.float32))
    return _cropped(_Shape((slice(0, size), slice(0, size)), flat.reshape(size, size)))


def _cropped(shape: _Shape) -> _Shape:
    """Shrink the window of a full-size shape to what it covers."""
    rows, cols = (np.flatnonzero((shape.distance > -2).any(axis)) for axis in (1, 0))
    if not rows.size:
        return _Shape((slice(0, 4), slice(0, 4)), shape.distance[:4, :4])
    window = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)
    return _Shape(window, shape.distance[window])


def _union(size: int, shapes: list[_Shape]) -> _Shape:
    """Union of shapes, on their common window."""
    whole = np.full((size, size), -4, np.float32)
    for shape in shapes:
        np.maximum(whole[shape.window], shape.distance, out=whole[shape.window])
    return _cropped(_Shape((slice(0, size), slice(0, size)), whole))


def _intersection(size: int, shape: _Shape, other: _Shape, margin: float = 0.0) -> _Shape:
    """Part of a shape that lies in another one, at least this far from its border."""
    whole = np.full((size, size), -4, np.float32)
    whole[other.window] = other.distance
    return _Shape(shape.window, np.minimum(shape.distance, whole[shape.window] - margin))


# ---------------------------------------------------------------------------------------------------- textures


def _smooth(rng: np.random.Generator, size: int, scale: float) -> Field:
    """Smooth noise of this feature size, mean 0 and standard deviation 1."""
    n = int(size / scale) + 4
    place = (np.arange(size) / scale + 1 + rng.random())[:, None] - np.arange(n)
    spread = np.exp(-1.4 * place**2).astype(np.float32)
    noise = spread @ rng.standard_normal((n, n), dtype=np.float32) @ spread.T
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6))


def _texture(rng: np.random.Generator, size: int) -> Field:
    """Gratings, fibres, mottle or speckle: noise through an oriented band-pass filter, mean 0 and deviation 1."""
    u, v = fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None, :]
    turn, centre = rng.uniform(0, np.pi), 1 / _log_uniform(rng, 3, 16)
    along, across = np.cos(turn) * v + np.sin(turn) * u, np.cos(turn) * u - np.sin(turn) * v
    style = rng.integers(4)
    if style == 0:  # grating
        gain = np.exp(-(((np.abs(along) - centre) / 0.012) ** 2) - (across / 0.02) ** 2)
    elif style == 1:  # fibres
        gain = np.exp(-((along / 0.12) ** 2) - (across / 0.015) ** 2)
    elif style == 2:  # mottle: a ring of frequencies
        gain = np.exp(-(((np.hypot(u, v) - centre) / 0.03) ** 2))
    else:  # fine grain
        gain = np.exp(-((np.hypot(u, v) / rng.uniform(0.1, 0.4)) ** 2))
    noise = fft.irfft2(fft.rfft2(rng.standard_normal((size, size), dtype=np.float32)) * gain, (size, size))
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), dtype=np.float32)


def _colour(rng: np.random.Generator) -> Field:
    return rng.uniform(0.05, 0.95, 3).astype(np.float32)


def _background(rng: np.random.Generator, size: int, level: float) -> Field:
    """Uneven background with some debris."""
    image = level * (1 + rng.uniform(0, 0.4) * _smooth(rng, size, size / 3))
    for _ in range(int(rng.integers(0, 12)) * int(rng.random() < 0.4)):
        spot = _blob(rng, size, _centre(rng, size), rng.uniform(0.7, 2.5))
        image[spot.window] += spot.coverage * rng.uniform(-0.15, 0.4)
    return np.asarray(image, dtype=np.float32)


# ---------------------------------------------------------------------------------------------------- scenes


def _scene(function: Scene) -> Scene:
    _SCENES[function.__name__.lstrip("_")] = function
    return function


@_scene
def _blobs(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Fluorescent nuclei and cells: bright, mottled, some in clusters that touch."""
    size = config.size
    canvas = _Canvas(_background(rng, size, rng.uniform(0.02, 0.2)))
    mottle = 1 + rng.uniform(0, 0.35) * _smooth(rng, size, rng.uniform(2, 12))
    roughness, dome, spread = rng.choice([0.04, 0.1, 0.2]), rng.uniform(0, 0.6), rng.uniform(0.05, 0.5)
    contact = rng.uniform(0, 0.2)
    previous = _centre(rng, size)
    for radius in _radii(rng, config, rng.uniform(0.15, 0.7)):
        clustered = rng.random() < 0.5
        centre = previous + rng.normal(0, 1.8 * radius, 2) if clustered else _centre(rng, size)
        centre = np.clip(centre, 0, size - 1)
        shape = _blob(rng, size, centre, radius, roughness)
        if canvas.overlap(shape) > contact:
            continue
        height = 1 - dome + dome * np.sqrt(np.clip(shape.distance / radius, 0, 1))
        level = rng.uniform(0.5, 0.7) * np.exp(spread * rng.standard_normal())
        canvas.paint(shape, np.clip(level, 0.3, 1.5) * height * mottle[shape.window])
        canvas.mark(shape)
        previous = centre
    return canvas


def _voronoi(rng: np.random.Generator, size: int, spacing: float) -> tuple[NDArray[np.int64], Field]:
    """Cell number of each pixel and its distance to the border with the next cell, in warped space."""
    n = int(np.ceil(size / spacing)) + 2
    jitter = rng.uniform(0.15, 0.42)
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2) - 0.5
    grid[:, 1] += 0.5 * (np.floor(grid[:, 0]) % 2)
    seeds = (grid + rng.uniform(-jitter, jitter, grid.shape)) * spacing
    warp = rng.uniform(0, 0.12) * spacing
    y = np.arange(size, dtype=np.float32)[:, None] + warp * _smooth(rng, size, spacing / 2)
    x = np.arange(size, dtype=np.float32)[None, :] + warp * _smooth(rng, size, spacing / 2)
    near = np.full((2, size, size), 1e6, np.float32)
    who = np.zeros((2, size, size), np.int64)
    for i, seed in enumerate(seeds):
        low, high = (np.clip(seed + s * 2 * spacing, 0, size).astype(int) for s in (-1, 1))
        window = slice(low[0], high[0]), slice(low[1], high[1])
        d = (y[window] - np.float32(seed[0])) ** 2 + (x[window] - np.float32(seed[1])) ** 2
        (d1, d2), (w1, w2) = near[:, *window], who[:, *window]
        first, second = d < d1, d < d2
        np.copyto(d2, d, where=second)
        np.copyto(w2, i, where=second)
        np.copyto(d2, d1, where=first)
        np.copyto(w2, w1, where=first)
        np.copyto(d1, d, where=first)
        np.copyto(w1, i, where=first)
    apart = np.hypot(*np.moveaxis(seeds[who[0]] - seeds[who[1]], -1, 0))
    return who[0], np.asarray((near[1] - near[0]) / (2 * np.maximum(apart, 1)), dtype=np.float32)


@_scene
def _packed_cells(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Epithelium: packed cells with a stained membrane, or stained cytoplasm and dark gaps; some cells missing."""
    size = config.size
    spacing = _log_uniform(rng, 16, 90) * size / 256
    cell, border = _voronoi(rng, size, spacing)
    number = int(cell.max()) + 1
    gap = rng.choice([0.0, 0.5, 1.0]) if rng.random() < 0.7 else rng.uniform(1, 0.08 * spacing + 1)
    tissue = _smooth(rng, size, size / 3)
    area = np.bincount(cell.ravel())
    centres = np.bincount(cell.ravel(), tissue.ravel()) / np.maximum(area, 1)
    absent = ~(centres > rng.uniform(-3, 0)) | (rng.random(number) < rng.uniform(0, 0.15))
    present = ~absent[cell]
    width = rng.uniform(0.7, 1 + 0.05 * spacing)
    rim = np.exp(-((border / width) ** 2))
    levels = rng.uniform(0.3, 0.8) * (1 + rng.uniform(0, 0.3) * rng.standard_normal(number))
    inner = levels[cell] * (1 + rng.uniform(0, 0.2) * _smooth(rng, size, rng.uniform(2, 8)))
    if rng.random() < 0.5:  # membrane: strength varies along it
        strength = np.clip(0.8 + 0.25 * _smooth(rng, size, spacing / 2), 0.2, 1.3)
        image = present * (rng.uniform(0.1, 0.5) * inner * (1 - rim) + strength * rim)
    else:
        image = present * inner * np.clip(border - gap + 0.5, 0, 1) * (1 - rng.uniform(0, 0.5) * rim)
    canvas = _Canvas(ndimage.gaussian_filter(image, 0.5) + _background(rng, size, 0.06))
    canvas.labels[:] = np.where(present & (border > gap), cell + 1, 0)
    canvas.count = number
    return canvas


@_scene
def _rings(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Tubules, crypts, vesicles: walls around a lumen, which is background."""
    size = config.size
    canvas = _Canvas(_background(rng, size, rng.uniform(0.1, 0.5)))
    wall, lumen = rng.uniform(0.55, 1), rng.choice([canvas.image.mean(), 0.05, rng.uniform(0, 0.5)])
    mottle = 1 + rng.uniform(0, 0.25) * _texture(rng, size)
    for radius in _radii(rng, config, rng.uniform(0.2, 0.6), smallest=1.6):
        centre = _centre(rng, size)
        shape = _blob(rng, size, centre, radius, 0.07)
        if canvas.overlap(shape) > 0.02:
            continue
        canvas.paint(shape, wall * rng.uniform(0.75, 1.2) * mottle[shape.window])
        canvas.mark(shape)
        holes = 1 if radius < 25 or rng.random() < 0.7 else int(rng.integers(2, 5))
        closed = rng.random() < 0.95
        for _ in range(holes):
            inner = radius * (rng.uniform(0.35, 0.8) if holes == 1 else rng.uniform(0.15, 0.3))
            shift = 0.3 * (radius - inner) if holes == 1 else 0.45 * radius
            hole = _blob(rng, size, np.clip(centre + rng.uniform(-shift, shift, 2), 0, size - 1), inner, 0.07, 1.25)
            if closed:
                hole = _intersection(size, hole, shape, max(1.5, 0.08 * radius))
            canvas.paint(hole, lumen)
            canvas.mark(hole, background=True)
    return canvas


@_scene
def _split(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Objects in two or three parts under one id, because something lies across them."""
    size = config.size
    canvas = _Canvas(_background(rng, size, rng.uniform(0.1, 0.5)))
    level, over = rng.uniform(0.5, 1), rng.uniform(0, 1)
    mottle = 1 + rng.uniform(0, 0.25) * _texture(rng, size)
    for radius in _radii(rng, config, rng.uniform(0.2, 0.5), smallest=2):
        centre = rng.uniform(0.1 * size, 0.9 * size, 2)
        shape = _blob(rng, size, centre, radius, 0.1, 2.5)
        if canvas.overlap(shape) > 0:
            continue
        canvas.paint(shape, level * rng.uniform(0.8, 1.2) * mottle[shape.window])
        canvas.mark(shape)
        bands = 1 if radius < 15 or rng.random() < 0.6 else 2
        heading = rng.uniform(0, 2 * np.pi)
        ahead = np.array([np.sin(heading), np.cos(heading)])
        for k in range(bands):
            shift = (k - (bands - 1) / 2) * 0.8 * radius + rng.uniform(-0.2, 0.2) * radius
            start = centre + shift * ahead[::-1] * [1, -1] - 2.2 * radius * ahead
            path = _path(rng, start, heading, 4.4 * radius, 0.02)
            half = max(1.5, radius * rng.uniform(0.06, 0.22))
            band = _tube(size, path, np.full(len(path), half))
            canvas.paint(band, over * (1 + 0.1 * mottle[band.window]))
            canvas.mark(band, background=True)
    return canvas


def _neuron(rng: np.random.Generator, size: int, reach: float, width: float) -> _Shape:
    """Cell body with tapering, branching processes."""
    centre = rng.uniform(0.1 * size, 0.9 * size, 2)
    soma = width * rng.uniform(0.8, 3)
    points, radii = [], []
    for _ in range(int(rng.integers(2, 6))):
        stem = _path(rng, centre, rng.uniform(0, 2 * np.pi), reach * rng.uniform(0.4, 1), 0.15)
        points.append(stem)
        radii.append(np.linspace(width / 2, max(0.9, width / 4), len(stem)))
        for _ in range(int(rng.integers(0, 3))):
            k = int(rng.integers(len(stem) // 4, len(stem)))
            heading = np.arctan2(*(stem[k] - stem[k - 1])) + rng.choice([-1, 1]) * rng.uniform(0.5, 1.2)
            twig = _path(rng, stem[k], heading, reach * rng.uniform(0.2, 0.5), 0.15)
            points.append(twig)
            radii.append(np.linspace(radii[-1][min(k, len(radii[-1]) - 1)], 0.9, len(twig)))
    tube = _tube(size, np.concatenate(points), np.concatenate(radii))
    return _union(size, [tube, _blob(rng, size, centre, max(soma, 2), 0.12)])


@_scene
def _neurites(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Neurons, glia, vessels: processes 2 to 6 pixels wide that cross and branch."""
    size = config.size
    canvas = _Canvas(_background(rng, size, rng.uniform(0.02, 0.3)))
    beads = 1 + rng.uniform(0, 0.25) * _smooth(rng, size, 3)
    for _ in range(int(rng.integers(1, 6))):
        shape = _neuron(rng, size, _log_uniform(rng, 20, 110) * size / 256, rng.uniform(2, 6))
        bright = rng.uniform(0.4, 1) * (0.7 + 0.3 * np.clip(shape.distance / 4, 0, 1))
        canvas.paint(shape, bright * beads[shape.window])
        canvas.mark(shape)
    return canvas


@_scene
def _rods(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Bacteria and filaments: curved rods, also in bundles."""
    size = config.size
    canvas = _Canvas(_background(rng, size, rng.uniform(0.05, 0.4)))
    half = _log_uniform(rng, 2, 9) * size / 256
    dome, bundle = rng.uniform(0, 0.8), rng.uniform(0, np.pi)
    order, bend, level = rng.uniform(0.1, 3), rng.uniform(0, 0.3) / half, rng.uniform(0.5, 1)
    for _ in range(int(rng.integers(3, config.max_objects + 3))):
        length = half * rng.uniform(2, 14)
        path = _path(rng, _centre(rng, size), bundle + order * rng.standard_normal(), length, bend)
        path = path[:: max(1, int(half / 2))]
        shape = _tube(size, path, np.full(len(path), half * rng.uniform(0.85, 1.15)))
        if canvas.overlap(shape) > 0.02:
            continue
        height = 1 - dome + dome * np.sqrt(np.clip(shape.distance / half, 0, 1))
        canvas.paint(shape, level * rng.uniform(0.8, 1.2) * height)
        canvas.mark(shape)
    return canvas


@_scene
def _crystals(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Crystals and grains: facetted polygons, the later ones on top, some translucent."""
    size = config.size
    canvas = _Canvas(_background(rng, size, rng.uniform(0.1, 0.6)))
    clear, bevel, edge = rng.uniform(0.6, 1), rng.uniform(0.1, 0.5), rng.uniform(-0.4, 0.4)
    grain = rng.uniform(0, 0.08) * _texture(rng, size)
    for radius in _radii(rng, config, rng.uniform(0.2, 0.8), smallest=1.3):
        shape, facet = _polygon(rng, size, _centre(rng, size), radius)
        shades = np.append(rng.uniform(0.2, 1, int(facet.max()) + 1), rng.uniform(0.4, 0.9))
        top = shape.distance > bevel * radius
        value = np.where(top, shades[-1], shades[facet.astype(int)] * 0.5 + 0.5 * shades[-1])
        value = value + edge * np.exp(-(np.maximum(shape.distance, 0) / 1.5)) + grain[shape.window]
        canvas.paint(shape, value, clear)
        canvas.mark(shape)
    return canvas


@_scene
def _particles(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Electron micrographs of particles: bright edges and shading (SEM), or shadows that add up (TEM)."""
    size = config.size
    transmission, tilt = rng.random() < 0.4, rng.normal(0, 0.25, 2)
    canvas = _Canvas(_background(rng, size, rng.uniform(0.6, 0.9) if transmission else rng.uniform(0.05, 0.4)))
    facetted, roughness, edge = rng.random() < 0.35, rng.uniform(0.01, 0.12), rng.uniform(0.1, 0.6)
    base, grain = rng.uniform(0.3, 0.7), rng.uniform(0, 0.1) * _smooth(rng, size, rng.uniform(1, 4))
    for radius in _radii(rng, config, rng.uniform(0.3, 1.1), largest=0.7):
        centre = _centre(rng, size)
        shape = _polygon(rng, size, centre, radius)[0] if facetted else _blob(rng, size, centre, radius, roughness)
        if canvas.overlap(shape) > 0.75:
            continue
        depth = np.clip(shape.distance / radius, 0, 1)
        if transmission:
            dark = np.exp(-rng.uniform(0.5, 1.6) * np.sqrt(depth + 0.1)) + grain[shape.window]
            canvas.paint(shape, canvas.image[shape.window] * dark)
        else:
            y, x = np.ogrid[shape.window]
            shading = (tilt[0] * (y - centre[0]) + tilt[1] * (x - centre[1])) / radius
            glow = edge * np.exp(-np.maximum(shape.distance, 0) / (0.1 * radius + 1))
            canvas.paint(shape, base * rng.uniform(0.85, 1.15) * (1 + shading) + glow + grain[shape.window])
        canvas.mark(shape)
    return canvas


@_scene
def _textured(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Regions that differ from their surroundings in texture only; the mean is the same."""
    size = config.size
    contrast = rng.uniform(0.08, 0.2)
    canvas = _Canvas(0.5 + contrast * _texture(rng, size))
    shared = _texture(rng, size)
    for radius in _radii(rng, config, rng.uniform(0.15, 0.5), smallest=3)[:8]:
        shape = _blob(rng, size, _centre(rng, size), radius, rng.uniform(0.03, 0.2), 2)
        if canvas.overlap(shape) > 0.1:
            continue
        texture = _texture(rng, size) if rng.random() < 0.3 else shared
        canvas.paint(shape, 0.5 + contrast * texture[shape.window])
        canvas.mark(shape)
    return canvas


@_scene
def _ultrasound(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Ultrasound: multiplicative speckle wider across the beam, log compression, a sector of view, bright walls."""
    size = config.size
    canvas = _Canvas(np.exp(0.35 * _smooth(rng, size, size / 6)) * 0.4)
    for radius in _radii(rng, config, rng.uniform(0.15, 0.4), smallest=5)[:4]:
        shape = _blob(rng, size, _centre(rng, size), radius, rng.uniform(0.03, 0.12), 2)
        if canvas.overlap(shape) > 0:
            continue
        echo = rng.choice([0.02, 0.1, 0.2, 1.2])
        wall = rng.uniform(0, 1.2) * np.exp(-((shape.distance / 2.5) ** 2)) * (_smooth(rng, size, 20) > 0)[shape.window]
        canvas.paint(shape, echo * np.exp(0.2 * _smooth(rng, size, 15))[shape.window])
        canvas.image[shape.window] += wall
        canvas.mark(shape)
    scatter = rng.standard_normal((2, size, size), dtype=np.float32)
    grain = rng.uniform(0.6, 1.6)
    scatter = ndimage.gaussian_filter(scatter, (0, grain, grain * rng.uniform(1.2, 2.5)))
    envelope = np.hypot(*scatter) * canvas.image
    image = np.log1p(envelope / envelope.mean() * rng.uniform(2, 12))
    image *= 1 - rng.uniform(0, 0.5) * np.linspace(0, 1, size)[:, None] ** 2
    canvas.image = np.asarray(image / image.max(), dtype=np.float32)
    if rng.random() < 0.5:
        y, x = np.mgrid[0.1 : 1.1 : size * 1j, -0.5 : 0.5 : size * 1j]
        view = (np.abs(np.arctan2(x, y)) < rng.uniform(0.5, 0.8)) & (np.hypot(x, y) < rng.uniform(0.95, 1.1))
        canvas.image *= view
        canvas.labels *= view
    return canvas


@_scene
def _scanner(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """MRI or CT slice: a body with organs of low contrast, some with a wall, under a bias field."""
    size = config.size
    canvas = _Canvas(np.full((size, size), 0.03))
    middle = size / 2 + rng.uniform(-0.08, 0.08, 2) * size
    body = _blob(rng, size, middle, size * rng.uniform(0.4, 0.75), 0.05, 1.5)
    canvas.paint(body, rng.uniform(0.6, 0.95))  # fat
    tissue = _Shape(body.window, body.distance - rng.uniform(2, 12))
    level = rng.uniform(0.3, 0.55)
    canvas.paint(tissue, level * (1 + 0.12 * _smooth(rng, size, rng.uniform(5, 20)))[tissue.window])
    for radius in _radii(rng, config, rng.uniform(0.2, 0.6), largest=0.8, smallest=1.5)[:14]:
        shape = _blob(rng, size, middle + rng.normal(0, 0.22 * size, 2).clip(-size / 3, size / 3), radius, 0.07, 1.8)
        around = _Shape(shape.window, shape.distance + min(2.5, 0.2 * radius))
        if canvas.overlap(around) > 0:
            continue
        value = level + rng.choice([-1, 1]) * rng.uniform(0.08, 0.4)
        if rng.random() < 0.4:  # wall of the other contrast: ventricle, cyst, bladder
            canvas.paint(around, 2 * level - value)
        canvas.paint(shape, value * (1 + 0.05 * _smooth(rng, size, 8)[shape.window]))
        canvas.mark(shape)
        for _ in range(int(rng.integers(0, 3)) * int(radius > 12)):  # papillary muscles and the like belong to it
            turn = rng.uniform(0, 2 * np.pi)
            inner = _mid(shape) + 0.6 * radius * np.array([np.sin(turn), np.cos(turn)])
            muscle = _blob(rng, size, np.clip(inner, 0, size - 1), radius * rng.uniform(0.08, 0.18))
            canvas.paint(muscle, level, 0.8)
    bias = np.exp(rng.uniform(0, 0.35) * _smooth(rng, size, size / 1.5))
    canvas.image = np.asarray(ndimage.gaussian_filter(canvas.image, rng.uniform(0.3, 1.2)) * bias, dtype=np.float32)
    return canvas


def _mid(shape: _Shape) -> NDArray[np.float64]:
    return np.array([(s.start + s.stop - 1) / 2 for s in shape.window])


@_scene
def _histology(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Stained sections in RGB: nuclei and stroma absorb as two dyes (H&E or DAB) after Beer and Lambert."""
    size = config.size
    dyes = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]) if rng.random() < 0.8 else None
    dyes = np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]]) if dyes is None else dyes
    dyes = np.clip(dyes + rng.normal(0, 0.05, (2, 3)), 0.01, 1.1)
    fibres = 0.5 * _texture(rng, size) + 0.8 * _smooth(rng, size, rng.uniform(6, 25))
    eosin = _Canvas(np.clip(rng.uniform(0.2, 0.5) * (1 + 0.35 * fibres), 0.02, 1.5))
    gaps = np.clip(3 * (_smooth(rng, size, size / 6) - rng.uniform(1, 2.5)), 0, 1)
    eosin.image *= 1 - 0.95 * gaps
    haem = _Canvas(0.25 * eosin.image)
    chromatin = 1 + rng.uniform(0.1, 0.35) * _smooth(rng, size, rng.uniform(1.5, 4))
    rim, dark, roughness = rng.uniform(0, 0.5), rng.uniform(0.5, 1.3), rng.uniform(0.04, 0.12)
    for radius in _radii(rng, config, rng.uniform(0.15, 0.45), largest=0.3):
        shape = _blob(rng, size, _centre(rng, size), radius, roughness, 2.2)
        if haem.overlap(shape) > 0.08:
            continue
        edge = 1 + rim * np.exp(-np.maximum(shape.distance, 0) / 1.2)
        haem.paint(shape, dark * rng.uniform(0.6, 1.2) * edge * chromatin[shape.window])
        eosin.paint(shape, 0.15)
        haem.mark(shape)
    absorbed = np.clip(haem.image, 0, 3)[..., None] * dyes[0] + eosin.image[..., None] * dyes[1]
    canvas = _Canvas(rng.uniform(0.88, 1) * np.exp(-absorbed))
    canvas.labels, canvas.count = haem.labels, haem.count
    return canvas


def _amoeboid(rng: np.random.Generator, size: int, radius: float) -> _Shape:
    """Adherent cell: a rough body with some tapering protrusions."""
    centre = _centre(rng, size)
    parts = [_blob(rng, size, centre, radius * 0.8, 0.15, 3)]
    for _ in range(int(rng.integers(0, 5))):
        path = _path(rng, centre, rng.uniform(0, 2 * np.pi), radius * rng.uniform(1, 2), 0.05)[::2]
        thick = max(1.5, radius * rng.uniform(0.15, 0.45))
        parts.append(_tube(size, path, np.linspace(thick, 1.0, len(path))))
    return _union(size, parts)


@_scene
def _phase_contrast(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Phase contrast (halo, shade-off) or DIC (relief), a filter of the optical thickness: grey inside as outside."""
    size = config.size
    canvas = _Canvas(np.zeros((size, size)))
    organelles = _smooth(rng, size, rng.uniform(1.5, 4))
    flat, rough = rng.uniform(0.2, 0.8), rng.uniform(0.02, 0.25)
    for radius in _radii(rng, config, rng.uniform(0.1, 0.6), largest=0.5, smallest=1.8)[:25]:
        shape = _amoeboid(rng, size, radius)
        if canvas.overlap(shape) > 0.05:
            continue
        dome = flat + (1 - flat) * np.clip(shape.distance / (0.6 * radius), 0, 1)
        canvas.paint(shape, rng.uniform(0.6, 1.2) * dome * (1 + rough * organelles[shape.window]))
        canvas.mark(shape)
    phase = ndimage.gaussian_filter(canvas.image, rng.uniform(0.4, 1))
    if rng.random() < 0.25:
        turn = rng.uniform(0, 2 * np.pi)
        gy, gx = np.gradient(ndimage.gaussian_filter(phase, 0.8))
        signal = 1.5 * (np.sin(turn) * gy + np.cos(turn) * gx)
    else:
        halo = rng.uniform(2, 8)
        signal = -(phase - rng.uniform(0.75, 1.05) * ndimage.gaussian_filter(phase, halo))
    canvas.image = np.asarray(0.5 + rng.uniform(0.35, 0.8) * signal + 0.02 * _smooth(rng, size, 60), dtype=np.float32)
    return canvas


@_scene
def _ultrastructure(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Electron micrograph of tissue: dark membranes, mitochondria with cristae; the labels are one or the other."""
    size = config.size
    spacing = _log_uniform(rng, 30, 110) * size / 256
    cell, border = _voronoi(rng, size, spacing)
    cytoplasm = (rng.uniform(0.6, 0.85, int(cell.max()) + 1))[cell] + 0.05 * _smooth(rng, size, 2)
    membrane = np.exp(-((border / rng.uniform(0.8, 1.8)) ** 2))
    canvas = _Canvas(cytoplasm * (1 - rng.uniform(0.5, 0.9) * membrane))
    cristae, dark = _texture(rng, size), rng.uniform(0.3, 0.55)
    for radius in rng.uniform(0.1, 0.3, int(rng.integers(2, 14))) * spacing:
        centre = _centre(rng, size)
        shape = _blob(rng, size, centre, max(3.5, radius), 0.06, 3)
        depth = np.minimum(shape.distance, border[shape.window] - 2)
        shape = _Shape(shape.window, depth)
        if canvas.overlap(shape) > 0:
            continue
        rim = np.exp(-((np.maximum(depth, 0) / 1.2) ** 2))
        canvas.paint(shape, dark + 0.1 * cristae[shape.window] - 0.2 * rim)
        canvas.mark(shape)
    if rng.random() < 0.4:
        canvas.labels[:] = np.where(border > rng.choice([0.0, 1.0]), cell + 1, 0)
    return canvas


@_scene
def _clutter(rng: np.random.Generator, config: SyntheticConfig) -> _Canvas:
    """Photographs in RGB: objects of several colours and textures in front of each other, shaded, sharing colours."""
    size = config.size
    textures = [_texture(rng, size) for _ in range(2)] + [_smooth(rng, size, 30)]
    palette = [_colour(rng) for _ in range(int(rng.integers(2, 6)))]
    canvas = _Canvas(palette[0] + 0.12 * textures[2][..., None] * _colour(rng) + 0.06 * textures[0][..., None])
    for radius in np.sort(_radii(rng, config, rng.uniform(0.5, 1.2), smallest=3))[::-1][:16]:
        centre = _centre(rng, size)
        if rng.random() < 0.35:
            shape = _polygon(rng, size, centre, radius)[0]
        elif rng.random() < 0.5:
            shape = _blob(rng, size, centre, radius, 0.15, 2)
        else:
            shape = _amoeboid(rng, size, radius)
        y, x = np.ogrid[shape.window]
        tilt = rng.normal(0, 0.25, 2)
        light = 1 + (tilt[0] * (y - centre[0]) + tilt[1] * (x - centre[1])) / radius
        pattern = rng.uniform(0, 0.2) * textures[int(rng.integers(3))][shape.window]
        other = rng.random() < 0.3
        colour = palette[int(rng.integers(len(palette)))] + rng.normal(0, 0.05, 3)
        stripe = (pattern > 0)[..., None] * rng.normal(0, 0.25, 3) if other else 0
        canvas.paint(shape, colour * light[..., None] + pattern[..., None] + stripe)
        canvas.mark(shape)
    return canvas


# ---------------------------------------------------------------------------------------------------- camera


def _over(plane: Field, image: Field) -> Field:
    return plane[..., None] if image.ndim == 3 else plane


def _tinted(rng: np.random.Generator, image: Field) -> Field:
    """Grey image as RGB: plain, or in the colour of a fluorescent dye on a background of another."""
    if rng.random() < 0.4:
        return np.repeat(image[..., None], 3, -1)
    dark, bright = rng.uniform(0, 0.15, 3), rng.uniform(0.1, 1, 3)
    return np.asarray(dark + image[..., None] * (bright / bright.max()), dtype=np.float32)


def _uneven_light(rng: np.random.Generator, image: Field, strength: float) -> Field:
    light = np.exp(strength * rng.uniform(0.1, 0.5) * _smooth(rng, image.shape[0], image.shape[0] / 1.5))
    return np.asarray(image * _over(light, image), dtype=np.float32)


def _gamma(rng: np.random.Generator, image: Field, strength: float) -> Field:
    low, high = float(image.min()), float(image.max())
    power = np.exp(strength * rng.uniform(-0.6, 0.6))
    return np.asarray(((image - low) / (high - low + 1e-6)) ** power, dtype=np.float32)


def _inverted(_: np.random.Generator, image: Field, _strength: float) -> Field:
    return image if image.ndim == 3 else np.asarray(image.max() + image.min() - image)


def _blurred(rng: np.random.Generator, image: Field, strength: float) -> Field:
    sigma = strength * _log_uniform(rng, 0.4, 2.2)
    return np.asarray(ndimage.gaussian_filter(image, (sigma, sigma, 0)[: image.ndim]))


def _speckled(rng: np.random.Generator, image: Field, strength: float) -> Field:
    grain = _smooth(rng, image.shape[0], rng.uniform(0.8, 2))
    return image * _over(np.clip(1 + strength * rng.uniform(0.05, 0.35) * grain, 0, None), image)


def _camera_noise(rng: np.random.Generator, image: Field, strength: float) -> Field:
    photons = _log_uniform(rng, 20, 3000) / strength
    shot = np.sqrt(np.clip(image, 0, None) / photons) * rng.standard_normal(image.shape, dtype=np.float32)
    read = strength * _log_uniform(rng, 0.003, 0.06) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image + shot + read, dtype=np.float32)


def _hot_pixels(rng: np.random.Generator, image: Field, _strength: float) -> Field:
    image = image.copy()
    y, x = rng.integers(0, image.shape[0], (2, int(rng.integers(1, 40))))
    image[y, x] = image.max() * rng.uniform(0.8, 1.2)
    return image


def _saturated(rng: np.random.Generator, image: Field, strength: float) -> Field:
    low, high = np.quantile(image, [strength * rng.uniform(0, 0.1), 1 - strength * rng.uniform(0.002, 0.06)])
    return np.clip(image, low, max(high, low + 1e-3))


def _jpeg(rng: np.random.Generator, image: Field, strength: float) -> Field:
    """Quantise the cosine coefficients of 8 x 8 blocks, the high ones more coarsely."""
    high, wide = (n - n % 8 for n in image.shape[:2])
    blocks = image[:high, :wide].reshape(high // 8, 8, wide // 8, 8, *image.shape[2:])
    k = np.arange(8, dtype=np.float32)
    step = strength * _log_uniform(rng, 0.01, 0.06) * (1 + k[:, None] + k)
    step = step.reshape(1, 8, 1, 8, *(1,) * (image.ndim - 2))
    waves = np.rint(fft.dctn(blocks, axes=(1, 3), norm="ortho") / step) * step
    out = image.copy()
    out[:high, :wide] = fft.idctn(waves, axes=(1, 3), norm="ortho").reshape(high, wide, *image.shape[2:])
    return out


# in the order in which light meets specimen, optics, sensor and file
_DEGRADATIONS: tuple[tuple[float, Callable[[np.random.Generator, Field, float], Field]], ...] = (
    (0.20, _inverted),
    (0.35, _uneven_light),
    (0.15, _speckled),
    (0.55, _blurred),
    (0.75, _camera_noise),
    (0.30, _gamma),
    (0.05, _hot_pixels),
    (0.15, _saturated),
    (0.15, _jpeg),
)


def _degraded(rng: np.random.Generator, image: Field, strength: float) -> Field:
    for probability, step in _DEGRADATIONS:
        if rng.random() < probability:
            image = step(rng, image, strength)
    return image


def _digitised(rng: np.random.Generator, image: Field) -> NDArray[Any]:
    """As a file would hold it: 8 bit, 16 bit on some offset with few or many grey levels, or float of any range."""
    low, high = (float(v) for v in np.quantile(image, [0.001, 0.999]))
    unit = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    choice = rng.random()
    if choice < 0.6 or (image.ndim == 3 and choice < 0.9):
        bottom, top = (0, 255) if rng.random() < 0.6 else (rng.uniform(0, 90), rng.uniform(140, 255))
        return np.asarray(np.rint(bottom + unit * (top - bottom)), dtype=np.uint8)
    if choice < 0.85:
        span, offset = _log_uniform(rng, 60, 60000), rng.uniform(0, 1000)
        return np.asarray(np.rint(np.minimum(offset + unit * span, 65535)), dtype=np.uint16)
    scale, shift = _log_uniform(rng, 0.01, 1000), float(rng.normal()) * (rng.random() < 0.5)
    return np.asarray((unit + shift) * scale, dtype=np.float32)


def _tidied(labels: Labels, min_area: int) -> Labels:
    """Drop crumbs that later shapes left over and objects hardly visible; number the rest from 1."""
    parts = connected_components(labels, connectivity=1)
    areas = np.bincount(parts.ravel())
    whole = np.bincount(labels.ravel())
    kept = np.where(areas[parts] >= np.maximum(4, 0.01 * whole[labels]), labels, 0)
    visible = np.bincount(kept.ravel(), minlength=len(whole)) >= min_area
    visible[0] = False
    return np.asarray((np.cumsum(visible) * visible)[kept], dtype=np.uint16)
