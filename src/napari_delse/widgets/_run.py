"""Work off the GUI thread: one long-lived thread with a queue, answers delivered on the GUI thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from qtpy.QtCore import QObject, Qt, Signal

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Runner(QObject):
    """Runs jobs one after the other in one warm thread.

    A pool of one thread answers a click several milliseconds sooner than a thread started for it, keeps
    torch's threads warm, and is joined by the interpreter at exit, so that closing napari while a job runs
    is safe.
    """

    _finished = Signal(object)

    def __init__(self, name: str) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._closed = False
        self._finished.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    def submit(
        self, job: Callable[[], T], then: Callable[[T], object], failed: Callable[[Exception], object]
    ) -> Future[None] | None:
        """Run ``job()`` in the thread and one of the callbacks on the GUI thread, unless closed meanwhile."""
        return None if self._closed else self._pool.submit(self._run, job, then, failed)

    def _run(self, job: Callable[[], T], then: Callable[[T], object], failed: Callable[[Exception], object]) -> None:
        try:
            answer = partial(then, job())
        except Exception as error:  # whatever it is, the person reads it in the status line
            _log.debug("a background job failed", exc_info=True)
            answer = partial(failed, error)
        if not self._closed:
            try:
                self._finished.emit(answer)
            except RuntimeError:  # Qt deleted this object while the job ran
                _log.debug("an answer came after the window was closed")

    def _deliver(self, answer: Callable[[], object]) -> None:
        if not self._closed:
            answer()

    @property
    def is_closed(self) -> bool:
        """Whether no more answers will come."""
        return self._closed

    def close(self) -> None:
        """Drop everything that waits and all answers; the job that runs ends by itself."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
