"""What it takes to commit, delete, merge, split or rename objects: plans that change nothing yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from napari_delse.annotation.actions import (
    Action,
    Classify,
    Commit,
    Delete,
    Draft,
    LabelledObject,
    Merge,
    Reopen,
    Split,
)
from napari_delse.annotation.edits import (
    LabelStore,
    PackedMask,
    PixelEdit,
    PlaneKey,
    check_label,
    cut,
    pixels_of,
    union,
)
from napari_delse.annotation.policy import LabelPolicy, drop_small, separate, tidy
from napari_delse.geometry import ObjectMask

Objects = Mapping[int, LabelledObject]


def find(objects: Objects, label: int, what: str) -> LabelledObject:
    """The object of a label.

    Raises
    ------
    ValueError
        If this session did not make it.
    """
    if label not in objects:
        raise ValueError(f"label {label} was not made here, so there is nothing to {what}")
    return objects[label]


def plan_commit(
    store: LabelStore,
    draft: Draft,
    mask: ObjectMask,
    confidence: float,
    label: int,
    policy: LabelPolicy,
    former: LabelledObject | None,
) -> Commit:
    """Write a mask under a label; of the former object of that label, what it wrote itself goes.

    Raises
    ------
    ValueError
        If the mask is empty, all its pixels are protected, or the label does not fit the labels' dtype.
    """
    plane = draft.plane
    if plane is None:
        raise ValueError("there is no preview to accept; click the object's four extreme points first")
    if mask.area == 0:
        raise ValueError("the preview is empty; add a click on the object's boundary, or start over")
    check_label(store, label)
    tidied = tidy(mask, policy)
    current = store.read(plane, *mask.slices)
    free = current == 0
    if former is not None:
        free |= current == label
    if not policy.protect:
        free |= tidied.seen  # what was filled does not overwrite anything
    where, specks = drop_small(tidied.mask.mask & free, policy.min_part)
    chosen = ObjectMask(where, mask.origin)
    if chosen.area == 0:
        raise ValueError(
            f"all {mask.area} pixels of this object already have a label, and labels are protected; "
            "start over, or switch the protection off"
        )
    made = LabelledObject(
        label,
        draft.unlabelled,
        PackedMask.pack(tidied.mask),
        chosen.area,
        confidence,
        filled=tidied.filled,
        dropped=tidied.dropped + specks,
    )
    edits = [PixelEdit.plan(store, plane, chosen, label)]
    if former is not None:
        pieces = list(former.pieces)
        place = next((i for i, piece in enumerate(pieces) if piece.plane == plane), len(pieces))
        if place < len(pieces):
            edits += _erase(store, plane, pieces[place], chosen)
        pieces[place : place + 1] = [made]
        made = replace(LabelledObject.of_pieces(pieces), class_name=former.class_name)
    return Commit(draft, Draft(), tuple(edits), () if former is None else (former,), (made,), replace(policy))


def _erase(store: LabelStore, plane: PlaneKey, piece: LabelledObject, kept: ObjectMask) -> list[PixelEdit]:
    """Take away what an object wrote, where it still is, but for some pixels."""
    old = piece.mask.unpack()
    gone = old.mask & (store.read(plane, *old.slices) == piece.label) & ~cut(kept, *old.slices)
    return [PixelEdit.plan(store, plane, ObjectMask(gone, old.origin), 0)] if gone.any() else []


def _present(store: LabelStore, made: LabelledObject) -> list[tuple[LabelledObject, ObjectMask]]:
    """The pieces of an object with the pixels that they have now, painted or predicted."""
    return [(piece, pixels_of(store, made.label, piece.plane, piece.mask.unpack())) for piece in made.pieces]


def _without(draft: Draft, labels: Sequence[int]) -> Draft:
    """Nothing, if the object in progress is one of these."""
    return Draft() if draft.label in labels else draft


def _everywhere(
    store: LabelStore, objects: Sequence[LabelledObject], actions: Sequence[Action]
) -> dict[int, list[tuple[PlaneKey, ObjectMask]]]:
    """All pixels of objects, also those apart from their pieces that were painted or came from another object."""
    found = {one.label: [(piece.plane, mask) for piece, mask in _present(store, one)] for one in objects}
    for edit in (edit for action in actions for edit in action.pixels):
        for label in found.keys() & edit.labels:
            pixels = pixels_of(store, label, edit.plane, edit.pixels.unpack())
            known = [cut(mask, *pixels.slices) for plane, mask in found[label] if plane == edit.plane]
            if (apart := np.logical_and.reduce([pixels.mask, *(~one for one in known)])).any():
                found[label].append((edit.plane, ObjectMask(apart, pixels.origin)))
    return found


def plan_delete(
    store: LabelStore, draft: Draft, objects: Sequence[LabelledObject], actions: Sequence[Action] = ()
) -> Delete:
    """Remove objects, with what was painted under their labels in these actions."""
    found = _everywhere(store, objects, actions)
    edits = tuple(PixelEdit.plan(store, plane, mask, 0) for pixels in found.values() for plane, mask in pixels)
    return Delete(draft, _without(draft, [made.label for made in objects]), edits, tuple(objects))


def plan_reopen(draft: Draft, made: LabelledObject, plane: PlaneKey | None) -> Reopen:
    """Make an object the one in progress, in one of its planes.

    Raises
    ------
    ValueError
        If it has no pixels in that plane.
    """
    wanted = made.plane if plane is None else plane
    for piece in made.pieces:
        if piece.plane == wanted:
            return Reopen(draft, replace(piece.draft, label=made.label))
    raise ValueError(f"label {made.label} was not made in this plane; go to one of its planes, or click a new object")


def plan_classify(draft: Draft, objects: Sequence[LabelledObject], class_name: str) -> Classify:
    """Give objects a class name, or take it away."""
    named = tuple(replace(made, class_name=class_name) for made in objects)
    return Classify(draft, draft, (), tuple(objects), named)


# ---------------------------------------------------------------- merge


def plan_merge(
    store: LabelStore, draft: Draft, objects: Sequence[LabelledObject], actions: Sequence[Action] = ()
) -> Merge:
    """Give all objects the label of the first, with what was painted under their labels in these actions.

    Raises
    ------
    ValueError
        If there are less than two, or they were outlined in planes of different orientation.
    """
    if len(objects) < 2:
        raise ValueError("merging needs two or more different objects; select more of them")
    if len({one.plane.axes for one in objects}) > 1:
        raise ValueError("objects outlined in differently turned planes cannot be one; outline them in one view")
    first = objects[0]
    edits, by_plane = [], dict[PlaneKey, list[tuple[LabelledObject, ObjectMask]]]()
    for one in objects:
        for piece, mask in _present(store, one):
            by_plane.setdefault(piece.plane, []).append((piece, mask))
    for pixels in _everywhere(store, objects[1:], actions).values():
        edits += [PixelEdit.plan(store, plane, mask, first.label) for plane, mask in pixels if mask.area]
    name = next((one.class_name for one in objects if one.class_name), "")
    pieces = [_joined(plane, group, first.label) for plane, group in by_plane.items()]
    made = replace(LabelledObject.of_pieces(pieces), class_name=name)
    labels = [one.label for one in objects]
    return Merge(draft, _without(draft, labels), tuple(edits), tuple(objects), (made,))


def _joined(plane: PlaneKey, group: Sequence[tuple[LabelledObject, ObjectMask]], label: int) -> LabelledObject:
    """One piece from several in one plane."""
    if len(group) == 1:
        return replace(group[0][0], label=label)
    pieces = [piece for piece, _ in group]
    mask = union([found for _, found in group])
    return LabelledObject(
        label,
        Draft.around(plane, mask) if mask.area else pieces[0].draft,
        PackedMask.pack(mask),
        mask.area,
        min(piece.confidence for piece in pieces),
        origins=tuple(dict.fromkeys(prompt for piece in pieces for prompt in piece.prompts)),
    )


# ---------------------------------------------------------------- split


def plan_split(
    store: LabelStore,
    draft: Draft,
    made: LabelledObject,
    next_label: int,
    plane: PlaneKey | None = None,
    mask: ObjectMask | None = None,
) -> Split:
    """Make the unconnected parts of an object, or its pixels inside a mask, objects of their own.

    Raises
    ------
    ValueError
        If there is only one part, or the labels do not fit the labels' dtype.
    """
    present = _present(store, made)
    if mask is None:
        groups = _connected(present)
        if len(groups) < 2:
            raise ValueError(f"label {made.label} is one connected part; outline the part that shall be split off")
    else:
        groups = _cut_off(made, present, made.plane if plane is None else plane, mask)
    check_label(store, next_label + len(groups) - 2)  # the first group keeps its label
    edits, added = [], []
    for number, group in enumerate(groups):
        label = made.label if number == 0 else next_label + number - 1
        by_plane: dict[PlaneKey, list[tuple[LabelledObject, ObjectMask]]] = {}
        for piece, found in group:
            by_plane.setdefault(piece.plane, []).append((piece, found))
        pieces = []
        for where, found_here in by_plane.items():
            pixels = union([found for _, found in found_here])
            if number:
                edits.append(PixelEdit.plan(store, where, pixels, label))
            pieces.append(_part(found_here[0][0], pixels, label, whole=_is_whole(present, where, pixels)))
        added.append(replace(LabelledObject.of_pieces(pieces), class_name=made.class_name))
    return Split(draft, _without(draft, [made.label]), tuple(edits), (made,), tuple(added))


def _is_whole(present: Sequence[tuple[LabelledObject, ObjectMask]], plane: PlaneKey, pixels: ObjectMask) -> bool:
    return any(piece.plane == plane and found.area == pixels.area for piece, found in present)


def _part(piece: LabelledObject, pixels: ObjectMask, label: int, *, whole: bool) -> LabelledObject:
    """A piece that goes on as it is under another label, or the part of it that was split off."""
    if whole:
        return replace(piece, label=label)
    draft = Draft.around(piece.plane, pixels)
    return LabelledObject(label, draft, PackedMask.pack(pixels), pixels.area, piece.confidence, origins=piece.prompts)


def _cut_off(
    made: LabelledObject, present: list[tuple[LabelledObject, ObjectMask]], plane: PlaneKey, mask: ObjectMask
) -> list[list[tuple[LabelledObject, ObjectMask]]]:
    """The object without the pixels inside a mask, and these."""
    rest, off = [], []
    for piece, found in present:
        inside = found.mask & cut(mask, *found.slices) if piece.plane == plane else np.zeros_like(found.mask)
        if inside.any():
            off.append((piece, ObjectMask(inside, found.origin)))
        if (found.mask & ~inside).any():
            rest.append((piece, ObjectMask(found.mask & ~inside, found.origin)))
    if not off or not rest:
        reach = "holds no pixel" if not off else "holds every pixel"
        raise ValueError(f"the part to split off {reach} of label {made.label}; outline a part of it in its plane")
    return [rest, off]


def _connected(
    present: Sequence[tuple[LabelledObject, ObjectMask]],
) -> list[list[tuple[LabelledObject, ObjectMask]]]:
    """Parts that hang together in their plane or overlap in neighbouring planes; the largest first."""
    found = [(piece, part) for piece, pixels in present for part in separate(pixels)]
    group = list(range(len(found)))
    for i, (one, mask) in enumerate(found):
        for j, (other, further) in enumerate(found[:i] if len(present) > 1 else ()):
            if _are_neighbours(one.plane, other.plane) and (mask.mask & cut(further, *mask.slices)).any():
                former, now = group[i], group[j]
                group = [now if g == former else g for g in group]
    groups = [[part for part, g in zip(found, group, strict=True) if g == number] for number in sorted(set(group))]
    return sorted(groups, key=lambda g: -sum(mask.area for _, mask in g))


def _are_neighbours(one: PlaneKey, other: PlaneKey) -> bool:
    return sum(abs(a - b) for a, b in zip(one.index, other.index, strict=True)) == 1
