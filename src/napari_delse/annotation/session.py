"""A person's work on one labels array: clicks, drags, previews, commits, and undo of all of it.

No GUI, no network: a front end hands over clicks and drags, asks `AnnotationSession.request` what
to predict, hands the answer to `AnnotationSession.receive` and commits it. What changes the labels,
the objects or the object in progress is an `Action`: plain data that can be done, undone, done again
and written as JSON. A recorder (see `journal`) is told of it before it happens, and of the policy and
of labels that others gave, which are no steps of undo. How objects begun later evolve is kept with
their drafts only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from napari_delse.annotation.actions import Draft, EditDraft, LabelledObject
from napari_delse.annotation.edits import LabelStore, PlaneKey
from napari_delse.annotation.history import History
from napari_delse.annotation.operations import (
    find,
    plan_classify,
    plan_commit,
    plan_delete,
    plan_merge,
    plan_reopen,
    plan_split,
)
from napari_delse.annotation.policy import LabelPolicy
from napari_delse.evolution import EvolutionSettings
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask

_KEPT_PREDICTIONS = 16  # so that undoing a click or a drag needs no network
_KEPT_FORESEEN = 4  # a hand that pulls may rest again and again, and lets go where it rested last


class Preview(Protocol):
    """What the session needs of a `predict.Prediction`."""

    @property
    def mask(self) -> ObjectMask:
        """Pixels of the object; empty if none was found."""
        ...

    @property
    def confidence(self) -> float:
        """Confidence in [0, 1]."""
        ...


@dataclass(frozen=True, eq=False)
class Request:
    """A draft to be predicted; the answer is welcome only while nothing newer was asked."""

    number: int
    draft: Draft


class AnnotationSession(History):
    """The state of one person's work on one labels array.

    Parameters
    ----------
    store : LabelStore
        Where committed objects are written.
    protect : bool
        Leave pixels that already have a label alone (else they are overwritten).
    largest : int
        Largest label that is in the store already.
    policy : LabelPolicy, optional
        Protection, holes and small parts; takes the place of `protect`.

    Notes
    -----
    Undo goes back over clicks, drags, commits, deletions, merges and splits alike, without limit.
    Undoing everything leaves the labels as they were found, bit by bit.
    """

    def __init__(
        self, store: LabelStore, *, protect: bool = True, largest: int = 0, policy: LabelPolicy | None = None
    ) -> None:
        super().__init__(store, largest, policy or LabelPolicy(protect=protect))
        self._predictions: OrderedDict[Draft, Preview] = OrderedDict()
        self._foreseen: OrderedDict[Draft, Preview] = OrderedDict()  # of drafts that never were the present one
        self._evolution: EvolutionSettings | None = None  # of objects begun from now on
        self._asked = 0
        self._waiting: Request | None = None
        self._ahead: Request | None = None  # of a draft that may come next

    # ---- what to show

    @property
    def preview(self) -> Preview | None:
        """The prediction for exactly the present draft, if it is there."""
        return self._predictions.get(self._draft.unlabelled)

    @property
    def reopened(self) -> LabelledObject | None:
        """The committed object that is in progress again, as it stands in the labels."""
        return None if self._draft.label is None else self.objects[self._draft.label]

    @property
    def evolution(self) -> EvolutionSettings | None:
        """How the object in progress evolves, or else the next one; None for the model's own way."""
        return self._evolution if self._draft.plane is None else self._draft.evolution

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is on its way."""
        return self._waiting is not None

    # ---- the object in progress

    def add_click(self, plane: PlaneKey, point: Sequence[float]) -> None:
        """One more boundary click; it takes the place of a box.

        Raises
        ------
        ValueError
            If the object in progress lies in another plane.
        """
        clicks = () if self._draft.kind == "box" else self._draft.clicks
        self.set_clicks(plane, (*clicks, point))

    def set_clicks(
        self, plane: PlaneKey, clicks: Iterable[Sequence[float]], kind: Literal["extreme", "box"] = "extreme"
    ) -> None:
        """Replace the clicks of the object in progress (all of them: they were added, moved or removed).

        Raises
        ------
        ValueError
            If the object in progress lies in another plane.
        """
        points, label = tuple((float(y), float(x)) for y, x in clicks), self._draft.label
        if not points:  # a reopened object stays in its plane, to be clicked anew
            kept = Draft(self._draft.plane, label=label, evolution=self.evolution)
            self._edit(Draft() if label is None else kept)
            return
        if self._draft.clicks or label is not None:
            self._stay_in(plane)
        drags = self._draft.corrections if replace(self._draft, clicks=points, kind=kind).missing == 0 else ()
        self._edit(Draft(plane, points, drags, kind, label, self.evolution))

    def _stay_in(self, plane: PlaneKey) -> None:
        if self._draft.plane not in (None, plane):
            raise ValueError("this object was begun on another plane; go back there, or start over here")

    def set_box(self, plane: PlaneKey, corners: Iterable[Sequence[float]]) -> None:
        """A box around the object instead of clicks.

        Raises
        ------
        ValueError
            If the object in progress is a reopened one of another plane.
        """
        (y0, x0), (y1, x1) = ExtremePoints.from_box(corners).points
        if self._draft.label is not None:
            self._stay_in(plane)
        self._edit(Draft(plane, ((y0, x0), (y1, x1)), (), "box", self._draft.label, self.evolution))

    def add_correction(self, correction: Correction) -> None:
        """One more drag; see `set_corrections`."""
        self.set_corrections((*self._draft.corrections, correction))

    def set_corrections(self, corrections: Iterable[Correction]) -> None:
        """Replace the drags of the object in progress.

        Raises
        ------
        ValueError
            If the object is not outlined yet.
        """
        corrections = tuple(corrections)
        if corrections:
            self.check_drag(self._draft.plane)
        self._edit(replace(self._draft, corrections=corrections))

    def check_drag(self, plane: PlaneKey | None) -> None:
        """Find out whether a drag in a plane could correct the object in progress.

        Raises
        ------
        ValueError
            If the object is not outlined yet, or lies in another plane.
        """
        if self._draft.missing or plane is None:
            raise ValueError("a drag corrects a contour, and there is none yet; click the extreme points first")
        self._stay_in(plane)

    def set_evolution(self, evolution: EvolutionSettings | None) -> None:
        """Have the object in progress and those after it evolve otherwise.

        Changes that follow each other, such as those of a slider, are one step of undo. Those of a reopened
        object are its own.

        Parameters
        ----------
        evolution : EvolutionSettings or None
            None for the model's own way.
        """
        if self._draft.plane is None:
            self._evolution = evolution
            return
        draft = replace(self._draft, evolution=evolution)
        last = self._done[-1] if self._done else None
        follows = isinstance(last, EditDraft) and last.before == replace(last.after, evolution=last.before.evolution)
        if draft != self._draft and follows:
            self.undo()
        self._edit(draft)

    def clear(self) -> None:
        """Forget the clicks and drags of the object in progress (undo brings them back).

        A reopened object stays as it was committed.
        """
        self._edit(Draft())

    def _edit(self, draft: Draft) -> None:
        if draft != self._draft:
            self._do(EditDraft(self._draft, draft))

    def _exchange(self, gone: Sequence[LabelledObject], come: Sequence[LabelledObject], draft: Draft) -> None:
        super()._exchange(gone, come, draft)
        if draft.plane is not None and draft.label is None:
            self._evolution = draft.evolution
        if (made := self._foreseen.pop(draft.unlabelled, None)) is not None:
            _keep(self._predictions, draft, made, _KEPT_PREDICTIONS)
        asked = (self._waiting, self._ahead)
        self._waiting = next((one for one in asked if one is not None and one.draft == draft), None)
        self._ahead = None

    # ---- prediction

    def request(self) -> Request | None:
        """What to predict now, or None if the preview is there, on its way or impossible.

        Every new request makes the answers to earlier ones late.
        """
        if self._waiting is not None and self._waiting.draft == self._draft:
            return None
        self._waiting = None
        if self._draft.plane is None or self._draft.missing or self.preview is not None:
            return None
        self._asked += 1
        self._waiting = Request(self._asked, self._draft)
        return self._waiting

    def foresee(self, correction: Correction) -> Request | None:
        """What to predict in case this drag comes next, or None if that is known, on its way or impossible.

        The session stays as it is. If the drag comes, its preview is there, or nearer than if it were asked then.
        """
        draft = self._with(correction)
        if self._ahead is not None and self._ahead.draft == draft:
            return None
        self._ahead = None
        if self._draft.missing or self._waiting is not None or self.foreseen(correction) is not None:
            return None
        self._asked += 1
        self._ahead = Request(self._asked, draft)
        return self._ahead

    def foreseen(self, correction: Correction) -> Preview | None:
        """What the preview would be with one more drag, if that is known."""
        key = self._with(correction).unlabelled
        return self._foreseen.get(key) or self._predictions.get(key)

    def _with(self, correction: Correction) -> Draft:
        return replace(self._draft, corrections=(*self._draft.corrections, correction))

    def is_wanted(self, request: Request) -> bool:
        """Whether the answer would still be taken; a worker may ask this from its thread."""
        return request is self._waiting or request is self._ahead

    def receive(self, request: Request, prediction: Preview) -> bool:
        """Take an answer; False if it came too late and was dropped."""
        if not self.is_wanted(request):
            return False
        if request is self._ahead:
            _keep(self._foreseen, request.draft, prediction, _KEPT_FORESEEN)
        else:
            _keep(self._predictions, request.draft, prediction, _KEPT_PREDICTIONS)
        self._let_go(request)
        return True

    def fail(self, request: Request) -> bool:
        """The request could not be answered; False if nobody waits for it any more."""
        is_missed = self._waiting is request
        self._let_go(request)
        return is_missed

    def _let_go(self, request: Request) -> None:
        if self._waiting is request:
            self._waiting = None
        elif self._ahead is request:
            self._ahead = None

    def relative(self, draft: Draft, *, dragged: bool = False) -> Preview | None:
        """A prediction of the same prompts, perhaps evolved otherwise: its fields are those of this draft.

        With ``dragged`` also one with other drags: it saw the same crop, unless a drag led out of that.
        """
        key = replace(draft.unlabelled, evolution=None)
        for known, made in reversed(self._predictions.items()):
            other = replace(known, evolution=None, corrections=key.corrections if dragged else known.corrections)
            if other == key:
                return made
        return None

    def forget_predictions(self) -> None:
        """After a change of model, image or device: predict anew what is shown next."""
        self._predictions.clear()
        self._foreseen.clear()
        self._waiting = self._ahead = None

    # ---- objects

    def commit(self) -> LabelledObject:
        """Write the preview into the labels, and begin a new object.

        It gets the next free label, or takes the place of the object that was reopened. Of a reopened
        one, pixels that it wrote itself go; what was painted onto it beside them stays.

        Raises
        ------
        ValueError
            If there is no preview, it is empty, all its pixels are protected, or the label does
            not fit the labels' dtype.
        """
        self.store.settle()
        preview = self.preview
        if preview is None:
            raise ValueError("there is no preview to accept; click the object's four extreme points first")
        confidence, former = float(getattr(preview, "confidence", np.nan)), self.reopened
        label = self.next_label if former is None else former.label
        action = plan_commit(self.store, self._draft, preview.mask, confidence, label, self._policy, former)
        self._do(action)
        return action.object

    def reopen(self, label: int, plane: PlaneKey | None = None) -> None:
        """Work on a committed object again: its clicks and drags become the ones in progress.

        Its pixels stay until it is committed again, under the same label; `clear` leaves it as it is.

        Parameters
        ----------
        label : int
            Of the object.
        plane : PlaneKey, optional
            Which of its planes, if it has several.

        Raises
        ------
        ValueError
            If this session did not make the object, or not in that plane.
        """
        action = plan_reopen(self._draft, find(self.objects, label, "reopen"), plane)
        if action.before != action.after:
            self._do(action)

    def delete(self, label: int) -> LabelledObject:
        """Remove an object from the labels, with what was painted onto it or under its label since.

        Raises
        ------
        ValueError
            If this session did not make the object.
        """
        return self.delete_all([label])[0]

    def delete_all(self, labels: Iterable[int]) -> tuple[LabelledObject, ...]:
        """Remove several objects in one step; see `delete`.

        Raises
        ------
        ValueError
            If there are none, or this session did not make one of them.
        """
        self.store.settle()
        chosen = tuple(find(self.objects, label, "delete") for label in dict.fromkeys(labels))
        if not chosen:
            raise ValueError("there is nothing to delete; choose one or more objects first")
        self._do(plan_delete(self.store, self._draft, chosen, self._done))
        return chosen

    def merge(self, labels: Iterable[int]) -> LabelledObject:
        """Make several objects one under the label of the first; also pieces of one object in many planes.

        Raises
        ------
        ValueError
            If they are less than two, not made by this session, or from differently turned planes.
        """
        self.store.settle()
        chosen = [find(self.objects, label, "merge") for label in dict.fromkeys(labels)]
        action = plan_merge(self.store, self._draft, chosen, self._done)
        self._do(action)
        return action.object

    def split(
        self, label: int, mask: ObjectMask | None = None, plane: PlaneKey | None = None
    ) -> tuple[LabelledObject, ...]:
        """Make parts of an object objects of their own.

        Parameters
        ----------
        label : int
            Of the object.
        mask : ObjectMask, optional
            What to split off; without it, parts that are not connected. They hang together where pixels touch,
            also at a corner, and where they overlap in neighbouring planes. The largest keeps the label.
        plane : PlaneKey, optional
            Plane of the mask; the object's first one by default.

        Raises
        ------
        ValueError
            If this session did not make the object, or there is nothing to split off.
        """
        self.store.settle()
        made = find(self.objects, label, "split")
        action = plan_split(self.store, self._draft, made, self.next_label, plane, mask)
        self._do(action)
        return action.added

    def classify(self, label: int, class_name: str) -> None:
        """Say what kind of object this is; an empty name takes it back.

        Raises
        ------
        ValueError
            If this session did not make the object.
        """
        self.classify_all([label], class_name)

    def classify_all(self, labels: Iterable[int], class_name: str) -> None:
        """Say in one step what kind of objects these are; see `classify`.

        Raises
        ------
        ValueError
            If this session did not make one of them.
        """
        class_name = " ".join(class_name.split())  # tables and files hold it in one line
        chosen = [find(self.objects, label, "name") for label in dict.fromkeys(labels)]
        changed = [made for made in chosen if made.class_name != class_name]
        if changed:
            self._do(plan_classify(self._draft, changed, class_name))


def _keep(predictions: OrderedDict[Draft, Preview], draft: Draft, made: Preview, count: int) -> None:
    """Keep one more prediction, and no more than a number of them: the oldest go."""
    predictions[draft.unlabelled] = made
    predictions.move_to_end(draft.unlabelled)
    while len(predictions) > count:
        predictions.popitem(last=False)
