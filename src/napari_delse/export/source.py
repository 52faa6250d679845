"""What is exported: a label array with named axes and pixel sizes, read one plane at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_delse.data.images import ArrayLike, Plane
from napari_delse.data.prompts import MAX_LABEL
from napari_delse.data.units import NO_UNIT, Unit, in_unit, known_units, unit_named
from napari_delse.geometry import ObjectMask

ObjectKey = int | tuple[int, tuple[int, ...]]
Contours = Mapping[ObjectKey, Sequence[npt.ArrayLike]]
IntArray = npt.NDArray[np.int64]

_USUAL_AXES = {2: "YX", 3: "ZYX", 4: "TZYX", 5: "TCZYX"}
_DENSE = 2**24  # labels up to this are looked up in a table
_STRIP = 2**22  # pixels looked at at once
TILE = 4096  # side of a tile


@dataclass(frozen=True, eq=False)
class LabelImage:
    """A checked label array.

    Parameters
    ----------
    data : array-like
        Integer or bool array with basic slicing.
    axes : str
        One upper-case letter per axis.
    scale : dict of str to float
        Pixel size per axis; empty if unknown.
    units : dict of str to Unit
        Unit per axis that has one.
    origin : dict of str to float
        Where the first pixel lies, in these units; only axes where that is not 0.
    on_plane : callable, optional
        Called with the number of planes read so far and their total.
    """

    data: ArrayLike
    axes: str
    scale: dict[str, float] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    origin: dict[str, float] = field(default_factory=dict)
    on_plane: Callable[[int, int], None] | None = None
    _reads: Iterator[int] = field(default_factory=lambda: itertools.count(1), init=False, repr=False)

    @classmethod
    def of(
        cls,
        labels: Any,
        axes: str | Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
        units: str | Sequence[Any] | None = None,
        translate: Sequence[float] | None = None,
        on_plane: Callable[[int, int], None] | None = None,
    ) -> LabelImage:
        """Check what a person hands over; see `napari_delse.export.labels.export_labels`.

        Raises
        ------
        ValueError
            If the array holds no labels or its description does not fit.
        """
        data = np.asarray(labels) if isinstance(labels, (list, tuple)) else labels
        shape, dtype = tuple(data.shape), np.dtype(data.dtype)
        if dtype.kind not in "biu":
            raise ValueError(
                f"labels must be whole numbers, got dtype {dtype}; convert them, such as with labels.astype('uint32')"
            )
        if len(shape) < 2 or 0 in shape:
            raise ValueError(f"labels must have two or more axes and at least one pixel, got shape {shape}")
        letters = _axes(axes, len(shape))
        return cls(data, letters, _scale(scale, letters), _units(units, letters), _origin(translate, letters), on_plane)

    @property
    def plane_axes(self) -> str:
        """Letters of the axes that count planes, in the order of `planes`."""
        return "".join(axis for axis in self.axes if axis not in "YX")

    @property
    def plane_counts(self) -> tuple[int, ...]:
        """Their lengths."""
        return tuple(int(self.data.shape[self.axes.index(axis)]) for axis in self.plane_axes)

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self.data.shape[self.axes.index("Y")]), int(self.data.shape[self.axes.index("X")])

    def planes(self) -> Iterator[tuple[tuple[int, ...], npt.NDArray[Any]]]:
        """Positions on `plane_axes` and the planes there, (Y, X) whatever the order of the axes; one is held."""
        along = (self.axes.index("Y"), self.axes.index("X"))
        for index in np.ndindex(*self.plane_counts):
            plane = Plane(self.data, axes=along, index=index).window(0, 0, *self.plane_shape)[0]
            self._count_plane()
            yield index, plane.view(np.uint8) if plane.dtype.kind == "b" else plane

    def tiles(self) -> Iterator[tuple[tuple[int, ...], tuple[int, int], npt.NDArray[Any]]]:
        """As `planes`, in tiles with their (y, x) origins: also a plane that is larger than memory can be read."""
        along, (height, width) = (self.axes.index("Y"), self.axes.index("X")), self.plane_shape
        for index in np.ndindex(*self.plane_counts):
            plane = Plane(self.data, axes=along, index=index)
            for top in range(0, height, TILE):
                for left in range(0, width, TILE):
                    tile = plane.window(top, left, min(top + TILE, height), min(left + TILE, width))[0]
                    yield index, (top, left), tile.view(np.uint8) if tile.dtype.kind == "b" else tile
            self._count_plane()

    def _count_plane(self) -> None:
        read = next(self._reads)
        if self.on_plane is not None:
            self.on_plane(read, 2 * math.prod(self.plane_counts))

    def size(self, axis: str, unit: Unit | None = None) -> float:
        """Pixel size along an axis, in another unit where both are known."""
        return in_unit(self.scale.get(axis, 1.0), self.units.get(axis), unit)


def _axes(axes: str | Sequence[str] | None, ndim: int) -> str:
    if axes is None:
        if ndim not in _USUAL_AXES:
            raise ValueError(f"labels have {ndim} axes; name them one by one, such as axes='PTCZYX'")
        return _USUAL_AXES[ndim]
    letters = [str(axis).upper() for axis in axes]
    fits = len(letters) == ndim == len(set(letters)) and {"Y", "X"} <= set(letters)
    if not fits or any(len(axis) != 1 or not "A" <= axis <= "Z" for axis in letters):
        raise ValueError(
            f"axes must name the {ndim} axes of the labels one by one, with Y and X among them, got {axes!r}; "
            f"give {ndim} different letters, such as {_USUAL_AXES.get(ndim, 'PTCZYX')}"
        )
    return "".join(letters)


def _scale(scale: Sequence[float] | None, axes: str) -> dict[str, float]:
    if scale is None:
        return {}
    sizes = [float(size) for size in scale]
    if len(sizes) != len(axes) or not all(0 < size < math.inf for size in sizes):
        raise ValueError(f"scale must hold one positive pixel size per axis of {axes}, got {tuple(sizes)}")
    return dict(zip(axes, sizes, strict=True))


def _origin(translate: Sequence[float] | None, axes: str) -> dict[str, float]:
    if translate is None:
        return {}
    places = [float(place) for place in translate]
    if len(places) != len(axes) or not all(map(math.isfinite, places)):
        raise ValueError(f"translate must hold one position per axis of {axes}, got {tuple(places)}")
    return {axis: place for axis, place in zip(axes, places, strict=True) if place}


def _units(units: str | Sequence[Any] | None, axes: str) -> dict[str, Unit]:
    """The unit of each axis that has one; one name for all means the axes of space."""
    if units is None:
        return {}
    given = (
        {axis: units for axis in axes if axis in "ZYX"}
        if isinstance(units, str)
        else dict(zip(axes, map(str, units), strict=False))
    )
    if not isinstance(units, str) and len(units) != len(axes):
        raise ValueError(f"units must be one name, or one per axis of {axes}, got {len(units)} names")
    found = {}
    for axis, name in given.items():
        if name.strip() in NO_UNIT:
            continue
        unit = unit_named(name, axis)
        if unit is None:
            raise ValueError(
                f"the unit of axis {axis} must be one of {', '.join(known_units(axis))} or pixel, got {name!r}; "
                "convert the scale"
            )
        found[axis] = unit
    return found


def fitting_units(
    scale: Sequence[float],
    units: Sequence[Any],
    translate: Sequence[float],
    axes: str | Sequence[str] | None = None,
) -> tuple[dict[str, Any], str]:
    """Pixel sizes, units and places that the formats know, where an axis may have a unit that is none for it.

    Parameters
    ----------
    scale : sequence of float
        Pixel size per axis.
    units : sequence
        Unit per axis, such as napari's, which may be one of length for all of them.
    translate : sequence of float
        Where the first pixel lies along each axis.
    axes : str or sequence of str, optional
        A letter per axis; the usual ones by default.

    Returns
    -------
    dict, str
        "scale", "units" and "translate" for `export_labels`, and the letters of those axes that are measured in pixels
        for want of a unit.

    Raises
    ------
    ValueError
        If the letters do not fit.
    """
    letters, names = _axes(axes, len(units)), [str(unit) for unit in units]
    fits = [
        name.strip() in NO_UNIT or unit_named(name, axis) is not None for axis, name in zip(letters, names, strict=True)
    ]
    sizes = [float(size) if fit else 1.0 for size, fit in zip(scale, fits, strict=True)]
    known = [name if fit else NO_UNIT[1] for name, fit in zip(names, fits, strict=True)]
    places = [float(place) if fit else 0.0 for place, fit in zip(translate, fits, strict=True)]
    left_out = "".join(axis for axis, fit in zip(letters, fits, strict=True) if not fit)
    return {"scale": sizes, "units": known, "translate": places}, left_out


def check_contours(contours: Contours | None, image: LabelImage) -> dict[tuple[int, tuple[int, ...]], Sequence[Any]]:
    """Contours by label and plane position.

    Raises
    ------
    ValueError
        If a key does not say the plane.
    """
    checked = {}
    for key, lines in (contours or {}).items():
        label, index = (key, ()) if isinstance(key, (int, np.integer)) else key
        if len(index) != len(image.plane_axes):
            raise ValueError(
                f"contours of labels with axes {image.axes} must be named (label, position on "
                f"{image.plane_axes or 'no axis'}), got {key!r}"
            )
        checked[int(label), tuple(int(i) for i in index)] = lines
    return checked


def labels_in(plane: npt.NDArray[Any]) -> IntArray:
    """The labels of a plane in rising order, without the background 0.

    Raises
    ------
    ValueError
        If a label is negative or too large.
    """
    if (smallest := plane.min()) < 0:
        raise ValueError(f"labels must not be negative (0 is the background), got {smallest}; give it a positive label")
    if (largest := int(plane.max())) > MAX_LABEL:
        raise ValueError(
            f"labels must lie in 0..{MAX_LABEL}, got {largest}; number them anew, such as with "
            "skimage.segmentation.relabel_sequential"
        )
    if largest >= _DENSE:
        found = np.unique(plane).astype(np.int64)
        return found[found > 0]
    seen = np.zeros(largest + 1, dtype=bool)
    rows = max(1, _STRIP // plane.shape[1])
    for top in range(0, len(plane), rows):
        part = plane[top : top + rows]
        seen[part[part > 0]] = True  # most pixels are background, and looking them up takes long
    seen[0] = False
    return np.flatnonzero(seen).astype(np.int64)


CHANGED = "the labels changed while they were written; export again"


def stored(labels: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Labels in the type that a first look at all of them has chosen.

    Raises
    ------
    ValueError
        If they do not fit by now.
    """
    if not np.can_cast(labels.dtype, dtype) and (labels.min() < 0 or labels.max() > np.iinfo(dtype).max):
        raise ValueError(CHANGED)
    return np.ascontiguousarray(labels, dtype=dtype)


def objects_in(plane: npt.NDArray[Any]) -> Iterator[tuple[int, ObjectMask]]:
    """The labels of a plane in rising order, each with its pixels."""
    from scipy.ndimage import find_objects

    values = labels_in(plane)
    numbers = plane
    if len(values) and values[-1] >= _DENSE:  # find_objects lists all numbers up to the largest
        numbers = np.where(plane > 0, np.searchsorted(values, plane) + 1, 0)
    else:
        values = np.arange(1, int(plane.max()) + 1)
    for number, window in enumerate(find_objects(numbers), 1):
        if window is not None:
            mask = numbers[window] == number
            yield int(values[number - 1]), ObjectMask(mask, (window[0].start, window[1].start))
