"""Label files from image files: finished ones are skipped, interrupted ones go on at the plane.

A result is complete or absent. Until it is complete, what is done of it stands in a hidden folder beside it, under a
fingerprint of all that it depends on; the same fingerprint stands in the result, so that it is not made again.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from napari_delse.data.files import ImageFile, label_dtype, open_image
from napari_delse.data.prompts import read_prompts
from napari_delse.propagation.config import PropagationConfig
from napari_delse.stacks.coarse import CoarseLabels
from napari_delse.stacks.fingerprints import digest, state
from napari_delse.stacks.key_planes import KeyPlanes
from napari_delse.stacks.label_files import (
    ObjectRow,
    check_axes,
    is_table,
    object_rows,
    read_table,
    software_of,
    write,
    write_table,
)
from napari_delse.stacks.planes import (
    BlockKey,
    FoundObject,
    Index,
    LabelPlane,
    ManySegmenter,
    Prompts,
    Table,
    Task,
    blocks_of,
    fit_prompts,
    planes_of,
)
from napari_delse.stacks.threads import on_threads
from napari_delse.stacks.work_folder import Painted, WorkFolder, decode, encoded

_FORMAT = 1  # raise it when the same input gives other labels than before
_MOST_THREADS = 16
_SOFTWARE = "napari-delse segment "

Mode = Literal["table", "labels", "propagate"]
Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, kw_only=True)
class How:
    """How images are segmented; a part of the fingerprint."""

    channels: tuple[int, ...] = ()  # to look at; by default the first three, or the one that was clicked in
    axes: str | None = None  # of the images, where they say it wrongly
    overwrite_labels: bool = False  # later objects paint over earlier ones
    along: str | None = None  # axis of the planes that objects are carried through; by default the only one, or Z
    keys: tuple[int, ...] = ()  # key planes along it; by default those with labels


@dataclass(frozen=True)
class Job:
    """One image and its result.

    Parameters
    ----------
    image : Path
        File or OME-Zarr folder.
    mode : {"table", "labels", "propagate"}
        Where objects come from: a table of prompts, coarse labels, or labelled key planes.
    prompts : Path
        That table or label image.
    out : Path
        TIFF file or ``.zarr`` folder.
    table : Path, optional
        CSV for a line per object: label, plane, area, confidence and why to look at it.
    """

    image: Path
    mode: Mode
    prompts: Path
    out: Path
    table: Path | None = None


@dataclass(frozen=True)
class Progress:
    """Planes that are done.

    Parameters
    ----------
    job : Job
        The file.
    planes : tuple of LabelPlane
        With their objects.
    fraction : float
        Of the file, in [0, 1].
    seconds_left : float
        Expected for the file.
    """

    job: Job
    planes: tuple[LabelPlane, ...]
    fraction: float
    seconds_left: float


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Parameters
    ----------
    job : Job
        The file.
    status : {"done", "skipped", "failed"}
        "skipped" where the same result was there.
    error : Exception, optional
        Why it failed.
    objects : int
        Pieces of objects, counted in each plane.
    planes : int
        Planes with objects.
    confidence : float
        Mean over the objects; nan without any.
    unsure : tuple of tuple of int
        Planes to look at.
    counted : bool
        Whether these are known: not those of a skipped file whose table was edited or is gone.
    seconds : float
        This run took.
    shape, axes, dtype
        Of the labels.
    rows : tuple of ObjectRow
        Its objects, if they were asked for.
    """

    job: Job
    status: Status
    error: Exception | None = None
    objects: int = 0
    planes: int = 0
    confidence: float = float("nan")
    unsure: tuple[Index, ...] = ()
    counted: bool = True
    seconds: float = 0.0
    shape: tuple[int, ...] = ()
    axes: str = ""
    dtype: str = ""
    rows: tuple[ObjectRow, ...] = field(default=(), repr=False)  # only if they are asked for


Done = tuple[Task, list[tuple[BlockKey, bytes]]]
"""A task and its encoded blocks."""


class Engine(Protocol):
    """Where tasks are done."""

    @property
    def model(self) -> str:
        """Fingerprint of the model."""
        ...

    def predict(self, image: ImageFile, tasks: Iterable[Task | None]) -> Generator[Done]:
        """Do tasks, and give them with their blocks in any order; None asks to give one before taking more."""
        ...


class Threads:
    """Predicts on threads of this process.

    Parameters
    ----------
    predictor : ManySegmenter
        The model.
    model : str
        Its fingerprint.
    threads : int
        Tasks at the same time.
    """

    def __init__(self, predictor: ManySegmenter, model: str, threads: int = 1) -> None:
        self.model, self._predictor, self._threads = model, predictor, threads

    def predict(self, image: ImageFile, tasks: Iterable[Task | None]) -> Generator[Done]:
        """Do tasks in their order."""
        return on_threads(lambda task: encoded(task.predict(self._predictor, image)), tasks, self._threads)


def usual_threads(device: str) -> int:
    """How many blocks to predict at the same time: one per core; on a GPU one is read while another is predicted."""
    if not device.startswith("cpu"):
        return 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, cores)


def run(
    jobs: Iterable[Job], engine: Engine, how: How | None = None, *, again: bool = False, rows: bool = False
) -> Iterator[Progress | Outcome]:
    """Make label files, one after the other; a bad one does not stop the others.

    Parameters
    ----------
    jobs : iterable of Job
        What to make; see `napari_delse.stacks.batch_files.jobs_of`.
    engine : Engine
        Where to predict: `Threads`, or `napari_delse.stacks.cluster.Cluster`.
    how : How, optional
        Channels, axes and painting.
    again : bool
        Make finished results anew, and replace files of other origin.
    rows : bool
        Give the objects with the outcome; memory grows with them.

    Yields
    ------
    Progress or Outcome
        Any number of the first and then one of the second for each job. Close the generator to stop: what is done is
        kept for the next time.
    """
    how = how or How()
    for job in jobs:
        start = time.monotonic()
        try:
            yield from _run(job, engine, how, start, again=again, rows=rows)
        except Exception as error:  # readers of damaged files raise what they like
            yield Outcome(job, "failed", _told(error, job), seconds=time.monotonic() - start)


def _told(error: Exception, job: Job) -> Exception:
    """An error of the system with its place and the remedy; others are told already."""
    if not isinstance(error, OSError) or error.strerror is None:
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"no space is left in {job.out.parent}; make some and start again, what is done is kept"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        text = f"{error.filename or job.out} may not be written or read ({error.strerror}); choose another folder"
    else:
        text = f"{error.filename or job.image}: {error.strerror}"
    return RuntimeError(text)


def _run(job: Job, engine: Engine, how: How, start: float, *, again: bool, rows: bool) -> Iterator[Progress | Outcome]:
    if not job.prompts.exists():
        what = "prompts" if job.mode == "table" else "labels"
        raise FileNotFoundError(f"there is no {job.prompts} with the {what} of {job.image.name}; put it there")
    fingerprint = _SOFTWARE + fingerprint_of(job, engine.model, how)
    if job.out.exists() and not again:
        made = software_of(job.out)
        if made == fingerprint:
            yield _skipped(job, start, rows=rows)
            return
        if job.table is not None and not made.startswith(_SOFTWARE):
            raise ValueError(f"{job.out} exists and was not made by this command; move it, or --overwrite it")
    if job.table is not None and not again and job.table.exists() and not is_table(job.table):
        raise ValueError(f"{job.table} exists and is not as this command writes it; move it, or --overwrite it")
    with ExitStack() as stack:
        image = stack.enter_context(open_image(job.image, how.axes)).unmapped()
        check_axes(job.out, image)  # before any work is done
        work = _work(job, image, how, stack)
        folder = stack.enter_context(WorkFolder(job.out, fingerprint))
        yield from _predict(job, image, work, engine, how, folder)
        outcome = _write(job, image, how, folder, fingerprint, rows=rows)
        folder.remove()
        yield replace(outcome, seconds=time.monotonic() - start)


def _skipped(job: Job, start: float, *, rows: bool) -> Outcome:
    """The outcome of a finished result, as far as its table says it: people edit and move tables."""
    tally, outcome = Tally(keep=rows), Outcome(job, "skipped", counted=False)
    if job.table is not None:
        with suppress(OSError, ValueError):
            for _ in tally.watch(read_table(job.table)):
                pass
            outcome = replace(tally.outcome(outcome), counted=True)
    return replace(outcome, seconds=time.monotonic() - start)


class Work(Protocol):
    """All that is to do for a result."""

    def planes(self) -> Sequence[int]:
        """The planes that may get objects, in rising order, counted through all plane axes."""
        ...

    def tasks(self, done: Collection[BlockKey], load: Callable[[BlockKey], bytes], /) -> Iterator[Task | None]:
        """What is not done yet; None where the next one depends on some that are being done."""
        ...


class _FromPrompts:
    """Objects that are predicted from a prompt each."""

    def __init__(self, prompts: Prompts, counts: tuple[int, ...]) -> None:
        self.planes, self._prompts, self._counts = prompts.planes, prompts, counts

    def tasks(self, done: Collection[BlockKey], _: Callable[[BlockKey], bytes]) -> Iterator[Task]:
        return blocks_of(self._prompts, self._counts, frozenset(done))


def _work(job: Job, image: ImageFile, how: How, stack: ExitStack) -> Work:
    """Where the objects come from."""
    if job.mode == "table":
        items = fit_prompts(read_prompts(job.prompts), image, how.channels)
        return _FromPrompts(Table(items, image.plane_counts), image.plane_counts)
    labels = stack.enter_context(open_image(job.prompts, labels=True)).unmapped()
    if job.mode == "labels":
        return _FromPrompts(CoarseLabels(labels, image, how.channels), image.plane_counts)
    return KeyPlanes(labels, image, how.channels, along=how.along, keys=how.keys)


def _predict(
    job: Job, image: ImageFile, work: Work, engine: Engine, how: How, folder: WorkFolder
) -> Iterator[Progress]:
    """Predict what is missing, and keep it block by block."""
    planes = work.planes()
    earlier = sum(_share(planes, key) for key in folder.done)
    now, start = 0.0, time.monotonic()
    with closing(engine.predict(image, work.tasks(folder.done, folder.read))) as done:
        for task, blocks in done:
            found: list[FoundObject] = []
            for key, content in blocks:
                now += 0.0 if key in folder.done else _share(planes, key)
                folder.store(key, content)
                found += decode(content)
            left = (time.monotonic() - start) * max(0.0, len(planes) - earlier - now) / max(now, 1e-9)
            finished = planes_of(task.planes, found, image.plane_shape, overwrite=how.overwrite_labels)
            yield Progress(job, tuple(finished), min(1.0, (earlier + now) / len(planes)), left)


def _share(planes: Sequence[int], key: BlockKey) -> float:
    """How many planes a block stands for."""
    first, last, _, parts = key
    return (bisect_right(planes, last) - bisect_left(planes, first)) / parts


def _write(job: Job, image: ImageFile, how: How, folder: WorkFolder, software: str, *, rows: bool) -> Outcome:
    """Write the table, and then the labels: where these are, everything is."""
    painted = Painted(folder, image.plane_counts, image.plane_shape, overwrite=how.overwrite_labels)
    tally = Tally(keep=rows)
    found = tally.watch(object_rows(painted))
    if job.table is None:
        for _ in found:
            pass
    else:
        write_table(job.table, found, image.plane_axes)
    painted.dtype = label_dtype(tally.largest)
    write(job.out, painted, image, software=software)
    about: dict[str, Any] = {"shape": painted.shape, "axes": image.plane_axes + "YX", "dtype": str(painted.dtype)}
    return tally.outcome(Outcome(job, "done", **about))


class Tally:
    """Sums over the objects of a result."""

    def __init__(self, *, keep: bool = False) -> None:
        self.largest = 0
        self._keep = keep
        self._rows: list[ObjectRow] = []
        self._objects, self._planes, self._confidence = 0, 0, 0.0
        self._last: Index | None = None
        self._unsure: list[Index] = []

    def watch(self, rows: Iterable[ObjectRow]) -> Iterator[ObjectRow]:
        """Pass objects on, plane by plane."""
        for row in rows:
            self.largest = max(self.largest, row.label)
            if row.area or not row.doubt:  # else it ended here
                self._objects += 1
                self._confidence += row.confidence
                if row.index != self._last:
                    self._planes += 1
                    self._last = row.index
            if row.unsure and self._unsure[-1:] != [row.index]:
                self._unsure.append(row.index)
            if self._keep:
                self._rows.append(row)
            yield row

    def outcome(self, outcome: Outcome) -> Outcome:
        """With these sums."""
        return replace(
            outcome,
            objects=self._objects,
            planes=self._planes,
            confidence=self._confidence / self._objects if self._objects else math.nan,
            unsure=tuple(self._unsure),
            rows=tuple(self._rows),
        )


def fingerprint_of(job: Job, model: str, how: How) -> str:
    """What a result depends on, as a SHA-256.

    Parameters
    ----------
    job : Job
        Of its files, sizes and dates are looked at, and all of a table of prompts.
    model : str
        Fingerprint of the model.
    how : How
        The options.
    """
    prompts = digest(job.prompts.read_bytes()) if job.mode == "table" else state(job.prompts)
    about = {
        "format": _FORMAT,
        "image": state(job.image),
        "mode": job.mode,
        "prompts": prompts,
        "model": model,
        "how": asdict(how) | ({"propagation": asdict(PropagationConfig())} if job.mode == "propagate" else {}),
    }
    return digest(json.dumps(about, sort_keys=True).encode())
