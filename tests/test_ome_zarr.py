"""OME-Zarr as input: images, label images and labels groups of both versions."""

import numpy as np
import pytest
import tifffile

from napari_delse.data.files import open_image, write_labels
from napari_delse.data.samples import read_pairs
from napari_delse.export.labels import export_labels
from napari_delse.geometry import Crop

zarr = pytest.importorskip("zarr")
RNG = np.random.default_rng(0)


def write_image(path, pixels, axes, version="0.5"):
    """An OME-Zarr image of one resolution."""
    group = zarr.create_group(store=str(path), zarr_format=2 if version == "0.4" else 3)
    group.create_array("s0", data=pixels)
    described = [{"name": axis.lower()} for axis in axes]
    scale = {"type": "scale", "scale": [1.0] * len(axes)}
    scales = [{"axes": described, "datasets": [{"path": "s0", "coordinateTransformations": [scale]}]}]
    about = {"version": version, "multiscales": scales}
    group.attrs.update({"multiscales": scales} if version == "0.4" else {"ome": about})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_is_trained_on_with_the_labels_in_it(tmp_path, version):
    pixels = RNG.integers(0, 999, (1, 2, 3, 40, 50)).astype(np.uint16)
    labels = np.zeros((3, 40, 50), np.uint16)
    labels[:, 5:20, 10:30] = 4
    image = write_image(tmp_path / "image.ome.zarr", pixels, "TCZYX", version)
    export_labels(labels, image / "labels" / "cells", f"ome-zarr{'-0.4' * (version == '0.4')}", axes="ZYX")
    for given in (image / "labels" / "cells", image / "labels"):
        samples = list(read_pairs(image, given))
        assert [sample.plane for sample in samples] == [0, 1, 2]
        np.testing.assert_array_equal(samples[1].image.read(Crop(0, 0, 40, 50, 64)), pixels[0, :, 1])
        np.testing.assert_array_equal(samples[1].labels, labels[1])
    export_labels(labels, image / "labels" / "nuclei", f"ome-zarr{'-0.4' * (version == '0.4')}", axes="ZYX")
    with pytest.raises(ValueError, match="holds the labels cells, nuclei; choose one"):
        list(read_pairs(image, image / "labels"))


def test_pixels_are_read_as_they_are_asked_for(tmp_path):
    pixels = RNG.random((3, 40, 50))
    path = tmp_path / "image.zarr"
    zarr.create_array(str(path), data=pixels, chunks=(1, 16, 16))
    with open_image(path) as image:
        assert (image.axes, image.plane_counts) == ("ZYX", (3,))
        for chunk in (path / "c" / "2").rglob("*"):
            if chunk.is_file() and chunk.relative_to(path).parts[2:] not in {("0", "0"), ("0", "1")}:
                chunk.write_bytes(b"spoilt")
        np.testing.assert_array_equal(image.plane((2,)).window(3, 5, 16, 30)[0], pixels[2, 3:16, 5:30])
        (path / "c" / "2" / "0" / "0").write_bytes(b"spoilt")  # decoded once
        np.testing.assert_array_equal(image.plane((2,)).read(Crop(0, 0, 8, 8, 64))[0], pixels[2, :8, :8].astype("f4"))


def test_pixel_sizes_are_known_and_pass_into_tiff(tmp_path):
    labels = np.ones((3, 40, 50), np.uint8)
    path = export_labels(labels, tmp_path / "a.zarr", axes="ZYX", scale=(2, 0.5, 0.25), units="micrometer")
    with open_image(path) as image:
        known = {"Z": 2, "Y": 0.5, "X": 0.25}
        assert image.pixel_size == (known, dict.fromkeys("ZYX", "micrometer"))
        write_labels(tmp_path / "a.tif", labels, labels.dtype, image)
    with open_image(tmp_path / "a.tif") as written:
        assert written.axes == "ZYX"
        assert written.pixel_size == (known, dict.fromkeys("YXZ", "um"))


def test_plain_arrays_and_folders_of_images_are_read(tmp_path):
    pixels = RNG.random((4, 20, 30))
    zarr.create_array(str(tmp_path / "plain.zarr"), data=pixels)
    zarr.create_group(str(tmp_path / "several.zarr"))
    write_image(tmp_path / "several.zarr" / "0", pixels, "ZYX")
    for name in ("plain.zarr", "several.zarr"):
        with open_image(tmp_path / name) as image:
            np.testing.assert_array_equal(image.read(), pixels)


def test_groups_that_are_no_image_are_named(tmp_path):
    zarr.create_group(str(tmp_path / "group.zarr"))
    with pytest.raises(ValueError, match="no OME-Zarr image"), open_image(tmp_path / "group.zarr"):
        pass
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as Zarr"), open_image(tmp_path / "bad.zarr"):
        pass


def test_channels_of_a_tiff_may_stand_anywhere(tmp_path):
    pixels = RNG.integers(0, 99, (3, 2, 40, 50)).astype(np.uint8)
    labels = np.ones((3, 40, 50), np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", pixels, imagej=True, metadata={"axes": "ZCYX"})
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    samples = list(read_pairs(tmp_path / "image.tif", tmp_path / "labels.tif"))
    assert len(samples) == 3
    assert not samples[0].image.rgb
    np.testing.assert_array_equal(samples[2].image.read(Crop(0, 0, 40, 50, 64)), pixels[2])
    tifffile.imwrite(tmp_path / "labels.tif", labels[:2], photometric="minisblack")
    with pytest.raises(ValueError, match="must match"):
        list(read_pairs(tmp_path / "image.tif", tmp_path / "labels.tif"))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_lie_where_their_image_does(tmp_path, version):
    image = write_image(tmp_path / "image.ome.zarr", np.zeros((3, 700, 50), np.uint8), "ZYX", version)
    group = zarr.open_group(str(image), mode="a")
    about = dict(group.attrs) if version == "0.4" else dict(group.attrs["ome"])
    about["multiscales"][0]["datasets"][0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [2.0, 0.5, 0.5]},
        {"type": "translation", "translation": [10.0, 20.0, 0.0]},
    ]
    about["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [1.0, 2.0, 2.0]}]
    group.attrs.update(about if version == "0.4" else {"ome": about})
    with open_image(image) as opened:
        assert opened.pixel_size[0] == {"Z": 2, "Y": 1, "X": 1}
        assert opened.origin == {"Z": 10, "Y": 40}
        options = {"scale": [2, 1, 1], "translate": [opened.origin.get(axis, 0) for axis in "ZYX"]}
    out = export_labels(np.ones((3, 700, 50), np.uint8), image / "labels" / "a", axes="ZYX", **options)
    with open_image(out) as labels:
        assert (labels.pixel_size[0], labels.origin) == ({"Z": 2, "Y": 1, "X": 1}, {"Z": 10, "Y": 40})
    attributes = dict(zarr.open_group(str(out), mode="r").attrs)
    levels = attributes.get("ome", attributes)["multiscales"][0]["datasets"]
    assert len(levels) == 2
    for number, level in enumerate(levels):  # the first pixel of each level is the same one
        scale, shift = level["coordinateTransformations"]
        assert scale["scale"] == [2, 2**number, 2**number]
        assert shift == {"type": "translation", "translation": [10, 40, 0]}
