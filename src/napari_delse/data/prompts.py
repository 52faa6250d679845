"""Prompt tables: clicks, boxes and drags of many objects as CSV.

Two layouts are read. The one that napari saves from a Points layer, ``index,axis-0,axis-1,...``, where every four
rows are the extreme points of one object; objects are numbered from 1, or as a column ``label`` says. And our own,
``label,kind,axis-0,...,to-0,...``, with one row per point: ``extreme`` (two or more boundary clicks), ``box`` (two or
more corners) or ``drag`` (from ``axis-*`` to ``to-*``). Rows of one label in one plane are one object.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from napari_delse._writing import aside
from napari_delse.geometry import Correction, ExtremePoints, Point

KINDS = ("extreme", "box", "drag")
MAX_LABEL = 2**32 - 1
_LAYOUTS = (
    "expected index,axis-0,axis-1,... as napari saves a Points layer, or label,kind,axis-0,axis-1,...,to-0,to-1,..."
)


def check_values(labels: Iterable[int], where: str) -> None:
    """Refuse what cannot be labels.

    Raises
    ------
    ValueError
        Names where it was found.
    """
    for value in labels:
        if not 0 <= value <= MAX_LABEL:
            raise ValueError(f"{where} holds the label {value}, but labels lie in 0..{MAX_LABEL}; number them anew")


@dataclass(frozen=True)
class ObjectPrompt:
    """What was clicked for one object in one plane.

    Parameters
    ----------
    label : int
        Its id in the label image, 1 or more.
    index : tuple of int
        Position of its plane on the axes before y and x; empty for a 2D image.
    prompt : ExtremePoints
        Clicks or box.
    corrections : tuple of Correction
        Drags in the order they were made.
    """

    label: int
    index: tuple[int, ...]
    prompt: ExtremePoints
    corrections: tuple[Correction, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.label <= MAX_LABEL:
            raise ValueError(f"a label must lie in 1..{MAX_LABEL} (0 is the background), got {self.label}")
        object.__setattr__(self, "index", tuple(int(i) for i in self.index))
        object.__setattr__(self, "corrections", tuple(self.corrections))


@dataclass(frozen=True)
class _Row:
    """One parsed row and where it stands in the file."""

    path: Path
    line: int
    cells: dict[str, str]

    def fail(self, rule: str) -> NoReturn:
        raise ValueError(f"{self.path}, row {self.line}: {rule}")

    def integer(self, column: str) -> int:
        value = self.number(column)
        if value != int(value):
            self.fail(f"{column} must be a whole number, got {self.cells[column]!r}; correct it")
        return int(value)

    def number(self, column: str) -> float:
        text = (self.cells.get(column) or "").strip()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self.fail(f"{column} must be a finite number, got {text!r}; correct or remove the row")
        return value

    def position(self, columns: Sequence[str]) -> tuple[tuple[int, ...], Point]:
        """Plane and (y, x)."""
        *plane, y, x = (self.number(column) for column in columns)
        return tuple(math.floor(p + 0.5) for p in plane), (y, x)


def read_prompts(path: Path | str) -> list[ObjectPrompt]:
    """Read a prompt table in either layout.

    Parameters
    ----------
    path : path
        CSV file.

    Returns
    -------
    list of ObjectPrompt
        In the order of their first rows; all with an index of one length.

    Raises
    ------
    ValueError
        If a row breaks a rule; the message names file, row, rule and remedy.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = csv.reader(text.splitlines(), strict=True)
        header = [cell.strip() for cell in next(lines, [])]
        rows = [
            _checked(_Row(path, lines.line_num, dict(zip(header, cells, strict=False))), header, cells)
            for cells in lines
            if any(cell.strip() for cell in cells)
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV table ({error}); {_LAYOUTS}") from error
    axes = _numbered(header, "axis")
    ours = {"label", "kind"} <= set(header)
    if len(axes) < 2 or not (ours or "index" in header) or "shape-type" in header or len(set(header)) < len(header):
        raise ValueError(f"{path} has the columns {','.join(header) or '(none)'}; {_LAYOUTS}")
    if not rows:
        raise ValueError(f"{path} has no rows below its header; save at least one object")
    return _from_table(rows, axes, _numbered(header, "to")) if ours else _from_points(path, rows, axes)


def _checked(row: _Row, header: Sequence[str], cells: Sequence[str]) -> _Row:
    if len(cells) > len(header):
        row.fail(f"{len(cells)} values stand below {len(header)} column names; remove what is too much")
    return row


def _numbered(header: Sequence[str], stem: str) -> list[str]:
    """stem-0, stem-1, ... as far as they go."""
    names = [f"{stem}-{i}" for i in range(len(header))]
    return [name for i, name in enumerate(names) if all(n in header for n in names[: i + 1])]


def _from_points(path: Path, rows: list[_Row], axes: list[str]) -> list[ObjectPrompt]:
    """napari's Points layer: every four rows one object."""
    if len(rows) % 4:
        raise ValueError(
            f"{path}, row {rows[len(rows) // 4 * 4].line}: every four rows are one object, but {len(rows)} rows leave "
            f"{len(rows) % 4} over; add the missing clicks or remove those of the unfinished object"
        )
    numbered = all((row.cells.get("label") or "").strip().removesuffix(".0").isdigit() for row in rows)
    objects: dict[tuple[int, tuple[int, ...]], ObjectPrompt] = {}
    for i in range(0, len(rows), 4):
        group = rows[i : i + 4]
        labels = [row.integer("label") if numbered else i // 4 + 1 for row in group]
        places = [row.position(axes) for row in group]
        for row, label, (index, _) in zip(group, labels, places, strict=True):
            if index != places[0][0]:
                row.fail(
                    f"the clicks of one object must lie in one plane, got {index} after {places[0][0]}; every four "
                    "rows are one object: is a click missing above?"
                )
            if label != labels[0]:
                row.fail(f"every four rows are one object, but label {label} follows {labels[0]}; sort the rows")
        key = (labels[0], places[0][0])
        if key in objects:
            group[0].fail(f"label {labels[0]} has four clicks in this plane already; give it another label")
        objects[key] = _built(group[0], *key, "extreme", [point for _, point in places], [])
    return list(objects.values())


def _from_table(rows: list[_Row], axes: list[str], ends: list[str]) -> list[ObjectPrompt]:
    """Our own layout: one row per click, corner or drag."""
    groups: dict[tuple[int, tuple[int, ...]], list[tuple[_Row, str, Point]]] = {}
    drags: dict[tuple[int, tuple[int, ...]], list[tuple[_Row, Correction]]] = {}
    for row in rows:
        kind = row.cells["kind"].strip() if row.cells.get("kind") else ""
        if kind not in KINDS:
            row.fail(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        label = row.integer("label")
        index, point = row.position(axes)
        if kind != "drag":
            groups.setdefault((label, index), []).append((row, kind, point))
            continue
        if len(ends) != len(axes):
            row.fail(f"a drag needs one column to-* per axis-*, {len(axes)} of them, but {len(ends)} exist; add them")
        end_index, end = row.position(ends)
        if end_index != index:
            row.fail(f"a drag must stay in its plane {index}, but ends in {end_index}; correct axis-* or to-*")
        try:
            drags.setdefault((label, index), []).append((row, Correction(point, end)))
        except ValueError as error:
            row.fail(str(error))
    objects = []
    for (label, index), group in groups.items():
        kinds = {kind for _, kind, _ in group}
        if len(kinds) > 1:
            group[-1][0].fail(f"label {label} has both clicks and a box in one plane; keep one of them")
        corrections = [drag for _, drag in drags.pop((label, index), [])]
        objects.append(_built(group[0][0], label, index, kinds.pop(), [point for _, _, point in group], corrections))
    for (label, index), left in drags.items():
        where = f" in plane {index}" if index else ""
        left[0][0].fail(f"a drag needs an object, but label {label} has no clicks or box{where}; add them")
    return objects


def _built(
    row: _Row, label: int, index: tuple[int, ...], kind: str, points: list[Point], corrections: list[Correction]
) -> ObjectPrompt:
    try:
        prompt = ExtremePoints.from_box(points) if kind == "box" else ExtremePoints.from_clicks(points)
        return ObjectPrompt(label, index, prompt, tuple(corrections))
    except ValueError as error:
        row.fail(str(error))


def write_prompts(path: Path | str, objects: Iterable[ObjectPrompt]) -> None:
    """Write a table in our own layout, complete or not at all.

    Parameters
    ----------
    path : path
        CSV file; replaced if it exists.
    objects : iterable of ObjectPrompt
        With an index of one length. `read_prompts` gives the same back.

    Raises
    ------
    ValueError
        If the objects lie in images of different dimensions, or two of one label in one plane.
    """
    path, listed = Path(path), list(objects)
    lengths = {len(one.index) for one in listed} or {0}
    if len(lengths) > 1:
        raise ValueError(f"objects of one table must have the same axes, got plane positions of lengths {lengths}")
    keys = [(one.label, one.index) for one in listed]
    if repeated := [key for key, times in Counter(keys).items() if times > 1]:
        raise ValueError(f"label {repeated[0][0]} stands twice in plane {repeated[0][1]}; give one another label")
    axes = range(lengths.pop() + 2)
    with aside(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "kind", *(f"axis-{i}" for i in axes), *(f"to-{i}" for i in axes)])
        for one in listed:
            writer.writerows(_rows(one))


def _rows(one: ObjectPrompt) -> Iterator[list[str | int]]:
    def cells(point: Point) -> list[str]:
        return [*map(str, one.index), *(repr(float(v)).removesuffix(".0") for v in point)]

    for point in one.prompt.points:
        yield [one.label, one.prompt.kind, *cells(point), *[""] * (len(one.index) + 2)]
    for drag in one.corrections:
        yield [one.label, "drag", *cells(drag.start), *cells(drag.end)]
