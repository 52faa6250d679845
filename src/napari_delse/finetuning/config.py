"""Fine-tuning on a person's own labelled images: its settings, and when a model is better.

A labelled object is one training example: with its clicks, only its own pixels are inside, and all else in its crop is
outside *of it*, labelled or not. So unlabelled neighbours never become examples of background, and planes without a
label teach nothing: labelling only some objects of some planes does no harm. `training/results/finetuning.md` tells
how the defaults were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_delse.finetuning.held_out import ScoredObjects
from napari_delse.settings import check_ranges
from napari_delse.train import LossConfig, TrainConfig
from napari_delse.train.crops import AugmentConfig

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "2 minutes": {"minutes": 2.0},
    "10 minutes": {"minutes": 10.0},
    "until it stops improving": {"minutes": 60.0, "patience": 8},
}
"""Settings by the time that a person has."""

_DRAWS = 2000  # of the bootstrap
_LEAST_GAIN = 0.001  # of mean IoU; less would be reported as nothing


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """A fine-tuning run; what is not here is as in `TrainConfig`."""

    minutes: float = 5.0  # time to train, at most; stopping earlier keeps the best model so far
    patience: int | None = None  # stop after so many checkpoints that were not better; none trains to the end
    steps: int | None = None  # exactly so many steps instead of minutes, for repeatable runs
    validation: float = 0.25  # share of the objects held out, by planes or images
    objects: int = 1000  # objects trained on, at most
    score_objects: int = 40  # held-out objects scored at every checkpoint, at most
    learning_rate: float = 1e-3  # at its highest
    batch_size: int = 8  # objects per step
    size: int | None = 128  # input side of the new model, at most its parent's; 160 draws large objects finer, slower
    replay: float = 0.0  # share of the examples that are synthetic, against forgetting what the parent knew
    freeze_norm: bool = True  # keep the parent's batch norm statistics
    interactive_share: float = 0.25  # share of steps that train corrections
    seed: int = 0  # of everything that is drawn
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        check_ranges(
            self, above_zero=("minutes", "learning_rate"), not_negative=("seed",), shares=("interactive_share",)
        )
        if not 0 < self.validation < 1:
            raise ValueError(
                f"validation must be a share in (0, 1) of the objects, such as 0.25, got {self.validation:g}"
            )
        if self.size is not None and (self.size < 32 or self.size % 32):
            raise ValueError(f"size must be a positive multiple of 32, such as 128 or 160, got {self.size}")
        if not 0 <= self.replay < 1:
            raise ValueError(f"replay must be a share in [0, 1) of the examples, such as 0.25, got {self.replay:g}")
        least_of = {"patience": 1, "steps": 1, "objects": 1, "score_objects": 1, "batch_size": 2}
        for name, least in least_of.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")


def train_config(config: FineTuneConfig, batch_size: int | None = None) -> TrainConfig:
    """The training run of a fine-tuning, with a smaller batch where memory is short."""
    return TrainConfig(
        minutes=None if config.steps else config.minutes,
        steps=config.steps or 1,
        batch_size=batch_size or config.batch_size,
        learning_rate=config.learning_rate,
        warmup=0.1,
        ema=0.99,
        joint_from=0.0,
        interactive_from=0.0,
        interactive_share=config.interactive_share,
        balance=0.0,
        set_weights={"synthetic": config.replay / (1 - config.replay)},  # own objects count 1, however many
        freeze_norm=config.freeze_norm,
        save_minutes=min(1.0, config.minutes / 8),
        report_seconds=2.0,
        seed=config.seed,
        loss=config.loss,
        augment=config.augment,
    )


def better(before: ScoredObjects, now: ScoredObjects) -> bool:
    """Whether a model is to be kept instead of another one, from their scores on the same objects."""
    return now.mean_iou - before.mean_iou >= _LEAST_GAIN


@dataclass(frozen=True)
class Gain:
    """What became of the held-out objects, in IoU.

    Parameters
    ----------
    mean, sd : float
        Of the difference after - before over the objects.
    low, high : float
        95 % interval of the mean difference, by bootstrap.
    improved, worsened : int
        Objects that gained or lost at least one point.
    objects : int
        All of them.
    """

    mean: float
    sd: float
    low: float
    high: float
    improved: int
    worsened: int
    objects: int

    @classmethod
    def between(cls, before: ScoredObjects, after: ScoredObjects, seed: int = 0) -> Gain:
        """From the scores of the same objects before and after."""
        change = np.subtract(after.iou, before.iou)
        count = len(change)
        drawn = np.random.default_rng(seed).integers(0, count, size=(_DRAWS, count))
        low, high = np.percentile(change[drawn].mean(axis=1), (2.5, 97.5))
        spread = float(change.std(ddof=1)) if count > 1 else 0.0
        gained, lost = int((change >= 0.01).sum()), int((change <= -0.01).sum())
        return cls(float(change.mean()), spread, float(low), float(high), gained, lost, count)
