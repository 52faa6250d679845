"""Curves and pictures of a training, read in a worker and not oftener than they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from qtpy.QtCore import Qt

from napari_delse.widgets._finetune.curves import Line, Plot, Points
from napari_delse.widgets._finetune.fields import Ink
from napari_delse.widgets._finetune.strip import Picture, StripView, pictures_of
from napari_delse.widgets._run import Runner


class Drawn(NamedTuple):
    """What there is to draw of a job; curves are (minutes, value)."""

    folder: Path
    loss: Points
    iou: Points
    f: Points
    end: float  # minutes
    pictures: list[Picture] | None  # None if they are the same as before
    stamp: float  # of the pictures

    def show(self, loss: Plot, scores: Plot, strip: StripView, ink: Ink) -> None:
        """Draw it."""
        loss.show_lines([Line("loss", self.loss, ink.text)], self.end)
        curves = [("IoU", self.iou, ink.now), ("F 2 px", self.f, ink.before)]
        lines = [Line(name, points, colour, marked=True) for name, points, colour in curves]
        for name, (_, points, colour) in zip(("", "before"), curves, strict=True):
            if points:  # the first point is the parent's
                level = [(x, points[0][1]) for x in (0.0, max(self.end, points[-1][0]))]
                lines.append(Line(name, level, colour, Qt.PenStyle.DotLine))
        scores.show_lines(lines, self.end)
        if self.pictures is not None:
            strip.show_pictures(self.pictures)


class Pictures:
    """Reads curves and pictures of a job.

    Parameters
    ----------
    show : callable
        Called with what was `Drawn`.
    """

    def __init__(self, show: Callable[[Drawn], object]) -> None:
        self._runner = Runner("napari-delse-pictures")
        self._show = show
        self._stamp, self._busy = 0.0, False
        self._next: Path | None = None

    def look(self, folder: Path) -> None:
        """Read what a job has now; asked for while it reads, it reads once more."""
        if self._busy:
            self._next = folder
            return
        self._busy = True
        self._runner.submit(partial(_read, folder, self._stamp), self._done, self._failed)

    def _done(self, drawn: Drawn) -> None:
        self._stamp = drawn.stamp
        self._show(drawn)
        self._go_on()

    def _failed(self, _: Exception) -> None:  # a file that is being written: the next time it is whole
        self._go_on()

    def _go_on(self) -> None:
        self._busy = False
        if (folder := self._next) is not None:
            self._next = None
            self.look(folder)

    def forget(self) -> None:
        """Read pictures anew."""
        self._stamp = 0.0

    def close(self) -> None:
        """Let no answer come any more."""
        self._runner.close()


def _read(folder: Path, stamp: float) -> Drawn:
    """In the worker."""
    from napari_delse.finetuning.jobs import open_job

    job = open_job(folder)
    rows = job.history()

    def curve(name: str) -> Points:
        return [(row["seconds"] / 60, row[name]) for row in rows if name in row]

    file = folder / "strip.safetensors"
    now = file.stat().st_mtime if file.is_file() else 0.0
    strip = job.strip() if now != stamp else None
    pictures = None if now == stamp else [] if strip is None else pictures_of(strip)
    end = job.config.minutes if job.config.steps is None and job.config.patience is None else 0.0
    return Drawn(folder, curve("loss"), curve("iou"), curve("f_2px"), end, pictures, now)
