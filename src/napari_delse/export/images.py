"""Labels as images: TIFF, OME-TIFF and OME-Zarr.

References
----------
.. [1] OME-TIFF and its XML, https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
.. [2] OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5/ and 0.4, https://ngff.openmicroscopy.org/0.4/
"""

from __future__ import annotations

import colorsys
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_delse.data.units import imagej_sizes
from napari_delse.export.source import IntArray, LabelImage, stored

_IMAGEJ_BYTES = 2**31  # ImageJ's own TIFFs end here
_CHUNK = 1024
_SMALLEST = 512  # the coarsest level of a pyramid has no longer side
_MOST_COLOURS = 100_000  # 5 MB of JSON


def colour(number: int) -> tuple[int, int, int]:
    """A bright RGB colour for a label or class: successive ones differ by the golden ratio in hue."""
    hue = number * 0.618033988749895 % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.45 * (number * 7 % 3) / 2, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def write_tiff(
    path: Path,
    image: LabelImage,
    dtype: np.dtype[Any],
    largest: int,
    *,
    ome: bool = False,
    software: str | None = None,
) -> None:
    """Write labels as one zlib-compressed TIFF.

    Labels of 8 or 16 bit whose axes ImageJ knows become an ImageJ hyperstack with its pixel size, others a plain TIFF
    whose description names the axes (the JSON of tifffile).

    Parameters
    ----------
    path : Path
        File to write.
    image : LabelImage
        The labels.
    dtype : dtype
        To write.
    largest : int
        Label; the display range of ImageJ.
    ome : bool
        Write OME-TIFF.
    software : str, optional
        What made it, for the tag of that name.

    Raises
    ------
    ValueError
        If OME-TIFF cannot name the axes, or the labels have outgrown the type since it was chosen.
    """
    import tifffile

    axes, shape = image.plane_axes + "YX", (*image.plane_counts, *image.plane_shape)
    if ome:
        check_ome_axes(axes)
    size = math.prod(shape) * dtype.itemsize
    fits = [axis for axis in "TZCYX" if axis in axes] == list(axes)
    imagej = not ome and fits and dtype.itemsize <= 2 and size < _IMAGEJ_BYTES
    metadata: dict[str, Any] | None = None
    tags: dict[str, Any] = {}
    if ome:
        metadata = {"axes": axes} | _ome_sizes(image)
    else:
        sizes = imagej_sizes(image.scale, image.units) if image.scale else {}
        plain = json.dumps({"shape": shape, "axes": axes} | sizes)
        tags["description"] = _imagej_description(image, sizes, largest) if imagej else plain
        if image.scale:
            resolution = 1 / image.size("X"), 1 / image.size("Y", image.units.get("X"))
            tags |= {"resolution": resolution, "resolutionunit": 1}
    planes = (stored(plane, dtype) for _, plane in image.planes())
    with tifffile.TiffWriter(path, bigtiff=size > _IMAGEJ_BYTES, ome=ome) as writer:
        writer.write(
            planes,
            shape=shape,
            dtype=dtype,
            photometric="minisblack",
            compression="zlib",
            metadata=metadata,
            software=software,
            **tags,
        )


def _imagej_description(image: LabelImage, sizes: Mapping[str, Any], largest: int) -> str:
    """What ImageJ reads besides pixels.

    It does not say ``images=``: ImageJ would take that many planes to follow the first one uncompressed, and show the
    first one everywhere.
    """
    names = {"C": "channels", "Z": "slices", "T": "frames"}
    lengths = dict(zip(image.plane_axes, image.plane_counts, strict=True))
    lines: dict[str, Any] = {"ImageJ": "1.53t"} | {names[a]: lengths[a] for a in "CZT" if a in lengths}
    if len(lengths) > 1:
        lines["hyperstack"] = "true"
    lines |= {**sizes, "min": 0.0, "max": float(max(1, largest))}
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _ome_sizes(image: LabelImage) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for axis in "ZYX":
        if axis in image.scale:
            unit = image.units.get(axis)
            # Without a unit OME would take micrometers.
            sizes |= {f"PhysicalSize{axis}": image.scale[axis]}
            sizes |= {f"PhysicalSize{axis}Unit": unit.symbol if unit else "pixel"}
    if "T" in image.scale and "T" in image.units:
        sizes |= {"TimeIncrement": image.scale["T"], "TimeIncrementUnit": image.units["T"].symbol}
    return sizes


def check_ome_axes(axes: str) -> None:
    """Refuse axes that OME-TIFF cannot name.

    Raises
    ------
    ValueError
        If there are others than T, C, Z, Y and X.
    """
    if not set(axes) <= set("TZCYX"):
        raise ValueError(f"OME-TIFF knows the axes T, C, Z, Y, X, got {axes}; write .tif or .ome.zarr, or rename them")


def zarr_axes(axes: str) -> str:
    """The axes in the order that OME-Zarr asks for: time, channel or other, space.

    Raises
    ------
    ValueError
        If there is more than one other axis.
    """
    ordered = "".join(sorted(axes, key=lambda axis: "TZYX".find(axis) if axis in "ZYX" else axis != "T"))
    if len(others := [axis for axis in axes if axis not in "TZYX"]) > 1:
        raise ValueError(
            f"OME-Zarr knows T, Z, Y, X and one axis more, got {' and '.join(others)} in {axes}; export each "
            f"position on {others[-1]} on its own, or write .tif"
        )
    return ordered


def write_zarr(
    path: Path,
    image: LabelImage,
    dtype: np.dtype[Any],
    labels: IntArray,
    *,
    name: str,
    classes: Mapping[int, str] | None = None,
    version: str = "0.5",
    inside: bool = False,
    software: str | None = None,
) -> None:
    """Write labels as an OME-Zarr label image with a pyramid.

    The coarser levels take every second pixel of a plane, so that their labels exist and lie where they were. Chunks
    lie within a plane; empty ones are not stored.

    Parameters
    ----------
    path : Path
        Folder to write; must not exist.
    image : LabelImage
        The labels.
    dtype : dtype
        To write.
    labels : int array
        The labels that occur; each gets a colour.
    name : str
        Of the label image.
    classes : mapping of int to str, optional
        Class names; stored as the property ``class``.
    version : {"0.5", "0.4"}
        Of OME-Zarr, on Zarr version 3 or 2.
    inside : bool
        Whether the folder belongs to an image, two folders above.
    software : str, optional
        What made it; an attribute of its own beside those of OME-Zarr.

    Raises
    ------
    ImportError
        If zarr is missing.
    ValueError
        If OME-Zarr cannot name the axes, or the labels have outgrown the type since it was chosen.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError("OME-Zarr needs zarr: pip install 'napari-delse[export]'") from error
    axes = zarr_axes(image.axes)
    lengths = dict(zip(image.axes, image.data.shape, strict=True))
    height, width = image.plane_shape
    levels = 1 + max(0, math.ceil(math.log2(max(height, width) / _SMALLEST)))
    old = version == "0.4"
    group = zarr.create_group(store=str(path), zarr_format=2 if old else 3)
    arrays = []
    for level in range(levels):
        shape = tuple(-(-lengths[a] // 2**level) if a in "YX" else lengths[a] for a in axes)
        arrays.append(
            group.create_array(
                str(level),
                shape=shape,
                chunks=tuple(min(n, _CHUNK) if a in "YX" else 1 for n, a in zip(shape, axes, strict=True)),
                dtype=dtype,
                fill_value=0,
                chunk_key_encoding={"name": "v2" if old else "default", "separator": "/"},
                **({} if old else {"dimension_names": [a.lower() for a in axes]}),
            )
        )
    order = [image.plane_axes.index(a) for a in axes if a not in "YX"]
    for index, (top, left), tile in image.tiles():
        if not tile.any():
            continue
        at, whole = tuple(index[i] for i in order), stored(tile, dtype)
        for level, array in enumerate(arrays):
            step = 2**level
            (y, skipped_y), (x, skipped_x) = ((-(-start // step), -start % step) for start in (top, left))
            coarse = whole[skipped_y::step, skipped_x::step]
            array[(*at, slice(y, y + coarse.shape[0]), slice(x, x + coarse.shape[1]))] = coarse
    multiscale = _multiscale(image, axes, levels) | {"name": name}
    label = _image_label(labels, classes) | ({"source": {"image": "../../"}} if inside else {})
    if old:
        attributes = {"multiscales": [{"version": version} | multiscale], "image-label": {"version": version} | label}
    else:
        attributes = {"ome": {"version": version, "multiscales": [multiscale], "image-label": label}}
    group.attrs.update(attributes | ({"software": software} if software else {}))


def _multiscale(image: LabelImage, axes: str, levels: int) -> dict[str, Any]:
    described = []
    for axis in axes:
        kind = {"T": "time", "C": "channel"}.get(axis, "space" if axis in "ZYX" else None)
        unit = image.units.get(axis)
        described.append(
            {"name": axis.lower()} | ({"type": kind} if kind else {}) | ({"unit": unit.name} if unit else {})
        )
    datasets = []
    # The first pixel is the same one on all levels, so it lies at the same place.
    origin = [image.origin.get(axis, 0.0) for axis in axes]
    shift: list[dict[str, Any]] = [{"type": "translation", "translation": origin}] if any(origin) else []
    for level in range(levels):
        scale = [image.size(a) * (2**level if a in "YX" else 1) for a in axes]
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}, *shift]},
        )
    return {"axes": described, "datasets": datasets, "type": "nearest"}


def _image_label(labels: IntArray, classes: Mapping[int, str] | None) -> dict[str, Any]:
    """Colours and classes of the labels; both name the same labels, as readers check."""
    values = labels.tolist()
    label: dict[str, Any] = {}
    if 0 < len(values) <= _MOST_COLOURS:  # otherwise readers choose colours themselves
        label["colors"] = [{"label-value": v, "rgba": [*colour(v), 255]} for v in values]
    if classes and values:
        label["properties"] = [{"label-value": v} | ({"class": classes[v]} if classes.get(v) else {}) for v in values]
    return label


def image_version(root: Path) -> str:
    """Version of OME-Zarr of the image that labels are to join.

    Raises
    ------
    ValueError
        If there is no OME-Zarr image.
    """
    if (root / "zarr.json").is_file() and "multiscales" in _attributes(root).get("ome", {}):
        return "0.5"
    if (root / ".zattrs").is_file() and "multiscales" in _attributes(root):
        return "0.4"
    raise ValueError(
        f"{root} is no OME-Zarr image of version 0.4 or 0.5; write the labels to a new folder NAME.ome.zarr"
    )


def is_label_image(folder: Path) -> bool:
    """Whether a folder holds an OME-Zarr label image and may be replaced by another."""
    attributes = _attributes(folder)
    return "image-label" in attributes or "image-label" in attributes.get("ome", {})


def _attributes(group: Path) -> dict[str, Any]:
    """Attributes of a Zarr group of either version; empty where there is none."""
    try:
        if (group / "zarr.json").is_file():
            attributes = json.loads((group / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
        else:
            attributes = json.loads((group / ".zattrs").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return attributes if isinstance(attributes, dict) else {}


def register(labels: Path, name: str, version: str) -> None:
    """Name a label image in the list of its image's ``labels`` group, which is made if it is missing.

    Parameters
    ----------
    labels : Path
        The group.
    name : str
        Of the label image in it.
    version : {"0.5", "0.4"}
        Of the image.
    """
    import zarr

    group = zarr.open_group(str(labels), mode="a", zarr_format=2 if version == "0.4" else 3)
    known = dict(group.attrs) if version == "0.4" else dict(group.attrs.get("ome", {}))
    names = list(known.get("labels", []))
    if name not in names:
        known["labels"] = [*names, name]
        group.attrs.update(known if version == "0.4" else {"ome": {"version": version} | known})
    root = labels.parent
    if zarr.open_group(str(root), mode="r").metadata.consolidated_metadata is not None:
        with warnings.catch_warnings():  # it is the image that chose this extension of Zarr 3
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(str(root))
