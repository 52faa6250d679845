"""A light page with pictures and text, for figures.

Pillow's own font has no Greek letter: ``φ`` is drawn as an o with a stroke, and what
follows as in ``φ_0`` is lowered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Anchor = Literal["left", "middle", "right"]
Colour = tuple[int, int, int]
GROUND: Colour = (252, 252, 250)
INK: Colour = (35, 38, 46)
FAINT: Colour = (104, 110, 122)


@lru_cache(maxsize=16)
def _font(size: float) -> ImageFont.FreeTypeFont:
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


def _parts(text: str, size: float) -> Iterator[tuple[str, float, float]]:
    """Pieces of a text with their size and how far they are lowered."""
    for letter, index, rest in re.findall(r"(φ)(?:_(\w+))?|([^φ]+)", text):
        yield letter or rest, size, 0.0
        if index:
            yield index, 0.72 * size, 0.22 * size


def text_width(text: str, size: float) -> float:
    """Pixels that a line of text takes."""
    return sum(_font(s).getlength("o" if piece == "φ" else piece) for piece, s, _ in _parts(text, size))


class Page:
    """A page; positions are (x, y) in pixels from its upper left corner.

    Parameters
    ----------
    width, height : int
        In pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width, height), GROUND)
        self._draw = ImageDraw.Draw(self._image)

    def to_bytes(self) -> npt.NDArray[np.uint8]:
        """The picture, (Y, X, 3)."""
        return np.asarray(self._image)

    def text(self, x: float, y: float, text: str, size: float, colour: Colour = INK, anchor: Anchor = "left") -> None:
        """A line of text whose middle height is y."""
        x -= {"left": 0.0, "middle": 0.5, "right": 1.0}[anchor] * text_width(text, size)
        base = y + 0.36 * size
        for piece, points, lowered in _parts(text, size):
            font = _font(points)
            shown = "o" if piece == "φ" else piece
            self._draw.text((x, base + lowered), shown, colour, font, anchor="ls")
            if piece == "φ":
                box = font.getbbox("o", anchor="ls")
                middle, thick = x + (box[0] + box[2]) / 2 - 0.5, max(1, round(points / 13))
                ends = (base + 0.24 * points, base - 0.78 * points)
                self._draw.line([(middle, ends[0]), (middle, ends[1])], colour, thick)
            x += font.getlength(shown)

    def picture(self, x: int, y: int, pixels: npt.NDArray[Any], *, frame: bool = True) -> None:
        """A picture (Y, X, 3), floats in [0, 1] or bytes, with a hairline around it."""
        shown = pixels if pixels.dtype == np.uint8 else np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
        if frame:
            height, width = shown.shape[:2]
            self._draw.rectangle((x - 1, y - 1, x + width, y + height), outline=(196, 199, 206))
        self._image.paste(Image.fromarray(shown), (x, y))
