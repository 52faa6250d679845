"""The objects of a fine-tuning, read from their source window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from napari_delse.data.images import Plane
from napari_delse.data.labelled_planes import IGNORE, Box, LabelledPlane
from napari_delse.data.prompts import ObjectPrompt
from napari_delse.data.samples import Sample
from napari_delse.finetuning.config import FineTuneConfig
from napari_delse.finetuning.held_out import HeldOutObject, around, cut_out
from napari_delse.finetuning.labelled_sources import Source
from napari_delse.finetuning.survey import MIN_AREA, ObjectKey, PlaneFacts, Survey
from napari_delse.geometry import CropConfig, Point
from napari_delse.synthetic.images import synthetic_set
from napari_delse.train.crops import CONTEXT, REACH, ObjectPack, join_packs, pack_objects

SYNTHETIC = 192  # synthetic objects, about, of 24 images, for replay
_SYNTHETIC_IMAGES = 24


def drawn(keys: Sequence[ObjectKey], limit: int, seed: int) -> list[ObjectKey]:
    """At most so many objects, in order."""
    if len(keys) <= limit:
        return list(keys)
    chosen = np.random.default_rng(seed).choice(len(keys), limit, replace=False)
    return [keys[i] for i in sorted(chosen)]


def held_out_objects(source: Source, found: Survey, config: FineTuneConfig, crop: CropConfig) -> list[HeldOutObject]:
    """The objects that models are scored on.

    Parameters
    ----------
    source, found : Source, Survey
        Where the objects are.
    config : FineTuneConfig
        How many.
    crop : CropConfig
        Of the model.
    """
    wanted = drawn(found.split.held_out, config.score_objects, config.seed)
    return [
        cut_out(plane, label, box, crop, (config.seed, number))
        for number, (plane, label, box) in enumerate(_each(source, found, wanted))
    ]


def training_pack(
    source: Source,
    found: Survey,
    config: FineTuneConfig,
    canvas: int,
    told: Callable[[int, int], None] | None = None,
    *,
    reach: float = REACH,
) -> ObjectPack:
    """The training objects (group 0) and synthetic ones (group 1) on canvases.

    Parameters
    ----------
    source, found : Source, Survey
        Where the objects are.
    config : FineTuneConfig
        How many of each.
    canvas : int
        Side of a canvas.
    told : callable, optional
        Called with the number of objects read and of all.
    reach : float
        Plane pixels kept around each object at least: as many as the model's ``crop.min_margin``.
    """
    wanted = drawn(found.split.training, config.objects, config.seed)

    def own() -> Iterator[ObjectPack]:
        for number, (plane, label, box) in enumerate(_each(source, found, wanted)):
            sample, said = _window(plane, label, box, canvas, reach)
            known = {} if said is None else {(sample.name, sample.plane, label): said}
            yield from pack_objects([sample], 0, canvas, min_area=1, reach=reach, recorded=known)
            if told is not None:
                told(number + 1, len(wanted))

    pack = _gathered(own(), len(wanted))
    return join_packs([pack, *_synthetic(config, canvas, reach)]) if config.replay else pack


def _gathered(packs: Iterable[ObjectPack], count: int) -> ObjectPack:
    """Many packs of together ``count`` objects as one, without holding them twice."""
    whole: ObjectPack | None = None
    filled = 0
    for pack in packs:
        if whole is None:
            whole = ObjectPack(*(part.new_empty((count, *part.shape[1:])) for part in pack))
        end = filled + len(pack.pixels)
        for target, part in zip(whole, pack, strict=True):
            target[filled:end] = part
        filled = end
    return join_packs([]) if whole is None else whole


def _synthetic(config: FineTuneConfig, canvas: int, reach: float) -> Iterable[ObjectPack]:
    samples = (
        Sample(f"synthetic-{i}", 0, Plane.of(image), labels.astype(np.uint16))
        for i, (image, labels) in enumerate(synthetic_set(_SYNTHETIC_IMAGES, config.seed))
    )
    return pack_objects(samples, 1, canvas, limit=SYNTHETIC, seed=config.seed, reach=reach)


def _window(
    plane: LabelledPlane, label: int, box: Box, canvas: int, reach: float
) -> tuple[Sample, ObjectPrompt | None]:
    """The part of a plane that an object's canvas shows, with this object alone, and what was clicked there."""
    config = CropConfig(size=canvas, margin=CONTEXT, min_margin=reach, squareness=1)
    y0, x0, y1, x1 = around(plane, box, config, slack=0.02)
    pixels = plane.image.window(y0, x0, y1, x1)
    image = Plane(pixels, axes=(1, 2), channel_axis=0, rgb=plane.image.rgb)
    ids = plane.ids(y0, x0, y1, x1)
    # What surrounds an object is background for it, labelled or not.
    alone = np.where((ids == label) | (ids == IGNORE), ids, 0).astype(np.uint16)
    said = plane.prompts.get(label)
    return Sample(plane.name, plane.number, image, alone), None if said is None else _moved(said, y0, x0)


def _moved(said: ObjectPrompt, y0: int, x0: int) -> ObjectPrompt:
    """Clicks and drags in pixels of a window."""

    def there(point: Point) -> Point:
        return point[0] - y0, point[1] - x0

    prompt = replace(said.prompt, points=tuple(map(there, said.prompt.points)))
    drags = tuple(replace(drag, start=there(drag.start), end=there(drag.end)) for drag in said.corrections)
    return replace(said, prompt=prompt, corrections=drags)


def _each(source: Source, found: Survey, wanted: Sequence[ObjectKey]) -> Iterator[tuple[LabelledPlane, int, Box]]:
    """The wanted objects with their planes; planes without any are not read."""
    by_plane: dict[int, list[int]] = {}
    for key in wanted:
        by_plane.setdefault(key.plane, []).append(key.label)
    position = 0
    for plane in source.planes():
        if position == len(found.planes):
            break
        facts = found.planes[position]
        if (plane.name, plane.number) != (facts.name, facts.number):
            continue
        boxes = dict(zip(facts.labels, facts.boxes, strict=True))
        for label in by_plane.get(position, ()):
            _check(plane, facts, label, boxes[label])
            yield plane, label, boxes[label]
        position += 1
    if position < len(found.planes):
        raise ValueError(f"the labels of {found.name!r} were changed while they were read; look at them again")


def _check(plane: LabelledPlane, facts: PlaneFacts, label: int, box: Box) -> None:
    y0, x0, y1, x1 = box
    fits = plane.image.shape == facts.shape
    if not fits or (plane.ids(y0, x0, y1 + 1, x1 + 1) == label).sum() < MIN_AREA:
        raise ValueError(f"label {label} of {plane.where} was changed while it was read; look at the labels again")
