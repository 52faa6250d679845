"""What the person wants done: accept, undo, reopen, delete ... and the predictions that go with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

from napari_delse.annotation.review import next_empty_plane
from napari_delse.annotation.session import AnnotationSession
from napari_delse.widgets import _guide as guide
from napari_delse.widgets._annotate.view import go_to, shown_plane
from napari_delse.widgets._outliner import Outlined

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_delse.annotation.actions import LabelledObject
    from napari_delse.annotation.session import Request
    from napari_delse.evolution import EvolutionSettings
    from napari_delse.geometry import Correction
    from napari_delse.widgets._desk import Desk
    from napari_delse.widgets._notices import Notices
    from napari_delse.widgets._outliner import Outliner
    from napari_delse.widgets._sessions import Step
    from napari_delse.widgets._source import ImageSource

PATIENCE = 0.2  # seconds in which an answer comes unannounced
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
    waiting : callable
        Called when an outline is due in a moment: what is painted before it comes would only make it wait.
    """

    def __init__(
        self,
        desk: Desk,
        outliner: Outliner,
        notices: Notices,
        changed: Callable[[], object],
        answered: Callable[[], object],
        waiting: Callable[[], object],
    ) -> None:
        self._desk, self._outliner, self._notices = desk, outliner, notices
        self._changed, self._answered, self._waiting = changed, answered, waiting
        self._asked_at = 0.0
        self._is_quick = True  # whether the last answer came within that time
        desk.step_wanted.connect(self._step_in)

    # ---- prediction

    def ask(self, *, still: bool = True) -> None:
        """Have predicted what is missing, and show what is there as soon as napari is done with its event.

        Unless ``still`` is off, or the model is slow, nothing is painted until then.
        """
        self._changed()
        session, source = self._desk.session, self._desk.source
        if session is None or source is None or not self._outliner.is_ready:
            return
        request = session.request()
        if session.is_waiting:  # for this request, or one that was foreseen
            self._asked_at = monotonic()
            if still and self._is_quick:
                self._waiting()
        if request is not None:
            self._predict(session, source, request)

    def foresee(self, drag: Correction, show: Callable[[Outlined], object]) -> None:
        """Have predicted what the outline would be after a drag that may not be over yet."""
        session, source = self._desk.session, self._desk.source
        if session is None or source is None or not self._outliner.is_ready:
            return
        known = session.foreseen(drag)
        if isinstance(known, Outlined):
            show(known)
        elif (request := session.foresee(drag)) is not None:
            self._predict(session, source, request, show)

    def _predict(
        self,
        session: AnnotationSession,
        source: ImageSource,
        request: Request,
        foreseen: Callable[[Outlined], object] = bool,
    ) -> None:
        def answered(answer: Outlined) -> None:
            if session.preview is answer:
                self._is_quick = monotonic() - self._asked_at < PATIENCE
                self._answered()
            else:
                foreseen(answer)

        assert request.draft.plane is not None  # without clicks there is nothing to predict
        try:
            plane = source.plane(request.draft.plane)
        except ValueError as error:
            session.fail(request)
            self._notices.say(error)
        else:
            self._outliner.outline(session, request, plane, answered, self._notices.say)

    @property
    def is_answer_near(self) -> bool:
        """Whether an answer is due in a moment, so that painting now would only make it wait."""
        session = self._desk.session
        return session is not None and session.is_waiting and monotonic() - self._asked_at < PATIENCE

    # ---- the object in progress

    def accept(self) -> LabelledObject | None:
        """Write the preview into the labels and begin the next object."""
        desk, session = self._desk, self._desk.session
        if session is None or desk.labels is None:
            self._changed()
            return None
        if session in desk.searched:
            desk.search(desk.labels)
            error = "the labels are still being searched for the largest one; accept again in a moment"
            self._notices.say(ValueError(error))
            return None
        made = None
        with self._notices.told(_NOT_WRITTEN):
            plane = session.draft.plane
            made = session.commit()
            piece = next((one for one in made.pieces if one.plane == plane), made)
            self._notices.tell(guide.tidied(made.label, piece.filled, piece.dropped))
            desk.labels.selected_label = made.label
            desk.take_clicks()
        return made

    def start_over(self) -> None:
        """Forget the object in progress, and bring back layers that were deleted."""
        desk = self._desk
        if desk.labels is None:
            desk.choose_labels(None)
            return
        with self._notices.told():
            if desk.session is not None:
                desk.session.clear()
            if desk.layers is not None:
                desk.layers.drop_unfinished()
            desk.make_layers()
        self.ask()

    def evolve(self, settings: EvolutionSettings | None) -> None:
        """Have the object in progress and those after it evolve otherwise; None for the model's own way."""
        if self._desk.session is None:
            return
        with self._notices.told():
            self._desk.session.set_evolution(settings)
        self.ask(still=False)  # a slider is being moved, and it needs no network

    # ---- undo

    def undo(self) -> None:
        """Take the last click, drag, accepted or deleted object back."""
        self._step(AnnotationSession.undo)

    def redo(self) -> None:
        """Do again what was undone."""
        self._step(AnnotationSession.redo)

    def _step(self, step: Step) -> None:
        if self._desk.session is None:
            return
        with self._notices.told(_NOT_WRITTEN):
            if (action := step(self._desk.session)) is not None:
                go_to(self._desk, action.plane)
        self.ask()

    def _step_in(self, layer: Labels, step: Step) -> None:
        """The undo keys of labels; of others than the present ones, only the pixels are shown."""
        if layer is self._desk.labels:
            self._step(step)
        else:
            with self._notices.told(_NOT_WRITTEN):
                step(self._desk.sessions[layer])

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

    def delete(self, labels: Iterable[int]) -> None:
        """Take accepted objects out of the labels, in one step."""
        chosen = self._known(labels)
        if chosen:
            with self._notices.told(_NOT_WRITTEN):
                self._session.delete_all(chosen)
            self.ask()

    def merge(self, labels: Iterable[int]) -> LabelledObject | None:
        """Make accepted objects one, under the lowest of their labels."""
        chosen, made = self._known(labels), None
        if chosen:
            with self._notices.told(_NOT_WRITTEN):
                made = self._session.merge(chosen)
                self._notices.tell(f"{len(chosen)} objects became object {made.label}.")
            self.ask()
        return made

    def split(self, label: int) -> tuple[LabelledObject, ...]:
        """Split the part that is outlined at present off an object, or else make its unconnected parts objects."""
        made: tuple[LabelledObject, ...] = ()
        if self._known([label]):
            session = self._session
            preview, plane = session.preview, session.draft.plane
            is_new = session.draft.label is None and preview is not None
            with self._notices.told(_NOT_WRITTEN):
                if is_new and preview is not None:
                    made = session.split(label, preview.mask, plane)
                    session.clear()
                else:
                    made = session.split(label)
                new = ", ".join(str(one.label) for one in made[1:])
                self._notices.tell(f"Object {label} was split: its other parts are {new}.")
            self.ask()
        return made

    def classify(self, labels: Iterable[int], name: str) -> None:
        """Say what kind of objects these are, in one step; an empty name takes it back."""
        chosen = self._known(labels)
        if chosen:
            with self._notices.told():
                self._session.classify_all(chosen, name)

    def next_empty_plane(self) -> None:
        """Go to the next plane in which no object was accepted."""
        desk, here = self._desk, shown_plane(self._desk)
        if desk.session is None or desk.source is None or here is None:
            return
        plane = next_empty_plane(desk.session.objects, here, desk.source.shape)
        if plane is None:
            self._notices.tell("There is an object in every plane.")
        else:
            self._notices.say()
            go_to(desk, plane)
            desk.take_clicks()

    @property
    def _session(self) -> AnnotationSession:
        assert self._desk.session is not None  # callers looked for it
        return self._desk.session

    def _known(self, labels: Iterable[int]) -> list[int]:
        """Those labels that are objects of the session; some may be gone by now."""
        session = self._desk.session
        return [] if session is None else [label for label in labels if label in session.objects]
