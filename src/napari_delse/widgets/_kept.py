"""Sessions of a widget that was closed, kept with their labels until another one takes them up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels

from napari_delse.annotation.session import AnnotationSession
from napari_delse.widgets._brush import note_stroke

if TYPE_CHECKING:
    from napari.utils.events import Event


class Kept:
    """A session nobody works on; it hears what is painted meanwhile, and what a recorder would have been told.

    Parameters
    ----------
    layer : Labels
        What the session wrote to.
    session : AnnotationSession
        Without a recorder.
    journal : Path or None
        Where it was recorded.
    """

    def __init__(self, layer: Labels, session: AnnotationSession, journal: Path | None) -> None:
        self.session, self.journal = session, journal
        self.missed: list[dict[str, Any]] = []
        self._fits = _form(layer)
        session.observer, session.recorder = None, self.missed.append
        session.forget_predictions()
        layer.events.paint.connect(self._on_painted)

    def fits(self, layer: Labels) -> bool:
        """Whether the labels still have the shape and type that they had."""
        return _form(layer) == self._fits

    def release(self, layer: Labels) -> None:
        """Hear nothing any more."""
        layer.events.paint.disconnect(self._on_painted)
        self.session.recorder = None

    def _on_painted(self, event: Event) -> None:
        note_stroke(self.session, event.source, event)


def _form(layer: Labels) -> tuple[tuple[int, ...], str]:
    return tuple(layer.data.shape), np.dtype(layer.data.dtype).str


# Neither refers to the layer, so that a session goes with its labels. Metadata would be copied and saved with them.
_KEPT: WeakKeyDictionary[Labels, Kept] = WeakKeyDictionary()
_HELD: WeakKeyDictionary[Labels, Callable[[], object]] = WeakKeyDictionary()  # what has a session be kept


def hold(layer: Labels, hand_over: Callable[[], object]) -> None:
    """Work on labels, and let the next widget that takes them up have their session.

    Parameters
    ----------
    layer : Labels
        The labels.
    hand_over : callable
        Keeps their session; called at most once.
    """
    _HELD[layer] = hand_over


def let_fall(layer: Labels) -> None:
    """Hold labels no longer."""
    _HELD.pop(layer, None)


def keep(layer: Labels, session: AnnotationSession, journal: Path | None) -> None:
    """Keep a session for the next widget that works on its labels."""
    take_up(layer)
    _KEPT[layer] = Kept(layer, session, journal)


def is_kept(layer: Labels) -> bool:
    """Whether there is a session to take up."""
    return layer in _KEPT or layer in _HELD


def is_idle(layer: Labels) -> bool:
    """Whether there is a session to take up, and nobody works with it."""
    return layer in _KEPT


def take_up(layer: Labels) -> Kept | None:
    """The session of labels, for one widget; None if there is none, or they have another shape or type by now."""
    if (hand_over := _HELD.pop(layer, None)) is not None:
        hand_over()
    kept = _KEPT.pop(layer, None)
    if kept is None:
        return None
    kept.release(layer)
    return kept if kept.fits(layer) else None
