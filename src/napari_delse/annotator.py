"""A simulated annotator: loose clicks on extreme points, and drags or clicks that repair a mask (section 4.4)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from napari_delse.geometry import BoolArray, Correction, ExtremePoints, ObjectMask, Point
from napari_delse.metrics import common_window, in_window


def jittered(prompt: ExtremePoints, jitter: float, rng: np.random.Generator) -> ExtremePoints:
    """The prompt of a hasty person (Table 7 of the paper).

    Parameters
    ----------
    prompt : ExtremePoints
        Exact points or box.
    jitter : float
        Uniform noise on every coordinate, as a fraction of the box side along its axis: 0.05 moves the points by
        up to 5 % of the object's height in y and of its width in x.
    rng : numpy.random.Generator
        Source of the noise; not touched if ``jitter`` is 0.

    Returns
    -------
    ExtremePoints
        May reach outside the image.

    Raises
    ------
    ValueError
        If ``jitter`` is negative or not finite.
    """
    if not (np.isfinite(jitter) and jitter >= 0):
        raise ValueError(f"jitter must be a fraction >= 0 of the box side, such as 0.05, got {jitter}")
    if jitter == 0:
        return prompt
    y0, x0, y1, x1 = prompt.box
    reach = jitter * np.array([y1 - y0 + 1, x1 - x0 + 1])
    points = np.asarray(prompt.points) + rng.uniform(-reach, reach, size=(len(prompt.points), 2))
    return ExtremePoints.from_box(points) if prompt.kind == "box" else ExtremePoints.from_clicks(points)


def simulated_prompt(
    truth: ObjectMask, rng: np.random.Generator, *, jitter: float = 0.0, box: bool = False
) -> ExtremePoints:
    """Extreme points (or the box) of a true object, as a person would give them.

    Parameters
    ----------
    truth : ObjectMask
        The object; must not be empty.
    rng : numpy.random.Generator
        Source of the noise.
    jitter : float
        See `jittered`.
    box : bool
        The corners of the box instead of the extreme points.
    """
    prompt = ExtremePoints.from_mask(truth.mask, truth.origin)
    return jittered(ExtremePoints.from_box(prompt.points) if box else prompt, jitter, rng)


def inner_boundary(mask: npt.ArrayLike) -> BoolArray:
    """Pixels of a mask with one of their four neighbours outside it; the border of the array is no boundary."""
    array = np.asarray(mask, dtype=bool)
    padded = np.pad(array, 1, mode="edge")
    boundary: BoolArray = array & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])
    return boundary


def worst_point(
    prediction: npt.ArrayLike, truth: npt.ArrayLike, ignore: npt.ArrayLike | None = None
) -> tuple[Point, Point] | None:
    """The most wrong predicted boundary point p and the true boundary point q nearest to it.

    Parameters
    ----------
    prediction, truth : bool array-like, shape (Y, X)
        Masks of one object; a window one pixel larger than both is enough.
    ignore : bool array-like, shape (Y, X), optional
        Where p is not looked for.

    Returns
    -------
    (p, q) or None
        Pixel centres (y, x); of several equally wrong p the first in reading order. None if no predicted boundary
        point is wrong, or if one of the masks has no boundary: then there is nothing to hold or nowhere to go.
    """
    pred, true = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if pred.shape != true.shape or pred.ndim != 2:
        raise ValueError(f"prediction {pred.shape} and truth {true.shape} must be 2D masks of one shape")
    wrong = inner_boundary(pred)
    if ignore is not None:
        wrong &= ~np.asarray(ignore, dtype=bool)
    starts, ends = np.argwhere(wrong), np.argwhere(inner_boundary(true))
    if len(starts) == 0 or len(ends) == 0:
        return None
    distances, nearest = cKDTree(ends).query(starts)
    worst = int(np.argmax(distances))
    if distances[worst] == 0:
        return None
    p, q = starts[worst], ends[nearest[worst]]
    return (float(p[0]), float(p[1])), (float(q[0]), float(q[1]))


def simulated_drag(
    prediction: ObjectMask, truth: ObjectMask, shape: tuple[int, int], ignore: BoolArray | None = None
) -> Correction | None:
    """The drag with which a person repairs a prediction: p to q of `worst_point`.

    Parameters
    ----------
    prediction, truth : ObjectMask
        In pixels of the plane.
    shape : (int, int)
        Height and width of the plane.
    ignore : bool array, shape ``shape``, optional
        Pixels whose truth is unknown.

    Returns
    -------
    Correction or None
        None if there is nothing to repair or nothing to hold (an empty prediction).
    """
    if prediction.area == 0 or truth.area == 0:
        return None
    window = common_window((prediction, truth), shape)
    found = worst_point(
        in_window(prediction, window), in_window(truth, window), None if ignore is None else ignore[window]
    )
    if found is None:
        return None
    (py, px), (qy, qx) = found
    y, x = window[0].start, window[1].start
    return Correction((py + y, px + x), (qy + y, qx + x))


def simulated_click(
    prediction: ObjectMask, truth: ObjectMask, shape: tuple[int, int], ignore: BoolArray | None = None
) -> Point | None:
    """The further boundary click with which a person repairs a prediction: q of `simulated_drag` alone."""
    drag = simulated_drag(prediction, truth, shape, ignore)
    return None if drag is None else drag.end
