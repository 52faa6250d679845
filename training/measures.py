"""What a column of a table says about scored objects."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from napari_delse.data.samples import group_of
from napari_delse.evaluation import ObjectKey
from napari_delse.metrics import WIDTHS, Scores, Statistics, sequence_statistics

CLASS = 1000  # ids of a prepared data set: 1000 * class + number
_NAMED = re.compile(r"(?P<base>[a-z]+(?:_[a-z]+)*|(?:class_)?f_(?P<width>\d+)px|class:(?P<one>.+?))(?:@(?P<step>\d+))?")


class Scored(NamedTuple):
    """One object with its scores after 0..K corrections."""

    key: ObjectKey
    steps: tuple[Scores, ...]


def read_cards(sets: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """What the data sets say about themselves (`dataset.json`), by name; nothing where there is none."""
    cards = {}
    for name, folder in sets.items():
        card = folder / "dataset.json"
        cards[name] = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    return cards


def step_of(name: str) -> int:
    """After how many corrections a measure looks."""
    return int(name.rpartition("@")[2]) if "@" in name else 0


def measure(name: str, scored: Sequence[Scored], cards: Mapping[str, Mapping[str, Any]]) -> float:
    """One figure in [0, 1] for many scored objects.

    Parameters
    ----------
    name : str
        ``miou`` or ``f_2px`` (k = 1..10): mean over the objects. ``class_miou`` or ``class_f_2px``: mean over the
        classes of their means. ``class:car``: mean IoU of one class. ``j_mean``, ``j_recall``, ``f_mean``,
        ``f_recall``: DAVIS, over the sequences. Each with ``@2`` behind it for the score after two corrections.
    scored : sequence of Scored
        At least one object.
    cards : mapping
        What `read_cards` returned.

    Raises
    ------
    ValueError
        If there is no such measure, or a data set lacks what it needs.
    """
    found = _NAMED.fullmatch(name)
    if not found:
        raise ValueError(f"unknown measure {name!r}; there are miou, f_2px, class_miou, class:NAME, j_mean ...")
    step = step_of(name)
    if step >= len(scored[0].steps):
        raise ValueError(f"{name!r} needs {step} corrections; add drags or clicks to the evaluation of its row")
    base = found["base"]
    if found["one"]:
        classes = _by_class(scored, cards)
        return _mean([s.steps[step].iou for s in classes.get(found["one"], [])])
    value = _value_of(base, found["width"], step)
    if base.startswith("class_"):
        return _mean([_mean([value(s) for s in group]) for group in _by_class(scored, cards).values()])
    if base in ("j_mean", "j_recall", "f_mean", "f_recall"):
        return _davis(base, scored, cards, step)
    return _mean([value(s) for s in scored])


def _value_of(base: str, width: str | None, step: int) -> Callable[[Scored], float]:
    if width is not None:
        if int(width) not in WIDTHS:
            raise ValueError(f"F is known within {WIDTHS[0]} to {WIDTHS[-1]} px, not {width}")
        return lambda scored: scored.steps[step].boundary_f[WIDTHS.index(int(width))]
    if base not in ("miou", "class_miou", "j_mean", "j_recall", "f_mean", "f_recall"):
        raise ValueError(f"unknown measure {base!r}; there are miou, f_2px, class_miou, class:NAME, j_mean ...")
    return lambda scored: scored.steps[step].iou


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _by_class(scored: Sequence[Scored], cards: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Scored]]:
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        classes = cards[one.key.set].get("classes")
        if not classes:
            raise ValueError(f"{one.key.set} has no classes in its dataset.json; prepare it with training/prepare")
        groups.setdefault(classes[str(one.key.label // CLASS)], []).append(one)
    return groups


def _davis(base: str, scored: Sequence[Scored], cards: Mapping[str, Mapping[str, Any]], step: int) -> float:
    """J or F at DAVIS' official width; without a sequence's first and last frame where all were evaluated."""
    frames: dict[tuple[str, str], list[Scored]] = {}
    for one in scored:
        card = cards[one.key.set]
        if "sequences" not in card:
            raise ValueError(f"{one.key.set} has no sequences in its dataset.json; prepare it with training/prepare")
        frames.setdefault((one.key.set, group_of(one.key.name, card["group"])), []).append(one)
    values: dict[str, list[float]] = {}
    for (owner, sequence), ones in frames.items():
        about = cards[owner]["sequences"][sequence]
        ordered = sorted(ones, key=lambda one: one.key)
        counted = ordered[1:-1] if len(ordered) == about["frames"] else ordered
        at = WIDTHS.index(about["width"])
        values[f"{owner}/{sequence}"] = [
            one.steps[step].iou if base.startswith("j") else one.steps[step].boundary_f[at] for one in counted
        ]
    overall: Statistics = sequence_statistics(values)[0]
    return overall.mean if base.endswith("mean") else overall.recall
