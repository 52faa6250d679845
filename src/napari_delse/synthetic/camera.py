"""The camera of the synthetic images: light, optics, sensor and file, each a degradation of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_delse.synthetic.shapes import Field, log_uniform, smooth


def _over(plane: Field, image: Field) -> Field:
    return plane[..., None] if image.ndim == 3 else plane


def tinted(rng: np.random.Generator, image: Field) -> Field:
    """Grey image as RGB: plain, or in the colour of a fluorescent dye on a background of another."""
    if rng.random() < 0.4:
        return np.repeat(image[..., None], 3, -1)
    dark, bright = rng.uniform(0, 0.15, 3), rng.uniform(0.1, 1, 3)
    return np.asarray(dark + image[..., None] * (bright / bright.max()), dtype=np.float32)


def _uneven_light(rng: np.random.Generator, image: Field, strength: float) -> Field:
    light = np.exp(strength * rng.uniform(0.05, 0.4) * smooth(rng, image.shape[0], image.shape[0] / 1.5))
    return np.asarray(image * _over(light, image), dtype=np.float32)


def _gamma(rng: np.random.Generator, image: Field, strength: float) -> Field:
    low, high = float(image.min()), float(image.max())
    power = np.exp(strength * rng.uniform(-0.6, 0.6))
    return np.asarray(((image - low) / (high - low + 1e-6)) ** power, dtype=np.float32)


def _inverted(_: np.random.Generator, image: Field, _strength: float) -> Field:
    return image if image.ndim == 3 else np.asarray(image.max() + image.min() - image)


def _blurred(rng: np.random.Generator, image: Field, strength: float) -> Field:
    sigma = strength * log_uniform(rng, 0.4, 2.2)
    return np.asarray(ndimage.gaussian_filter(image, (sigma, sigma, 0)[: image.ndim]))


def _speckled(rng: np.random.Generator, image: Field, strength: float) -> Field:
    grain = smooth(rng, image.shape[0], rng.uniform(0.8, 2))
    return image * _over(np.clip(1 + strength * rng.uniform(0.05, 0.35) * grain, 0, None), image)


def _camera_noise(rng: np.random.Generator, image: Field, strength: float) -> Field:
    photons = log_uniform(rng, 20, 3000) / strength
    shot = np.sqrt(np.clip(image, 0, None) / photons) * rng.standard_normal(image.shape, dtype=np.float32)
    read = strength * log_uniform(rng, 0.003, 0.06) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image + shot + read, dtype=np.float32)


def _hot_pixels(rng: np.random.Generator, image: Field, _strength: float) -> Field:
    image = image.copy()
    y, x = rng.integers(0, image.shape[0], (2, int(rng.integers(1, 40))))
    image[y, x] = image.max() * rng.uniform(0.8, 1.2)
    return image


def _saturated(rng: np.random.Generator, image: Field, strength: float) -> Field:
    low, high = np.quantile(image, [strength * rng.uniform(0, 0.1), 1 - strength * rng.uniform(0.002, 0.06)])
    return np.clip(image, low, max(high, low + 1e-3))


def _jpeg(rng: np.random.Generator, image: Field, strength: float) -> Field:
    """Quantise the cosine coefficients of 8 x 8 blocks, the high ones more coarsely."""
    high, wide = (n - n % 8 for n in image.shape[:2])
    blocks = image[:high, :wide].reshape(high // 8, 8, wide // 8, 8, *image.shape[2:])
    k = np.arange(8, dtype=np.float32)
    step = strength * log_uniform(rng, 0.01, 0.06) * (1 + k[:, None] + k)
    step = step.reshape(1, 8, 1, 8, *(1,) * (image.ndim - 2))
    waves = np.rint(fft.dctn(blocks, axes=(1, 3), norm="ortho") / step) * step
    out = image.copy()
    out[:high, :wide] = fft.idctn(waves, axes=(1, 3), norm="ortho").reshape(high, wide, *image.shape[2:])
    return out


# in the order in which light meets specimen, optics, sensor and file
_DEGRADATIONS: tuple[tuple[float, Callable[[np.random.Generator, Field, float], Field]], ...] = (
    (0.20, _inverted),
    (0.35, _uneven_light),
    (0.15, _speckled),
    (0.55, _blurred),
    (0.75, _camera_noise),
    (0.30, _gamma),
    (0.05, _hot_pixels),
    (0.15, _saturated),
    (0.15, _jpeg),
)


def degraded(rng: np.random.Generator, image: Field, strength: float) -> Field:
    """The image after a random few of the degradations; a strength of 1 is their full range."""
    for probability, step in _DEGRADATIONS:
        if rng.random() < probability:
            image = step(rng, image, strength)
    return image


def digitised(rng: np.random.Generator, image: Field) -> NDArray[Any]:
    """As a file would hold it: 8 bit, 16 bit on some offset with few or many grey levels, or float of any range."""
    low, high = (float(v) for v in np.quantile(image, [0.001, 0.999]))
    unit = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    choice = rng.random()
    if choice < 0.6 or (image.ndim == 3 and choice < 0.9):
        bottom, top = (0, 255) if rng.random() < 0.6 else (rng.uniform(0, 90), rng.uniform(140, 255))
        return np.asarray(np.rint(bottom + unit * (top - bottom)), dtype=np.uint8)
    if choice < 0.85:
        span, offset = log_uniform(rng, 60, 60000), rng.uniform(0, 1000)
        return np.asarray(np.rint(np.minimum(offset + unit * span, 65535)), dtype=np.uint16)
    scale, shift = log_uniform(rng, 0.01, 1000), float(rng.normal()) * (rng.random() < 0.5)
    return np.asarray((unit + shift) * scale, dtype=np.float32)
