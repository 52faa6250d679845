"""What napari's own tools changed in a Labels layer, from its paint event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from app_model.types import KeyCode, KeyMod

from napari_delse.annotation.edits import PlaneKey
from napari_delse.geometry import BoolArray, ObjectMask

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_delse.annotation.session import AnnotationSession

Stroke = tuple[PlaneKey, ObjectMask, npt.NDArray[Any], int]  # which pixels, what they held, what they hold now


_UNDO_KEYS = (KeyMod.CtrlCmd | KeyCode.KeyZ, KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ)  # napari's own
_TOGETHER = 1_000_000  # pixels of a box in which parts of a stroke are one change


def painted(steps: Any) -> Iterator[Stroke]:
    """What one use of a tool changed, plane by plane; the many steps of a long stroke are a few changes.

    Parameters
    ----------
    steps : sequence
        Value of a paint event.
    """
    for value, same in groupby(_changes(steps), key=lambda stroke: stroke[3]):
        by_plane: dict[PlaneKey, list[Stroke]] = {}
        for stroke in same:
            by_plane.setdefault(stroke[0], []).append(stroke)
        for plane, strokes in by_plane.items():
            for corner, shape, together in _boxes(strokes):
                yield plane, *_joined(corner, shape, together), value


def painted_along(steps: Any, axis: int) -> set[int]:
    """Positions on an axis between which one use of a tool changed pixels; see `painted`."""
    found = set[int]()
    for step in steps:
        if hasattr(step, "slice_key"):
            found |= set(range(step.slice_key[axis].start, step.slice_key[axis].stop))
        else:
            found |= set(np.unique(step[0][axis]).tolist())
    return found


def note_stroke(session: AnnotationSession, layer: Labels, event: Any) -> bool:
    """Tell a session of a paint event of its labels, unless it is the one that paints; whether it was told."""
    if getattr(session.store, "is_writing", False):
        return False
    try:
        session.note_painted(painted(event.value))
    except (AttributeError, TypeError, ValueError):  # another version of napari may tell it otherwise
        session.note_label(layer.selected_label)
    return True


def lead_undo(layer: Labels, undo: Callable[[Labels], None], redo: Callable[[Labels], None]) -> None:
    """Have the undo keys of a Labels layer call these with it: strokes and objects are undone in the order they came.

    napari's own undo knows the pixels of an object but not the object, and would leave it without them.
    """
    for key, action in zip(_UNDO_KEYS, (undo, redo), strict=True):
        layer.bind_key(key, lambda one, action=action: action(one), overwrite=True)


def leave_undo(layer: Labels) -> None:
    """Give the undo keys back to napari, whose history holds what was written but for many values at once."""
    for key in _UNDO_KEYS:
        layer.bind_key(key, None)


def undo_depth(layer: Labels | None) -> tuple[int, ...]:
    """How many steps napari can take back and do again; of an undo it tells only that the labels are drawn anew."""
    return tuple(len(getattr(layer, name, ())) for name in ("_undo_history", "_redo_history"))  # private


def _boxes(strokes: list[Stroke]) -> Iterator[tuple[tuple[int, int], tuple[int, int], list[Stroke]]]:
    """Strokes that lie close together, in order, and the box around them."""
    together: list[Stroke] = []
    start, stop = (0, 0), (0, 0)
    for stroke in strokes:
        rows, columns = stroke[1].slices
        first, last = (rows.start, columns.start), (rows.stop, columns.stop)
        if together:
            low = min(start[0], first[0]), min(start[1], first[1])
            high = max(stop[0], last[0]), max(stop[1], last[1])
            if (high[0] - low[0]) * (high[1] - low[1]) <= _TOGETHER:
                start, stop = low, high
                together.append(stroke)
                continue
            yield start, (stop[0] - start[0], stop[1] - start[1]), together
        start, stop, together = first, last, [stroke]
    if together:
        yield start, (stop[0] - start[0], stop[1] - start[1]), together


def _joined(
    corner: tuple[int, int], shape: tuple[int, int], strokes: list[Stroke]
) -> tuple[ObjectMask, npt.NDArray[Any]]:
    """Pixels of strokes in a box, and what they held before the first of them."""
    if len(strokes) == 1:
        return strokes[0][1], strokes[0][2]
    mask, former = np.zeros(shape, bool), np.zeros(shape, strokes[0][2].dtype)
    for _, part, old, _ in reversed(strokes):
        (top, left), (height, width) = np.subtract(part.origin, corner), part.mask.shape
        window = slice(top, top + height), slice(left, left + width)
        mask[window] |= part.mask
        former[window][part.mask] = old
    return ObjectMask(mask, corner), former[mask]


def _changes(steps: Any) -> Iterator[Stroke]:
    """Every change of pixels, plane by plane.

    Parameters
    ----------
    steps : sequence
        Value of a paint event. napari's brush, fill and polygon describe a box and a mask; `data_setitem`, and
        all tools of older versions, give positions, former and new values.
    """
    for step in steps:
        if hasattr(step, "slice_key"):
            corner = [part.start for part in step.slice_key]
            mask = step.mask
            if mask is None:
                mask = np.ones([part.stop - part.start for part in step.slice_key], bool)
                former = np.asarray(step.old_values).reshape(mask.shape)
            else:
                former = np.zeros(mask.shape, step.old_values.dtype)
                former[mask] = step.old_values
            yield from _planes(corner, mask, former, int(step.new_value))
        else:
            yield from _positions(*step)


def _positions(index: Any, old: Any, new: Any) -> Iterator[Stroke]:
    where = np.stack([np.ravel(one) for one in np.broadcast_arrays(*index)], axis=1)
    corner = where.min(axis=0)
    box = tuple(where.max(axis=0) - corner + 1)
    old, new = np.broadcast_to(np.ravel(old), len(where)), np.broadcast_to(np.ravel(new), len(where))
    for value in np.unique(new):
        chosen = tuple((where[new == value] - corner).T)
        mask, former = np.zeros(box, bool), np.zeros(box, old.dtype)
        mask[chosen], former[chosen] = True, old[new == value]
        yield from _planes(corner, mask, former, int(value))


def _planes(corner: Any, mask: BoolArray, former: npt.NDArray[Any], value: int) -> Iterator[Stroke]:
    """The planes along the two longest sides of a box."""
    y, x = sorted(sorted(range(mask.ndim), key=lambda axis: (mask.shape[axis], axis))[-2:])
    others = [axis for axis in range(mask.ndim) if axis not in (y, x)]
    turned, values = mask.transpose(*others, y, x), former.transpose(*others, y, x)
    for place in np.ndindex(turned.shape[:-2]):
        if turned[place].any():
            index = tuple(int(corner[axis] + p) for axis, p in zip(others, place, strict=True))
            found = ObjectMask(turned[place], (int(corner[y]), int(corner[x])))
            yield PlaneKey((y, x), index), found, values[place][turned[place]], value
