"""Pixels of label planes: where they lie, how they are packed, and changing them so that it can be undone."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_delse.geometry import BoolArray, ObjectMask


@dataclass(frozen=True)
class PlaneKey:
    """Which plane of an n-dimensional array.

    Parameters
    ----------
    axes : (int, int)
        The array's axes that are the plane's y and x; not negative.
    index : tuple of int
        Position on the remaining axes, in their order.
    """

    axes: tuple[int, int] = (0, 1)
    index: tuple[int, ...] = ()

    def key(self, rows: slice, columns: slice) -> tuple[slice, ...]:
        """Slices of the whole array, of length 1 on the other axes, for a window of this plane."""
        others = iter(self.index)
        window = dict(zip(self.axes, (rows, columns), strict=True))
        ndim = len(self.index) + 2
        return tuple(window[a] if a in window else _length_one(next(others)) for a in range(ndim))

    def flat(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view of ``data[key(...)]`` as (rows, columns)."""
        others = [a for a in range(block.ndim) if a not in self.axes]
        view: npt.NDArray[Any] = block.transpose(*others, *self.axes)[(0,) * len(others)]
        return view

    def shape(self, shape: Sequence[int]) -> tuple[int, int]:
        """(height, width) of the plane in an array of the given shape."""
        return shape[self.axes[0]], shape[self.axes[1]]


def _length_one(position: int) -> slice:
    return slice(position, position + 1)


class LabelStore(Protocol):
    """Where labels live: a numpy or zarr array, or a layer of a viewer."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all labels."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Integer type of the labels."""
        ...

    def read(self, plane: PlaneKey, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """A window of a plane; not to be changed by the caller."""
        ...

    def write(
        self, plane: PlaneKey, rows: slice, columns: slice, where: BoolArray, values: int | npt.NDArray[Any]
    ) -> None:
        """Write one value, or one per chosen pixel, to the chosen pixels of a window."""
        ...

    def settle(self) -> None:
        """Tell the session of strokes that somebody else is still making, before it reads or writes."""
        ...


class ArrayLabels:
    """Labels in an array with basic slicing (numpy, memmap, zarr)."""

    def __init__(self, data: Any) -> None:
        self.data = data

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the labels."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    def read(self, plane: PlaneKey, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """A window of a plane."""
        return plane.flat(np.asarray(self.data[plane.key(rows, columns)]))

    def write(
        self, plane: PlaneKey, rows: slice, columns: slice, where: BoolArray, values: int | npt.NDArray[Any]
    ) -> None:
        """Write to the chosen pixels of a window."""
        key = plane.key(rows, columns)
        block = np.array(self.data[key])
        plane.flat(block)[where] = values
        self.data[key] = block

    def settle(self) -> None:
        """Nobody paints in an array."""


@dataclass(frozen=True)
class PackedMask:
    """An `ObjectMask` in a few bytes of text: bits, zlib, base64."""

    origin: tuple[int, int]
    shape: tuple[int, int]
    bits: str

    @classmethod
    def pack(cls, mask: ObjectMask) -> PackedMask:
        """From a mask."""
        return cls(mask.origin, (mask.mask.shape[0], mask.mask.shape[1]), _pack(np.packbits(mask.mask)))

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the plane, as those of an `ObjectMask`."""
        (y, x), (height, width) = self.origin, self.shape
        return slice(y, y + height), slice(x, x + width)

    def unpack(self) -> ObjectMask:
        """The mask again."""
        bits = np.unpackbits(_unpack(self.bits, np.dtype(np.uint8)), count=self.shape[0] * self.shape[1])
        return ObjectMask(bits.astype(bool).reshape(self.shape), self.origin)


@dataclass(frozen=True)
class PixelEdit:
    """Pixels of one plane that were given new values, and what they were before.

    Doing and undoing touch only pixels that still hold what this edit left there, so that other
    edits in between (napari's brush) are kept.
    """

    plane: PlaneKey
    pixels: PackedMask
    after: int | str  # one value for all pixels, or packed values in the labels' dtype
    before: int | str  # likewise
    dtype: str

    @classmethod
    def plan(cls, store: LabelStore, plane: PlaneKey, mask: ObjectMask, value: int) -> PixelEdit:
        """The edit that gives the pixels of a mask a value; changes nothing yet."""
        rows, columns = mask.slices
        current = store.read(plane, rows, columns)
        where = mask.mask & (current != value)
        return cls.known(plane, ObjectMask(where, mask.origin), value, current[where], np.dtype(store.dtype))

    @classmethod
    def known(
        cls, plane: PlaneKey, mask: ObjectMask, value: int, old: int | npt.NDArray[Any], dtype: np.dtype[Any]
    ) -> PixelEdit:
        """The edit of all pixels of a mask, which held old values (one, or one per pixel)."""
        if isinstance(old, np.ndarray):
            uniform = old.size == 0 or bool((old == old[0]).all())
            before: int | str = (int(old[0]) if old.size else 0) if uniform else _pack(old.astype(dtype, copy=False))
        else:
            before = int(old)
        return cls(plane, PackedMask.pack(mask), int(value), before, dtype.str)

    @classmethod
    def of_window(
        cls, plane: PlaneKey, origin: tuple[int, int], before: npt.NDArray[Any], after: npt.NDArray[Any]
    ) -> PixelEdit | None:
        """The edit that makes one window of labels, (h, w) at a (y, x), another one; None if they are the same."""
        where = before != after
        rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
        if not len(rows):
            return None
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        corner = origin[0] + int(rows[0]), origin[1] + int(columns[0])
        new, old, where = after[box], before[box], where[box]
        edit = cls.known(plane, ObjectMask(where, corner), 0, old[where], before.dtype)
        values = new[where].astype(before.dtype, copy=False)
        uniform = bool((values == values[0]).all())
        return replace(edit, after=int(values[0]) if uniform else _pack(values))

    @cached_property
    def labels(self) -> frozenset[int]:
        """The labels that it writes; finding many takes milliseconds, and deleting an object asks every edit."""
        if isinstance(self.after, int):
            return frozenset([self.after])
        return frozenset(np.unique(_unpack(self.after, np.dtype(self.dtype))).tolist())

    @property
    def values(self) -> int | npt.NDArray[Any]:
        """What it writes: one value, or one per pixel."""
        return self._values(self.after)

    def without(self, where: BoolArray) -> PixelEdit | None:
        """The edit of its other pixels, if there are some; of the shape of its mask."""
        mask = self.pixels.unpack()
        kept = ~where[mask.mask]
        if kept.all():
            return self
        if not kept.any():
            return None
        after, before = (
            packed if isinstance(packed, int) else _pack(_unpack(packed, np.dtype(self.dtype))[kept])
            for packed in (self.after, self.before)
        )
        pixels = PackedMask.pack(ObjectMask(_chosen(mask.mask, kept), mask.origin))
        return replace(self, pixels=pixels, after=after, before=before)

    def without_labels(self, labels: AbstractSet[int]) -> PixelEdit | None:
        """The edit without the pixels that would get one of these labels, if others are left."""
        if not self.labels & labels:
            return self
        mask, values = self.pixels.unpack().mask, self.values
        return self.without(_chosen(mask, np.isin(np.broadcast_to(values, mask.sum()), list(labels))))

    def do(self, store: LabelStore) -> None:
        """Write the new values."""
        self._change(store, self.before, self.after)

    def undo(self, store: LabelStore) -> None:
        """Write the old values back."""
        self._change(store, self.after, self.before)

    def _change(self, store: LabelStore, now: int | str, then: int | str) -> None:
        """Give the pixels other values where they hold what they should."""
        mask, expected, wanted = self.pixels.unpack(), self._values(now), self._values(then)
        current = store.read(self.plane, *mask.slices)
        keep = current[mask.mask] == expected
        values = wanted[keep] if isinstance(wanted, np.ndarray) else wanted
        store.write(self.plane, *mask.slices, _chosen(mask.mask, keep), values)

    def _values(self, packed: int | str) -> int | npt.NDArray[Any]:
        return packed if isinstance(packed, int) else _unpack(packed, np.dtype(self.dtype))


def largest_value(dtype: np.dtype[Any]) -> int:
    """The largest label that fits."""
    return 1 if dtype == np.bool_ else int(np.iinfo(dtype).max)


def check_label(store: LabelStore, label: int) -> None:
    """Refuse a label that does not fit into the labels."""
    limit = largest_value(store.dtype)
    if label > limit:
        raise ValueError(
            f"label {label} does not fit into {store.dtype} labels, which end at {limit}; "
            "convert the labels layer to a wider type (such as uint32) and go on"
        )


def pixels_of(store: LabelStore, label: int, plane: PlaneKey, mask: ObjectMask) -> ObjectMask:
    """Pixels of a label around a mask: the window grows while the label touches its rim."""
    height, width = plane.shape(store.shape)
    rows, columns = mask.slices
    while True:
        found = store.read(plane, rows, columns) == label
        step = max(8, max(found.shape) // 4)
        top = max(0, rows.start - step) if found[:1].any() else rows.start
        bottom = min(height, rows.stop + step) if found[-1:].any() else rows.stop
        left = max(0, columns.start - step) if found[:, :1].any() else columns.start
        right = min(width, columns.stop + step) if found[:, -1:].any() else columns.stop
        if (slice(top, bottom), slice(left, right)) == (rows, columns):
            return ObjectMask(found, (rows.start, columns.start))
        rows, columns = slice(top, bottom), slice(left, right)


def _pack(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode("ascii")


def _unpack(text: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


def _chosen(mask: BoolArray, keep: BoolArray) -> BoolArray:
    """The mask without those of its pixels that are not to be kept."""
    result = mask.copy()
    result[mask] = keep
    return result


def touched(edits: Iterable[PixelEdit], plane: PlaneKey, rows: slice, columns: slice) -> BoolArray:
    """Pixels of a window of a plane that edits change, also those of planes that cross it."""
    window = plane.key(rows, columns)
    found = np.zeros([side.stop - side.start for side in window], dtype=bool)
    for edit in edits:
        box = edit.plane.key(*edit.pixels.slices)
        both = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(window, box, strict=True)]
        if all(start < stop for start, stop in both):
            block = np.zeros([side.stop - side.start for side in box], dtype=bool)
            edit.plane.flat(block)[...] = edit.pixels.unpack().mask
            here, there = (
                tuple(
                    slice(start - side.start, stop - side.start) for (start, stop), side in zip(both, of, strict=True)
                )
                for of in (window, box)
            )
            found[here] |= block[there]
    return plane.flat(found)


def cut(mask: ObjectMask, rows: slice, columns: slice) -> BoolArray:
    """A mask as seen through a window of its plane."""
    window = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)
    y0, x0 = mask.origin
    top, left = max(rows.start, y0), max(columns.start, x0)
    bottom, right = min(rows.stop, y0 + mask.mask.shape[0]), min(columns.stop, x0 + mask.mask.shape[1])
    if top < bottom and left < right:
        part = mask.mask[top - y0 : bottom - y0, left - x0 : right - x0]
        window[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = part
    return window


def union(masks: Sequence[ObjectMask]) -> ObjectMask:
    """All pixels of masks of one plane."""
    found = [mask for mask in masks if mask.mask.size]
    if len(found) < 2:
        return found[0] if found else masks[0]
    rows = slice(min(m.slices[0].start for m in found), max(m.slices[0].stop for m in found))
    columns = slice(min(m.slices[1].start for m in found), max(m.slices[1].stop for m in found))
    return ObjectMask(np.logical_or.reduce([cut(mask, rows, columns) for mask in found]), (rows.start, columns.start))
