"""What the model makes of a shape that was carried to a plane."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from napari_delse.data.images import Plane
from napari_delse.geometry import Correction, Crop, ExtremePoints, ObjectMask
from napari_delse.metrics import mask_iou
from napari_delse.predict import mask_from_phi
from napari_delse.propagation.config import PropagationConfig
from napari_delse.propagation.shapes import signed_distance


class Outlined(Protocol):
    """What a prediction must offer; `napari_delse.predict.Prediction` is one."""

    @property
    def states(self) -> Sequence[npt.NDArray[np.float32]]: ...
    @property
    def threshold(self) -> float: ...
    @property
    def crop(self) -> Crop: ...
    @property
    def confidence(self) -> float: ...


class AcrossSegmenter(Protocol):
    """What propagation asks of a predictor; `napari_delse.predict.Predictor` is one."""

    def segment_across(
        self,
        items: Iterable[tuple[Plane, ExtremePoints, Sequence[Correction]]],
        batch_size: int | None = None,
        /,
    ) -> Iterator[Outlined]: ...


@dataclass(frozen=True, eq=False)
class Job:
    """An object to outline where a shape was carried to."""

    plane: int
    label: int
    prior: ObjectMask
    trust: float
    box: bool  # whether the model sees the shape's box or its extreme points
    doubt: str = ""


def outline(
    predictor: AcrossSegmenter, planes: Sequence[Plane], jobs: Sequence[Job], config: PropagationConfig
) -> list[tuple[ObjectMask, float]]:
    """Masks and confidences, each from its carried shape, then from the answer itself until it settles."""
    answers = [(job.prior, 0.0) for job in jobs]
    waiting = [i for i, job in enumerate(jobs) if job.prior.area]
    for _ in range(config.rounds):
        items = [(planes[jobs[i].plane], prompt_of(answers[i][0], box=jobs[i].box), ()) for i in waiting]
        unsettled = []
        for i, prediction in zip(waiting, predictor.segment_across(items, config.batch_size), strict=True):
            mask = _fused(prediction, jobs[i], planes[jobs[i].plane].shape)
            if mask.area and mask_iou(mask, answers[i][0]) < config.settled:
                unsettled.append(i)
            answers[i] = mask, float(prediction.confidence)
        waiting = unsettled
    return answers


def prompt_of(mask: ObjectMask, *, box: bool) -> ExtremePoints:
    """The box or the extreme points of a mask in its plane."""
    prompt = ExtremePoints.from_mask(mask.mask, mask.origin)
    return ExtremePoints.from_box(prompt.points) if box else prompt


def _fused(prediction: Outlined, job: Job, shape: tuple[int, int]) -> ObjectMask:
    """Where phi and the carried shape's signed distance together are inside."""
    phi = prediction.states[-1] - np.float32(prediction.threshold)
    if job.trust:
        phi = phi + np.float32(job.trust) * signed_distance(job.prior, prediction.crop)
    return mask_from_phi(phi, prediction.crop, shape, 0.0)
