"""Train one recipe on a file of packed objects.

    python training/run.py training/recipes/default.toml PACK.safetensors OUT_FOLDER [--threads 2] [--device cpu]

Started again on the same folder it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

import torch
from safetensors.torch import load_file

from napari_delse.checkpoint import read_weights
from napari_delse.crops import ObjectPack
from napari_delse.model import Delse, ModelConfig, config_from_dict, load_encoder_weights
from napari_delse.train import TrainConfig, fit


def read_recipe(path: Path) -> tuple[ModelConfig, TrainConfig]:
    """The configs of a recipe; unknown keys are refused by name."""
    recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = set(recipe) - {"model", "train"}
    if unknown:
        raise ValueError(f"{path} has unknown tables {sorted(unknown)}; a recipe knows [model] and [train]")
    return config_from_dict(ModelConfig, recipe.get("model", {})), config_from_dict(
        TrainConfig, recipe.get("train", {})
    )


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model, train = read_recipe(args.recipe)
    torch.manual_seed(train.seed)
    pack = ObjectPack(**load_file(args.pack))
    card = {"recipe": args.recipe.name, "objects": len(pack.group)}
    network = Delse(model)
    if train.encoder_weights:
        load_encoder_weights(network, read_weights(train.encoder_weights))
    for progress in fit(network, pack, train, args.out, device=args.device, card=card):
        parts = ", ".join(f"{name} {value:.4f}" for name, value in progress.parts.items())
        print(
            f"step {progress.step}, {progress.fraction:.1%}, loss {progress.loss:.4f} ({parts}), "
            f"{progress.seconds / 60:.1f} min, {progress.remaining / 60:.1f} min left",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    main()
