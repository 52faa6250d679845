"""Coarse labels of another tool as prompts: their extreme points, found tile by tile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from napari_delse.data.files import ImageFile
from napari_delse.data.images import ArrayLike
from napari_delse.data.prompts import ObjectPrompt, check_values
from napari_delse.geometry import ExtremePoints
from napari_delse.stacks.planes import Index, Item, unflat

_TILE = 2**22  # pixels looked at at once
_DENSE = 2**20  # labels up to this are looked up in a table
_SIDES = ((0, False), (1, False), (0, True), (1, True))  # top, left, bottom, right: axis, and whether the largest

IntArray = npt.NDArray[np.int64]


class CoarseLabels:
    """The objects of a label image, each with its extreme points, plane by plane as they are asked for.

    Parameters
    ----------
    labels : ImageFile
        Label image with the planes of ``image``; axes that it lacks have length 1 there.
    image : ImageFile
        The image to segment.
    channels : tuple of int
        Its channels to look at.

    Raises
    ------
    ValueError
        If the two do not match.
    """

    def __init__(self, labels: ImageFile, image: ImageFile, channels: tuple[int, ...] = ()) -> None:
        self._labels, self._counts, self._channels = labels, image.plane_counts, channels
        self._axes = match_planes(labels, image)
        image.plane((0,) * len(self._counts), channels)  # channels that do not exist are named before any work is done

    def planes(self) -> Sequence[int]:
        return range(math.prod(self._counts))

    def at(self, plane: int) -> Sequence[Item]:
        index = unflat(plane, self._counts)
        there = tuple(0 if place is None else index[place] for place in self._axes)
        return [
            (ObjectPrompt(label, index, prompt), self._channels)
            for label, prompt in extreme_points(self._labels, there).items()
        ]


def match_planes(labels: ImageFile, image: ImageFile) -> tuple[int | None, ...]:
    """For each plane axis of a label image, which plane axis of the image it is; None for one of length 1.

    Raises
    ------
    ValueError
        If they have not the same planes, or the labels are no labels.
    """
    if labels.channel_axis is not None and labels.data.shape[labels.channel_axis] > 1:
        raise ValueError(f"{labels.path} has the axes {labels.axes}, but labels have no channels; give a label image")
    if labels.data.dtype.kind not in "biu":
        raise ValueError(
            f"{labels.path} holds {labels.data.dtype}, but labels are whole numbers; save them as integers"
        )
    lengths = dict(zip(image.plane_axes, image.plane_counts, strict=True))
    own = dict(zip(labels.plane_axes, labels.plane_counts, strict=True))
    # Plain TIFF names its planes only I or Q: where just the names differ, order and lengths decide.
    if set(own) != set(lengths) and labels.plane_counts == image.plane_counts:
        places: tuple[int | None, ...] = tuple(range(len(own)))
    else:
        places = tuple(image.plane_axes.index(axis) if axis in lengths else None for axis in own)
        missing = {axis: n for axis, n in lengths.items() if axis not in own and n > 1}
        wrong = {axis: n for axis, n in own.items() if n != lengths.get(axis, 1)}
        if missing or wrong:
            raise ValueError(_mismatch(labels, image))
    if labels.plane_shape != image.plane_shape:
        raise ValueError(_mismatch(labels, image))
    return places


def _mismatch(labels: ImageFile, image: ImageFile) -> str:
    return (
        f"{labels.path} with {tuple(labels.data.shape)} pixels along {labels.axes} does not fit {image.path} with "
        f"{tuple(image.data.shape)} along {image.axes}; labels need the image's planes, all of them and of equal size"
    )


def extreme_points(labels: ImageFile, index: Index) -> Mapping[int, ExtremePoints]:
    """The extreme points of each label of a plane, as `ExtremePoints.from_mask` finds them; by rising label.

    Parameters
    ----------
    labels : ImageFile
        A label image.
    index : tuple of int
        Position on its plane axes.
    """
    found: dict[int, list[tuple[int, IntArray]]] = {}
    for (top, left), window in tiles(labels, index):
        for label, ys, xs in _pixels(labels, window):
            positions = ys + top, xs + left
            known = found.get(label)
            sides = [_side(positions, axis, largest) for axis, largest in _SIDES]
            found[label] = (
                sides
                if known is None
                else [_outer(a, b, largest) for a, b, (_, largest) in zip(known, sides, _SIDES, strict=True)]
            )
    return {label: _prompt(found[label]) for label in sorted(found)}


def tiles(labels: ImageFile, index: Index) -> Iterator[tuple[tuple[int, int], npt.NDArray[Any]]]:
    """A plane in windows of some million pixels, along its chunks where it has any; with their (y, x) origins."""
    plane, (height, width) = labels.plane(index), labels.plane_shape
    rows, columns = _tile_shape(labels, height, width)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            bottom, right = min(top + rows, height), min(left + columns, width)
            yield (top, left), plane.window(top, left, bottom, right)[0]


def _tile_shape(labels: ImageFile, height: int, width: int) -> tuple[int, int]:
    data: ArrayLike = labels.data
    if height * width <= _TILE:
        return height, width
    chunks = getattr(data, "chunks", None)
    if not chunks:
        return max(1, _TILE // width), width
    rows, columns = (chunks[labels.axes.index(axis)] for axis in "YX")
    columns *= max(1, min(-(-width // columns), int(math.sqrt(_TILE)) // columns))
    return rows * max(1, _TILE // (rows * columns)), columns


def _pixels(labels: ImageFile, window: npt.NDArray[Any]) -> Iterator[tuple[int, IntArray, IntArray]]:
    """Label and pixel positions of the objects in a window."""
    if window.dtype.kind == "b":
        window = window.view(np.uint8)
    smallest, largest = int(window.min()), int(window.max())
    check_values((smallest, largest), str(labels.path))
    if largest == 0:
        return
    values: npt.NDArray[Any] | None = None
    if largest > _DENSE:  # find_objects lists all numbers up to the largest
        values, numbers = np.unique(window, return_inverse=True)
        window = numbers.reshape(window.shape) + (0 if values[0] == 0 else 1)
        values = values if values[0] == 0 else np.concatenate([[0], values])
    for number, place in enumerate(find_objects(window.astype(np.int32, copy=False)), 1):
        if place is not None:
            ys, xs = np.nonzero(window[place] == number)
            yield int(number if values is None else values[number]), ys + place[0].start, xs + place[1].start


def _side(positions: tuple[IntArray, IntArray], axis: int, largest: bool) -> tuple[int, IntArray]:
    """The outermost row or column, and where its pixels lie in it."""
    along, across = positions[axis], positions[1 - axis]
    end = int(along.max() if largest else along.min())
    return end, across[along == end]


def _outer(a: tuple[int, IntArray], b: tuple[int, IntArray], largest: bool) -> tuple[int, IntArray]:
    if a[0] == b[0]:
        return a[0], np.concatenate([a[1], b[1]])
    return max(a, b, key=lambda side: side[0]) if largest else min(a, b, key=lambda side: side[0])


def _prompt(sides: Sequence[tuple[int, IntArray]]) -> ExtremePoints:
    points = []
    for (axis, _), (end, across) in zip(_SIDES, sides, strict=True):
        middle = int(np.sort(across)[len(across) // 2])
        points.append((float(end), float(middle)) if axis == 0 else (float(middle), float(end)))
    if len(set(points)) < 2:  # a single pixel has no extent
        return ExtremePoints.from_mask(np.ones((1, 1), bool), points[0])
    return ExtremePoints(tuple(points))
