"""Looking at what would be learned from, off the GUI thread and not oftener than it is worth."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_delse.widgets._run import Runner

if TYPE_CHECKING:
    from napari_delse.finetuning.labelled_sources import Source
    from napari_delse.finetuning.survey import Survey

_SOON = 500  # after the last change, milliseconds
_SHARE = 5  # times as long as the last look took
_LONGEST = 20_000
_NEWS = 0.3  # between two reports of one look, seconds


class Surveyor(QObject):
    """Looks at a source in a worker, the newest one only.

    Attributes
    ----------
    found : Signal of Survey
        After some planes; the last one is complete.
    failed : Signal of Exception
        Not even that was possible.
    """

    found = Signal(object)
    failed = Signal(object)
    _part = Signal(int, object)

    def __init__(self) -> None:
        super().__init__()
        self.runner = Runner("napari-delse-survey")
        self.last: Survey | None = None  # of what was asked for last, once it is complete
        self._number, self._took = 0, 0.0
        self._make: Callable[[], Source] | None = None
        self.validation = 0.25
        self._timer = QTimer(self, singleShot=True)
        self._timer.timeout.connect(self._begin)
        self._part.connect(self._on_part, Qt.ConnectionType.QueuedConnection)

    @property
    def is_busy(self) -> bool:
        """Whether something is being looked at, or will be soon."""
        return self._make is not None and self.last is None

    def ask(self, make: Callable[[], Source] | None, validation: float, *, at_once: bool = False) -> None:
        """Look at a source, after a while without another question; None for nothing.

        What takes long is not looked at anew after every stroke: the work on the labels would suffer.
        """
        self._number += 1
        self._make, self.validation, self.last = make, validation, None
        wait = min(_LONGEST, max(_SOON, round(1000 * _SHARE * self._took)))
        if make is None:
            self._timer.stop()
        else:
            self._timer.start(0 if at_once else wait)

    def _begin(self) -> None:
        make, validation, number = self._make, self.validation, self._number
        if make is None:
            return

        def job() -> Survey | None:
            from napari_delse.finetuning.survey import look

            began = told = time.monotonic()
            known: Survey | None = None
            for known in look(make(), validation):
                if number != self._number or self.runner.is_closed:
                    return None
                if time.monotonic() - told > _NEWS and not known.complete:
                    told = time.monotonic()
                    self._part.emit(number, known)
            self._took = time.monotonic() - began
            return known

        self.runner.submit(job, lambda known: self._done(number, known), lambda error: self._on_failed(number, error))

    def _on_part(self, number: int, known: Survey) -> None:
        if number == self._number:
            self.found.emit(known)

    def _done(self, number: int, known: Survey | None) -> None:
        if number == self._number and known is not None:
            self.last = known
            self.found.emit(known)

    def _on_failed(self, number: int, error: Exception) -> None:
        if number == self._number:
            self._make = None
            self.failed.emit(error)

    def close(self) -> None:
        """Let no answer come any more."""
        self._number += 1
        self._make = None  # which holds arrays
        with suppress(RuntimeError):  # Qt may have deleted it
            self._timer.stop()
        self.runner.close()
