"""Runs of the batch widget over files: listing them, making them, and opening what was made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_delse.data.files import open_image
from napari_delse.stacks.batches import Job, Outcome, Progress, Threads
from napari_delse.stacks.batches import run as run_jobs
from napari_delse.widgets._batch.files import FilesWish, told
from napari_delse.widgets._batch.run import BatchRunner, Cancelled, Control, Watched
from napari_delse.widgets._run import Runner

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_delse.widgets._batch.files import FilesPage
    from napari_delse.widgets._batch.panel import BatchPanel
    from napari_delse.widgets._notices import Notices

_MOST = 2**31  # bytes of an image that is opened from the table


def fingerprint(model: str) -> str:
    """What a result tells of the model that made it; imports torch."""
    from napari_delse.checkpoint import model_fingerprint

    return model_fingerprint(model)


class FileWork:
    """Everything about runs over files but how it looks.

    Parameters
    ----------
    viewer : ViewerModel
        Where results are opened.
    panel : BatchPanel
        What is chosen, and where the files are listed.
    runner : BatchRunner
        Where it runs.
    notices : Notices
        Where trouble and results are told.
    changed : callable
        Called when something else is to be shown.
    fingerprint_of : callable
        Tells what a result says of the model of a name, in the worker.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        panel: BatchPanel,
        runner: BatchRunner,
        notices: Notices,
        changed: Callable[[], object],
        fingerprint_of: Callable[[str], str] = fingerprint,
    ) -> None:
        self.viewer, self._form = viewer, panel.form
        self._page: FilesPage = panel.files
        self._runner, self._notices, self._changed, self._fingerprint = runner, notices, changed, fingerprint_of
        self._reader = Runner("napari-delse-files")
        self.jobs: list[Job] = []
        self.sentence = self.reason = ""  # one of the two: what would be done, or why nothing can
        self.control: Control | None = None
        self._asked = 0
        self._over: dict[Job, Outcome] = {}
        self._fraction, self._since = 0.0, 0.0
        self._page.opened.connect(self.open)

    def close(self) -> None:
        """Let no answer come any more."""
        self._reader.close()

    # ---- what would be done

    def forget(self) -> None:
        """Others are being chosen: nothing can be begun with those that are listed."""
        self._asked += 1
        self.jobs, self.sentence, self.reason = [], "", "looking for the files ..."
        self._changed()

    def look(self) -> None:
        """List the files that are chosen now."""
        self._asked += 1
        wish, number = self._page.wish, self._asked
        self._reader.submit(partial(_listed, wish), partial(self._listed, number), partial(self._unlisted, number))

    def _listed(self, number: int, found: tuple[list[Job], str]) -> None:
        if number == self._asked:
            self.jobs, self.sentence = found
            self.reason = ""
            self._page.show_jobs(self.jobs)
            self._changed()

    def _unlisted(self, number: int, error: Exception) -> None:
        if number == self._asked:
            self.jobs, self.sentence, self.reason = [], "", str(error)
            self._page.show_jobs([])
            self._changed()

    # ---- doing it

    def start(self) -> None:
        """Begin, or go on where it was stopped.

        Raises
        ------
        ValueError
            If there is nothing to do.
        """
        if not self.jobs:
            raise ValueError(self.reason or "no files are listed yet; start again in a moment")
        self._over, self._fraction, self._since = {}, 0.0, time.monotonic()
        steps = partial(_steps, list(self.jobs), partial(self._fingerprint, self._form.model[0]))
        self.control = self._runner.start(self._form.model, steps, self._on_step, self._on_end, self._on_failed)
        self._notices.say()
        self._changed()

    @property
    def made(self) -> int:
        """How many files are over."""
        return len(self._over)

    @property
    def fraction(self) -> float:
        """Of all files that is done."""
        return (len(self._over) + self._fraction) / max(1, len(self.jobs))

    @property
    def seconds_left(self) -> float | None:
        """None as long as nobody can know."""
        seconds, fraction = time.monotonic() - self._since, self.fraction
        return seconds * (1 - fraction) / fraction if seconds > 1 and fraction > 0.01 else None

    def _on_step(self, step: Progress | Outcome) -> None:
        self._page.show_step(step)
        if isinstance(step, Outcome):
            self._over[step.job], self._fraction = step, 0.0
        else:
            self._fraction = step.fraction
        self._changed()

    def _on_end(self) -> None:
        self.control = None
        failed = [one for one in self._over.values() if one.status == "failed"]
        good = len(self._over) - len(failed)
        many = "1 file is" if good == 1 else f"{good} files are"
        if failed:
            first, more = failed[0], " (a double click on each says why)" if len(failed) > 1 else ""
            self._notices.say(
                RuntimeError(f"{many} done, {len(failed)} failed{more}. {first.job.image.name}: {first.error}")
            )
        else:
            self._notices.tell(f"{many} done. A double click opens one.")
        self._changed()

    def _on_failed(self, error: Exception) -> None:
        self.control = None
        self._page.show_stopped()
        if isinstance(error, Cancelled):
            self._notices.tell("Cancelled: what is done is kept, and Start goes on from there.")
        else:
            self._notices.say(error)
        self._changed()

    # ---- results

    def open(self, job: Job) -> None:
        """Show an image with its labels."""
        over = self._over.get(job)
        if over is not None and over.error is not None:
            self._notices.say(over.error)
            return
        if not job.out.exists():
            self._notices.say(ValueError(f"{job.image.name} has no result yet; press Start to make it"))
            return
        self._reader.submit(partial(_opened, job), self._add, self._notices.say)

    def _add(self, layers: list[tuple[str, Any, dict[str, Any]]]) -> None:
        for kind, data, options in layers:
            getattr(self.viewer, f"add_{kind}")(data, **options)
        self._notices.say()


def _listed(wish: FilesWish) -> tuple[list[Job], str]:
    """In the reader."""
    jobs = wish.jobs()
    return jobs, told(jobs)


def _steps(
    jobs: list[Job], fingerprint_of: Callable[[], str], predictor: Any, control: Control
) -> Iterator[Progress | Outcome]:
    """In the worker."""
    for step in run_jobs(jobs, Threads(Watched(predictor, control), fingerprint_of())):
        if isinstance(step, Outcome) and isinstance(step.error, Cancelled):  # which is no failure of the file
            raise step.error
        yield step


def _opened(job: Job) -> list[tuple[str, Any, dict[str, Any]]]:
    """In the reader: an image and its labels as layers.

    Raises
    ------
    ValueError
        If they do not fit into memory, or cannot be read.
    """
    return [_layer(job.image, "image"), _layer(job.out, "labels")]


def _layer(path: Path, kind: str) -> tuple[str, Any, dict[str, Any]]:
    with open_image(path) as file:
        size = int(np.prod(file.data.shape)) * np.dtype(file.data.dtype).itemsize
        if size > _MOST:
            raise ValueError(f"{path.name} has {size / 2**30:.0f} GiB; open it with File > Open, which reads it lazily")
        sizes, _ = file.pixel_size
        axis = file.channel_axis
        kept = [letter for letter in file.axes if letter not in "CS"]
        options: dict[str, Any] = {"name": path.name, "scale": [sizes.get(letter, 1.0) for letter in kept]}
        options["translate"] = [file.origin.get(letter, 0.0) for letter in kept]
        options["axis_labels"] = [letter.lower() for letter in kept]
        data = file.read()
        if axis is not None and file.axes[axis] == "S" and data.shape[axis] in (3, 4):
            data, options["rgb"] = np.moveaxis(data, axis, -1), True  # they may lie in planes of their own
        elif axis is not None:
            options["channel_axis"] = axis
        return kind, data, options
