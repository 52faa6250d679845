"""Work that is given up when nobody waits for its result any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_wanted: ContextVar[Callable[[], bool] | None] = ContextVar("is_wanted", default=None)


class GivenUpError(Exception):
    """Nobody waits for what was being worked out."""


@contextmanager
def only_while(is_wanted: Callable[[], bool]) -> Iterator[None]:
    """Have what is done within, in this thread, end with `GivenUpError` soon after it is not wanted any more.

    Parameters
    ----------
    is_wanted : callable
        Asked often, so it must be fast.
    """
    token = _is_wanted.set(is_wanted)
    try:
        yield
    finally:
        _is_wanted.reset(token)


def go_on() -> None:
    """Between two steps of long work: go on, if anybody still waits for it.

    Raises
    ------
    GivenUpError
        If not.
    """
    is_wanted = _is_wanted.get()
    if is_wanted is not None and not is_wanted():
        raise GivenUpError
