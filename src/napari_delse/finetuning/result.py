"""The end of a fine-tuning: is the model better, why not, and keeping it with its provenance."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_delse.checkpoint import LoadedModel, available_models, read_card, save_model, write_json
from napari_delse.confidence import Calibration
from napari_delse.finetuning.config import Gain, better
from napari_delse.finetuning.held_out import HeldOutObject, ScoredObjects, features
from napari_delse.finetuning.model_store import add_model
from napari_delse.finetuning.survey import FEW
from napari_delse.predict import Predictor

if TYPE_CHECKING:
    from napari_delse.finetuning.jobs import Job

_SAME = 0.002  # IoU; less is no change
_GOOD = 0.92  # IoU at which there is little left to gain
_FEW_STEPS = 60
_FEW_OBJECTS = 10
_PACKAGES = ("napari-delse", "torch", "numpy", "scipy", "safetensors")


@dataclass(frozen=True)
class Outcome:
    """What a fine-tuning came to.

    Parameters
    ----------
    improved : bool
        Whether there is a new model.
    model, path : str
        Its name and folder; empty if there is none.
    before, after, last : ScoredObjects
        Of the parent, of the best model (the parent's if none was better), and of the last checkpoint.
    gain : Gain
        From before to after; if nothing was better, from before to the last checkpoint.
    sentences : tuple of str
        The verdict; if there is no new model, why and what to try.
    steps, seconds, batch_size : int, float, int
        What was done.
    parent, job : str
        Name of the parent and folder of the job.
    checkpoints : int
        How many were scored; the best of them is kept.
    """

    improved: bool
    model: str
    path: str
    before: ScoredObjects
    after: ScoredObjects
    last: ScoredObjects
    gain: Gain
    sentences: tuple[str, ...]
    steps: int
    seconds: float
    batch_size: int
    parent: str
    job: str
    checkpoints: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        scores = {name: getattr(self, name).to_json() for name in ("before", "after", "last")}
        return {**self.__dict__, **scores, "gain": asdict(self.gain), "sentences": list(self.sentences)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Outcome:
        """An outcome that `to_json` gave."""
        scores = {name: ScoredObjects.from_json(stored[name]) for name in ("before", "after", "last")}
        rest = {"gain": Gain(**stored["gain"]), "sentences": tuple(stored["sentences"])}
        return cls(**{**stored, **scores, **rest})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file, or a power cut damaged it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_outcome(folder: Path) -> Outcome | None:
    """The outcome of a job; None while it has none."""
    stored = read_json(folder / "result.json")
    try:
        return Outcome.from_json(stored) if stored else None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'result.json'} is no result of this version ({error}); discard it") from error


def conclude(
    job: Job,
    best: LoadedModel | None,
    objects: Sequence[HeldOutObject],
    *,
    before: ScoredObjects,
    after: ScoredObjects,
    last: ScoredObjects,
    steps: int,
    best_step: int,
    seconds: float,
    batch_size: int,
    checkpoints: int,
    device: torch.device,
) -> Outcome:
    """Keep a better model under a new name, write the outcome, and remove what is no longer needed."""
    improved = best is not None and better(before, after)
    gain = Gain.between(before, after if improved else last)
    outcome = Outcome(
        improved,
        "",
        "",
        before,
        after if improved else before,
        last,
        gain,
        (),
        steps,
        seconds,
        batch_size,
        job.parent,
        str(job.folder),
        checkpoints,
    )
    if improved and best is not None:
        card = _card(job, best, objects, outcome, best_step, device)
        name, path = _keep(job, best, card)
        outcome = replace(outcome, model=name, path=str(path))
    outcome = replace(outcome, sentences=tuple(verdict(outcome, job.objects)))
    write_json(job.folder / "result.json", outcome.to_json())
    for path in (job.folder / "fit", *job.folder.glob("best-*"), job.folder / "parent"):
        shutil.rmtree(path, ignore_errors=True)
    (job.folder / "pack.safetensors").unlink(missing_ok=True)
    return outcome


def _keep(job: Job, best: LoadedModel, card: dict[str, Any]) -> tuple[str, Path]:
    if job.out:
        folder = save_model(job.out, best.model, card)
        return folder.name, folder
    for name, folder in available_models().items():  # kept before, but then its result could not be written
        with suppress(ValueError):
            about = read_card(folder)
            if (about.get("job"), about.get("steps")) == (card["job"], card["steps"]):
                return name, folder
    return add_model(job.name, lambda folder: save_model(folder, best.model, card))


def _card(
    job: Job, best: LoadedModel, objects: Sequence[HeldOutObject], outcome: Outcome, step: int, device: torch.device
) -> dict[str, Any]:
    """Where the model comes from and how good it is."""
    card: dict[str, Any] = {
        "job": f"{job.folder.name} {job.key} {job.created}",
        "parent": job.parent,
        "parent_weights": job.parent_weights,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "source": job.source,
            "fingerprint": job.data,
            "found": list(job.found),
            "objects": job.objects,
            "held_out_objects": job.held_out_objects,
            "held_out": list(job.held_out),
        },
        "fine_tune": asdict(job.config),
        "steps": step,
        "seconds": round(outcome.seconds),
        "validation": {
            "before": outcome.before.to_json(),
            "after": outcome.after.to_json(),
            "gain": asdict(outcome.gain),
        },
        "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "device": _device(device),
    }
    about_parent = read_json(job.folder / "parent" / "card.json")
    card |= {key: about_parent[key] for key in ("licence", "sources") if key in about_parent}
    if (calibration := _calibration(about_parent)) is not None:
        rows = features(Predictor(best, device), objects, calibration.names)
        fitted = calibration.shifted(rows, np.array(outcome.after.iou))
        card["confidence"] = fitted.to_card()
    return card


def _calibration(card: dict[str, Any]) -> Calibration | None:
    try:
        return Calibration.from_card(card)
    except ValueError:  # a damaged one was told when the parent was loaded
        return None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


# ---------------------------------------------------------------- words


def verdict(outcome: Outcome, objects: int) -> list[str]:
    """The outcome in plain sentences; ``objects`` were trained on."""
    return _good(outcome) if outcome.improved else _bad(outcome, objects)


def _good(outcome: Outcome) -> list[str]:
    gain, count = outcome.gain, outcome.gain.objects
    first = (
        f"'{outcome.model}' is better than '{outcome.parent}': IoU {outcome.before.mean_iou:.3f} before, "
        f"{outcome.after.mean_iou:.3f} after on {count} held-out object{'s' * (count != 1)}."
    )
    spread = (
        f"The gain is {100 * gain.mean:+.1f} points on average (standard deviation {100 * gain.sd:.1f}, 95 % interval "
        f"of the mean {100 * gain.low:+.1f} to {100 * gain.high:+.1f}); {gain.improved} became better and "
        f"{gain.worsened} worse."
    )
    boundary = f"Boundary F at 2 px went from {outcome.before.mean_f:.3f} to {outcome.after.mean_f:.3f}."
    said = [first, f"{spread} {boundary}"]
    if outcome.checkpoints > 1:  # the choice and the gain rest on the same objects
        said.append(
            f"It is the best of {outcome.checkpoints} checkpoints on these very objects, so expect somewhat less on "
            "new ones."
        )
    if gain.low <= 0 or count < FEW:
        why = "The interval includes 0" if gain.low <= 0 else f"{count} held-out objects are few"
        said.append(f"{why}, so this may be luck: label some more objects and train again to be sure.")
    return said


def _bad(outcome: Outcome, objects: int) -> list[str]:
    change, count = outcome.last.mean_iou - outcome.before.mean_iou, len(outcome.before.iou)
    kept = f"'{outcome.parent}' stays: IoU {outcome.before.mean_iou:.3f} before"
    said = [f"{kept}, {outcome.last.mean_iou:.3f} after on {count} held-out object{'s' * (count != 1)}."]
    if outcome.steps < _FEW_STEPS:
        said.append(f"It trained for {outcome.steps} steps only: give it more time.")
    elif abs(change) <= _SAME and outcome.before.mean_iou >= _GOOD:
        said.append("The model was good on these objects already; label those that still go wrong.")
    elif objects < _FEW_OBJECTS:
        said.append(f"{objects} objects are few to learn from: label ten or more, of all kinds that occur.")
    elif change < -_SAME:
        said.append(
            "It learned the training objects and lost on the others: label more images that differ, look whether the "
            "labels of the held-out ones are drawn alike, or lower the learning rate."
        )
    else:
        said.append("Hardly anything changed: train longer, raise the learning rate, or label more of what goes wrong.")
    return said
