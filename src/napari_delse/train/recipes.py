"""Training recipes: TOML files with the tables [model], [train] and [data].

Every key is a field of `ModelConfig`, `TrainConfig` or `DataConfig`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from napari_delse.checkpoint import load_model, read_weights, write_tensors
from napari_delse.data.samples import Sample, check_images, object_ids, read_folder, read_pairs
from napari_delse.model import Delse, ModelConfig, config_from_dict, load_encoder_weights
from napari_delse.train.config import TrainConfig, TrainProgress
from napari_delse.train.crop_records import no_records
from napari_delse.train.crops import REACH, ObjectPack, join_packs, pack_objects, reach_of
from napari_delse.train.distributed import World
from napari_delse.train.loop import fit

_MIN_AREA = 12  # pixels; smaller labels are specks


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What a recipe trains on and where the model goes. Paths in a recipe are relative to its folder."""

    images: str = ""  # image, stack or folder of images
    labels: str = ""  # labels of these: a file, or a folder with the same names
    folders: tuple[str, ...] = ()  # data sets, each with images/ and labels/ of the same names
    pack: str = ""  # objects that training/pack.py packed into one file
    out: str = ""  # folder of the run
    canvas: int = 256  # side of the square that an object is packed onto
    objects: int | None = None  # at most about so many objects of each data set

    def __post_init__(self) -> None:
        given = [
            name for name, value in (("images", self.images), ("folders", self.folders), ("pack", self.pack)) if value
        ]
        if len(given) > 1:
            raise ValueError(f"data must come from one of images, folders and pack, got {' and '.join(given)}")
        if bool(self.images) != bool(self.labels):
            raise ValueError("data needs both images and labels, got only one of them; add the other")

    def at(self, folder: Path) -> DataConfig:
        """The same with paths relative to a folder made whole."""

        def whole(path: str) -> str:
            return str(folder / path) if path else ""

        return replace(
            self,
            images=whole(self.images),
            labels=whole(self.labels),
            folders=tuple(map(whole, self.folders)),
            pack=whole(self.pack),
            out=whole(self.out),
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)


def read_recipe(path: Path | str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path : path
        TOML file.
    changes : sequence of str
        Settings that replace those of the file, such as ``train.steps=1000`` or ``train.minutes=none``.

    Raises
    ------
    ValueError
        If it is no TOML, or a table, a key or a value is not known; the message names it and the known ones.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML ({error}); correct it") from error
    if unknown := sorted(set(content) - {"model", "train", "data"}):
        raise ValueError(f"{path} has the unknown table {unknown[0]!r}; a recipe knows [model], [train] and [data]")
    try:
        written = config_from_dict(Recipe, content)
        recipe = config_from_dict(Recipe, with_changes(content, changes))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    # What is said on the command line is relative to where it is said.
    whole = written.data.at(path.parent)
    kept = {
        name: getattr(whole, name)
        for name in ("images", "labels", "folders", "pack", "out")
        if getattr(recipe.data, name) == getattr(written.data, name)
    }
    return replace(recipe, data=replace(recipe.data, **kept))


def on_data(recipe: Recipe, data: Path | None, out: Path | None) -> Recipe:
    """A recipe on other data, a pack or a folder with images/ and labels/, and with another place for the model."""
    if data is not None:
        chosen = {"folders": (str(data),)} if data.is_dir() else {"pack": str(data)}
        kept = replace(recipe.data, images="", labels="", folders=(), pack="")
        recipe = replace(recipe, data=replace(kept, **chosen))
    return recipe if out is None else replace(recipe, data=replace(recipe.data, out=str(out)))


def with_changes(content: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Plain settings with some replaced by texts such as ``loss.scale=0.05``.

    Raises
    ------
    ValueError
        If a text has no ``=``, or goes through something that holds no settings.
    """
    result: dict[str, Any] = {k: with_changes(v, ()) if isinstance(v, Mapping) else v for k, v in content.items()}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"--set takes NAME=VALUE such as loss.scale=0.05, got {change!r}")
        try:
            value = None if text == "none" else tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # quotes around a text are for TOML, not for a shell
        *way, last = name.strip().split(".")
        table = result
        for part in way:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ValueError(f"--set {change}: {part!r} holds no settings")
        table[last] = value
    return result


def write_pack(path: Path, pack: ObjectPack, sets: Sequence[str]) -> None:
    """Write packed objects and the names of their data sets, by number, as one safetensors file."""
    write_tensors(path, pack._asdict(), {"sets": json.dumps(list(sets))})


def read_pack(path: Path | str) -> tuple[ObjectPack, tuple[str, ...]]:
    """Packed objects and the names of their data sets; none in files from before names were kept.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no packed objects.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; give one that training/pack.py wrote")
    try:
        with safe_open(str(path), "pt") as file:
            absent = set(no_records(0)) - set(file.keys())  # in packs from before recorded prompts
            parts = {name: file.get_tensor(name) for name in ObjectPack._fields if name not in absent}
            parts = {**no_records(len(parts["group"])), **parts}
            about = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} holds no packed objects ({error}); write it with training/pack.py") from error
    return ObjectPack(**parts), tuple(json.loads(about.get("sets", "[]")))


def read_objects(data: DataConfig, seed: int = 0, reach: float = REACH) -> tuple[ObjectPack, tuple[str, ...]]:
    """The objects of a recipe, and the names of their data sets.

    Parameters
    ----------
    data : DataConfig
        Where they are.
    seed : int
        Of the choice of objects.
    reach : float
        See `pack_objects`; what is packed already stays as it is.

    Raises
    ------
    FileNotFoundError
        If files are missing.
    ValueError
        If there is nothing to train on, or images and labels do not fit.
    """
    if data.pack:
        return read_pack(data.pack)
    sources: dict[str, Iterable[Sample]] = {Path(folder).name: read_folder(folder) for folder in data.folders}
    if data.images:
        sources = {Path(data.images).stem: read_pairs(data.images, data.labels)}
    if not sources:
        raise ValueError("the recipe names no data; give images and labels, folders or a pack in its table [data]")
    if len(sources) < len(data.folders):
        raise ValueError(f"two of the folders {', '.join(data.folders)} have one name; rename one")
    packs: list[ObjectPack] = []
    for number, (name, planes) in enumerate(sources.items()):
        samples = check_images(s for s in planes if object_ids(s.labels, _MIN_AREA))
        if not samples:
            raise ValueError(
                f"the labels of {name} hold no object of {_MIN_AREA} pixels or more; label some or leave it out"
            )
        packs.extend(pack_objects(samples, number, data.canvas, data.objects, seed, _MIN_AREA, reach))
    pack = join_packs(packs)
    if len(pack.group) < 2:
        raise ValueError("one labelled object is too little to train on; label at least two, better hundreds")
    return pack, tuple(sources)


def begin_with(network: Delse, parent: Path | str, part: Literal["all", "encoder"] = "all") -> None:
    """Copy a trained model's weights, all of them or the encoder's, into a network.

    Raises
    ------
    ValueError
        If there is no such model, or its weights do not fit.
    """
    state = load_model(parent).model.state_dict()
    if part == "encoder":
        encoder = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
        load_encoder_weights(network, encoder)
        return
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{parent} is another network than the recipe's [model]; take its settings over, or only its encoder "
            'with parent_part = "encoder"'
        ) from error


def train_recipe(
    recipe: Recipe, *, device: torch.device | str = "cpu", world: World | None = None, name: str = ""
) -> Generator[TrainProgress, None, None]:
    """Train a network from the start, or go on where the run in ``data.out`` stopped.

    Parameters
    ----------
    recipe : Recipe
        The run.
    device : torch.device or str
        Where to train.
    world : World, optional
        See `train.fit`.
    name : str
        Of the recipe, for the model card.

    Yields
    ------
    TrainProgress

    Raises
    ------
    ValueError
        If the recipe does not say where the model goes, or its data cannot be trained on.
    """
    if not recipe.data.out:
        raise ValueError("the recipe does not say where the model goes; give --out, or out in its table [data]")
    pack, sets = read_objects(recipe.data, recipe.train.seed, reach_of(recipe.model.crop))
    torch.manual_seed(recipe.train.seed)
    network = Delse(recipe.model)
    if recipe.train.encoder_weights:
        load_encoder_weights(network, read_weights(recipe.train.encoder_weights))
    if recipe.train.parent:
        begin_with(network, recipe.train.parent, recipe.train.parent_part)
    card = {"recipe": name, "sets": list(sets), "objects": len(pack.group)}
    yield from fit(network, pack, recipe.train, recipe.data.out, device=device, sets=sets, card=card, world=world)
