"""Labelled images from files, splits by group, and the normalisation shared by training and prediction."""

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.io import imsave

from napari_delse.data.samples import (
    IGNORE,
    group_of,
    normalise,
    object_ids,
    read_folder,
    read_pairs,
    split_planes,
    to_input,
    validation_groups,
)
from napari_delse.geometry import Crop

RNG = np.random.default_rng(0)
JOINT, APART = torch.tensor([True]), torch.tensor([False])


def picture(size=96, channels=3):
    """A smooth scene with some noise, float32 (1, C, size, size) in about 0..1."""
    y, x = np.mgrid[:size, :size] / size
    scene = 0.5 + 0.3 * np.sin(7 * x) * np.cos(5 * y) + 0.03 * RNG.normal(size=(channels, size, size))
    return torch.from_numpy(scene.astype(np.float32))[None]


# --- normalisation


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(-100, 100), st.booleans())
def test_normalisation_does_not_see_gain_and_offset(gain, offset, joint):
    image = picture()
    joint = torch.tensor([joint])
    found = normalise(gain * (image + offset), joint)
    np.testing.assert_allclose(found, normalise(image, joint), atol=2e-3)


def test_percentiles_become_minus_one_and_one():
    found = normalise(picture(256), JOINT)
    low, high = np.percentile(found.numpy(), (1, 99))
    assert low == pytest.approx(-1, abs=0.08)
    assert high == pytest.approx(1, abs=0.08)
    assert -1.5 <= found.min() <= found.max() <= 1.5


@pytest.mark.parametrize("hot", [1e3, 1e30, -1e30])
def test_hot_pixels_do_not_change_the_others(hot):
    image = picture(128)
    clean = normalise(image, JOINT)
    spoilt = image.clone()
    spots = torch.from_numpy(RNG.random((1, 1, 128, 128)) < 0.003).expand_as(image)
    spoilt[spots] = hot
    found = normalise(spoilt, JOINT)
    assert torch.isfinite(found).all()
    assert (found - clean)[~spots].abs().max() < 0.1
    assert (found[spots].abs() == 1.5).all()


@pytest.mark.parametrize("size", [9, 11, 24, 64, 100])
@pytest.mark.parametrize("hot", [-40_000, 60_000])
def test_a_hot_pixel_beside_a_small_object_does_not_hide_it(size, hot):
    y, x = np.mgrid[:size, :size] - size // 2
    pixels = (100 + 50 * (y**2 + x**2 <= (size / 4) ** 2) + RNG.normal(0, 3, (size, size))).astype(np.float32)
    clean = to_input(pixels[None], 128)[0]
    pixels[1, 1] = hot
    found = to_input(pixels[None], 128)[0]
    assert found[64, 64] - found[64, 2] > 0.8 * (clean[64, 64] - clean[64, 2])


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 65535.0, 1e-20, 1e20])
def test_a_constant_image_is_zero(value):
    assert (normalise(torch.full((1, 3, 64, 64), value), JOINT) == 0).all()
    assert (to_input(np.full((1, 30, 40), value, np.float32), 64) == 0).all()


def test_a_constant_channel_is_zero_and_leaves_the_others_alone():
    image = picture()
    image[:, 1] = 4
    found = normalise(image, APART)
    assert (found[:, 1] == 0).all()
    np.testing.assert_array_equal(found[:, 0], normalise(image[:, [0, 0, 0]], APART)[:, 0])


def test_colours_keep_their_balance_and_channels_do_not():
    image = picture() * torch.tensor([1.0, 0.5, 0.1])[:, None, None]
    colours, channels = normalise(image, JOINT), normalise(image, APART)
    kept = colours.abs() < 1.5
    gain, offset = np.polyfit(image[kept].numpy(), colours[kept].numpy(), 1)  # one line for all three
    np.testing.assert_allclose(colours[kept], gain * image[kept] + offset, atol=1e-3)
    assert colours[0, 0].mean() > colours[0, 1].mean() > colours[0, 2].mean()
    spread = channels.flatten(2).std(dim=2)[0]
    assert spread.max() / spread.min() < 1.1


def test_images_of_a_batch_are_normalised_one_by_one():
    images = torch.cat([picture(), 50 + 9 * picture(), picture()])
    together = normalise(images, torch.tensor([True, False, True]))
    for i, joint in enumerate([True, False, True]):
        np.testing.assert_array_equal(together[i : i + 1], normalise(images[i : i + 1], torch.tensor([joint])))


@pytest.mark.parametrize("offset", [0, 60_000])
def test_faint_signals_on_a_large_offset_are_seen(offset):
    """16-bit microscopy: a few counts on top of a camera's offset."""
    y, x = np.mgrid[:200, :200]
    disk = ((y - 100) ** 2 + (x - 100) ** 2 < 60**2).astype(np.float32)
    found = to_input((offset + 6 * disk)[None], 128)
    assert found[0, 64, 64] == pytest.approx(1, abs=0.01)
    assert found[0, 2, 2] == pytest.approx(-1, abs=0.01)


def test_resampling_keeps_digits_on_an_offset():
    y, x = np.mgrid[:150, :150] / 150
    signal = (np.sin(7 * x) * np.cos(5 * y))[None]
    plain = to_input(signal.astype(np.float32), 128)
    lifted = to_input((signal + 2**16).astype(np.float32), 128)  # float32 resolves 1/128 here
    assert (lifted - plain).abs().max() < 0.012


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("shape", [(64, 64), (37, 111), (200, 90), (1, 1)])
def test_the_network_sees_three_channels_of_its_size(channels, shape):
    pixels = RNG.random((channels, *shape), dtype=np.float32)
    found = to_input(pixels, 64)
    assert found.shape == (3, 64, 64)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    if channels < 3:
        np.testing.assert_array_equal(found[1], found[2])
    if channels == 1:
        np.testing.assert_array_equal(found[0], found[1])


def test_the_input_keeps_positions():
    """Downsampling maps pixel edges onto edges, as `Crop` does."""
    pixels = np.zeros((1, 120, 90), np.float32)
    pixels[0, 30:60, 60:80] = 1
    found = (to_input(pixels, 64)[0] + 1) / 2
    y, x = np.mgrid[:64, :64]
    total = found.sum().item()
    centre = ((found.numpy() * y).sum() / total, (found.numpy() * x).sum() / total)
    expected = Crop(0, 0, 120, 90, 64).to_network((44.5, 69.5))
    np.testing.assert_allclose(centre, expected, atol=0.3)


# --- files and planes


def test_planes_of_stacks_and_colour_images():
    labels = np.zeros((3, 8, 9), np.uint8)
    labels[1, 2:4, 2:4] = 5
    stack = RNG.integers(0, 99, (3, 8, 9))
    samples = list(split_planes("s", stack, labels))
    assert [(s.name, s.plane) for s in samples] == [("s", 0), ("s", 1), ("s", 2)]
    np.testing.assert_array_equal(samples[2].image.read(Crop(0, 0, 8, 9, 32))[0], stack[2])
    assert samples[1].labels.dtype == np.uint16
    for channels in (3, 4):
        colour = RNG.integers(0, 99, (8, 9, channels))
        (sample,) = split_planes("c", colour, labels[1])
        assert sample.image.rgb
        np.testing.assert_array_equal(sample.image.read(Crop(0, 0, 8, 9, 32)), colour[..., :3].transpose(2, 0, 1))
    assert len(list(split_planes("t", RNG.random((2, 3, 8, 9, 3)), np.zeros((2, 3, 8, 9), int)))) == 6


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (np.zeros((8, 9)), np.zeros((9, 8), int), r"image \(8, 9\) and labels \(9, 8\) of 'x' must match"),
        (np.zeros((3, 8, 9)), np.zeros((8, 9), int), "must match"),
        (np.zeros(5), np.zeros(5, int), "must match"),
        (np.zeros((8, 9)), np.zeros((8, 9)), "labels of 'x' must be integer instance ids, got float64"),
        (np.zeros((8, 9, 3)), np.zeros((8, 9, 3), np.uint8), r"labels \(8, 9, 3\) of 'x' look like a colour picture"),
        (np.zeros((8, 9)), np.full((8, 9), 70_000), r"labels of 'x' must lie in 0..65535, got 70000..70000"),
        (np.zeros((8, 9)), np.full((8, 9), -1), r"labels of 'x' must lie in 0..65535, got -1..-1"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(image, labels, message):
    with pytest.raises(ValueError, match=message):
        list(split_planes("x", image, labels))


def test_labels_in_wide_types_keep_their_ids():
    labels = np.array([[0, 1], [300, IGNORE]], np.int64)
    (sample,) = split_planes("x", np.zeros((2, 2)), labels)
    np.testing.assert_array_equal(sample.labels, labels)
    assert object_ids(sample.labels) == [1, 300]


def test_objects_are_counted_without_background_ignored_and_small_ones():
    labels = np.array([[0, 1, 1], [2, 2, 2], [7, IGNORE, IGNORE]], np.uint16)
    assert object_ids(labels) == [1, 2, 7]
    assert object_ids(labels, min_area=2) == [1, 2]
    assert object_ids(np.zeros((3, 3), np.uint16)) == []


@pytest.fixture
def folder(tmp_path):
    """A grey TIFF, a colour PNG, a stack and files that have no partner."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    labels = np.zeros((3, 12, 14), np.uint16)
    labels[:, 2:6, 3:9] = 4
    tifffile.imwrite(tmp_path / "images" / "b.tif", RNG.integers(0, 4000, (12, 14)).astype(np.uint16))
    tifffile.imwrite(tmp_path / "labels" / "b.tif", labels[0])
    imsave(tmp_path / "images" / "a.PNG", RNG.integers(0, 255, (12, 14, 3), dtype=np.uint8), check_contrast=False)
    imsave(tmp_path / "labels" / "a.png", labels[0].astype(np.uint8), check_contrast=False)
    tifffile.imwrite(tmp_path / "images" / "c.tiff", RNG.random((3, 12, 14)), photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels" / "c.tif", labels, photometric="minisblack")
    tifffile.imwrite(tmp_path / "images" / "alone.tif", np.zeros((4, 4)))
    for part in ("images", "labels"):  # what macOS leaves on other people's disks
        (tmp_path / part / "._b.tif").write_bytes(b"\0")
    (tmp_path / "images" / "notes.txt").write_text("c")
    return tmp_path


def test_a_folder_is_read_in_the_order_of_its_names(folder):
    samples = list(read_folder(folder))
    assert [(s.name, s.plane) for s in samples] == [("a", 0), ("b", 0), ("c", 0), ("c", 1), ("c", 2)]
    assert [s.image.rgb for s in samples] == [True, False, False, False, False]
    assert all(object_ids(s.labels) == [4] for s in samples)
    assert [s.name for s in read_folder(folder, names=["b", "zzz"])] == ["b"]


def test_an_ome_tiff_and_a_tiff_of_one_name_are_a_pair(folder):
    tifffile.imwrite(folder / "images" / "d.ome.tif", np.zeros((12, 14), np.uint8))
    tifffile.imwrite(folder / "labels" / "d.tif", np.ones((12, 14), np.uint16))
    assert [s.name for s in read_folder(folder, names=["d"])] == ["d"]


def test_a_folder_without_pairs_says_what_it_expects(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no folder 'images'; expected .*images and .*labels"):
        list(read_folder(folder / "images"))
    with pytest.raises(FileNotFoundError, match=r"no file of .*images has a file of the same name"):
        list(read_folder(folder, names=["alone"]))


def test_a_file_that_is_no_image_is_named(tmp_path):
    for name in ("broken.tif", "broken.png"):
        (tmp_path / name).write_bytes(b"this is no image")
        with pytest.raises(ValueError, match=f"{name} cannot be read as (an image|TIFF) .*; export it"):
            list(read_pairs(tmp_path / name, tmp_path / name))
    with pytest.raises(FileNotFoundError):
        list(read_pairs(tmp_path / "absent.tif", tmp_path / "absent.tif"))


# --- splits


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=60), st.floats(0, 1))
def test_a_split_keeps_at_least_one_group_on_each_side(groups, fraction):
    held = validation_groups("set", groups, fraction)
    assert held <= groups
    assert 1 <= len(held) <= len(groups) - 1
    assert abs(len(held) - fraction * len(groups)) <= 1
    assert held == validation_groups("set", sorted(groups, reverse=True) * 2, fraction)


def test_nothing_is_held_out_of_one_group_or_none():
    assert validation_groups("set", ["only"], 0.5) == set()
    assert validation_groups("set", [], 0.5) == set()


@given(st.integers(3, 200), st.floats(0.05, 0.5))
def test_a_larger_fraction_holds_out_more_of_the_same_groups(count, fraction):
    groups = [f"image{i:03}" for i in range(count)]
    assert validation_groups("set", groups, fraction) <= validation_groups("set", groups, fraction + 0.3)


def test_the_split_depends_on_the_set_and_is_always_the_same():
    groups = [f"image{i:03}" for i in range(100)]
    one = validation_groups("dsb2018", groups, 0.1)
    assert one != validation_groups("emps", groups, 0.1)
    # Written down: a split that moves makes every published score wrong.
    assert sorted(validation_groups("dsb2018", groups[:10], 0.2)) == ["image000", "image006"]


@pytest.mark.parametrize(
    ("name", "pattern", "group"),
    [
        ("patient07_slice3", None, "patient07_slice3"),
        ("patient07_slice3", r"patient\d+", "patient07"),
        ("patient07_slice3", r"(patient\d+)_slice(\d)", "patient07/3"),
        ("other", r"patient\d+", "other"),
    ],
)
def test_images_of_one_subject_are_one_group(name, pattern, group):
    assert group_of(name, pattern) == group
