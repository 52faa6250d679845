"""Everything that was done in a session, in order: doing, undoing, redoing, and telling a recorder first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from heapq import heappop, heappush
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_delse.annotation.actions import (
    Action,
    Carry,
    Draft,
    EditDraft,
    LabelledObject,
    Paint,
    action_from_json,
    action_to_json,
    place_in,
    run_of,
    step_begin,
)
from napari_delse.annotation.edits import LabelStore, PixelEdit, PlaneKey, touched
from napari_delse.annotation.policy import LabelPolicy
from napari_delse.geometry import ObjectMask

Recorder = Callable[[dict[str, Any]], None]
Stroke = tuple[PlaneKey, ObjectMask, int | npt.NDArray[Any], int]
_Change = Callable[[PixelEdit, LabelStore], None]


class History:
    """Labels, objects and the draft, changed by actions only.

    Parameters
    ----------
    store : LabelStore
        Where committed objects are written. If it has a context manager `together`, several writes of one step
        are wrapped in it; it is told how many.
    largest : int
        Largest label that is in the store already.
    policy : LabelPolicy
        How objects are written.

    Attributes
    ----------
    objects : dict of int to LabelledObject
        What was committed, by label.
    recorder : callable or None
        Called with plain data before anything changes; if it raises, nothing has changed.
    observer : callable or None
        Called with the labels of objects that came, changed or went, after they did.
    """

    def __init__(self, store: LabelStore, largest: int, policy: LabelPolicy) -> None:
        self.store = store
        self.objects: dict[int, LabelledObject] = {}
        self.recorder: Recorder | None = None
        self.observer: Callable[[set[int]], object] | None = None
        self._policy = policy
        self._found = largest
        self._given: list[int] = []  # heap of minus the labels of objects, also of some that are gone
        self._draft = Draft()
        self._done: list[Action] = []
        self._undone: list[Action] = []
        self._known_undone: tuple[int, Action, set[int], dict[PlaneKey, list[PixelEdit]]] | None = None

    @property
    def draft(self) -> Draft:
        """Clicks and drags of the object in progress."""
        return self._draft

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether something was undone and nothing was done since that it would not fit any more."""
        return bool(self._undone)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was done yet."""
        return not self._done and not self._undone

    @property
    def has_objects_to_undo(self) -> bool:
        """Whether objects or pixels are among what can be undone or redone, and not just clicks and drags."""
        return any(not isinstance(one, EditDraft) for one in (*self._done, *self._undone))

    @property
    def actions(self) -> tuple[Action, ...]:
        """Everything done and not undone, oldest first."""
        return tuple(self._done)

    @property
    def undone(self) -> tuple[Action, ...]:
        """Everything undone and not done again, in the order in which redo takes it."""
        return tuple(reversed(self._undone))

    def is_undone(self, run: str) -> bool:
        """Whether a run was taken back, and not done again."""
        return any(run_of(one) == run for one in self._undone)

    # ---- labels

    @property
    def next_label(self) -> int:
        """The label of the next object: one above the largest."""
        while self._given and -self._given[0] not in self.objects:
            heappop(self._given)
        return max(self._found, -self._given[0] if self._given else 0) + 1

    @property
    def largest_found(self) -> int:
        """The largest label that somebody else wrote, as far as known."""
        return self._found

    def note_label(self, label: int) -> None:
        """Somebody else wrote this label into the store."""
        if label > self._found:
            self._record("label", label=int(label))
            self._found = int(label)

    def note_painted(self, strokes: Iterable[Stroke]) -> None:
        """Somebody painted or erased (napari's brush): one more action, which undo takes back in its turn.

        Parameters
        ----------
        strokes : iterable of (PlaneKey, ObjectMask, int or array, int)
            What was painted at once, in order: the plane and its pixels, what they held (one value, or one per
            pixel of the mask) and what they hold now. It stands in the labels already.
        """
        dtype = np.dtype(self.store.dtype)
        edits = [PixelEdit.known(plane, mask, after, before, dtype) for plane, mask, before, after in strokes]
        if not edits:
            return
        self.note_label(max(max(edit.labels) for edit in edits))
        self._do(Paint(self._draft, self._draft, tuple(edits)), write=False)

    def carry(self, run: str, edits: Sequence[PixelEdit]) -> None:
        """Write a part of what a run over many planes found.

        All parts of a run are one step of undo, also where other things were done between them: the run comes before
        these then, and leaves the pixels alone that they changed.

        Parameters
        ----------
        run : str
            Which one.
        edits : sequence of PixelEdit
            What changes, such as from `PixelEdit.of_window`.
        """
        self.store.settle()
        later = [edit for action in self._done[place_in(self._done, run, run_of) :] for edit in action.pixels]
        if later:  # else undoing these first would give pixels back that the run has taken since
            rest = (edit.without(touched(later, edit.plane, *edit.pixels.slices)) for edit in edits)
            edits = [edit for edit in rest if edit is not None]
        if edits:
            self.note_label(max(max(edit.labels) for edit in edits))
            self._do(Carry(self._draft, self._draft, tuple(edits), run=run))

    @property
    def policy(self) -> LabelPolicy:
        """How objects are written from now on."""
        return self._policy

    @policy.setter
    def policy(self, policy: LabelPolicy) -> None:
        if policy != self._policy:
            self._record("policy", policy=asdict(policy))
            self._policy = policy

    @property
    def protect(self) -> bool:
        """Whether pixels that have a label are left alone; short for that of `policy`."""
        return self._policy.protect

    @protect.setter
    def protect(self, protect: bool) -> None:
        self.policy = replace(self._policy, protect=protect)

    # ---- undo

    def undo(self) -> Action | None:
        """Take the last action back; None if there is none."""
        self.store.settle()
        if not self._done:
            return None
        action = self._done[-1]
        self._record("undo", kind=action.kind)
        self._take_back()
        return action

    def redo(self) -> Action | None:
        """Do again what was undone last; None if there is nothing."""
        self.store.settle()
        if not self._undone:
            return None
        action = self._undone[-1]
        self._record("redo", kind=action.kind)
        self._do_again()
        return action

    def _do(self, action: Action, *, write: bool = True) -> None:
        if self.recorder is not None:
            self._record("do", action=action_to_json(action))
        self._apply(action, write=write)
        self._forget_undone(action)

    def _forget_undone(self, action: Action) -> None:
        """What was undone is not done again after another action, but for a run that has nothing to do with it."""
        if not self._undone:
            return
        if not isinstance(action, Carry) or self.is_undone(action.run):
            self._undone.clear()
            return
        taken, by_plane = self._undone_pixels()
        for edit in action.pixels:
            others = [key for key in by_plane if key.axes != edit.plane.axes]
            near = [one for key in (edit.plane, *others) for one in by_plane.get(key, ())]
            if edit.labels & taken or edit.without(~touched(near, edit.plane, *edit.pixels.slices)) is not None:
                self._undone.clear()
                return

    def _undone_pixels(self) -> tuple[set[int], dict[PlaneKey, list[PixelEdit]]]:
        """Labels that are to be had again, and pixels by their planes; known as long as nothing else is undone."""
        count, last, known = len(self._undone), self._undone[-1], self._known_undone
        if known is None or known[0] != count or known[1] is not last:
            by_plane: dict[PlaneKey, list[PixelEdit]] = {}
            taken = {made.label for one in self._undone for made in (*one.removed, *one.added)}
            for one in self._undone:
                for edit in one.pixels:
                    by_plane.setdefault(edit.plane, []).append(edit)
                    taken |= {label for label in edit.labels if label and label not in self.objects}
            known = self._known_undone = (count, last, taken, by_plane)
        return known[2:]

    def _apply(self, action: Action, *, write: bool = True) -> None:
        """Carry an action out; if the labels cannot be written, nothing has happened."""
        if write:
            self._write(action.pixels, PixelEdit.do, PixelEdit.undo)
        place = place_in(self._done, run_of(action), run_of)
        if place < len(self._done):  # it changes pixels only; the draft is what later actions made of it
            then = self._done[place - 1].after
            self._done.insert(place, replace(action, before=then, after=then))
            return
        self._exchange(action.removed, action.added, action.after)
        self._done.append(action)

    def _take_back(self, *, write: bool = True) -> None:
        """The last step."""
        actions = self._done[step_begin(self._done, run_of) :][::-1]
        if write:
            edits = [edit for action in actions for edit in action.pixels[::-1]]
            self._write(edits, PixelEdit.undo, PixelEdit.do)
        for action in actions:
            self._exchange(action.added, action.removed, action.before)
            self._undone.append(self._done.pop())

    def _do_again(self, *, write: bool = True) -> None:
        """The step that was taken back last."""
        actions = self._undone[step_begin(self._undone, run_of) :][::-1]
        if write:
            self._write([edit for action in actions for edit in action.pixels], PixelEdit.do, PixelEdit.undo)
        for action in actions:
            self._apply(action, write=False)
            self._undone.pop()

    def _write(self, edits: Sequence[PixelEdit], change: _Change, change_back: _Change) -> None:
        """All changes of pixels or none of them."""
        together = getattr(self.store, "together", None)
        with nullcontext() if together is None or len(edits) < 2 else together(len(edits)):
            for number, edit in enumerate(edits, 1):
                try:
                    change(edit, self.store)
                except BaseException:
                    for begun in edits[:number][::-1]:
                        with suppress(Exception):
                            change_back(begun, self.store)
                    with suppress(Exception):
                        self._record("failed")
                    raise

    def _exchange(self, gone: Sequence[LabelledObject], come: Sequence[LabelledObject], draft: Draft) -> None:
        for one in gone:
            del self.objects[one.label]
        for one in come:
            self.objects[one.label] = one
            heappush(self._given, -one.label)
        self._draft = draft
        if self.observer is not None and (gone or come):
            self.observer({one.label for one in (*gone, *come)})

    # ---- journal

    def _record(self, step: str, **content: Any) -> None:
        if self.recorder is not None:
            self.recorder({"step": step, **content})

    def repeat(self, entry: dict[str, Any], *, write: bool = True) -> None:
        """Do again what a recorder was told; it is not told again.

        Parameters
        ----------
        entry : dict
            What the recorder got.
        write : bool
            Also change the labels; else they are taken to have been changed already.

        Raises
        ------
        ValueError
            If it does not fit what was done before.
        """
        step = entry["step"]
        if step == "do":
            action = action_from_json(entry["action"])
            for edit in action.pixels:
                _ = edit.labels  # found out here, where a worker waits, and not when an object is deleted
            self._apply(action, write=write)
            self._forget_undone(action)
        elif step in ("undo", "redo"):
            left = self._done if step == "undo" else self._undone
            if not left or left[-1].kind != entry["kind"]:
                raise ValueError(f"there is no {entry['kind']} to {step}")
            if step == "undo":
                self._take_back(write=write)
            else:
                self._do_again(write=write)
        elif step == "label":
            self._found = int(entry["label"])
        elif step == "policy":
            self._policy = LabelPolicy(**entry["policy"])
        else:
            raise ValueError(f"there is no step {step!r}; was it recorded by a newer version?")
