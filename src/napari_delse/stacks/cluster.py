"""Predicting on a dask.distributed cluster: blocks go to its workers, masks come back.

Images and models do not travel: workers open them by their paths. Each worker process loads a model once and keeps it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

from napari_delse.checkpoint import available_models, model_fingerprint
from napari_delse.data.files import ImageFile, open_image
from napari_delse.predict import Predictor
from napari_delse.stacks.planes import BlockKey, Task
from napari_delse.stacks.work_folder import encoded

_AHEAD = 2  # tasks that wait or run per thread of the workers
_ANSWER = 10.0  # seconds within which a scheduler answers
_PATIENCE = 60.0  # seconds without any worker
_OPEN_IMAGES = 2  # of a worker


@dataclass(frozen=True)
class Source:
    """What a worker needs to know besides a task.

    Parameters
    ----------
    path : str
        Of the image, absolute.
    axes : str
        Its axes.
    shape : tuple of int
        Of its pixels.
    dtype : str
        Of its pixels.
    model : str
        Name or absolute folder.
    fingerprint : str
        Of the model.
    device : str
        Where to predict.
    """

    path: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    model: str
    fingerprint: str
    device: str


class Cluster:
    """Predicts on the workers of a dask.distributed scheduler.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``tcp://host:8786``.
    model : str or path
        As for `load_model`; workers must find the same.
    device : str
        Of the workers; "auto" takes a GPU where there is one.

    Raises
    ------
    ImportError
        On entering, if dask.distributed is missing.
    OSError
        If no scheduler answers.
    """

    def __init__(self, address: str, model: str | Path = "default", device: str = "auto") -> None:
        self.model = model_fingerprint(model)
        self._address, self._device = address, device
        self._named = str(model) if str(model) in available_models() else str(Path(model).absolute())
        self._client: Any = None

    def __enter__(self) -> Self:
        try:
            from distributed import Client
        except ImportError as error:
            raise ImportError("--scheduler needs dask.distributed: pip install 'napari-delse[cluster]'") from error
        try:
            self._client = Client(self._address, timeout=_ANSWER, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise OSError(
                f"no dask scheduler answers at {self._address}; start one with 'dask scheduler' and give its address"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def predict(
        self, image: ImageFile, tasks: Iterable[Task | None]
    ) -> Generator[tuple[Task, list[tuple[BlockKey, bytes]]]]:
        """Tasks and their encoded blocks, in the order they are done; None waits for one of those before.

        Raises
        ------
        ValueError, OSError, RuntimeError
            What went wrong on a worker, or that there are none.
        """
        source = Source(
            str(image.path.absolute()),
            image.axes,
            tuple(int(n) for n in image.data.shape),
            str(image.data.dtype),
            self._named,
            self.model,
            self._device,
        )
        waiting, running, seen = iter(tasks), dict[Any, Task](), time.monotonic()
        try:
            while True:
                workers = self._client.nthreads()
                if workers:
                    seen = time.monotonic()
                room = max(1, _AHEAD * sum(workers.values())) - len(running)
                for task in islice(waiting, max(0, room)):
                    if task is None:
                        break
                    future = self._client.submit(predict_on_worker, source, task, pure=False, retries=1)
                    running[future] = task
                if not running:
                    return
                for future in self._finished(running):
                    yield running.pop(future), self._result(future)
                if time.monotonic() - seen > _PATIENCE:
                    raise RuntimeError(
                        f"the scheduler {self._address} has had no worker for {_PATIENCE:.0f} s; start workers with "
                        f"'dask worker {self._address}' and give the same command again, which goes on from here"
                    )
        finally:
            self._client.cancel(list(running))

    def _result(self, future: Any) -> list[tuple[BlockKey, bytes]]:
        """What a worker gave; its errors are raised."""
        from distributed import CancelledError, KilledWorker

        try:
            return future.result()  # type: ignore[no-any-return]
        except (CancelledError, KilledWorker) as error:
            raise RuntimeError(
                f"workers of {self._address} died again and again over one task ({type(error).__name__}); look at what "
                "they print, give them more memory, and give the same command again, which goes on from here"
            ) from error

    def _finished(self, running: Iterable[Any]) -> list[Any]:
        """Those that are done within a few seconds; without a worker, none."""
        from distributed import wait

        try:
            with self._client.as_current():
                return list(wait(list(running), timeout=2, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            return []


# ---------------------------------------------------------------- on a worker


class _Kept:
    """What a worker process keeps between blocks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.predictors: dict[tuple[str, str], Predictor] = {}
        self.images: OrderedDict[tuple[object, ...], tuple[ExitStack, ImageFile]] = OrderedDict()


_kept = _Kept()


def predict_on_worker(source: Source, task: Task) -> list[tuple[BlockKey, bytes]]:
    """Do a task on a worker; its encoded blocks."""
    try:
        with _kept.lock:
            predictor, image = _predictor(source), _image(source)
        return encoded(task.predict(predictor, image))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"a worker misses a file ({error}); workers read images and labels themselves: put them where all machines "
            "have them under the same path"
        ) from error


def _predictor(source: Source) -> Predictor:
    key = source.fingerprint, source.device
    if key not in _kept.predictors:
        if model_fingerprint(source.model) != source.fingerprint:
            raise ValueError(f"a worker has another model under {source.model}; give all machines the same files")
        # One thread per task, as in `napari_delse.stacks.batches.Threads`: the same bits.
        _kept.predictors[key] = Predictor.load(source.model, source.device, 1)
    return _kept.predictors[key]


def _image(source: Source) -> ImageFile:
    key = source.path, source.axes, os.stat(source.path).st_mtime_ns  # noqa: PTH116 - a str all along
    if key not in _kept.images:
        stack = ExitStack()
        image = stack.enter_context(open_image(source.path, source.axes)).unmapped()
        _kept.images[key] = stack, image
        if len(_kept.images) > _OPEN_IMAGES:
            _kept.images.popitem(last=False)[1][0].close()
    image = _kept.images[key][1]
    if (tuple(image.data.shape), str(image.data.dtype)) != (source.shape, source.dtype):
        raise ValueError(f"a worker has another image under {source.path}; give all machines the same files")
    return image
