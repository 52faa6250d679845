"""Work on several threads with few tasks ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def on_threads(work: Callable[[T], R], tasks: Iterable[T | None], threads: int) -> Generator[tuple[T, R]]:
    """Do work on several threads and yield what is done in order, with few tasks ahead.

    Parameters
    ----------
    work : callable
        Of one task; its errors are raised here.
    tasks : iterable
        Taken from as the work proceeds; None where the next one depends on what is being done.
    threads : int
        With 1, everything is done in the calling thread.
    """
    if threads == 1:
        for task in tasks:
            if task is not None:
                yield task, work(task)
        return
    pool = ThreadPoolExecutor(threads, "delse")
    running: deque[tuple[T, Future[R]]] = deque()
    try:
        for task in tasks:
            if task is not None:
                running.append((task, pool.submit(work, task)))
            if task is None or len(running) > threads:
                first, future = running.popleft()
                yield first, future.result()
        while running:
            first, future = running.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
