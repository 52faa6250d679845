"""What napari's own tools changed in a Labels layer, from its paint event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_delse.edits import PlaneKey
from napari_delse.geometry import BoolArray, ObjectMask

Stroke = tuple[PlaneKey, ObjectMask, npt.NDArray[Any], int]  # which pixels, what they held, what they hold now


def painted(steps: Any) -> Iterator[Stroke]:
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
