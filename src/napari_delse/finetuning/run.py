"""Training in a job's folder: it can be stopped or killed at any moment and goes on where it was."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from napari_delse import _filelock
from napari_delse.checkpoint import load_model, out_of_memory, save_model, write_json
from napari_delse.data.images import ArrayLike
from napari_delse.finetuning.config import FineTuneConfig, better, train_config
from napari_delse.finetuning.held_out import ScoredObjects, Seen, evaluate, read_held_out, strip_of, write_strip
from napari_delse.finetuning.jobs import Job, open_job, prepare
from napari_delse.finetuning.labelled_sources import ArraySource, FileSource, Source
from napari_delse.finetuning.result import Outcome, conclude, read_json, read_outcome
from napari_delse.model import config_from_dict
from napari_delse.predict import Predictor, choose_device
from napari_delse.train import TrainProgress, fit
from napari_delse.train.distributed import World
from napari_delse.train.log import CsvLog
from napari_delse.train.recipes import read_pack
from napari_delse.train.state import set_batch_size

_SMALLEST_BATCH = 2


@dataclass(frozen=True)
class JobProgress:
    """What `run` yields: first before training, then every few seconds, last at the end.

    Parameters
    ----------
    folder : Path
        Of the job.
    fraction : float
        Of the run, 0 to 1.
    step : int
        Of the optimiser.
    loss, parts : float, dict
        Mean since the last one, and the same by loss; nan and empty before training.
    before, best, now : ScoredObjects
        Of the parent, of the model that would be kept, and of the last checkpoint, on the held-out objects.
    seconds, remaining : float
        Trained so far, over all resumptions; estimated until the end, with the scoring.
    batch_size : int
        Objects per step.
    scored : bool
        Whether ``now``, the history and the strip are new.
    note : str
        What a person should know, such as that the batch was halved.
    outcome : Outcome, optional
        At the end.
    """

    folder: Path
    fraction: float
    step: int
    loss: float
    parts: dict[str, float]
    before: ScoredObjects
    best: ScoredObjects
    now: ScoredObjects
    seconds: float
    remaining: float
    batch_size: int
    scored: bool = False
    note: str = ""
    outcome: Outcome | None = None

    @property
    def done(self) -> bool:
        """Whether it is the last one."""
        return self.outcome is not None

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        scores = {name: getattr(self, name).to_json() for name in ("before", "best", "now")}
        outcome = None if self.outcome is None else self.outcome.to_json()
        loss = None if math.isnan(self.loss) else self.loss
        return {**self.__dict__, **scores, "folder": str(self.folder), "loss": loss, "outcome": outcome}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> JobProgress:
        """Progress that `to_json` gave."""
        scores = {name: ScoredObjects.from_json(stored[name]) for name in ("before", "best", "now")}
        outcome = None if stored["outcome"] is None else Outcome.from_json(stored["outcome"])
        loss = math.nan if stored["loss"] is None else float(stored["loss"])
        return cls(**{**stored, **scores, "folder": Path(stored["folder"]), "loss": loss, "outcome": outcome})


def run(
    job: Job | Path | str, *, device: str | torch.device = "auto", world: World | None = None
) -> Generator[JobProgress, None, None]:
    """Train in a job's folder, or go on there.

    Parameters
    ----------
    job : Job, path or str
        What `prepare` made, its folder, or its name in `user_jobs`.
    device : str or torch.device
        Where to train and to score.
    world : World, optional
        The processes that train together; only the first scores, saves and yields.

    Yields
    ------
    JobProgress
        Closed at any yield, it is saved. Killed, it loses what was done since the last checkpoint, at most a minute.
        The last one has an outcome.

    Raises
    ------
    ValueError
        If another process trains in the folder.
    OSError
        If the disk is full; the last checkpoint stays.
    """
    job = job if isinstance(job, Job) else open_job(job)
    world = world or World()
    if (outcome := read_outcome(job.folder)) is not None:
        if world.leads:
            yield _finished(job, outcome)
        return
    training = _Training(job, choose_device(device), world)
    if not world.leads:
        # A batch that was halved is so on all processes; it changes only where one trains alone.
        halved = read_json(job.folder / "state.json").get("batch_size")
        list(training.fit(train_config(job.config, halved)))
        return
    with locked(job.folder):
        yield from training.all()


def finish(job: Job | Path | str, *, device: str | torch.device = "auto") -> Outcome:
    """End a job that is not running, with the best model so far.

    Raises
    ------
    ValueError
        If it is running, or has no checkpoint yet; then it can be gone on with.
    """
    job = job if isinstance(job, Job) else open_job(job)
    if (outcome := read_outcome(job.folder)) is not None:
        return outcome
    with locked(job.folder):
        if not _saved_clock(job.folder / "fit")[0] and not read_json(job.folder / "state.json").get("checked"):
            raise ValueError(
                f"the training '{job.name}' has no checkpoint yet, so there is no model to keep; go on with it, or "
                "discard it"
            )
        training = _Training(job, choose_device(device), World())
        training.begin()
        return training.conclude()


def fine_tune(
    images: Path | str | ArrayLike,
    labels: Path | str | ArrayLike,
    *,
    parent: str | Path = "default",
    name: str = "",
    device: str = "auto",
    **settings: Any,
) -> Outcome:
    """Fine-tune a model on labelled images, from the survey to the verdict.

    Parameters
    ----------
    images, labels : path or array-like
        See `labelled_sources.FileSource` and `labelled_sources.ArraySource`.
    parent : str or path
        Model to begin with.
    name : str
        Of the new model among the user's; NAME-2, ... if it is taken.
    device : str
        Where to train.
    **settings
        Fields of `FineTuneConfig`, such as ``minutes=2``.

    Returns
    -------
    Outcome
        Interrupted and called again with the same arguments, it goes on.

    Raises
    ------
    ValueError
        If there is nothing to train on, or a setting is unknown.

    Examples
    --------
    >>> outcome = fine_tune("stack.tif", "labels.tif", minutes=2)  # doctest: +SKIP
    >>> print(*outcome.sentences)  # doctest: +SKIP
    """
    config = config_from_dict(FineTuneConfig, settings)
    paths = isinstance(images, (str, Path)), isinstance(labels, (str, Path))
    if paths[0] != paths[1]:
        raise ValueError("images and labels must both be paths or both be arrays; read one of them")
    source: Source
    if paths[0]:
        source = FileSource(cast(str, images), cast(str, labels))
    else:
        image = cast(ArrayLike, images)
        rgb = len(image.shape) == len(cast(ArrayLike, labels).shape) + 1 and image.shape[-1] in (3, 4)
        source = ArraySource(image, cast(ArrayLike, labels), name or "image", rgb=rgb)
    *_, last = run(prepare(source, config, parent=parent, name=name), device=device)
    assert last.outcome is not None
    return last.outcome


def _finished(job: Job, outcome: Outcome) -> JobProgress:
    last = outcome.after if outcome.improved else outcome.last
    return JobProgress(
        job.folder,
        1.0,
        outcome.steps,
        float("nan"),
        {},
        outcome.before,
        outcome.after,
        last,
        outcome.seconds,
        0.0,
        outcome.batch_size,
        outcome=outcome,
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a job for this process.

    Raises
    ------
    ValueError
        If another one has it.
    """
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    try:
        if not _filelock.lock(file):
            raise ValueError(f"{folder} is being trained by another process; wait for it or stop it there")
        yield
    finally:
        os.close(file)


@dataclass
class _State:
    """What changes from checkpoint to checkpoint, besides the weights."""

    before: ScoredObjects
    best: ScoredObjects
    now: ScoredObjects
    batch_size: int
    best_folder: str = ""  # where the best model is; none is better than the parent without it
    best_step: int = 0
    stale: int = 0  # checkpoints since the best one
    checked: int = 0  # step of the last checkpoint that was scored
    checkpoints: int = 0  # how many were
    step: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        scores = {name: getattr(self, name).to_json() for name in ("before", "best", "now")}
        return {**self.__dict__, **scores}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> _State:
        scores = {name: ScoredObjects.from_json(stored[name]) for name in ("before", "best", "now")}
        return cls(**{**stored, **scores})


@dataclass
class _Training:
    """One stretch of a job, from its start or resumption to its end or interruption."""

    job: Job
    device: torch.device
    world: World
    note: str = ""
    scoring: float = 0.0  # seconds that the last scoring took
    base: str = "parent"  # what the training begins with
    _seen_before: list[Seen] = field(default_factory=list)

    def begin(self) -> None:
        """Score the parent, or find what was known of a run that goes on."""
        self.objects = read_held_out(self.folder / "held_out.safetensors")
        if not (self.folder / "parent").is_dir():
            raise ValueError(
                f"{self.folder} has ended, but result.json there is damaged; if its model was better, it is among "
                "yours, and the training can be discarded"
            )
        self.parent = load_model(self.folder / "parent")
        saved, file = self.folder / "fit" / "resume.safetensors", self.folder / "state.json"
        step, seconds = _saved_clock(saved.parent)
        is_damaged = _is_damaged(saved)
        if is_damaged:
            saved.unlink()
            self.note = "The last checkpoint was damaged, so the training begins anew, with the best model so far."
        try:
            self.state = _State.from_json(read_json(file))
        except (KeyError, TypeError):
            if file.is_file():
                self.note = "The scores so far were damaged, so the model is scored anew."
        else:
            self.state.step, self.state.seconds = step, seconds
            if is_damaged:
                self.state.checked = self.state.stale = 0
                self.base = self.state.best_folder or self.base
            return
        before, self._seen_before = evaluate(Predictor(self.parent, self.device), self.objects)
        self.state = _State(before, before, before, self.job.config.batch_size, step=step, seconds=seconds)
        self.save_state()

    @property
    def folder(self) -> Path:
        return self.job.folder

    def save_state(self) -> None:
        write_json(self.folder / "state.json", self.state.to_json())

    def all(self) -> Generator[JobProgress, None, None]:
        """The run from here to its end."""
        self.begin()
        self.history = CsvLog(self.folder / "history.csv", self.state.step)
        if not self.history.rows:
            scored = {"iou": self.state.before.mean_iou, "f_2px": self.state.before.mean_f}
            self.history({"step": 0, "seconds": 0.0, "fraction": 0.0, **scored})
        yield self.progress(None)
        self.note = ""
        while True:
            try:
                yield from self.stretch()
                break
            except Exception as error:
                if not out_of_memory(error) or self.world.size > 1 or self.state.batch_size <= _SMALLEST_BATCH:
                    raise
                self.halve(error)
            yield self.progress(None)
            self.note = ""
        yield replace(_finished(self.job, self.conclude()), note=self.note)

    def halve(self, error: BaseException) -> None:
        """Go on with a smaller batch."""
        old, self.state.batch_size = self.state.batch_size, max(_SMALLEST_BATCH, self.state.batch_size // 2)
        set_batch_size(self.folder / "fit", self.state.batch_size)
        self.save_state()
        self.note = (
            f"The {self.device.type.upper() if self.device.type != 'cpu' else 'computer'} ran out of memory with "
            f"{old} objects per step, so it goes on with {self.state.batch_size}."
        )
        error.__traceback__ = None  # which holds the tensors of the failed step
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def fit(self, config: Any) -> Generator[TrainProgress, None, None]:
        """The training itself."""
        network = load_model(self.folder / self.base).model.requires_grad_(True)
        if self.job.config.size is not None:
            network.config = network.config.resized(min(self.job.config.size, network.config.crop.size))
        pack, sets = read_pack(self.folder / "pack.safetensors")
        yield from fit(
            network,
            pack,
            config,
            self.folder / "fit",
            device=self.device,
            sets=sets,
            card={"parent": self.job.parent},
            world=self.world,
        )

    def stretch(self) -> Generator[JobProgress, None, None]:
        """Train until the end, or until it does not become better any more."""
        patience = self.job.config.patience
        with closing(self.fit(train_config(self.job.config, self.state.batch_size))) as steps:
            for found in steps:
                self.state.step, self.state.seconds = found.step, found.seconds
                if found.saved:
                    self.check(found.step)
                self.write_history(found)
                yield self.progress(found)
                if patience is not None and self.state.stale >= patience:
                    self.note = f"It did not become better for {patience} checkpoints, so it ended."
                    break

    def check(self, step: int) -> None:
        """Score the checkpoint, and keep its model if it is the best so far."""
        began, state = time.monotonic(), self.state
        trained = load_model(self.folder / "fit")
        state.now, seen = evaluate(Predictor(trained, self.device), self.objects)
        state.checked, state.checkpoints = step, state.checkpoints + 1
        old = state.best_folder
        if better(state.best, state.now):
            state.best, state.best_step, state.stale = state.now, step, 0
            state.best_folder = save_model(self.folder / f"best-{step}", trained.model, trained.card).name
        else:
            state.stale += 1
        self.save_state()  # from here on the older model is not needed
        if old and old != state.best_folder:
            self.base = state.best_folder if self.base == old else self.base
            shutil.rmtree(self.folder / old, ignore_errors=True)
        if not self._seen_before:
            self._seen_before = evaluate(Predictor(self.parent, self.device), self.objects)[1]
        write_strip(self.folder / "strip.safetensors", strip_of(self.objects, self._seen_before, seen))
        self.scoring = time.monotonic() - began

    def write_history(self, found: TrainProgress) -> None:
        row: dict[str, Any] = {
            "step": found.step,
            "seconds": round(found.seconds, 1),
            "fraction": round(found.fraction, 5),
            "loss": round(found.loss, 6),
            **{f"loss_{name}": round(value, 6) for name, value in found.parts.items()},
        }
        if found.saved:
            row |= {"iou": self.state.now.mean_iou, "f_2px": self.state.now.mean_f}
        self.history(row)

    def progress(self, found: TrainProgress | None) -> JobProgress:
        state, config = self.state, self.job.config
        share = state.seconds / (60 * config.minutes) if config.steps is None else state.step / config.steps
        remaining = found.remaining if found else 60 * config.minutes * (1 - min(1.0, share))
        checks = remaining / (60 * train_config(config).save_minutes)
        return JobProgress(
            self.folder,
            found.fraction if found else min(1.0, share),
            state.step,
            found.loss if found else float("nan"),
            dict(found.parts) if found else {},
            state.before,
            state.best,
            state.now,
            state.seconds,
            remaining + checks * self.scoring,
            state.batch_size,
            scored=found is None or found.saved,
            note=self.note,
        )

    def conclude(self) -> Outcome:
        """Judge the best model, keep it if it is better, and clean up."""
        state = self.state
        saved, _ = _saved_clock(self.folder / "fit")
        if saved > state.checked:  # it was stopped or ran out of memory before it was scored
            self.check(saved)
        best = load_model(self.folder / state.best_folder) if state.best_folder else None
        return conclude(
            self.job,
            best,
            self.objects,
            before=state.before,
            after=state.best,
            last=state.now,
            steps=state.step,
            best_step=state.best_step,
            seconds=state.seconds,
            batch_size=state.batch_size,
            checkpoints=state.checkpoints,
            device=self.device,
        )


def _saved_clock(folder: Path) -> tuple[int, float]:
    """Step and seconds of the checkpoint that a run goes on from; 0 if there is none."""
    try:
        return _clock(folder / "resume.safetensors")
    except (OSError, SafetensorError, ValueError):
        return 0, 0.0


def _is_damaged(file: Path) -> bool:
    """Whether a checkpoint is there and a power cut or the like has cut it off."""
    try:
        _clock(file)
    except (SafetensorError, ValueError):
        return True
    except OSError:
        return False
    return False


def _clock(file: Path) -> tuple[int, float]:
    with safe_open(str(file), "pt") as opened:
        step, seconds = opened.get_tensor("clock").tolist()
        return int(step), float(seconds)
