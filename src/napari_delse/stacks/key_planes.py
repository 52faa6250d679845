"""Labelled key planes of a file, and what is to do to carry their objects through the other planes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_delse.data.files import ImageFile, open_image
from napari_delse.data.images import Plane
from napari_delse.geometry import ObjectMask
from napari_delse.propagation.planes import objects_of, propagate
from napari_delse.stacks.coarse import match_planes, tiles
from napari_delse.stacks.planes import BlockKey, FoundObject, Index, Pieces, flat, unflat

_NOTHING = ObjectMask(np.zeros((0, 0), bool), (0, 0))


@dataclass(frozen=True)
class CarryTask:
    """The planes from one key plane to the next.

    Parameters
    ----------
    first, last : int
        Positions along the axis: a key plane if there is one before them, and the planes up to the next one.
    keys : tuple of int
        Key planes before and after, one or two.
    at : tuple of int
        Position on the plane axes of the image; the one along the axis is replaced.
    axis : int
        Which of them objects are carried along.
    labels, axes : str
        The file of the key planes and its axes.
    channels : tuple of int
        To look at.
    """

    first: int
    last: int
    keys: tuple[int, ...]
    at: Index
    axis: int
    labels: str
    axes: str
    channels: tuple[int, ...]

    @property
    def planes(self) -> tuple[Index, ...]:
        """Its planes."""
        return tuple(self._index(place) for place in range(self.first, self.last + 1))

    def _index(self, place: int) -> Index:
        return (*self.at[: self.axis], place, *self.at[self.axis + 1 :])

    def predict(self, predictor: Any, image: ImageFile) -> list[Pieces]:
        """Carry the objects of its key planes through its planes; a block for each plane."""
        line = _Line(image, self._index, image.plane_counts[self.axis], self.channels)
        counts, done = image.plane_counts, []
        with open_image(self.labels, self.axes) as opened:
            labels = opened.unmapped()
            places = match_planes(labels, image)
            keys = {key: partial(_plane, labels, places, self._index(key)) for key in self.keys}
            for plane in propagate(predictor, line, keys, only=range(self.first, self.last + 1)):
                index = self._index(plane.index)
                masks = objects_of(plane.labels)
                # Those that ended here have no pixels, but a reason.
                found = [
                    FoundObject(one.label, index, masks.get(one.label, _NOTHING), one.confidence, 0.0, one.review)
                    for one in plane.objects
                    if one.label in masks or one.review
                ]
                number = flat(index, counts)
                done.append(((number, number, 0, 1), found))
        return done


class KeyPlanes:
    """The key planes of a label image.

    Parameters
    ----------
    labels : ImageFile
        Label image with the planes of ``image``; 0 in all planes that are no key planes.
    image : ImageFile
        The image to segment.
    channels : tuple of int
        Its channels to look at.
    along : str, optional
        Axis to carry objects along; by default the only one with several planes, else Z, else T.
    keys : tuple of int
        Key planes along it; by default those with labels.

    Raises
    ------
    ValueError
        If the two do not match, or there is no such axis or no key plane.
    """

    def __init__(
        self,
        labels: ImageFile,
        image: ImageFile,
        channels: tuple[int, ...] = (),
        *,
        along: str | None = None,
        keys: tuple[int, ...] = (),
    ) -> None:
        self._labels, self._image, self._channels = labels, image, channels
        self._places = match_planes(labels, image)
        self._axis = _axis(image, along)
        image.plane((0,) * len(image.plane_counts), channels)
        self._keys = self._found(keys)

    def planes(self) -> Sequence[int]:
        counts = self._image.plane_counts
        if len(self._keys) * counts[self._axis] == math.prod(counts):
            return range(math.prod(counts))
        tasks = (task for at, keys in self._keys.items() for task in self._line(at, keys))
        return sorted(flat(index, counts) for task in tasks for index in task.planes)

    def tasks(self, done: Collection[BlockKey]) -> Iterator[CarryTask]:
        counts = self._image.plane_counts
        for at, keys in self._keys.items():
            for task in self._line(at, keys):
                numbers = (flat(index, counts) for index in task.planes)
                if any((number, number, 0, 1) not in done for number in numbers):
                    yield task

    def _line(self, at: Index, keys: Sequence[int]) -> Iterator[CarryTask]:
        count = self._image.plane_counts[self._axis]
        path, axes = str(self._labels.path.absolute()), self._labels.axes
        firsts = [*([0] if keys[0] else []), *keys, count]
        for first, following in pairwise(firsts):
            beside = tuple(key for key in (first, following) if key in keys)
            yield CarryTask(first, following - 1, beside, at, self._axis, path, axes, self._channels)

    def _found(self, wanted: tuple[int, ...]) -> dict[Index, list[int]]:
        """Key planes by their position on the other axes."""
        counts = self._image.plane_counts
        if wrong := [key for key in wanted if not 0 <= key < counts[self._axis]]:
            letter, last = self._image.plane_axes[self._axis], counts[self._axis] - 1
            raise ValueError(f"key planes along {letter} lie in 0..{last} of {self._image.path}, got {wrong[0]}")
        found: dict[Index, list[int]] = {}
        for number in range(math.prod(counts)):
            index = unflat(number, counts)
            place = index[self._axis]
            if place in wanted or (not wanted and self._labelled(index)):
                found.setdefault((*index[: self._axis], 0, *index[self._axis + 1 :]), []).append(place)
        if not found:
            raise ValueError(f"{self._labels.path} has no labelled plane to propagate from; label one or more planes")
        return found

    def _labelled(self, index: Index) -> bool:
        return any(window.any() for _, window in tiles(self._labels, _there(self._places, index)))


class _Line(Sequence[Plane]):
    """The planes of an image along an axis."""

    def __init__(self, image: ImageFile, index: Any, count: int, channels: tuple[int, ...]) -> None:
        self._image, self._index, self._count, self._channels = image, index, count, channels

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        return self._image.plane(self._index(range(self._count)[place]), self._channels)


def _axis(image: ImageFile, along: str | None) -> int:
    """Which plane axis objects are carried along."""
    several = [axis for axis, n in zip(image.plane_axes, image.plane_counts, strict=True) if n > 1]
    if along is not None:
        if along.upper() not in image.plane_axes:
            raise ValueError(
                f"--along {along}: {image.path} has planes along {' and '.join(image.plane_axes) or 'no axis'}; "
                "name one of them, or the image's axes with --axes"
            )
        return image.plane_axes.index(along.upper())
    if len(several) != 1:
        several = [axis for axis in "ZT" if axis in several][:1]
    if not several:
        raise ValueError(
            f"{image.path} with the axes {image.axes} has no stack of planes to propagate along; name one with --along"
        )
    return image.plane_axes.index(several[0])


def _there(places: tuple[int | None, ...], index: Index) -> Index:
    """Position in the labels of a position in the image."""
    return tuple(0 if place is None else index[place] for place in places)


def _plane(labels: ImageFile, places: tuple[int | None, ...], index: Index) -> npt.NDArray[Any]:
    window: npt.NDArray[Any] = labels.plane(_there(places, index)).window(0, 0, *labels.plane_shape)[0]
    return window.view(np.uint8) if window.dtype.kind == "b" else window
