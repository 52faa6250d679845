"""Models as folders: ``model.safetensors``, ``config.json`` and ``card.json``.

Weights and configs are data, never code: nothing is unpickled. Every file is written aside and then
renamed, so that a model is complete or absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from napari_delse._writing import write_atomically
from napari_delse.model import Delse, ModelConfig, config_from_dict

MODEL_FILES = ("config.json", "model.safetensors", "card.json")  # of which the last may be missing
_PACKAGED = Path(__file__).parent / "weights"
_FORMAT = 2  # 1: heads spoke in 1/128 of the crop side
_TOLD_BY_SYSTEM = re.compile(r"([^:\s][^:]*?) \(os error (\d+)\)")  # as Rust writes it
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model with what is known about it."""

    name: str
    path: Path
    model: Delse
    config: ModelConfig
    card: dict[str, Any]  # data, licence, command, commit, seed, scores


def user_models() -> Path:
    """Folder of the user's own models: ``$NAPARI_DELSE_HOME/models``, else in the user's data folder."""
    home = os.environ.get("NAPARI_DELSE_HOME")
    if home:
        return Path(home) / "models"
    from platformdirs import user_data_path

    return user_data_path("napari-delse", appauthor=False) / "models"


def packaged_models() -> dict[str, Path]:
    """Name -> folder of the models that come with the package."""
    return _models_in(_PACKAGED)


def _models_in(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        return {}
    return {p.name: p for p in sorted(root.iterdir()) if (p / "config.json").is_file() and p.name[:1] != "."}


def available_models() -> dict[str, Path]:
    """Name -> folder of every model that can be loaded by name; the user's hide packaged ones of the same name."""
    return packaged_models() | _models_in(user_models())


def _find(model: str | Path) -> Path:
    models = available_models()
    if str(model) in models:
        return models[str(model)]
    folder = Path(model)
    if (folder / "config.json").is_file():
        return folder
    raise ValueError(
        f"no model {str(model)!r}: give a folder with config.json and model.safetensors, or one of "
        f"{', '.join(sorted(models)) or '(no model is installed)'}"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); copy the model again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def load_model(model: str | Path = "default") -> LoadedModel:
    """Load a model by name or folder, on the CPU and in evaluation mode.

    Parameters
    ----------
    model : str or path
        "default", the name of one of the user's models, or a folder.

    Returns
    -------
    LoadedModel

    Raises
    ------
    ValueError
        If there is no such model, or its files are damaged or do not fit each other.
    MemoryError
        If the memory does not suffice.
    """
    folder = _find(model)
    config = read_config(folder)
    weights = folder / "model.safetensors"
    try:
        network = Delse(config)
        state = load_file(weights)
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        if out_of_memory(error):
            raise MemoryError(f"the memory does not suffice to load {folder}; close other programs") from error
        first = textwrap.shorten(" ".join(str(error).splitlines()[:2]), 300)
        raise ValueError(
            f"{weights} does not hold the weights its config describes ({first}); copy it again"
        ) from error
    if broken := [name for name, tensor in network.state_dict().items() if not tensor.isfinite().all()]:
        raise ValueError(f"{weights} holds numbers in {broken[0]} that are not finite; use an earlier checkpoint")
    return LoadedModel(folder.absolute().name, folder, network.eval(), config, read_card(folder))


def read_config(folder: Path) -> ModelConfig:
    """The config of a model's folder.

    Raises
    ------
    ValueError
        If it is of another format, or describes no model.
    """
    header = _read_json(folder / "config.json")
    if header.get("format") != _FORMAT:
        raise ValueError(
            f"{folder} has model format {header.get('format')!r}, expected {_FORMAT}; "
            "update napari-delse, or train an older model again"
        )
    try:
        return config_from_dict(ModelConfig, header["model"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'} does not describe a model ({error}); copy it again") from error


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a model's folder; empty if it has none.

    Raises
    ------
    ValueError
        If it is no JSON object.
    """
    file = folder / "card.json"
    return _read_json(file) if file.is_file() else {}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, (RuntimeError, OSError, SafetensorError)) and any(words in text for words in _NO_MEMORY)


def model_fingerprint(model: str | Path) -> str:
    """SHA-256 of a model's files.

    Parameters
    ----------
    model : str or path
        As for `load_model`.
    """
    digest = hashlib.sha256()
    folder = _find(model)
    for name in MODEL_FILES:
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically, with texts in its header."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with disk_errors(path):
        write_atomically(path, lambda aside: save_file(plain, aside, dict(about) if about else None))


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What safetensors says of a full disk and the like, as the operating system says it.

    Raises
    ------
    OSError
        With the file's name, and the number of the error where it is told.
    """
    try:
        yield
    except SafetensorError as error:
        found = _TOLD_BY_SYSTEM.search(str(error))
        if found is None:
            raise OSError(f"{path} cannot be written ({error})") from error
        number = int(found[2])
        raise OSError(number, found[1], str(path), number) from error


def save_model(folder: Path | str, model: Delse, card: Mapping[str, Any], *, half: bool = False) -> Path:
    """Save a model as a folder that `load_model` reads.

    Parameters
    ----------
    folder : path
        Created if needed; its last part is the model's name.
    model : Delse
        Network with its config.
    card : mapping
        Model card: plain data about where the weights come from and how good they are.
    half : bool
        Store the convolutions in float16 (half the size); computation stays float32.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If the name holds characters that are not safe in a file name.
    """
    folder = Path(folder)
    if not re.fullmatch(r"[\w][\w.+-]*", folder.name):
        raise ValueError(f"model name {folder.name!r} may hold only letters, digits and . + - _; rename it")
    # Vectors stay float32: they weigh nothing, and the variances of a batch norm may leave float16's range.
    state = {name: t.half() if half and t.ndim > 1 else t for name, t in model.state_dict().items()}
    write_tensors(folder / "model.safetensors", state)
    write_json(folder / "card.json", dict(card))
    write_json(folder / "config.json", {"format": _FORMAT, "model": asdict(model.config)})
    return folder


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Parameters from a file or an address, such as published ImageNet weights for an encoder.

    Parameters
    ----------
    source : str or path
        A ``.safetensors`` or PyTorch file, or an http(s) address of one; what is downloaded is kept in torch's cache.

    Raises
    ------
    ValueError
        If nothing can be read there, or the file holds more than tensors.
    """
    try:
        path = Path(source)
        if str(source).startswith(("http://", "https://")):
            path = Path(torch.hub.get_dir()) / "checkpoints" / str(source).rsplit("/", 1)[-1]
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(str(source), str(path))
        if path.suffix == ".safetensors":
            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"no weights can be read from {source} ({first}); give a safetensors or PyTorch file"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{source} holds more than named tensors; save only the state dict")
    return state


def parameter_count(model: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters())
