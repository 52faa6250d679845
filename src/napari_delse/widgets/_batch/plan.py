"""What a run over the layers of the viewer would do: said before it starts, or why it cannot start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt
from napari.layers import Labels, Points

from napari_delse._words import many
from napari_delse.annotation.carrying import PlaneLine, Traces
from napari_delse.data.images import Plane
from napari_delse.data.prompts import check_values
from napari_delse.geometry import ExtremePoints
from napari_delse.propagation.config import PropagationConfig
from napari_delse.propagation.planes import PropagatedPlane, affected, objects_of, propagate
from napari_delse.widgets._source import ImageSource

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_delse.stacks.planewise import Prompted

Task = Literal["carry", "refine", "points"]
Start = Literal["labelled", "shown", "these"]
Producer = Callable[[Any, int], Iterator[PropagatedPlane]]  # from a predictor and the next free label
Known = Mapping[int, frozenset[int]]  # labels of planes that were looked at, by their places
Unread = Mapping[int, Exception]  # planes that cannot be read, and why

_CLICKS = 4  # points of one object
_NO_IMAGE = "open an image with several planes to begin, or choose the tab Files"


@dataclass(frozen=True, eq=False)
class Wish:
    """What the person chose."""

    task: Task = "carry"
    source: ImageSource | None = None
    labels: Labels | None = None  # that are written to; None for a new layer
    coarse: Labels | None = None  # to be refined
    points: Points | None = None
    along: int | None = None  # axis of the labels
    start: Start = "labelled"
    these: str = ""  # places, such as 0,10,20
    first: int = 0
    last: int = 0
    protect: bool = True
    config: PropagationConfig = field(default_factory=PropagationConfig)


@dataclass(frozen=True, eq=False)
class Plan:
    """A run that can be started.

    Parameters
    ----------
    wish : Wish
        What it does.
    line : PlaneLine
        The planes of the labels.
    planes : tuple of int
        Places that it fills.
    keys : tuple of int
        Places that objects are carried from; these are never written to.
    objects : int
        About how many objects each plane gets.
    sentence : str
        What it will do.
    produce : callable
        Does it, in a worker.
    new : int
        How many objects get a label that is not there yet.
    """

    wish: Wish
    line: PlaneLine
    planes: tuple[int, ...]
    keys: tuple[int, ...]
    objects: int
    sentence: str
    produce: Producer = field(repr=False)
    new: int = 0


class PlanesOf(Sequence[Plane]):
    """The planes of an image along a line."""

    def __init__(self, source: ImageSource, line: PlaneLine) -> None:
        self._source, self._line = source, line

    def __len__(self) -> int:
        return self._line.count

    @overload
    def __getitem__(self, place: int) -> Plane: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Plane]: ...
    def __getitem__(self, place: int | slice) -> Plane | Sequence[Plane]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        return self._source.plane(self._line.key(range(len(self))[place]))


# ---------------------------------------------------------------- axes


def plane_axes(source: ImageSource) -> tuple[int, int]:
    """The axes of the labels that are y and x: by their names, else the last two."""
    names = [str(name).lower() for name in source.placement().get("axis_labels", ())]
    if len(names) == source.ndim and names.count("y") == names.count("x") == 1:
        return names.index("y"), names.index("x")
    return source.ndim - 2, source.ndim - 1


def axes_along(source: ImageSource) -> list[tuple[str, int]]:
    """Name and number of each axis with several planes."""
    names = [str(name) for name in source.placement().get("axis_labels", ())]
    inside, shape = plane_axes(source), source.shape
    found = []
    for axis in range(source.ndim):
        if axis not in inside and shape[axis] > 1:
            name = names[axis] if len(names) == source.ndim else ""
            found.append((name if name.isalpha() else f"axis {axis}", axis))
    return found


def line_of(source: ImageSource, along: int, viewer: ViewerModel) -> PlaneLine:
    """The planes along an axis, at the place of the other sliders."""
    inside, shape = plane_axes(source), source.shape
    placed = _position(source, viewer)
    others = [axis for axis in range(source.ndim) if axis not in inside]
    at = tuple(0 if axis == along else placed[axis] for axis in others)
    return PlaneLine(inside, along, at, shape[along])


def shown_place(source: ImageSource, line: PlaneLine, viewer: ViewerModel) -> int | None:
    """Which plane of a line the viewer shows; None if it shows the planes from their side, or none of them."""
    if viewer.dims.ndisplay != 2:
        return None
    offset = viewer.dims.ndim - source.ndim
    if line.along + offset in viewer.dims.displayed:
        return None
    place = _position(source, viewer)[line.along]
    return place if 0 <= place < line.count else None


def _position(source: ImageSource, viewer: ViewerModel) -> list[int]:
    """Where the sliders stand, as a position in the labels; on axes that are shown, any."""
    layer = source.layer
    point = np.asarray(viewer.dims.point, float)
    point = np.concatenate([np.zeros(max(0, layer.ndim - len(point))), point])[-layer.ndim :]
    inside = np.asarray(layer.world_to_data(point))[layer.ndim - source.ndim :]
    return [min(max(0, round(float(x))), n - 1) for x, n in zip(inside, source.shape, strict=True)]


# ---------------------------------------------------------------- plans


def plan(wish: Wish, known: Known, unread: Unread, traces: Traces, viewer: ViewerModel) -> Plan:
    """What would be done.

    Parameters
    ----------
    wish : Wish
        What the person chose.
    known : mapping of int to frozenset of int
        Labels of the planes that were looked at: of those to carry from, or to refine.
    unread : mapping of int to Exception
        Planes that could not be looked at.
    traces : Traces
        What was done to the labels so far.
    viewer : ViewerModel
        Whose sliders tell which planes are meant.

    Raises
    ------
    ValueError
        If it cannot be done, with the reason and the remedy.
    """
    source = wish.source
    if source is None:
        raise ValueError(_NO_IMAGE)
    if wish.along is None:
        raise ValueError(f"'{source.layer.name}' has only one plane; use Annotate (DELSE) for it")
    if wish.labels is not None and type(wish.labels.data).__module__.startswith("dask"):
        raise ValueError(f"labels '{wish.labels.name}' lie in dask, which cannot be written to; open them as zarr")
    if wish.first > wish.last:
        raise ValueError(f"planes {wish.first} to {wish.last} are none; exchange the two")
    line = line_of(source, wish.along, viewer)
    if wish.task == "carry":
        return _carry(wish, source, line, known, unread, traces, shown_place(source, line, viewer))
    return _refine(wish, source, line, known) if wish.task == "refine" else _from_points(wish, source, line)


def _carry(
    wish: Wish,
    source: ImageSource,
    line: PlaneLine,
    known: Known,
    unread: Unread,
    traces: Traces,
    shown: int | None,
) -> Plan:
    if wish.labels is None:
        raise ValueError("label one plane or more: with Annotate (DELSE), or with the brush in a new Labels layer")
    keys = _keys(wish, line, known, unread, traces, shown)
    if bad := [key for key in keys if key in unread]:
        raise ValueError(f"{_unread(bad[0], unread)}; choose other planes")
    if any(key not in known for key in keys):
        raise ValueError("the labelled planes are being looked for ...")
    if empty := [key for key in keys if not known[key]]:
        raise ValueError(f"plane {empty[0]} has no labels to be carried; label it, or choose other planes")
    span = range(wish.first, wish.last + 1)
    return carry_plan(wish, source, line, keys, known, span, traces.carried | traces.corrected)


def carry_plan(
    wish: Wish,
    source: ImageSource,
    line: PlaneLine,
    keys: Sequence[int],
    known: Known,
    span: range,
    carried: frozenset[int] | None = None,
) -> Plan:
    """Objects of key planes carried through a range of planes.

    Raises
    ------
    ValueError
        If all of them are key planes.
    """
    planes = tuple(place for place in span if place not in keys)
    if not planes:
        raise ValueError("every plane of the range has labels already, so there is nothing to carry them to")
    labels = frozenset[int]().union(*(known.get(key, frozenset()) for key in keys))
    assert wish.labels is not None  # there are keys in it
    data = wish.labels.data
    given: dict[int, Callable[[], npt.NDArray[Any]]] = {key: partial(read_plane, data, line, key) for key in keys}

    def produce(predictor: Any, _: int) -> Iterator[PropagatedPlane]:
        for plane in propagate(predictor, PlanesOf(source, line), given, wish.config, only=span):
            if not plane.is_key:
                yield plane

    on = f"plane {keys[0]}" if len(keys) == 1 else f"{len(keys)} planes"
    sentence = f"{many(len(labels), 'object')} on {on} will be carried to {many(len(planes), 'plane')}"
    # What runs wrote gives way; for planes made anew that goes without saying.
    there = [place for place in planes if carried is not None and known.get(place) and place not in carried]
    kept = f"; labels on {len(there)} of these are {'kept' if wish.protect else 'painted over'}" if there else ""
    return Plan(wish, line, planes, tuple(keys), len(labels), f"{sentence}{_at(source, line)}{kept}.", produce)


def again_from(last: Plan, place: int, known: Known, unread: Unread) -> Plan:
    """What depends on a plane that was corrected, once more, with that plane among the key planes.

    Raises
    ------
    ValueError
        If it cannot be done.
    """
    source = last.wish.source
    assert source is not None  # it was run
    if last.wish.task != "carry":
        raise ValueError("only carried objects can be carried on from a plane; correct the others one by one")
    keys = sorted({*last.keys, place})
    if place in unread:
        raise ValueError(f"{_unread(place, unread)}; show another one")
    if place not in known:
        raise ValueError("the plane is being looked at ...")
    if not known[place]:
        raise ValueError(f"plane {place} has no labels to carry on from; label it first")
    depends = affected(last.line.count, last.keys, place)
    wish = last.wish
    span = range(max(depends.start, wish.first), min(depends.stop, wish.last + 1))
    return carry_plan(wish, source, last.line, keys, known, span)


def _keys(wish: Wish, line: PlaneLine, known: Known, unread: Unread, traces: Traces, shown: int | None) -> list[int]:
    """The planes to carry from.

    Raises
    ------
    ValueError
        If there are none.
    """
    if wish.start == "shown":
        if shown is None:
            raise ValueError("the view shows no single plane of the image; show it from the front, in 2D")
        return [shown]
    if wish.start == "these":
        return numbers(wish.these, line.count)
    if (done := len(known) + len(unread)) < line.count:
        raise ValueError(f"the labelled planes are being looked for: {done} of {line.count} are done ...")
    if unread:
        told = _unread(min(unread), unread)
        raise ValueError(f"{told}; choose From: These planes, and write the numbers of the labelled ones")
    found = sorted(place for place, labels in known.items() if labels and place not in traces.carried)
    if not found:
        raise ValueError("no plane has labels yet; label one or more, and they are carried to the others")
    return found


def _unread(place: int, unread: Unread) -> str:
    error = unread[place]
    why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return f"plane {place} of the labels cannot be read ({why})"


def numbers(text: str, count: int) -> list[int]:
    """Places from what a person typed, such as 0,10,20-22.

    Raises
    ------
    ValueError
        If they are no places.
    """
    spans = list[tuple[int, int]]()
    try:
        for part in text.replace(",", " ").split():
            begin, _, end = part.partition("-")
            spans.append((int(begin), int(end or begin)))
    except ValueError:
        raise ValueError(f"planes are numbers such as 0,10,20, got '{text.strip()}'; correct them") from None
    if not spans:
        raise ValueError("write the numbers of the labelled planes, such as 0,10,20")
    for first, last in spans:
        if first > last:
            raise ValueError(f"planes {first}-{last} are none; exchange the two")
        if last >= count:  # none can be negative
            raise ValueError(f"there is no plane {last}; they are counted from 0 to {count - 1}")
    return sorted({place for first, last in spans for place in range(first, last + 1)})


def _refine(wish: Wish, source: ImageSource, line: PlaneLine, known: Known) -> Plan:
    coarse = wish.coarse
    if coarse is None:
        raise ValueError("open the labels to be refined in a Labels layer of the image's shape")
    if coarse is wish.labels:
        raise ValueError("the refined labels need a layer of their own; choose another one, or a new layer")
    planes = tuple(place for place in range(wish.first, wish.last + 1) if known.get(place, True))
    if not planes:
        raise ValueError(f"labels '{coarse.name}' are empty on these planes; choose others")
    data, name = coarse.data, coarse.name
    for place in planes:
        check_values(known.get(place, ()), f"plane {place} of '{name}'")

    def prompted() -> Iterator[Prompted]:
        for place in planes:
            labels = read_plane(data, line, place)
            check_values((int(labels.min()), int(labels.max())), f"plane {place} of '{name}'")
            masks = objects_of(labels)
            yield place, [(label, ExtremePoints.from_mask(one.mask, one.origin)) for label, one in masks.items()]

    def produce(predictor: Any, _: int) -> Iterator[PropagatedPlane]:
        return _segmented(source, line, prompted(), wish.config, predictor)

    count = sum(len(known.get(place, ())) for place in planes)
    what = "The objects" if len(known) < line.count else many(count, "object")
    sentence = f"{what} of '{coarse.name}' on {many(len(planes), 'plane')} will be refined"
    into = "a new layer" if wish.labels is None else f"'{wish.labels.name}'"
    sentence = f"{sentence} into {into}{_at(source, line)}."
    return Plan(wish, line, planes, (), max(1, count // len(planes)), sentence, produce)


def _from_points(wish: Wish, source: ImageSource, line: PlaneLine) -> Plan:
    if wish.points is None:
        raise ValueError("add a Points layer with the four extreme points of each object")
    groups = {
        place: objects
        for place, objects in clicked(wish.points, source, line).items()
        if wish.first <= place <= wish.last
    }
    if not groups:
        raise ValueError(f"'{wish.points.name}' has no points on these planes; every four points are one object")
    count = sum(map(len, groups.values()))

    def produce(predictor: Any, next_label: int) -> Iterator[PropagatedPlane]:
        label, prompted = next_label, []
        for place, objects in sorted(groups.items()):
            prompted.append((place, list(enumerate(objects, label))))
            label += len(objects)
        return _segmented(source, line, iter(prompted), wish.config, predictor)

    planes = tuple(sorted(groups))
    into = "a new layer" if wish.labels is None else f"'{wish.labels.name}'"
    on = f"plane {planes[0]}" if len(planes) == 1 else f"{len(planes)} planes"
    sentence = f"{many(count, 'object')} of four points each will be outlined on {on}, in {into}{_at(source, line)}."
    return Plan(wish, line, planes, (), max(1, count // len(planes)), sentence, produce, new=count)


def clicked(points: Points, source: ImageSource, line: PlaneLine) -> dict[int, list[ExtremePoints]]:
    """The objects of a Points layer, every four points one, by the planes that they lie on.

    Raises
    ------
    ValueError
        If points are missing, or those of an object lie on several planes.
    """
    if points.ndim < source.ndim:
        raise ValueError(
            f"'{points.name}' has {points.ndim} axes and the image {source.ndim}; add the points anew on it"
        )
    rows = np.asarray(points.data)
    if over := len(rows) % _CLICKS:
        raise ValueError(
            f"'{points.name}' has {many(len(rows), 'point')}, and every four are one object; add {_CLICKS - over} or "
            f"remove {over}"
        )
    layer, found = source.layer, dict[int, list[ExtremePoints]]()
    others = [axis for axis in range(source.ndim) if axis not in line.axes]
    for begin in range(0, len(rows), _CLICKS):
        world = [np.asarray(points.data_to_world(row))[-layer.ndim :] for row in rows[begin : begin + _CLICKS]]
        padded = [np.concatenate([np.zeros(layer.ndim - len(point)), point]) for point in world]
        places = np.array([np.asarray(layer.world_to_data(p))[layer.ndim - source.ndim :] for p in padded])
        index = np.rint(places[:, others]).astype(int)
        if (index != index[0]).any():
            raise ValueError(
                f"points {begin} to {begin + _CLICKS - 1} of '{points.name}' lie on several planes; move them to one"
            )
        here = dict(zip(others, index[0].tolist(), strict=True))
        if all(here[axis] == at for axis, at in zip(others, line.at, strict=True) if axis != line.along):
            prompt = ExtremePoints.from_clicks([tuple(row) for row in places[:, list(line.axes)].tolist()])
            found.setdefault(here[line.along], []).append(prompt)
    return found


def _segmented(
    source: ImageSource,
    line: PlaneLine,
    prompted: Iterator[Prompted],
    config: PropagationConfig,
    predictor: Any,
) -> Iterator[PropagatedPlane]:
    from napari_delse.stacks.planewise import segment_planes

    return segment_planes(predictor, PlanesOf(source, line), prompted, config)


def read_plane(data: Any, line: PlaneLine, place: int) -> npt.NDArray[Any]:
    """A plane of labels, a copy."""
    key = line.key(place)
    rows, columns = (slice(0, side) for side in key.shape(data.shape))
    return np.array(key.flat(np.asarray(data[key.key(rows, columns)])))


def _at(source: ImageSource, line: PlaneLine) -> str:
    """Where the other sliders stand, if there are any."""
    named = {axis: name for name, axis in axes_along(source)}
    others = [axis for axis in range(source.ndim) if axis not in line.axes]
    told = [
        f"{named[axis]} {at}" for axis, at in zip(others, line.at, strict=True) if axis != line.along and axis in named
    ]
    return f", at {' and '.join(told)}" if told else ""
