"""What is done of a result that is not complete yet: a hidden folder beside it, which a later run goes on with."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_delse._filelock import lock
from napari_delse.geometry import ObjectMask
from napari_delse.stacks.planes import BlockKey, FoundObject, Index, Pieces, flat, paint

Box = tuple[int, int, int, int]

_KEPT = 32  # blocks of a plane with very many objects
_END = ".block"


def encoded(pieces: Iterable[Pieces]) -> list[tuple[BlockKey, bytes]]:
    """Finished blocks as `encode` writes them."""
    return [(key, encode(found)) for key, found in pieces]


def encode(found: Sequence[FoundObject]) -> bytes:
    """Objects as bytes that say the same on every machine."""
    masks = [one.mask.mask for one in found]
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        label=np.array([one.label for one in found], np.int64),
        index=np.array([one.index for one in found] or [()], np.int64),
        origin=np.array([one.mask.origin for one in found], np.int64).reshape(-1, 2),
        shape=np.array([mask.shape for mask in masks], np.int64).reshape(-1, 2),
        bits=np.concatenate([np.packbits(mask) for mask in masks] or [np.empty(0, np.uint8)]),
        confidence=np.array([one.confidence for one in found], np.float64),
        milliseconds=np.array([one.milliseconds for one in found], np.float64),
        doubt=np.array([one.doubt for one in found], np.str_),
    )
    return stream.getvalue()


def decode(content: bytes) -> list[FoundObject]:
    """The inverse of `encode`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        columns = {name: stored[name] for name in stored.files}
    found, start = [], 0
    for i, label in enumerate(columns["label"]):
        height, width = (int(n) for n in columns["shape"][i])
        size = -(-height * width // 8)
        bits = np.unpackbits(columns["bits"][start : start + size], count=height * width)
        start += size
        top, left = (int(n) for n in columns["origin"][i])
        found.append(
            FoundObject(
                int(label),
                tuple(int(n) for n in columns["index"][i]),
                ObjectMask(bits.reshape(height, width).astype(bool), (top, left)),
                float(columns["confidence"][i]),
                float(columns["milliseconds"][i]),
                str(columns["doubt"][i]),
            )
        )
    return found


class WorkFolder:
    """Finished blocks of one result, each a file.

    Parameters
    ----------
    out : Path
        The result.
    fingerprint : str
        Of all that the result depends on: blocks of another one are thrown away.

    Raises
    ------
    ValueError
        On entering, if another process makes the same result.
    """

    def __init__(self, out: Path, fingerprint: str) -> None:
        self.out, self.path, self._fingerprint = out, out.with_name(f".{out.name}.delse"), fingerprint
        self.done: set[BlockKey] = set()
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0))
        if not lock(self._lock):
            self._unlock()
            raise ValueError(f"{self.out} is being made by another process; wait for it, or write elsewhere")
        for left in self.out.parent.glob(f".{self.out.name}.*"):  # of runs that were killed while they wrote
            if left.suffix in (".part", ".old"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        about = self.path / "fingerprint"
        same = about.is_file() and about.read_text(encoding="ascii") == self._fingerprint
        for file in list(self.path.iterdir()):
            if file.suffix == _END and same and zipfile.is_zipfile(file):  # else it was cut off by a power cut
                self.done.add(_key(file.stem))
            elif file.name not in ("lock", "fingerprint"):
                file.unlink()
        if not same:
            self._write("fingerprint", self._fingerprint.encode("ascii"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is None:
            return  # removed: what stands there now is of another process
        if self.done:
            self._unlock()
        else:
            self.remove()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write(self, name: str, content: bytes) -> None:
        aside = self.path / f"{name}.part"
        aside.write_bytes(content)
        aside.replace(self.path / name)

    def store(self, key: BlockKey, content: bytes) -> None:
        """Keep a finished block: complete or not at all."""
        self._write(_name(key), content)
        self.done.add(key)

    def read(self, key: BlockKey) -> bytes:
        """A finished block as it was stored."""
        return (self.path / _name(key)).read_bytes()

    def load(self, key: BlockKey) -> list[FoundObject]:
        """The objects of a finished block."""
        return decode(self.read(key))

    def remove(self) -> None:
        """Throw it all away: the result is complete."""
        self.done.clear()
        self._unlock()
        shutil.rmtree(self.path, ignore_errors=True)


def _name(key: BlockKey) -> str:
    return "-".join(str(number) for number in key) + _END


def _key(stem: str) -> BlockKey:
    first, last, part, parts = (int(number) for number in stem.split("-"))
    return first, last, part, parts


class Painted:
    """The label array of finished blocks, painted where it is read.

    Parameters
    ----------
    work : WorkFolder
        With all blocks done.
    counts : tuple of int
        Lengths of the plane axes.
    plane_shape : (int, int)
        (height, width).
    overwrite : bool
        Whether later objects paint over earlier ones.

    Attributes
    ----------
    dtype : dtype
        Of the labels; may be set.
    """

    def __init__(
        self,
        work: WorkFolder,
        counts: tuple[int, ...],
        plane_shape: tuple[int, int],
        *,
        overwrite: bool = False,
    ) -> None:
        self.shape = (*counts, *plane_shape)
        self.dtype: np.dtype[Any] = np.dtype(np.uint32)
        self._work, self._counts, self.overwrite = work, counts, overwrite
        self._keys = sorted(work.done)
        self._firsts = [key[0] for key in self._keys]
        self._kept: OrderedDict[BlockKey, dict[Index, list[FoundObject]]] = OrderedDict()
        self._boxes: dict[BlockKey, Box] = {}  # of the blocks of one plane

    def __getitem__(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Labels of one plane: a position on each plane axis, and two slices."""
        (y0, y1, _), (x0, x1, _) = (k.indices(n) for k, n in zip(key[-2:], self.shape[-2:], strict=True))
        window = np.zeros((y1 - y0, x1 - x0), self.dtype)
        for _, objects in self.blocks(key[:-2], (y0, x0, y1, x1)):
            paint(window, (y0, x0), objects, overwrite=self.overwrite)
        return window

    def planes(self) -> Iterator[Index]:
        """The planes that have objects."""
        for key in self._keys:
            if key[2] == 0:
                yield from sorted(self._block(key))

    def blocks(self, index: Index, box: Box) -> Iterator[tuple[BlockKey, list[FoundObject]]]:
        """The blocks with objects of a plane near a window, and those objects; several if there are very many."""
        plane = flat(index, self._counts)
        place = bisect_right(self._firsts, plane) - 1
        if place < 0 or self._keys[place][1] < plane:
            return
        first = self._firsts[place]
        place = bisect_right(self._firsts, first - 1)
        for key in self._keys[place : place + self._keys[place][3]]:
            far = key in self._boxes and not _meet(self._boxes[key], box)
            if not far and (objects := self._block(key).get(index)):
                yield key, objects

    def _block(self, key: BlockKey) -> dict[Index, list[FoundObject]]:
        if key not in self._kept:
            objects: dict[Index, list[FoundObject]] = {}
            for one in self._work.load(key):
                objects.setdefault(one.index, []).append(one)
            if key[3] > 1:
                if len(self._boxes) >= key[3] and key[0] not in {other[0] for other in self._boxes}:
                    self._boxes.clear()
                self._boxes[key] = _around(objects)
            self._kept[key] = objects
            if len(self._kept) > (_KEPT if key[3] > 1 else 1):
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _around(objects: dict[Index, list[FoundObject]]) -> Box:
    windows = [one.mask.slices for some in objects.values() for one in some]
    return (
        min(rows.start for rows, _ in windows),
        min(columns.start for _, columns in windows),
        max(rows.stop for rows, _ in windows),
        max(columns.stop for _, columns in windows),
    )


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
