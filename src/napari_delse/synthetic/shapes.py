"""Implicit shapes, smooth noise and textures: what the synthetic scenes are painted with.

A shape is a distance function on a window of the image. The image is rendered antialiased from it, the labels by its
sign at each pixel centre, so that a label's boundary is the intended one and not that of a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Field = NDArray[np.float32]
Labels = NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """What a scene is drawn by; lengths are in pixels."""

    size: int = 256  # height and width of the image
    min_diameter: float = 8.0  # of the smallest objects
    max_diameter: float = 200.0  # of the largest objects
    max_objects: int = 40  # upper bound for scenes that place objects one by one


@dataclass(frozen=True)
class Shape:
    """An implicit shape on a window of the image; distance in pixels, positive inside, exact only near zero."""

    window: tuple[slice, slice]
    distance: Field

    @property
    def coverage(self) -> Field:
        """Covered part of each pixel."""
        return np.asarray(np.clip(self.distance + 0.5, 0, 1))


class Canvas:
    """Image and labels being painted, later shapes on top."""

    def __init__(self, image: NDArray[Any]) -> None:
        self.image = np.array(image, dtype=np.float32)
        self.labels = np.zeros(image.shape[:2], np.uint16)
        self.count = 0

    def overlap(self, shape: Shape) -> float:
        """Part of the shape that is already labelled."""
        inside = shape.distance > 0
        return float(np.mean(self.labels[shape.window][inside] > 0)) if inside.any() else 1.0

    def paint(self, shape: Shape, value: Any, alpha: float = 1.0) -> None:
        """Blend a value, a colour or a patch into the image."""
        cover = shape.coverage * alpha
        view = self.image[shape.window]
        if view.ndim == 3:
            cover = cover[..., None]
            value = np.asarray(value)[..., None] if np.shape(value) == view.shape[:2] else value
        view += cover * (value - view)

    def mark(self, shape: Shape, background: bool = False) -> None:
        """Label the shape by its pixel centres, or clear what lies below it."""
        self.count += not background
        self.labels[shape.window][shape.distance > 0] = 0 if background else self.count


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between the bounds whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def object_radii(
    rng: np.random.Generator, config: SceneConfig, fill: float, largest: float = 1.0, smallest: float = 1.0
) -> Field:
    """Radii of the objects of one scene: one typical size, and as many as fill this part of the image."""
    scale = config.size / 256
    low, high = scale * config.min_diameter / 2 * smallest, scale * config.max_diameter / 2 * largest
    typical = log_uniform(rng, min(low, high), high)
    n = int(np.clip(fill * config.size**2 / (np.pi * typical**2), 2, config.max_objects))
    spread = rng.uniform(0.05, 0.5)
    return np.clip(typical * np.exp(spread * rng.standard_normal(n)), min(low, high), high).astype(np.float32)


def window_around(
    size: int, centre: NDArray[np.float64], reach: float
) -> tuple[tuple[slice, slice], NDArray[Any], NDArray[Any]]:
    """Window around a centre and the coordinates relative to it."""
    low = np.clip(np.floor(centre - reach - 2), 0, size - 4).astype(int)
    high = np.clip(np.ceil(centre + reach + 3), low + 4, size).astype(int)
    y = np.arange(low[0], high[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(low[1], high[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    return (slice(low[0], high[0]), slice(low[1], high[1])), y, x


def normalised(f: NDArray[Any]) -> Field:
    """Make an implicit function a distance near its zero level; the clip guards its centre, where it is singular."""
    gy, gx = np.gradient(f)
    return np.asarray(f / np.clip(np.hypot(gy, gx), 0.4, 2.5), dtype=np.float32)


def random_centre(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A position (y, x) anywhere in a square image."""
    return rng.uniform(0, size - 1, 2)


def blob(
    rng: np.random.Generator,
    size: int,
    centre: NDArray[np.float64],
    radius: float,
    roughness: float = 0.1,
    elongation: float = 1.6,
    margin: float = 0.0,
) -> Shape:
    """Ellipse of random elongation, its radius perturbed by Fourier modes 2 to 7; the margin widens the window."""
    ratio = np.sqrt(rng.uniform(1, elongation))
    window, y, x = window_around(size, centre, radius * ratio * (1 + 2.5 * roughness) + margin)
    turn = rng.uniform(0, np.pi)
    u = (np.cos(turn) * y + np.sin(turn) * x) / ratio
    v = (np.cos(turn) * x - np.sin(turn) * y) * ratio
    angles = np.linspace(-np.pi, np.pi, 721)
    modes = np.arange(2, 8)
    amplitudes = roughness * rng.standard_normal(6) * 1.5 / modes
    table = 1 + amplitudes @ np.cos(modes[:, None] * angles + rng.uniform(0, 2 * np.pi, (6, 1)))
    bearing = np.arctan2(u, v)
    reach = np.clip(table, 0.25, 2).astype(np.float32)[((bearing + np.pi) * (720 / (2 * np.pi))).astype(int)]
    return Shape(window, normalised(radius * reach - np.hypot(u, v)))


def polygon(rng: np.random.Generator, size: int, centre: NDArray[np.float64], radius: float) -> tuple[Shape, Field]:
    """Convex polygon as an intersection of half planes, and for each pixel the number of its nearest edge."""
    n = int(rng.integers(3, 9))
    turn = rng.uniform(0, 2 * np.pi) + 2 * np.pi / n * (np.arange(n) + rng.uniform(-0.25, 0.25, n))
    stretch = rng.uniform(0.35, 1)
    window, y, x = window_around(size, centre, 2 * radius)
    away = radius * rng.uniform(0.55, 0.95, n) * np.sqrt(stretch**2 + (1 - stretch**2) * np.cos(turn - turn[0]) ** 2)
    planes = away[:, None, None] - (np.sin(turn)[:, None, None] * y + np.cos(turn)[:, None, None] * x)
    limit = 1.9 * radius - np.hypot(y, x)
    return Shape(window, np.minimum(planes.min(0), limit).astype(np.float32)), planes.argmin(0).astype(np.float32)


def wandering_path(
    rng: np.random.Generator, start: NDArray[Any], heading: float, length: float, wiggle: float
) -> NDArray[Any]:
    """Points half a pixel apart on a curve whose curvature wanders."""
    n = max(4, int(2 * length))
    bend = ndimage.gaussian_filter1d(rng.standard_normal(n), 12, mode="nearest")
    turn = heading + 0.5 * wiggle * np.cumsum(bend)
    return np.asarray(start + 0.5 * np.cumsum(np.stack([np.sin(turn), np.cos(turn)], 1), 0))


def tube(size: int, points: NDArray[Any], radii: NDArray[Any]) -> Shape:
    """Union of discs along curves whose points are half a pixel apart."""
    step = np.cumsum(0.5 / np.sqrt(np.maximum(0.4 * radii, 0.25)))  # discs as sparse as 0.05 pixel of ripple allows
    kept = np.diff(np.floor(step), prepend=-1) > 0
    kept[-1] = True
    points, radii = points[kept], radii[kept]
    reach = int(np.ceil(radii.max())) + 2
    low = np.clip(np.floor(points.min(0)) - reach, 0, size - 4).astype(int)
    high = np.clip(np.ceil(points.max(0)) + reach + 1, low + 4, size).astype(int)
    flat = np.full(int(np.prod(high - low)), -4, np.float32)
    offset = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    cells = np.rint(points).astype(int)[:, None] + offset
    depth = radii[:, None] - np.hypot(*np.moveaxis(cells - points[:, None], -1, 0))
    keep = (depth > -3) & np.all((cells >= low) & (cells < high), -1)
    y, x = cells[keep].T - low[:, None]
    np.maximum.at(flat, y * (high - low)[1] + x, depth[keep].astype(np.float32))
    return Shape((slice(low[0], high[0]), slice(low[1], high[1])), flat.reshape(high - low))


def union(shapes: list[Shape]) -> Shape:
    """Union of shapes, on their common window."""
    low = np.min([[s.start for s in shape.window] for shape in shapes], 0)
    high = np.max([[s.stop for s in shape.window] for shape in shapes], 0)
    whole = np.full(high - low, -4, np.float32)
    for shape in shapes:
        view = whole[tuple(slice(s.start - a, s.stop - a) for s, a in zip(shape.window, low, strict=True))]
        np.maximum(view, shape.distance, out=view)
    return Shape((slice(low[0], high[0]), slice(low[1], high[1])), whole)


def intersection(size: int, shape: Shape, other: Shape, margin: float = 0.0) -> Shape:
    """Part of a shape that lies in another one, at least this far from its border."""
    whole = np.full((size, size), -4, np.float32)
    whole[other.window] = other.distance
    return Shape(shape.window, np.minimum(shape.distance, whole[shape.window] - margin))


def smooth(rng: np.random.Generator, size: int, scale: float) -> Field:
    """Smooth noise of this feature size, mean 0 and standard deviation 1."""
    n = int(size / scale) + 4
    place = (np.arange(size) / scale + 1 + rng.random())[:, None] - np.arange(n)
    spread = np.exp(-1.4 * place**2).astype(np.float32)
    noise = spread @ rng.standard_normal((n, n), dtype=np.float32) @ spread.T
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6))


def random_texture(rng: np.random.Generator, size: int, style: int | None = None) -> Field:
    """Noise through a band-pass filter: 0 grating, 1 fibres, 2 mottle, 3 grain; mean 0 and deviation 1."""
    style = int(rng.integers(4)) if style is None else style
    u, v = fft.fftfreq(size)[:, None].astype(np.float32), fft.rfftfreq(size)[None, :].astype(np.float32)
    turn, centre = rng.uniform(0, np.pi), 1 / log_uniform(rng, 3, 16)
    along, across = np.cos(turn) * v + np.sin(turn) * u, np.cos(turn) * u - np.sin(turn) * v
    if style == 0:
        exponent = ((np.abs(along) - centre) / 0.015) ** 2 + (across / 0.03) ** 2
    elif style == 1:
        exponent = (along / 0.12) ** 2 + (across / 0.015) ** 2
    elif style == 2:
        exponent = ((np.hypot(u, v) - centre) / 0.03) ** 2
    else:
        exponent = (u**2 + v**2) / rng.uniform(0.1, 0.4) ** 2
    spectrum = fft.rfft2(rng.standard_normal((size, size), dtype=np.float32)) * np.exp(-exponent).astype(np.float32)
    noise = fft.irfft2(spectrum, (size, size))
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), dtype=np.float32)


def uneven_background(rng: np.random.Generator, size: int, level: float) -> Field:
    """Uneven background with some debris."""
    image = level * (1 + rng.uniform(0, 0.15) * smooth(rng, size, size / 3))
    for _ in range(int(rng.integers(0, 12)) * int(rng.random() < 0.4)):
        spot = blob(rng, size, random_centre(rng, size), rng.uniform(0.7, 2.5))
        image[spot.window] += spot.coverage * rng.uniform(-0.15, 0.4)
    return np.asarray(image, dtype=np.float32)


def voronoi(rng: np.random.Generator, size: int, spacing: float) -> tuple[NDArray[np.int64], Field]:
    """Cell number of each pixel and its distance to the border with the next cell, in warped space."""
    n = int(np.ceil(size / spacing)) + 2
    jitter = rng.uniform(0.15, 0.42)
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2) - 0.5
    grid[:, 1] += 0.5 * (np.floor(grid[:, 0]) % 2)
    seeds = (grid + rng.uniform(-jitter, jitter, grid.shape)) * spacing
    warp = rng.uniform(0, 0.12) * spacing
    y = np.arange(size, dtype=np.float32)[:, None] + warp * smooth(rng, size, spacing / 2)
    x = np.arange(size, dtype=np.float32)[None, :] + warp * smooth(rng, size, spacing / 2)
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


def neuron(rng: np.random.Generator, size: int, reach: float, width: float) -> Shape:
    """Cell body with tapering, branching processes."""
    centre = rng.uniform(0.1 * size, 0.9 * size, 2)
    points, radii = [], []
    n = int(rng.integers(2, 7))
    for k in range(n):
        heading = 2 * np.pi * (k + rng.uniform(-0.3, 0.3)) / n
        stem = wandering_path(rng, centre, heading, reach * rng.uniform(0.4, 1.2), 0.08)
        points.append(stem)
        trunk = width / 2 * (1 + rng.uniform(0.5, 2) * np.exp(-np.arange(len(stem)) / (6 * width)))  # cone at the body
        radii.append(np.maximum(trunk * np.linspace(1, 0.6, len(stem)), 0.9))
        for _ in range(int(rng.integers(0, 3))):
            at = int(rng.integers(len(stem) // 4, len(stem)))
            heading = np.arctan2(*(stem[at] - stem[at - 1])) + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
            twig = wandering_path(rng, stem[at], heading, reach * rng.uniform(0.2, 0.6), 0.1)
            points.append(twig)
            radii.append(np.linspace(max(0.9, 0.3 * width), 0.9, len(twig)))
    processes = tube(size, np.concatenate(points), np.concatenate(radii))
    return union([processes, blob(rng, size, centre, max(2.0, width * rng.uniform(0.8, 2.5)), 0.1)])


def amoeboid(rng: np.random.Generator, size: int, radius: float) -> Shape:
    """Adherent cell: a spindle or a rough body, with some tapering protrusions."""
    centre = random_centre(rng, size)
    axis = rng.uniform(0, 2 * np.pi)
    parts = [blob(rng, size, centre, radius * rng.uniform(0.5, 0.8), 0.12, 2)]
    for k in range(int(rng.integers(1, 5))):
        heading = axis + np.pi * k + rng.normal(0, 0.4) if k < 2 else rng.uniform(0, 2 * np.pi)
        path = wandering_path(rng, centre, heading, radius * rng.uniform(1, 2.2), 0.05)
        along = np.linspace(0, 1, len(path))
        thick = radius * rng.uniform(0.3, 0.7) * (1 - along) ** rng.uniform(0.8, 2)
        parts.append(tube(size, path, np.maximum(thick, 1)))
    return union(parts)
