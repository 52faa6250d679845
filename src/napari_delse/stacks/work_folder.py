"""What is done of a result that is not complete yet: a hidden folder beside it, which a later run goes on with."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_delse._filelock import lock
from napari_delse.geometry import ObjectMask
from napari_delse.stacks.planes import BlockKey, FoundObject, Index, Pieces, flat, paint, unflat

Box = tuple[int, int, int, int]

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
    return _Packed(content).objects()


class _Packed:
    """Objects of blocks, each unpacked when it is asked for.

    Parameters
    ----------
    *contents : bytes
        What `encode` made.
    """

    def __init__(self, *contents: bytes) -> None:
        blocks = []
        for content in contents:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                blocks.append({name: stored[name] for name in stored.files})
        blocks = [block for block in blocks if len(block["label"])]
        self._columns = {name: np.concatenate([block[name] for block in blocks]) for name in (blocks or [{}])[0]}
        if not blocks:
            self._origin = self._shape = np.empty((0, 2), np.int64)
            return
        self._origin, self._shape = self._columns["origin"], self._columns["shape"]
        sizes = -(-self._shape.prod(axis=1) // 8)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def __len__(self) -> int:
        return len(self._shape)

    def within(self, box: Box) -> npt.NDArray[np.intp]:
        """Numbers of the objects whose boxes meet (y0, x0, y1, x1), in their order."""
        low, high = np.array(box[:2]), np.array(box[2:])
        return np.flatnonzero(((self._origin < high) & (self._origin + self._shape > low)).all(axis=1))

    def object(self, number: int) -> FoundObject:
        """One object."""
        columns = self._columns
        height, width = self._shape[number].tolist()
        bits = columns["bits"][self._starts[number] : self._starts[number + 1]]
        top, left = self._origin[number].tolist()
        return FoundObject(
            int(columns["label"][number]),
            tuple(columns["index"][number].tolist()),
            ObjectMask(np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool), (top, left)),
            float(columns["confidence"][number]),
            float(columns["milliseconds"][number]),
            str(columns["doubt"][number]),
        )

    def objects(self) -> list[FoundObject]:
        """All of them."""
        return [self.object(number) for number in range(len(self))]


class _Listed:
    """The few objects of a usual plane, unpacked."""

    def __init__(self, objects: Sequence[FoundObject]) -> None:
        self.object = objects.__getitem__
        self._count = len(objects)

    def __len__(self) -> int:
        return self._count

    def within(self, _: Box) -> npt.NDArray[np.intp]:
        """All of them: painting looks where they are."""
        return np.arange(self._count)


_Plane = _Packed | _Listed


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
        try:
            self._begin()
        except BaseException:  # such as a full disk
            self._unlock()
            raise
        return self

    def _begin(self) -> None:
        """Clear away what others have left, and find what is done."""
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
        self._kept: tuple[BlockKey, dict[Index, _Plane]] | None = None

    def __getitem__(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Labels of one plane: a position on each plane axis, and two slices."""
        (y0, y1, _), (x0, x1, _) = (k.indices(n) for k, n in zip(key[-2:], self.shape[-2:], strict=True))
        window = np.zeros((y1 - y0, x1 - x0), self.dtype)
        objects = (one for _, one in self.objects(key[:-2], (y0, x0, y1, x1)))
        paint(window, (y0, x0), objects, overwrite=self.overwrite)
        return window

    def planes(self) -> Iterator[Index]:
        """The planes that have objects."""
        for key in self._keys:
            if key[2] == 0:
                yield from sorted(self._planes(key))

    def count(self, index: Index) -> int:
        """How many objects a plane has."""
        return len(plane) if (plane := self._plane(index)) is not None else 0

    def objects(self, index: Index, box: Box | None = None) -> Iterator[tuple[int, FoundObject]]:
        """The objects of a plane, or near a window of it, in the order they are painted; with their numbers there."""
        if (plane := self._plane(index)) is not None:
            for number in range(len(plane)) if box is None else plane.within(box).tolist():
                yield number, plane.object(number)

    def _plane(self, index: Index) -> _Plane | None:
        plane = flat(index, self._counts)
        place = bisect_right(self._firsts, plane) - 1
        if place < 0 or self._keys[place][1] < plane:
            return None
        return self._planes(self._keys[bisect_right(self._firsts, self._firsts[place] - 1)]).get(index)

    def _planes(self, key: BlockKey) -> dict[Index, _Plane]:
        """The planes of a block, the last ones being kept; of a plane in many blocks it is the first one."""
        if self._kept is None or self._kept[0] != key:
            self._kept = None
            if key[3] > 1:  # packed, all of them are fewer bits than the plane has pixels
                parts = (self._work.read((*key[:2], part, key[3])) for part in range(key[3]))
                self._kept = key, {unflat(key[0], self._counts): _Packed(*parts)}
            else:
                objects: dict[Index, list[FoundObject]] = {}
                for one in self._work.load(key):
                    objects.setdefault(one.index, []).append(one)
                self._kept = key, {index: _Listed(some) for index, some in objects.items()}
        return self._kept[1]
