"""What the commands of ``napari-delse`` share."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

T = TypeVar("T")


class Command(TyperCommand):
    """A command whose ``--json`` without a file means standard output."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_json(args))


class Group(TyperGroup):
    """A group of commands, the same."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_json(args))


def _with_json(args: list[str]) -> list[str]:
    parts: list[str] = []
    for i, part in enumerate(args):
        parts.append(part)
        following = args[i + 1] if i + 1 < len(args) else "--"
        if part == "--json" and following != "-" and following.startswith("-"):
            parts.append("-")
    return parts


Model = Annotated[str, typer.Option("--model", "-m", help="Name of a model, or its folder.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps ...")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="OUT", help="Write the result as JSON; '-' is standard output.")
]
Channels = Annotated[str | None, typer.Option("--channels", help="One to three channels to look at, such as 0 or 2,1.")]
Axes = Annotated[
    str | None, typer.Option("--axes", help="Names of the image's axes, such as ZYX, TCYX or YXS (colours).")
]


def sentence_of(error: Exception) -> str | None:
    """What a person needs to know about an error; None for those that are ours."""
    if hasattr(error, "format_message"):  # click's, wherever typer keeps them
        text = error.format_message() + " (see --help)"
    elif isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, (ValueError, OSError, ImportError, RuntimeError, MemoryError, ArithmeticError)):
        text = str(error) or type(error).__name__
    else:
        return None
    return " ".join(text.split())


def refuse(why: str, options: Mapping[str, object]) -> None:
    """Refuse options that do not go together, by their names; None and False are those that were not given.

    Raises
    ------
    ValueError
        The message is "``why``, so OPTIONS do not go with it; leave them out".
    """
    given = [name for name, value in options.items() if value is not None and value is not False]
    if given:
        do, them = ("does", "it") if len(given) == 1 else ("do", "them")
        raise ValueError(f"{why}, so {' and '.join(given)} {do} not go with it; leave {them} out")


def channels_of(text: str | None) -> tuple[int, ...]:
    """Channel numbers with commas between; none for an option that was not given."""
    return numbers_of("--channels", text) or ()


def numbers_of(option: str, text: str | None) -> tuple[int, ...] | None:
    """Numbers with commas between; None for an option that was not given."""
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} must be numbers from 0 with commas between, such as 0,2, got {text!r}") from None


def progress(steps: Iterable[T], total: int | None, describe: Callable[[T], tuple[int, str]]) -> Iterator[T]:
    """Pass the steps on, with a line on stderr if a person looks at it."""
    watched, start, shown = sys.stderr.isatty(), time.monotonic(), 0.0
    for step in steps:
        yield step
        now = time.monotonic()
        if watched and now - shown > 0.2:
            count, text = describe(step)
            of = f" of {total}" if total else ""
            print(f"\r\x1b[K{count}{of} {text}, {now - start:.0f} s", end="", file=sys.stderr, flush=True)
            shown = now
    if watched and shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text: the first to the left, of the others those of numbers to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i and _is_number_column(rows, i) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _is_number_column(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(not row[column] or row[column][0].isdigit() for row in rows)


def check_json(out: str | None) -> None:
    """Refuse an impossible file before the work and not after it."""
    if out not in (None, "-"):
        path = Path(out)
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        if path.is_dir() or not existing.is_dir():
            raise ValueError(f"--json {out} cannot be written as a file; name a file such as result.json")
        if not os.access(existing, os.W_OK):
            raise ValueError(f"--json {out} cannot be written, as {existing} is read-only; choose another folder")


def report(json_out: str | None, content: dict[str, Any], lines: Sequence[str]) -> None:
    """Text on stdout, unless the JSON goes there."""
    if json_out == "-":
        print(json.dumps(content, indent=1))
        return
    print("\n".join(lines))
    if json_out is not None:
        from napari_delse.checkpoint import write_json

        write_json(Path(json_out), content)
