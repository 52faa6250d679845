"""Looking over the objects of a session: lines of a list, the most uncertain one, the next unnamed one, prompts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from napari_delse.annotation.actions import Draft, LabelledObject
from napari_delse.annotation.edits import PlaneKey
from napari_delse.data.prompts import ObjectPrompt
from napari_delse.geometry import Correction

Objects = Mapping[int, LabelledObject]


class ObjectRow(NamedTuple):
    """One line of a review list.

    Parameters
    ----------
    label : int
        The object's value in the labels.
    plane : PlaneKey
        Its plane, or the first of several.
    planes : int
        How many planes it was made in.
    area : int
        Pixels that were written.
    confidence : float
        The lowest of its pieces.
    prompts : int
        Clicks and drags that people made for it; a box counts as two clicks.
    class_name : str
        Empty if nobody said so.
    """

    label: int
    plane: PlaneKey
    planes: int
    area: int
    confidence: float
    prompts: int
    class_name: str


def row_of(made: LabelledObject) -> ObjectRow:
    """What to show of an object."""
    pieces = (made, *made.others)
    return ObjectRow(
        made.label,
        made.plane,
        len(pieces),
        sum(piece.area for piece in pieces),
        min(piece.confidence for piece in pieces),
        sum(len(draft.clicks) + len(draft.corrections) for draft in made.prompts),
        made.class_name,
    )


def most_uncertain(rows: Iterable[ObjectRow], seen: Collection[int] = ()) -> int | None:
    """The label of the lowest confidence that was not looked at yet."""
    left = [row for row in rows if row.label not in seen]
    return min(left, key=lambda row: (row.confidence, row.label)).label if left else None


def next_unnamed(objects: Objects, label: int | None = None) -> int | None:
    """The next object without a class name after one, by label; round the end, and None if all have one."""
    unnamed = [one for one, made in sorted(objects.items()) if not made.class_name]
    later = [one for one in unnamed if label is None or one > label]
    return next(iter(later or unnamed), None)


def next_empty_plane(objects: Objects, shown: PlaneKey, shape: Sequence[int]) -> PlaneKey | None:
    """The next plane after the shown one in which no object was made; round the end, and None if each has one.

    Parameters
    ----------
    objects : mapping
        `AnnotationSession.objects`.
    shown : PlaneKey
        The plane to begin after; only planes along the same two axes are looked at.
    shape : sequence of int
        Shape of the labels.
    """
    axes = sorted(shown.axes)
    filled = {
        piece.plane.index for made in objects.values() for piece in made.pieces if sorted(piece.plane.axes) == axes
    }
    counts = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    total = math.prod(counts)
    here = int(np.ravel_multi_index(shown.index, counts)) if counts else 0
    for step in range(1, total + 1):
        index = tuple(int(i) for i in np.unravel_index((here + step) % total, counts)) if counts else ()
        if index not in filled:
            return PlaneKey(shown.axes, index)
    return None


def class_names(objects: Objects) -> dict[int, str]:
    """Label -> class name, of those that have one."""
    return {label: made.class_name for label, made in sorted(objects.items()) if made.class_name}


def object_prompts(objects: Objects) -> tuple[list[ObjectPrompt], list[int]]:
    """Prompts for `data.prompts.write_prompts`.

    Parameters
    ----------
    objects : mapping
        `AnnotationSession.objects`.

    Returns
    -------
    list of ObjectPrompt
        One per object and plane.
    list of int
        Labels left out: outlined in a plane that is not spanned by the last two axes, which a table cannot say.
    """
    found, left_out = [], []
    for label, made in sorted(objects.items()):
        for piece in made.pieces:
            last = len(piece.plane.index) + 1
            if set(piece.plane.axes) != {last - 1, last}:
                left_out.append(label)
                break
            draft = _turned(piece.draft) if piece.plane.axes[0] == last else piece.draft
            prompt = draft.prompt()
            found.append(ObjectPrompt(label, piece.plane.index, prompt, draft.corrections))
    return found, left_out


def evolved_otherwise(objects: Objects) -> list[int]:
    """Labels of objects with evolution settings of their own, which a table of prompts does not say."""
    return [
        label
        for label, made in sorted(objects.items())
        if any(piece.draft.evolution is not None for piece in made.pieces)
    ]


def _turned(draft: Draft) -> Draft:
    """The same prompts in a plane with its axes exchanged."""
    clicks = tuple((x, y) for y, x in draft.clicks)
    drags = tuple(Correction((c.start[1], c.start[0]), (c.end[1], c.end[0])) for c in draft.corrections)
    return replace(draft, clicks=clicks, corrections=drags)
