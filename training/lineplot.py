"""Line plots as pictures: mean and spread of a score against one variable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SCALE = 2  # drawn larger and reduced: smooth lines
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")  # told apart by everybody
MARKERS = ("circle", "square", "diamond", "triangle")
_LEFT, _TOP, _BOTTOM, _KEY = 86, 46, 66, 290  # margins in pixels of the final picture


class Line(NamedTuple):
    """One line: y over x with its spread (NaN for none)."""

    name: str
    y: Sequence[float]
    spread: Sequence[float]


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that span a range."""
    span = max(high - low, 1e-9)
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def draw(
    lines: Sequence[Line],
    x: Sequence[float],
    *,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (1000, 560),
) -> Image.Image:
    """A plot of some lines over common positions.

    Parameters
    ----------
    lines : sequence of Line
        As many values as ``x`` each; NaN values are left out.
    x : sequence of float
        Increasing positions, each marked on the axis.
    title, x_label, y_label : str
        Texts.
    size : (int, int)
        Width and height of the picture.

    Raises
    ------
    ValueError
        If no line has a value.
    """
    ends = [
        v + s * sign for li in lines for v, s in zip(li.y, np.nan_to_num(li.spread), strict=True) for sign in (-1, 1)
    ]
    ends = [v for v in ends if math.isfinite(v)]
    if not ends:
        raise ValueError(f"nothing to plot in {title!r}: no line has a value")
    ticks = nice_ticks(min(ends), max(ends))
    canvas = _Canvas(size, (x[0], x[-1]), (ticks[0], ticks[-1]))
    for tick in ticks:
        canvas.grid_line(tick)
    for position in x:
        canvas.x_tick(position)
    for number, line in enumerate(lines):
        canvas.line(line, x, COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
        canvas.key(number, line.name, COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
    canvas.texts(title, x_label, y_label)
    return canvas.picture.resize(size, Image.Resampling.LANCZOS)


class _Canvas:
    """A picture with axes."""

    def __init__(self, size: tuple[int, int], x: tuple[float, float], y: tuple[float, float]) -> None:
        self.width, self.height = size[0] * SCALE, size[1] * SCALE
        self.picture = Image.new("RGB", (self.width, self.height), "white")
        self.pen = ImageDraw.Draw(self.picture)
        pad = (x[1] - x[0]) * 0.02 or 0.5
        self.x, self.y = (x[0] - pad, x[1] + pad), y
        self.left, self.right = _LEFT * SCALE, self.width - _KEY * SCALE
        self.top, self.bottom = _TOP * SCALE, self.height - _BOTTOM * SCALE

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def text(self, where: tuple[float, float], text: str, anchor: str, size: int = 15, colour: str = "#222222") -> None:
        self.pen.text(where, text, fill=colour, font=ImageFont.load_default(size * SCALE), anchor=anchor)

    def grid_line(self, y: float) -> None:
        _, row = self.at(self.x[0], y)
        self.pen.line([(self.left, row), (self.right, row)], fill="#dddddd", width=SCALE)
        self.text((self.left - 8 * SCALE, row), f"{y:g}", "rm")

    def x_tick(self, x: float) -> None:
        column, _ = self.at(x, self.y[0])
        self.pen.line([(column, self.bottom), (column, self.bottom + 5 * SCALE)], fill="#222222", width=SCALE)
        self.text((column, self.bottom + 9 * SCALE), f"{x:g}", "mt")

    def line(self, line: Line, x: Sequence[float], colour: str, marker: str) -> None:
        places = [(*self.at(a, b), a, b, s) for a, b, s in zip(x, line.y, line.spread, strict=True) if math.isfinite(b)]
        self.pen.line([place[:2] for place in places], fill=colour, width=int(2.5 * SCALE), joint="curve")
        for column, row, a, b, spread in places:
            if math.isfinite(spread):
                self.pen.line([self.at(a, b - spread), self.at(a, b + spread)], fill=colour, width=int(1.5 * SCALE))
            self.marker(column, row, colour, marker)

    def marker(self, x: float, y: float, colour: str, marker: str) -> None:
        r = 5 * SCALE
        if marker == "circle":
            self.pen.ellipse([x - r, y - r, x + r, y + r], fill=colour)
            return
        shapes: dict[str, list[tuple[float, float]]] = {
            "square": [(-r, -r), (r, -r), (r, r), (-r, r)],
            "diamond": [(0, -1.3 * r), (1.3 * r, 0), (0, 1.3 * r), (-1.3 * r, 0)],
            "triangle": [(0, -1.2 * r), (1.1 * r, 0.9 * r), (-1.1 * r, 0.9 * r)],
        }
        self.pen.polygon([(x + dx, y + dy) for dx, dy in shapes[marker]], fill=colour)

    def key(self, number: int, name: str, colour: str, marker: str) -> None:
        row, column = self.top + (14 + 28 * number) * SCALE, self.right + 22 * SCALE
        self.pen.line([(column, row), (column + 34 * SCALE, row)], fill=colour, width=int(2.5 * SCALE))
        self.marker(column + 17 * SCALE, row, colour, marker)
        self.text((column + 44 * SCALE, row), name, "lm")

    def texts(self, title: str, x_label: str, y_label: str) -> None:
        self.pen.line([(self.left, self.bottom), (self.right, self.bottom)], fill="#222222", width=SCALE)
        self.text((self.left, 14 * SCALE), title, "lt", 18)
        self.text(((self.left + self.right) / 2, self.height - 12 * SCALE), x_label, "mb")
        turned = Image.new("L", (self.bottom - self.top, 28 * SCALE), 255)
        pen = ImageDraw.Draw(turned)
        font = ImageFont.load_default(15 * SCALE)
        pen.text((turned.width / 2, turned.height / 2), y_label, fill=34, font=font, anchor="mm")
        self.picture.paste(turned.rotate(90, expand=True), (8 * SCALE, self.top))
