"""Label planes of images and stacks from prompts, one plane at a time.

Work comes in blocks of some dozen objects, which may lie in one plane or in several. Blocks do not depend on each
other: they can be predicted in any order, on several threads or machines, and again, and always give the same masks.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from napari_delse.data.files import ImageFile
from napari_delse.data.images import Plane
from napari_delse.data.prompts import ObjectPrompt
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask

BLOCK = 32  # objects that are predicted together
_FARTHEST = 64  # planes of one block
UNSURE = 0.6  # expected IoU below which an object should be looked at

Index = tuple[int, ...]
Item = tuple[ObjectPrompt, tuple[int, ...]]


class Found(Protocol):
    """What a prediction must offer."""

    @property
    def mask(self) -> ObjectMask: ...
    @property
    def confidence(self) -> float: ...


class ManySegmenter(Protocol):
    """What labelling asks of a predictor; `napari_delse.predict.Predictor` is one."""

    def segment_across(
        self, items: Iterable[tuple[Plane, ExtremePoints, Sequence[Correction]]], /
    ) -> Iterator[Found]: ...


@dataclass(frozen=True, eq=False)
class FoundObject:
    """What became of one prompt.

    Parameters
    ----------
    label : int
        Its id.
    index : tuple of int
        Its plane.
    mask : ObjectMask
        Its pixels, also those that another object covers.
    confidence : float
        Expected IoU in [0, 1].
    milliseconds : float
        What it took.
    doubt : str
        Why a person should look at it; empty for no reason.
    """

    label: int
    index: Index
    mask: ObjectMask
    confidence: float
    milliseconds: float = 0.0
    doubt: str = ""


@dataclass(frozen=True, eq=False)
class LabelPlane:
    """One finished plane, kept as its objects; pixels are painted where they are asked for.

    Parameters
    ----------
    index : tuple of int
        Position on the plane axes of the image.
    shape : (int, int)
        (height, width).
    objects : tuple of FoundObject
        In the order they are painted.
    overwrite : bool
        Whether later objects paint over earlier ones; otherwise these are protected.
    """

    index: Index
    shape: tuple[int, int]
    objects: tuple[FoundObject, ...] = ()
    overwrite: bool = False

    @property
    def unsure(self) -> bool:
        """Whether a person should look at it."""
        return any(one.doubt or one.confidence < UNSURE for one in self.objects)

    def labels(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """All its pixels, (Y, X)."""
        return self.window(0, 0, *self.shape, dtype=dtype)

    def window(self, y0: int, x0: int, y1: int, x1: int, *, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The pixels ``[y0, y1) x [x0, x1)``, which must lie in the plane."""
        window = np.zeros((y1 - y0, x1 - x0), dtype)
        paint(window, (y0, x0), self.objects, overwrite=self.overwrite)
        return window


def paint(
    window: npt.NDArray[Any], origin: tuple[int, int], objects: Iterable[FoundObject], *, overwrite: bool = False
) -> list[int]:
    """Paint the parts of objects that lie in a window of their plane.

    Parameters
    ----------
    window : array, shape (h, w)
        Labels; changed.
    origin : (y, x) of int
        Position of ``window[0, 0]`` in the plane.
    objects : iterable of FoundObject
        In their order.
    overwrite : bool
        Whether they paint over labels that are there.

    Returns
    -------
    list of int
        How many pixels each object painted.
    """
    painted = []
    (y0, x0), (h, w) = origin, window.shape
    for one in objects:
        (top, left), (height, width) = one.mask.origin, one.mask.mask.shape
        low_y, high_y, low_x, high_x = max(top, y0), min(top + height, y0 + h), max(left, x0), min(left + width, x0 + w)
        if low_y >= high_y or low_x >= high_x:
            painted.append(0)
            continue
        mask = one.mask.mask[low_y - top : high_y - top, low_x - left : high_x - left]
        target = window[low_y - y0 : high_y - y0, low_x - x0 : high_x - x0]
        chosen = mask if overwrite else mask & (target == 0)
        target[chosen] = one.label
        painted.append(int(np.count_nonzero(chosen)))
    return painted


BlockKey = tuple[int, int, int, int]
"""First and last plane of a block, its part and the number of parts; see `Block`."""
Pieces = tuple[BlockKey, list[FoundObject]]
"""A finished block."""


class Block(NamedTuple):
    """Objects to predict together.

    Parameters
    ----------
    first, last : int
        Its first and last plane, counted through all plane axes; no other block has planes between them.
    part, parts : int
        Number of the block among those of its plane, if that has very many objects.
    planes : tuple of tuple of int
        Its planes that were asked for, also those without objects.
    items : tuple of (ObjectPrompt, channels)
        Its objects.
    """

    first: int
    last: int
    part: int
    parts: int
    planes: tuple[Index, ...]
    items: tuple[Item, ...]

    @property
    def key(self) -> BlockKey:
        """What tells it from others of the same work."""
        return self[:4]

    def predict(self, predictor: ManySegmenter, image: ImageFile) -> list[Pieces]:
        """Predict its objects, in their order; only the crops around them are read."""
        crops = ((image.plane(one.index, seen), one.prompt, one.corrections) for one, seen in self.items)
        results: list[FoundObject] = []
        start = time.perf_counter()
        for (one, _), found in zip(self.items, predictor.segment_across(crops), strict=True):
            confidence = float(found.confidence)
            milliseconds = (time.perf_counter() - start) * 1000
            results.append(FoundObject(one.label, one.index, found.mask, confidence, milliseconds))
            start = time.perf_counter()
        return [(self.key, results)]


class Task(Protocol):
    """What can be done at any time, on any machine, and again, with the same result."""

    @property
    def planes(self) -> tuple[Index, ...]:
        """The planes it looks at."""
        ...

    def predict(self, predictor: Any, image: ImageFile, /) -> list[Pieces]:
        """Do it."""
        ...


class Prompts(Protocol):
    """Where the objects of each plane come from: a table or coarse labels."""

    def planes(self) -> Sequence[int]:
        """The planes that may have objects, in rising order, counted through all plane axes."""
        ...

    def at(self, plane: int) -> Sequence[Item]:
        """The objects of one of them."""
        ...


class Table:
    """Prompts that a person made.

    Parameters
    ----------
    items : sequence of (ObjectPrompt, channels)
        From `fit_prompts`.
    counts : tuple of int
        `ImageFile.plane_counts`.
    """

    def __init__(self, items: Iterable[Item], counts: tuple[int, ...]) -> None:
        self._items: dict[int, list[Item]] = {}
        for item in items:
            self._items.setdefault(flat(item[0].index, counts), []).append(item)

    def planes(self) -> Sequence[int]:
        return sorted(self._items)

    def at(self, plane: int) -> Sequence[Item]:
        return self._items[plane]


def flat(index: Index, counts: tuple[int, ...]) -> int:
    """Number of a plane, counted through all plane axes."""
    return int(np.ravel_multi_index(index, counts)) if index else 0


def unflat(plane: int, counts: tuple[int, ...]) -> Index:
    """Position of a plane on the plane axes; the inverse of `flat`."""
    return tuple(int(i) for i in np.unravel_index(plane, counts)) if counts else ()


def fit_prompts(objects: Sequence[ObjectPrompt], image: ImageFile, channels: tuple[int, ...] = ()) -> list[Item]:
    """Match prompts with the axes of an image.

    Parameters
    ----------
    objects : sequence of ObjectPrompt
        With an index for each plane axis of the image, or for each axis but Y and X: napari counts the channels of
        a layer among its axes; then an object is looked at in the channel it was clicked in.
    image : ImageFile
        The image.
    channels : tuple of int
        Channels to look at instead.

    Returns
    -------
    list of (ObjectPrompt, tuple of int)
        Prompts with an index for each plane axis, and their channels.

    Raises
    ------
    ValueError
        If the axes do not match or a plane does not exist.
    """
    counts, axis = image.plane_counts, image.channel_axis
    names = " and ".join(image.plane_axes) or "no others"
    fitted = []
    for one in objects:
        index, seen = one.index, channels
        if axis is not None and image.axes[axis] == "C" and len(index) == len(counts) + 1:
            place = image.axes.replace("Y", "").replace("X", "").index("C")
            seen = seen or (index[place],)
            index = index[:place] + index[place + 1 :]
        elif not index and all(count == 1 for count in counts):
            index = (0,) * len(counts)
        if len(index) != len(counts):
            raise ValueError(
                f"prompts have {len(index)} position(s) before y and x, but {image.path} has the axes {image.axes} "
                f"(planes count along {names}); add or remove columns, or name the image's axes with --axes"
            )
        if any(not 0 <= i < n for i, n in zip(index, counts, strict=True)):
            raise ValueError(
                f"label {one.label} was clicked in plane {index}, but {image.path} has {counts} planes along {names}; "
                "is it the right image?"
            )
        fitted.append((ObjectPrompt(one.label, index, one.prompt, one.corrections), seen))
    image.plane((0,) * len(counts), channels)  # channels that do not exist are named before any work is done
    return fitted


def blocks_of(prompts: Prompts, counts: tuple[int, ...], done: Collection[BlockKey] = ()) -> Iterator[Block]:
    """Divide work into blocks, always in the same way.

    Parameters
    ----------
    prompts : Prompts
        The objects; asked plane by plane, and not for planes whose blocks are done.
    counts : tuple of int
        `ImageFile.plane_counts`.
    done : collection of (first, last, part, parts)
        Keys of blocks to leave out.
    """
    complete: dict[int, int] = {first: last for first, last, part, parts in done if parts == 1 and part == 0}
    for (first, last, parts), keys in groupby(sorted((f, e, n, part) for f, e, part, n in done), lambda k: k[:3]):
        if len(list(keys)) == parts:
            complete[first] = last
    pending: list[tuple[int, Sequence[Item]]] = []
    jumped = -1
    for plane in prompts.planes():
        if plane <= jumped:
            continue
        if not pending and plane in complete:
            jumped = complete[plane]
            continue
        items = prompts.at(plane)
        if len(items) > BLOCK and pending:
            yield _block(pending, counts)
            pending = []
        pending.append((plane, items))
        if len(items) > BLOCK:
            parts = -(-len(items) // BLOCK)
            for part in range(parts):
                if (plane, plane, part, parts) not in done:
                    yield _block([(plane, items[part * BLOCK : (part + 1) * BLOCK])], counts, part, parts)
            pending = []
        elif sum(len(some) for _, some in pending) >= BLOCK or len(pending) >= _FARTHEST:
            yield _block(pending, counts)
            pending = []
    if pending:
        yield _block(pending, counts)


def _block(
    pending: Sequence[tuple[int, Sequence[Item]]], counts: tuple[int, ...], part: int = 0, parts: int = 1
) -> Block:
    planes = tuple(unflat(plane, counts) for plane, _ in pending)
    items = tuple(item for _, some in pending for item in some)
    return Block(pending[0][0], pending[-1][0], part, parts, planes, items)


def planes_of(
    planes: Iterable[Index], found: Iterable[FoundObject], shape: tuple[int, int], *, overwrite: bool = False
) -> Iterator[LabelPlane]:
    """Sort objects into their planes."""
    by_plane: Mapping[Index, list[FoundObject]] = {index: [] for index in planes}
    for one in found:
        by_plane[one.index].append(one)
    for index, objects in by_plane.items():
        yield LabelPlane(index, shape, tuple(objects), overwrite)
