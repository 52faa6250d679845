"""The user's models: listed, described, renamed, deleted, compared, and carried from one computer to another."""

from __future__ import annotations

import math
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from napari_delse._writing import beside, new_folder, write_atomically
from napari_delse.annotation.preferences import change_preferences, read_preferences
from napari_delse.checkpoint import (
    MODEL_FILES,
    available_models,
    load_model,
    packaged_models,
    read_card,
    read_config,
    user_models,
)

SUFFIX = ".delse.zip"
_LARGEST = {"model.safetensors": 2 * 2**30, "config.json": 2**20, "card.json": 2**24}  # bytes
_SCORES = ("miou", "f_2px", "objects")
_NUMBERS = (*_SCORES, "f_1px")
_KINDS = {str: "a text", dict: "an object"}
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without loading it.

    Parameters
    ----------
    name, path : str, Path
        What it is called and where it is.
    packaged : bool
        Whether it came with the package; then it cannot be renamed or deleted.
    current : bool
        Whether it is the one to work with.
    config, card : dict
        What its files say.
    parameters, megabytes : int, float
        Trained numbers, and the size of the file.
    problem : str
        Why it cannot be used; empty if all is well.
    """

    name: str
    path: Path
    packaged: bool = False
    current: bool = False
    config: dict[str, Any] | None = None
    card: dict[str, Any] | None = None
    parameters: int = 0
    megabytes: float = 0.0
    problem: str = ""

    @property
    def parent(self) -> str:
        """Name of the model that it was fine-tuned from; empty if it was not."""
        return str((self.card or {}).get("parent", ""))

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Those before and after a fine-tuning, or ``extreme_points`` of a trained model."""
        found = (self.card or {}).get("validation", {})
        return {k: v for k, v in found.items() if k in ("before", "after", "extreme_points") and isinstance(v, dict)}


def describe_models() -> list[ModelInfo]:
    """All models that can be loaded by name."""
    now = current_model()
    packaged = packaged_models()
    return [
        replace(describe(path, name), packaged=packaged.get(name) == path, current=name == now)
        for name, path in available_models().items()
    ]


def describe(path: Path, name: str = "") -> ModelInfo:
    """One model from its files; what is wrong with them is its ``problem``."""
    info = ModelInfo(name or path.name, path)
    try:
        config = asdict(read_config(path))
        weights = path / "model.safetensors"
        with safe_open(str(weights), "np") as file:
            parameters = sum(
                math.prod(file.get_slice(key).get_shape())
                for key in file.keys()  # noqa: SIM118 # which is no mapping
                if not key.endswith(_STATISTICS)
            )
        card = read_card(path)
        _check_card(card)
        return replace(info, config=config, card=card, parameters=parameters, megabytes=weights.stat().st_size / 1e6)
    except (OSError, ValueError, SafetensorError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        return replace(info, problem=" ".join(text.split()))


def _check_card(card: dict[str, Any]) -> None:
    """Refuse what lists of models could not show."""
    for name, kind in (("parent", str), ("validation", dict), ("data", dict)):
        if not isinstance(card.get(name, kind()), kind):
            raise ValueError(f"{name} in card.json must be {_KINDS[kind]}, got {card[name]!r}; copy the model again")
    for name, needed in (("before", _SCORES), ("after", _SCORES), ("extreme_points", _SCORES[:1])):
        scores = card.get("validation", {}).get(name)
        if scores is None:
            continue
        numbers = isinstance(scores, dict) and all(isinstance(scores.get(key, 0), (int, float)) for key in _NUMBERS)
        if not numbers or not set(needed) <= set(scores):
            raise ValueError(
                f"{name} of validation in card.json must hold numbers for {', '.join(needed)}; copy the model again"
            )
    data = card.get("data", {})
    if not isinstance(data.get("source", {}), dict) or not isinstance(data.get("found", []), list):
        raise ValueError("data in card.json must say its source as an object and what was found as a list")


def model_info(name: str) -> ModelInfo:
    """One of `describe_models`.

    Raises
    ------
    ValueError
        If there is no such model.
    """
    found = {info.name: info for info in describe_models()}
    if name not in found:
        raise ValueError(f"no model {name!r}; there are {', '.join(found)}")
    return found[name]


def provenance(info: ModelInfo) -> list[str]:
    """Where a model comes from and how good it is, one line each."""
    card = info.card or {}
    origin = "comes with the package" if info.packaged else str(info.path)
    lines = [f"{info.name}{' (current)' if info.current else ''}: {origin}"]
    if info.problem:
        return [*lines, f"damaged: {info.problem}"]
    if info.config:
        size = info.config.get("crop", {}).get("size")
        kind = info.config.get("architecture")
        lines.append(f"{kind}, {size} px, {info.parameters / 1e6:.2f} M parameters, {info.megabytes:.1f} MB")
    if info.parent:
        data = card.get("data", {})
        lines.append(f"fine-tuned from {info.parent} on {str(card.get('date', ''))[:10]}")
        lines += [str(sentence) for sentence in data.get("found", ())]
        source = data.get("source", {})
        lines.append("data: " + str(source.get("images") or source.get("journal") or source.get("name", "")))
        for name in ("before", "after"):
            if scores := info.scores.get(name):
                lines.append(
                    f"{name}: IoU {scores['miou']:.4f}, F 2 px {scores['f_2px']:.4f} on {scores['objects']} objects"
                )
        lines.append(f"{card.get('steps')} steps, {card.get('seconds')} s on {card.get('device')}")
    elif scores := info.scores.get("extreme_points"):
        lines.append(f"IoU {scores['miou']:.4f} on {scores.get('objects', '?')} objects of several sets")
    if card.get("licence"):
        lines.append(f"licence: {card['licence']}")
    return lines


# ---------------------------------------------------------------- current


def current_model() -> str:
    """Name of the model to work with: the chosen one if it is still there, else "default"."""
    try:
        chosen = read_preferences().model
    except ValueError:
        return "default"
    return chosen if chosen in available_models() else "default"


def choose_model(name: str) -> None:
    """Work with a model from now on.

    Raises
    ------
    ValueError
        If there is no such model, or it cannot be used.
    OSError
        If the settings cannot be written.
    """
    if problem := model_info(name).problem:
        raise ValueError(f"{name!r} cannot be used: {problem}")
    change_preferences(model=name)


# ---------------------------------------------------------------- changing


def check_name(name: str) -> None:
    """Refuse what cannot be a model's name.

    Raises
    ------
    ValueError
        If it holds other characters than letters, digits and ``. + - _``, or is that of a packaged model.
    """
    if not re.fullmatch(r"[\w][\w.+-]*", name) or len(name) > 100:
        raise ValueError(f"model name {name!r} may hold only letters, digits and . + - _; choose another")
    if name in packaged_models():
        raise ValueError(f"{name!r} is the name of a model that comes with the package; choose another")


def add_model(name: str, write: Callable[[Path], object]) -> tuple[str, Path]:
    """Add a model to the user's, completely or not at all, under the first free name of NAME, NAME-2, ...

    Parameters
    ----------
    name : str
        The wanted name; a packaged model's counts as taken.
    write : callable
        Called with a folder, which it fills.

    Returns
    -------
    name, folder : str, Path
    """
    root = user_models()
    with new_folder(root, name) as hidden:
        aside = hidden / "model"
        write(aside)
        taken = {*packaged_models()}
        number = 1
        while True:
            free = name if number == 1 else f"{name}-{number}"
            number += 1
            if free in taken or (root / free).exists():
                continue
            try:
                aside.rename(root / free)
            except OSError:
                if not (root / free).exists():
                    raise
                continue  # somebody was quicker
            return free, root / free


def rename_model(name: str, new: str) -> Path:
    """Give one of the user's models another name.

    Raises
    ------
    ValueError
        If there is no such model, it came with the package, or the new name is taken or cannot be one.
    OSError
        If nothing can be written there; then it keeps its name.
    """
    old = _own(name)
    check_name(new)
    target = user_models() / new
    if target.exists():
        raise ValueError(f"there is a model {new!r} already; choose another name")
    was_current = current_model() == name
    old.path.rename(target)
    if was_current:
        try:
            change_preferences(model=new)
        except OSError as error:
            target.rename(old.path)
            raise OSError(
                f"'{name}' keeps its name, as it is in use and the settings, which name it, cannot be written "
                f"({error}); see to it that they can"
            ) from error
    return target


def delete_model(name: str) -> None:
    """Delete one of the user's models.

    Raises
    ------
    ValueError
        If there is no such model, or it came with the package.
    """
    info = _own(name)
    aside = beside(info.path, "gone")
    info.path.rename(aside)  # so that it is never half there
    shutil.rmtree(aside)


def _own(name: str) -> ModelInfo:
    info = model_info(name)
    if info.packaged:
        raise ValueError(f"{name!r} comes with the package and stays as it is; export it to have a copy")
    return info


# ---------------------------------------------------------------- one file


def export_model(name: str, path: Path | str) -> Path:
    """Write a model as one zip file of safetensors and JSON.

    Parameters
    ----------
    name : str
        A model's name or folder.
    path : path
        The file; ``.delse.zip`` is added where no ``.zip`` is.

    Raises
    ------
    ValueError
        If there is no such model, or it is damaged.
    """
    loaded = load_model(name)
    path = Path(path)
    if path.suffix.lower() != ".zip":
        path = path.with_name(path.name + SUFFIX)

    def write(aside: Path) -> None:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as file:
            for part in MODEL_FILES:
                if (loaded.path / part).is_file():
                    file.write(loaded.path / part, part)

    write_atomically(path, write)
    return path


def import_model(path: Path | str, name: str = "") -> tuple[str, Path]:
    """Add a model from a file that `export_model` wrote.

    Nothing in the file is run, and nothing but the three files of a model is taken from it.

    Parameters
    ----------
    path : path
        The file.
    name : str
        What to call it; after the file by default. If that is taken: NAME-2, ...

    Returns
    -------
    name, folder : str, Path

    Raises
    ------
    ValueError
        If the file holds anything else, is too large, or its model cannot be loaded; then nothing is added.
    """
    path = Path(path)
    wanted = name or re.sub(r"(\.delse)?\.zip$", "", path.name, flags=re.IGNORECASE)
    if name:
        check_name(name)
    wanted = re.sub(r"[^\w.+-]+", "-", wanted).strip("-.+") or "model"

    def write(folder: Path) -> None:
        try:
            with zipfile.ZipFile(path) as file:
                _unpack(file, path, folder)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise ValueError(f"{path} is no model file ({error}); export the model again") from error
        load_model(folder)
        if problem := describe(folder).problem:
            raise ValueError(f"{path} is no model file ({problem}); export the model again")

    return add_model(wanted, write)


def _unpack(file: zipfile.ZipFile, path: Path, folder: Path) -> None:
    members = file.infolist()
    if odd := [one.filename for one in members if one.filename not in MODEL_FILES]:
        raise ValueError(
            f"{path} holds {odd[0]!r}; a model file holds {', '.join(MODEL_FILES)} and nothing else, so it is not taken"
        )
    names = [one.filename for one in members]
    if len(set(names)) < len(names) or not {"model.safetensors", "config.json"} <= set(names):
        raise ValueError(f"{path} must hold model.safetensors and config.json once each; export the model again")
    for one in members:
        if one.file_size > _LARGEST[one.filename]:
            raise ValueError(
                f"{one.filename} in {path} has {one.file_size / 1e6:.0f} MB, more than any model of this kind; it is "
                "not taken"
            )
    folder.mkdir()
    for one in members:
        with file.open(one) as source, (folder / one.filename).open("wb") as target:
            _copy(source, target, one.file_size, path)


def _copy(source: Any, target: Any, size: int, path: Path) -> None:
    """Copy what the file's list promises and not a byte more."""
    left = size
    while left:
        block = source.read(min(left, 2**20))
        if not block:
            raise ValueError(f"{path} broke off; copy or export the model again")
        target.write(block)
        left -= len(block)
    if source.read(1):
        raise ValueError(f"{path} holds more than its list says; it is not taken")


# ---------------------------------------------------------------- comparing


def compare_models(job: Path | str, models: Sequence[str], device: str = "auto") -> dict[str, Any]:
    """Scores of models on the held-out objects of a training.

    Parameters
    ----------
    job : path or str
        Its folder, or its name.
    models : sequence of str
        Names or folders of two or more models; differences are to the first.
    device : str
        Where to run.

    Returns
    -------
    dict
        ``objects``: their names; ``models``: name, scores, and the gain over the first.
    """
    from napari_delse.finetuning.config import Gain
    from napari_delse.finetuning.held_out import evaluate, read_held_out
    from napari_delse.finetuning.jobs import open_job
    from napari_delse.predict import Predictor

    folder = open_job(job).folder
    objects = read_held_out(folder / "held_out.safetensors")
    rows: list[dict[str, Any]] = []
    first = None
    for name in models:
        scores, _ = evaluate(Predictor.load(name, device), objects)
        first = first or scores
        rows.append({"name": name, **scores.to_json(), "gain": asdict(Gain.between(first, scores))})
    return {"job": str(folder), "objects": [one.name for one in objects], "models": rows}
