"""Label planes of images and stacks from prompts, one plane at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_delse.files import ImageFile
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask
from napari_delse.prompts import ObjectPrompt


class Found(Protocol):
    """What a prediction must offer."""

    @property
    def mask(self) -> ObjectMask: ...
    @property
    def confidence(self) -> float: ...


class ManySegmenter(Protocol):
    """What labelling asks of a predictor; `napari_delse.predict.Predictor` is one."""

    def segment_many(
        self, image: Any, prompts: Sequence[ExtremePoints], corrections: Sequence[Sequence[Correction]] = (), /
    ) -> Iterator[Found]: ...


@dataclass(frozen=True)
class LabelledObject:
    """What became of one prompt."""

    label: int
    index: tuple[int, ...]  # its plane
    area: int  # pixels painted; fewer than the mask has where another object lies
    confidence: float  # expected IoU in [0, 1]
    milliseconds: float


@dataclass(frozen=True, eq=False)
class LabelPlane:
    """One finished plane."""

    index: tuple[int, ...]
    labels: npt.NDArray[Any]  # (Y, X)
    objects: tuple[LabelledObject, ...] = field(default=())


def fit_prompts(
    objects: Sequence[ObjectPrompt], image: ImageFile, channels: tuple[int, ...] = ()
) -> list[tuple[ObjectPrompt, tuple[int, ...]]]:
    """Match prompts with the axes of an image.

    Parameters
    ----------
    objects : sequence of ObjectPrompt
        With an index for each plane axis of the image, or for each axis but Y and X: napari counts the channels of
        a layer among its axes; then an object is looked at in the channel it was clicked in.
    image : ImageFile
        The image.
    channels : tuple of int
        Channels to look at instead.

    Returns
    -------
    list of (ObjectPrompt, tuple of int)
        Prompts with an index for each plane axis, and their channels.

    Raises
    ------
    ValueError
        If the axes do not match or a plane does not exist.
    """
    counts, axis = image.plane_counts, image.channel_axis
    names = " and ".join(image.plane_axes) or "no others"
    fitted = []
    for one in objects:
        index, seen = one.index, channels
        if axis is not None and image.axes[axis] == "C" and len(index) == len(counts) + 1:
            place = image.axes.replace("Y", "").replace("X", "").index("C")
            seen = seen or (index[place],)
            index = index[:place] + index[place + 1 :]
        elif not index and all(count == 1 for count in counts):
            index = (0,) * len(counts)
        if len(index) != len(counts):
            raise ValueError(
                f"prompts have {len(index)} position(s) before y and x, but {image.path} has the axes {image.axes} "
                f"(planes count along {names}); add or remove columns, or name the image's axes with --axes"
            )
        if any(not 0 <= i < n for i, n in zip(index, counts, strict=True)):
            raise ValueError(
                f"label {one.label} was clicked in plane {index}, but {image.path} has {counts} planes along {names}; "
                "is it the right image?"
            )
        fitted.append((ObjectPrompt(one.label, index, one.prompt, one.corrections), seen))
    image.plane((0,) * len(counts), channels)  # channels that do not exist are named before any work is done
    return fitted


def label_planes(
    predictor: ManySegmenter,
    image: ImageFile,
    objects: Sequence[tuple[ObjectPrompt, tuple[int, ...]]],
    dtype: np.dtype[Any],
    *,
    overwrite: bool = False,
) -> Iterator[LabelPlane]:
    """Label all planes of an image in their order; those without prompts stay 0.

    Parameters
    ----------
    predictor : ManySegmenter
        The model.
    image : ImageFile
        The image; only the crops around the objects are read.
    objects : sequence of (ObjectPrompt, channels)
        From `fit_prompts`.
    dtype : dtype
        Of the labels.
    overwrite : bool
        Whether later objects paint over earlier ones; otherwise these are protected.

    Yields
    ------
    LabelPlane
    """
    for index in np.ndindex(*image.plane_counts):
        labels = np.zeros(image.plane_shape, dtype)
        here = [(one, seen) for one, seen in objects if one.index == index]
        results = []
        for channels in dict.fromkeys(seen for _, seen in here):
            group = [one for one, seen in here if seen == channels]
            found = predictor.segment_many(
                image.plane(index, channels), [one.prompt for one in group], [one.corrections for one in group]
            )
            start = time.perf_counter()
            for one, prediction in zip(group, found, strict=True):
                milliseconds = (time.perf_counter() - start) * 1000
                area = _paint(labels, prediction.mask, one.label, overwrite)
                results.append(LabelledObject(one.label, index, area, float(prediction.confidence), milliseconds))
                start = time.perf_counter()
        yield LabelPlane(index, labels, tuple(results))


def _paint(labels: npt.NDArray[Any], mask: ObjectMask, label: int, overwrite: bool) -> int:
    """Paint an object and count its pixels."""
    window = labels[mask.slices]
    painted = mask.mask if overwrite else mask.mask & (window == 0)
    window[painted] = label
    return int(np.count_nonzero(painted))
