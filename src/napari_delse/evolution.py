"""Settings of the level set evolution: how phi moves, which phi is inside, and how far a person may turn them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

Setting = Literal["steps", "dt", "curvature", "mu", "threshold"]

MAX_TIME = 8.0  # T * dt from which on the explicit evolution was seen to diverge
MAX_MU_DT = 0.24  # the diffusion limit is 0.25, which must not be reached
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class EvolutionConfig:
    """Level set evolution (eq. 9 of the paper); saved in the checkpoint."""

    steps: int = 5  # T, number of explicit Euler steps
    dt: float = 1.0  # time step
    curvature: float = 1.0  # lambda, weight of the modulated curvature term
    mu: float = 0.04  # weight of the distance regularisation

    def __post_init__(self) -> None:
        if self.steps not in range(10**6) or self.dt <= 0:
            raise ValueError(f"steps must be a whole number >= 0 and dt > 0, got {self.steps} and {self.dt:g}")
        if not 0 <= self.mu * self.dt < 0.25:
            raise ValueError(
                f"mu*dt must lie in [0, 0.25) (explicit diffusion limit), got {self.mu * self.dt:g}; lower mu or dt"
            )
        if not 0 <= self.curvature * self.dt <= 1:
            raise ValueError(f"curvature*dt must lie in [0, 1], got {self.curvature * self.dt:g}; lower one of them")


@dataclass(frozen=True, kw_only=True)
class EvolutionSettings(EvolutionConfig):
    """An evolution and the threshold on its end, as a person sets them for an object.

    Raises
    ------
    ValueError
        If one of them is out of its range. How far they go together without diverging tells `most`.
    """

    threshold: float = 0.0  # phi_T above this is inside, network pixels

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.threshold):
            raise ValueError(f"the threshold must be a finite number of network pixels, got {self.threshold}")

    @classmethod
    def of(cls, evolution: EvolutionConfig, threshold: float) -> EvolutionSettings:
        """Those of a model."""
        return cls(
            steps=evolution.steps,
            dt=evolution.dt,
            curvature=evolution.curvature,
            mu=evolution.mu,
            threshold=threshold,
        )

    @property
    def config(self) -> EvolutionConfig:
        """The evolution without the threshold."""
        return EvolutionConfig(steps=self.steps, dt=self.dt, curvature=self.curvature, mu=self.mu)

    def most(self, name: Setting) -> float:
        """The largest value of one setting that keeps the evolution stable while the others stay.

        Stable is T dt <= 8, mu dt < 0.25 and lambda dt <= 1; infinity for the threshold.
        """
        if name == "steps":
            return float(math.floor(MAX_TIME / self.dt + _ROUNDING))
        if name == "dt":
            limits = ((MAX_TIME, self.steps), (1.0, self.curvature), (MAX_MU_DT, self.mu))
            return min(limit / rate if rate > 0 else math.inf for limit, rate in limits)
        return {"curvature": 1.0, "mu": MAX_MU_DT}.get(name, math.inf) / self.dt

    def turned(self, name: Setting, value: float) -> EvolutionSettings:
        """With one setting changed, as far as the evolution stays stable; what is beyond that already stays."""
        present = getattr(self, name)
        value = min(value, max(self.most(name), present))
        changed: dict[str, Any] = {name: round(value) if name == "steps" else value}
        return replace(self, **changed)
