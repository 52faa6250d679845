"""Objects carried through the planes between two key planes: two wavefronts that become one answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_delse.data.images import Plane
from napari_delse.geometry import Correction, Crop, ExtremePoints, ObjectMask
from napari_delse.predict import mask_from_phi
from napari_delse.propagation.shapes import (
    EMPTY,
    alikeness,
    between,
    centre,
    clipped,
    mask_iou,
    moved,
    movement,
    signed_distance,
)

_TOGETHER = 64  # objects that are outlined before planes are handed on
_MOST_TRUST = 2.0  # more of it keeps phi from placing even a shape that is right


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


@dataclass(frozen=True, kw_only=True)
class PropagationConfig:
    """How objects are carried from plane to plane.

    Notes
    -----
    Chosen with the default model on few objects of stacks other than those reported (``training/propagation_study.py``;
    8 to 72 objects in planes each). Mean IoU between two key planes, in this order hippocampus_mri, ctc_fluo_hela,
    ctc_phc_psc: the model shown the box of what was carried 0.470, 0.798, 0.623, its extreme points 0.412, 0.765,
    0.616; two rounds instead of one 0.486 for 0.478 and 0.811 for 0.785 in the first two. A fixed trust of 0.3 lost
    on wsu_chloroplast, whose shapes hardly change (0.834, by the odds 0.902). Objects of one key plane only, in
    hippocampus_mri: ending them half-way 0.354, at the other key plane 0.290, of all objects. No threshold on the
    confidence ended them better than none, so it is low.
    """

    rounds: int = 2  # predictions per object and plane: from the carried shape, then from the answer itself
    settled: float = 0.97  # IoU of two rounds from which the answer counts as settled
    reach: float = 1.5  # how far an object may be from where it is expected next, as a share of its longer side
    caution: float = 0.8  # correlation that a deviation by the whole reach must gain
    trust: float = 0.5  # weight of the carried shape beside phi, times the odds of the key planes' shapes being alike
    trust_alone: float = 1.0  # weight of a shape that comes from one key plane only
    agreement: float = 0.4  # IoU of the shapes from both sides below which a plane is marked for review
    lifetime: float = 0.5  # share of a gap after which an object ends that the other key plane does not show
    min_confidence: float = 0.4  # an object that comes from one key plane only ends below
    min_share: float = 0.15  # the same, below this share of its area in the key plane
    review_below: float = 0.6  # confidence below which a plane is marked for review
    batch_size: int | None = None  # objects per network pass; by default what suits the device

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")
        for name in ("settled", "agreement", "lifetime", "min_confidence", "min_share", "review_below"):
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
    key_area: int = field(init=False)
    ended: bool = False

    def __post_init__(self) -> None:
        self.key_area = self.mask.area


@dataclass(frozen=True, eq=False)
class _Job:
    """An object to outline where a shape was carried to."""

    plane: int
    label: int
    prior: ObjectMask
    trust: float
    box: bool  # whether the model sees the shape's box or its extreme points
    doubt: str = ""


Waves = dict[tuple[int, int, int], ObjectMask]  # carried shapes by direction, plane and label


def carry(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    gap: Gap,
    before: Mapping[int, ObjectMask],
    after: Mapping[int, ObjectMask],
    config: PropagationConfig,
) -> Iterator[tuple[int, list[Carried]]]:
    """All objects of a gap, plane by plane, each with a mask of its own: they may still overlap.

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
        Where.
    before, after : mapping of int to ObjectMask
        Objects of the two key planes by label; empty where there is no key plane.
    config : PropagationConfig
        How.

    Yields
    ------
    (int, list of Carried)
        Plane and its objects in the order of their labels. What comes from one key plane only is worked out before
        the first plane, the rest a few planes ahead.
    """
    tracks = [
        _Track(label, key, direction, mask, others.get(label))
        for key, direction, objects, others in ((gap.before, 1, before, after), (gap.after, -1, after, before))
        if key is not None
        for label, mask in objects.items()
    ]
    result: dict[int, list[Carried]] = {plane: [] for plane in gap.planes}
    waves: Waves = {}
    enclosed = gap.before is not None and gap.after is not None
    lasting = int(config.lifetime * (len(gap.planes) + 1)) if enclosed else len(gap.planes)
    for step in range(1, len(gap.planes) + 1):
        moving = [track for track in tracks if not track.ended and (track.goal or step <= lasting)]
        priors = _move(planes, moving, step, len(gap.planes) + 1 - step, config)
        alone = [(track, prior) for track, prior in zip(moving, priors, strict=True) if track.goal is None]
        for track, prior in zip(moving, priors, strict=True):
            if track.goal is not None:
                track.mask, track.ended = prior, not prior.area
                waves[track.direction, track.key + track.direction * step, track.label] = prior
        for found in _alone(predictor, planes, alone, step, config, last=enclosed and step == lasting):
            result[found[0]].append(found[1])
    jobs = _bridges(planes, gap, before, after, waves, config)
    for group in _groups(gap, jobs):
        here = [job for plane in group for job in jobs[plane]]
        for job, (mask, confidence) in zip(here, _outline(predictor, planes, here, config), strict=True):
            kept, doubt = mask if mask.area else job.prior, job.doubt or _doubt(confidence, config)
            keys = tuple(key for key in (gap.before, gap.after) if key is not None)
            result[job.plane].append(Carried(job.label, kept, confidence, keys, doubt))
        for plane in group:
            yield plane, sorted(result.pop(plane), key=lambda one: one.label)


def _groups(gap: Gap, jobs: Mapping[int, Sequence[_Job]]) -> Iterator[list[int]]:
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
        _Job(track.key + track.direction * step, track.label, prior, config.trust_alone, box=False)
        for track, prior in moving
    ]
    for (track, prior), job, (mask, confidence) in zip(
        moving, jobs, _outline(predictor, planes, jobs, config), strict=True
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


def _bridges(
    planes: Sequence[Plane],
    gap: Gap,
    before: Mapping[int, ObjectMask],
    after: Mapping[int, ObjectMask],
    waves: Waves,
    config: PropagationConfig,
) -> dict[int, list[_Job]]:
    """What to outline of the objects of both key planes, which are never lost between them, by plane."""
    jobs: dict[int, list[_Job]] = {plane: [] for plane in gap.planes}
    if gap.before is None or gap.after is None:
        return jobs
    labels = sorted(set(before) & set(after))
    alike = {label: alikeness(before[label], after[label]) for label in labels}
    for plane in gap.planes:
        share, shape = (plane - gap.before) / (gap.after - gap.before), planes[plane].shape
        for label in labels:
            sides = [waves.get((direction, plane, label), EMPTY) for direction in (1, -1)]
            agreement = mask_iou(*sides) if all(side.area for side in sides) else 0.0
            prior = _meet(sides, share, shape) or _meet([before[label], after[label]], share, shape) or EMPTY
            trust = min(config.trust * alike[label] / max(1 - alike[label], 0.01), _MOST_TRUST)
            doubt = "" if agreement >= config.agreement else f"the two key planes agree by {agreement:.2f} only"
            jobs[plane].append(_Job(plane, label, prior, trust, box=True, doubt=doubt))
    return jobs


def _meet(sides: Sequence[ObjectMask], share: float, shape: tuple[int, int]) -> ObjectMask | None:
    """One shape of what arrived from both sides; None if nothing did."""
    arrived = [side for side in sides if side.area]
    if len(arrived) < 2:
        return arrived[0] if arrived else None
    both = between(arrived[0], arrived[1], share, shape)
    return both if both.area else arrived[share >= 0.5]


def _outline(
    predictor: AcrossSegmenter, planes: Sequence[Plane], jobs: Sequence[_Job], config: PropagationConfig
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
    points = np.asarray(ExtremePoints.from_mask(mask.mask).points) + mask.origin
    return ExtremePoints.from_box(points) if box else ExtremePoints.from_clicks(points)


def _fused(prediction: Outlined, job: _Job, shape: tuple[int, int]) -> ObjectMask:
    """Where phi and the carried shape's signed distance together are inside."""
    phi = prediction.states[-1] - np.float32(prediction.threshold)
    if job.trust:
        phi = phi + np.float32(job.trust) * signed_distance(job.prior, prediction.crop)
    return mask_from_phi(phi, prediction.crop, shape, 0.0)


def paint(carried: Sequence[Carried], shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """One label plane of objects that may overlap: a pixel goes to the object in which it lies deepest.

    Of equally deep ones the more confident object takes it, then the smaller label.
    """
    from scipy import ndimage

    labels = np.zeros(shape, dtype)
    depths: dict[int, npt.NDArray[np.float32]] = {}
    order = sorted((one for one in carried if one.mask.area), key=lambda one: (-one.confidence, one.label))
    painted: dict[int, Carried] = {}
    for one in order:
        window = one.mask.slices
        here = labels[window]
        rivals = np.unique(here[one.mask.mask & (here != 0)])
        wins = one.mask.mask & (here == 0)
        if len(rivals):
            depth = ndimage.distance_transform_edt(np.pad(one.mask.mask, 1))[1:-1, 1:-1].astype(np.float32)
            for rival in rivals.tolist():
                other = painted[rival].mask
                if rival not in depths:
                    depths[rival] = ndimage.distance_transform_edt(np.pad(other.mask, 1))[1:-1, 1:-1].astype(np.float32)
                shared = one.mask.mask & (here == rival)
                rows, columns = np.nonzero(shared)
                theirs = depths[rival][
                    rows + one.mask.origin[0] - other.origin[0], columns + one.mask.origin[1] - other.origin[1]
                ]
                deeper = depth[rows, columns] > theirs
                wins[rows[deeper], columns[deeper]] = True
        here[wins] = one.label
        painted[one.label] = one
    return labels
