"""Labelled key planes of a file, and what is to do to carry their objects through the other planes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_delse.data.files import ImageFile, open_image
from napari_delse.data.images import Plane
from napari_delse.propagation.planes import propagate
from napari_delse.propagation.shapes import EMPTY
from napari_delse.stacks.coarse import match_planes, tiles
from napari_delse.stacks.planes import BlockKey, FoundObject, Index, Pieces, flat, unflat
from napari_delse.stacks.work_folder import decode

_LEG = 8  # planes beyond the outermost key planes that are one task


@dataclass(frozen=True)
class CarryTask:
    """The planes from one key plane to the next, or a few of those beyond the outermost ones.

    Parameters
    ----------
    first, last : int
        Positions along the axis: a key plane if there is one right before them, and the planes up to the next one.
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
    since : int, optional
        The finished plane from which they follow; by default a key plane.
    objects : bytes
        Its objects, encoded.
    """

    first: int
    last: int
    keys: tuple[int, ...]
    at: Index
    axis: int
    labels: str
    axes: str
    channels: tuple[int, ...]
    since: int | None = None
    objects: bytes = b""

    @property
    def planes(self) -> tuple[Index, ...]:
        """Its planes."""
        return tuple(self.index(place) for place in range(self.first, self.last + 1))

    def index(self, place: int) -> Index:
        """A plane by its position along the axis."""
        return (*self.at[: self.axis], place, *self.at[self.axis + 1 :])

    def predict(self, predictor: Any, image: ImageFile) -> list[Pieces]:
        """Carry the objects of its key planes through its planes; a block for each plane."""
        line = _Line(image, self.index, image.plane_counts[self.axis], self.channels)
        counts, done = image.plane_counts, []
        with open_image(self.labels, self.axes) as opened:
            labels = opened.unmapped()
            places = match_planes(labels, image)
            keys = {key: partial(_plane, labels, places, self.index(key)) for key in self.keys}
            shapes = {one.label: one.mask for one in decode(self.objects) if one.mask.area} if self.objects else {}
            since = {} if self.since is None else {self.since: shapes}
            for plane in propagate(predictor, line, keys, only=range(self.first, self.last + 1), since=since):
                index = self.index(plane.index)
                # Those that ended here have no pixels, but a reason.
                found = [
                    FoundObject(one.label, index, plane.masks.get(one.label, EMPTY), one.confidence, 0.0, one.review)
                    for one in plane.objects
                    if one.label in plane.masks or one.review
                ]
                number = flat(index, counts)
                done.append(((number, number, 0, 1), found))
        return done


class _Tasks(NamedTuple):
    """The tasks of one line of planes."""

    between: list[CarryTask]  # between key planes
    beyond: list[list[CarryTask]]  # before the first and after the last one: chains, each task from the one before


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
        lines = [self._line(at, keys) for at, keys in self._keys.items()]
        tasks = [task for line in lines for task in (*line.between, *chain.from_iterable(line.beyond))]
        return sorted(flat(index, counts) for task in tasks for index in task.planes)

    def tasks(self, done: Collection[BlockKey], load: Callable[[BlockKey], bytes]) -> Iterator[CarryTask | None]:
        lines = [self._line(at, keys) for at, keys in self._keys.items()]
        # Of planes beyond the outermost keys, only the next few can be done at a time: they come first.
        legs = [deque(tasks) for line in lines for tasks in line.beyond]
        between = (task for line in lines for task in line.between if not self._is_done(task, done))
        begun: set[CarryTask] = set()
        while True:
            ready = self._ready(legs, done, begun) or next(between, None)
            if ready is not None:
                begun.add(ready)
                yield ready if ready.since is None else replace(ready, objects=load(self._block(ready, ready.since)))
            elif any(legs):
                yield None
            else:
                return

    def _ready(
        self, legs: Sequence[deque[CarryTask]], done: Collection[BlockKey], begun: Collection[CarryTask]
    ) -> CarryTask | None:
        """The next planes of some chain, if those before them are done."""
        for leg in legs:
            while leg and self._is_done(leg[0], done):
                leg.popleft()
            if leg and leg[0] not in begun:
                return leg[0]
        return None

    def _is_done(self, task: CarryTask, done: Collection[BlockKey]) -> bool:
        return all(self._block(task, place) in done for place in range(task.first, task.last + 1))

    def _block(self, task: CarryTask, place: int) -> BlockKey:
        number = flat(task.index(place), self._image.plane_counts)
        return number, number, 0, 1

    def _line(self, at: Index, keys: Sequence[int]) -> _Tasks:
        count = self._image.plane_counts[self._axis]
        path, axes = str(self._labels.path.absolute()), self._labels.axes
        task = partial(CarryTask, at=at, axis=self._axis, labels=path, axes=axes, channels=self._channels)
        first, final = keys[0], keys[-1]
        down = [
            task(max(0, last - _LEG + 1), last, (first,), since=None if last == first - 1 else last + 1)
            for last in range(first - 1, -1, -_LEG)
        ]
        up = [
            task(start, min(count, start + _LEG) - 1, (final,), since=None if start == final else start - 1)
            for start in range(final, count, _LEG)
        ]
        return _Tasks([task(a, b - 1, (a, b)) for a, b in pairwise(keys)], [down, up])

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
