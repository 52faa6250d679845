"""Shorter pauses by Python's garbage collector while somebody annotates.

A full collection looks at every object there is, under the hand that pulls an outline. With napari and PyTorch loaded
that took 160 ms, with 5,000 annotated objects up to 400 ms, and nearly all that it looked at lives on. So what one full
collection has left alive, the next ones pass over (`gc.freeze`), and they look only at what is new. All is looked at
again after some minutes, and after a layer was removed, so that no memory is kept for good.
"""

from __future__ import annotations

import gc
import time
from typing import ClassVar

_AGAIN = 600.0  # seconds after which a full collection looks at everything


class ShortCollections:
    """As long as one of these is open, full collections look at what is new."""

    _open: ClassVar[set[ShortCollections]] = set()
    _whole: ClassVar[float] = 0.0  # when a collection last looked at everything

    def __init__(self) -> None:
        if not self._open:
            gc.callbacks.append(_on_collection)
        self._open.add(self)

    @staticmethod
    def look_at_all() -> None:
        """Let the next full collection look at everything: much may have become garbage."""
        gc.unfreeze()

    def close(self) -> None:
        """Leave the collector as it was found."""
        if self in self._open:
            self._open.remove(self)
            if not self._open:
                gc.callbacks.remove(_on_collection)
                gc.unfreeze()


def _on_collection(phase: str, info: dict[str, int]) -> None:
    if info["generation"] < 2:
        return
    if phase == "stop":
        gc.freeze()
    else:
        now = time.monotonic()
        if now - ShortCollections._whole > _AGAIN:
            gc.unfreeze()
        if gc.get_freeze_count() == 0:
            ShortCollections._whole = now
