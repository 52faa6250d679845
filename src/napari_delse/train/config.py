"""The settings of a training run, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from napari_delse.settings import check_ranges
from napari_delse.train.crops import AugmentConfig


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and scales of the losses; a weight of 0 leaves a loss out."""

    distance: float = 0.1  # L0 on phi_0, in units of D^2 (the paper: px^2)
    initial: float = 0.25  # mask loss on phi_0 itself
    final: float = 1.0  # LT: mask loss on phi_T
    between: float = 0.0  # mean mask loss on phi_1 .. phi_(T-1)
    overlap: float = 0.5  # soft IoU of phi_T
    direction: float = 0.0  # Ldirect
    drag: float = 0.5  # how far phi_T is from the true distance where a drag ends, in units of scale
    simulated: float = 0.25  # LT from simulated phi_0 = TSDF + dh, until the joint part begins
    scale: float = 1 / 32  # epsilon of the Heaviside, as a fraction of the crop side
    arctan: bool = False  # the paper's arctangent Heaviside instead of the logistic one
    balance: float = 0.5  # class weighting: 1 is the paper's, 0 none
    shift: float = 0.04  # range of the simulated dh, as a fraction of the crop side

    def __post_init__(self) -> None:
        weights = "distance initial final between overlap direction drag simulated shift"
        check_ranges(self, not_negative=weights.split(), above_zero=("scale",), shares=("balance",))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run."""

    encoder_weights: str = ""  # file or address of ImageNet weights for the encoder; none without it
    parent: str = ""  # model to begin with, a name or a folder; none without it
    parent_part: Literal["all", "encoder"] = "all"  # what is taken from the parent
    steps: int = 20_000  # optimiser steps
    minutes: float | None = None  # if given, the schedule runs over this time instead of the steps
    batch_size: int = 16  # objects per step, on all processes together
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd has a momentum of 0.9, as in the paper
    learning_rate: float = 2e-3  # at its highest
    weight_decay: float = 0.02  # of weights, not of biases and norms
    warmup: float = 0.02  # fraction of the run
    schedule: Literal["cosine", "steps"] = "cosine"  # "steps": x 0.3 at each quarter, as in the paper
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.999  # decay of the averaged weights, which are the ones saved
    sizes: tuple[tuple[float, int], ...] = ()  # (from fraction of the run, input side); () is the model's
    joint_from: float = 0.0  # fraction of the run that pre-trains the fields with simulated phi_0
    interactive_from: float = 0.7  # fraction of the run from which corrections are trained; 1 for never
    interactive_share: float = 0.5  # of the steps from then on
    balance: float = 0.5  # objects of a set are drawn with probability ~ count ** balance
    set_weights: Mapping[str, float] = field(default_factory=dict)  # name of a set -> drawn so many times as often
    freeze_norm: bool = False  # keep the batch norms' statistics: for fine-tuning on few images
    precision: Literal["auto", "bf16", "float32"] = "auto"  # auto: bf16 where the hardware has it; phi stays float32
    save_minutes: float = 1.0  # time between checkpoints
    report_seconds: float = 10.0  # time between reports, at which a run can be stopped
    seed: int = 0  # of everything that is drawn
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise ValueError(f"steps must be >= 1 and batch_size >= 2, got {self.steps} and {self.batch_size}")
        check_ranges(
            self,
            above_zero=("minutes", "learning_rate", "clip"),
            not_negative=("weight_decay", "save_minutes", "report_seconds", "seed"),
            shares=("warmup", "ema", "joint_from", "interactive_from", "interactive_share", "balance"),
        )
        starts, sides = [start for start, _ in self.sizes], [side for _, side in self.sizes]
        if starts != sorted(starts) or not all(0 <= start <= 1 for start in starts):
            raise ValueError(f"sizes must begin at rising fractions of the run in [0, 1], got {self.sizes}")
        if wrong_sides := [side for side in sides if side < 32 or side % 32]:
            raise ValueError(f"sizes must be positive multiples of 32 (the encoder's stride), got {wrong_sides[0]}")
        if wrong := {name: value for name, value in self.set_weights.items() if value < 0}:
            raise ValueError(f"set_weights must not be negative, got {wrong}; 0 leaves a set out")


class TrainProgress(NamedTuple):
    """What `fit` yields at every report and every checkpoint."""

    step: int
    fraction: float  # of the run, 0 to 1
    loss: float  # mean since the last one
    parts: dict[str, float]  # the same, by loss
    learning_rate: float
    seconds: float  # spent so far
    remaining: float  # seconds, estimated
    folder: Path  # where the model is
    saved: bool = True  # whether the folder holds the model of this very step
