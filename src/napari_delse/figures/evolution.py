"""Figures of one prediction: everything between the clicks and the contour, as a picture and as an animation.

As in figure 7 of the paper: image and clicks, motion, modulation, the level set function over the steps, the contour.
All panels show the network's crop in the proportions of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from napari_delse._writing import write_atomically
from napari_delse.figures import panels
from napari_delse.figures.colours import diverging, sequential, wheel
from napari_delse.figures.overlay import BLACK, WHITE, Colour, Drawing
from napari_delse.figures.page import FAINT, INK, Page, text_width
from napari_delse.figures.panels import FloatArray, Shown, Size, panel_size

Bytes = npt.NDArray[np.uint8]
Legend = Callable[[Page, int, int, int], None]  # page, left, top and width of the place below a panel

_MARGIN, _GAP, _HEAD, _TITLE, _LEGEND = 30, 22, 62, 30, 56
_TEXT, _SMALL = 16, 14
_GREY = (0.72, 0.73, 0.76)


class _Tile(NamedTuple):
    """A panel with its title and what explains its colours."""

    title: str
    panel: Drawing
    legend: Legend


def evolution_figure(shown: Shown, title: str, caption: str) -> Bytes:
    """All that led to one mask on one page.

    Parameters
    ----------
    shown : Shown
        Image, prediction and, if it is known, the truth.
    title, caption : str
        Lines above and below.

    Returns
    -------
    uint8 array, shape (Y, X, 3)
    """
    large = panel_size(shown, 310)
    tiles = _tiles(shown, large)
    cell = max(large[1], 236)
    width = max(2 * _MARGIN + len(tiles) * (cell + _GAP) - _GAP, 2 * _MARGIN + round(text_width(caption, _TEXT)))
    states = len(shown.prediction.states)
    chosen = sorted({round(t) for t in np.linspace(0, states - 1, min(states, 6))}) if states > 1 else []
    inner = width - 2 * _MARGIN
    small_cell = (inner + 14) // max(1, len(chosen)) - 14
    small = _fitted(large, small_cell)
    strip = _TITLE + small[0] + _LEGEND if chosen else 0
    height = _HEAD + _TITLE + large[0] + _LEGEND + strip + 46
    page = Page(width, height)
    page.text(_MARGIN, 36, title, 22)
    top = _HEAD
    _row(page, tiles, _spread(width, len(tiles), cell), top, cell)
    top += _TITLE + large[0] + _LEGEND
    if chosen:
        for t, left in zip(chosen, _spread(width, len(chosen), small_cell), strict=True):
            _put(page, f"φ_{t}", panels.phi_panel(shown, shown.phi(t), small), left, top, small_cell)
        _phi_legend(shown)(page, _MARGIN, top + _TITLE + small[0], inner)
        top += _TITLE + small[0] + _LEGEND
    page.text(_MARGIN, top + 18, caption, _TEXT)
    return page.to_bytes()


def evolution_frames(shown: Shown, title: str, substeps: int = 4) -> Iterator[Bytes]:
    """Frames of the evolution: the contour over the image beside phi.

    Parameters
    ----------
    shown : Shown
        Image, prediction and, if it is known, the truth.
    title : str
        Line above.
    substeps : int
        Frames per step of the evolution.

    Yields
    ------
    uint8 array, shape (Y, X, 3)
        All of one shape, from phi_0 to phi_T.
    """
    size = panel_size(shown, 320)
    cell = max(size[1], 200)
    steps = len(shown.prediction.states) - 1
    ground = panels.ground_panel(shown, size)
    for frame in range(steps * substeps + 1):
        t = frame / substeps
        page = Page(2 * _MARGIN + 2 * cell + _GAP, 52 + _TITLE + size[0] + 64)
        page.text(_MARGIN, 30, title, 18)
        lefts = (_MARGIN, _MARGIN + cell + _GAP)
        names = ("Contour and truth" if shown.true_lines else "Contour", "Level set function φ")
        pictures = (panels.contour_panel(shown, t, ground), panels.phi_panel(shown, shown.phi(t), size))
        for name, picture, left in zip(names, pictures, lefts, strict=True):
            _put(page, name, picture, left, 52, cell)
        _clock(page, t, steps, _MARGIN, 52 + _TITLE + size[0] + 34, 2 * cell + _GAP)
        yield page.to_bytes()


def write_picture(path: Path, picture: Bytes) -> None:
    """Write a PNG, complete or not at all."""
    import imageio.v3 as imageio

    write_atomically(path, lambda aside: imageio.imwrite(aside, picture, extension=".png"))


def write_animation(path: Path, frames: Sequence[Bytes], milliseconds: int = 100) -> None:
    """Write an endless GIF that rests on its first and on its last frame.

    Parameters
    ----------
    path : Path
        File to write, complete or not at all.
    frames : sequence of uint8 array, each of shape (Y, X, 3)
        At least one.
    milliseconds : int
        Time of a frame.
    """
    from PIL import Image

    # One palette from both ends: a palette per frame flickers and makes the file larger.
    both = Image.fromarray(np.concatenate([frames[0], frames[-1]]))
    palette = both.quantize(255, method=Image.Quantize.MEDIANCUT)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [900, *[milliseconds] * (len(frames) - 2), 1800][-len(frames) :]
    write_atomically(
        path,
        lambda aside: pictures[0].save(
            aside, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False
        ),
    )


def _tiles(shown: Shown, size: Size) -> list[_Tile]:
    prediction = shown.prediction
    last = len(prediction.states) - 1
    box = prediction.prompt.kind == "box"
    prompt = [("box", _stroke(panels.CLICK, dash=8)) if box else ("clicks", _dot(panels.CLICK))]
    prompt += [("drag", _stroke(panels.DRAG))] if prediction.corrections else []
    lines = [("φ_T" if last else "contour", _stroke(panels.CONTOUR))]
    lines += [("φ_0", _stroke(WHITE, dash=5))] if last else []
    lines += [("truth", _stroke(panels.TRUTH))] if shown.truth is not None else []
    first = _Tile("Image and box" if box else "Image and clicks", panels.image_panel(shown, size), _swatches(prompt))
    final = _Tile(
        "Final contour and truth" if shown.truth is not None else "Final contour",
        panels.contour_panel(shown, last, panels.ground_panel(shown, size)),
        _swatches(lines),
    )
    if not last:
        return [first, _Tile("φ", panels.phi_panel(shown, shown.phi(0), size), _phi_legend(shown)), final]
    return [
        first,
        _Tile("Motion field V", panels.motion_panel(shown, size), _motion_legend(shown.motion_limit)),
        _Tile("Modulation m", panels.modulation_panel(shown, size), _modulation_legend),
        final,
    ]


def _fitted(size: Size, width: int) -> Size:
    """A smaller panel of the same proportions, no wider than its cell."""
    factor = min(1.0, width / size[1])
    return round(size[0] * factor), round(size[1] * factor)


def _spread(width: int, count: int, cell: int) -> list[int]:
    """Left ends of cells over the width of a page."""
    free = width - 2 * _MARGIN - cell
    return [_MARGIN + round(free * i / max(1, count - 1)) for i in range(count)]


def _row(page: Page, tiles: Sequence[_Tile], lefts: Sequence[int], top: int, cell: int) -> None:
    for tile, left in zip(tiles, lefts, strict=True):
        _put(page, tile.title, tile.panel, left, top, cell)
        tile.legend(page, left, top + _TITLE + tile.panel.pixels.shape[0], cell)


def _put(page: Page, title: str, panel: Drawing, left: int, top: int, cell: int) -> None:
    """A panel in the middle of its cell, below its title."""
    page.text(left + cell / 2, top + _TITLE / 2 - 1, title, _TEXT, anchor="middle")
    page.picture(left + (cell - panel.pixels.shape[1]) // 2, top + _TITLE, panel.pixels)


# ---------------------------------------------------------------- legends


def _stroke(colour: Colour, dash: float = 0) -> Drawing:
    swatch = Drawing(np.full((16, 34, 3), 0.45), 1)
    swatch.line([(7.5, x) for x in range(2, 32)], colour, 2.6, dash=dash, halo=4.4)
    return swatch


def _dot(colour: Colour) -> Drawing:
    swatch = Drawing(np.full((16, 22, 3), 0.45), 1)
    swatch.dot((7.5, 10.5), BLACK, 12, 0.8)
    swatch.dot((7.5, 10.5), colour, 8.5)
    return swatch


def _swatches(items: Sequence[tuple[str, Drawing]]) -> Legend:
    def draw(page: Page, left: int, top: int, width: int) -> None:
        spans = [swatch.pixels.shape[1] + 6 + text_width(text, _SMALL) for text, swatch in items]
        x = left + (width - sum(spans) - 16 * (len(items) - 1)) / 2
        for (text, swatch), span in zip(items, spans, strict=True):
            page.picture(round(x), top + 12, swatch.pixels, frame=False)
            page.text(x + swatch.pixels.shape[1] + 6, top + 20, text, _SMALL, FAINT)
            x += span + 16

    return draw


def _motion_legend(limit: float) -> Legend:
    def draw(page: Page, left: int, top: int, width: int) -> None:
        lines = ("colour: direction", f"full: {limit:.2g} px per unit time")
        x = left + (width - 46 - max(text_width(line, _SMALL) for line in lines)) / 2
        page.picture(round(x), top + 7, (wheel(38) - 1) + np.array([252, 252, 250]) / 255, frame=False)
        for i, line in enumerate(lines):
            page.text(x + 46, top + 17 + 18 * i, line, _SMALL, FAINT)

    return draw


def _bar(page: Page, left: float, top: int, colours: FloatArray, ticks: Sequence[str], name: str) -> None:
    """A bar of colours, with ticks below its ends and its middle and a name to its right."""
    width = colours.shape[0]
    page.picture(round(left), top + 11, np.repeat(colours[None], 10, axis=0))
    for i, tick in enumerate(ticks):
        page.text(left + width * i / (len(ticks) - 1), top + 33, tick, _SMALL, FAINT, "middle")
    page.text(left + width + 10, top + 16, name, _SMALL, FAINT)


def _modulation_legend(page: Page, left: int, top: int, width: int) -> None:
    name = "of the curvature"
    x = left + (width - 100 - 10 - text_width(name, _SMALL)) / 2
    _bar(page, x, top, sequential(np.linspace(0, 1, 100)), ("0", "1"), name)


def _phi_legend(shown: Shown) -> Legend:
    def draw(page: Page, left: int, top: int, width: int) -> None:
        limit = shown.phi_limit
        name = "network px" if shown.prediction.config.output == "delse" else "logit"
        x = left + (width - 200 - 10 - text_width(name, _SMALL)) / 2
        ticks = (f"-{limit:.3g} outside", "0", f"inside {limit:.3g}")
        _bar(page, x, top, diverging(np.linspace(-1, 1, 200), 1.0), ticks, name)

    return draw


def _clock(page: Page, t: float, steps: int, left: int, top: int, width: int) -> None:
    """How far the evolution is: a bar with a tick for each step."""
    inner = width - 110
    scale = Drawing(np.ones((24, inner, 3)) * np.array([252, 252, 250]) / 255, 1)
    end = inner - 10.0
    scale.line([(11.5, 8), (11.5, end)], _GREY, 3)
    for step in range(steps + 1):
        scale.dot((11.5, 8 + (end - 8) * step / max(1, steps)), _GREY, 9)
    now = 8 + (end - 8) * t / max(1, steps)
    scale.line([(11.5, 8), (11.5, now + 1e-3)], panels.CONTOUR, 3)
    scale.dot((11.5, now), panels.CONTOUR, 13)
    page.picture(left, top - 12, scale.pixels, frame=False)
    page.text(left + width, top, f"step {t:.1f} of {steps}", _TEXT, INK, "right")
