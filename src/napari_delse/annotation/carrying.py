"""How finished planes of a run go into labels, and what runs and people did to which planes so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_delse.annotation.actions import Action, run_of
from napari_delse.annotation.edits import LabelStore, PixelEdit, PlaneKey, check_label

_TILE = 1024  # pixels of a side of what is written at once, so that nobody waits for it


@dataclass(frozen=True)
class PlaneLine:
    """Planes of an array that lie behind each other.

    Parameters
    ----------
    axes : (int, int)
        The array's axes that are y and x of each plane; not negative.
    along : int
        The axis along which they are counted.
    at : tuple of int
        Position on all axes but y and x; the one along the axis is replaced.
    count : int
        How many planes there are.
    """

    axes: tuple[int, int]
    along: int
    at: tuple[int, ...]
    count: int

    def key(self, place: int) -> PlaneKey:
        """One of them."""
        others = [axis for axis in range(len(self.at) + 2) if axis not in self.axes]
        index = (place if axis == self.along else at for axis, at in zip(others, self.at, strict=True))
        return PlaneKey(self.axes, tuple(index))

    def places(self, edit: PixelEdit) -> range:
        """Which of them an edit touches; it may have been made in planes that are turned."""
        mask, spans = edit.pixels, dict[int, range]()
        for axis, first, length in zip(edit.plane.axes, mask.origin, mask.shape, strict=True):
            spans[axis] = range(first, first + length)
        others = [axis for axis in range(len(self.at) + 2) if axis not in edit.plane.axes]
        spans |= {axis: range(at, at + 1) for axis, at in zip(others, edit.plane.index, strict=True)}
        fixed = [axis for axis in range(len(self.at) + 2) if axis not in self.axes]
        here = dict(zip(fixed, self.at, strict=True))
        if any(here[axis] not in spans[axis] for axis in fixed if axis != self.along):
            return range(0)
        return spans[self.along]


@dataclass(frozen=True)
class Traces:
    """What was done to the planes of a line.

    Parameters
    ----------
    carried : frozenset of int
        Planes that runs wrote to and nobody changed since.
    corrected : frozenset of int
        Planes that runs wrote to and somebody changed afterwards.
    runs : frozenset of str
        Runs that stand.
    """

    carried: frozenset[int] = frozenset()
    corrected: frozenset[int] = frozenset()
    runs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, actions: Iterable[Action], line: PlaneLine) -> Traces:
        """Of what a session did."""
        carried, corrected, runs = set[int](), set[int](), set[str]()
        for action in actions:
            run = run_of(action)
            for edit in action.pixels:
                for place in line.places(edit):
                    if run:
                        carried.add(place)
                        corrected.discard(place)
                    elif place in carried:
                        corrected.add(place)
            if run:
                runs.add(run)
        return cls(frozenset(carried - corrected), frozenset(corrected), frozenset(runs))


def earlier(actions: Iterable[Action], plane: PlaneKey) -> list[PixelEdit]:
    """What runs wrote to a plane so far."""
    return [edit for action in actions if run_of(action) for edit in action.pixels if edit.plane == plane]


def edits_of(
    store: LabelStore,
    plane: PlaneKey,
    wanted: npt.NDArray[np.integer],
    former: Sequence[PixelEdit] = (),
    *,
    protect: bool = True,
) -> Iterator[PixelEdit]:
    """What changes when a plane gets other labels, in pieces that are quickly written.

    Parameters
    ----------
    store : LabelStore
        The labels as they are.
    plane : PlaneKey
        Which plane.
    wanted : integer array, shape (Y, X)
        Its labels.
    former : sequence of PixelEdit
        What earlier runs wrote there: it gives way, where it still stands.
    protect : bool
        Leave all other labels alone; else they are overwritten.

    Raises
    ------
    ValueError
        If the labels do not fit the store's type.
    """
    check_label(store, int(wanted.max(initial=0)))
    height, width = plane.shape(store.shape)
    current = np.array(store.read(plane, slice(0, height), slice(0, width)))
    free = current == 0
    for edit in former:
        mask = edit.pixels.unpack()
        free[mask.slices][mask.mask] |= current[mask.slices][mask.mask] == edit.values
    after = np.where(free if protect else free | (wanted != 0), wanted, current).astype(current.dtype, copy=False)
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            window = slice(top, top + _TILE), slice(left, left + _TILE)
            tile = PixelEdit.of_window(plane, (top, left), current[window], after[window])
            if tile is not None:
                yield tile
