"""Propagation: objects of a few labelled planes carried through the planes between them, in z or in time.

The planes between two key planes form a gap. Every gap is worked out by itself, from its two key planes and its own
planes alone: so correcting one plane changes nothing beyond the nearest key planes, memory does not grow with the
number of planes, gaps may be worked out on different machines, and a run that was stopped goes on with the same bytes.
Beyond the outermost key planes each plane follows from the one before, as it was painted, and from nothing else.

A key plane says all about its plane: an object that is missing there is not there. What a key plane does not show is
found only from the other side, and what neither shows is not found. Objects that divide are not followed: each
daughter needs a key plane of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_delse.data.images import Plane
from napari_delse.data.prompts import check_values
from napari_delse.geometry import Crop, ObjectMask
from napari_delse.propagation.config import Gap, PropagationConfig
from napari_delse.propagation.gap import Carried, carry, carry_on
from napari_delse.propagation.outlining import AcrossSegmenter

Labels = npt.NDArray[Any] | Callable[[], npt.NDArray[Any]]
_MOST_LOST = 0.3  # share of an object that others may take before somebody should look at it
_STRIP = 2**19  # pixels of a key plane looked at together


@dataclass(frozen=True)
class PropagatedObject:
    """One object in one plane."""

    label: int
    area: int  # pixels in the label plane; 0 where the object ended or others took all of it
    confidence: float  # in [0, 1]; 1 in a key plane
    keys: tuple[int, ...]  # key planes that it came from
    review: str = ""  # why somebody should look at it; empty for no reason


@dataclass(frozen=True, eq=False)
class PropagatedPlane:
    """One finished plane."""

    index: int
    labels: npt.NDArray[Any]  # (Y, X)
    objects: tuple[PropagatedObject, ...]
    is_key: bool
    masks: Mapping[int, ObjectMask] = field(default_factory=dict, repr=False)  # in the label plane; none is empty

    @property
    def review(self) -> tuple[PropagatedObject, ...]:
        """Objects that somebody should look at; empty for a plane that needs no review."""
        return tuple(one for one in self.objects if one.review)


def gaps(count: int, keys: Collection[int]) -> list[Gap]:
    """The runs of planes without labels, in their order.

    Parameters
    ----------
    count : int
        Number of planes.
    keys : collection of int
        Key planes.

    Raises
    ------
    ValueError
        If there is no key plane, or one that does not exist.
    """
    chosen = sorted(set(keys))
    if not chosen or chosen[0] < 0 or chosen[-1] >= count:
        raise ValueError(f"key planes must be one or more of the {count} planes 0..{count - 1}, got {chosen}")
    ends = [None, *chosen, None]
    found = []
    for before, after in pairwise(ends):
        first, last = 0 if before is None else before + 1, count - 1 if after is None else after - 1
        if first <= last:
            found.append(Gap(first, last, before, after))
    return found


def affected(count: int, keys: Collection[int], changed: int) -> range:
    """Planes to propagate again after plane ``changed`` was corrected, added to the key planes or taken from them.

    Parameters
    ----------
    count : int
        Number of planes.
    keys : collection of int
        Key planes; whether ``changed`` is among them makes no difference.
    changed : int
        The plane.

    Returns
    -------
    range
        From the key plane before to the one after, without these; all others keep their bytes.
    """
    if not 0 <= changed < count:
        raise ValueError(f"plane {changed} does not exist among the {count} planes 0..{count - 1}")
    first = max((key + 1 for key in keys if key < changed), default=0)
    return range(first, min((key for key in keys if key > changed), default=count))


def propagate(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    keys: Mapping[int, Labels],
    config: PropagationConfig | None = None,
    *,
    only: range | None = None,
    since: Mapping[int, Mapping[int, ObjectMask]] | None = None,
) -> Iterator[PropagatedPlane]:
    """Carry the objects of the key planes through all others, yielding one finished label plane at a time.

    Parameters
    ----------
    predictor : AcrossSegmenter
        The model.
    planes : sequence of Plane
        The stack in its order; read crop by crop, where it is needed.
    keys : mapping of int to array of shape (Y, X), or function without arguments that gives one
        Labels of the key planes, 0 for background; the same label is the same object. A function is called when its
        plane is needed, once to carry its objects on and once to pass it on, so that whole key planes are not kept.
    config : PropagationConfig, optional
        How.
    only : range, optional
        Yield only these planes (step 1); gaps that hold none of them are not worked out, and a correction goes on with
        `affected`. Planes have the same bytes as in a whole run.
    since : mapping of int to mapping of int to ObjectMask, optional
        Finished planes beyond the outermost key planes, by their objects: those further out follow from them, and need
        not be worked out from the key plane.

    Yields
    ------
    PropagatedPlane
        First the planes before the first key plane, from that one downwards, then all others in their order. Key
        planes are passed on as they are. The labels of the others have a dtype that holds those of their key planes.

    Raises
    ------
    ValueError
        If there is no key plane, or one that does not exist, or whose labels are no plane of integers of the right
        shape.
    """
    config = config or PropagationConfig()
    spans = gaps(len(planes), keys)
    wanted = range(len(planes)) if only is None else only
    if wanted.step != 1 or (len(wanted) and not 0 <= wanted[0] <= wanted[-1] < len(planes)):
        raise ValueError(f"only must be a range of the planes 0..{len(planes) - 1} with step 1, got {only}")
    known = _Keys(planes, keys)
    by_first = {gap.first: gap for gap in spans}
    index = 0
    while index < len(planes):
        gap = by_first.get(index)
        here = range(index, index + 1) if gap is None else gap.planes
        if gap is None and index in wanted:
            yield known.plane(index)
        elif gap is not None and here[0] < wanted.stop and here[-1] >= wanted.start:
            if gap.before is None or gap.after is None:
                yield from _beyond(predictor, planes, gap, known, config, wanted, since or {})
            else:
                yield from _between(predictor, planes, gap, known, config, wanted)
        index = here[-1] + 1


def _between(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    gap: Gap,
    known: _Keys,
    config: PropagationConfig,
    wanted: range,
) -> Iterator[PropagatedPlane]:
    """Planes between two key planes."""
    before, after = known.objects(gap.before), known.objects(gap.after)
    dtype = known.dtype(gap)
    for place, carried in carry(predictor, planes, gap, before, after, config):
        if place in wanted:
            yield finished(place, carried, planes[place].shape, dtype)


def _beyond(
    predictor: AcrossSegmenter,
    planes: Sequence[Plane],
    gap: Gap,
    known: _Keys,
    config: PropagationConfig,
    wanted: range,
    since: Mapping[int, Mapping[int, ObjectMask]],
) -> Iterator[PropagatedPlane]:
    """Planes with a key plane on one side only, each as soon as it is done."""
    key, way = (gap.after, gap.planes[::-1]) if gap.before is None else (gap.before, gap.planes)
    assert key is not None
    shapes: Mapping[int, ObjectMask] = known.objects(key)
    areas, dtype = {label: mask.area for label, mask in shapes.items()}, known.dtype(gap)
    beyond = [plane for plane in way if plane in wanted]
    way = way[: way.index(beyond[-1]) + 1]
    if nearer := [plane for plane in way[: way.index(beyond[0])] if plane in since]:
        shapes = since[nearer[-1]]
        way = way[way.index(nearer[-1]) + 1 :]
    for place in way:
        carried = carry_on(predictor, planes, key, place, shapes, areas, config)
        plane = finished(place, carried, planes[place].shape, dtype)
        shapes = plane.masks
        if place in wanted:
            yield plane


class _Keys:
    """The labels of the key planes, no more than the last two of them in memory."""

    def __init__(self, planes: Sequence[Plane], keys: Mapping[int, Labels]) -> None:
        self._planes, self._keys = planes, keys
        self._kept: dict[int, tuple[np.dtype[Any], dict[int, ObjectMask]]] = {}

    def labels(self, index: int) -> npt.NDArray[Any]:
        given = self._keys[index]
        labels = np.asarray(given() if callable(given) else given)
        shape = self._planes[index].shape
        if labels.shape != shape or labels.dtype.kind not in "bui":
            raise ValueError(
                f"the labels of key plane {index} must be integers of shape {shape}, got {labels.dtype} "
                f"{labels.shape}; are they of this image?"
            )
        if labels.dtype.kind != "b" and labels.size:
            check_values((int(labels.min()), int(labels.max())), f"key plane {index}")
        return labels

    def _known(self, index: int, labels: npt.NDArray[Any] | None = None) -> tuple[np.dtype[Any], dict[int, ObjectMask]]:
        if index not in self._kept:
            labels = self.labels(index) if labels is None else labels
            self._kept = dict(list(self._kept.items())[-1:])
            self._kept[index] = labels.dtype, objects_of(labels)
        return self._kept[index]

    def objects(self, index: int | None) -> dict[int, ObjectMask]:
        return {} if index is None else self._known(index)[1]

    def dtype(self, gap: Gap) -> np.dtype[Any]:
        both = np.result_type(*(self._known(key)[0] for key in (gap.before, gap.after) if key is not None))
        return np.dtype(np.int64) if both.kind == "f" else both  # of signed and unsigned 64 bits; labels end sooner

    def plane(self, index: int) -> PropagatedPlane:
        labels = self.labels(index)
        masks = self._known(index, labels)[1]
        objects = tuple(PropagatedObject(label, mask.area, 1.0, (index,)) for label, mask in masks.items())
        return PropagatedPlane(index, labels, objects, is_key=True, masks=masks)


def objects_of(labels: npt.NDArray[Any]) -> dict[int, ObjectMask]:
    """All objects of a label plane; its pixels are looked at strip by strip, so that memory does not double."""
    boxes: dict[int, tuple[int, int, int, int]] = {}
    rows = max(1, _STRIP // max(1, labels.shape[1]))
    for top in range(0, labels.shape[0], rows):
        strip = labels[top : top + rows]
        if not strip.any():
            continue
        values, numbered = np.unique(strip, return_inverse=True)
        found = ndimage.find_objects(numbered.reshape(strip.shape) + 1)
        for value, window in zip(values.tolist(), found, strict=True):
            if value:
                y0, x0, y1, x1 = top + window[0].start, window[1].start, top + window[0].stop, window[1].stop
                a0, b0, a1, b1 = boxes.get(int(value), (y0, x0, y1, x1))
                boxes[int(value)] = min(a0, y0), min(b0, x0), max(a1, y1), max(b1, x1)
    return {
        label: ObjectMask(labels[y0:y1, x0:x1] == label, (y0, x0)) for label, (y0, x0, y1, x1) in sorted(boxes.items())
    }


def finished(index: int, carried: Sequence[Carried], shape: tuple[int, int], dtype: np.dtype[Any]) -> PropagatedPlane:
    """A plane of objects that may overlap, with what each of them got.

    Parameters
    ----------
    index : int
        The plane's place in the stack.
    carried : sequence of Carried
        Its objects.
    shape : (int, int)
        Of the plane.
    dtype : numpy.dtype
        Of its labels.

    Returns
    -------
    PropagatedPlane
        An object of which others took more than 30 % is to be reviewed.
    """
    labels = paint(carried, shape, dtype)
    objects, masks = [], {}
    for one in carried:
        left = _left(labels, one)
        if left.area:
            masks[one.label] = left
        lost = 1 - left.area / one.mask.area if one.mask.area else 0.0
        review = f"other objects took {lost:.0%} of it" if lost > _MOST_LOST else one.review
        objects.append(PropagatedObject(one.label, left.area, one.confidence, one.keys, review))
    return PropagatedPlane(index, labels, tuple(objects), is_key=False, masks=dict(sorted(masks.items())))


def _left(labels: npt.NDArray[Any], one: Carried) -> ObjectMask:
    """What an object got of its pixels."""
    if not one.mask.area:
        return one.mask
    rows, columns = one.mask.slices
    window = Crop(rows.start, columns.start, rows.stop, columns.stop, 1)
    return ObjectMask.from_crop(labels[rows, columns] == one.label, window, labels.shape)


def paint(carried: Sequence[Carried], shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """One label plane of objects that may overlap: a pixel goes to the object in which it lies deepest.

    Of equally deep ones the more confident object takes it, then the smaller label.
    """
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
