"""Results of many images: label files, and tables with a line per object."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_delse._writing import write_atomically
from napari_delse.data.files import TIFF, ImageFile, write_labels
from napari_delse.data.units import unit_named
from napari_delse.export.images import check_ome_axes, zarr_axes
from napari_delse.export.labels import export_labels
from napari_delse.export.source import TILE
from napari_delse.stacks.planes import UNSURE, Index, paint
from napari_delse.stacks.work_folder import Painted

_HUGE = 2**26  # pixels of a plane that is written in tiles
_TIFF_TILE = 1024


@dataclass(frozen=True)
class ObjectRow:
    """An object of a result.

    Parameters
    ----------
    label : int
        Its id.
    index : tuple of int
        Its plane.
    area : int
        Pixels painted; fewer than its mask has where another object lies.
    confidence : float
        Expected IoU in [0, 1].
    doubt : str
        Why to look at it.
    milliseconds : float
        What it took; not in a table.
    """

    label: int
    index: Index
    area: int
    confidence: float
    doubt: str = ""
    milliseconds: float = 0.0

    @property
    def unsure(self) -> bool:
        """Whether a person should look at it."""
        return bool(self.doubt) or self.confidence < UNSURE


def object_rows(painted: Painted) -> Iterator[ObjectRow]:
    """The objects of finished blocks, plane by plane."""
    height, width = painted.shape[-2:]
    for index in painted.planes():
        areas = np.zeros(painted.count(index), np.int64)
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                box = top, left, min(top + TILE, height), min(left + TILE, width)
                window = np.zeros((box[2] - top, box[3] - left), painted.dtype)
                here = dict(painted.objects(index, box))
                for number, area in zip(
                    here, paint(window, (top, left), here.values(), overwrite=painted.overwrite), strict=True
                ):
                    areas[number] += area
        for number, one in painted.objects(index):
            yield ObjectRow(one.label, index, int(areas[number]), one.confidence, one.doubt, one.milliseconds)


_FIRST, _LAST = "label", ("area", "confidence", "doubt")


def write_table(path: Path, rows: Iterable[ObjectRow], plane_axes: str) -> None:
    """Write objects as CSV: label, a column per plane axis, area, confidence and doubt."""

    def to(aside: Path) -> None:
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([_FIRST, *plane_axes.lower(), *_LAST])
            for row in rows:
                writer.writerow([row.label, *row.index, row.area, f"{row.confidence:.4f}", row.doubt])

    write_atomically(path, to)


def read_table(path: Path) -> Iterator[ObjectRow]:
    """The objects of a table that `write_table` wrote.

    Raises
    ------
    ValueError
        If it was edited so that they cannot be read.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        if not _is_header(next(lines, [])):
            raise ValueError(f"{path} has other columns than were written")
        for label, *index, area, confidence, doubt in lines:
            yield ObjectRow(int(label), tuple(int(i) for i in index), int(area), float(confidence), doubt)


def is_table(path: Path) -> bool:
    """Whether a file has the columns that `write_table` writes."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return _is_header(next(csv.reader(file), []))
    except (OSError, ValueError):
        return False


def _is_header(columns: list[str]) -> bool:
    axes = columns[1:-3]
    return columns[:1] == [_FIRST] and tuple(columns[-3:]) == _LAST and all(len(axis) == 1 for axis in axes)


def check_axes(out: Path, image: ImageFile) -> None:
    """Refuse a format that cannot name the axes of an image's labels.

    Raises
    ------
    ValueError
        See `write`, which would find it out when all is done.
    """
    axes = image.plane_axes + "YX"
    if _is_plain(out, image):
        return
    if _is_ome_tiff(out):
        check_ome_axes(axes)
    else:
        zarr_axes(axes)


def _is_ome_tiff(out: Path) -> bool:
    return out.name.lower().endswith((".ome.tif", ".ome.tiff"))


def _is_plain(out: Path, image: ImageFile) -> bool:
    """Whether labels are written as they are, and not through the exports."""
    return out.suffix.lower() in TIFF and (not _is_ome_tiff(out) or image.kind == "ome")


def write(out: Path, painted: Painted, image: ImageFile, *, software: str) -> None:
    """Write labels as TIFF or OME-Zarr, with the axes and the pixel size of their image; complete or not at all.

    Parameters
    ----------
    out : Path
        File, or folder that ends with ``.zarr`` or lies in the ``labels`` of an OME-Zarr image; replaced.
    painted : Painted
        The labels.
    image : ImageFile
        The image.
    software : str
        What made them; `software_of` finds it again.
    """
    ome = _is_ome_tiff(out)
    if _is_plain(out, image):
        huge = math.prod(image.plane_shape) > _HUGE
        pieces = _tiles(painted) if huge else _planes(painted)
        tile = _TIFF_TILE if huge else None
        write_atomically(
            out,
            lambda aside: write_labels(aside, pieces, painted.dtype, image, ome=ome, tile=tile, software=software),
        )
        return
    sizes, units = image.pixel_size
    axes = image.plane_axes + "YX"
    known = {axis: unit_named(units.get(axis, ""), axis) for axis in axes}
    export_labels(
        painted,
        out,
        "ome-tiff" if ome else "ome-zarr",
        axes=axes,
        scale=[sizes.get(axis, 1.0) for axis in axes] if sizes else None,
        units=[unit.name if unit else "pixel" for unit in known.values()] if sizes else None,
        translate=[image.origin.get(axis, 0.0) for axis in axes],
        dtype=painted.dtype,
        software=software,
    )


def _planes(painted: Painted) -> Iterator[npt.NDArray[Any]]:
    for index in np.ndindex(*painted.shape[:-2]):
        yield painted[(*index, slice(None), slice(None))]


def _tiles(painted: Painted) -> Iterator[npt.NDArray[Any]]:
    """Tiles of equal size, those at the edges filled up with 0."""
    height, width = painted.shape[-2:]
    for index in np.ndindex(*painted.shape[:-2]):
        for top in range(0, height, _TIFF_TILE):
            for left in range(0, width, _TIFF_TILE):
                tile = np.zeros((_TIFF_TILE, _TIFF_TILE), painted.dtype)
                part = painted[(*index, slice(top, top + _TIFF_TILE), slice(left, left + _TIFF_TILE))]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile


def software_of(path: Path) -> str:
    """What made a label file; empty if it does not say so, or cannot be read."""
    try:
        if path.is_dir():
            import zarr

            return str(zarr.open_group(str(path), mode="r").attrs.get("software", ""))
        import tifffile

        with tifffile.TiffFile(path) as file:
            return str(file.pages.first.software)
    except Exception:
        return ""
