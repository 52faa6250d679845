"""Colour maps of figures: phi, motion and modulation as colours on a light ground."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Outside blue, inside orange, the contour in between nearly white: told apart by colour-blind people too.
_DIVERGING = (
    (-1.0, (0.13, 0.25, 0.50)),
    (-0.5, (0.40, 0.58, 0.80)),
    (0.0, (0.97, 0.97, 0.96)),
    (0.5, (0.95, 0.65, 0.38)),
    (1.0, (0.67, 0.26, 0.07)),
)
_SEQUENTIAL = (
    (0.0, (0.98, 0.98, 0.97)),
    (0.35, (0.75, 0.87, 0.80)),
    (0.7, (0.24, 0.60, 0.53)),
    (1.0, (0.03, 0.27, 0.29)),
)
# Opponent hues every 60 degrees of nearly one lightness, so that no direction looks stronger than another.
_WHEEL = (
    (0.83, 0.24, 0.31),
    (0.85, 0.55, 0.10),
    (0.52, 0.62, 0.10),
    (0.05, 0.62, 0.56),
    (0.20, 0.46, 0.80),
    (0.62, 0.32, 0.73),
)


def _mapped(values: npt.NDArray[Any], anchors: tuple[tuple[float, tuple[float, float, float]], ...]) -> FloatArray:
    places = [place for place, _ in anchors]
    colours = np.array([colour for _, colour in anchors])
    return np.stack([np.interp(values, places, colours[:, i]) for i in range(3)], axis=-1)


def diverging(values: npt.NDArray[Any], limit: float) -> FloatArray:
    """Colours, shape (..., 3), of numbers between -limit (blue), 0 (white) and limit (orange)."""
    return _mapped(np.asarray(values) / limit, _DIVERGING)


def sequential(values: npt.NDArray[Any]) -> FloatArray:
    """Colours, shape (..., 3), of numbers between 0 (white) and 1 (dark green)."""
    return _mapped(np.asarray(values), _SEQUENTIAL)


def directions(vectors: npt.NDArray[Any], limit: float) -> FloatArray:
    """Colours of vectors: the hue is the direction, white is 0 and full colour is ``limit`` long.

    Parameters
    ----------
    vectors : array, shape (2, ...)
        (y, x) components.
    limit : float
        Length of full colour; longer vectors look the same.

    Returns
    -------
    float64 array, shape (..., 3)
    """
    y, x = np.asarray(vectors, dtype=np.float64)
    turn = np.arctan2(y, x) / (2 * np.pi) % 1 * len(_WHEEL)
    wheel = np.array([*_WHEEL, _WHEEL[0]])
    hue = np.stack([np.interp(turn, np.arange(len(wheel)), wheel[:, i]) for i in range(3)], axis=-1)
    strength = np.clip(np.hypot(y, x) / limit, 0, 1)[..., None]
    coloured: FloatArray = 0.985 * (1 - strength) + hue * strength
    return coloured


def wheel(size: int) -> FloatArray:
    """The legend of `directions`: a disk of ``size`` pixels, shape (size, size, 3), with soft edges on white."""
    offsets = (np.arange(size) - (size - 1) / 2) / (size / 2)
    vectors = np.stack(np.meshgrid(offsets, offsets, indexing="ij"))
    cover = np.clip((1 - np.hypot(*vectors)) * size / 2, 0, 1)[..., None]
    disk: FloatArray = directions(vectors, 1.0) * cover + (1 - cover)
    return disk
