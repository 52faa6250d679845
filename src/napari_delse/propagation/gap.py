"""Objects carried from plane to plane: between two key planes from both sides, beyond the outermost one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_delse.data.images import Plane
from napari_delse.geometry import ObjectMask
from napari_delse.propagation.bridges import Waves, bridges
from napari_delse.propagation.config import Gap, PropagationConfig
from napari_delse.propagation.outlining import AcrossSegmenter, Job, outline
from napari_delse.propagation.shapes import EMPTY, between, centre, clipped, moved, movement

_TOGETHER = 64  # objects that are outlined before planes are handed on


@dataclass(frozen=True, eq=False)
class Carried:
    """One object in one plane between the keys; the mask is empty where the object ended."""

    label: int
    mask: ObjectMask
    confidence: float
    keys: tuple[int, ...]
    review: str = ""


@dataclass(eq=False)
class _Track:
    """An object on its way from a key plane."""

    label: int
    key: int
    direction: int  # 1 or -1
    mask: ObjectMask  # in the last plane that it reached
    goal: ObjectMask | None  # in the other key plane, if it is there
    key_area: int  # pixels in the key plane
    ended: bool = False


def carry(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    gap: Gap,
    before: Mapping[int, ObjectMask],
    after: Mapping[int, ObjectMask],
    config: PropagationConfig,
) -> Iterator[tuple[int, list[Carried]]]:
    """All objects between two key planes, plane by plane, each with a mask of its own: they may still overlap.

    A shape is moved from plane to plane by what the images show. Where both key planes have the object, it also turns
    into the other key plane's shape on the way; what arrives from both sides is interpolated, and the model sees the
    box of that (better than its extreme points on all three kinds of stack tried). An object of one key plane only is
    outlined in every plane from the extreme points of what was carried there, and goes on from the answer.

    Parameters
    ----------
    predictor : AcrossSegmenter
        The model.
    planes : sequence of Plane
        The stack.
    gap : Gap
        Where; with both key planes.
    before, after : mapping of int to ObjectMask
        Objects of the two key planes by label.
    config : PropagationConfig
        How.

    Yields
    ------
    (int, list of Carried)
        Plane and its objects in the order of their labels. What comes from one key plane only is worked out before
        the first plane, the rest a few planes ahead.
    """
    first, last = gap.ends
    sides = ((first, 1, before, after), (last, -1, after, before))
    tracks = [
        _Track(label, key, direction, mask, others.get(label), mask.area)
        for key, direction, objects, others in sides
        for label, mask in objects.items()
    ]
    result: dict[int, list[Carried]] = {plane: [] for plane in gap.planes}
    waves: Waves = {}
    lasting = int(config.lifetime * (len(gap.planes) + 1))
    for step in range(1, len(gap.planes) + 1):
        moving = [track for track in tracks if not track.ended and (track.goal or step <= lasting)]
        priors = _move(planes, moving, step, len(gap.planes) + 1 - step, config)
        alone = [(track, prior) for track, prior in zip(moving, priors, strict=True) if track.goal is None]
        for track, prior in zip(moving, priors, strict=True):
            if track.goal is not None:
                track.mask, track.ended = prior, not prior.area
                waves[track.direction, track.key + track.direction * step, track.label] = prior
        for found in _alone(predictor, planes, alone, step, config, last=step == lasting):
            result[found[0]].append(found[1])
    jobs = bridges(predictor, planes, gap, before, after, waves, config)
    for group in _groups(gap, jobs):
        here = [job for plane in group for job in jobs[plane]]
        for job, (mask, confidence) in zip(here, outline(predictor, planes, here, config), strict=True):
            kept, doubt = mask if mask.area else job.prior, job.doubt or _doubt(confidence, config)
            result[job.plane].append(Carried(job.label, kept, confidence, gap.ends, doubt))
        for plane in group:
            yield plane, sorted(result.pop(plane), key=lambda one: one.label)


def carry_on(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    key: int,
    place: int,
    shapes: Mapping[int, ObjectMask],
    areas: Mapping[int, int],
    config: PropagationConfig,
) -> list[Carried]:
    """Objects beyond the outermost key planes: from the plane beside one plane further from the key.

    Parameters
    ----------
    predictor : AcrossSegmenter
        The model.
    planes : sequence of Plane
        The stack.
    key : int
        The only key plane that they come from.
    place : int
        Where to.
    shapes : mapping of int to ObjectMask
        Those that are left in the plane beside, nearer to the key, by label.
    areas : mapping of int to int
        Pixels of the objects in the key plane, by label.
    config : PropagationConfig
        How.
    """
    direction = 1 if place > key else -1
    tracks = [_Track(label, key, direction, shapes[label], None, areas[label]) for label in sorted(shapes)]
    step = abs(place - key)
    priors = _move(planes, tracks, step, 0, config)
    moving = list(zip(tracks, priors, strict=True))
    return [found for _, found in _alone(predictor, planes, moving, step, config, last=False)]


def _groups(gap: Gap, jobs: Mapping[int, Sequence[Job]]) -> Iterator[list[int]]:
    """Planes that share passes of the model: as few as fill a large batch, and the same ones in every run."""
    group: list[int] = []
    for plane in gap.planes:
        group.append(plane)
        if sum(len(jobs[one]) for one in group) >= _TOGETHER:
            yield group
            group = []
    if group:
        yield group


def _move(
    planes: Sequence[Plane], tracks: Sequence[_Track], step: int, left: int, config: PropagationConfig
) -> list[ObjectMask]:
    """The tracks' shapes moved one plane further, ``left`` planes from the other key; empty outside the image."""
    numbers = sorted({track.key + track.direction * at for track in tracks for at in (step - 1, step)})
    seen = {number: planes[number] for number in numbers}
    shapes = []
    for track in tracks:
        here = track.key + track.direction * step
        place, shape = centre(track.mask), seen[here].shape
        drift = np.zeros(2) if track.goal is None else (centre(track.goal) - place) / (left + 1)
        expected = (round(float(drift[0])), round(float(drift[1])))
        shift = movement(seen[here - track.direction], seen[here], track.mask, config.reach, config.caution, expected)
        carried = clipped(moved(track.mask, shift), shape)
        if track.goal is not None and carried.area:
            turned = between(track.mask, track.goal, 1 / (left + 1), shape, place + shift)
            carried = turned if turned.area else carried
        shapes.append(carried)
    return shapes


def _alone(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    moving: Sequence[tuple[_Track, ObjectMask]],
    step: int,
    config: PropagationConfig,
    *,
    last: bool,
) -> Iterator[tuple[int, Carried]]:
    """Objects of one key plane only: outlined, and ended where there is a reason."""
    jobs = [
        Job(track.key + track.direction * step, track.label, prior, config.trust_alone, box=False)
        for track, prior in moving
    ]
    for (track, prior), job, (mask, confidence) in zip(
        moving, jobs, outline(predictor, planes, jobs, config), strict=True
    ):
        reason = _end(track, prior, mask, confidence, planes[job.plane].shape, config)
        track.ended = bool(reason)
        track.mask = EMPTY if reason else mask
        doubt = "carried no further: the next key plane does not show it" if last else _doubt(confidence, config)
        yield (
            job.plane,
            Carried(track.label, track.mask, confidence, (track.key,), reason or doubt),
        )


def _end(
    track: _Track,
    prior: ObjectMask,
    mask: ObjectMask,
    confidence: float,
    shape: tuple[int, int],
    config: PropagationConfig,
) -> str:
    """Why a track ends here; empty if it goes on."""
    gone = mask.area < max(1, config.min_share * track.key_area)
    if not prior.area or (gone and _at_border(prior, shape)):
        return "ended: it left the image"
    if gone:
        return "ended: it vanished"
    return f"ended: confidence fell to {confidence:.2f}" if confidence < config.min_confidence else ""


def _doubt(confidence: float, config: PropagationConfig) -> str:
    return f"confidence {confidence:.2f}" if confidence < config.review_below else ""


def _at_border(mask: ObjectMask, shape: tuple[int, int]) -> bool:
    rows, columns = mask.slices
    edges = (rows.start <= 0, columns.start <= 0, rows.stop >= shape[0], columns.stop >= shape[1])
    return bool(any(edges))
