"""Train one recipe on a file of packed objects, with a given number of threads.

    python training/run.py training/recipes/default.toml PACK.safetensors OUT_FOLDER [--threads 2] [--device cpu]

Started again on the same folder it goes on where it stopped. It is `napari-delse train RECIPE PACK --out OUT_FOLDER`;
`torchrun --nproc-per-node 2 training/run.py ...` trains on two processes.
"""

from __future__ import annotations

import argparse

import torch

from napari_delse import cli


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("pack")
    parser.add_argument("out")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="such as train.seed=2")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    changes = [part for change in args.set for part in ("--set", change)]
    cli.main(["train", args.recipe, args.pack, "--out", args.out, "--device", args.device, *changes])


if __name__ == "__main__":
    main()
