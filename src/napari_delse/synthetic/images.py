"""Seeded synthetic images with instance labels, for training without any data set.

Each scene imitates one way an object shows itself in a microscope, a scanner or a photograph; random degradations of
the camera follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_components

from napari_delse.synthetic import bodies, cells
from napari_delse.synthetic.camera import degraded, digitised, tinted
from napari_delse.synthetic.shapes import Canvas, Labels, SceneConfig

SCENES: dict[str, Callable[[np.random.Generator, SceneConfig], Canvas]] = {
    **cells.SCENES,
    **bodies.SCENES,
}


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(SceneConfig):
    """What the generator draws; lengths are in pixels."""

    kinds: tuple[str, ...] = field(default_factory=lambda: tuple(SCENES))  # scenes to choose from
    min_area: int = 12  # visible pixels below which an object loses its label
    degradation: float = 1.0  # 0: as rendered; 1: the full range of blur, noise, uneven light, ...
    tint: float = 0.15  # probability that a grey scene comes as an RGB image

    def __post_init__(self) -> None:
        """Refuse values no image could be drawn with."""
        if unknown := set(self.kinds) - set(SCENES):
            raise ValueError(f"unknown kinds {sorted(unknown)}; choose from {sorted(SCENES)}")
        if not self.kinds:
            raise ValueError(f"kinds must name at least one of {sorted(SCENES)}")
        if self.size < 64:
            raise ValueError(f"size must be at least 64 pixels, got {self.size}")
        if not 4 <= self.min_diameter <= self.max_diameter:
            raise ValueError(f"need 4 <= min_diameter <= max_diameter, got {self.min_diameter}, {self.max_diameter}")


def synthetic_image(
    rng: np.random.Generator, config: SyntheticConfig | None = None, kind: str | None = None
) -> tuple[NDArray[Any], Labels]:
    """Draw one image and its instance labels.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of randomness.
    config : SyntheticConfig, optional
        Sizes, scenes and strength of the degradations.
    kind : str, optional
        The scene; one of ``config.kinds`` at random if not given.

    Returns
    -------
    image : ndarray, shape (H, W) or (H, W, 3)
        uint8, uint16 or float32.
    labels : ndarray of uint16, shape (H, W)
        Consecutive instance ids, 0 for background; an id may have several parts and holes.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    config = config or SyntheticConfig()
    kind = kind or str(rng.choice(config.kinds))
    if kind not in SCENES:
        raise ValueError(f"unknown kind {kind!r}; choose from {sorted(SCENES)}")
    canvas = SCENES[kind](rng, config)
    image = canvas.image
    if image.ndim == 2 and rng.random() < config.tint:
        image = tinted(rng, image)
    if config.degradation > 0:
        image = degraded(rng, image, config.degradation)
    return digitised(rng, image), _tidied(canvas.labels, config.min_area)


def synthetic_set(n: int, seed: int, config: SyntheticConfig | None = None) -> Iterator[tuple[NDArray[Any], Labels]]:
    """Yield n images and labels, the kinds in turn.

    Parameters
    ----------
    n : int
        How many.
    seed : int
        Item i depends on the seed and on i alone, not on n.
    config : SyntheticConfig, optional
        Sizes, scenes and strength of the degradations.

    Yields
    ------
    image, labels : ndarray
        As `synthetic_image` returns them.
    """
    config = config or SyntheticConfig()
    for i in range(n):
        yield synthetic_image(np.random.default_rng([seed, i]), config, config.kinds[i % len(config.kinds)])


def _tidied(labels: Labels, min_area: int) -> Labels:
    """Drop crumbs that later shapes left over and objects hardly visible; number the rest from 1."""
    parts = connected_components(labels, connectivity=1)
    areas = np.bincount(parts.ravel())
    whole = np.bincount(labels.ravel())
    kept = np.where(areas[parts] >= np.maximum(4, 0.01 * whole[labels]), labels, 0)
    visible = np.bincount(kept.ravel(), minlength=len(whole)) >= min_area
    visible[0] = False
    return np.asarray((np.cumsum(visible) * visible)[kept], dtype=np.uint16)
