"""Writing a public data set in our layout: images linked, labels made one at a time.

A split is a folder with ``images/``, ``labels/`` (16-bit PNG: 0 background, 65535 ignored) and ``dataset.json``, which
is written last. Where a set has classes, an object's id is ``1000 * class + number``. What an interrupted run left is
kept, so that the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_delse._writing import write_atomically
from napari_delse.checkpoint import write_json
from napari_delse.data.samples import object_ids

Labels = npt.NDArray[np.uint16]
CLASS = 1000  # ids of the objects of class c begin at c * CLASS


class Source(NamedTuple):
    """One image of a public data set and how its labels are made."""

    name: str
    image: Path
    labels: Callable[[], Labels]


class Split(NamedTuple):
    """One side of a data set."""

    sources: Sequence[Source]
    card: dict[str, Any]  # what `dataset.json` shall say besides counts


def read_png(path: Path) -> npt.NDArray[Any]:
    """Numbers of a grey, 16-bit or paletted PNG as they are stored."""
    with Image.open(path) as picture:
        return np.asarray(picture)


def require(folder: Path, what: str, *parts: str) -> None:
    """Raise FileNotFoundError, naming what was expected, unless the folder holds all parts."""
    missing = [part for part in parts if not (folder / part).exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder} is not {what}: expected in it {', '.join(parts)}; missing {', '.join(missing)}"
        )


def read_names(path: Path) -> list[str]:
    """The lines of an image list, without empty ones."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def write_split(out: Path, split: Split) -> Iterator[tuple[int, int]]:
    """Write one split, yielding (done, total) after every image.

    Raises
    ------
    FileNotFoundError
        If the split is empty or an image is missing.
    ValueError
        If an image and its labels differ in size.
    """
    if not split.sources:
        raise FileNotFoundError(f"no image to write into {out}; unpack the data set again")
    objects = 0
    for done, source in enumerate(split.sources, start=1):
        objects += len(object_ids(_write_one(out, source)))
        yield done, len(split.sources)
    counts = {"n_images": len(split.sources), "n_objects": objects}
    write_json(out / "dataset.json", {**split.card, **counts, "label_format": "uint16 ids, 0 background, 65535 ignore"})


def _write_one(out: Path, source: Source) -> npt.NDArray[Any]:
    image = out / "images" / f"{source.name}{source.image.suffix.lower()}"
    path = out / "labels" / f"{source.name}.png"
    if image.exists() and path.exists():
        return read_png(path)
    if not source.image.is_file():
        raise FileNotFoundError(f"{source.image} is missing, but there are labels of it; unpack the images again")
    labels = source.labels()
    with Image.open(source.image) as picture:
        if picture.size != labels.shape[::-1]:
            raise ValueError(
                f"{source.image} is {picture.size[1]} x {picture.size[0]} pixels, its labels are "
                f"{labels.shape[0]} x {labels.shape[1]}; unpack both again"
            )
    write_atomically(path, lambda aside: Image.fromarray(labels).save(aside, format="PNG"))
    write_atomically(image, lambda aside: _link(source.image, aside))
    return labels


def _link(source: Path, target: Path) -> None:
    """The same file under another name where the file system can do that, else a copy."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def arguments(description: str | None, splits: Sequence[str]) -> argparse.ArgumentParser:
    """What every script here is asked: SRC OUT [--split ...]."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SRC", help="the unpacked data set")
    parser.add_argument("out", type=Path, metavar="OUT", help="gets a folder for each split")
    parser.add_argument("--split", nargs="+", choices=splits, default=list(splits), help="all without it")
    return parser


def write_splits(out: Path, splits: Sequence[str], read: Callable[[str], Split]) -> None:
    """Write several splits below a folder and say how far it is; a wrong folder ends in one sentence."""
    try:
        for name in splits:
            for done, total in write_split(out / name, read(name)):
                if done % 100 == 0 or done == total:
                    print(f"{out / name}: {done} of {total} images", file=sys.stderr, flush=True)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
