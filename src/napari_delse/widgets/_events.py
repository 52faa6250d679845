"""Following events of napari, and letting go of them all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol


class Followed:
    """Events and what is called on them."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, Callable[..., Any]]] = []

    def follow(self, emitter: Any, callback: Callable[..., Any]) -> None:
        """Call something on an event from now on."""
        emitter.connect(callback)
        self._kept.append((emitter, callback))

    def let_go(self) -> None:
        """Call nothing any more; also after Qt has deleted what is called."""
        for emitter, callback in self._kept:
            with suppress(Exception):  # the layer may be gone for good
                emitter.disconnect(callback)
        self._kept.clear()


class Closable(Protocol):
    """Something that works in the background."""

    def close(self) -> None:
        """Let no answer come any more."""


def let_go(workers: Iterable[Closable], followed: Iterable[Followed]) -> None:
    """Let no answer and no event of the viewer come any more; also after Qt has deleted the widget."""
    for worker in workers:
        worker.close()
    for kept in followed:
        kept.let_go()
