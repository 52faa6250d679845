"""A long run in its worker thread: paused, cancelled and measured between two objects."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal

from napari_delse.widgets._run import Runner

_FIRST = 3.0  # predictions of an object in a plane, before it is known how many there are
_ALMOST = 0.95  # of what is being worked on, as long as it is not done


class Cancelled(Exception):  # noqa: N818 - no error
    """The person does not want it any more."""


class Control:
    """Pause and cancel, seen by the worker before each object."""

    def __init__(self) -> None:
        self._go = threading.Event()
        self._go.set()
        self._cancelled = False
        self.predictions = 0

    @property
    def is_paused(self) -> bool:
        """Whether the worker waits, or will before the next object."""
        return not self._go.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the worker ends at the next object."""
        return self._cancelled

    def pause(self) -> None:
        """Wait before the next object."""
        self._go.clear()

    def go_on(self) -> None:
        """Wait no longer."""
        self._go.set()

    def cancel(self) -> None:
        """End at the next object."""
        self._cancelled = True
        self._go.set()

    def check(self) -> None:
        """In the worker: wait while paused.

        Raises
        ------
        Cancelled
            If it shall end.
        """
        self._go.wait()
        if self._cancelled:
            raise Cancelled("the run was cancelled")


class Watched:
    """A predictor under a control."""

    def __init__(self, predictor: Any, control: Control) -> None:
        self._predictor, self._control = predictor, control

    def segment_across(self, items: Iterable[Any], batch_size: int | None = None) -> Iterator[Any]:
        """As the predictor does it."""
        self._control.check()
        for found in self._predictor.segment_across(items, batch_size):
            self._control.predictions += 1
            yield found
            self._control.check()


@dataclass
class Pace:
    """How far a run is, and how long it will take.

    Parameters
    ----------
    total : int
        Planes to be done.
    objects : int
        About how many objects each has.
    """

    total: int
    objects: int
    done: int = 0
    seconds: float = 0.0  # of work, without pauses
    _since: float | None = None
    _settled: int = 0  # predictions when the last plane was done

    def tick(self, *, is_paused: bool) -> None:
        """Time goes on."""
        now = time.monotonic()
        if self._since is not None:
            self.seconds += now - self._since
        self._since = None if is_paused else now

    def plane(self, predictions: int) -> None:
        """One more plane is done, after so many predictions in all."""
        self.done += 1
        self._settled = predictions

    def fraction(self, predictions: int) -> float:
        """In [0, 1], after so many predictions."""
        each = self._settled / self.done if self.done else _FIRST * self.objects
        left = self.total - self.done
        begun = min((predictions - self._settled) / max(1.0, each), _ALMOST * left)
        return min(1.0, (self.done + begun) / max(1, self.total))

    def seconds_left(self, predictions: int) -> float | None:
        """None as long as nobody can know."""
        fraction = self.fraction(predictions)
        if self.seconds < 1 or fraction < 0.01:
            return None
        return self.seconds * (1 - fraction) / fraction


class BatchRunner(QObject):
    """Runs one generator after the other in one long-lived thread, with a predictor that is loaded there once.

    Parameters
    ----------
    load : callable
        Makes the predictor from the names of a model and a device, in the worker.
    fingerprint : callable
        Tells models of one name from each other, in the worker.
    """

    _stepped = Signal(object)

    def __init__(self, load: Callable[[str, str], Any], fingerprint: Callable[[str], str]) -> None:
        super().__init__()
        self.runner = Runner("napari-delse-batch")
        self.control: Control | None = None  # of what runs
        self._load, self._fingerprint = load, fingerprint
        self._loaded: tuple[tuple[str, str, str], Any] | None = None  # touched by the worker only
        self._stepped.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    @property
    def is_busy(self) -> bool:
        """Whether something runs."""
        return self.control is not None

    def start(
        self,
        model: tuple[str, str],
        steps: Callable[[Any, Control], Iterator[Any]],
        on_step: Callable[[Any], object],
        then: Callable[[], object],
        failed: Callable[[Exception], object],
    ) -> Control:
        """Begin; what is yielded, and then one of the last two callbacks, comes to the GUI thread.

        Parameters
        ----------
        model : (str, str)
            Names of model and device.
        steps : callable
            Given the predictor and the control, yields what is done.
        on_step, then, failed : callable
            For each step, at the end, and instead of the end.
        """
        control = self.control = Control()

        def over(callback: Callable[..., object], *answer: object) -> None:
            self.control = None
            callback(*answer)

        self.runner.submit(
            partial(self._run, model, control, steps, on_step), lambda _: over(then), partial(over, failed)
        )
        return control

    def _run(
        self,
        model: tuple[str, str],
        control: Control,
        steps: Callable[[Any, Control], Iterator[Any]],
        on_step: Callable[[Any], object],
    ) -> None:
        """In the worker."""
        network = (*model, self._fingerprint(model[0]))  # another one may have got the name of one that was deleted
        if self._loaded is None or self._loaded[0] != network:
            self._loaded = None  # the memory of the former one is free before the next is made
            self._loaded = network, self._load(*model)
        for step in steps(self._loaded[1], control):
            if self.runner.is_closed:
                return
            self._stepped.emit(partial(on_step, step))
            control.check()

    def _deliver(self, step: Callable[[], object]) -> None:
        if not self.runner.is_closed:
            step()

    def close(self) -> None:
        """Let no answer come any more, and stop what runs at the next object."""
        if self.control is not None:
            self.control.cancel()
        self.runner.close()
