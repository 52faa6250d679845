"""Labels layers as runs write to them: by the session of whoever works on them, in pieces that nobody waits for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer

from napari_delse.annotation.session import AnnotationSession
from napari_delse.widgets._desk import desk_of
from napari_delse.widgets._kept import hold, keep, let_fall, take_up
from napari_delse.widgets._label_store import LayerLabels
from napari_delse.widgets._recording import Journals
from napari_delse.widgets._sessions import Sessions, Step

if TYPE_CHECKING:
    from napari_delse.annotation.edits import PixelEdit
    from napari_delse.widgets._source import ImageSource

_BUDGET = 0.012  # seconds of writing, after which the viewer gets its turn


class BatchLabels:
    """Sessions of the layers that runs write to, and what is still to be written.

    Where the annotate widget works on the layer, its session is used: a run is one step of its history, and stands in
    its journal. Else the layer gets a session and a journal here, which the annotate widget takes over when it comes.

    Parameters
    ----------
    journals : Journals
        Where sessions of layers are recorded that nobody else works on.
    changed : callable
        Called when something else is to be shown.
    touched : callable
        Called with a layer when steps of it were undone or done again.
    """

    def __init__(self, journals: Journals, changed: Callable[[], object], touched: Callable[[Labels], object]) -> None:
        self._journals, self._changed, self._touched = journals, changed, touched
        self._own = Sessions(changed, self._history, lambda _: None)  # runs look for the largest label themselves
        self._left: deque[Callable[[], None]] = deque()
        self._timer = QTimer(singleShot=True, interval=0)
        self._timer.timeout.connect(self._write)
        self._failed: Callable[[Exception], object] = lambda _: None
        self.slowest = 0.0  # seconds of the longest turn of writing

    # ---- sessions

    def find(self, layer: Labels) -> AnnotationSession | None:
        """The session of a layer, if it has one by now."""
        desk = desk_of(layer)
        return self._own.get(layer) if desk is None else desk.sessions[layer]

    def session(self, layer: Labels, source: ImageSource, *, blank: bool = False) -> AnnotationSession:
        """The session of a layer; a new one, with a journal, if it has none.

        Parameters
        ----------
        layer : Labels
            What it writes to.
        source : ImageSource
            Whose labels these are.
        blank : bool
            Whether the layer is known to be empty.
        """
        if (found := self.find(layer)) is not None:
            return found
        kept = take_up(layer)
        if kept is not None:
            session = kept.session
            self._adopt(layer, session)
            self._journals.go_on(kept, source)
        else:
            session = AnnotationSession(LayerLabels(layer))
            self._adopt(layer, session)
            self._journals.record(session, source, blank=blank)
        return session

    def adopt(self, layer: Labels, session: AnnotationSession) -> None:
        """A session that was restored; it is recorded already."""
        self._journals.end(self._own.end(layer))
        session.store = LayerLabels(layer)
        self._adopt(layer, session)

    def _adopt(self, layer: Labels, session: AnnotationSession) -> None:
        self._own.begin(layer, session)
        kept = ref(layer)  # else what holds the layer would keep it

        def hand_over() -> None:
            if (layer := kept()) is not None:
                self.hand_over(layer)

        hold(layer, hand_over)

    def hand_over(self, layer: Labels) -> None:
        """End the work on a layer, and keep its session for the next widget."""
        session = self._own.end(layer)
        if session is None:
            return
        let_fall(layer)
        written = self._journals.end(session)
        if not session.is_untouched:
            keep(layer, session, written)

    def forget(self, layer: Labels) -> None:
        """A layer was removed."""
        session = self._own.end(layer)
        if session is not None:
            let_fall(layer)
            self._journals.end(session)

    # ---- undo

    def undo(self, layer: Labels) -> None:
        """Take the last step back; a run is one.

        Raises
        ------
        ValueError
            If the labels cannot be written.
        """
        self._history(layer, AnnotationSession.undo)

    def redo(self, layer: Labels) -> None:
        """Do again what was undone; see `undo`."""
        self._history(layer, AnnotationSession.redo)

    def _history(self, layer: Labels, step: Step) -> None:
        session = self.find(layer)
        if session is None:
            return
        action = step(session)
        _tell(layer)
        if action is not None:
            self._touched(layer)
        self._changed()

    # ---- writing

    @property
    def is_writing(self) -> bool:
        """Whether there is something left to be written."""
        return bool(self._left)

    def write(
        self,
        run: str,
        layer: Labels,
        source: ImageSource,
        edits: Sequence[PixelEdit],
        objects: frozenset[int],
        then: Callable[[], None],
        failed: Callable[[Exception], object],
    ) -> None:
        """Write a plane piece by piece, as a part of a run; then call something.

        Of the objects that there were when the run began, those that somebody has deleted since do not come back.
        """
        self._failed = failed

        def write(edit: PixelEdit) -> None:
            session = self.session(layer, source)
            if session.is_undone(run):
                raise RuntimeError("the run was undone, so it ended")
            kept = edit.without_labels(objects - session.objects.keys())
            session.carry(run, [] if kept is None else [kept])

        def done() -> None:
            _tell(layer)
            then()

        self._left += [partial(write, edit) for edit in edits]
        self._left.append(done)
        self._timer.start()

    def drop(self) -> None:
        """Do not write what is left."""
        self._left.clear()

    def drain(self) -> None:
        """Write all that is left now."""
        while self._left:
            self._left.popleft()()

    def _write(self) -> None:
        start = time.perf_counter()
        try:
            while self._left and time.perf_counter() - start < _BUDGET:
                self._left.popleft()()
        except Exception as error:  # that of any array, disk or driver
            self._left.clear()
            self._failed(error)
        self.slowest = max(self.slowest, time.perf_counter() - start)
        if self._left:
            self._timer.start()

    def close(self) -> None:
        """Leave all sessions to the next widget that takes up their labels."""
        self._timer.stop()
        for layer in self._own:
            self.hand_over(layer)


def _tell(layer: Labels) -> None:
    """Have the widget that works on these labels too show what was done to them."""
    if (desk := desk_of(layer)) is not None:
        desk.look()


def fits(layer: Labels, source: ImageSource) -> bool:
    """Whether labels have the shape of an image, and can be written."""
    return not layer.multiscale and tuple(layer.data.shape) == source.shape and np.dtype(layer.data.dtype).kind in "ui"
