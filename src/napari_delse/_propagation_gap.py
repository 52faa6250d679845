"""Objects carried through the planes between two key planes: two wavefronts that become one answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_delse._propagation_shapes import EMPTY, between, centre, clipped, mask_iou, moved, movement, signed_distance
from napari_delse.geometry import Correction, Crop, ExtremePoints, ObjectMask
from napari_delse.images import Plane
from napari_delse.predict import mask_from_phi


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
    """How objects are carried from plane to plane."""

    rounds: int = 2  # predictions per object and plane: from the carried shape, then from the answer itself
    settled: float = 0.97  # IoU of two rounds from which the answer counts as settled
    boxes: int = 0  # of the rounds, so many first ones show the model the box of the shape only, not its points
    inertia: float = 1.0  # weight of the carried shape's signed distance beside phi
    reach: float = 1.0  # how far objects may move from plane to plane, as a share of their longer side
    caution: float = 0.5  # correlation that a move by the whole reach must gain
    min_confidence: float = 0.4  # an object that is in one key plane only ends below
    review_below: float = 0.6  # confidence below which a plane is marked for review
    lifetime: float = 0.5  # share of a gap after which an object ends that the other key plane does not show
    agreement: float = 0.4  # IoU of the answers from both sides below which a plane is marked for review
    min_share: float = 0.15  # an object ends below this share of its area in the key plane
    only_moved: bool = True
    batch_size: int | None = None  # objects per network pass; by default what suits the device

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")
        for name in ("settled", "agreement", "lifetime", "min_confidence", "review_below", "min_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("inertia", "reach", "caution"):
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


def carry(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    gap: Gap,
    before: Mapping[int, ObjectMask],
    after: Mapping[int, ObjectMask],
    config: PropagationConfig,
) -> dict[int, list[Carried]]:
    """All objects of a gap, by plane, each with a mask of its own: they may still overlap.

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
    """
    tracks = [
        _Track(label, key, direction, mask, others.get(label))
        for key, direction, objects, others in ((gap.before, 1, before, after), (gap.after, -1, after, before))
        if key is not None
        for label, mask in objects.items()
    ]
    waves: dict[tuple[int, int, int], Carried] = {}  # by direction, plane and label
    for step in range(1, len(gap.planes) + 1):
        for track in tracks:
            alone = track.goal is None and None not in (gap.before, gap.after)
            track.ended = track.ended or (alone and step > config.lifetime * (len(gap.planes) + 1))
        moving = [track for track in tracks if not track.ended]
        for track, found in zip(moving, _advance(predictor, planes, moving, step, gap, config), strict=True):
            waves[track.direction, track.key + track.direction * step, track.label] = found
            track.mask = found.mask if found.mask.area else track.mask
            track.ended = not found.mask.area
    bridged = sorted(set(before) & set(after))
    result = {plane: [] for plane in gap.planes}  # type: dict[int, list[Carried]]
    for (_, plane, label), found in waves.items():
        if label not in before or label not in after:
            result[plane].append(found)
    for plane, found in _bridge(predictor, planes, gap, bridged, before, after, waves, config):
        result[plane].append(found)
    return {plane: sorted(objects, key=lambda one: one.label) for plane, objects in result.items()}


def _advance(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    tracks: Sequence[_Track],
    step: int,
    gap: Gap,
    config: PropagationConfig,
) -> list[Carried]:
    """Every track one plane further."""
    here = {track.key + track.direction * step for track in tracks}
    seen = {
        index: planes[index] for index in sorted(here | {track.key + track.direction * (step - 1) for track in tracks})
    }
    priors = []
    left = len(gap.planes) + 1 - step  # planes from here to the other key
    for track in tracks:
        index = track.key + track.direction * step
        place, shape = centre(track.mask), seen[index].shape
        drift = np.zeros(2) if track.goal is None else (centre(track.goal) - place) / (left + 1)
        expected = (round(float(drift[0])), round(float(drift[1])))
        shift = movement(seen[index - track.direction], seen[index], track.mask, config.reach, config.caution, expected)
        prior = clipped(moved(track.mask, shift), shape)
        if track.goal is not None and prior.area:
            drawn = between(track.mask, track.goal, 1 / (left + 1), shape, place + shift)
            prior = drawn if drawn.area else prior
        priors.append(prior)
    wheres = [seen[track.key + track.direction * step] for track in tracks]
    if config.only_moved:
        alone = [i for i, track in enumerate(tracks) if track.goal is None]
        some = iter(_predict(predictor, [wheres[i] for i in alone], [priors[i] for i in alone], config))
        found = [(prior, 1.0) if track.goal else next(some) for track, prior in zip(tracks, priors, strict=True)]
    else:
        found = _predict(predictor, wheres, priors, config)
    return [
        _judged(track, prior, mask, confidence, where.shape, config)
        for track, prior, (mask, confidence), where in zip(tracks, priors, found, wheres, strict=True)
    ]


def _predict(
    predictor: AcrossSegmenter, wheres: Sequence[Plane], priors: Sequence[ObjectMask], config: PropagationConfig
) -> list[tuple[ObjectMask, float]]:
    """Masks and confidences from carried shapes, predicted again from their own extreme points until they settle."""
    answers = [(prior, 0.0) for prior in priors]
    unsettled = [i for i, prior in enumerate(priors) if prior.area]
    for number in range(config.rounds):
        boxed = number < config.boxes
        items = ((wheres[i], prompt_of(answers[i][0], box=boxed), ()) for i in list(unsettled))
        going = []
        for i, prediction in zip(list(unsettled), predictor.segment_across(items, config.batch_size), strict=True):
            mask = _fused(prediction, priors[i], wheres[i].shape, config.inertia)
            settled = not mask.area or mask_iou(mask, answers[i][0]) >= config.settled
            answers[i] = mask, prediction.confidence
            if not settled:
                going.append(i)
        unsettled = going
    return answers


def prompt_of(mask: ObjectMask, *, box: bool = False) -> ExtremePoints:
    """The extreme points of a mask in its plane."""
    points = np.asarray(ExtremePoints.from_mask(mask.mask).points) + mask.origin
    return ExtremePoints.from_box(points) if box else ExtremePoints.from_clicks(points)


def _fused(prediction: Outlined, prior: ObjectMask, shape: tuple[int, int], inertia: float) -> ObjectMask:
    """Where phi and the carried shape's signed distance together are inside."""
    phi = prediction.states[-1] - np.float32(prediction.threshold)
    if inertia:
        phi = phi + np.float32(inertia) * signed_distance(prior, prediction.crop)
    return mask_from_phi(phi, prediction.crop, shape, 0.0)


def _judged(
    track: _Track,
    prior: ObjectMask,
    mask: ObjectMask,
    confidence: float,
    shape: tuple[int, int],
    config: PropagationConfig,
) -> Carried:
    """What a track found, or why it ends here."""
    reason = ""
    if not prior.area or (mask.area < config.min_share * track.key_area and _at_border(prior, shape)):
        reason = "ended: it left the image"
    elif not mask.area or mask.area < config.min_share * track.key_area:
        reason = "ended: it vanished"
    elif confidence < config.min_confidence:
        reason = f"ended: confidence fell to {confidence:.2f}"
    if reason:
        return Carried(track.label, EMPTY, confidence, (track.key,), reason)
    return Carried(track.label, mask, confidence, (track.key,), _doubt(confidence, config))


def _doubt(confidence: float, config: PropagationConfig) -> str:
    return f"confidence {confidence:.2f}" if confidence < config.review_below else ""


def _at_border(mask: ObjectMask, shape: tuple[int, int]) -> bool:
    rows, columns = mask.slices
    return rows.start <= 0 or columns.start <= 0 or rows.stop >= shape[0] or columns.stop >= shape[1]


def _bridge(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    gap: Gap,
    labels: Sequence[int],
    before: Mapping[int, ObjectMask],
    after: Mapping[int, ObjectMask],
    waves: Mapping[tuple[int, int, int], Carried],
    config: PropagationConfig,
) -> Iterator[tuple[int, Carried]]:
    """Objects of both key planes: the forward and the backward answer fused, and predicted again."""
    if not labels or gap.before is None or gap.after is None:
        return
    places, priors, reasons = [], [], []
    for plane in gap.planes:
        share = (plane - gap.before) / (gap.after - gap.before)
        shape = planes[plane].shape
        for label in labels:
            sides = [waves.get((direction, plane, label)) for direction in (1, -1)]
            forward, backward = (side.mask if side is not None and side.mask.area else None for side in sides)
            reason = ""
            if forward is None or backward is None:
                prior = forward or backward or between(before[label], after[label], share, shape)
                reason = "" if forward or backward else "found from neither key plane"
            else:
                prior = between(forward, backward, share, shape)
                if mask_iou(forward, backward) < config.agreement:
                    reason = "the two key planes lead to different answers"
                if not prior.area:
                    prior = forward if share < 0.5 else backward
            places.append((plane, label))
            priors.append(prior)
            reasons.append(reason)
    found = _predict(predictor, [planes[plane] for plane, _ in places], priors, config)
    for (plane, label), prior, reason, (mask, confidence) in zip(places, priors, reasons, found, strict=True):
        kept = mask if mask.area else prior
        yield plane, Carried(label, kept, confidence, (gap.before, gap.after), reason or _doubt(confidence, config))


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
