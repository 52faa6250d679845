"""Outlines of masks: polygons along pixel edges, runs of pixels, and polygons from sub-pixel contours.

Positions are (y, x) with pixel *corners* at integers, so the pixel with index ``i`` covers ``[i, i + 1)``: what QuPath,
ImageJ and COCO use, half a pixel more than the pixel centres at integers of the rest of the package. A polygon along
pixel edges holds the centres of exactly the pixels that it was traced from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Ring = npt.NDArray[Any]

_LEFT = _UP = 0
_RIGHT = _DOWN = 1


@dataclass(frozen=True, eq=False)
class Polygon:
    """A connected region with holes, valid as OGC simple features define it.

    Parameters
    ----------
    shell : array, shape (N, 2)
        Outer ring, (y, x), the last position not repeated; x to y turning, so that the shoelace formula over (x, y)
        is positive.
    holes : tuple of array
        Inner rings, turning the other way.
    """

    shell: Ring
    holes: tuple[Ring, ...] = ()

    @property
    def rings(self) -> tuple[Ring, ...]:
        """Shell and holes."""
        return (self.shell, *self.holes)


def trace(mask: npt.ArrayLike, origin: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Polygons along the pixel edges of a mask.

    Parts that touch at a corner only are polygons of their own, and no ring visits a corner twice: readers that
    refuse self-touching rings (JTS in QuPath, GEOS) take them as they are.

    Parameters
    ----------
    mask : bool array, shape (h, w)
        Pixels of one object.
    origin : (y, x) of int
        Position of ``mask[0, 0]`` in the plane.

    Returns
    -------
    list of Polygon
        One per 4-connected part, integer positions; only places where the outline turns.

    Raises
    ------
    ValueError
        If the mask is not two-dimensional.
    """
    from scipy.ndimage import label

    pixels = np.asarray(mask, dtype=bool)
    if pixels.ndim != 2:
        raise ValueError(f"mask must be 2D, got shape {pixels.shape}; trace one plane at a time")
    padded = np.pad(pixels, 1)
    parts: IntArray = label(padded)[0]
    shells: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {}
    for part, loop in _loops(padded, parts):
        for ring in _simple(loop):
            corners = np.asarray(ring, dtype=np.int64)
            placed = corners + origin
            if _area(corners) > 0:
                shells[part] = placed
            else:
                holes.setdefault(part, []).append(placed)
    return [Polygon(shell, tuple(holes.get(part, ()))) for part, shell in sorted(shells.items())]


def _loops(padded: BoolArray, parts: IntArray) -> list[tuple[int, list[tuple[int, int]]]]:
    """Closed ways around the parts of a mask, which lie on their right; with the number of the part."""
    y, x, side, end = _corners(padded)
    if len(y) == 0:
        return []
    # In each row the turns pair up to horizontal pieces of outline, in each column to vertical ones.
    along_row = np.lexsort((side, x, y)).reshape(-1, 2)
    along_column = np.lexsort((end, y, x)).reshape(-1, 2)
    opposite = np.empty(len(y), dtype=np.int64)
    opposite[along_column[:, 0]], opposite[along_column[:, 1]] = along_column[:, 1], along_column[:, 0]
    below = padded[y[along_row[:, 0]] + 1, x[along_row[:, 0]] + 1]  # then the way leads to the right
    start = np.where(below, along_row[:, 0], along_row[:, 1])
    stop = np.where(below, along_row[:, 1], along_row[:, 0])
    successor = np.empty(len(y), dtype=np.int64)
    successor[start] = opposite[stop]
    number = np.zeros(len(y), dtype=np.int64)
    number[start] = parts[y[along_row[:, 0]] + below, x[along_row[:, 0]] + 1]
    turn = np.empty(len(y), dtype=np.int64)
    turn[start] = stop
    places = list(zip(y.tolist(), x.tolist(), strict=True))
    following, turns, seen, loops = successor.tolist(), turn.tolist(), set(), []
    for first in start.tolist():
        loop, at = [], first
        while at not in seen:
            seen.add(at)
            loop += [places[at], places[turns[at]]]
            at = following[at]
        if loop:
            loops.append((int(number[first]), loop))
    return loops


def _corners(padded: BoolArray) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Where the outline turns: (y, x), whether it runs left or right from there, and up or down.

    Where two pixels touch at a corner only, it turns twice, around each of them.
    """
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    left, right = upper_left ^ lower_left, upper_right ^ lower_right
    up = upper_left ^ upper_right
    single = left ^ right
    crossed = (upper_left == lower_right) & (upper_right == lower_left) & left
    ys, xs = np.nonzero(single)
    saddle_y, saddle_x = np.nonzero(crossed)
    falling = upper_left[saddle_y, saddle_x]  # the pixels lie upper left and lower right
    side = [np.where(right[ys, xs], _RIGHT, _LEFT), np.full(len(saddle_y), _LEFT), np.full(len(saddle_y), _RIGHT)]
    end = [np.where(up[ys, xs], _UP, _DOWN), np.where(falling, _UP, _DOWN), np.where(falling, _DOWN, _UP)]
    y, x = (np.concatenate([plain, saddle, saddle]) for plain, saddle in ((ys, saddle_y), (xs, saddle_x)))
    return y, x, np.concatenate(side), np.concatenate(end)


def _simple(loop: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Rings without repeated places that together are the loop."""
    rings: list[list[tuple[int, int]]] = []
    way: list[tuple[int, int]] = []
    position: dict[tuple[int, int], int] = {}
    for place in loop:
        if place in position:
            cut = position[place]
            rings.append(way[cut:])
            for left in way[cut:]:
                del position[left]
            del way[cut:]
        position[place] = len(way)
        way.append(place)
    return [*rings, way]


def _area(ring: Ring) -> float:
    """Signed area by the shoelace formula over (x, y)."""
    y, x = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def from_contours(contours: Sequence[npt.ArrayLike]) -> list[Polygon]:
    """Polygons from closed contour lines that do not cross, as `Prediction.contours` gives them.

    Parameters
    ----------
    contours : sequence of array, each of shape (N, 2)
        (y, x) with pixel *centres* at integers. A line inside an odd number of others is a hole.

    Returns
    -------
    list of Polygon
        With pixel corners at integers.

    Raises
    ------
    ValueError
        If a line is not a finite (N, 2) array of three or more different positions.
    """
    rings = [_ring(line) for line in contours]
    around = [[j for j, other in enumerate(rings) if j != i and _holds(other, ring)] for i, ring in enumerate(rings)]
    inner: dict[int, list[Ring]] = {}
    for i, outer in enumerate(around):
        if len(outer) % 2:
            nearest = max(outer, key=lambda j: len(around[j]))
            inner.setdefault(nearest, []).append(_turned(rings[i], -1))
    return [
        Polygon(_turned(ring, 1), tuple(inner.get(i, ()))) for i, ring in enumerate(rings) if len(around[i]) % 2 == 0
    ]


def _ring(line: npt.ArrayLike) -> Ring:
    """One checked contour line in corner coordinates, its last position not repeated."""
    ring = np.asarray(line, dtype=np.float64)
    if ring.ndim == 2 and len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError(
            f"a contour must hold three or more finite positions (y, x), got an array of shape {ring.shape}; "
            "leave it out to export the pixel edges"
        )
    return ring + 0.5


def _turned(ring: Ring, sign: int) -> Ring:
    return ring if _area(ring) * sign > 0 else ring[::-1]


def _holds(ring: Ring, other: Ring) -> bool:
    """Whether a ring lies around another one, by the crossings to the right of a position of that (even-odd rule)."""
    y, x = other[0]
    (y0, x0), (y1, x1) = ring.T, np.roll(ring, -1, axis=0).T
    crossed = (y0 > y) != (y1 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        where = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
    return bool(np.count_nonzero(crossed & (where > x)) % 2)


def column_runs(mask: npt.ArrayLike, origin: tuple[int, int], shape: tuple[int, int]) -> list[int]:
    """Lengths of alternating runs of background and object, column after column.

    Parameters
    ----------
    mask : bool array, shape (h, w)
        Pixels of one object.
    origin : (y, x) of int
        Position of ``mask[0, 0]`` in the plane.
    shape : (int, int)
        Of the plane.

    Returns
    -------
    list of int
        Uncompressed counts as COCO defines them; the first counts background and may be 0.
    """
    columns = np.pad(np.asarray(mask, dtype=np.int8).T, ((0, 0), (1, 1)))
    steps = np.diff(columns, axis=1)
    offset = origin[0] + origin[1] * shape[0]
    starts, stops = (
        column * shape[0] + row + offset for column, row in (np.nonzero(steps == 1), np.nonzero(steps == -1))
    )
    joined = np.flatnonzero(starts[1:] == stops[:-1])  # a run may reach over the end of a column
    edges = np.stack([np.delete(starts, joined + 1), np.delete(stops, joined)], axis=1).ravel()
    return [int(n) for n in np.diff(edges, prepend=0, append=shape[0] * shape[1])]
