"""What the status line says: always what to do next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from napari_delse._words import many
from napari_delse.annotation.actions import EXTREME_CLICKS

_AREAS = 4  # so many areas of dropped parts are told one by one
_POINTS = ("top-most", "right-most", "bottom-most", "left-most")

NO_IMAGE = "Open an image to begin: drop a file onto the window, or take File > Open Sample > DELSE."


class Words(NamedTuple):
    """How to accept, to start over and to take another tool: keys, or where there are none, something to click."""

    accept: str = "Enter"
    start_over: str = "Esc"
    switch_tool: str = "W"

    @classmethod
    def of(cls, key: Callable[[str], str]) -> Words:
        """From the keys of actions, which may be empty."""
        return cls(
            key("accept_here") or key("accept") or "the button Accept",
            key("start_over") or "the button Start over",
            key("switch_tool") or "a click on the layer",
        )


def next_click(missing: int, words: Words) -> str:
    """Which point to click while some of the four are missing."""
    number = max(0, EXTREME_CLICKS - missing)
    if number == 0:
        return f"Click the {_POINTS[0]} point of an object (1 of {EXTREME_CLICKS}; any order will do)."
    return (
        f"Click its {_POINTS[number]} point ({number + 1} of {EXTREME_CLICKS}). {_first(words.start_over)} starts over."
    )


def preview(area: int, confidence: float, words: Words) -> str:
    """What can be done with a preview."""
    if area == 0:
        return (
            "No object was found there: click further points of its boundary, or start over "
            f"({words.start_over}) and click anew."
        )
    sure = f", {confidence:.0%} sure" if confidence == confidence else ""
    return (
        f"Preview of {many(area, 'pixel')}{sure}. {_first(words.accept)} accepts it. To correct it, pull the outline, "
        f"or click where it should pass. {_first(words.start_over)} starts over."
    )


def tidied(label: int, filled: int, dropped: Sequence[int]) -> str:
    """What was done to an object on its way into the labels; empty if nothing was."""
    parts = []
    if filled:
        parts.append(f"{many(filled, 'pixel')} of holes filled")
    if dropped:
        areas = ", ".join(f"{area:,}" for area in dropped[:_AREAS]) + (", ..." if len(dropped) > _AREAS else "")
        parts.append(f"{many(len(dropped), 'small part')} left out ({areas} px)")
    return f"Object {label}: {' and '.join(parts)}." if parts else ""


def _first(words: str) -> str:
    return words[0].upper() + words[1:]


def labels_wanted(dtype: str) -> str:
    """Why unfinished work cannot be restored without the labels that it began with."""
    return (
        "this work began with labels that were there already; open them as "
        f"{np.dtype(dtype)}, choose them as the labels, and restore it then"
    )


def own_labels(image: str, others: str) -> str:
    """Why new labels were made although others of the same shape are worked on."""
    return f"'{image}' gets labels of its own. To go on in '{others}', choose these under Settings."


def labels_elsewhere(labels: str, image: str) -> str:
    """Labels that are shown in another place than the image whose pixels they have."""
    return (
        f"'{labels}' has another scale or place than '{image}', so that objects are shown beside their outlines. Pixel "
        "for pixel they fit; give the labels layer the scale and translate of the image."
    )


def sentence(error: BaseException | str) -> str:
    """The first line of an error as one sentence for a person."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
