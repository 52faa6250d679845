"""Train the rows of our tables: the same encoder, data and budget for each, one run per row and seed.

    python training/ours.py PACK.safetensors RUNS --first MODEL [--rows skip-features dextr] [--seeds 0 1 2]

Every row starts from a common encoder, with a fresh neck and fresh heads. That encoder comes from MODEL and first
learns to label pixels as DEXTR does (recipes/ours/encoder.toml): if it favours a row, then the baseline. Rows whose
parent is another run (the drags) start from that run. Finished runs are left alone, unfinished ones go on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from napari_delse.train.recipes import read_recipe, train_recipe

RECIPES = Path(__file__).parent / "recipes" / "ours"
FIRST = "encoder"  # the recipe that makes the common encoder
ORDER = (
    "skip-features",
    "dextr",
    "level-set-regression",
    "motion",
    "modulation",
    "dextr-paper",
    "no-extreme-points",
    "paper-recipe",
    "drags-signed",
    "drags-unsigned",
)


def train_row(row: str, seed: int, pack: Path, runs: Path, device: str, first: str = "") -> None:
    """Train one row with one seed, or go on with it."""
    recipe = read_recipe(RECIPES / f"{row}.toml")
    parent = first or str(runs / recipe.train.parent)
    train = replace(recipe.train, seed=seed, parent=parent)
    data = replace(recipe.data, pack=str(pack), out=str(runs / f"{row}-seed{seed}"))
    recipe = replace(recipe, train=train, data=data)
    for progress in train_recipe(recipe, device=device, name=f"ours/{row}.toml"):
        if progress.saved:
            print(
                f"{row}, seed {seed}: step {progress.step}, loss {progress.loss:.4f}, {progress.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )


def main() -> None:
    """Train rows, each with all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--first", default="default", help="model whose encoder the common encoder starts from")
    parser.add_argument("--rows", nargs="+", default=ORDER, choices=ORDER)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train_row(FIRST, 0, args.pack, args.runs, args.device, args.first)
    for seed in args.seeds:
        for row in args.rows:
            train_row(row, seed, args.pack, args.runs, args.device)


if __name__ == "__main__":
    main()
