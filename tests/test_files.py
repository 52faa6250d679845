"""Images of many formats are read as they were written, lazily where that is possible; labels keep axes and sizes."""

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile

from napari_delse.data import files
from napari_delse.data.files import ImageFile, label_dtype, open_image, write_labels
from napari_delse.data.units import unit_named
from napari_delse.geometry import Crop

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 60000, (3, 4, 30, 40)).astype(np.uint16)
COLOUR = RNG.integers(0, 255, (30, 40, 3)).astype(np.uint8)

TIFFS = {
    "plain": (STACK[0, 0], {"resolution": (100, 200), "resolutionunit": 3}, "YX"),
    "shaped": (STACK[0], {"photometric": "minisblack", "metadata": {"axes": "ZYX", "spacing": 2.0}}, "ZYX"),
    "imagej": (STACK, {"imagej": True, "resolution": (4, 5), "metadata": {"axes": "TZYX", "spacing": 2.0}}, "TZYX"),
    "channels": (STACK, {"imagej": True, "compression": "zlib", "metadata": {"axes": "ZCYX"}}, "ZCYX"),
    "ome": (STACK, {"ome": True, "metadata": {"axes": "TCYX", "PhysicalSizeX": 0.2}}, "TCYX"),
    "ome_zlib": (STACK, {"ome": True, "compression": "zlib", "metadata": {"axes": "TZYX"}}, "TZYX"),
    "colour": (COLOUR, {"photometric": "rgb", "compression": "zlib"}, "YXS"),
    "colour_tiles": (COLOUR, {"photometric": "rgb", "compression": "zlib", "tile": (16, 16)}, "YXS"),
    "colour_planes": (COLOUR.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}, "SYX"),
    "pages": (STACK[0], {"photometric": "minisblack", "compression": "zlib", "metadata": None}, "IYX"),
}  # fmt: skip


@pytest.fixture(params=TIFFS)
def tiff(request, tmp_path):
    pixels, options, axes = TIFFS[request.param]
    path = tmp_path / f"{request.param}.tif"
    tifffile.imwrite(path, pixels, **options)
    return path, pixels, axes


@pytest.mark.parametrize("whole_page", [1 << 28, 10])
def test_tiff_is_read_as_written(tiff, whole_page, monkeypatch):
    if whole_page == 10:
        pytest.importorskip("zarr")
    monkeypatch.setattr(files, "_WHOLE_PAGE", whole_page)
    path, pixels, axes = tiff
    with open_image(path) as image:
        assert image.axes == axes
        assert image.data.dtype == pixels.dtype
        np.testing.assert_array_equal(image.read(), pixels)
        index = tuple(count - 1 for count in image.plane_counts)
        plane = image.plane(index)
        assert plane.rgb == ("S" in axes)
        names = axes.replace("C", "S")
        order = [names.index(a) for a in names if a not in "YXS"] + ([names.index("S")] if "S" in names else [])
        expected = pixels.transpose(*order, axes.index("Y"), axes.index("X"))[index]
        expected = expected[:3] if "S" in names else expected[None]
        np.testing.assert_array_equal(plane.window(3, 5, 20, 31), expected[:, 3:20, 5:31])


def test_a_mapped_file_is_mapped_for_each_piece(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "TZYX"}, bigtiff=False)
    tifffile.imwrite(tmp_path / "b.tif", STACK, photometric="minisblack", compression="zlib", bigtiff=True)
    with open_image(tmp_path / "a.tif") as image, open_image(tmp_path / "b.tif", "TZYX") as compressed:
        assert isinstance(image.data, np.memmap)
        again = image.unmapped()
        assert not isinstance(again.data[1, 2, 3:9], np.memmap)
        np.testing.assert_array_equal(again.read(), STACK)
        np.testing.assert_array_equal(again.plane((1, 2)).window(3, 5, 20, 31)[0], STACK[1, 2, 3:20, 5:31])
        assert compressed.unmapped() is compressed


def test_labels_keep_axes_and_pixel_size(tiff, tmp_path):
    path, _, axes = tiff
    out = tmp_path / "labels.tif"
    with open_image(path) as image:
        count = int(np.prod(image.plane_counts))
        planes = [np.full(image.plane_shape, i, np.uint8) for i in range(count)]
        shape = write_labels(out, planes, np.dtype(np.uint8), image)
        with open_image(out) as labels:
            assert labels.axes == axes.replace("C", "").replace("S", "")
            assert labels.data.shape == shape
            assert labels.data.dtype == np.uint8
            assert labels.kind == image.kind
            assert labels.scale == image.scale or "resolution" not in image.scale
            np.testing.assert_array_equal(labels.read().reshape(count, -1)[:, 0], np.arange(count))
    with tifffile.TiffFile(out) as file:
        compressed = file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert compressed == (not file.is_imagej)  # ImageJ reads no compressed stacks


def test_labels_that_imagej_cannot_hold_become_plain_tiff(tmp_path):
    path, out = tmp_path / "a.tif", tmp_path / "labels.tif"
    tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "TZYX"})
    with open_image(path) as image:
        write_labels(out, [np.full((30, 40), 70000)] * 12, np.dtype(np.uint32), image)
    with open_image(out) as labels:
        assert (labels.axes, labels.kind, labels.read().max()) == ("TZYX", "", 70000)


def test_labels_become_ome_when_asked(tmp_path):
    out = tmp_path / "labels.ome.tif"
    write_labels(out, [np.ones((3, 4))], np.dtype(np.uint8), ImageFile(out, np.zeros((3, 4)), "YX"), ome=True)
    with open_image(out) as labels:
        assert (labels.axes, labels.kind) == ("YX", "ome")


@pytest.mark.parametrize(
    ("name", "pixels", "axes"),
    [
        ("grey.png", COLOUR[..., 0], "YX"),
        ("grey16.png", STACK[0, 0], "YX"),
        ("colour.png", COLOUR, "YXS"),
        ("alpha.png", np.dstack([COLOUR, COLOUR[..., :1]]), "YXS"),
        ("grey_alpha.png", COLOUR[..., :2], "YXS"),
    ],
)
def test_pictures_are_read(tmp_path, name, pixels, axes):
    imageio.imwrite(tmp_path / name, pixels)
    with open_image(tmp_path / name) as image:
        assert image.axes == axes
        np.testing.assert_array_equal(image.read(), pixels)
        window = image.plane().window(0, 0, 30, 40)
        seen = {"YX": 1}.get(axes, 1 if pixels.shape[-1] == 2 else 3)
        np.testing.assert_array_equal(window, np.atleast_3d(pixels)[..., :seen].transpose(2, 0, 1))


def test_only_the_crop_of_a_large_image_is_read(tmp_path):
    path = tmp_path / "large.tif"
    tifffile.memmap(path, shape=(60000, 50000), dtype=np.uint8, bigtiff=True)[40000:40100, 30000:30100] = 7  # sparse
    with open_image(path) as image:
        assert isinstance(image.data, np.memmap)
        assert image.plane().read(Crop(40000, 30000, 40100, 30100, 128)).min() == 7


def test_axes_can_be_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], photometric="minisblack")
    with open_image(path, "cyx") as image:
        assert image.channel_axis == 0
        assert image.plane((), (3, 1)).window(0, 0, 5, 5).shape == (2, 5, 5)
    for axes in ("YX", "ZZY", "ZTY", "CSX", "CSYX"):
        with pytest.raises(ValueError, match="axes"), open_image(path, axes):
            pass


def test_what_is_no_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"), open_image(tmp_path / "a.tif"):
        pass
    for name in ("a.tif", "a.png"):
        (tmp_path / name).write_bytes(b"no image at all")
        with pytest.raises(ValueError, match="cannot be read"), open_image(tmp_path / name):
            pass


def test_label_dtype_is_the_smallest_that_fits():
    assert [label_dtype(n).name for n in (1, 255, 256, 65535, 65536, 2**32 - 1)] == [
        "uint8", "uint8", "uint16", "uint16", "uint32", "uint32",
    ]  # fmt: skip


# ---------------------------------------------------------------- pixel sizes


def test_sizes_of_imagej_keep_their_units(tmp_path):
    known = {"spacing": 0.3, "unit": "\\u00B5m", "finterval": 5.0, "tunit": "min", "zunit": "nm"}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, imagej=True, resolution=(10, 5), metadata={"axes": "TZYX", **known})
    with open_image(path) as image:
        sizes, units = image.pixel_size
        assert sizes == pytest.approx({"Y": 0.2, "X": 0.1, "Z": 0.3, "T": 5})
        named = {axis: unit_named(unit, axis).name for axis, unit in units.items()}
        assert named == {"Y": "micrometer", "X": "micrometer", "Z": "nanometer", "T": "minute"}
        write_labels(tmp_path / "b.tif", list(np.ones((12, 30, 40), np.uint8)), np.dtype(np.uint8), image)
    with open_image(tmp_path / "b.tif") as labels:
        assert labels.pixel_size == (pytest.approx(sizes), units)


def test_sizes_of_ome_zarr_become_those_of_imagej(tmp_path):
    sizes = {"T": 2.0, "Z": 300.0, "Y": 0.2, "X": 0.1}
    units = {"T": "minute", "Z": "nanometer", "Y": "micrometer", "X": "micrometer"}
    image = ImageFile(tmp_path / "a.zarr", STACK, "TZYX", {"sizes": sizes, "units": units}, "zarr")
    write_labels(tmp_path / "b.tif", list(np.ones((12, 30, 40), np.uint8)), np.dtype(np.uint8), image)
    with open_image(tmp_path / "b.tif") as labels:
        assert labels.pixel_size[0] == pytest.approx({"T": 120, "Z": 0.3, "Y": 0.2, "X": 0.1})
        assert labels.pixel_size[1] == {"T": "second", "Z": "um", "Y": "um", "X": "um"}


@pytest.mark.parametrize(
    ("name", "axis", "unit"),
    [
        ("microns", "X", "micrometer"),
        ("\\u00B5m", "Z", "micrometer"),
        ("µm", "Y", "micrometer"),
        ("hr", "T", "hour"),
        ("Minutes", "T", "minute"),
        ("second", "Z", None),
        ("um", "T", None),
        ("furlong", "X", None),
    ],
)
def test_units_are_known_by_the_names_that_programs_use(name, axis, unit):
    found = unit_named(name, axis)
    assert (found and found.name) == unit


# ---------------------------------------------------------------- what is missing, and what is more


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_planes_that_were_never_written_are_black(tmp_path, options):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, STACK[0, :2], metadata={"axes": "ZYX"}, **options)
    tifffile.tiffcomment(path, tifffile.tiffcomment(path).replace('SizeZ="2"', 'SizeZ="3"'))
    with open_image(path) as image:
        assert image.plane_counts == (3,)
        np.testing.assert_array_equal(image.read(), [*STACK[0, :2], np.zeros((30, 40))])


def test_further_images_of_a_file_are_told_of(tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for _ in range(3):
            writer.write(STACK[0], metadata={"axes": "ZYX"})
    told = pytest.warns(RuntimeWarning, match="holds 3 images, such as positions of a stage, and only the first")
    with told, open_image(path) as image:
        assert image.data.shape == STACK[0].shape


@pytest.mark.parametrize(("axes", "named"), [("QQYX", "QIYX"), ("SYX", "QYX"), ("IQYX", "IQYX"), ("YXS", "YXS")])
def test_unnamed_planes_of_labels_get_different_letters(axes, named):
    assert files._names_of_planes(axes) == named
