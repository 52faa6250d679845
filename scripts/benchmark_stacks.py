#!/usr/bin/env python3
"""Measure how fast stacks are labelled.

python scripts/benchmark_stacks.py objects [--device cpu] [--threads N ...] [--batch N ...] [--objects N] [--json FILE]
python scripts/benchmark_stacks.py memory [--gigabytes N] [--way labels|propagate] [--side N] [--json FILE]
python scripts/benchmark_stacks.py kill [--planes N] [--way labels|propagate] [--kills N] [--json FILE]

`objects` counts the objects per second that the model segments one by one and in batches, over the planes of a made-up
stack. The rounds of the ways are interleaved, and the fastest round of each counts: other work on the machine makes
single rounds slower, never faster. On the CPU the time on the processor is given as well. `memory` runs the command
`segment` on a made-up OME-Zarr and on a tenth of it, and says how much memory each took at most. `kill` kills the
command at random moments and starts it again, until it is done, and compares the bytes with those of a run that was
left alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import stack_runs
import torch

from napari_delse.data.images import Plane
from napari_delse.geometry import ExtremePoints
from napari_delse.predict import Item, Predictor

SIDE, RADIUS = 512, 20  # pixels


def made_up_objects(count: int, seed: int = 0) -> list[Item]:
    """Bright disks of several sizes in the planes of a noisy 16-bit stack, eight to a plane."""
    rng = np.random.default_rng(seed)
    stack = rng.normal(300, 20, (-(-count // 8), SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE]
    found: list[tuple[int, ExtremePoints]] = []
    for number in range(count):
        plane, (top, left) = number // 8, rng.integers(60, SIDE - 60, 2).tolist()
        radius = int(rng.integers(RADIUS // 2, 2 * RADIUS))
        stack[plane][(y - top) ** 2 + (x - left) ** 2 <= radius**2] += 400
        clicks = [(top - radius, left), (top, left - radius), (top + radius, left), (top, left + radius)]
        found.append((plane, ExtremePoints.from_clicks(clicks)))
    pixels = stack.clip(0, 65535).astype(np.uint16)
    return [(Plane(pixels, index=(plane,)), prompt, ()) for plane, prompt in found]


def _in_batches(predictor: Predictor, items: Sequence[Item], size: int) -> None:
    for _ in predictor.segment_across(items, batch_size=size):
        pass


def objects_per_second(predictor: Predictor, items: Sequence[Item], sizes: Sequence[int], rounds: int) -> list[Any]:
    """Speeds of one by one (``segment``) and of each batch size."""
    ways: dict[str, Callable[[], Any]] = {"one by one": lambda: [predictor.segment(*item) for item in items]}
    for size in sizes:
        ways[f"batches of {size}"] = partial(_in_batches, predictor, items, size)
    list(predictor.segment_across(items[: max(sizes)], batch_size=max(sizes)))  # kernels are chosen on the first pass
    predictor.warm_up()
    best = {name: (float("inf"), float("inf")) for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            took = (time.perf_counter() - wall, time.process_time() - cpu)
            best[name] = (min(best[name][0], took[0]), min(best[name][1], took[1]))
    alone = best["one by one"]
    return [
        {
            "way": name,
            "threads": torch.get_num_threads(),
            "objects_per_second": len(items) / wall,
            "cpu_ms_per_object": 1000 * cpu / len(items),
            "times_one_by_one": alone[0] / wall,
        }
        for name, (wall, cpu) in best.items()
    ]


def objects(arguments: argparse.Namespace) -> list[Any]:
    """Measure and print a table."""
    items = made_up_objects(arguments.objects)
    results = []
    print("| threads | way | objects/s | CPU ms per object | times one by one |\n|---|---|---|---|---|")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        predictor = Predictor.load(arguments.model, arguments.device)
        for row in objects_per_second(predictor, items, arguments.batch, arguments.rounds):
            row["device"] = str(predictor.device)
            results.append(row)
            print(
                f"| {threads} | {row['way']} | {row['objects_per_second']:.1f} | {row['cpu_ms_per_object']:.1f} | "
                f"{row['times_one_by_one']:.2f} |",
                flush=True,
            )
    return results


def main() -> None:
    """Run from the shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("objects", help="objects per second, one by one and in batches")
    command.add_argument("--model", default="default", help="name or folder of a model")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    command.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()], help="CPU threads")
    command.add_argument("--batch", type=int, nargs="+", default=[4, 16, 32, 64], help="objects per pass")
    command.add_argument("--objects", type=int, default=64, help="objects per round")
    command.add_argument("--rounds", type=int, default=5, help="rounds of each way; the fastest counts")
    command.add_argument("--json", type=Path, help="file for the results")
    command.set_defaults(run=objects)
    stack_runs.add_commands(commands)
    arguments = parser.parse_args()
    results = arguments.run(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
