"""What a fine-tuning will learn from, told before it begins: objects, planes, problems, and what is held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from napari_delse._words import many
from napari_delse.data.labelled_planes import Box, LabelledPlane
from napari_delse.finetuning.labelled_sources import Source

MIN_AREA = 12  # pixels; smaller labels are specks
FEW = 5  # objects with which the held-out score begins to say something
ENOUGH = 10  # objects from which on nobody needs a warning
_FITS = 1.4  # times as many held-out objects as wanted are still right
_GAP = 2  # planes beside the held-out ones that look too much like them
_PARTS = 5  # separate parts that make a label look like a mask of many objects
_LOOKED_INTO = 8  # objects of a plane whose pixels tell images from each other
_MIDDLE = 8  # pixels on each side of their middles
_SMALL_PLANE = 2**24  # pixels of a plane whose parts are counted


class ObjectKey(NamedTuple):
    """Which object."""

    plane: int  # position in the survey
    label: int


@dataclass(frozen=True)
class PlaneFacts:
    """One plane with objects.

    Parameters
    ----------
    name, number : str, int
        Of the image, and which of its planes.
    index : tuple of int
        Its place on each of the image's plane axes, such as t and z.
    shape : (int, int)
        Height and width.
    channels : int
        How many are looked at.
    labels, areas, boxes
        Of the objects of 12 pixels or more.
    specks : int
        Smaller ones.
    pixels : str
        Hash of pixels in the middle of some objects, to know another image by.
    """

    name: str
    number: int
    index: tuple[int, ...]
    shape: tuple[int, int]
    channels: int
    rgb: bool
    labels: tuple[int, ...]
    areas: tuple[int, ...]
    boxes: tuple[Box, ...]
    specks: int = 0
    pixels: str = ""


@dataclass(frozen=True)
class Split:
    """Which objects train and which are held out; none is on both sides.

    Parameters
    ----------
    training, held_out, left_out : tuple of ObjectKey
        Those left out lie too near the held-out ones.
    how : str
        One sentence.
    """

    training: tuple[ObjectKey, ...] = ()
    held_out: tuple[ObjectKey, ...] = ()
    left_out: tuple[ObjectKey, ...] = ()
    how: str = ""


@dataclass(frozen=True)
class Survey:
    """What was found in a source.

    Parameters
    ----------
    name : str
        Of the source.
    about : dict
        Where the planes come from.
    planes : tuple of PlaneFacts
        Those with objects.
    seen : int
        Planes that were looked at.
    prompted, dragged : int
        Objects whose clicks were recorded, and those with drags.
    problems : tuple of str
        Why nothing can be trained; one sentence each.
    remarks : tuple of str
        What a person should know; one sentence each.
    split : Split
        What is held out.
    complete : bool
        False while planes are still looked at.
    """

    name: str
    about: dict[str, Any]
    planes: tuple[PlaneFacts, ...] = ()
    seen: int = 0
    prompted: int = 0
    dragged: int = 0
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    split: Split = Split()
    complete: bool = False

    @property
    def objects(self) -> int:
        """How many there are."""
        return sum(len(plane.labels) for plane in self.planes)

    @property
    def ready(self) -> bool:
        """Whether it can be trained on."""
        return self.complete and not self.problems

    @property
    def fingerprint(self) -> str:
        """Of the objects: their places, areas and boxes, and some of their pixels."""
        text = json.dumps([asdict(plane) for plane in self.planes])
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def sentences(self) -> list[str]:
        """All of it in plain sentences: problems first, then what was found, the split and remarks."""
        if not self.planes:
            return list(self.problems)
        return [*self.problems, *_found(self), *([self.split.how] if self.split.how else []), *self.remarks]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "source": self.about,
            "objects": self.objects,
            "planes": len(self.planes),
            "planes_seen": self.seen,
            "training_objects": len(self.split.training),
            "held_out_objects": len(self.split.held_out),
            "left_out_objects": len(self.split.left_out),
            "fingerprint": self.fingerprint,
            "problems": list(self.problems),
            "sentences": self.sentences(),
        }


def survey(source: Source, validation: float = 0.25) -> Survey:
    """Look at all planes of a source; see `look`."""
    *_, last = look(source, validation)
    return last


def look(source: Source, validation: float = 0.25) -> Generator[Survey, None, None]:
    """Look at a source plane by plane.

    Parameters
    ----------
    source : Source
        What would be trained on.
    validation : float
        Share of the objects to hold out.

    Yields
    ------
    Survey
        After each plane what is known so far; the last one is complete. What is wrong with the source is among its
        problems and not raised.
    """
    known = Survey(source.name if _named(source) else "data", {})
    found: list[PlaneFacts] = []
    hints: list[str] = []
    try:
        known = replace(known, about=source.about())
        for plane in source.planes():
            facts, hint, prompts = _plane_facts(plane)
            known = replace(known, seen=known.seen + 1)
            if facts.labels or facts.specks:
                found.append(facts)
                hints.extend(hint)
            known = replace(
                known,
                planes=tuple(found) if facts.labels else known.planes,
                prompted=known.prompted + prompts[0],
                dragged=known.dragged + prompts[1],
            )
            yield known
    except (ValueError, OSError, ImportError) as error:
        yield replace(known, problems=(_sentence(error),), complete=True)
        return
    yield _completed(replace(known, planes=tuple(p for p in found if p.labels)), found, hints, validation)


def _named(source: Source) -> bool:
    try:
        return bool(source.name)
    except (ValueError, OSError):
        return False


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _plane_facts(plane: LabelledPlane) -> tuple[PlaneFacts, list[str], tuple[int, int]]:
    """Facts, remarks, and how many objects have recorded clicks and drags."""
    objects = plane.objects()
    kept = {label: one for label, one in objects.items() if one.area >= MIN_AREA}
    if kept and (value := plane.constant()) is not None:
        raise ValueError(
            f"image {plane.where} is {value:g} in every pixel, so nothing can be learned from its labels; "
            "export it again or leave it out"
        )
    height, width = plane.image.shape
    facts = PlaneFacts(
        plane.name,
        plane.number,
        plane.labels.index or (plane.number,),
        (height, width),
        len(plane.image.channels) or 1,
        plane.image.rgb,
        tuple(kept),
        tuple(one.area for one in kept.values()),
        tuple(one.box for one in kept.values()),
        len(objects) - len(kept),
        _some_pixels(plane, [one.box for one in kept.values()]),
    )
    said = [plane.prompts[label] for label in kept if label in plane.prompts]
    return facts, _looks_binary(plane, kept), (len(said), sum(1 for one in said if one.corrections))


def _some_pixels(plane: LabelledPlane, boxes: Sequence[Box]) -> str:
    found = hashlib.blake2b(digest_size=8)
    for y0, x0, y1, x1 in boxes[:: -(-len(boxes) // _LOOKED_INTO) or 1]:
        y, x = (y0 + y1) // 2, (x0 + x1) // 2
        window = max(y0, y - _MIDDLE), max(x0, x - _MIDDLE), min(y1, y + _MIDDLE) + 1, min(x1, x + _MIDDLE) + 1
        found.update(np.ascontiguousarray(plane.image.window(*window)).tobytes())
    return found.hexdigest()


def _looks_binary(plane: LabelledPlane, objects: dict[int, Any]) -> list[str]:
    height, width = plane.labels.shape
    if len(objects) != 1 or height * width > _SMALL_PLANE:
        return []
    ((label, facts),) = objects.items()
    y0, x0, y1, x1 = facts.box
    _, parts = ndimage.label(plane.ids(y0, x0, y1 + 1, x1 + 1) == label)
    if parts < _PARTS:
        return []
    what = f"Label {label} of {plane.where} has {parts} separate parts"
    return [f"{what}: if these are different objects, give each a number of its own."]


def _completed(known: Survey, found: Sequence[PlaneFacts], hints: Sequence[str], validation: float) -> Survey:
    total, specks = known.objects, sum(plane.specks for plane in found)
    if total < 2:
        problem = (
            f"{total} labelled object{'s' * (total != 1)} of {MIN_AREA} pixels or more cannot be trained and checked "
            "on; label at least two, better ten"
        )
        return replace(known, problems=(problem,), complete=True)
    remarks = list(hints[:3])
    split = split_planes(known.planes, validation)
    if total < ENOUGH:
        few = "too few to tell a better model from a lucky one" if total < FEW else "few"
        remarks.append(f"{total} labelled objects are {few}; ten or more are better.")
    if specks:
        remarks.append(f"{many(specks, 'label')} of fewer than {MIN_AREA} pixels {_is(specks)} left out.")
    if len({(plane.channels, plane.rgb) for plane in known.planes}) > 1:
        remarks.append("Some images have other channels than others.")
    return replace(known, split=split, remarks=tuple(remarks), complete=True)


# ---------------------------------------------------------------- split


def split_planes(planes: Sequence[PlaneFacts], validation: float) -> Split:
    """Training and held-out objects that do not leak into each other.

    Whole images are held out where there are several; else the last planes of the stack with a gap beside them along
    each of its axes, because neighbouring planes look alike; else the objects on one side of the only plane. Where
    whole images or planes are far from the share, as with twenty objects on two images, one of them is parted:
    labelled objects are too precious to hold out half of them.

    Parameters
    ----------
    planes : sequence of PlaneFacts
        Planes with objects, in order.
    validation : float
        Share of the objects to hold out; at least one is, and at least one is not.

    Raises
    ------
    ValueError
        If there are fewer than two objects.
    """
    total = sum(len(plane.labels) for plane in planes)
    if total < 2:
        raise ValueError(f"{total} labelled objects cannot be split; label at least two, better ten")
    keys = [_to_the_right(i, plane) for i, plane in enumerate(planes)]
    names = list(dict.fromkeys(plane.name for plane in planes))
    if len(names) > 1:
        units = [[k for i, p in enumerate(planes) if p.name == name for k in keys[i]] for name in names]
        training, held = _from_the_end(units, total, validation)
        count = len({planes[k.plane].name for k in held})
        how = f"{many(count, 'image')} with {many(len(held), 'object')} {_is(count)} held out"
        if {planes[k.plane].name for k in training} & {planes[k.plane].name for k in held}:
            how = f"{many(len(held), 'object')} of {many(count, 'image')} {_is(len(held))} held out"
        return Split(tuple(training), tuple(held), (), f"{how} ({_some(names[-count:])}).")
    if len(planes) > 1:
        training, held = _from_the_end([k for k in keys if k], total, validation)
        return _with_gap(planes, training, held)
    training, held = _from_the_end([[k] for k in keys[0]], total, validation)
    how = f"The {many(len(held), 'object')} farthest to the right {_is(len(held))} held out."
    return Split(tuple(training), tuple(held), (), how)


def _to_the_right(number: int, plane: PlaneFacts) -> list[ObjectKey]:
    """The objects of a plane from left to right."""
    ordered = sorted(zip(plane.labels, plane.boxes, strict=True), key=lambda one: one[1][1] + one[1][3])
    return [ObjectKey(number, label) for label, _ in ordered]


def _from_the_end(
    units: list[list[ObjectKey]], total: int, validation: float
) -> tuple[list[ObjectKey], list[ObjectKey]]:
    """Hold whole units out from the end while they fit; part one if too few are held out otherwise."""
    units = [unit for unit in units if unit]
    wanted = min(max(1, round(validation * total)), total - 1)
    held: list[ObjectKey] = []
    while len(units) > 1 and len(held) < wanted and len(held) + len(units[-1]) <= _FITS * wanted:
        held = [*units.pop(), *held]
    if len(held) < wanted / _FITS:
        missing = wanted - len(held)
        held = [*units[-1][-missing:], *held]
        units[-1] = units[-1][:-missing]
    return [key for unit in units for key in unit], held


def _with_gap(planes: Sequence[PlaneFacts], training: list[ObjectKey], held: list[ObjectKey]) -> Split:
    """Leave planes beside the held-out ones out, but never more than a quarter of the training objects."""
    numbers = sorted({planes[k.plane].number for k in held})
    tree = KDTree([planes[i].index for i in sorted({k.plane for k in held})])
    away, _ = tree.query([planes[k.plane].index for k in training], p=np.inf)  # steps along the axis with the most
    widths = (width for width in range(1, _GAP + 1) if 4 * (away > width).sum() >= 3 * len(training))
    gap = max(widths, default=-1)
    kept, left = ([k for k, is_far in zip(training, away > gap, strict=True) if is_far == far] for far in (True, False))
    axes = [len(set(along)) > 1 for along in zip(*(plane.index for plane in planes), strict=True)]
    several = sum(axes) > 1  # then the numbers of the planes beside are no range
    planes_of = "Plane" if len(numbers) == 1 else "Planes"
    how = f"{planes_of} {_range(numbers)} with {many(len(held), 'object')} {_is(len(numbers))} held out"
    if left:
        beside = sorted({planes[k.plane].number for k in left})
        which = f"{'planes' if len(beside) > 1 else 'plane'} {_range(beside)}"
        how += f", and {many(len(beside), 'plane') if several else which} beside {_them(numbers)} left out"
    elif gap < 0 and (away == 1).any():
        alike = f"planes beside {_them(numbers)} look" if several else f"plane before {_them(numbers)} looks"
        how += f"; the {alike} much alike, so the score may be a little too good"
    return Split(tuple(kept), tuple(held), tuple(left), how + ".")


# ---------------------------------------------------------------- words


def _found(known: Survey) -> Iterator[str]:
    planes = known.planes
    images = len({plane.name for plane in planes})
    place = f"{many(len(planes), 'plane')} of {many(images, 'image')}" if len(planes) > 1 or images > 1 else "one plane"
    yield f"{many(known.objects, 'labelled object')} in {place}; {known.seen} looked at."
    shapes = sorted({plane.shape for plane in planes})
    size = f"{shapes[0][0]} x {shapes[0][1]}"
    if len(shapes) > 1:
        size += f" to {shapes[-1][0]} x {shapes[-1][1]}"
    colours = {("colours" if p.rgb else many(p.channels, "channel")) for p in planes}
    yield f"Planes of {size} pixels, {' or '.join(sorted(colours))}."
    areas = np.concatenate([plane.areas for plane in planes])
    middle = float(np.median(areas))
    yield (
        f"Objects of {_pixels(areas.min())} to {_pixels(areas.max())} pixels, half of them above {_pixels(middle)} "
        f"(about {round(2 * np.sqrt(middle / np.pi))} across)."
    )
    if known.prompted:
        yield f"The clicks of {known.prompted} of them were recorded, and of {known.dragged} also drags."


def _pixels(value: float) -> str:
    return f"{round(float(value)):,}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _them(numbers: Sequence[int]) -> str:
    return "it" if len(numbers) == 1 else "them"


def _range(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
