"""Extreme points, crops, corrections and object masks: the plane geometry of one object.

Positions are (y, x) in plane pixels with pixel centres at integers, so the pixel with index
``i`` covers ``[i - 0.5, i + 0.5)``. The types here are plain, frozen and cheap to save.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating[Any]]


def _as_points(points: Iterable[Sequence[float]] | FloatArray) -> tuple[Point, ...]:
    """Finite (y, x) pairs as plain floats, or a ValueError that names the offender."""
    result = []
    for point in points:
        values = tuple(float(v) for v in point)
        if len(values) != 2 or not all(math.isfinite(v) for v in values):
            raise ValueError(f"a point must be two finite numbers (y, x), got {values}; click again")
        result.append((values[0], values[1]))
    return tuple(result)


@dataclass(frozen=True)
class ExtremePoints:
    """What a person said about one object in one plane: boundary clicks or a box.

    Parameters
    ----------
    points : tuple of (y, x)
        Clicks on the object's boundary in any order; at least two different ones. The top-, left-,
        bottom- and right-most one span the box; further ones are boundary evidence. They may lie
        outside the plane.
    kind : {"extreme", "box"}
        "box" when the points are only the corners of a box around the object (``DELSE*``): then
        they are not shown to the network.

    Raises
    ------
    ValueError
        If a coordinate is not finite or all points coincide.
    """

    points: tuple[Point, ...]
    kind: Literal["extreme", "box"] = "extreme"

    def __post_init__(self) -> None:
        points = _as_points(self.points)
        object.__setattr__(self, "points", points)
        if self.kind not in ("extreme", "box"):
            raise ValueError(f"kind must be 'extreme' or 'box', got {self.kind!r}")
        if len(set(points)) < 2:
            raise ValueError(
                f"an object needs clicks at two or more different places (best: its top-, left-, bottom- and "
                f"right-most points), got {points}"
            )

    @classmethod
    def from_clicks(cls, clicks: Iterable[Sequence[float]] | FloatArray) -> ExtremePoints:
        """From clicks in any order; doubled clicks count once."""
        return cls(tuple(dict.fromkeys(_as_points(clicks))))

    @classmethod
    def from_box(cls, box: Iterable[Sequence[float]] | FloatArray) -> ExtremePoints:
        """From two or more corners of a box, as napari's Shapes layer stores a rectangle."""
        corners = np.reshape(_as_points(box), (-1, 2))
        if len(corners) < 2:
            raise ValueError(f"a box needs corners at two or more different places, got {len(corners)}; draw it again")
        (y0, x0), (y1, x1) = corners.min(axis=0), corners.max(axis=0)
        return cls(((y0, x0), (y1, x1)), kind="box")

    @classmethod
    def from_mask(cls, mask: npt.ArrayLike, origin: Sequence[float] = (0, 0)) -> ExtremePoints:
        """The four extreme pixels of a mask; of several equals the one in the middle.

        Parameters
        ----------
        mask : bool array-like, shape (h, w)
            Pixels of the object.
        origin : (y, x)
            Position of ``mask[0, 0]`` in the plane.

        Raises
        ------
        ValueError
            If the mask is not two-dimensional or empty.
        """
        array = np.asarray(mask, dtype=bool)
        if array.ndim != 2 or not array.any():
            raise ValueError(f"mask must be 2D and hold at least one pixel, got shape {array.shape}")
        ys, xs = np.nonzero(array)
        points = []
        for values, others, end in ((ys, xs, ys.min()), (xs, ys, xs.min()), (ys, xs, ys.max()), (xs, ys, xs.max())):
            on_edge = np.sort(others[values == end])
            middle = on_edge[len(on_edge) // 2]
            points.append((end, middle) if values is ys else (middle, end))
        if len(set(points)) < 2:  # a single pixel: its box has no extent, so give it one
            (y, x) = points[0]
            points = [(y - 0.5, x), (y, x - 0.5), (y + 0.5, x), (y, x + 0.5)]
        return cls(tuple((float(y + origin[0]), float(x + origin[1])) for y, x in points))

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(y0, x0, y1, x1) of the smallest box around all points."""
        array = np.asarray(self.points)
        (y0, x0), (y1, x1) = array.min(axis=0), array.max(axis=0)
        return float(y0), float(x0), float(y1), float(x1)

    def with_points(self, *points: Sequence[float]) -> ExtremePoints:
        """The same prompt with further boundary clicks."""
        return ExtremePoints(tuple(dict.fromkeys(self.points + _as_points(points))), self.kind)


@dataclass(frozen=True)
class Correction:
    """A drag of a wrong boundary point to its place (motion field editing, section 4.4).

    Parameters
    ----------
    start, end : (y, x)
        p on the shown, wrong contour and q on the true boundary, in plane pixels.
    """

    start: Point
    end: Point

    def __post_init__(self) -> None:
        start, end = _as_points((self.start, self.end))
        if start == end:
            raise ValueError(f"a correction must move its point, got start = end = {start}; drag further")
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "end", end)

    @property
    def length(self) -> float:
        """|q - p| in pixels."""
        return math.dist(self.start, self.end)


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """How much of the plane the network sees around an object; saved in the checkpoint."""

    size: int = 256  # side of the square network input, pixels
    margin: float = 0.25  # added on each side, as a fraction of the box side
    min_margin: float = 3.0  # added at least, plane pixels
    squareness: float = 0.4  # short side >= this x long side; 0 is the paper's Stretching, 1 its Hard variant

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise ValueError(f"size must be a positive multiple of 32 (the encoder's stride), got {self.size}")
        if not (0 <= self.margin < math.inf and 1 <= self.min_margin < math.inf):
            raise ValueError(
                f"margin must be >= 0, min_margin >= 1 and both finite, got {self.margin} and {self.min_margin}"
            )
        if not 0 <= self.squareness <= 1:
            raise ValueError(f"squareness must lie in [0, 1], got {self.squareness}")


@dataclass(frozen=True)
class Crop:
    """A window of the plane resized to a square: the only plane <-> network transform.

    Parameters
    ----------
    y0, x0, y1, x1 : int
        Pixel range ``[y0, y1) x [x0, x1)``; may reach outside the plane.
    size : int
        Side of the network input.

    Notes
    -----
    Pixel *edges* map linearly onto each other, so that plane position ``p`` and network position
    ``n`` obey ``(p + 0.5 - y0) / (y1 - y0) = (n + 0.5) / size`` (``align_corners=False``).
    """

    y0: int
    x0: int
    y1: int
    x1: int
    size: int

    def __post_init__(self) -> None:
        if self.y1 <= self.y0 or self.x1 <= self.x0 or self.size < 1:
            raise ValueError(f"a crop must span at least one pixel, got {self}")

    @classmethod
    def around(cls, box: tuple[float, float, float, float], config: CropConfig) -> Crop:
        """The crop of a box (y0, x0, y1, x1) of pixel centres, grown as the config says."""
        spans = []
        for low, high in ((box[0], box[2]), (box[1], box[3])):
            extent = high - low + 1
            grow = max(config.margin * extent, config.min_margin)
            spans.append([low - 0.5 - grow, high + 0.5 + grow])
        shortest = config.squareness * max(high - low for low, high in spans)
        for span in spans:
            missing = max(0.0, shortest - (span[1] - span[0]))
            span[0] -= missing / 2
            span[1] += missing / 2
        (y0, y1), (x0, x1) = ((math.floor(low + 0.5), math.ceil(high + 0.5)) for low, high in spans)
        return cls(y0, x0, y1, x1, config.size)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in plane pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def scale(self) -> tuple[float, float]:
        """Network pixels per plane pixel along y and x."""
        height, width = self.shape
        return self.size / height, self.size / width

    def to_network(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Plane positions, shape (..., 2), as network positions."""
        edges = np.asarray(points, dtype=np.float64) + 0.5 - (self.y0, self.x0)
        return edges * self.scale - 0.5

    def to_plane(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Network positions, shape (..., 2), as plane positions; the inverse of `to_network`."""
        edges = (np.asarray(points, dtype=np.float64) + 0.5) / self.scale
        return edges - 0.5 + (self.y0, self.x0)


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """The pixels of one object, kept as its bounding box only.

    Parameters
    ----------
    mask : bool array, shape (h, w)
        Pixels of the object inside its window of the plane.
    origin : (y, x) of int
        Position of ``mask[0, 0]`` in the plane.
    """

    mask: BoolArray
    origin: tuple[int, int]

    @classmethod
    def from_crop(cls, mask: npt.ArrayLike, crop: Crop, plane_shape: tuple[int, int]) -> ObjectMask:
        """Cut a mask of the crop's shape to the plane and to its own bounding box.

        Raises
        ------
        ValueError
            If the mask's shape is not the crop's.
        """
        array = np.asarray(mask, dtype=bool)
        if array.shape != crop.shape:
            raise ValueError(f"mask {array.shape} must have the crop's shape {crop.shape}")
        top, left = max(0, -crop.y0), max(0, -crop.x0)
        bottom = min(array.shape[0], plane_shape[0] - crop.y0)
        right = min(array.shape[1], plane_shape[1] - crop.x0)
        inside = array[top : max(top, bottom), left : max(left, right)]
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if len(rows) == 0:
            return cls.empty()
        r0, r1, c0, c1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        tight = inside[r0:r1, c0:c1].copy()  # a view would keep the whole crop alive
        return cls(tight, (crop.y0 + top + r0, crop.x0 + left + c0))

    @classmethod
    def from_plane(cls, mask: npt.ArrayLike) -> ObjectMask:
        """The bounding box of a mask of a whole plane."""
        array = np.asarray(mask, dtype=bool)
        height, width = array.shape
        return cls.from_crop(array, Crop(0, 0, height, width, 1), (height, width))

    @classmethod
    def empty(cls) -> ObjectMask:
        """No pixels at all."""
        return cls(np.zeros((0, 0), dtype=bool), (0, 0))

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window of the plane that `mask` covers."""
        (y, x), (height, width) = self.origin, self.mask.shape
        return slice(y, y + height), slice(x, x + width)

    def indices(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """(y, x) index arrays of the object's pixels in the plane."""
        ys, xs = np.nonzero(self.mask)
        return ys + self.origin[0], xs + self.origin[1]

    def to_plane(self, shape: tuple[int, int]) -> BoolArray:
        """The mask as a boolean plane of the given shape."""
        plane = np.zeros(shape, dtype=bool)
        plane[self.slices] = self.mask
        return plane
