"""How objects are carried, and between which planes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PropagationConfig:
    """How objects are carried from plane to plane.

    Notes
    -----
    Chosen with the default model on few objects of stacks other than those reported (``training/propagation_study.py``;
    8 to 72 objects in planes each). Mean IoU between two key planes, in this order hippocampus_mri, ctc_fluo_hela,
    ctc_phc_psc: the model shown the box of what was carried 0.470, 0.798, 0.623, its extreme points 0.412, 0.765,
    0.616; two rounds instead of one 0.486 for 0.478 and 0.811 for 0.785 in the first two. Objects of one key plane
    only, in hippocampus_mri: ending them half-way 0.354, at the other key plane 0.290, of all objects. No threshold on
    the confidence ended them better than none, so it is low.

    The trust, and what counts as staying, tried once, by no script that is kept, on 399 objects in planes, one round;
    mean of ten cells (four sets, a key plane every 2 to 10): the odds of being alike alone 0.746, a trust of 2 for all
    0.748, the odds times those of the model missing the key planes' objects 0.763, and with objects that stay
    interpolated in place 0.769. The last is the best or within 0.01 of it in every cell but one (hippocampus_mri, every
    third: 0.776, interpolation 0.793).
    """

    rounds: int = 2  # predictions per object and plane: from the carried shape, then from the answer itself
    settled: float = 0.97  # IoU of two rounds from which the answer counts as settled
    reach: float = 1.5  # how far an object may be from where it is expected next, as a share of its longer side
    caution: float = 0.8  # correlation that a deviation by the whole reach must gain
    # Weight of the carried shape beside phi, times the odds of the key planes' shapes being alike, times those of the
    # model missing the object in the key planes, where the truth is known.
    trust: float = 6.0
    trust_alone: float = 1.0  # weight of a shape that comes from one key plane only
    staying: float = 0.7  # overlap of the key planes' shapes, as a share of their alikeness, of what does not move
    agreement: float = 0.4  # IoU of the shapes from both sides below which a plane is marked for review
    lifetime: float = 0.5  # share of a gap after which an object ends that the other key plane does not show
    min_confidence: float = 0.4  # an object that comes from one key plane only ends below
    min_share: float = 0.15  # the same, below this share of its area in the key plane
    review_below: float = 0.6  # confidence below which a plane is marked for review
    batch_size: int | None = None  # objects per network pass; by default what suits the device

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")
        for name in ("settled", "staying", "agreement", "lifetime", "min_confidence", "min_share", "review_below"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("reach", "caution", "trust", "trust_alone"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more and finite, got {getattr(self, name)}")


@dataclass(frozen=True)
class Gap:
    """Planes without labels, first..last, and the key planes beside them (None at an end of the stack)."""

    first: int
    last: int
    before: int | None
    after: int | None

    @property
    def planes(self) -> range:
        """Its planes."""
        return range(self.first, self.last + 1)

    @property
    def ends(self) -> tuple[int, int]:
        """Both key planes, of a gap that has them."""
        assert self.before is not None
        assert self.after is not None
        return self.before, self.after
