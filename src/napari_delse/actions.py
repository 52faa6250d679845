"""What an annotation session does, as plain data: it can be done, undone, done again and written as JSON.

An `Action` edits the draft of the object in progress, commits it or deletes an object. Pixels are
changed by a `PixelEdit` through a `LabelStore`, behind which an array or a viewer's layer stands.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from napari_delse.geometry import BoolArray, Correction, ExtremePoints, ObjectMask, Point

EXTREME_CLICKS = 4  # different clicks after which an object is predicted


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


# ---------------------------------------------------------------- plain data


@dataclass(frozen=True)
class Draft:
    """What was said so far about the object in progress.

    Parameters
    ----------
    plane : PlaneKey or None
        None while nothing was said.
    clicks : tuple of (y, x)
        Boundary clicks in the order they came, or the corners of a box.
    corrections : tuple of Correction
        Drags, in order.
    kind : {"extreme", "box"}
        As for `ExtremePoints`.
    """

    plane: PlaneKey | None = None
    clicks: tuple[Point, ...] = ()
    corrections: tuple[Correction, ...] = ()
    kind: Literal["extreme", "box"] = "extreme"

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said."""
        return not self.clicks and not self.corrections

    @property
    def missing(self) -> int:
        """How many further clicks are needed before the object can be predicted; doubled ones count once."""
        return max(0, (2 if self.kind == "box" else EXTREME_CLICKS) - len(set(self.clicks)))

    def prompt(self) -> ExtremePoints:
        """The prompt for the predictor."""
        return ExtremePoints.from_box(self.clicks) if self.kind == "box" else ExtremePoints.from_clicks(self.clicks)


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

    def unpack(self) -> ObjectMask:
        """The mask again."""
        bits = np.unpackbits(_unpack(self.bits, np.dtype(np.uint8)), count=self.shape[0] * self.shape[1])
        return ObjectMask(bits.astype(bool).reshape(self.shape), self.origin)


@dataclass(frozen=True)
class PixelEdit:
    """Pixels of one plane that were given one value, and what they were before.

    Doing and undoing touch only pixels that still hold what this edit left there, so that other
    edits in between (napari's brush) are kept.
    """

    plane: PlaneKey
    pixels: PackedMask
    after: int
    before: int | str  # one value for all pixels, or packed values in the labels' dtype
    dtype: str

    @classmethod
    def plan(cls, store: LabelStore, plane: PlaneKey, mask: ObjectMask, value: int) -> PixelEdit:
        """The edit that gives the pixels of a mask a value; changes nothing yet."""
        rows, columns = mask.slices
        current = store.read(plane, rows, columns)
        where = mask.mask & (current != value)
        old = current[where]
        uniform = old.size == 0 or bool((old == old[0]).all())
        before: int | str = (int(old[0]) if old.size else 0) if uniform else _pack(old)
        pixels = PackedMask.pack(ObjectMask(where, mask.origin))
        return cls(plane, pixels, int(value), before, np.dtype(store.dtype).str)

    def do(self, store: LabelStore) -> None:
        """Write the new value."""
        mask, old = self.pixels.unpack(), self._old()
        current = store.read(self.plane, *mask.slices)
        keep = current[mask.mask] == old
        store.write(self.plane, *mask.slices, _chosen(mask.mask, keep), self.after)

    def undo(self, store: LabelStore) -> None:
        """Write the old values back."""
        mask, old = self.pixels.unpack(), self._old()
        current = store.read(self.plane, *mask.slices)
        keep = current[mask.mask] == self.after
        store.write(
            self.plane, *mask.slices, _chosen(mask.mask, keep), old[keep] if isinstance(old, np.ndarray) else old
        )

    def _old(self) -> int | npt.NDArray[Any]:
        return self.before if isinstance(self.before, int) else _unpack(self.before, np.dtype(self.dtype))


@dataclass(frozen=True)
class LabelledObject:
    """A committed object and what it was made from."""

    label: int
    draft: Draft
    mask: PackedMask  # as predicted; protected pixels of other labels may be missing in the array
    area: int  # pixels that were written
    confidence: float


@dataclass(frozen=True)
class EditDraft:
    """The person added, moved or removed clicks or drags."""

    before: Draft
    after: Draft
    kind: Literal["draft"] = "draft"


@dataclass(frozen=True)
class Commit:
    """The preview became an object; the draft is empty afterwards."""

    object: LabelledObject
    pixels: PixelEdit
    kind: Literal["commit"] = "commit"


@dataclass(frozen=True)
class Delete:
    """An object was removed from the labels."""

    object: LabelledObject
    pixels: PixelEdit
    kind: Literal["delete"] = "delete"


Action = EditDraft | Commit | Delete


def action_to_json(action: Action) -> dict[str, Any]:
    """The action as plain dicts, lists, numbers and strings."""
    return asdict(action)


def action_from_json(data: dict[str, Any]) -> Action:
    """The action again, also after a trip through a JSON file.

    Raises
    ------
    ValueError
        If the kind of action is unknown.
    """
    kind = data["kind"]
    if kind == "draft":
        return EditDraft(_draft(data["before"]), _draft(data["after"]))
    if kind in ("commit", "delete"):
        made, pixels = data["object"], data["pixels"]
        described = LabelledObject(
            **{**made, "draft": _draft(made["draft"]), "mask": _packed(made["mask"])},
        )
        edit = PixelEdit(**{**pixels, "plane": _plane(pixels["plane"]), "pixels": _packed(pixels["pixels"])})
        return Commit(described, edit) if kind == "commit" else Delete(described, edit)
    raise ValueError(f"an action must be 'draft', 'commit' or 'delete', got {kind!r}; was it saved by a newer version?")


def _plane(data: dict[str, Any]) -> PlaneKey:
    return PlaneKey((data["axes"][0], data["axes"][1]), tuple(data["index"]))


def _packed(data: dict[str, Any]) -> PackedMask:
    return PackedMask(tuple(data["origin"]), tuple(data["shape"]), data["bits"])


def _draft(data: dict[str, Any]) -> Draft:
    return Draft(
        None if data["plane"] is None else _plane(data["plane"]),
        tuple((y, x) for y, x in data["clicks"]),
        tuple(Correction(tuple(c["start"]), tuple(c["end"])) for c in data["corrections"]),
        data["kind"],
    )


def _pack(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode("ascii")


def _unpack(text: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


def _chosen(mask: BoolArray, keep: BoolArray) -> BoolArray:
    """The mask without those of its pixels that are not to be kept."""
    result = mask.copy()
    result[mask] = keep
    return result
