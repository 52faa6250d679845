"""Whole runs of `napari-delse segment` on made-up stacks: their memory, and what remains when they are killed."""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 1024
RADIUS = 24  # pixels


def made_up_stack(folder: Path, planes: int, side: int, objects: int, *, keys: int | None = None) -> tuple[Path, Path]:
    """An OME-Zarr image of disks on a ramp, and coarse labels of them; both take a small part of their size on disk.

    Parameters
    ----------
    folder : Path
        Where.
    planes, side, objects : int
        Number of planes, height and width of a plane, disks in each plane.
    keys : int, optional
        Label each so manieth plane only.
    """
    import zarr

    axes = [{"name": axis, "type": "space"} for axis in "zyx"]
    scale = {"coordinateTransformations": [{"type": "scale", "scale": [1.0] * 3}], "path": "0"}
    paths, arrays = [], []
    for name, dtype in (("image", np.uint16), ("coarse", np.uint16)):
        paths.append(folder / f"{name}.ome.zarr")
        group = zarr.create_group(store=str(paths[-1]), overwrite=True)
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [scale]}]}
        shape, chunks = (planes, side, side), (1, min(CHUNK, side), min(CHUNK, side))
        arrays.append(group.create_array("0", shape=shape, chunks=chunks, dtype=dtype))
    image, labels = arrays
    rng = np.random.default_rng(0)
    places = rng.integers(2 * RADIUS, side - 2 * RADIUS, (objects, 2))
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    disk = y**2 + x**2 <= (RADIUS - 4) ** 2
    ramp = (1000 + np.arange(side) % 512).astype(np.uint16)
    for plane in range(planes):
        for top in range(0, side, CHUNK):
            image[plane, top : top + CHUNK] = np.broadcast_to(ramp, (min(CHUNK, side - top), side))
        for label, (top, left) in enumerate(places, 1):
            window = (slice(top - RADIUS, top + RADIUS + 1), slice(left - RADIUS, left + RADIUS + 1))
            noise = rng.integers(0, 40, disk.shape)
            image[(plane, *window)] = (2000 * disk + 1000 + noise).astype(np.uint16)
            if keys is None or plane % keys == 0 or plane == planes - 1:
                here = labels[(plane, *window)]
                labels[(plane, *window)] = np.where(disk, label, here)
    return paths[0], paths[1]


def command(image: Path, labels: Path, out: Path, way: str, device: str) -> list[str]:
    """The command line of a run."""
    prompts = f"{way}:{labels}"
    run = [sys.executable, "-m", "napari_delse", "segment", str(image), "--prompts", prompts, "--out", str(out)]
    return [*run, "--device", device]


def peak_of(arguments: list[str]) -> tuple[float, float]:
    """MiB of memory that a process took at most, and seconds."""
    start = time.monotonic()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return kilobytes / 1024, time.monotonic() - start


@contextmanager
def folder_of(given: Path | None) -> Iterator[Path]:
    """A folder for the data: the given one, which is kept, or one for this run."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def memory(arguments: argparse.Namespace) -> list[Any]:
    """Peak memory for a stack and for a part of it."""
    side = arguments.side
    many = max(arguments.times, round(arguments.gigabytes * 1e9 / (2 * side * side)))
    results: list[Any] = []
    print("| planes | side | GB | objects | peak MiB | seconds |\n|---|---|---|---|---|---|")
    with folder_of(arguments.folder) as folder:
        for planes in (max(1, many // arguments.times), many):
            keys = arguments.keys if arguments.way == "propagate" else None
            image, labels = made_up_stack(folder, planes, side, arguments.objects, keys=keys)
            out = folder / f"labels{arguments.suffix}"
            shutil.rmtree(out, ignore_errors=True)
            peak, seconds = peak_of(command(image, labels, out, arguments.way, arguments.device))
            row = {"planes": planes, "side": side, "gigabytes": 2 * planes * side * side / 1e9}
            results.append(row | {"objects": planes * arguments.objects, "peak_mib": peak, "seconds": seconds})
            print(
                f"| {planes} | {side} | {row['gigabytes']:.2f} | {planes * arguments.objects} | {peak:.0f} | "
                f"{seconds:.0f} |",
                flush=True,
            )
    print(f"growth over {arguments.times} times the planes: {results[1]['peak_mib'] / results[0]['peak_mib'] - 1:+.1%}")
    return results


def digest(path: Path) -> str:
    """Of all bytes and names of a file or folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    content = hashlib.sha256()
    for file in files:
        content.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return content.hexdigest()


def kill(arguments: argparse.Namespace) -> list[Any]:
    """Kill a run at random moments until it is done, and compare with one that was left alone."""
    side, rng = arguments.side, random.Random(arguments.seed)
    results = []
    with folder_of(arguments.folder) as folder:
        keys = arguments.keys if arguments.way == "propagate" else None
        image, labels = made_up_stack(folder, arguments.planes, side, arguments.objects, keys=keys)
        alone, killed = (folder / f"{name}{arguments.suffix}" for name in ("alone", "killed"))
        for path in (alone, killed):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        _, seconds = peak_of(command(image, labels, alone, arguments.way, arguments.device))
        for number in range(arguments.kills):
            moment = kill_once(command(image, labels, killed, arguments.way, arguments.device), killed, number, rng)
            results.append({"kill": number + 1, "moment": moment, "complete": killed.exists()})
            print(f"killed {moment}; the result is {'complete' if killed.exists() else 'absent'}", flush=True)
            if killed.exists():
                same = digest(killed) == digest(alone)
                print(f"what was there is {'the same' if same else 'ANOTHER'}")
                shutil.rmtree(killed) if killed.is_dir() else killed.unlink()
        _, rest = peak_of(command(image, labels, killed, arguments.way, arguments.device))
        same = digest(killed) == digest(alone)
        left = [p.name for p in folder.iterdir() if p.name.startswith(".")]
        print(f"alone {seconds:.0f} s; after {arguments.kills} kills the rest took {rest:.0f} s")
        print(f"bytes: {'the same' if same else 'DIFFERENT'}; left over: {', '.join(left) or 'nothing'}")
        results.append({"same": same, "left": left, "seconds": seconds, "rest": rest})
        if not same or left:
            raise SystemExit(1)
    return results


def kill_once(arguments: list[str], out: Path, number: int, rng: random.Random) -> str:
    """Start a run and kill it: in turn while it predicts and while it writes the result."""
    work = out.with_name(f".{out.name}.delse")
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before, writes = blocks(work), number % 2 == 1
    more = rng.randint(1, 6)
    while process.poll() is None:
        if writes and any(p.suffix == ".part" for p in out.parent.glob(f".{out.name}.*")):
            break
        if not writes and blocks(work) >= before + more:
            break
        time.sleep(0.002)
    time.sleep(rng.random() * 0.05)
    done = blocks(work)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return f"with {done} blocks done" + (", while the result was written" if writes else "")


def blocks(work: Path) -> int:
    """How many blocks are done."""
    try:
        return sum(file.suffix == ".block" for file in work.iterdir())
    except OSError:
        return 0


def add_commands(commands: Any) -> None:
    """Add ``memory`` and ``kill`` to a command line."""
    for name, run, text in (
        ("memory", memory, "peak memory of a run, for a stack and for a part of it"),
        ("kill", kill, "kill a run at random moments and compare its result"),
    ):
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        command.add_argument("--way", choices=("labels", "propagate"), default="labels", help="refine or propagate")
        command.add_argument("--keys", type=int, default=10, help="to propagate: each so manieth plane is labelled")
        command.add_argument("--objects", type=int, default=2, help="in each plane")
        command.add_argument("--suffix", choices=(".ome.zarr", ".tif", ".ome.tif"), default=".ome.zarr")
        command.add_argument("--device", default="cpu", help="auto, cpu, cuda or mps")
        command.add_argument("--folder", type=Path, help="for the data, which are kept there")
        command.add_argument("--json", type=Path, help="file for the results")
        if name == "memory":
            command.add_argument("--gigabytes", type=float, default=10.0, help="size of the larger stack")
            command.add_argument("--times", type=int, default=10, help="how much larger it is")
            command.add_argument("--side", type=int, default=4096, help="height and width of a plane")
        else:
            command.add_argument("--planes", type=int, default=60)
            command.add_argument("--side", type=int, default=2048, help="height and width of a plane")
            command.add_argument("--kills", type=int, default=6)
            command.add_argument("--seed", type=int, default=0)
