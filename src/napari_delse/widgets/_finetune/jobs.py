"""Trainings that did not end: found, offered, and thrown away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

from napari_delse.widgets._run import Runner

if TYPE_CHECKING:
    from napari_delse.finetuning.jobs import Job

_AGAIN = 2000  # until a training that is still saving is looked at again, milliseconds


@dataclass(frozen=True)
class Unfinished:
    """A training that can be gone on with.

    Parameters
    ----------
    job : Job
        Which one.
    running : bool
        Whether some process trains in it, or is saving, at this moment.
    fraction : float
        Of the run.
    """

    job: Job
    running: bool
    fraction: float

    @property
    def text(self) -> str:
        """One sentence."""
        when = datetime.fromisoformat(self.job.created).astimezone()
        what = f"Unfinished training '{self.job.name}' of {when.day} {when:%b %H:%M}, {self.fraction:.0%} done"
        return f"{what}; another program is training it or saving it now." if self.running else f"{what}."


def _unfinished() -> tuple[list[Unfinished], list[ValueError]]:
    """In the worker: those that can be gone on with, and why others cannot."""
    from napari_delse.finetuning.jobs import list_jobs

    found: list[Unfinished] = []
    unreadable: list[ValueError] = []
    for job in list_jobs(unreadable):
        if (state := job.state) != "finished":
            try:
                history = job.history()
            except (OSError, ValueError):  # a line that is being written
                history = []
            found.append(Unfinished(job, state == "running", history[-1].get("fraction", 0.0) if history else 0.0))
    return found, unreadable


def _delete(job: Job) -> None:
    from napari_delse.finetuning.jobs import delete_job

    delete_job(job)


class JobOffers(QObject):
    """Offers unfinished trainings, the newest first.

    Parameters
    ----------
    changed : callable
        Called when `offer` is another one.
    failed : callable
        Called with what went wrong.
    """

    def __init__(self, changed: Callable[[], object], failed: Callable[[Exception], object]) -> None:
        super().__init__()
        self.offer: Unfinished | None = None
        self.runner = Runner("napari-delse-jobs")
        self._changed, self._failed = changed, failed
        self._own: Job | None = None
        self._told: set[str] = set()  # what cannot be gone on with is told once
        self._timer = QTimer(self, singleShot=True, interval=_AGAIN)
        self._timer.timeout.connect(self.look)

    def look(self) -> None:
        """Look for unfinished trainings."""
        self.runner.submit(_unfinished, self._found, self._failed)

    def take(self, job: Job | None) -> None:
        """Offer this one no more: it is worked on here."""
        self._own = job
        if job is not None and self.offer is not None and self.offer.job.folder == job.folder:
            self.offer = None
        self._changed()

    def _found(self, answer: tuple[list[Unfinished], list[ValueError]]) -> None:
        found, unreadable = answer
        for error in unreadable:
            if str(error) not in self._told:
                self._told.add(str(error))
                self._failed(error)
        own = None if self._own is None else self._own.folder
        self.offer = next((one for one in found if one.job.folder != own), None)
        if self.offer is not None and self.offer.running:
            self._timer.start()
        self._changed()

    def discard(self, job: Job) -> None:
        """Delete a training."""
        self.offer = None
        self._changed()
        self.runner.submit(partial(_delete, job), lambda _: self.look(), self._failed)

    def close(self) -> None:
        """Let no answer come any more."""
        with suppress(RuntimeError):  # Qt may have deleted it
            self._timer.stop()
        self.runner.close()
