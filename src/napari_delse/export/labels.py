"""Label arrays as files for other programs: TIFF, OME-TIFF, OME-Zarr, COCO, GeoJSON (QuPath) and ImageJ ROIs.

Labels are read plane by plane, twice: first to see what they are, then to write them. What is written stands aside
under a hidden name and takes its place when it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_delse._writing import aside
from napari_delse.export import images, objects
from napari_delse.export.source import Contours, IntArray, LabelImage, check_contours, labels_in

SUFFIXES = {
    "ome-tiff": (".ome.tif", ".ome.tiff"),
    "tiff": (".tif", ".tiff"),
    "ome-zarr": (".ome.zarr", ".zarr"),
    "ome-zarr-0.4": (),
    "coco": (".json",),
    "geojson": (".geojson",),
    "imagej": (".zip", ".roi"),
}
FORMATS = tuple(SUFFIXES)
OBJECT_FORMATS = ("coco", "geojson", "imagej")  # the ones with outlines


@dataclass(frozen=True, eq=False)
class _Content:
    """What a look at all planes found."""

    labels: IntArray
    objects: int  # labels, counted in each plane

    @property
    def largest(self) -> int:
        return int(self.labels[-1]) if len(self.labels) else 0


def export_labels(
    labels: Any,
    out: Path | str,
    format: str | None = None,  # noqa: A002 - what everyone calls it
    *,
    axes: str | Sequence[str] | None = None,
    scale: Sequence[float] | None = None,
    units: str | Sequence[Any] | None = None,
    translate: Sequence[float] | None = None,
    classes: Mapping[int, str] | None = None,
    contours: Contours | None = None,
    dtype: npt.DTypeLike | None = None,
    image_name: str | None = None,
    on_plane: Callable[[int, int], None] | None = None,
    software: str | None = None,
) -> Path:
    """Write labels for another program.

    Parameters
    ----------
    labels : array-like
        Integer or bool labels with two or more axes and basic slicing (numpy, dask, zarr); 0 is the background.
    out : path
        File or, for OME-Zarr, folder; replaced when the new one is complete. ``IMAGE.zarr/labels/NAME`` adds the
        labels to an existing OME-Zarr image, in its version.
    format : str, optional
        One of `FORMATS`; without it, what the suffix of ``out`` says. "tiff" is an ImageJ hyperstack where ImageJ
        can hold the labels. "ome-zarr" is version 0.5, "ome-zarr-0.4" is for programs that know no Zarr 3 yet.
    axes : str or sequence of str, optional
        A letter per axis in any order, Y and X among them; by default YX, ZYX, TZYX or TCZYX.
    scale : sequence of float, optional
        Pixel size per axis.
    units : str or sequence, optional
        Unit per axis, or one for Z, Y and X; names such as "micrometer" and "second", or napari's units.
    translate : sequence of float, optional
        Where the first pixel lies along each axis, in its unit; for OME-Zarr, other formats have no place for it.
    classes : mapping of int to str, optional
        Class names of labels. TIFF has no place for them.
    contours : mapping, optional
        Sub-pixel contours of objects, ``(label, plane position): [(N, 2) array, ...]`` or just ``label: [...]`` for
        a single plane, (y, x) with pixel centres at integers as `Prediction.contours` gives them. For COCO, GeoJSON
        and ImageJ only; objects without them are outlined along their pixel edges.
    dtype : dtype, optional
        Of labels in images; by default the smallest unsigned type that holds them.
    image_name : str, optional
        File name of the labelled image, for COCO; by default the name of ``out`` with ``.tif``.
    on_plane : callable, optional
        Called after each plane with the number of planes read and their total (two looks at each). An exception
        from it ends the export and leaves nothing behind.
    software : str, optional
        What made the labels; kept in TIFF and OME-Zarr.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        If the labels cannot be written so, or change while they are; the message names value, rule and remedy.
    ImportError
        If a library of the extra ``export`` is missing.

    Notes
    -----
    Object formats have pixel corners at integers: the pixel in row 0 and column 0 is the square from (0, 0) to (1, 1)
    in QuPath, ImageJ and COCO, and a contour at (y, x) of the package is written as (x + 0.5, y + 0.5). Polygons along
    pixel edges turn back into exactly the same mask.

    Examples
    --------
    >>> export_labels(labels, "cells.geojson", classes={1: "Tumor"})  # doctest: +SKIP
    >>> export_labels(stack, "cells.ome.zarr", axes="ZYX", scale=(2, 0.5, 0.5), units="micrometer")  # doctest: +SKIP
    """
    out = Path(out)
    kind = _format(out, format)
    if contours and kind not in OBJECT_FORMATS:
        raise ValueError(f"{kind} holds pixels, no contours; leave them out or write {', '.join(OBJECT_FORMATS)}")
    image = LabelImage.of(labels, axes, scale, units, translate, on_plane)
    lines, names = check_contours(contours, image), _class_names(classes)
    version = _zarr_version(out, kind)
    if kind.startswith("ome-zarr"):
        images.zarr_axes(image.axes)
    content = _survey(image)
    kept = _dtype(dtype, content.largest, kind)
    if single := kind == "imagej" and out.suffix.lower() == ".roi":
        _check_single(content.objects)
    with aside(out) as path:
        if kind in ("tiff", "ome-tiff"):
            images.write_tiff(path, image, kept, content.largest, ome=kind == "ome-tiff", software=software)
        elif kind.startswith("ome-zarr"):
            name, inside = out.name.removesuffix(".zarr").removesuffix(".ome"), _in_image(out)
            about: dict[str, Any] = {"name": name, "classes": names, "version": version, "inside": inside}
            images.write_zarr(path, image, kept, content.labels, software=software, **about)
        elif kind == "coco":
            called = image_name or f"{out.stem}.tif"
            objects.write_coco(path, image, content.labels.tolist(), lines, names, called)
        elif kind == "geojson":
            objects.write_geojson(path, image, lines, names)
        else:
            objects.write_imagej(path, image, lines, names, single=single)
    if kind.startswith("ome-zarr") and _in_image(out):
        images.register(out.parent, out.name, version)
    return out


def _format(out: Path, wanted: str | None) -> str:
    """The format asked for, or the one that the name says."""
    if wanted is not None:
        if wanted not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {wanted!r}")
        return wanted
    if _in_image(out):
        return "ome-zarr"
    name = out.name.lower()
    for kind, suffixes in SUFFIXES.items():
        if name.endswith(suffixes):
            return kind
    known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    raise ValueError(f"{out.name!r} does not say a format; end it with one of {known}, or give the format")


def _in_image(out: Path) -> bool:
    """Whether a folder stands where the labels of an OME-Zarr image do."""
    root = out.parent.parent
    group = any((root / name).is_file() for name in ("zarr.json", ".zattrs"))
    return out.parent.name == "labels" and (group or root.suffix.lower() == ".zarr")


def _zarr_version(out: Path, kind: str) -> str:
    """The version of OME-Zarr to write, after a look at what stands where it will be written."""
    wanted = "0.4" if kind == "ome-zarr-0.4" else "0.5"
    if not kind.startswith("ome-zarr"):
        if out.is_dir():
            raise ValueError(f"{out} is a folder and {kind} is a file; choose another name")
        return wanted
    if out.exists() and not images.is_label_image(out):
        raise ValueError(
            f"{out} exists and is no label image, so it is not replaced; to add labels to an OME-Zarr image, write to "
            f"{out / 'labels' / 'NAME'}, else choose another name"
        )
    if not _in_image(out):
        return wanted
    version = images.image_version(out.parent.parent)
    if kind == "ome-zarr-0.4" and version != "0.4":
        raise ValueError(f"{out.parent.parent} is OME-Zarr {version}, and its labels must be, too; use ome-zarr")
    return version


def _class_names(classes: Mapping[int, str] | None) -> dict[int, str]:
    names = {int(label): str(name).strip() for label, name in (classes or {}).items()}
    return {label: name for label, name in names.items() if name}


def _survey(image: LabelImage) -> _Content:
    found, count = np.empty(0, dtype=np.int64), 0
    for _, parts in groupby(image.tiles(), lambda tile: tile[0]):
        here = reduce(np.union1d, (labels_in(part) for _, _, part in parts))
        found, count = np.union1d(found, here), count + len(here)
    return _Content(found, count)


def _dtype(wanted: npt.DTypeLike | None, largest: int, kind: str) -> np.dtype[Any]:
    """The type to store labels in."""
    if wanted is None:
        return np.min_scalar_type(largest)
    dtype = np.dtype(wanted)
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        raise ValueError(f"labels are stored as whole numbers of 8, 16 or 32 bit, got dtype {dtype}; choose uint16")
    if largest > np.iinfo(dtype).max:
        raise ValueError(
            f"label {largest} does not fit {dtype} (largest {np.iinfo(dtype).max}) in {kind}; choose a larger dtype, "
            "or number the labels anew, such as with skimage.segmentation.relabel_sequential"
        )
    return dtype


def _check_single(count: int) -> None:
    if count != 1:
        raise ValueError(f"a .roi file holds one object, got {count}; end the name with .zip")
