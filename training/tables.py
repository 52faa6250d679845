"""Tables of scores: what an index file asks for, the paper's figures beside it, and pages and CSV of the result.

An index is a TOML file with ``[settings]`` and ``[[tables]]``; the keys are the fields of the classes here.
"""

from __future__ import annotations

import csv
import io
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from napari_delse.model import config_from_dict

Figures = Mapping[str, Mapping[tuple[str, str], float]]  # the paper's, per cent, by table, row and column
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    head: str
    measure: str  # see `measures.measure`
    evaluate: Mapping[str, Any] = field(default_factory=dict)  # what it changes in the evaluation of a row
    variant: str = ""  # stands for {variant} in the runs of a row
    paper: str = ""  # heading of the paper's column; the same without it


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: a way of evaluating the runs of a model, one run per seed."""

    title: str
    runs: str = ""  # checkpoint folders NAME and NAME-seed<k>; without it the paper's figures stand alone
    evaluate: Mapping[str, Any] = field(default_factory=dict)  # prompts, jitter, drags, clicks
    paper: str = ""  # title of the paper's row; the same without it


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A line for each row, drawn from some columns."""

    columns: tuple[str, ...]  # heads, in the order of x
    x: tuple[float, ...]
    x_label: str
    y_label: str
    title: str = ""  # the table's without it


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How all tables of an index are evaluated, unless a table says otherwise."""

    data: tuple[str, ...] = ()  # folders below --data; without it all sets of the list
    list: str = ""  # text file beside the index with the images to take; all without it
    max_objects: int | None = None  # per data set
    seed: int = 0  # of the draw of objects and of the noise
    search: bool = True  # search each checkpoint's threshold on the training side
    search_data: tuple[str, ...] = ()  # where; without it on the training side of the same sets
    search_objects: int = 30  # per data set


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of an index."""

    name: str  # of files, and of the paper's table
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    settings: Settings
    plot: Plot | None = None
    paper: str = ""  # the paper's table; that of the same name without it


@dataclass(frozen=True)
class Cell:
    """What one row scored in one column: one value (0..1) per run; none for not run."""

    values: tuple[float, ...]
    paper: float | None = None  # per cent
    asked: bool = True  # False: nothing of ours belongs here

    @property
    def mean(self) -> float:
        """Mean over the runs."""
        return fmean(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over the runs; NaN for fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else math.nan

    def text(self) -> str:
        """Per cent with the spread, and the paper's figure in brackets."""
        own = NOT_RUN if self.asked else ""
        if self.values:
            own = f"{100 * self.mean:.2f}" + ("" if math.isnan(self.spread) else f" ± {100 * self.spread:.2f}")
        return (own if self.paper is None else f"{own} [{self.paper:.2f}]").strip()


Cells = Mapping[tuple[str, str], Cell]  # by row title and column head


def read_index(path: Path) -> list[Table]:
    """The tables of an index file.

    Raises
    ------
    ValueError
        If a key is unknown or missing, or a plot names a column that is not there.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = set(content) - {"settings", "tables"}
    if unknown:
        raise ValueError(f"{path} has unknown parts {sorted(unknown)}; an index knows [settings] and [[tables]]")
    common = content.get("settings", {})
    tables = []
    for number, entry in enumerate(content.get("tables", []), start=1):
        try:
            tables.append(_table(entry, common))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, table {entry.get('name', number)}: {error}") from error
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise ValueError(f"{path} gives two tables the same name among {', '.join(names)}; rename one")
    return tables


def _table(entry: dict[str, Any], common: dict[str, Any]) -> Table:
    parts = dict(entry)
    own = config_from_dict(Settings, {**common, **parts.pop("settings", {})}, "settings.")
    columns = tuple(config_from_dict(Column, c, "columns.") for c in parts.pop("columns", []))
    rows = tuple(config_from_dict(Row, r, "rows.") for r in parts.pop("rows", []))
    plot = config_from_dict(Plot, parts.pop("plot"), "plot.") if "plot" in parts else None
    known = {column.head for column in columns}
    if plot and (not set(plot.columns) <= known or len(plot.columns) != len(plot.x)):
        raise ValueError(f"plot needs one x for each of its columns, and columns among {', '.join(sorted(known))}")
    return Table(**parts, columns=columns, rows=rows, settings=own, plot=plot)


def read_figures(path: Path) -> Figures:
    """The paper's figures.

    Raises
    ------
    ValueError
        If a row has more figures than its table has columns.
    """
    figures = {}
    for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        found: dict[tuple[str, str], float] = {}
        for row, values in table["rows"].items():
            if len(values) > len(table["columns"]):
                raise ValueError(f"{path}: row {row!r} of {name} has more figures than columns; correct it")
            found |= {(row, c): float(v) for c, v in zip(table["columns"], values, strict=False) if v != ""}
        figures[name] = found
    return figures


def paper_figure(table: Table, row: Row, column: Column, figures: Figures) -> float | None:
    """What the paper gives for a cell, if anything."""
    known = figures.get(table.paper or table.name, {})
    return known.get((row.paper or row.title, column.paper or column.head))


def to_text(table: Table, cells: Cells) -> str:
    """A table for the terminal and for Markdown alike."""
    lines = [["", *(column.head for column in table.columns)]]
    lines += [[row.title, *(cells[row.title, column.head].text() for column in table.columns)] for row in table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in (lines[0], rule, *lines[1:])
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def to_csv(tables: Sequence[Table], results: Mapping[str, Cells]) -> str:
    """All cells of all tables, one a line, per cent."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "row", "column", "mean", "spread", "runs", "values", "paper"])

    def number(value: float | None) -> str:
        return "" if value is None or math.isnan(value) else f"{value:.3f}"

    for table in tables:
        for row in table.rows:
            for column in table.columns:
                cell = results[table.name][row.title, column.head]
                values = " ".join(number(100 * v) for v in cell.values)
                means = [number(100 * cell.mean), number(100 * cell.spread)]
                writer.writerow(
                    [table.name, row.title, column.head, *means, len(cell.values), values, number(cell.paper)]
                )
    return text.getvalue()
