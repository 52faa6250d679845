"""Planes of a stack whose objects are prompted one by one: from points, or from the labels of another tool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from napari_delse.data.images import Plane
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask
from napari_delse.propagation.config import PropagationConfig
from napari_delse.propagation.gap import Carried
from napari_delse.propagation.planes import PropagatedPlane, finished

_DTYPE = np.dtype(np.uint32)  # of the labels

Prompted = tuple[int, Sequence[tuple[int, ExtremePoints]]]
"""A plane's place, and label and prompt of its objects."""


class Found(Protocol):
    """What a prediction must offer."""

    @property
    def mask(self) -> ObjectMask: ...
    @property
    def confidence(self) -> float: ...


class Segmenter(Protocol):
    """What is asked of a predictor; `napari_delse.predict.Predictor` is one."""

    def segment_across(
        self,
        items: Iterable[tuple[Plane, ExtremePoints, Sequence[Correction]]],
        batch_size: int | None = None,
        /,
    ) -> Iterator[Found]: ...


def segment_planes(
    predictor: Segmenter,
    planes: Sequence[Plane],
    prompted: Iterable[Prompted],
    config: PropagationConfig | None = None,
) -> Iterator[PropagatedPlane]:
    """Segment the objects of planes, yielding one finished plane at a time.

    Objects of several planes share the passes of the network.

    Parameters
    ----------
    predictor : Segmenter
        The model.
    planes : sequence of Plane
        The stack; read crop by crop, where it is needed.
    prompted : iterable of (int, sequence of (int, ExtremePoints))
        Which planes, in any order, and label and prompt of each object; taken from as the work proceeds.
    config : PropagationConfig, optional
        ``review_below`` and ``batch_size``.

    Yields
    ------
    PropagatedPlane
        In the order of ``prompted``. A pixel that several objects claim goes to the one in which it lies deepest;
        an object that lost much of itself in this way is to be reviewed.
    """
    config = config or PropagationConfig()
    begun: list[tuple[int, list[int]]] = []  # planes whose objects have been handed over, and their labels

    def items() -> Iterator[tuple[Plane, ExtremePoints, Sequence[Correction]]]:
        for place, objects in prompted:
            begun.append((place, [label for label, _ in objects]))
            for _, prompt in objects:
                yield planes[place], prompt, ()

    found: list[Found] = []
    for prediction in predictor.segment_across(items(), config.batch_size):
        found.append(prediction)
        while begun and len(found) >= len(begun[0][1]):
            place, labels = begun.pop(0)
            yield finished(place, _carried(labels, found[: len(labels)], config), planes[place].shape, _DTYPE)
            del found[: len(labels)]
    for place, _ in begun:  # planes without objects
        yield finished(place, [], planes[place].shape, _DTYPE)


def _carried(labels: Sequence[int], found: Sequence[Found], config: PropagationConfig) -> list[Carried]:
    return [
        Carried(label, one.mask, float(one.confidence), (), _doubt(one, config))
        for label, one in zip(labels, found, strict=True)
    ]


def _doubt(one: Found, config: PropagationConfig) -> str:
    if one.mask.area == 0:
        return "nothing was found"
    return f"confidence {one.confidence:.2f}" if one.confidence < config.review_below else ""
