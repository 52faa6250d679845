"""Which planes of a Labels layer have labels, looked up off the GUI thread, a few planes at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QTimer

from napari_delse.widgets._batch.plan import read_plane
from napari_delse.widgets._run import Runner

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_delse.annotation.carrying import PlaneLine

_SECONDS = 0.2  # after so long, what is known is told
_DENSE = 2**16  # labels of types up to this large are counted in a table

Found = dict[int, frozenset[int] | Exception]  # by its place, what a plane has, or why it cannot be read


class Survey:
    """What is known of the planes of one Labels layer along one line.

    Parameters
    ----------
    changed : callable
        Called when more is known.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self.known: dict[int, frozenset[int]] = {}
        self.unread: dict[int, Exception] = {}
        self._changed = changed
        self._runner = Runner("napari-delse-survey")
        self._soon = QTimer(singleShot=True, interval=0)
        self._soon.timeout.connect(self._go_on)
        self._layer: Callable[[], Labels | None] = lambda: None
        self._line: PlaneLine | None = None
        self._version = 0
        self._is_busy = False
        self._first: tuple[int, ...] = ()

    def look_at(self, layer: Labels | None, line: PlaneLine | None, first: Iterable[int] = ()) -> None:
        """Look at these planes; at some of them first."""
        self._first = tuple(first)
        if layer is not self._layer() or line != self._line:
            self._layer = (lambda: None) if layer is None else ref(layer)
            self._line, self._version, self.known, self.unread = line, self._version + 1, {}, {}
        self._go_on()

    def forget(self, places: Iterable[int] | None = None) -> None:
        """Planes have changed, all of them by default."""
        for place in (*self.known, *self.unread) if places is None else places:
            self.known.pop(place, None)
            self.unread.pop(place, None)
        self._version += 1  # what is being read may be of before
        self._soon.start()  # and not at once: napari tells of strokes before they stand in the array

    def set(self, place: int, labels: frozenset[int]) -> None:
        """It is known what a plane has."""
        self.known[place] = labels

    def _go_on(self) -> None:
        layer, line = self._layer(), self._line
        if layer is None or line is None or self._is_busy:
            return
        first = [place for place in self._first if 0 <= place < line.count]
        seen = self.known.keys() | self.unread.keys()
        missing = [place for place in (*first, *range(line.count)) if place not in seen]
        if missing:
            self._is_busy = True
            job = partial(_looked, layer.data, line, missing, lambda: self._runner.is_closed)
            self._runner.submit(job, partial(self._found, self._version), self._not_looked)

    def _found(self, version: int, found: Found) -> None:
        self._is_busy = False
        if version == self._version:
            for place, what in found.items():
                if isinstance(what, Exception):
                    self.unread[place] = what
                else:
                    self.known[place] = what
            self._changed()
        self._go_on()

    def _not_looked(self, _: Exception) -> None:
        self._is_busy = False

    def close(self) -> None:
        """Look at nothing any more."""
        with suppress(RuntimeError):  # Qt may have deleted it
            self._soon.stop()
        self._runner.close()


def _looked(data: Any, line: PlaneLine, places: list[int], is_stopped: Callable[[], bool]) -> Found:
    """In the runner."""
    end, found = time.monotonic() + _SECONDS, Found()
    for place in places:
        try:
            found[place] = labels_in(read_plane(data, line, place))
        except Exception as error:  # that of any array, disk or server
            found[place] = error
        if is_stopped() or time.monotonic() > end:
            break
    return found


def labels_in(plane: npt.NDArray[Any]) -> frozenset[int]:
    """All labels of a plane but 0."""
    if plane.dtype.kind == "b":
        plane = plane.view(np.uint8)
    if not plane.any():
        return frozenset()
    if plane.dtype.kind == "u" and np.iinfo(plane.dtype).max < _DENSE:
        values = np.flatnonzero(np.bincount(plane.ravel(), minlength=1))
    else:
        values = np.unique(plane)
    return frozenset(int(value) for value in values if value)
