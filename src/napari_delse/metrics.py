"""Scores of masks against the truth: IoU and the boundary F measure of DAVIS.

The contour of a mask is the one of the DAVIS 2016 benchmark: the pixels that differ from their right, lower or
lower right neighbour. Both masks are traced alike, so that its half pixel offset cancels, and the border of the
image is no contour. Precision is the share of the predicted contour's pixels that have a pixel of the true contour
within ``k`` pixels (Euclidean), recall the reverse, F their harmonic mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from napari_delse.geometry import BoolArray, ObjectMask

WIDTHS = tuple(range(1, 11))
"""Tolerances of the boundary curve in pixels, k = 1..10."""


class Scores(NamedTuple):
    """Scores of one object."""

    iou: float
    boundary_f: tuple[float, ...]  # at `WIDTHS`


class Statistics(NamedTuple):
    """Mean and recall of a measure over objects or frames, as DAVIS reports J and F."""

    mean: float
    recall: float  # share of the values above 0.5


def _pair(
    prediction: npt.ArrayLike, truth: npt.ArrayLike, ignore: npt.ArrayLike | None
) -> tuple[BoolArray, BoolArray, BoolArray | None]:
    """Three boolean arrays of one 2D shape."""
    pred, true = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    void = None if ignore is None else np.asarray(ignore, dtype=bool)
    if pred.ndim != 2 or pred.shape != true.shape or (void is not None and void.shape != true.shape):
        shapes = f"{pred.shape}, {true.shape}" + ("" if void is None else f", {void.shape}")
        raise ValueError(f"prediction, truth and ignored pixels must be 2D masks of one shape, got {shapes}")
    return pred, true, void if void is not None and void.any() else None


def iou(prediction: npt.ArrayLike, truth: npt.ArrayLike, ignore: npt.ArrayLike | None = None) -> float:
    """Intersection over union (DAVIS' J).

    Parameters
    ----------
    prediction, truth : bool array-like, shape (Y, X)
        Masks of one object.
    ignore : bool array-like, shape (Y, X), optional
        Pixels that count for neither.

    Returns
    -------
    float
        In [0, 1]; 1 if both masks are empty.
    """
    pred, true, void = _pair(prediction, truth, ignore)
    if void is not None:
        pred, true = pred & ~void, true & ~void
    union = np.count_nonzero(pred | true)
    return np.count_nonzero(pred & true) / union if union else 1.0


def contour(mask: npt.ArrayLike) -> BoolArray:
    """Pixels that differ from their right, lower or lower right neighbour (DAVIS' ``seg2bmap``).

    Parameters
    ----------
    mask : bool array-like, shape (Y, X)
        A mask; beyond its border it goes on unchanged, so that the border itself is no contour.
    """
    array = np.asarray(mask, dtype=bool)
    edge = np.zeros_like(array)
    edge[:, :-1] |= array[:, :-1] ^ array[:, 1:]
    edge[:-1] |= array[:-1] ^ array[1:]
    edge[:-1, :-1] |= array[:-1, :-1] ^ array[1:, 1:]
    return edge


def _touches(void: BoolArray) -> BoolArray:
    """Pixels whose contour decision looked at an ignored pixel."""
    touched = void.copy()
    touched[:, :-1] |= void[:, 1:]
    touched[:-1] |= void[1:]
    touched[:-1, :-1] |= void[1:, 1:]
    return touched


def _shares(points: npt.NDArray[np.intp], others: npt.NDArray[np.intp], widths: Sequence[float]) -> npt.NDArray[Any]:
    """Share of the points that have one of the others within each width; 1 without points."""
    if len(points) == 0 or len(others) == 0:
        return np.full(len(widths), float(len(points) == 0))
    # Contours are short next to their window: a tree of their pixels beats a distance transform of all pixels.
    distances, _ = cKDTree(others).query(points, distance_upper_bound=max(widths) + 1)
    return np.searchsorted(np.sort(distances), np.asarray(widths), side="right") / len(points)


def boundary_curve(
    prediction: npt.ArrayLike,
    truth: npt.ArrayLike,
    ignore: npt.ArrayLike | None = None,
    widths: Iterable[float] = WIDTHS,
) -> npt.NDArray[np.float64]:
    """Boundary F measure at several tolerances.

    Parameters
    ----------
    prediction, truth : bool array-like, shape (Y, X)
        Masks of one object.
    ignore : bool array-like, shape (Y, X), optional
        Contour pixels in or next to these are not counted; they may still be matched, so that a contour which
        ends there is not punished.
    widths : iterable of float
        Tolerances in pixels.

    Returns
    -------
    float64 array, shape (number of widths,)
        In [0, 1]. As in DAVIS: 1 if neither mask has a contour, 0 if only one has.

    References
    ----------
    .. [1] Perazzi et al., CVPR 2016, doi:10.1109/CVPR.2016.85
    """
    pred, true, void = _pair(prediction, truth, ignore)
    steps = tuple(widths)
    if not steps or min(steps) < 0:
        raise ValueError(f"widths must be one or more distances >= 0 in pixels, got {steps}")
    counted, matched = [], []
    for mask in (pred, true):
        edge = contour(mask)
        matched.append(np.argwhere(edge))
        counted.append(matched[-1] if void is None else np.argwhere(edge & ~_touches(void)))
    precision = _shares(counted[0], matched[1], steps)
    recall = _shares(counted[1], matched[0], steps)
    total = precision + recall
    curve: npt.NDArray[np.float64] = 2 * precision * recall / np.where(total > 0, total, 1)
    return curve


def boundary_f(prediction: npt.ArrayLike, truth: npt.ArrayLike, k: float, ignore: npt.ArrayLike | None = None) -> float:
    """Boundary F measure within k pixels; see `boundary_curve`."""
    return float(boundary_curve(prediction, truth, ignore, (k,))[0])


def davis_width(shape: tuple[int, int], fraction: float = 0.008) -> int:
    """DAVIS' official tolerance: this fraction of the image's diagonal, rounded up."""
    return math.ceil(fraction * math.hypot(*shape))


def davis_statistics(values: Iterable[float]) -> Statistics:
    """Mean and recall of J or F values, without those that are NaN; NaN for no values."""
    array = np.asarray(list(values), dtype=np.float64)
    array = array[~np.isnan(array)]
    if array.size == 0:
        return Statistics(math.nan, math.nan)
    return Statistics(float(array.mean()), float((array > 0.5).mean()))


def sequence_statistics(values: Mapping[str, Iterable[float]]) -> tuple[Statistics, dict[str, Statistics]]:
    """Mean and recall of J or F over video sequences, as DAVIS reports them.

    Parameters
    ----------
    values : mapping of str to iterable of float
        The measure of every frame that counts, by sequence. DAVIS leaves the first and the last frame out.

    Returns
    -------
    overall : Statistics
        Means of the sequences' means and recalls: a long sequence counts no more than a short one. NaN for none.
    by_sequence : dict of str to Statistics
    """
    by_sequence = {name: davis_statistics(frames) for name, frames in values.items()}
    counted = [s for s in by_sequence.values() if not math.isnan(s.mean)]
    if not counted:
        return Statistics(math.nan, math.nan), by_sequence
    means = np.mean([(s.mean, s.recall) for s in counted], axis=0)
    return Statistics(float(means[0]), float(means[1])), by_sequence


def common_window(masks: Iterable[ObjectMask], shape: tuple[int, int], pad: int = 1) -> tuple[slice, slice]:
    """The smallest window of a plane around some masks, grown by ``pad`` and cut to the plane.

    One pixel more than the masks is enough for `iou`, `contour` and the simulated annotator to answer as they
    would on the whole plane.

    Parameters
    ----------
    masks : iterable of ObjectMask
        Empty ones do not count.
    shape : (int, int)
        Height and width of the plane.
    pad : int
        Pixels added on each side.
    """
    boxes = [mask.slices for mask in masks if mask.mask.size]
    if not boxes:
        return slice(0, 0), slice(0, 0)
    spans = []
    for axis in (0, 1):
        low = min(box[axis].start for box in boxes) - pad
        high = max(box[axis].stop for box in boxes) + pad
        spans.append(slice(max(low, 0), min(high, shape[axis])))
    return spans[0], spans[1]


def in_window(mask: ObjectMask, window: tuple[slice, slice]) -> BoolArray:
    """The pixels of a mask in a window that holds it."""
    rows, columns = window
    array = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)
    (y, x), (height, width) = mask.origin, mask.mask.shape
    if mask.mask.size:
        array[y - rows.start : y - rows.start + height, x - columns.start : x - columns.start + width] = mask.mask
    return array


def mask_iou(one: ObjectMask, other: ObjectMask) -> float:
    """Intersection over union of two masks of one plane."""
    window = common_window((one, other), (2**31, 2**31))  # both lie in the plane: nothing is cut
    return iou(in_window(one, window), in_window(other, window))


def score_object(
    prediction: ObjectMask, truth: ObjectMask, shape: tuple[int, int], ignore: npt.NDArray[np.bool_] | None = None
) -> Scores:
    """IoU and boundary curve of one object, computed on the window of its two masks.

    Parameters
    ----------
    prediction, truth : ObjectMask
        In pixels of the plane.
    shape : (int, int)
        Height and width of the plane.
    ignore : bool array, shape ``shape``, optional
        Pixels that do not count.
    """
    window = common_window((prediction, truth), shape)
    pred, true = in_window(prediction, window), in_window(truth, window)
    void = None if ignore is None else ignore[window]
    return Scores(iou(pred, true, void), tuple(float(f) for f in boundary_curve(pred, true, void)))
