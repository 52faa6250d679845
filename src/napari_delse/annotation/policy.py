"""What becomes of a mask on its way into the labels: protection, holes, small parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_delse.geometry import BoolArray, ObjectMask

_AROUND = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner are of one part, so holes end there


@dataclass(frozen=True, kw_only=True)
class LabelPolicy:
    """How objects are written into the labels."""

    protect: bool = True  # leave pixels that already have a label alone (else they are overwritten)
    fill_holes: bool = False  # fill holes where there is background; other labels inside stay
    min_part: int = 0  # leave out unconnected parts of fewer pixels; the largest part is always kept

    def __post_init__(self) -> None:
        if self.min_part < 0:
            raise ValueError(f"min_part must be 0 (keep all parts) or a number of pixels, got {self.min_part}")


@dataclass(frozen=True, eq=False)
class Tidied:
    """A mask with its holes filled and its small parts left out."""

    mask: ObjectMask
    seen: BoolArray  # its pixels that were predicted, not filled
    filled: int  # pixels
    dropped: tuple[int, ...]  # areas of the parts left out, largest first


def tidy(mask: ObjectMask, policy: LabelPolicy) -> Tidied:
    """A mask as the policy wants it, whatever the labels hold."""
    seen, dropped = drop_small(mask.mask, policy.min_part)
    full = seen
    if policy.fill_holes and seen.any():
        from scipy.ndimage import binary_fill_holes

        full = binary_fill_holes(seen)  # what was left out inside a hole belongs to the hole again
    filled = int(np.count_nonzero(full) - np.count_nonzero(seen))
    return Tidied(ObjectMask(full, mask.origin), seen, filled, dropped)


def drop_small(mask: BoolArray, least: int) -> tuple[BoolArray, tuple[int, ...]]:
    """A mask without parts of fewer pixels, but with its largest; and the areas of the others."""
    if least < 2 or not mask.any():
        return mask, ()
    numbers, count = parts(mask)
    areas = np.bincount(numbers.ravel(), minlength=count + 1)
    small = areas < least
    small[0], small[1 + int(areas[1:].argmax())] = True, False
    return ~small[numbers], tuple(sorted((int(a) for a in areas[1:][small[1:]]), reverse=True))


def separate(mask: ObjectMask) -> list[ObjectMask]:
    """The connected parts of a mask, each in its own window."""
    from scipy.ndimage import find_objects

    numbers, _ = parts(mask.mask)
    top, left = mask.origin
    return [
        ObjectMask(numbers[rows, columns] == number, (top + rows.start, left + columns.start))
        for number, (rows, columns) in enumerate(find_objects(numbers), 1)
    ]


def parts(mask: BoolArray) -> tuple[npt.NDArray[Any], int]:
    """Connected parts of a mask, numbered from 1 in each pixel, and how many there are."""
    from scipy.ndimage import label

    numbers, count = label(mask, _AROUND)
    return numbers, int(count)
