"""Ctrl-C that waits for a good moment."""

from __future__ import annotations

import signal
import threading
from typing import Any, Self


class HeldInterrupt:
    """Inside ``with``, Ctrl-C is only noted: a training step is done as a whole or not at all.

    In other threads than the main one there is no Ctrl-C, and nothing happens.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.getsignal(signal.SIGINT)
            if self._previous is not None:  # else it was not set by Python and could not be set again
                signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _note(self, *_: object) -> None:
        # A second one is no more urgent: a terminal and torchrun both send it.
        self.pressed = True
