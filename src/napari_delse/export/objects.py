"""Labels as objects: COCO, GeoJSON for QuPath and ImageJ ROIs.

All three put pixel corners at integers. By default outlines run along pixel edges, so that filling them gives the mask
back exactly; sub-pixel contours give smoother outlines that do not.

References
----------
.. [1] COCO data format, https://cocodataset.org/#format-data
.. [2] GeoJSON, doi:10.17487/RFC7946, and QuPath's use of it,
   https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html
.. [3] ImageJ's RoiDecoder.java, https://github.com/imagej/ImageJ/blob/master/ij/io/RoiDecoder.java
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from napari_delse.export import outlines
from napari_delse.export.images import colour
from napari_delse.export.source import CHANGED, LabelImage, objects_in
from napari_delse.geometry import ObjectMask

if TYPE_CHECKING:
    from roifile import ImagejRoi

PlaneContours = Mapping[tuple[int, tuple[int, ...]], Sequence[Any]]

_DECIMALS = 3  # of sub-pixel positions in text
_UNNAMED = "object"  # the category of objects without a class: COCO asks for one
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0  # java.awt.geom.PathIterator


@dataclass(frozen=True, eq=False)
class Outlined:
    """One object in one plane."""

    label: int
    index: tuple[int, ...]
    mask: ObjectMask
    polygons: list[outlines.Polygon]


def outlined(image: LabelImage, contours: PlaneContours) -> Iterator[Outlined]:
    """All objects, plane by plane, with their contours where there are some, else with their pixel edges."""
    for index, plane in image.planes():
        for label, mask in objects_in(plane):
            lines = contours.get((label, index))
            try:
                polygons = outlines.from_contours(lines) if lines else outlines.trace(mask.mask, mask.origin)
            except ValueError as error:
                raise ValueError(f"label {label}{f' in plane {index}' if index else ''}: {error}") from error
            yield Outlined(label, index, mask, polygons)


def _categories(labels: Iterable[int], classes: Mapping[int, str]) -> dict[str, int]:
    """Class names numbered from 1 in alphabetical order, and one more for labels without a class."""
    names = sorted({classes[label] for label in labels if label in classes} - {_UNNAMED})
    if any(classes.get(label, _UNNAMED) == _UNNAMED for label in labels):
        names.append(_UNNAMED)
    return {name: number for number, name in enumerate(names, 1)}


def _write_list(file: TextIO, items: Iterable[Any]) -> None:
    """A JSON array, one element per line and one in memory."""
    lines = (json.dumps(item, ensure_ascii=False, separators=(",", ":")) for item in items)
    file.write("[")
    file.writelines((",\n" if i else "\n") + line for i, line in enumerate(lines))
    file.write("\n]")


def _place(image: LabelImage, index: tuple[int, ...]) -> str:
    """A plane in a name: -t0002-z0015."""
    return "".join(f"-{axis.lower()}{i:04}" for axis, i in zip(image.plane_axes, index, strict=True))


def _positions(ring: outlines.Ring) -> list[list[float]]:
    """(x, y) pairs as JSON has them."""
    return [[round(v, _DECIMALS) for v in pair] for pair in ring[:, ::-1].tolist()]


def write_coco(
    path: Path,
    image: LabelImage,
    labels: Sequence[int],
    contours: PlaneContours,
    classes: Mapping[int, str],
    image_name: str,
) -> None:
    """Write a COCO file: one image per plane, one annotation per label in it.

    Objects without holes are polygons along their pixel edges (or along their contours), others uncompressed
    run-length counts; pycocotools decodes both to the mask. Annotations carry their ``label`` besides.

    Parameters
    ----------
    path : Path
        JSON file to write.
    image : LabelImage
        The labels.
    labels : sequence of int
        The labels that occur.
    contours : mapping
        Sub-pixel contours by label and plane position.
    classes : mapping of int to str
        Class names: the categories.
    image_name : str
        File name of the image. Planes of a stack are called after it, as ``cells-t0002-z0015.tif``.
    """
    numbers = _categories(labels, classes)
    height, width = image.plane_shape
    places = {index: i for i, index in enumerate(np.ndindex(*image.plane_counts), 1)}
    named = Path(image_name)
    pictures = (
        {"id": i, "width": width, "height": height, "file_name": f"{named.stem}{_place(image, index)}{named.suffix}"}
        for index, i in places.items()
    )
    annotations = (
        {"id": i, "image_id": places[one.index], "label": one.label}
        | {"category_id": numbers.setdefault(classes.get(one.label, _UNNAMED), len(numbers) + 1)}
        | {"segmentation": _segmentation(one, image.plane_shape), "iscrowd": 0}
        | {"area": one.mask.area, "bbox": [*one.mask.origin[::-1], *one.mask.mask.shape[::-1]]}
        for i, one in enumerate(outlined(image, contours), 1)
    )
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"description": "labels exported by napari-delse"},\n"licenses": [],\n"images": ')
        _write_list(file, pictures)
        file.write(',\n"annotations": ')
        _write_list(file, annotations)
        file.write(',\n"categories": ')  # the last, as labels may have come since they were looked at
        _write_list(file, ({"id": i, "name": name, "supercategory": ""} for name, i in numbers.items()))
        file.write("\n}\n")


def _segmentation(one: Outlined, shape: tuple[int, int]) -> Any:
    """Polygons, or counts where there is a hole, which COCO's polygons cannot have."""
    if any(polygon.holes for polygon in one.polygons):
        return {"size": list(shape), "counts": outlines.column_runs(one.mask.mask, one.mask.origin, shape)}
    return [[v for pair in _positions(polygon.shell) for v in pair] for polygon in one.polygons]


def write_geojson(path: Path, image: LabelImage, contours: PlaneContours, classes: Mapping[int, str]) -> None:
    """Write a GeoJSON file that QuPath imports as annotations.

    Every object in a plane is a feature with its label as name; positions are pixels of the full image. Planes of a
    stack are named as QuPath does, by a member ``plane`` of the geometry.

    Parameters
    ----------
    path : Path
        File to write.
    image : LabelImage
        The labels.
    contours : mapping
        Sub-pixel contours by label and plane position.
    classes : mapping of int to str
        Class names: QuPath's classifications.

    Raises
    ------
    ValueError
        If QuPath does not know the axes.
    """
    _check_axes(image, "QuPath")
    numbers = _categories(list(classes), classes)

    def feature(one: Outlined) -> dict[str, Any]:
        parts = [[_positions(np.concatenate([ring, ring[:1]])) for ring in polygon.rings] for polygon in one.polygons]
        geometry: dict[str, Any] = {"type": "Polygon", "coordinates": parts[0]}
        if len(parts) > 1:
            geometry = {"type": "MultiPolygon", "coordinates": parts}
        if one.index:
            at = dict(zip(image.plane_axes, one.index, strict=True))
            geometry["plane"] = {"c": at.get("C", -1), "z": at.get("Z", 0), "t": at.get("T", 0)}  # -1: all channels
        properties: dict[str, Any] = {"objectType": "annotation", "name": str(one.label)}
        if name := classes.get(one.label):
            properties["classification"] = {"name": name, "color": list(colour(numbers[name]))}
        return {"type": "Feature", "geometry": geometry, "properties": properties}

    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": ')
        _write_list(file, map(feature, outlined(image, contours)))
        file.write("}\n")


def _check_axes(image: LabelImage, reader: str) -> None:
    if others := set(image.plane_axes) - set("CZT"):
        raise ValueError(
            f"{reader} knows planes along C, Z and T, got {', '.join(sorted(others))} in {image.axes}; export each "
            "position there on its own, or rename the axis"
        )


def write_imagej(
    path: Path, image: LabelImage, contours: PlaneContours, classes: Mapping[int, str], *, single: bool = False
) -> None:
    """Write ImageJ ROIs, one per object in a plane.

    Objects of one part without holes are polygons (traced ones along pixel edges), others composite ROIs. The name is
    the label, with the plane in a stack; classes become ImageJ's groups and the property ``class``.

    Parameters
    ----------
    path : Path
        File to write.
    image : LabelImage
        The labels.
    contours : mapping
        Sub-pixel contours by label and plane position.
    classes : mapping of int to str
        Class names.
    single : bool
        Write one ROI as ``.roi`` instead of a zip of all.

    Raises
    ------
    ImportError
        If roifile is missing.
    ValueError
        If ImageJ does not know the axes, or a single ROI is not the only one any more.
    """
    try:
        import roifile  # noqa: F401
    except ImportError as error:
        raise ImportError("ImageJ ROIs need roifile: pip install 'napari-delse[export]'") from error
    _check_axes(image, "ImageJ")
    numbers = _categories(list(classes), classes)
    rois = (_roi(one, image, classes.get(one.label, ""), numbers) for one in outlined(image, contours))
    if single:
        found = list(rois)
        if len(found) != 1:
            raise ValueError(CHANGED)
        path.write_bytes(found[0].tobytes())
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for roi in rois:
            archive.writestr(f"{roi.name}.roi", roi.tobytes())


def _roi(one: Outlined, image: LabelImage, name: str, numbers: Mapping[str, int]) -> ImagejRoi:
    """A ROI with its name, position, label and class."""
    roi = _shape(one.polygons)
    roi.name = f"{one.label}{_place(image, one.index)}"
    if len(one.index) == 1:  # ImageJ shows a stack along one axis as slices, whatever the axis
        roi.position = one.index[0] + 1
    else:
        at = dict(zip(image.plane_axes, one.index, strict=True))
        roi.c_position, roi.z_position, roi.t_position = (at.get(axis, -1) + 1 for axis in "CZT")
    roi.properties = {"label": one.label} | ({"class": name} if name else {})
    roi.group = numbers.get(name, 0)
    return roi


def _shape(polygons: Sequence[outlines.Polygon]) -> ImagejRoi:
    """A traced ROI for pixel edges, a polygon for a contour, a composite one for holes and several parts."""
    from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

    if len(polygons) == 1 and not polygons[0].holes:
        shell = polygons[0].shell
        roi = ImagejRoi.frompoints(shell[:, ::-1])
        roi.roitype = ROI_TYPE.POLYGON if shell.dtype.kind == "f" else ROI_TYPE.TRACED
        roi.right, roi.bottom = roi.right - 1, roi.bottom - 1  # here corners are counted, not pixels
        return roi
    rings = [ring[:, ::-1].astype(np.float32) for polygon in polygons for ring in polygon.rings]
    ways = [
        np.append(np.insert(ring, 0, [_MOVE] + [_LINE] * (len(ring) - 1), axis=1).ravel(), np.float32(_CLOSE))
        for ring in rings
    ]
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    path = np.concatenate(ways)
    return ImagejRoi(
        roitype=ROI_TYPE.RECT,
        options=ROI_OPTIONS.OVERLAY_BACKGROUNDS | ROI_OPTIONS.OVERLAY_LABELS,
        left=int(left),
        top=int(top),
        right=int(right),
        bottom=int(bottom),
        shape_roi_size=len(path),
        multi_coordinates=path,
    )
