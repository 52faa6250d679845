"""A fine-tuning as a folder that holds all it needs: it goes on after napari was closed or killed.

`prepare` reads the labelled objects once and writes the folder; `napari_delse.finetuning.run.run` trains in it.
Nothing of the data is read again after that.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from napari_delse import _filelock
from napari_delse._writing import new_folder
from napari_delse.annotation.records import weights_hash
from napari_delse.checkpoint import MODEL_FILES, LoadedModel, load_model, user_models, write_json
from napari_delse.finetuning.config import FineTuneConfig
from napari_delse.finetuning.held_out import Strip, read_strip, write_held_out
from napari_delse.finetuning.labelled_sources import Source
from napari_delse.finetuning.objects import SYNTHETIC, held_out_objects, training_pack
from napari_delse.finetuning.survey import Survey, survey
from napari_delse.model import config_from_dict
from napari_delse.train.crops import reach_of
from napari_delse.train.recipes import write_pack

_FORMAT = 1
_LARGEST_CANVAS = 512
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # the disk, or what a person may have of it
_SPARE = 200e6  # bytes that are needed besides the objects: the parent, checkpoints and the best model

Told = Callable[[int, int], None]
State = Literal["new", "running", "paused", "finished"]


@dataclass(frozen=True)
class Job:
    """What a job folder says about itself.

    Parameters
    ----------
    folder : Path
        Where it is.
    name : str
        Of the model to be.
    config : FineTuneConfig
        The run.
    parent, parent_weights : str
        Name of the model that it begins with, and `weights_hash` of it.
    source : dict
        Where the objects come from.
    data : str
        Fingerprint of the objects.
    key : str
        The same for the same command.
    out : str
        Folder of the new model; empty for the user's models.
    found : tuple of str
        What was found in the source, one sentence each.
    objects, held_out_objects : int
        How many are trained and scored on.
    held_out : tuple of str
        Which objects are held out.
    created : str
        Time in UTC.
    """

    folder: Path
    name: str
    config: FineTuneConfig
    parent: str
    parent_weights: str
    source: dict[str, Any]
    data: str
    key: str
    out: str
    found: tuple[str, ...]
    objects: int
    held_out_objects: int
    held_out: tuple[str, ...]
    created: str

    @property
    def state(self) -> State:
        """How far it is; "running" if some process trains in it now."""
        if _has_ended(self.folder):
            return "finished"
        lock = self.folder / "lock"
        if lock.is_file() and _filelock.is_locked(lock):
            return "running"
        return "paused" if (self.folder / "state.json").is_file() else "new"

    def history(self) -> list[dict[str, float]]:
        """Losses and scores so far, for curves: step, seconds, fraction, loss, and where scored iou and f_2px.

        Lines that are just being written, or that a power cut damaged, are left out.
        """
        file, rows = self.folder / "history.csv", []
        if not file.is_file():
            return []
        with file.open(newline="", encoding="utf-8", errors="replace") as opened, suppress(csv.Error):
            for row in csv.DictReader(opened):
                with suppress(ValueError):
                    rows.append({k: float(v) for k, v in row.items() if k and v})
        return rows

    def strip(self) -> Strip | None:
        """Pictures of a few held-out objects at the last checkpoint."""
        return read_strip(self.folder / "strip.safetensors")


def _has_ended(folder: Path) -> bool:
    """Whether there is a result, and not only what a power cut left of it."""
    try:
        return bool(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def user_jobs() -> Path:
    """Folder of the jobs: ``$NAPARI_DELSE_HOME/training``, else in the user's data folder."""
    return user_models().parent / "training"


def open_job(folder: Path | str) -> Job:
    """A job by its folder, or by its name in `user_jobs`.

    Raises
    ------
    ValueError
        If there is none, or it comes from another version.
    """
    folder = Path(folder)
    if not (folder / "job.json").is_file() and (user_jobs() / folder / "job.json").is_file():
        folder = user_jobs() / folder
    try:
        stored = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        if not isinstance(stored, dict):
            raise ValueError(f"job.json must hold an object, got {type(stored).__name__}")
        if stored.pop("format") != _FORMAT:
            raise ValueError("it comes from another version of napari-delse")
        datetime.fromisoformat(stored["created"])
        config = config_from_dict(FineTuneConfig, stored.pop("config"))
        lists: dict[str, Any] = {name: tuple(stored.pop(name)) for name in ("found", "held_out")}
        return Job(folder=folder, config=config, **lists, **stored)
    except FileNotFoundError:
        raise ValueError(f"{folder} is no training; give a folder that holds job.json") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder} cannot be read as a training ({error}); begin it again, and delete that folder"
        ) from error


def list_jobs(unreadable: list[ValueError] | None = None) -> list[Job]:
    """The user's jobs, the newest first.

    Parameters
    ----------
    unreadable : list, optional
        Is given why jobs that have not ended are left out, such as those of another version.
    """
    root, found = user_jobs(), []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if (path / "job.json").is_file():
            try:
                found.append(open_job(path))
            except ValueError as error:
                if unreadable is not None and not _has_ended(path):
                    unreadable.append(error)
    return sorted(found, key=lambda job: job.created, reverse=True)


def delete_job(job: Job) -> None:
    """Remove a job that is not running; the model that came of it stays.

    Raises
    ------
    ValueError
        If it is running.
    """
    if job.state == "running":
        raise ValueError(f"the training '{job.name}' is running; stop it first")
    with suppress(FileNotFoundError):  # somebody was quicker
        shutil.rmtree(job.folder)


# ---------------------------------------------------------------- preparing


def prepare(
    source: Source,
    config: FineTuneConfig | None = None,
    *,
    parent: LoadedModel | str | Path = "default",
    name: str = "",
    out: Path | str | None = None,
    found: Survey | None = None,
    fresh: bool = False,
    told: Told | None = None,
) -> Job:
    """Make a job: read the objects, split them, and write all that training needs.

    Parameters
    ----------
    source : Source
        What to learn from.
    config : FineTuneConfig, optional
        The run.
    parent : LoadedModel, str or path
        Model to begin with; it is copied and not changed.
    name : str
        Of the new model; after the source by default.
    out : path, optional
        Folder of the new model instead of a name among the user's models; the job is in it.
    found : Survey, optional
        Of the source, if it was looked at already.
    fresh : bool
        Begin anew also if the same was begun before.
    told : callable, optional
        Called with the number of objects read and of all; what it raises ends the preparation.

    Returns
    -------
    Job
        One that was begun with the same arguments and data, if there is one; else a new one.

    Raises
    ------
    ValueError
        If there is nothing to train on (the message is the first problem of the survey), or there is no such parent.
    OSError
        If the disk is full; then nothing is left.
    """
    config = config or FineTuneConfig()
    loaded = parent if isinstance(parent, LoadedModel) else load_model(parent)
    found = found or survey(source, config.validation)
    if found.problems:
        raise ValueError(found.problems[0])
    begun = _Begun.of(found, config, loaded, _model_name(name or source.name), out)
    begun.check_place()
    if not fresh and (old := begun.find()) is not None:
        return old
    return begun.write(source, told)


def _model_name(text: str) -> str:
    name = re.sub(r"[^\w.+-]+", "-", text).strip("-.+")
    return name or "model"


@dataclass(frozen=True)
class _Begun:
    """A job that is to be found or written."""

    found: Survey
    config: FineTuneConfig
    parent: LoadedModel
    weights: str
    name: str
    out: Path | None
    key: str

    @classmethod
    def of(
        cls, found: Survey, config: FineTuneConfig, parent: LoadedModel, name: str, out: Path | str | None
    ) -> _Begun:
        weights = weights_hash(parent.path)
        place = None if out is None else Path(out).absolute()
        said = [found.about, found.fingerprint, asdict(config), weights, name, str(place)]
        key = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=12).hexdigest()
        return cls(found, config, parent, weights, name, place, key)

    def check_place(self) -> None:
        """Refuse a folder for the new model that holds what is not of a training there.

        Raises
        ------
        ValueError
            If something would be replaced.
        """
        if self.out is None or (self.out / "training" / "job.json").is_file():
            return
        taken = [self.out / name for name in ("training", *MODEL_FILES) if (self.out / name).exists()]
        if taken:
            raise ValueError(
                f"{taken[0]} exists and is not of a training, so it is not replaced; choose another folder with --out"
            )

    def find(self) -> Job | None:
        """The same job, begun before."""
        if self.out is None:
            return next((job for job in list_jobs() if job.key == self.key), None)
        folder = self.out / "training"
        if not (folder / "job.json").is_file():
            return None
        job = open_job(folder)
        if job.key != self.key:
            raise ValueError(
                f"{self.out} holds another training ({_difference(job, self)}); choose another folder, or remove it"
            )
        return job

    def write(self, source: Source, told: Told | None) -> Job:
        """Read the objects and write the folder, completely or not at all."""
        root = user_jobs() if self.out is None else self.out
        made = not root.exists()
        root.mkdir(parents=True, exist_ok=True)
        try:
            with new_folder(root, self.name) as aside, _full_disk(root, self._bytes(), self.out is not None):
                self._fill(aside, source, told)
                folder = _free(root, self.name) if self.out is None else root / "training"
                if self.out is not None and folder.exists():
                    shutil.rmtree(folder)
                aside.rename(folder)
        except BaseException:
            if made:
                _remove_empty(root)
            raise
        return open_job(folder)

    def _fill(self, folder: Path, source: Source, told: Told | None) -> None:
        crop = self.parent.config.crop
        held = held_out_objects(source, self.found, self.config, crop)
        pack = training_pack(source, self.found, self.config, self._canvas, told, reach=reach_of(crop))
        write_pack(folder / "pack.safetensors", pack, ("own", "synthetic"))
        write_held_out(folder / "held_out.safetensors", held)
        (folder / "parent").mkdir()
        for name in MODEL_FILES:
            if (self.parent.path / name).is_file():
                shutil.copyfile(self.parent.path / name, folder / "parent" / name)
        content: Mapping[str, Any] = {
            "format": _FORMAT,
            "name": self.name,
            "config": asdict(self.config),
            "parent": self.parent.name,
            "parent_weights": self.weights,
            "source": self.found.about,
            "data": self.found.fingerprint,
            "key": self.key,
            "out": "" if self.out is None else str(self.out),
            "found": self.found.sentences(),
            "objects": int((pack.group == 0).sum()),
            "held_out_objects": len(held),
            "held_out": [one.name for one in held],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / "job.json", content)

    def _bytes(self) -> float:
        """About how much room it takes."""
        count = min(self.config.objects, len(self.found.split.training)) + SYNTHETIC * (self.config.replay > 0)
        return count * 5 * self._canvas**2 + _SPARE

    @property
    def _canvas(self) -> int:
        # A crop shows about two thirds of a canvas; on a smaller one it would be blurred.
        size = min(self.config.size or self.parent.config.crop.size, self.parent.config.crop.size)
        return min(_LARGEST_CANVAS, 32 * math.ceil(1.4 * size / 32))


def _difference(job: Job, begun: _Begun) -> str:
    """What is not the same as in a job, for a message."""
    if job.data != begun.found.fingerprint or job.source != begun.found.about:
        return "of other data"
    if job.parent_weights != begun.weights:
        return f"that began with '{job.parent}'"
    old, new = asdict(job.config), asdict(begun.config)
    names = [name for name in new if json.dumps(old[name]) != json.dumps(new[name])]
    return f"with other settings: {', '.join(names)}" if names else f"of the name '{job.name}'"


def _free(root: Path, name: str) -> Path:
    """A folder that is not there yet: NAME, NAME-2, ..."""
    number = 1
    while (folder := root / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder


@contextmanager
def _full_disk(folder: Path, needed: float, is_chosen: bool) -> Iterator[None]:
    """One sentence where there is no room; a folder was chosen with ``--out`` or is that of the user."""
    remedy = "choose one on another disk with --out" if is_chosen else "set NAPARI_DELSE_HOME to one on another disk"
    sentence = (
        f"there is not enough room in the folder {folder} for a training, which takes about {needed / 1e6:.0f} MB; "
        f"free some, or {remedy}"
    )
    if shutil.disk_usage(folder).free < needed:
        raise OSError(sentence)
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise OSError(sentence) from error
        raise


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # somebody else wrote there
        folder.rmdir()
