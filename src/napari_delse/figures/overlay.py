"""Pictures of masks over an image: antialiased strokes by their distance to each pixel."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_delse.geometry import ObjectMask

FloatArray = npt.NDArray[np.float64]
Colour = tuple[float, float, float]
WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)


def object_colour(number: int) -> Colour:
    """A bright colour; neighbours in the sequence lie far apart."""
    return colorsys.hls_to_rgb((0.09 + 0.618034 * number) % 1.0, 0.6, 0.95)


def stretched(image: npt.NDArray[Any], low: float = 0.5, high: float = 99.8) -> FloatArray:
    """Grey (Y, X) or colour (Y, X, 3) pixels in [0, 1], cut at two percentiles."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    bottom, top = np.percentile(values, [low, high])
    result: FloatArray = np.clip((values - bottom) / max(top - bottom, 1e-12), 0, 1)
    return result


class Drawing:
    """A picture to draw on; positions are (y, x) in pixels of what it shows.

    Parameters
    ----------
    pixels : float array, shape (Y, X, 3)
        The picture, in [0, 1]; drawn over in place.
    scale : float or (float, float)
        Picture pixels per pixel of what it shows, along y and x if they differ.
    """

    def __init__(self, pixels: FloatArray, scale: float | tuple[float, float] | FloatArray) -> None:
        self.pixels = pixels
        self._scale = np.asarray(scale, dtype=np.float64)

    def copy(self) -> Drawing:
        """The same picture, drawn on without changing this one."""
        return Drawing(self.pixels.copy(), self._scale)

    def _place(self, points: npt.ArrayLike) -> FloatArray:
        placed: FloatArray = (np.asarray(points, dtype=np.float64) + 0.5) * self._scale - 0.5
        return placed

    def to_bytes(self) -> npt.NDArray[np.uint8]:
        """The picture, (Y, X, 3)."""
        return np.round(self.pixels * 255).astype(np.uint8)

    def line(
        self,
        points: npt.ArrayLike,
        colour: Colour,
        width: float,
        opacity: float = 1.0,
        dash: float = 0,
        halo: float = 0,
    ) -> None:
        """Stroke a line through points, on a dark halo; widths and dashes in canvas pixels."""
        path = self._place(points)
        travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        # Contours come with several points per canvas pixel: a third as many look the same.
        kept = np.unique(np.append(np.searchsorted(travelled, np.arange(0, travelled[-1], 2.0)), len(path) - 1))
        path, travelled = path[kept], travelled[kept]
        segments = [
            (a, b)
            for a, b, way in zip(path[:-1], path[1:], travelled[:-1], strict=True)
            if not dash or int(way / dash) % 2 == 0
        ]
        self._stroke(segments, colour, width, opacity, halo)

    def dot(self, point: npt.ArrayLike, colour: Colour, width: float, opacity: float = 1.0) -> None:
        """A disk of a width in canvas pixels."""
        place = self._place(point)
        self._stroke([(place, place)], colour, width, opacity)

    def arrow(self, start: npt.ArrayLike, end: npt.ArrayLike, colour: Colour, width: float, halo: float = 0) -> None:
        """An arrow that ends at a point, on a dark halo."""
        a, b = (self._place(p) for p in (start, end))
        way = b - a
        length = float(np.linalg.norm(way))
        back = -way / max(length, 1e-9) * min(4.5 * width, 0.6 * length)
        turn = np.array([[0.82, -0.57], [0.57, 0.82]])
        self._stroke([(a, b), (b, b + back @ turn), (b, b + back @ turn.T)], colour, width, 1.0, halo)

    def _stroke(
        self,
        segments: list[tuple[FloatArray, FloatArray]],
        colour: Colour,
        width: float,
        opacity: float,
        halo: float = 0,
    ) -> None:
        """Paint all pixels within half a width of some segments once, with soft edges."""
        if not segments:
            return
        reach = max(width, halo) / 2 + 1
        ends = np.array(segments).reshape(-1, 2)
        limit = np.array(self.pixels.shape[:2])
        low = np.clip(np.floor(ends.min(axis=0) - reach).astype(int), 0, limit)
        high = np.clip(np.ceil(ends.max(axis=0) + reach).astype(int) + 1, 0, limit)
        if (high <= low).any():
            return
        distance = np.full(tuple(high - low), np.inf)
        rows, columns = np.arange(low[0], high[0])[:, None], np.arange(low[1], high[1])
        for (ay, ax), (by, bx) in segments:
            y0, y1 = max(0, int(min(ay, by) - reach - low[0])), max(0, int(max(ay, by) + reach - low[0]) + 2)
            x0, x1 = max(0, int(min(ax, bx) - reach - low[1])), max(0, int(max(ax, bx) + reach - low[1]) + 2)
            dy, dx, wy, wx = rows[y0:y1] - ay, columns[x0:x1] - ax, by - ay, bx - ax
            along = np.clip((dy * wy + dx * wx) / max(wy * wy + wx * wx, 1e-12), 0, 1)
            part = distance[y0:y1, x0:x1]
            np.minimum(part, np.hypot(dy - along * wy, dx - along * wx), out=part)
        window = self.pixels[low[0] : high[0], low[1] : high[1]]
        for paint, wide, cover in ((BLACK, halo, 0.4), (colour, width, opacity)):
            if wide:
                alpha = np.clip(wide / 2 + 0.5 - distance, 0, 1)[..., None] * cover
                window[...] = window * (1 - alpha) + np.asarray(paint) * alpha


class Canvas(Drawing):
    """An enlarged image to draw on; positions are (y, x) in pixels of the image.

    Parameters
    ----------
    image : array, shape (Y, X) or (Y, X, 3)
        Background; its contrast is stretched.
    scale : int
        Canvas pixels per image pixel.
    """

    def __init__(self, image: npt.NDArray[Any], scale: int) -> None:
        from skimage.transform import resize

        background = stretched(image)
        size = (background.shape[0] * scale, background.shape[1] * scale, *background.shape[2:])
        enlarged = np.clip(resize(background, size, order=3, mode="edge"), 0, 1) * 0.92
        self.scale = scale
        super().__init__(np.repeat(enlarged[..., None], 3, axis=2) if enlarged.ndim == 2 else enlarged, scale)

    def fill(self, mask: ObjectMask, colour: Colour, opacity: float) -> None:
        """Tint the pixels of a mask."""
        block = np.kron(mask.mask, np.ones((self.scale, self.scale), dtype=bool))
        y, x = (o * self.scale for o in mask.origin)
        window = self.pixels[y : y + block.shape[0], x : x + block.shape[1]]
        window[block] = window[block] * (1 - opacity) + np.asarray(colour) * opacity


def mosaic(pictures: list[npt.NDArray[np.uint8]], columns: int, gap: int = 6) -> npt.NDArray[np.uint8]:
    """Pictures of one size in rows on a dark ground."""
    height, width = pictures[0].shape[:2]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    board = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 24, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        board[y : y + height, x : x + width] = picture
    return board
