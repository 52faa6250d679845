"""Exported labels, read back by other libraries than the ones that wrote them, wherever there is one."""

import json
import subprocess
import sys
import zipfile
from xml.etree import ElementTree as ET

import dask.array as da
import numpy as np
import pytest
import roifile
import shapely
import tifffile
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools.coco import COCO
from shapely.geometry import shape

from napari_delse.export import labels as export
from napari_delse.export.labels import export_labels
from napari_delse.export.source import fitting_units

# pycocotools compiled against numpy 1 warns in numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Noise has every difficulty: holes, islands in holes, split objects, parts that touch at corners, pixels at the border.
planes = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=st.integers(0, 3)
)
KNOT = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 1], [1, 0, 1, 1]], np.uint8)  # rings through corners
FULL = np.ones((3, 4), np.uint8)
NESTED = np.array([[1] * 5, [1, 2, 2, 2, 1], [1, 2, 1, 2, 1], [1, 2, 2, 2, 1], [1] * 5], np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


def filled(rings, plane_shape):
    """Pixels whose centre lies in an odd number of rings of (x, y), corners at integers."""
    ys, xs = np.mgrid[: plane_shape[0], : plane_shape[1]] + 0.5
    inside = np.zeros(plane_shape, bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                inside ^= ((y0 > ys) != (y1 > ys)) & (x0 + (ys - y0) / (y1 - y0) * (x1 - x0) > xs)
    return inside


def stack(shape=(2, 3, 20, 30), labels=6, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, labels + 1, (*shape[:-2], -(-shape[-2] // 5), -(-shape[-1] // 5)))
    return coarse.repeat(5, -2).repeat(5, -1)[..., : shape[-2], : shape[-1]].astype(np.uint16)


# --- outlines as objects


def from_geojson(path, plane_shape):
    labels = np.zeros(plane_shape, np.int64)
    ys, xs = np.mgrid[: plane_shape[0], : plane_shape[1]] + 0.5
    for feature in json.loads(path.read_text())["features"]:
        geometry = shape(feature["geometry"])
        assert geometry.is_valid, shapely.is_valid_reason(geometry)
        labels[shapely.contains_xy(geometry, xs, ys)] += int(feature["properties"]["name"])
    return labels


@settings(max_examples=60, deadline=None)
@given(labels=planes)
@example(labels=KNOT)
@example(labels=FULL)
@example(labels=NESTED)
def test_geojson_polygons_are_valid_and_fill_to_the_same_labels(folder, labels):
    path = export_labels(labels, folder / "cells.geojson")
    np.testing.assert_array_equal(from_geojson(path, labels.shape), labels)


def test_geojson_rings_turn_as_the_rfc_says(folder):
    path = export_labels(NESTED, folder / "rings.geojson")
    for feature in json.loads(path.read_text())["features"]:
        geometry = shape(feature["geometry"])
        for polygon in getattr(geometry, "geoms", [geometry]):
            assert polygon.exterior.is_ccw
            assert not any(ring.is_ccw for ring in polygon.interiors)


def test_geojson_names_classes_and_planes_as_qupath_does(folder):
    labels = np.zeros((2, 3, 4, 4), np.uint8)
    labels[1, 2, 1:3, 1:3] = 7
    labels[0, 0, 0, 0] = 9
    path = export_labels(labels, folder / "planes.geojson", axes="TZYX", classes={7: "Tumör", 8: "absent"})
    first, second = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert second["geometry"]["plane"] == {"c": -1, "z": 2, "t": 1}
    assert second["geometry"]["coordinates"] == [[[1, 1], [3, 1], [3, 3], [1, 3], [1, 1]]]
    assert second["properties"]["objectType"] == "annotation"
    assert second["properties"]["classification"]["name"] == "Tumör"
    assert all(isinstance(c, int) and 0 <= c <= 255 for c in second["properties"]["classification"]["color"])
    assert "classification" not in first["properties"]


def from_coco(path, images):
    coco = COCO(str(path))
    found = []
    for number in sorted(coco.imgs):
        labels = np.zeros((coco.imgs[number]["height"], coco.imgs[number]["width"]), np.int64)
        for annotation in coco.imgToAnns[number]:
            mask = coco.annToMask(annotation).astype(bool)
            assert annotation["area"] == mask.sum()
            ys, xs = np.nonzero(mask)
            assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            labels[mask] += annotation["label"]
        found.append(labels)
    return np.stack(found).reshape(images)


@settings(max_examples=60, deadline=None)
@given(labels=planes)
@example(labels=KNOT)
@example(labels=FULL)
@example(labels=NESTED)
def test_coco_decodes_to_the_same_labels(folder, labels):
    path = export_labels(labels, folder / "cells.json")
    np.testing.assert_array_equal(from_coco(path, labels.shape), labels)


def test_coco_of_a_stack_has_one_image_per_plane_and_names_categories(folder):
    labels = stack()
    path = export_labels(labels, folder / "stack.json", axes="TZYX", classes={1: "b", 2: "a"}, image_name="raw.tif")
    np.testing.assert_array_equal(from_coco(path, labels.shape), labels)
    content = json.loads(path.read_text())
    assert [image["file_name"] for image in content["images"]][-1] == "raw-t0001-z0002.tif"
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert names == {1: "a", 2: "b", 3: "object"}
    for annotation in content["annotations"]:
        assert names[annotation["category_id"]] == {1: "b", 2: "a"}.get(annotation["label"], "object")
    assert len({annotation["id"] for annotation in content["annotations"]}) == len(content["annotations"])


@settings(max_examples=60, deadline=None)
@given(labels=planes)
@example(labels=KNOT)
@example(labels=FULL)
@example(labels=NESTED)
def test_imagej_rois_fill_to_the_same_labels(folder, labels):
    path = export_labels(labels, folder / "cells.zip")
    found = np.zeros(labels.shape, np.int64)
    rois = roifile.roiread(path) if labels.any() else []
    for roi in rois:
        mask = filled(roi.coordinates(multi=True), labels.shape)
        ys, xs = np.nonzero(mask)
        assert (roi.top, roi.left, roi.bottom, roi.right) == (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1)
        found[mask] += int(roi.name)
    np.testing.assert_array_equal(found, labels)
    assert zipfile.ZipFile(path).testzip() is None


def test_imagej_names_positions_and_groups(folder):
    labels = stack((2, 3, 10, 10))
    one, *_ = rois = roifile.roiread(
        export_labels(labels, folder / "s.zip", axes="TZYX", classes=dict.fromkeys((2, 4, 6), "even"))
    )
    assert len({roi.name for roi in rois}) == len(rois)
    for roi in rois:
        label, t, z = int(roi.name.split("-")[0]), roi.t_position - 1, roi.z_position - 1
        np.testing.assert_array_equal(filled(roi.coordinates(multi=True), (10, 10)), labels[t, z] == label)
        assert roi.name == f"{label}-t{t:04}-z{z:04}"
        assert roi.properties == {"label": label} | ({"class": "even"} if label % 2 == 0 else {})
        assert roi.group == (label % 2 == 0)
    assert one.c_position == one.position == 0
    slices = roifile.roiread(export_labels(labels[0], folder / "z.zip"))
    assert {roi.position for roi in slices} == {1, 2, 3}


def test_a_single_roi_far_out_in_a_large_plane(folder):
    labels = da.zeros((1, 70_000), dtype=np.uint8, chunks=(1, 10_000))
    labels = da.concatenate([labels, da.ones((1, 2), dtype=np.uint8)], axis=1)
    roi = roifile.roiread(export_labels(labels, folder / "far.roi"))
    assert sorted(map(tuple, roi.coordinates().tolist())) == [(70_000, 0), (70_000, 1), (70_002, 0), (70_002, 1)]


@pytest.mark.parametrize("name", ["one.geojson", "one.json", "one.zip"])
def test_sub_pixel_contours_keep_holes_and_shift_by_half_a_pixel(folder, name):
    angles = np.linspace(0, 2 * np.pi, 60)
    circle = np.stack([np.sin(angles), np.cos(angles)], 1)
    ys, xs = np.mgrid[:40, :40]
    radius = np.hypot(ys - 20, xs - 19)
    labels = ((radius < 12.3) & (radius > 5.2)).astype(np.uint8) * 3
    labels[:3, :3] = 4  # without contour
    contours = {3: [(20, 19) + 5.2 * circle, (20, 19) + 12.3 * circle]}
    path = export_labels(labels, folder / name, contours=contours)
    if name.endswith(".geojson"):
        ring = shape(json.loads(path.read_text())["features"][0]["geometry"])
        assert ring.is_valid
        assert len(ring.interiors) == 1
        assert ring.area == pytest.approx(np.pi * (12.3**2 - 5.2**2), rel=0.01)
        assert (ring.centroid.x, ring.centroid.y) == pytest.approx((19.5, 20.5), abs=0.01)
    elif name.endswith(".zip"):
        ring, square = roifile.roiread(path)
        np.testing.assert_array_equal(filled(ring.coordinates(multi=True), labels.shape), labels == 3)
        assert square.integer_coordinates is not None
    else:  # polygons of COCO have no holes: exact pixels instead
        np.testing.assert_array_equal(from_coco(path, labels.shape), labels)


def test_contours_in_a_stack_belong_to_their_plane(folder):
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[:, 2:6, 2:6] = 1
    diamond = np.array([[1.5, 3.5], [3.5, 5.5], [5.5, 3.5], [3.5, 1.5], [1.5, 3.5]])
    path = export_labels(labels, folder / "diamond.geojson", contours={(1, (1,)): [diamond]})
    edges, diamond_found = (shape(f["geometry"]) for f in json.loads(path.read_text())["features"])
    assert (edges.area, diamond_found.area) == (16, 8)
    sub_pixel = roifile.roiread(export_labels(labels, folder / "diamond.zip", contours={(1, (1,)): [diamond]}))[1]
    assert sub_pixel.subpixelresolution
    np.testing.assert_allclose(np.sort(sub_pixel.coordinates(), 0), np.sort(diamond[:-1] + 0.5, 0))


# --- images


@settings(max_examples=25, deadline=None)
@given(
    labels=hnp.arrays(
        st.sampled_from([np.uint8, np.int32, np.int64, np.bool_, np.dtype(">u2")]),
        hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=6),
        elements={"min_value": 0, "max_value": 100},
    ),
    name=st.sampled_from(["cells.tif", "cells.ome.tif"]),
)
def test_tiff_pixels_come_back(folder, labels, name):
    path = export_labels(labels, folder / name)
    with tifffile.TiffFile(path) as file:
        found = file.series[0].asarray(squeeze=False)
        assert file.is_ome == (".ome" in name)
        assert file.pages[0].compression != 1
    np.testing.assert_array_equal(found.reshape(labels.shape), labels)
    assert found.dtype == np.uint8


def test_ome_tiff_knows_axes_and_pixel_size(folder):
    labels = stack()
    path = folder / "size.ome.tif"
    units = ("second", "nm", "micrometer", "µm")
    export_labels(labels, path, axes="TZYX", scale=(30, 200, 0.25, 0.5), units=units)
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "TZYX"
        root = ET.fromstring(file.ome_metadata)
    pixels = next(e for e in root.iter() if e.tag.endswith("}Pixels")).attrib
    assert {k: v for k, v in pixels.items() if k[:4] in ("Phys", "Time")} == {
        "PhysicalSizeX": "0.5",
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": "0.25",
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": "200.0",
        "PhysicalSizeZUnit": "nm",
        "TimeIncrement": "30.0",
        "TimeIncrementUnit": "s",
    }
    assert pixels["Type"] == "uint8"


def test_ome_tiff_without_units_does_not_pretend_micrometers(folder):
    path = export_labels(stack((4, 6)), folder / "pixel.ome.tif", scale=(2, 3))
    with tifffile.TiffFile(path) as file:
        assert 'PhysicalSizeXUnit="pixel"' in file.ome_metadata


def test_tiff_is_an_imagej_stack_with_one_unit(folder):
    labels = stack()
    labels[0, 0, 0, 0] = 300
    path = folder / "imagej.tif"
    export_labels(labels, path, axes="TZYX", scale=(2, 200, 0.5, 0.25), units=("minute", "nm", "um", "um"))
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej
        known, tags = file.imagej_metadata, file.pages[0].tags
        assert (known["unit"], known["spacing"], known["finterval"]) == ("um", pytest.approx(0.2), 120)
        assert known["max"] == 300
        assert "images" not in known  # ImageJ would read the planes as if they were not compressed
        assert [tags[f"{axis}Resolution"].value for axis in "XY"] == [(4, 1), (2, 1)]
        assert file.series[0].axes == "TZYX"
        np.testing.assert_array_equal(file.asarray(), labels)


def test_tiff_with_many_axes_or_labels_keeps_their_names(folder):
    labels = stack((2, 2, 3, 5, 10)).astype(np.uint32)
    labels[0, 0, 0, 0, 0] = 2**32 - 1
    path = export_labels(labels, folder / "plain.tif", axes="PTZYX", scale=(1, 1, 2, 0.5, 0.5), units="micrometer")
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "PTZYX"
        assert file.shaped_metadata[0]["spacing"] == 2
        assert file.shaped_metadata[0]["unit"] == "um"
        np.testing.assert_array_equal(file.asarray(), labels)


def test_axes_in_any_order_become_planes(folder):
    labels = stack((3, 10, 15))
    turned = labels.transpose(2, 0, 1)  # XZY
    path = export_labels(turned, folder / "turned.ome.tif", axes=("x", "z", "y"), scale=(0.5, 2, 1), units="nm")
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "ZYX"
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata
        np.testing.assert_array_equal(file.asarray(), labels)


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_ome_zarr_label_image(folder, version):
    labels = stack((2, 3, 700, 30))
    path = folder / f"labels-{version}.ome.zarr"
    export_labels(
        labels.transpose(3, 1, 0, 2),
        path,
        "ome-zarr" if version == "0.5" else "ome-zarr-0.4",
        axes="XZTY",
        scale=(0.5, 2, 10, 0.25),
        units=("micrometer", "micrometer", "second", "micrometer"),
        classes={1: "round"},
    )
    group = zarr.open_group(str(path), mode="r")
    assert group.metadata.zarr_format == (3 if version == "0.5" else 2)
    attributes = group.attrs["ome"] if version == "0.5" else dict(group.attrs)
    (multiscale,) = attributes["multiscales"]
    assert {attributes["version"]} if version == "0.5" else {multiscale["version"]} == {version}
    assert [axis["name"] for axis in multiscale["axes"]] == ["t", "z", "y", "x"]
    assert [axis["type"] for axis in multiscale["axes"]] == ["time", "space", "space", "space"]
    assert [axis["unit"] for axis in multiscale["axes"]] == ["second"] + ["micrometer"] * 3
    for level, dataset in enumerate(multiscale["datasets"]):
        array = group[dataset["path"]]
        np.testing.assert_array_equal(array[:], labels[:, :, :: 2**level, :: 2**level])
        (transformation,) = dataset["coordinateTransformations"]
        assert transformation == {"type": "scale", "scale": [10, 2, 0.25 * 2**level, 0.5 * 2**level]}
        assert array.chunks[:2] == (1, 1)
    assert len(multiscale["datasets"]) == 2
    values = np.unique(labels[labels > 0]).tolist()
    label = attributes["image-label"]
    assert [colour["label-value"] for colour in label["colors"]] == values
    assert all(len(colour["rgba"]) == 4 for colour in label["colors"])
    assert label["properties"][:2] == [{"label-value": 1, "class": "round"}, {"label-value": 2}]


@pytest.mark.parametrize(("version", "consolidated"), [("0.5", False), ("0.4", True)])
def test_ome_zarr_labels_join_an_image(folder, version, consolidated):
    root = folder / f"image-{version}.zarr"
    image = zarr.create_group(str(root), zarr_format=3 if version == "0.5" else 2)
    multiscales = {"multiscales": [{"datasets": [{"path": "0"}]}]}
    image.attrs.update({"ome": {"version": "0.5", **multiscales}} if version == "0.5" else multiscales)
    image.create_array("0", shape=(8, 8), dtype=np.uint8)[:] = 5
    if consolidated:
        zarr.consolidate_metadata(str(root))
    labels = stack((8, 8))
    for name in ("nuclei", "cells", "nuclei"):
        export_labels(labels, root / "labels" / name)
    group = zarr.open_group(str(root), mode="r")["labels"]
    listed = group.attrs["ome"]["labels"] if version == "0.5" else group.attrs["labels"]
    assert listed == ["nuclei", "cells"]
    cells = group["cells"].attrs["ome"] if version == "0.5" else group["cells"].attrs
    assert cells["image-label"]["source"] == {"image": "../../"}
    np.testing.assert_array_equal(group["cells/0"][:], labels)
    assert (image["0"][:] == 5).all()
    assert not [path for path in (root / "labels").iterdir() if path.name.endswith((".part", ".old"))]


# --- all formats

NAMES = ("a.tif", "a.ome.tif", "a.ome.zarr", "a.json", "a.geojson", "a.zip")


@pytest.mark.parametrize("name", NAMES)
def test_dask_and_zarr_give_the_same_as_numpy(tmp_path, name):
    labels = stack((3, 20, 30))
    stored = zarr.create_array(zarr.storage.MemoryStore(), data=labels, chunks=(1, 7, 9))
    written = [
        export_labels(array, tmp_path / kind / name)
        for kind, array in (("numpy", labels), ("dask", da.from_array(labels, chunks=(2, 8, 8))), ("zarr", stored))
    ]

    def content(path):
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if name.endswith(".zip"):  # without the time of writing
            return [zipfile.ZipFile(path).read(n) for n in zipfile.ZipFile(path).namelist()]
        return [file.read_bytes() for file in files]

    first, *others = map(content, written)
    assert name == "a.ome.tif" or all(other == first for other in others)  # OME-TIFF has a random UUID


@pytest.mark.parametrize("name", NAMES)
def test_planes_are_read_one_at_a_time(tmp_path, name):
    class Watched:
        shape, dtype = (4, 6, 8), np.dtype(np.uint8)

        def __getitem__(self, key):
            block = np.ones(self.shape, np.uint8)[key]
            assert block.size == 48
            return block

    seen = []
    export_labels(Watched(), tmp_path / name, on_plane=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 8) for i in range(1, 9)]


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_export_leaves_the_old_file_and_nothing_else(tmp_path, name):
    path = export_labels(NESTED, tmp_path / name)

    def content():
        return {p.relative_to(tmp_path): p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")}

    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    before = content()
    with pytest.raises(KeyboardInterrupt):
        export_labels(FULL, path, on_plane=stop)
    assert content() == before
    export_labels(FULL, path)
    assert content() != before
    assert [p.name for p in tmp_path.iterdir()] == [name]


def growing(labels, value):
    """What adds an object to labels between the first and the second look at them."""

    def on_plane(done, total):
        if done == total // 2:
            labels[..., -1, -1] = value

    return on_plane


@pytest.mark.parametrize("value", [256, -1])
@pytest.mark.parametrize("name", ["cells.tif", "cells.ome.tif", "cells.ome.zarr"])
def test_labels_that_outgrow_their_type_while_they_are_written_are_refused(tmp_path, name, value):
    labels = stack().astype(np.int32)
    with pytest.raises(ValueError, match="the labels changed while they were written; export again"):
        export_labels(labels, tmp_path / name, on_plane=growing(labels, value))
    assert not list(tmp_path.iterdir())
    labels[labels < 0] = 0
    assert export_labels(labels, tmp_path / name, on_plane=growing(labels, 9)).exists()


def test_objects_that_come_while_coco_is_written_get_a_category(tmp_path):
    labels = np.array([[1, 1, 0], [0, 0, 0]], np.uint8)
    path = export_labels(labels, tmp_path / "cells.json", classes={1: "b", 8: "a"}, on_plane=growing(labels, 7))
    np.testing.assert_array_equal(from_coco(path, labels.shape), labels)
    names = {one["id"]: one["name"] for one in json.loads(path.read_text())["categories"]}
    assert names == {1: "b", 2: "object"}
    labels[-1, -1] = 0
    path = export_labels(labels, tmp_path / "cells.json", classes={1: "b", 8: "a"}, on_plane=growing(labels, 8))
    assert [one["name"] for one in json.loads(path.read_text())["categories"]] == ["b", "a"]


def test_a_single_roi_that_is_not_alone_any_more_is_refused(tmp_path):
    labels = np.array([[1, 1, 0], [0, 0, 0]], np.uint8)
    with pytest.raises(ValueError, match="export again"):
        export_labels(labels, tmp_path / "cell.roi", on_plane=growing(labels, 2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_labels_without_objects(tmp_path, name):
    assert export_labels(np.zeros((5, 6), np.int32), tmp_path / name).exists()


def test_large_and_sparse_labels(folder):
    labels = np.zeros((6, 7), np.int64)
    labels[1:3, 1:3], labels[4, 5], labels[0, 0] = 2**32 - 1, 2**24, 1
    path = export_labels(labels, folder / "sparse.json")
    np.testing.assert_array_equal(from_coco(path, labels.shape), labels)


ZEROS = np.zeros((2, 3, 3), np.uint8)


@pytest.mark.parametrize(
    ("labels", "name", "options", "message"),
    [
        (ZEROS.astype(float), "a.tif", {}, r"whole numbers, got dtype float64; convert"),
        (ZEROS - np.int8(1), "a.tif", {}, r"not be negative .*, got -1"),
        (ZEROS + np.uint64(2**40), "a.tif", {}, r"0\.\.4294967295, got 1099511627776; number them anew"),
        (ZEROS + np.uint16(256), "a.tif", {"dtype": "uint8"}, r"label 256 does not fit uint8 \(largest 255\)"),
        (ZEROS, "a.tif", {"dtype": "float32"}, r"8, 16 or 32 bit, got dtype float32"),
        (ZEROS[0, 0], "a.tif", {}, r"two or more axes .* got shape \(3,\)"),
        (ZEROS, "a.png", {}, r"'a.png' does not say a format; end it with one of"),
        (ZEROS, "a.tif", {"format": "png"}, r"format must be one of ome-tiff, .*, got 'png'"),
        (ZEROS, "a.tif", {"axes": "ZZYX"}, r"axes must name the 3 axes .* got 'ZZYX'"),
        (ZEROS, "a.tif", {"axes": ("plane", "y", "x")}, r"one by one"),
        (ZEROS[None, None, None], "a.tif", {}, r"6 axes; name them"),
        (ZEROS, "a.tif", {"scale": (1, 0, 1)}, r"one positive pixel size per axis of ZYX, got \(1.0, 0.0, 1.0\)"),
        (ZEROS, "a.tif", {"units": "parsec"}, r"unit of axis Z must be one of .*micrometer.*, got 'parsec'"),
        (ZEROS, "a.tif", {"units": ("s", "um", "um")}, r"unit of axis Z .* got 's'"),
        (ZEROS, "a.tif", {"units": ("um", "um")}, r"one per axis of ZYX, got 2 names"),
        (ZEROS, "a.ome.tif", {"axes": "PYX"}, r"OME-TIFF knows the axes T, C, Z, Y, X, got PYX"),
        (ZEROS[None], "a.zarr", {"axes": "PCYX"}, r"one axis more, got P and C"),
        (ZEROS, "a.geojson", {"axes": "PYX"}, r"QuPath knows planes along C, Z and T, got P in PYX"),
        (ZEROS, "a.zip", {"axes": "PYX"}, r"ImageJ knows planes"),
        (ZEROS, "a.roi", {}, r"a \.roi file holds one object, got 0"),
        (ZEROS, "a.tif", {"contours": {1: []}}, r"tiff holds pixels, no contours"),
        (ZEROS, "a.zip", {"contours": {1: []}}, r"named \(label, position on Z\), got 1"),
        (
            ZEROS + 1,
            "a.zip",
            {"contours": {(1, (0,)): [[[1, 2]]]}},
            r"label 1 in plane \(0,\): a contour must hold three",
        ),
        (ZEROS, "image.zarr/labels/a", {}, r"is no OME-Zarr image"),
    ],
)
def test_impossible_requests_are_refused_in_words(tmp_path, labels, name, options, message):
    with pytest.raises(ValueError, match=message):
        export_labels(labels, tmp_path / name, **options)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("axes", "units", "sizes", "known", "pixels"),
    [
        (None, ("um", "um", "um", "um"), [1, 3, 4, 5], ["pixel", "um", "um", "um"], "T"),
        (None, ("second", "um", "um"), [1, 3, 4], ["pixel", "um", "um"], "Z"),
        ("TYX", ("second", "um", "um"), [2, 3, 4], ["second", "um", "um"], ""),
        ("ZYX", ("pixel", "degree", ""), [2, 1, 4], ["pixel", "pixel", ""], "Y"),
    ],
)
def test_axes_with_a_unit_of_something_else_are_measured_in_pixels(axes, units, sizes, known, pixels):
    fitting, left_out = fitting_units(range(2, 2 + len(units)), units, [7] * len(units), axes)
    assert (fitting["scale"], fitting["units"], left_out) == (sizes, known, pixels)
    assert fitting["translate"] == [0 if size == 1 else 7 for size in sizes]


def test_an_image_is_never_replaced_by_its_labels(tmp_path):
    root = tmp_path / "image.zarr"
    zarr.create_group(str(root), attributes={"ome": {"version": "0.5", "multiscales": []}})
    with pytest.raises(ValueError, match=r"is no label image, so it is not replaced; .*labels.NAME"):
        export_labels(FULL, root)
    with pytest.raises(ValueError, match=r"is a folder and tiff is a file"):
        export_labels(FULL, root, "tiff")
    with pytest.raises(ValueError, match=r"is OME-Zarr 0\.5, and its labels must be, too"):
        export_labels(FULL, root / "labels" / "a", "ome-zarr-0.4")


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(ImportError, match=r"pip install 'napari-delse\[export\]'"):
        export_labels(FULL, tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_every_format_is_known_by_a_suffix_or_its_name():
    assert set(export.OBJECT_FORMATS) < set(export.FORMATS)
    assert [kind for kind, suffixes in export.SUFFIXES.items() if not suffixes] == ["ome-zarr-0.4"]


def test_importing_the_module_loads_no_format_library_and_no_torch():
    code = "import napari_delse.export.labels, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "zarr", "roifile", "tifffile", "skimage", "napari"} & set(loaded)
