"""Pack data sets and synthetic images into one file of training objects.

python training/pack.py DATA_FOLDER OUT.safetensors [--synthetic 900] [--limit 2500] [--seed 0]
python training/pack.py DATA_FOLDER OUT.safetensors --sets voc/train --limit 0 --synthetic 0 --canvas 640 --reach 50
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from napari_delse.data.images import Plane
from napari_delse.data.samples import Sample, group_of, read_folder, validation_groups
from napari_delse.synthetic.images import synthetic_set
from napari_delse.train.crops import ObjectPack, join_packs, pack_objects
from napari_delse.train.recipes import write_pack

SETS = tomllib.loads((Path(__file__).parent / "sets.toml").read_text(encoding="utf-8"))


def split(folder: Path, *, validation: bool) -> Iterator[Sample]:
    """Planes of one side of a set; whole groups (subjects, fields, series) are on one side.

    What `training/prepare` wrote is split already: there all is of the training side.
    """
    if is_prepared(folder):
        return iter(()) if validation else read_folder(folder)
    rule = SETS["sets"].get(folder.name, {})
    samples = list(read_folder(folder))
    groups = [_group(sample, rule) for sample in samples]
    held_out = validation_groups(folder.name, groups, SETS["validation"])
    return (s for s, group in zip(samples, groups, strict=True) if (group in held_out) == validation)


def is_prepared(folder: Path) -> bool:
    """Whether a folder is one side of a public data set, written by `training/prepare`."""
    card = folder / "dataset.json"
    return card.is_file() and "split" in json.loads(card.read_text(encoding="utf-8"))


def _group(sample: Sample, rule: dict[str, Any]) -> str:
    if "block" in rule:
        return f"{sample.name}/{sample.plane // rule['block']}"
    return group_of(sample.name, rule.get("group"))


def synthetic_samples(count: int, seed: int) -> Iterator[Sample]:
    """Synthetic images as samples."""
    for i, (image, labels) in enumerate(synthetic_set(count, seed)):
        yield Sample(f"synthetic-{i}", 0, Plane.of(image), labels.astype(np.uint16))


def main() -> None:
    """Pack the training side of every set that may feed shipped weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="*", default=[n for n, s in SETS["sets"].items() if s.get("ship")])
    parser.add_argument("--synthetic", type=int, default=900)
    parser.add_argument("--limit", type=int, default=2500, help="objects per set, about; 0 for all")
    parser.add_argument("--canvas", type=int, default=256)
    parser.add_argument("--reach", type=float, default=8.0, help="pixels kept around an object at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="write the names of the held-out images instead")
    args = parser.parse_args()
    if args.list:
        files = [n for n in args.sets if "block" not in SETS["sets"][n]]
        held_out = {f"{n}/{s.name}": None for n in files for s in split(args.data / n, validation=True)}
        args.out.write_text("\n".join(held_out) + "\n", encoding="utf-8")
        return
    packs: list[ObjectPack] = []
    for number, name in enumerate([*args.sets, "synthetic"]):
        if name == "synthetic":
            samples = synthetic_samples(args.synthetic, args.seed)
            limit = 3 * args.limit
        else:
            samples, limit = split(args.data / name, validation=False), args.limit
        before = sum(len(p.group) for p in packs)
        packs.extend(pack_objects(samples, number, args.canvas, limit or None, args.seed, reach=args.reach))
        print(f"{name}: {sum(len(p.group) for p in packs) - before} objects", file=sys.stderr, flush=True)
    write_pack(args.out, join_packs(packs), [*args.sets, "synthetic"])


if __name__ == "__main__":
    main()
