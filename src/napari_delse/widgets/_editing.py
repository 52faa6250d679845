"""What the person wants done: accept, undo, reopen, delete ... and the predictions that go with it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari_delse.session import AnnotationSession
from napari_delse.widgets._view import go_to, shown_plane

if TYPE_CHECKING:
    from napari_delse.actions import LabelledObject
    from napari_delse.widgets._desk import Desk
    from napari_delse.widgets._notices import Notices
    from napari_delse.widgets._outliner import Outliner

_PATIENCE = 0.12  # seconds in which an answer comes unannounced
_NOT_WRITTEN = "the labels could not be written: "


class Editor:
    """Does what the person wants with the session of a desk, and has predicted what is missing.

    Parameters
    ----------
    desk : Desk
        What is worked on.
    outliner : Outliner
        Who outlines objects.
    notices : Notices
        Where trouble is told.
    changed : callable
        Called when something else is to be shown, soon.
    answered : callable
        Called when an outline is there, to be shown at once.
    """

    def __init__(
        self,
        desk: Desk,
        outliner: Outliner,
        notices: Notices,
        changed: Callable[[], object],
        answered: Callable[[], object],
    ) -> None:
        self._desk, self._outliner, self._notices = desk, outliner, notices
        self._changed, self._answered = changed, answered
        self._asked_at = 0.0

    # ---- prediction

    def ask(self) -> None:
        """Have predicted what is missing, and show what is there as soon as napari is done with its event."""
        self._changed()
        session, source = self._desk.session, self._desk.source
        if session is None or source is None or not self._outliner.is_ready:
            return
        request = session.request()
        if request is None or request.draft.plane is None:
            return
        try:
            plane = source.plane(request.draft.plane)
        except ValueError as error:
            session.fail(request)
            self._notices.say(error)
        else:
            self._asked_at = monotonic()
            self._outliner.outline(session, request, plane, self._answered, self._notices.say)

    @property
    def is_answer_near(self) -> bool:
        """Whether an answer is due in a moment, so that painting now would only make it wait."""
        session = self._desk.session
        return session is not None and session.is_waiting and monotonic() - self._asked_at < _PATIENCE

    # ---- the object in progress

    def accept(self) -> LabelledObject | None:
        """Write the preview into the labels and begin the next object."""
        desk, session = self._desk, self._desk.session
        if session is None or desk.labels is None:
            self._changed()
            return None
        if session in desk.searched:
            error = "the labels are still being searched for the largest one; accept again in a moment"
            self._notices.say(ValueError(error))
            return None
        with self._notices.told(_NOT_WRITTEN):
            made = session.commit()
            desk.labels.selected_label = made.label
            desk.take_clicks()
            return made
        return None

    def start_over(self) -> None:
        """Forget the object in progress, and bring back layers that were deleted."""
        desk = self._desk
        if desk.labels is None:
            desk.choose_labels(None)
            return
        with self._notices.told():
            if desk.session is not None:
                desk.session.clear()
            desk.make_layers()
        self.ask()

    # ---- undo

    def undo(self) -> None:
        """Take the last click, drag, accepted or deleted object back."""
        self._step(AnnotationSession.undo)

    def redo(self) -> None:
        """Do again what was undone."""
        self._step(AnnotationSession.redo)

    def _step(self, step: Callable[[AnnotationSession], Any]) -> None:
        if self._desk.session is None:
            return
        with self._notices.told(_NOT_WRITTEN):
            if (action := step(self._desk.session)) is not None:
                go_to(self._desk, action.plane)
        self.ask()

    # ---- accepted objects

    def reopen(self, label: int) -> None:
        """Edit the clicks of an accepted object again; it is accepted under the same label."""
        session = self._desk.session
        if session is None or label not in session.objects:
            return
        with self._notices.told():
            here, pieces = shown_plane(self._desk), session.objects[label].pieces
            plane = next((one.plane for one in pieces if one.plane == here), pieces[0].plane)
            session.reopen(label, plane)
            go_to(self._desk, plane)
            self._desk.take_clicks()
        self.ask()

    def delete(self, label: int) -> None:
        """Take an accepted object out of the labels."""
        session = self._desk.session
        if session is None or label not in session.objects:
            return
        with self._notices.told(_NOT_WRITTEN):
            session.delete(label)
        self.ask()
