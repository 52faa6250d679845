"""The dock widget "Batch (DELSE)": objects of a few planes carried to all, or outlined in many files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer

from napari_delse.widgets import _guide as guide
from napari_delse.widgets._batch.filework import FileWork, fingerprint
from napari_delse.widgets._batch.labels import BatchLabels, fits
from napari_delse.widgets._batch.layers import LayerWork
from napari_delse.widgets._batch.panel import BatchPanel, duration
from napari_delse.widgets._batch.plan import read_plane
from napari_delse.widgets._batch.restoring import BatchRestorer
from napari_delse.widgets._batch.run import BatchRunner, Control
from napari_delse.widgets._docked import itself
from napari_delse.widgets._events import Followed, let_go
from napari_delse.widgets._fields import paint_icons
from napari_delse.widgets._layers import centre_on, show_plane
from napari_delse.widgets._notices import Notices
from napari_delse.widgets._outliner import load_predictor, model_names
from napari_delse.widgets._recording import Journals

if TYPE_CHECKING:
    import napari.viewer
    from qtpy.QtGui import QEnterEvent

    from napari_delse.widgets._batch.review import Doubt

_KEYS = {"Shift+J": 1, "Shift+K": -1}  # steps in the list of doubts
_TIMERS = {"soon": 20, "files": 300}  # milliseconds
_TICK = 250  # milliseconds between two looks at the progress


class BatchWidget(BatchPanel):
    """Carry objects through planes, refine labels, or outline points, on many planes or in many files.

    Parameters
    ----------
    napari_viewer : Viewer
        Where to work.
    load : callable, optional
        Makes the predictor from the names of a model and a device, in the worker.
    names : callable, optional
        Lists the models, in the worker.
    fingerprint_of : callable, optional
        Tells what a result says of the model of a name, in the worker.
    """

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        load: Callable[[str, str], Any] = load_predictor,
        names: Callable[[], list[str]] = model_names,
        fingerprint_of: Callable[[str], str] = fingerprint,
    ) -> None:
        super().__init__()
        self.viewer = viewer = itself(napari_viewer)
        self._closed = False
        self._bound: list[str] = []  # keys
        self._connected = Followed()  # for as long as the widget lives
        self._timers = {name: QTimer(self, singleShot=True, interval=ms) for name, ms in _TIMERS.items()}
        self._timers["soon"].timeout.connect(self._refresh)
        self._ticking = QTimer(self, interval=_TICK)
        self._ticking.timeout.connect(self._tick)
        self.notices = Notices(self._later)
        self._journals = Journals(self._later)
        self.runner = BatchRunner(load, fingerprint_of)
        self.labels = BatchLabels(self._journals, self._later, lambda layer: self.work.touched(layer))
        self.work = LayerWork(viewer, self, self.runner, self.labels, self.notices, self._later)
        self.file_work = FileWork(viewer, self, self.runner, self.notices, self._later, fingerprint_of)
        self._timers["files"].timeout.connect(self.file_work.look)
        self.restorer = BatchRestorer(viewer, self.form, self.labels, self._journals, self.notices, self._offer)
        self._workers = (self.runner, self.work, self.file_work)
        self.destroyed.connect(partial(let_go, (*self._workers, self._journals), (self._connected,)))
        self._connect()
        self._paint_icons()
        self._names = names
        self._look_for_models()
        self.file_work.look()
        self._offer()
        self._refresh()

    # ---------------------------------------------------------------- set-up and end

    def _connect(self) -> None:
        self.start_button.clicked.connect(lambda: self.start())
        self.pause_button.clicked.connect(lambda: self.pause())
        self.cancel_button.clicked.connect(lambda: self.cancel())
        self.undo_button.clicked.connect(lambda: self.undo())
        self.redo_button.clicked.connect(lambda: self.redo())
        self.restore_button.clicked.connect(lambda: self.restorer.restore())
        self.discard_button.clicked.connect(lambda: self._journals.discard(self.notices.say))
        self.review.again_button.clicked.connect(lambda: self.carry_on())
        self.review.chosen.connect(self.show_object)
        self.form.changed.connect(self._on_choice)
        self.files.changed.connect(self._on_files)
        self.tabs.currentChanged.connect(lambda _: self._later())
        layers, dims = self.viewer.layers, self.viewer.dims
        for emitter, callback in (
            (layers.events.inserted, self._on_inserted),
            (layers.events.removed, self._on_removed),
            (dims.events.current_step, self._later),
            (dims.events.order, self._later),
            (dims.events.ndisplay, self._later),
            (self.viewer.events.theme, self._paint_icons),
        ):
            self._connected.follow(emitter, callback)
        for layer in layers:
            self._connected.follow(layer.events.name, self._offer)
        for key, step in _KEYS.items():
            with suppress(ValueError):  # somebody else has it, and keeps it
                self.viewer.bind_key(key, lambda _, step=step: self.review.step(step))
                self._bound.append(key)

    def shut_down(self) -> None:
        """Stop what runs, write what came of it, and leave sessions to the next widget."""
        if self._closed:
            return
        self._closed = True
        self._ticking.stop()
        let_go(self._workers, (self._connected,))
        with suppress(Exception):  # the viewer may be half gone
            self.labels.drain()
        with suppress(Exception):
            for key in self._bound:
                self.viewer.bind_key(key, None)
        self.labels.close()
        self._journals.close()

    # ---------------------------------------------------------------- what the viewer tells

    def _on_inserted(self, event: Any) -> None:
        self._connected.follow(event.value.events.name, self._offer)
        self._offer()

    def _on_removed(self, event: Any) -> None:
        self.work.removed(event.value)
        if isinstance(event.value, Labels):
            self.labels.forget(event.value)
        self._offer()

    def enterEvent(self, event: QEnterEvent) -> None:  # noqa: N802 - Qt's name
        """A model may have come while the mouse was elsewhere."""
        super().enterEvent(event)
        self._look_for_models()

    def _look_for_models(self) -> None:
        if not self.is_busy and not self._closed:
            self.runner.runner.submit(self._names, self.form.offer_models, self.notices.say)

    def _on_choice(self) -> None:
        self.notices.say()
        self._offer()

    def _on_files(self) -> None:
        self.file_work.forget()
        self._timers["files"].start()

    def _offer(self) -> None:
        """Offer the layers that there are now."""
        if not self._closed:
            self.work.offer()
            self.restorer.look()
            self._later()

    def _paint_icons(self) -> None:
        paint_icons(self, self.viewer.theme)

    # ---------------------------------------------------------------- what the person wants

    @property
    def control(self) -> Control | None:
        """Of what runs."""
        return self.runner.control

    @property
    def is_busy(self) -> bool:
        """Whether something runs, or is still being written."""
        return self.runner.is_busy or self.work.run is not None

    def start(self) -> None:
        """Do what the status line says."""
        if self.is_busy:
            return
        with self.notices.told():
            if self.is_on_files:
                self.file_work.start()
            else:
                self._journals.use_model(self.form.model[0], self.runner.runner)
                self.work.start(self.work.plan())
        self._begin()

    def carry_on(self) -> None:
        """From the shown plane, which was corrected, to the planes that depend on it."""
        if not self.is_busy:
            with self.notices.told():
                self.work.start(self.work.plan_again())
            self._begin()

    def _begin(self) -> None:
        if self.is_busy:
            self._ticking.start()
        self._refresh()

    def pause(self) -> None:
        """Wait, or go on."""
        if self.control is not None:
            if self.control.is_paused:
                self.control.go_on()
            else:
                self.control.pause()
            self._refresh()

    def cancel(self) -> None:
        """Stop at the next object; what is done stays."""
        if self.control is not None:
            self.control.cancel()
            self._refresh()

    def undo(self) -> None:
        """Take the last step on the labels back: a whole run, a stroke or an object."""
        layer = self._layer
        if layer is not None:
            with self.notices.told("the labels could not be written: "):
                self.labels.undo(layer)
            self._refresh()

    def redo(self) -> None:
        """Do again what was undone."""
        layer = self._layer
        if layer is not None:
            with self.notices.told("the labels could not be written: "):
                self.labels.redo(layer)
            self._refresh()

    @property
    def _layer(self) -> Labels | None:
        """The labels whose steps are undone."""
        if self.work.run is not None:
            return self.work.run.layer
        chosen = self.form.labels_box.currentData()
        if isinstance(chosen, Labels):
            return chosen
        return self.work.last_layer

    def show_object(self, doubt: Doubt) -> None:
        """Go to an object of a plane."""
        source, layer, line, place, label = self.form.source, self._layer, doubt.line, doubt.place, doubt.label
        if source is None or layer is None or not fits(layer, source) or layer.data.shape[line.along] != line.count:
            return
        rows, columns = (np.flatnonzero((read_plane(layer.data, line, place) == label).any(axis=a)) for a in (1, 0))
        position = np.zeros(source.ndim)
        position[[axis for axis in range(source.ndim) if axis not in line.axes]] = line.key(place).index
        if len(rows):
            position[list(line.axes)] = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
        world = np.asarray(layer.data_to_world(position))
        show_plane(self.viewer, line.axes, world)
        if len(rows):
            centre_on(self.viewer, world)
            layer.selected_label = label

    # ---------------------------------------------------------------- showing

    def _later(self) -> None:
        if not self._closed:
            self._timers["soon"].start()

    def _tick(self) -> None:
        if not self.is_busy:
            self._ticking.stop()
        self._refresh()

    def _refresh(self) -> None:
        """Bring buttons, status and progress in step with what there is."""
        if self._closed:
            return
        control, busy = self.control, self.is_busy
        traces = self.work.traces()
        self.review.show_runs(self.work.line, traces.runs, traces.corrected)
        self.show_doubts(self.review.count)
        sentence, reason = ("", "") if busy else self._what_next()
        text = self._what_runs() if busy else sentence or guide.sentence(reason)
        notice, is_trouble = self.notices.or_else(self._problem())
        self.show_status(text, notice, trouble=is_trouble)
        self.start_button.setEnabled(bool(sentence))
        self.start_button.setText("Start")
        self.start_button.setToolTip(guide.sentence(sentence or reason or "something runs already"))
        for one in (self.pause_button, self.cancel_button):
            one.setEnabled(control is not None and not control.is_cancelled)
        self.pause_button.setText("Go on" if control is not None and control.is_paused else "Pause")
        self._show_history()
        self._show_again(busy=busy)
        self._show_progress()
        self.show_offer("" if busy else self.restorer.text)
        self.form.setEnabled(not busy)

    def _what_next(self) -> tuple[str, str]:
        """What Start would do, or why it cannot."""
        if self.is_on_files:
            return self.file_work.sentence, self.file_work.reason or "the files are being looked for ..."
        try:
            return self.work.plan().sentence, ""
        except ValueError as error:
            return "", str(error)

    def _what_runs(self) -> str:
        control, run = self.control, self.work.run
        if control is not None and control.is_cancelled:
            return "Stopping at the next object ..."
        if control is not None and control.is_paused:
            return "Paused. Go on continues, Cancel keeps what is done."
        if run is None:
            return self.file_work.sentence
        return f"{run.plan.sentence} You can work on other planes meanwhile."

    def _problem(self) -> str:
        layer = self._layer
        return "" if layer is None else self._journals.problem(self.labels.find(layer))

    def _show_history(self) -> None:
        session = None if self._layer is None else self.labels.find(self._layer)
        self.undo_button.setEnabled(session is not None and session.can_undo)
        self.redo_button.setEnabled(session is not None and session.can_redo)

    def _show_again(self, *, busy: bool) -> None:
        button, reason = self.review.again_button, "something runs already"
        if not busy:
            try:
                sentence, reason = self.work.plan_again().sentence, ""
            except ValueError as error:
                sentence, reason = "", str(error)
        button.setEnabled(not reason)
        button.setToolTip(f"{button.property('tip')}. {guide.sentence(reason or sentence)}")

    def _show_progress(self) -> None:
        run, control = self.work.run, self.control
        if run is not None:
            count = run.control.predictions
            run.pace.tick(is_paused=run.control.is_paused or not count)  # loading the model tells nothing
            left = run.pace.seconds_left(count)
            text = _told(run.pace.done, run.pace.total, "planes", left) if count else "The model is being loaded ..."
            self.show_progress(run.pace.fraction(count), text)
        elif control is not None:
            work = self.file_work
            self.show_progress(work.fraction, _told(work.made, len(work.jobs), "files", work.seconds_left))
        else:
            self.show_progress(None)


def _told(done: int, total: int, what: str, left: float | None) -> str:
    text = f"{done:,} of {total:,} {what}"
    return text if left is None else f"{text}, about {duration(left)} left"
