"""A person's work on one labels array: clicks, drags, previews, commits, and undo of all of it.

No GUI, no network: a front end hands over clicks and drags, asks `AnnotationSession.request` what
to predict, hands the answer to `AnnotationSession.receive` and commits it. Everything that changes
the session is an `Action`: plain data that can be done, undone, done again and written as JSON.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from napari_delse.actions import (
    Action,
    Commit,
    Delete,
    Draft,
    EditDraft,
    LabelledObject,
    LabelStore,
    PackedMask,
    PixelEdit,
    PlaneKey,
)
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask

_KEPT_PREDICTIONS = 16  # so that undoing a click or a drag needs no network


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


class AnnotationSession:
    """The state of one person's work on one labels array.

    Parameters
    ----------
    store : LabelStore
        Where committed objects are written.
    protect : bool
        Leave pixels that already have a label alone (else they are overwritten).
    largest : int
        Largest label that is in the store already.

    Notes
    -----
    Undo goes back over clicks, drags, commits and deletions alike, without limit. Undoing
    everything leaves the labels as they were found, bit by bit.
    """

    def __init__(self, store: LabelStore, *, protect: bool = True, largest: int = 0) -> None:
        self.store = store
        self.protect = protect
        self.objects: dict[int, LabelledObject] = {}
        self._found = largest
        self._draft = Draft()
        self._done: list[Action] = []
        self._undone: list[Action] = []
        self._predictions: OrderedDict[Draft, Preview] = OrderedDict()
        self._asked = 0
        self._waiting: Request | None = None

    # ---- what to show

    @property
    def draft(self) -> Draft:
        """Clicks and drags of the object in progress."""
        return self._draft

    @property
    def preview(self) -> Preview | None:
        """The prediction for exactly the present draft, if it is there."""
        return self._predictions.get(self._draft)

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is on its way."""
        return self._waiting is not None

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether something was undone and nothing new was done since."""
        return bool(self._undone)

    @property
    def actions(self) -> tuple[Action, ...]:
        """Everything done and not undone, oldest first."""
        return tuple(self._done)

    @property
    def next_label(self) -> int:
        """The label of the next object: one above the largest."""
        return max(self._found, max(self.objects, default=0)) + 1

    def note_label(self, label: int) -> None:
        """Somebody else wrote this label into the store."""
        self._found = max(self._found, int(label))

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
        points = tuple((float(y), float(x)) for y, x in clicks)
        if not points:
            self._edit(Draft())
            return
        if self._draft.clicks and self._draft.plane not in (None, plane):
            raise ValueError("this object was begun on another plane; go back there, or start over here")
        drags = self._draft.corrections if replace(self._draft, clicks=points, kind=kind).missing == 0 else ()
        self._edit(Draft(plane, points, drags, kind))

    def set_box(self, plane: PlaneKey, corners: Iterable[Sequence[float]]) -> None:
        """A box around the object instead of clicks."""
        (y0, x0), (y1, x1) = ExtremePoints.from_box(corners).points
        self._edit(Draft(plane, ((y0, x0), (y1, x1)), (), "box"))

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
        if corrections and self._draft.missing:
            raise ValueError("a drag corrects a contour, and there is none yet; click the extreme points first")
        self._edit(replace(self._draft, corrections=corrections))

    def clear(self) -> None:
        """Forget the clicks and drags of the object in progress (undo brings them back)."""
        self._edit(Draft())

    def _edit(self, draft: Draft) -> None:
        if draft != self._draft:
            self._do(EditDraft(self._draft, draft))

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

    def is_wanted(self, request: Request) -> bool:
        """Whether the answer would still be taken; a worker may ask this from its thread."""
        return self._waiting is request

    def receive(self, request: Request, prediction: Preview) -> bool:
        """Take an answer; False if it came too late and was dropped."""
        if self._waiting is not request:
            return False
        self._waiting = None
        self._predictions[request.draft] = prediction
        while len(self._predictions) > _KEPT_PREDICTIONS:
            self._predictions.popitem(last=False)
        return request.draft == self._draft

    def fail(self, request: Request) -> bool:
        """The request could not be answered; False if nobody waits for it any more."""
        if self._waiting is not request:
            return False
        self._waiting = None
        return True

    def forget_predictions(self) -> None:
        """After a change of model, image or device: predict anew what is shown next."""
        self._predictions.clear()
        self._waiting = None

    # ---- objects

    def commit(self) -> LabelledObject:
        """Write the preview into the labels under the next free label, and begin a new object.

        Raises
        ------
        ValueError
            If there is no preview, it is empty, all its pixels are protected, or the label does
            not fit the labels' dtype.
        """
        preview, plane, label = self.preview, self._draft.plane, self.next_label
        if preview is None or plane is None:
            raise ValueError("there is no preview to accept; click the object's four extreme points first")
        mask = preview.mask
        if mask.area == 0:
            raise ValueError("the preview is empty; add a click on the object's boundary, or start over")
        limit = _largest_value(self.store.dtype)
        if label > limit:
            raise ValueError(
                f"label {label} does not fit into {self.store.dtype} labels, which end at {limit}; "
                "convert the labels layer to a wider type (such as uint32) and go on"
            )
        chosen = mask
        if self.protect:
            current = self.store.read(plane, *mask.slices)
            chosen = ObjectMask(mask.mask & (current == 0), mask.origin)
            if chosen.area == 0:
                raise ValueError(
                    f"all {mask.area} pixels of this object already have a label, and labels are protected; "
                    "start over, or switch the protection off"
                )
        made = LabelledObject(
            label, self._draft, PackedMask.pack(mask), chosen.area, float(getattr(preview, "confidence", np.nan))
        )
        self._do(Commit(made, PixelEdit.plan(self.store, plane, chosen, label)))
        return made

    def delete(self, label: int) -> LabelledObject:
        """Remove an object from the labels, with what was painted onto it since.

        Raises
        ------
        ValueError
            If this session did not make the object.
        """
        made = self.objects.get(label)
        if made is None or made.draft.plane is None:
            raise ValueError(f"label {label} was not made here, so there is nothing to delete")
        mask = self._pixels_of(label, made.draft.plane, made.mask.unpack())
        self._do(Delete(made, PixelEdit.plan(self.store, made.draft.plane, mask, 0)))
        return made

    def _pixels_of(self, label: int, plane: PlaneKey, mask: ObjectMask) -> ObjectMask:
        """Pixels of a label around a mask: the window grows while the label touches its rim."""
        height, width = plane.shape(self.store.shape)
        rows, columns = mask.slices
        while True:
            found = self.store.read(plane, rows, columns) == label
            step = max(8, max(found.shape) // 4)
            top = max(0, rows.start - step) if found[:1].any() else rows.start
            bottom = min(height, rows.stop + step) if found[-1:].any() else rows.stop
            left = max(0, columns.start - step) if found[:, :1].any() else columns.start
            right = min(width, columns.stop + step) if found[:, -1:].any() else columns.stop
            if (slice(top, bottom), slice(left, right)) == (rows, columns):
                return ObjectMask(found, (rows.start, columns.start))
            rows, columns = slice(top, bottom), slice(left, right)

    # ---- undo

    def undo(self) -> Action | None:
        """Take the last action back; None if there is none."""
        if not self._done:
            return None
        action = self._done[-1]
        if isinstance(action, EditDraft):
            self._draft = action.before
        elif isinstance(action, Commit):
            action.pixels.undo(self.store)
            del self.objects[action.object.label]
            self._draft = action.object.draft
        else:
            action.pixels.undo(self.store)
            self.objects[action.object.label] = action.object
        self._undone.append(self._done.pop())
        self._waiting = None
        return action

    def redo(self) -> Action | None:
        """Do again what was undone last; None if there is nothing."""
        if not self._undone:
            return None
        self._apply(self._undone[-1])
        return self._undone.pop()

    def _do(self, action: Action) -> None:
        self._apply(action)
        self._undone.clear()

    def _apply(self, action: Action) -> None:
        """Carry an action out; if the labels cannot be written, nothing has happened."""
        if isinstance(action, EditDraft):
            self._draft = action.after
        elif isinstance(action, Commit):
            action.pixels.do(self.store)
            self.objects[action.object.label] = action.object
            self._draft = Draft()
        else:
            action.pixels.do(self.store)
            del self.objects[action.object.label]
        self._done.append(action)
        if not (self._waiting and self._waiting.draft == self._draft):
            self._waiting = None


def _largest_value(dtype: np.dtype[Any]) -> int:
    return 1 if dtype == np.bool_ else int(np.iinfo(dtype).max)
