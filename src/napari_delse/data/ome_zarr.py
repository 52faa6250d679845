"""Reading OME-Zarr: the full resolution of an image or a label image, the names of its axes and its pixel size.

References
----------
.. [1] OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5/ and 0.4, https://ngff.openmicroscopy.org/0.4/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_MARKS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_USUAL = {2: "YX", 3: "ZYX", 4: "CZYX", 5: "TCZYX"}


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)


def read_ome_zarr(path: Path) -> tuple[Any, str, dict[str, Any]]:
    """The array of an OME-Zarr image, label image or ``labels`` group, read as late as it is asked for.

    With its axes, and "sizes" and "units" by axis as far as they are known.

    Parameters
    ----------
    path : Path
        Folder of the group; a plain Zarr array goes, too.

    Raises
    ------
    ImportError
        If zarr is missing.
    ValueError
        If there is no image, or several of which one must be chosen.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError("OME-Zarr needs zarr: pip install 'napari-delse[export]'") from error
    try:
        found = zarr.open(str(path), mode="r")
    except Exception as error:
        raise ValueError(f"{path} cannot be read as Zarr ({str(error).splitlines()[0]}); export it again") from error
    if isinstance(found, zarr.Array):
        return found, _USUAL.get(found.ndim, ""), {}
    attributes = dict(found.attrs)
    about = attributes.get("ome", attributes)
    if names := about.get("labels"):
        if len(names) > 1:
            raise ValueError(f"{path} holds the labels {', '.join(names)}; choose one, such as {path / names[0]}")
        return read_ome_zarr(path / names[0])
    if not about.get("multiscales"):
        if "0" in found and isinstance(
            found["0"], zarr.Group
        ):  # several images in one folder, as converters write them
            return read_ome_zarr(path / "0")
        raise ValueError(f"{path} is no OME-Zarr image: it has no multiscales; name the folder of the image itself")
    scales = about["multiscales"][0]
    described = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales.get("axes", "tczyx")]
    axes = "".join(axis["name"][0] for axis in described).upper()
    array = found[scales["datasets"][0]["path"]]
    return array, axes, _pixel_size(scales, described, axes)


def _pixel_size(scales: dict[str, Any], described: list[dict[str, Any]], axes: str) -> dict[str, Any]:
    """Sizes and units by axis; nothing where the transformations are not those of one scale per axis."""
    factors = [1.0] * len(axes)
    for holder in (scales["datasets"][0], scales):
        for step in holder.get("coordinateTransformations", ()):
            scale = step.get("scale") if step.get("type") == "scale" else None
            if isinstance(scale, list) and len(scale) == len(axes):
                factors = [factor * float(size) for factor, size in zip(factors, scale, strict=True)]
    spans = [i for i, axis in enumerate(axes) if axis in "TZYX" and 0 < factors[i] < float("inf")]
    units = {axes[i]: str(described[i]["unit"]) for i in spans if described[i].get("unit")}
    if all(factors[i] == 1 for i in spans) and not units:  # what is written where nobody knows
        return {}
    return {"sizes": {axes[i]: factors[i] for i in spans}, "units": units}
