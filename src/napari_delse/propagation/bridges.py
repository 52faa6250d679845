"""Objects of both key planes of a gap: the shape to expect between, and how far to trust it beside the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from napari_delse.data.images import Plane
from napari_delse.geometry import ObjectMask
from napari_delse.metrics import mask_iou
from napari_delse.propagation.config import Gap, PropagationConfig
from napari_delse.propagation.outlining import AcrossSegmenter, Job, outline
from napari_delse.propagation.shapes import EMPTY, alikeness, between, interpolated

_MOST_TRUST = 8.0  # more of it keeps phi from placing even a shape that is right
_MOST_ALIKE = 0.95  # of shapes that are the same still none lies just where it is expected
_BEST = 0.01  # what the best model misses at least

Waves = dict[tuple[int, int, int], ObjectMask]
"""Carried shapes by direction, plane and label."""


def bridges(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    gap: Gap,
    before: Mapping[int, ObjectMask],
    after: Mapping[int, ObjectMask],
    waves: Waves,
    config: PropagationConfig,
) -> dict[int, list[Job]]:
    """What to outline of the objects of both key planes, which are never lost between them, by plane.

    An object that stays is expected where the signed distances of its two shapes, interpolated, are inside; another
    one where the shapes carried from both sides meet. What is expected counts the more the more alike the two shapes
    are, and the more the model misses them in the key planes, where the truth is known.
    """
    jobs: dict[int, list[Job]] = {plane: [] for plane in gap.planes}
    first, last = gap.ends
    labels = sorted(set(before) & set(after))
    alike = {label: alikeness(before[label], after[label]) for label in labels}
    misses = (
        _misses(predictor, planes, gap, before, after, labels, config) if config.trust else dict.fromkeys(labels, 0.0)
    )
    trust = {x: min(config.trust * _odds(min(alike[x], _MOST_ALIKE)) * _odds(misses[x]), _MOST_TRUST) for x in labels}
    stays = {x: mask_iou(before[x], after[x]) > config.staying * alike[x] for x in labels}
    for plane in gap.planes:
        share, shape = (plane - first) / (last - first), planes[plane].shape
        for label in labels:
            ends = before[label], after[label]
            sides = [waves.get((direction, plane, label), EMPTY) for direction in (1, -1)]
            agreement = mask_iou(*sides) if all(side.area for side in sides) else 0.0
            prior = interpolated(*ends, share, shape) if stays[label] else EMPTY
            if not prior.area:
                prior = _meet(sides, share, shape) or _meet(ends, share, shape) or EMPTY
            doubt = "" if agreement >= config.agreement else f"the two key planes agree by {agreement:.2f} only"
            jobs[plane].append(Job(plane, label, prior, trust[label], box=True, doubt=doubt))
    return jobs


def _misses(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    gap: Gap,
    before: Mapping[int, ObjectMask],
    after: Mapping[int, ObjectMask],
    labels: Sequence[int],
    config: PropagationConfig,
) -> dict[int, float]:
    """How far the model is from the truth in the two key planes, shown the true box: 1 - mean IoU by label."""
    sides = list(zip(gap.ends, (before, after), strict=True))
    jobs = [Job(key, label, objects[label], 0.0, box=True) for label in labels for key, objects in sides]
    found = outline(predictor, planes, jobs, replace(config, rounds=1))
    ious = [mask_iou(mask, job.prior) if mask.area else 0.0 for job, (mask, _) in zip(jobs, found, strict=True)]
    means = np.reshape(ious, (len(labels), len(sides))).mean(axis=1) if labels else []
    return {x: min(max(1 - float(mean), _BEST), 1 - _BEST) for x, mean in zip(labels, means, strict=True)}


def _odds(share: float) -> float:
    return share / (1 - share)


def _meet(sides: Sequence[ObjectMask], share: float, shape: tuple[int, int]) -> ObjectMask | None:
    """One shape of what arrived from both sides; None if nothing did."""
    arrived = [side for side in sides if side.area]
    if len(arrived) < 2:
        return arrived[0] if arrived else None
    both = between(arrived[0], arrived[1], share, shape)
    return both if both.area else arrived[share >= 0.5]
