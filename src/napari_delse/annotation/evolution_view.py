"""What there is to see of an evolution, in coordinates of the plane: moving contours, motion field, modulation, phi.

Nothing here needs a window or a network: a front end asks for a picture in a worker and hands its arrays to layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from napari_delse.geometry import Crop

Float32Array = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float64]

ARROWS = 16  # along each side of the crop
_PIXELS = 256  # of a field along each side, at most
_STANDING = 0.02  # arrows shorter than this part of the longest one are left out


class Evolved(Protocol):
    """What is shown of a `predict.Prediction`."""

    @property
    def crop(self) -> Crop: ...
    @property
    def states(self) -> tuple[Float32Array, ...]: ...
    @property
    def motion(self) -> Float32Array: ...
    @property
    def modulation(self) -> Float32Array: ...
    @property
    def plane_shape(self) -> tuple[int, int]: ...
    @property
    def threshold(self) -> float: ...
    def contours(self, step: int = -1) -> list[npt.NDArray[np.float64]]: ...


@dataclass(frozen=True, eq=False)
class Raster:
    """Pixels that lie in a plane, each on one or several of its pixels.

    Parameters
    ----------
    values : float32 array, shape (h, w)
        What is shown.
    origin : (float, float)
        Plane position (y, x) of the centre of ``values[0, 0]``.
    step : (int, int)
        Distance of neighbouring values along y and x, plane pixels.
    """

    values: Float32Array
    origin: tuple[float, float]
    step: tuple[int, int]


@dataclass(frozen=True, eq=False)
class EvolutionPicture:
    """One evolution, ready to be drawn.

    Parameters
    ----------
    contours : tuple of arrays, each of shape (N, 2, 2)
        Of phi_0 .. phi_T: line segments as (start, way), plane pixels (y, x).
    arrows : array, shape (M, 2, 2)
        The motion field V as (start, way per unit of time), plane pixels (y, x).
    modulation : Raster or None
        m; None if the crop lies outside the plane.
    phi : tuple of Raster or None
        phi_0 .. phi_T, network pixels; empty if they were not asked for.
    """

    contours: tuple[Vectors, ...]
    arrows: Vectors
    modulation: Raster | None
    phi: tuple[Raster | None, ...] = ()


def picture_of(
    prediction: Evolved, *, with_phi: bool = False, is_wanted: Callable[[], bool] = lambda: True
) -> EvolutionPicture | None:
    """Make the picture of a prediction; None as soon as it is not wanted any more.

    Parameters
    ----------
    prediction : Prediction
        With all its states.
    with_phi : bool
        Whether phi itself is to be seen.
    is_wanted : callable
        Asked after every state, also from another thread.
    """
    contours, phi = [], []
    for step, state in enumerate(prediction.states):
        if not is_wanted():
            return None
        contours.append(segments(prediction.contours(step)))
        if with_phi:
            phi.append(raster(state, prediction.crop, prediction.plane_shape))
    arrows = motion_arrows(prediction.motion, prediction.crop)
    modulation = raster(prediction.modulation, prediction.crop, prediction.plane_shape)
    return EvolutionPicture(tuple(contours), arrows, modulation, tuple(phi))


def segments(lines: Sequence[npt.NDArray[np.float64]]) -> Vectors:
    """Lines of shape (N, 2) cut into segments (start, way), shape (M, 2, 2)."""
    pieces = [np.stack([line[:-1], np.diff(line, axis=0)], axis=1) for line in lines if len(line) > 1]
    return np.concatenate(pieces) if pieces else np.empty((0, 2, 2))


def motion_arrows(motion: Float32Array, crop: Crop, count: int = ARROWS) -> Vectors:
    """A motion field as count x count arrows, each the mean of its cell of the crop.

    Parameters
    ----------
    motion : float32 array, shape (2, size, size)
        V, (y, x) in network pixels per unit time.
    crop : Crop
        Where it lies in the plane.
    count : int
        Arrows along each side; fewer if the field has fewer pixels.

    Returns
    -------
    array, shape (M, 2, 2)
        (start, way per unit of time) in plane pixels; without arrows that hardly move.
    """
    size = motion.shape[-1]
    edges = np.linspace(0, size, min(count, size) + 1).round().astype(int)
    counts = np.diff(edges)
    sums = np.add.reduceat(np.add.reduceat(motion.astype(np.float64), edges[:-1], axis=1), edges[:-1], axis=2)
    way = np.moveaxis(sums / (counts[:, None] * counts), 0, -1).reshape(-1, 2) / crop.scale
    centres = (edges[:-1] + edges[1:] - 1) / 2
    start = crop.to_plane(np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2))
    length = np.hypot(*way.T)
    moving = length > max(_STANDING * length.max(), np.finfo(np.float32).tiny)
    arrows: Vectors = np.stack([start, way], axis=1)[moving]
    return arrows


def raster(field: Float32Array, crop: Crop, plane_shape: tuple[int, int]) -> Raster | None:
    """A field of the network at pixels of the plane, cut to the plane.

    Where the crop is large, not at every pixel. On the plane's own grid a viewer's axes stay as they are, which
    they would not with finer pixels.

    Parameters
    ----------
    field : float32 array, shape (size, size)
        phi or m.
    crop : Crop
        Where it lies in the plane.
    plane_shape : (int, int)
        Of the plane.

    Returns
    -------
    Raster or None
        None if the crop lies outside the plane.
    """
    axes = [
        _samples(size, start, length, limit)
        for size, start, length, limit in zip(field.shape, (crop.y0, crop.x0), crop.shape, plane_shape, strict=True)
    ]
    if any(len(axis.below) == 0 for axis in axes):
        return None
    rows, columns = axes
    lines = field[rows.below] * (1 - rows.part)[:, None] + field[rows.below + 1] * rows.part[:, None]
    values = lines[:, columns.below] * (1 - columns.part) + lines[:, columns.below + 1] * columns.part
    return Raster(values.astype(np.float32), (rows.origin, columns.origin), (rows.step, columns.step))


@dataclass(frozen=True, eq=False)
class _Samples:
    """Where one axis of a field is sampled: between which pixels, and how near to the second of them."""

    below: npt.NDArray[np.intp]
    part: Float32Array
    origin: float
    step: int


def _samples(size: int, start: int, length: int, limit: int) -> _Samples:
    first, last = max(start, 0), min(start + length, limit)
    step = max(1, math.ceil((last - first) / _PIXELS))
    places = np.arange(first, last - step + 1, step) + (step - 1) / 2
    where = ((places + 0.5 - start) * (size / length) - 0.5).clip(0, size - 1)
    below = np.minimum(where.astype(np.intp), size - 2)
    return _Samples(below, (where - below).astype(np.float32), first + (step - 1) / 2, step)
