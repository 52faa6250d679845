"""The sessions of Labels layers that a widget works on: each hears its layer from its beginning until it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari.layers import Labels

from napari_delse.annotation.session import AnnotationSession
from napari_delse.widgets._brush import lead_undo, leave_undo, note_stroke

if TYPE_CHECKING:
    from napari.utils.events import Event

Step = Callable[[AnnotationSession], Any]


class Sessions:
    """Sessions by their layers, also those that nobody looks at just now.

    What is painted in a layer is noted by its session, and the undo keys of the layer go the session's way: else the
    next object would get a label that was painted meanwhile, and napari's undo would take pixels of objects that it
    does not know.

    Parameters
    ----------
    painted : callable
        Called after a session has noted a stroke.
    replaced : callable
        Called with a layer whose array was replaced.
    step : callable
        Called with a layer, and with `AnnotationSession.undo` or `redo`, when the keys for it are pressed there.
    """

    def __init__(
        self,
        painted: Callable[[], object],
        step: Callable[[Labels, Step], object],
        replaced: Callable[[Labels], object],
    ) -> None:
        self._painted, self._step, self._replaced = painted, step, replaced
        self._sessions: WeakKeyDictionary[Labels, AnnotationSession] = WeakKeyDictionary()

    def __contains__(self, layer: Labels) -> bool:
        """Whether a layer has a session."""
        return layer in self._sessions

    def __getitem__(self, layer: Labels) -> AnnotationSession:
        """The session of a layer."""
        return self._sessions[layer]

    def get(self, layer: Labels) -> AnnotationSession | None:
        """The session of a layer, if it has one."""
        return self._sessions.get(layer)

    def __iter__(self) -> Iterator[Labels]:
        """All layers that have one."""
        return iter(list(self._sessions))

    def begin(self, layer: Labels, session: AnnotationSession) -> None:
        """Work with this session of a layer from now on."""
        self.end(layer)
        self._sessions[layer] = session
        layer.events.paint.connect(self._on_painted)
        layer.events.data.connect(self._on_data)
        lead_undo(layer, self._undo, self._redo)

    def end(self, layer: Labels) -> AnnotationSession | None:
        """The work on a layer is over; its session, if it had one."""
        session = self._sessions.pop(layer, None)
        if session is not None:
            self._leave(layer)
        return session

    def let_go(self) -> None:
        """Hear nothing any more; the sessions stay."""
        for layer in self:
            self._leave(layer)

    def _leave(self, layer: Labels) -> None:
        layer.events.paint.disconnect(self._on_painted)
        layer.events.data.disconnect(self._on_data)
        leave_undo(layer)

    def _on_painted(self, event: Event) -> None:
        session = self._sessions.get(event.source)
        if session is not None and note_stroke(session, event.source, event):
            self._painted()

    def _on_data(self, event: Event) -> None:
        if event.source in self._sessions:
            self._replaced(event.source)

    def _undo(self, layer: Labels) -> None:
        self._take(layer, AnnotationSession.undo, layer.undo)

    def _redo(self, layer: Labels) -> None:
        self._take(layer, AnnotationSession.redo, layer.redo)

    def _take(self, layer: Labels, step: Step, of_napari: Callable[[], object]) -> None:
        """Strokes from before there was a session are known to napari only."""
        session = self._sessions.get(layer)
        if session is None or session.is_untouched:
            of_napari()
        else:
            self._step(layer, step)
