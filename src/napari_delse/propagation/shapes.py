"""Shapes on their way from plane to plane: signed distances, what lies between two masks, how an object moved.

Fields stand on the network's grid of a crop, as phi does: they cost the same whatever the size of the object.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_delse.data.images import Plane
from napari_delse.geometry import Crop, CropConfig, ObjectMask
from napari_delse.metrics import mask_iou
from napari_delse.predict import mask_from_phi

Float32Array = npt.NDArray[np.float32]

_GRID = CropConfig(size=128, margin=0.05, min_margin=2.0, squareness=0.0)
_TEMPLATE = 48  # pixels of the longer side of what is searched; larger objects are averaged down to it
_SURROUNDINGS = 0.3  # of the object's size, looked at beside the object itself
EMPTY = ObjectMask.empty()


def signed_distance(mask: ObjectMask, crop: Crop) -> Float32Array:
    """Signed distance of a mask in network pixels, positive inside.

    Parameters
    ----------
    mask : ObjectMask
        May lie partly or wholly outside the crop or the plane.
    crop : Crop
        Whose grid is wanted.

    Returns
    -------
    float32 array, shape (size, size)
        ``-size`` everywhere where the crop holds no pixel of the mask.
    """
    steps = np.arange(crop.size)
    rows, columns = (
        np.rint(axis).astype(int) - start
        for axis, start in zip(crop.to_plane(np.stack([steps, steps], axis=-1)).T, mask.origin, strict=True)
    )
    height, width = mask.mask.shape
    seen_rows, seen_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    inside = np.zeros((crop.size, crop.size), dtype=bool)
    inside[np.ix_(seen_rows, seen_columns)] = mask.mask[np.ix_(rows[seen_rows], columns[seen_columns])]
    if not inside.any():  # or it is thinner than the grid's step, and lies between
        cells = np.rint(crop.to_network(np.argwhere(mask.mask) + mask.origin)).astype(int)
        inside[tuple(cells[((cells >= 0) & (cells < crop.size)).all(axis=1)].T)] = True
    if not inside.any():
        return np.full(inside.shape, -crop.size, dtype=np.float32)
    padded = np.pad(inside, 1)
    distance = ndimage.distance_transform_edt(padded) - ndimage.distance_transform_edt(~padded)
    result: Float32Array = (distance - np.sign(distance) / 2)[1:-1, 1:-1].astype(np.float32)
    return result


def moved(mask: ObjectMask, shift: tuple[int, int]) -> ObjectMask:
    """A mask some pixels further; it may leave the plane."""
    return ObjectMask(mask.mask, (mask.origin[0] + shift[0], mask.origin[1] + shift[1]))


def clipped(mask: ObjectMask, shape: tuple[int, int]) -> ObjectMask:
    """The part of a mask inside the plane."""
    if not mask.area:
        return EMPTY
    (y, x), (height, width) = mask.origin, mask.mask.shape
    return ObjectMask.from_crop(mask.mask, Crop(y, x, y + height, x + width, 1), shape)


def centre(mask: ObjectMask) -> npt.NDArray[np.float64]:
    """Centroid (y, x) in plane pixels."""
    ys, xs = mask.indices()
    return np.array([ys.mean(), xs.mean()])


def between(
    one: ObjectMask,
    other: ObjectMask,
    share: float,
    shape: tuple[int, int],
    here: npt.NDArray[np.float64] | None = None,
) -> ObjectMask:
    """The shape on the way from one mask to another: signed distances interpolated about a moving centroid.

    Parameters
    ----------
    one, other : ObjectMask
        Neither is empty.
    share : float
        0 gives one, 1 the other.
    shape : (int, int)
        Shape of the plane.
    here : float64 array, shape (2,), optional
        Where the centroid is; by default on the straight line between theirs.

    Returns
    -------
    ObjectMask
        Empty where the two have nothing in common even with their centroids in one place.
    """
    start, end = centre(one), centre(other)
    here = (1 - share) * start + share * end if here is None else here
    shifts = [tuple(np.rint(here - place).astype(int).tolist()) for place in (start, end)]
    return interpolated(moved(one, shifts[0]), moved(other, shifts[1]), share, shape)


def interpolated(one: ObjectMask, other: ObjectMask, share: float, shape: tuple[int, int]) -> ObjectMask:
    """The shape on the way from one mask to another in place: signed distances interpolated.

    Parameters
    ----------
    one, other : ObjectMask
        Neither is empty.
    share : float
        0 gives one, 1 the other.
    shape : (int, int)
        Shape of the plane.

    Returns
    -------
    ObjectMask
        Empty where the two are apart.
    """
    crop = Crop.around(box_around([one, other]), _GRID)
    phi = (1 - share) * signed_distance(one, crop) + share * signed_distance(other, crop)
    return mask_from_phi(phi.astype(np.float32), crop, shape, 0.0)


def box_around(masks: list[ObjectMask]) -> tuple[float, float, float, float]:
    """(y0, x0, y1, x1) of pixel centres around masks that are not empty."""
    spans = [mask.slices for mask in masks]
    y0, x0 = (min(span[axis].start for span in spans) for axis in (0, 1))
    y1, x1 = (max(span[axis].stop for span in spans) - 1 for axis in (0, 1))
    return float(y0), float(x0), float(y1), float(x1)


def alikeness(one: ObjectMask, other: ObjectMask) -> float:
    """IoU of two masks with their centroids in one place: 1 for the same shape and size, wherever it is."""
    shift = np.rint(centre(other) - centre(one)).astype(int)
    there = moved(one, (int(shift[0]), int(shift[1])))
    top, left = (min(a, b) for a, b in zip(there.origin, other.origin, strict=True))
    return mask_iou(moved(there, (-top, -left)), moved(other, (-top, -left)))


def movement(
    before: Plane,
    after: Plane,
    mask: ObjectMask,
    reach: float,
    caution: float,
    expected: tuple[int, int] = (0, 0),
) -> tuple[int, int]:
    """How far what lies under a mask moved from one plane to the next, by normalised cross-correlation.

    Parameters
    ----------
    before, after : Plane
        Neighbouring planes.
    mask : ObjectMask
        The object in the first; not empty.
    reach : float
        How far from the expected move it may have moved along each axis, as a share of its longer side.
    caution : float
        Correlation that a deviation by the whole reach must gain; one by half of it a quarter of that.
    expected : (int, int)
        The move to start from.

    Returns
    -------
    (int, int)
        Pixels along y and x.
    """
    y0, x0, y1, x1 = box_around([mask])
    longer = max(y1 - y0, x1 - x0) + 1
    edge, far = max(2, math.ceil(_SURROUNDINGS * longer)), math.ceil(reach * longer)
    if far == 0:
        return expected
    factor = max(1, round(longer / _TEMPLATE))
    edge, far = -(-edge // factor) * factor, -(-far // factor) * factor
    tall, wide = (-(-(int(high - low) + 1) // factor) * factor for low, high in ((y0, y1), (x0, x1)))
    top, left = int(y0) - edge, int(x0) - edge
    template = _averaged(before, top, left, tall + 2 * edge, wide + 2 * edge, factor)
    start_y, start_x = top + expected[0] - far, left + expected[1] - far
    searched = _averaged(after, start_y, start_x, tall + 2 * (edge + far), wide + 2 * (edge + far), factor)
    if np.ptp(template) == 0 or np.ptp(searched) == 0:
        return expected
    from skimage.feature import match_template

    alike = match_template(searched, template)
    steps = (np.arange(alike.shape[0]) - far // factor) * factor, (np.arange(alike.shape[1]) - far // factor) * factor
    alike = alike - caution * np.add.outer(steps[0] ** 2, steps[1] ** 2) / far**2
    row, column = np.unravel_index(int(np.argmax(alike)), alike.shape)
    return expected[0] + int(steps[0][row]), expected[1] + int(steps[1][column])


def _averaged(plane: Plane, top: int, left: int, height: int, width: int, factor: int) -> Float32Array:
    """Mean of the channels in a window, itself averaged over blocks of ``factor`` pixels a side."""
    if factor == 1:
        pixels = plane.read(Crop(top, left, top + height, left + width, max(height, width)))
    else:  # a large object: its surroundings would not fit into memory
        pixels = plane.means(*(first + np.arange(0, n + 1, factor) for first, n in ((top, height), (left, width))))
    result: Float32Array = pixels.mean(axis=0)
    return result
