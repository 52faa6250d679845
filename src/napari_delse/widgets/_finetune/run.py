"""A training as the widget follows it: prepared in a worker, run in a child process, told by signals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_delse.widgets._run import Runner

if TYPE_CHECKING:
    from napari_delse.finetuning.jobs import Job
    from napari_delse.finetuning.run import JobProgress

State = Literal["idle", "preparing", "starting", "training", "pausing", "finishing", "paused", "done"]
WORKING = ("preparing", "starting", "training", "pausing", "finishing")
_PATIENCE = {"pausing": 30_000, "finishing": 300_000}  # milliseconds to save, or to judge, before it may be ended


class TrainingLike(Protocol):
    """What is needed of a `napari_delse.finetuning.process.TrainingProcess`."""

    def stop(self) -> None:
        """Ask it to save and end."""
        ...

    def finish(self) -> None:
        """Ask it to end with the best model so far."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def progress(self) -> Iterator[JobProgress]:
        """What it tells."""
        ...


def start_training(job: Job, device: str) -> TrainingLike:
    """A child process that trains."""
    from napari_delse.finetuning.process import TrainingProcess

    return TrainingProcess(job, device)


def _delete(job: Job) -> None:
    from napari_delse.finetuning.jobs import delete_job

    delete_job(job)


class _CancelledError(Exception):
    """Nobody wants the training any more that is being prepared."""


class TrainingRun(QObject):
    """At most one training at a time.

    The thread that listens to the child is a daemon: when napari ends, nobody waits for the child, which saves and
    ends by itself because its input is closed.

    Parameters
    ----------
    start : callable
        Starts the child for a job on a device; called in a thread.

    Attributes
    ----------
    changed : Signal
        `state`, `job`, `last`, `done` or `total` are new.
    progressed : Signal of JobProgress
        The child told something.
    failed : Signal of Exception
        It ended otherwise than wanted; the job is kept.
    """

    changed = Signal()
    progressed = Signal(object)
    failed = Signal(object)
    _told = Signal(int, str, object)

    def __init__(self, start: Callable[[Job, str], TrainingLike] = start_training) -> None:
        super().__init__()
        self.state: State = "idle"
        self.job: Job | None = None
        self.last: JobProgress | None = None
        self.read = (0, 0)  # objects read while it is prepared, and all
        self.runner = Runner("napari-delse-prepare")
        self._start = start
        self._child: TrainingLike | None = None
        self._order: Literal["", "stop", "finish"] = ""
        self._number = 0
        self._closed = False
        self._patience = QTimer(self, singleShot=True)
        self._patience.timeout.connect(self.changed)
        self._told.connect(self._on_told, Qt.ConnectionType.QueuedConnection)

    @property
    def is_working(self) -> bool:
        """Whether something is under way."""
        return self.state in WORKING

    @property
    def fraction(self) -> float:
        """Of the run, 0 to 1, as far as it is known."""
        return 0.0 if self.last is None else self.last.fraction

    @property
    def is_late(self) -> bool:
        """Whether the child was asked to end, and should have by now."""
        return self.state in _PATIENCE and not self._patience.isActive()

    def _enter(self, state: State) -> None:
        self.state = state
        if state in _PATIENCE:
            self._patience.start(_PATIENCE[state])
        else:
            self._patience.stop()
        self.changed.emit()

    # ---- what the person wants

    def begin(self, prepare: Callable[[Callable[[int, int], None]], Job], device: str) -> None:
        """Prepare a job and train in it.

        Parameters
        ----------
        prepare : callable
            Makes the job, in the worker; called with what it tells the numbers of objects read and of all.
        device : str
            Where to train.
        """
        self._number += 1
        number = self._number
        self.job, self.last, self.read, self._order = None, None, (0, 0), ""

        def told(done: int, total: int) -> None:
            if number != self._number or self._closed:
                raise _CancelledError
            self._told.emit(number, "read", (done, total))

        def prepared(job: Job) -> None:
            if number == self._number:
                self.go_on(job, device)
            else:  # cancelled too late to stop the reading
                self.runner.submit(partial(_delete, job), lambda _: None, lambda _: None)

        def not_prepared(error: Exception) -> None:
            if number == self._number:
                self._enter("idle")
                self.failed.emit(error)

        self._enter("preparing")
        self.runner.submit(lambda: prepare(told), prepared, not_prepared)

    def go_on(self, job: Job, device: str, order: Literal["", "finish"] = "") -> None:
        """Train in a job from where it is, or end it with its best model."""
        self._number += 1
        if job is not self.job:
            self.job, self.last = job, None
        self._order = order
        self._enter("finishing" if order else "starting")
        name, number = "napari-delse-training", self._number
        threading.Thread(target=self._listen, args=(number, job, device), name=name, daemon=True).start()

    def pause(self) -> None:
        """Save and end the child; `go_on` continues."""
        if self.state == "preparing":
            self._number += 1
            self._enter("idle")
        elif self.state in ("starting", "training"):
            self._say("stop")
            self._enter("pausing")

    def finish(self, device: str) -> None:
        """End with the best model so far."""
        if self.state in ("starting", "training"):
            self._say("finish")
            self._enter("finishing")
        elif self.state == "paused" and self.job is not None:
            self.go_on(self.job, device, "finish")

    def end(self) -> None:
        """End a child that does not answer; what it saved last stays."""
        if self.is_late and self._child is not None:
            self._child.kill()

    def forget(self) -> None:
        """Be ready for another training."""
        if not self.is_working:
            self.job = self.last = None
            self._enter("idle")

    def _say(self, order: Literal["stop", "finish"]) -> None:
        self._order = order
        child = self._child
        if child is not None:
            (child.stop if order == "stop" else child.finish)()

    # ---- the child

    def _listen(self, number: int, job: Job, device: str) -> None:
        """In a thread of its own: start the child and pass on what it says."""
        try:
            self._child = child = self._start(job, device)
            if self._closed or self._order == "stop":
                child.stop()
            elif self._order == "finish":
                child.finish()
            for progress in child.progress():
                self._pass_on(number, "progress", progress)
        except Exception as error:  # whatever it is, the person reads it
            self._end(number, job, error)
        else:
            self._end(number, job, None)

    def _end(self, number: int, job: Job, error: Exception | None) -> None:
        if not job.folder.is_dir():
            gone = f"the training '{job.name}' is gone: its folder {job.folder} was removed; begin another one"
            self._pass_on(number, "gone", ValueError(gone))
        else:
            self._pass_on(number, "ended" if error is None else "failed", error)

    def _pass_on(self, number: int, kind: str, content: Any) -> None:
        if not self._closed:
            try:
                self._told.emit(number, kind, content)
            except RuntimeError:  # Qt deleted this object meanwhile
                self._closed = True

    def _on_told(self, number: int, kind: str, content: Any) -> None:
        if number != self._number or self._closed:
            return
        if kind == "read":
            self.read = content
            self.changed.emit()
        elif kind == "progress":
            self._on_progress(content)
        else:
            self._child = None
            is_done = self.last is not None and self.last.outcome is not None
            if kind == "gone" and not is_done:
                self.job = self.last = None
                self._enter("idle")
            else:
                self._enter("done" if is_done else "paused")
            if kind != "ended":
                self.failed.emit(content)

    def _on_progress(self, progress: JobProgress) -> None:
        self.last = progress
        if self.state == "starting":
            self.state = "training"
        self.progressed.emit(progress)
        self.changed.emit()

    def close(self) -> None:
        """Ask the child to save and end, and wait for nothing."""
        if not self._closed:
            self._closed = True
            self._number += 1
            with suppress(RuntimeError):  # Qt may have deleted it
                self._patience.stop()
            self.runner.close()
            if self._child is not None:
                self._child.stop()
