"""The file format of journals: JSON lines with numbers and checksums, and what they belong to."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from napari_delse.annotation.actions import place_in, step_begin
from napari_delse.annotation.edits import largest_value
from napari_delse.annotation.policy import LabelPolicy
from napari_delse.data.images import ArrayLike

FORMAT = 1
_LINE = re.compile(rb'\{"crc":"([0-9a-f]{8})",')
_SAMPLE = 64  # pixels of each side of a window that is looked at to tell images apart


@dataclass(frozen=True)
class Identity:
    """What an array is recognised by.

    Parameters
    ----------
    name, path : str
        To show; the path may be empty.
    shape : tuple of int
        Of the array.
    dtype : str
        As numpy writes it.
    fingerprint : str
        Of a few pixels.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    path: str = ""
    fingerprint: str = ""

    def is_like(self, other: Identity) -> bool:
        """Whether these are the same pixels, as far as known; they may have been renamed or moved."""
        return (self.shape, self.dtype, self.fingerprint) == (other.shape, other.dtype, other.fingerprint)

    @classmethod
    def of(cls, data: ArrayLike, name: str = "", path: Path | str | None = None) -> Identity:
        """Of an array; three small windows of it are read."""
        shape = tuple(int(n) for n in data.shape)
        largest = sorted(range(len(shape)), key=lambda a: -shape[a])[:2]
        sides = [min(n, _SAMPLE) if axis in largest else 1 for axis, n in enumerate(shape)]
        digest = hashlib.blake2b(digest_size=8)
        for part in range(3):
            starts = [part * (n - side) // 2 for n, side in zip(shape, sides, strict=True)]
            window = data[tuple(slice(s, s + side) for s, side in zip(starts, sides, strict=True))]
            digest.update(np.ascontiguousarray(np.asarray(window)).tobytes())
        return cls(name, shape, np.dtype(data.dtype).str, "" if path is None else str(path), digest.hexdigest())


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a journal belongs to.

    Parameters
    ----------
    image : Identity
        The annotated image.
    shape, dtype : tuple of int, str
        Of the labels; they may have been converted to a wider type since, see `Contents.dtype`.
    blank : bool
        Whether the labels were all 0 at the beginning; then they are made anew from the journal alone.
    largest : int
        Largest label at the beginning.
    policy : LabelPolicy
        At the beginning.
    model, weights : str
        Name of the model, and `weights_hash` of it.
    version, created : str
        Of the package; time in UTC.
    """

    image: Identity
    shape: tuple[int, ...]
    dtype: str
    blank: bool = True
    largest: int = 0
    policy: LabelPolicy = field(default_factory=LabelPolicy)
    model: str = ""
    weights: str = ""
    version: str = ""
    created: str = ""


def weights_hash(model: Path | str) -> str:
    """SHA-256 of the weights in a model's folder; empty if there are none."""
    file = Path(model) / "model.safetensors"
    if not file.is_file():
        return ""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# ---------------------------------------------------------------- lines


def line_of(content: dict[str, Any]) -> bytes:
    """A line that `parsed` takes."""
    body = json.dumps(content, separators=(",", ":")).encode("ascii")
    return b'{"crc":"%08x",' % zlib.crc32(body) + body[1:] + b"\n"


@dataclass(frozen=True)
class Contents:
    """What a journal says.

    Parameters
    ----------
    path : Path
        The file.
    header : Header
        Its first line.
    entries : tuple of dict
        What the recorder was told, in order.
    closed : bool
        Whether the work ended well.
    torn : bool
        Whether an incomplete last line was left out.
    end : int
        Size in bytes of what is whole.
    """

    path: Path
    header: Header
    entries: tuple[dict[str, Any], ...]
    closed: bool
    torn: bool
    end: int

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The widest type that the labels had: a person may convert them while they are worked on."""
        actions = (entry["action"] for entry in self.entries if entry["step"] == "do")
        edits = (edit["dtype"] for action in actions for edit in action.get("pixels", ()))
        return max(map(np.dtype, dict.fromkeys((self.header.dtype, *edits))), key=largest_value)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse labels that this was not written about, or that do not hold what was.

        Raises
        ------
        ValueError
            If the shape differs, or the type is narrower than that of the labels.
        """
        if shape != self.header.shape:
            raise ValueError(
                f"{self.path} belongs to labels of shape {self.header.shape}, not {shape}; give those that it began "
                "with, or open the image that it was made with"
            )
        if not np.can_cast(self.dtype, dtype):
            raise ValueError(
                f"{self.path} belongs to labels of type {self.dtype}, and {dtype} does not hold all of these; convert "
                f"the labels to {self.dtype} first"
            )

    def actual(self) -> Iterator[dict[str, Any]]:
        """The entries that took effect: without those whose labels could not be written."""
        for entry, following in pairwise((*self.entries, {"step": ""})):
            if entry["step"] != "failed" and following["step"] != "failed":
                yield entry


def read(path: Path | str) -> Contents:
    """Read a journal, also one that is being written.

    Raises
    ------
    ValueError
        If it is no journal, or a line other than the last is damaged; the message names it.
    """
    path = Path(path)
    data = path.read_bytes()
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    found = [parsed(line, number) for number, line in enumerate(lines)]
    torn = bool(found) and found[-1] is None
    if torn:
        found.pop()
    if not found:
        raise ValueError(f"{path} is not a journal of napari-delse, or it broke off in its first line")
    if None in found:
        raise ValueError(
            f"{path}, line {found.index(None) + 1}: the line was changed, lost or damaged after it was written; "
            "cut the file before it to get what was done until then"
        )
    first, *entries = (entry for entry in found if entry is not None)
    end = min(len(data), sum(len(line) + 1 for line in lines[: len(found)]))
    closed = bool(entries) and entries[-1]["step"] == "close"
    return Contents(path, header_of(path, first), tuple(entries), closed, torn, end)


def object_count(contents: Contents) -> int:
    """How many objects there are at the end of a journal, without making any of them."""
    labels: set[int] = set()
    for action in _standing(contents):
        labels = labels.difference(o["label"] for o in action.get("removed", ()))
        labels |= {o["label"] for o in action.get("added", ())}
    return len(labels)


def carried_count(contents: Contents) -> int:
    """How many planes runs over many planes have written to by the end of a journal."""
    planes = {
        (tuple(edit["plane"]["axes"]), tuple(edit["plane"]["index"]))
        for action in _standing(contents)
        if action.get("run")
        for edit in action.get("pixels", ())
    }
    return len(planes)


def _standing(contents: Contents) -> list[dict[str, Any]]:
    """The actions of a journal that were not undone, in their order."""
    done: list[dict[str, Any]] = []
    undone: list[dict[str, Any]] = []
    for entry in contents.actual():
        if entry["step"] == "do":
            action = entry["action"]
            run = _run(action)
            if not run or any(_run(one) == run for one in undone):  # else what it leaves is told by what is redone
                undone.clear()
            done.insert(place_in(done, run, _run), action)
        elif entry["step"] in ("undo", "redo"):
            here, there = (done, undone) if entry["step"] == "undo" else (undone, done)
            if not here:  # the session knew of one that was undone before a run went on
                continue
            begin = step_begin(here, _run)
            there += here[begin:][::-1]
            del here[begin:]
    return done


def _run(action: dict[str, Any]) -> str:
    return str(action.get("run", ""))


def parsed(line: bytes, number: int) -> dict[str, Any] | None:
    """What a line says; None if it is not what was written there."""
    found = _LINE.match(line)
    body = b"{" + line[found.end() :].rstrip(b"\r\n") if found else b""
    if found is None or zlib.crc32(body) != int(found[1], 16):
        return None
    entry: dict[str, Any] = json.loads(body)
    return entry if entry.get("n") == number else None


def header_of(path: Path, entry: dict[str, Any]) -> Header:
    """The first line of a journal, checked."""
    if entry.get("step") != "open" or entry.get("format") != FORMAT:
        raise ValueError(f"{path} has journal format {entry.get('format')!r}, expected {FORMAT}; update napari-delse")
    image = {**entry["image"], "shape": tuple(entry["image"]["shape"])}
    rest = {name: entry[name] for name in ("dtype", "blank", "largest", "model", "weights", "version", "created")}
    return Header(image=Identity(**image), shape=tuple(entry["shape"]), policy=LabelPolicy(**entry["policy"]), **rest)
