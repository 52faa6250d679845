"""Reading OME-Zarr: the full resolution of an image or a label image, the names of its axes and its pixel size.

References
----------
.. [1] OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5/ and 0.4, https://ngff.openmicroscopy.org/0.4/
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

_MARKS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_USUAL = {2: "YX", 3: "ZYX", 4: "CZYX", 5: "TCZYX"}
_USUAL_LABELS = _USUAL | {4: "TZYX"}


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)


def image_folder(path: Path) -> Path:
    """The folder that `read_ome_zarr` reads: that of the image, or of the only label image of a ``labels`` group.

    Raises
    ------
    ImportError, ValueError
        See `read_ome_zarr`.
    """
    return _image_in(path)[0]


def read_ome_zarr(path: Path, *, labels: bool = False) -> tuple[Any, str, dict[str, Any]]:
    """The array of an OME-Zarr image, label image or ``labels`` group, read as late as it is asked for.

    With its axes, and "sizes", "units" and "origin" by axis as far as they are known.

    Parameters
    ----------
    path : Path
        Folder of the group; a plain Zarr array goes, too.
    labels : bool
        Whether it holds labels, which have no channels.

    Raises
    ------
    ImportError
        If zarr is missing.
    ValueError
        If there is no image, or several of which one must be chosen.
    """
    _, found, about = _image_in(path)
    if not about:
        return found, (_USUAL_LABELS if labels else _USUAL).get(found.ndim, ""), {}
    scales = about["multiscales"][0]
    described = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales.get("axes", "tczyx")]
    axes = "".join(axis["name"][0] for axis in described).upper()
    array = found[scales["datasets"][0]["path"]]
    return array, axes, _pixel_size(scales, described, axes)


def _image_in(path: Path) -> tuple[Path, Any, dict[str, Any]]:
    """Folder and group of the image that a folder stands for, with its OME attributes; none where it is an array."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError("OME-Zarr needs zarr: pip install 'napari-delse[export]'") from error
    try:
        found = zarr.open(str(path), mode="r")
    except Exception as error:
        raise ValueError(f"{path} cannot be read as Zarr ({str(error).splitlines()[0]}); export it again") from error
    if isinstance(found, zarr.Array):
        return path, found, {}
    attributes = dict(found.attrs)
    about = attributes.get("ome", attributes)
    if names := about.get("labels"):
        if len(names) > 1:
            raise ValueError(f"{path} holds the labels {', '.join(names)}; choose one, such as {path / names[0]}")
        return _image_in(path / names[0])
    if not about.get("multiscales"):
        if "0" in found and isinstance(
            found["0"], zarr.Group
        ):  # several images in one folder, as converters write them
            return _image_in(path / "0")
        raise ValueError(f"{path} is no OME-Zarr image: it has no multiscales; name the folder of the image itself")
    return path, found, about


def _pixel_size(scales: dict[str, Any], described: list[dict[str, Any]], axes: str) -> dict[str, Any]:
    """Sizes, units and origin by axis, as far as each axis has its own scale and shift."""
    factors, shifts = [1.0] * len(axes), [0.0] * len(axes)
    for holder in (scales["datasets"][0], scales):
        for step in holder.get("coordinateTransformations", ()):
            values = step.get(step.get("type"))
            if not isinstance(values, list) or len(values) != len(axes):
                continue
            if step["type"] == "scale":
                factors = [factor * float(size) for factor, size in zip(factors, values, strict=True)]
                shifts = [shift * float(size) for shift, size in zip(shifts, values, strict=True)]
            elif step["type"] == "translation":
                shifts = [shift + float(more) for shift, more in zip(shifts, values, strict=True)]
    spans = [i for i, axis in enumerate(axes) if axis in "TZYX" and 0 < factors[i] < math.inf]
    units = {axes[i]: str(described[i]["unit"]) for i in spans if described[i].get("unit")}
    origin = {axes[i]: shifts[i] for i in spans if shifts[i] and math.isfinite(shifts[i])}
    known: dict[str, Any] = {"origin": origin} if origin else {}
    if any(factors[i] != 1 for i in spans) or units:  # else it is what is written where nobody knows
        known |= {"sizes": {axes[i]: factors[i] for i in spans}, "units": units}
    return known
