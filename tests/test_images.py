"""Planes of any array: what is read, how much is read, and what comes back."""

import itertools
import tracemalloc
import warnings

import dask.array as da
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_delse.data.images import Plane
from napari_delse.geometry import Crop

RNG = np.random.default_rng(0)


class Recording:
    """An array that notes what is read from it."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype
        self.read: list[tuple] = []
        self.largest = 0

    def __getitem__(self, key):
        block = self._array[key]
        self.read.append(key)
        self.largest = max(self.largest, block.size)
        return block


def padded_reference(plane, crop):
    """The crop cut from the plane after replicating its border far enough."""
    height, width = plane.shape
    reach = max(0, -crop.y0, -crop.x0, crop.y1 - height, crop.x1 - width)
    grown = np.pad(plane, reach, mode="edge")
    return grown[crop.y0 + reach : crop.y1 + reach, crop.x0 + reach : crop.x1 + reach]


@st.composite
def planes_and_crops(draw):
    plane = draw(
        hnp.arrays(
            np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-9, 9, width=32)
        )
    )
    y0, x0 = draw(st.integers(-15, 15)), draw(st.integers(-15, 15))
    return plane, Crop(y0, x0, y0 + draw(st.integers(1, 25)), x0 + draw(st.integers(1, 25)), 32)


# --- what is read


@given(planes_and_crops())
def test_reading_is_cutting_from_the_plane_with_a_replicated_border(case):
    plane, crop = case
    found = Plane.of(plane).read(crop)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], padded_reference(plane, crop))


@pytest.mark.parametrize("corner", [(-90, 3), (3, -90), (90, 3), (3, 90), (-90, 90), (1000, 1000)])
def test_a_crop_wholly_outside_repeats_the_nearest_pixels(corner):
    plane = RNG.random((20, 30), dtype=np.float32)
    crop = Crop(*corner, corner[0] + 10, corner[1] + 12, 32)
    np.testing.assert_array_equal(Plane.of(plane).read(crop)[0], padded_reference(plane, crop))


@pytest.mark.parametrize(
    "dtype",
    ["bool", "u1", "i1", "u2", ">u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", ">f4", "f8", ">f8", "longdouble"],
)
def test_every_real_dtype_comes_back_as_float32(dtype):
    values = (RNG.random((6, 7)) * 120).astype(dtype)
    found = Plane.of(values).read(Crop(1, 2, 5, 6, 32))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], values[1:5, 2:6].astype(np.float32))


@pytest.mark.parametrize("dtype", ["c8", "O", "U3", "M8[s]", "m8[s]"])
def test_other_dtypes_are_refused_by_name(dtype):
    plane = Plane.of(np.zeros((4, 4), dtype=dtype))
    with pytest.raises(ValueError, match="bool, integer or real, got dtype"):
        plane.read(Crop(0, 0, 2, 2, 32))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "longdouble"])
def test_nan_and_infinities_take_the_median_of_the_finite_pixels(dtype):
    plane = np.array([[1, 2, np.nan], [3, np.inf, -np.inf]], dtype=dtype)
    found = Plane.of(plane).read(Crop(0, 0, 2, 3, 32))
    np.testing.assert_array_equal(found[0], [[1, 2, 2], [3, 2, 2]])


@pytest.mark.parametrize("dtype", ["f8", ">f8"])
def test_numbers_beyond_float32_count_as_infinite_and_warn_nobody(dtype):
    plane = np.array([[5, 1e300], [-1e300, 5]], dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Plane.of(plane).read(Crop(0, 0, 2, 2, 32))
    np.testing.assert_array_equal(found[0], np.full((2, 2), 5))


def test_a_plane_of_nothing_but_nan_reads_as_zero():
    found = Plane.of(np.full((5, 5), np.nan)).read(Crop(-2, -2, 7, 7, 32))
    np.testing.assert_array_equal(found, np.zeros((1, 9, 9)))


def test_reading_never_changes_or_shares_the_image():
    image = np.full((4, 4), np.nan, dtype=np.float32)
    found = Plane.of(image).read(Crop(0, 0, 4, 4, 32))
    found[:] = 7
    assert np.isnan(image).all()


def test_colours_are_read_and_alpha_is_left_out():
    image = RNG.integers(0, 255, (6, 8, 4), dtype=np.uint8)
    for channels in (3, 4):
        plane = Plane.of(image[..., :channels])
        assert plane.rgb
        assert plane.shape == (6, 8)
        np.testing.assert_array_equal(plane.read(Crop(1, 1, 5, 7, 32)), image[1:5, 1:7, :3].transpose(2, 0, 1))


@given(st.data())
def test_any_axes_channels_and_position_of_any_stack(data):
    ndim = data.draw(st.integers(2, 5))
    shape = tuple(data.draw(st.lists(st.integers(2, 6), min_size=ndim, max_size=ndim)))
    image = RNG.random(shape, dtype=np.float32)
    order = data.draw(st.permutations(range(ndim)))
    signed = [a - ndim * data.draw(st.booleans()) for a in order]
    has_channels = ndim > 2 and data.draw(st.booleans())
    rest = sorted(order[2 + has_channels :])
    index = tuple(data.draw(st.integers(0, shape[a] - 1)) for a in rest)
    channels: tuple[int, ...] = ()
    if has_channels:
        channels = tuple(data.draw(st.lists(st.integers(0, shape[order[2]] - 1), min_size=1, max_size=3)))
    plane = Plane(image, (signed[0], signed[1]), signed[2] if has_channels else None, channels, index)
    moved = image.transpose(*rest, *([order[2]] if has_channels else []), order[0], order[1])[index]
    moved = moved[list(channels)] if has_channels else moved[None]
    crop = Crop(-2, -1, shape[order[0]] + 1, shape[order[1]] + 3, 32)
    assert plane.shape == moved.shape[1:]
    expected = np.stack([padded_reference(channel, crop) for channel in moved])
    np.testing.assert_array_equal(plane.read(crop), expected)


def test_missing_positions_are_the_first_plane():
    image = RNG.random((3, 4, 5, 6), dtype=np.float32)
    np.testing.assert_array_equal(Plane(image, index=(2,)).read(Crop(0, 0, 5, 6, 32))[0], image[2, 0])


def test_lists_are_images_too_and_planes_stay_as_they_are():
    plane = Plane.of([[1, 2], [3, 4]])
    assert Plane.of(plane) is plane
    np.testing.assert_array_equal(plane.read(Crop(0, 0, 2, 2, 32)), [[[1, 2], [3, 4]]])


@pytest.mark.parametrize(
    ("shape", "values", "message"),
    [
        ((5,), {}, r"at least two axes, got shape \(5,\)"),
        ((4, 5), {"axes": (0, 0)}, "do not fit 2 axes"),
        ((4, 5), {"axes": (0, 2)}, "do not fit 2 axes"),
        ((4, 5), {"axes": (0, -2)}, "do not fit 2 axes"),
        ((4, 5, 6), {"channel_axis": 2}, "do not fit 3 axes"),
        ((3, 4, 5), {"index": (3,)}, "does not exist"),
        ((3, 4, 5), {"index": (-1,)}, "does not exist"),
        ((3, 4, 5), {"index": (0, 0)}, "does not exist"),
        ((3, 4, 5), {"channel_axis": 0, "channels": (3,)}, r"one to three of the 3 channels 0..2, got \(3,\)"),
        ((9, 4, 5), {"channel_axis": 0, "channels": (0, 1, 2, 3)}, "one to three"),
        ((4, 5), {"channels": (1,)}, "no channel axis"),
        ((0, 5), {}, "at least one pixel"),
        ((3, 4, 0), {}, "at least one pixel"),
    ],
)
def test_a_plane_that_does_not_exist_is_refused(shape, values, message):
    with pytest.raises(ValueError, match=message):
        Plane(np.zeros(shape), **values)


@pytest.mark.parametrize("shape", [(7,), (3, 8, 9), (8, 9, 2), (2, 8, 9, 3)])
def test_an_image_of_unclear_axes_is_refused_with_the_remedy(shape):
    with pytest.raises(ValueError, match="say which axes are y, x"):
        Plane.of(np.zeros(shape))


# --- how much is read


def test_only_the_crop_is_read():
    array = Recording(np.zeros((4, 9, 500, 600), np.uint8))
    plane = Plane(array, channel_axis=1, channels=(2, 3), index=(3,))
    assert array.read == []
    plane.read(Crop(100, 200, 130, 220, 32))
    assert array.read == [(3, slice(2, 4), slice(100, 130), slice(200, 220))]
    plane.read(Crop(-50, 590, 20, 700, 32))
    assert array.read[-1] == (3, slice(2, 4), slice(0, 20), slice(590, 600))
    plane.read(Crop(900, -80, 950, -20, 32))
    assert array.read[-1] == (3, slice(2, 4), slice(499, 500), slice(0, 1))


def test_channels_far_apart_are_read_one_by_one():
    array = Recording(np.arange(40 * 8 * 9).reshape(40, 8, 9))
    found = Plane(array, channel_axis=0, channels=(39, 0)).read(Crop(0, 0, 8, 9, 32))
    np.testing.assert_array_equal(found, array._array[[39, 0]])
    assert array.largest <= 2 * 8 * 9


def test_dask_computes_only_the_chunks_of_the_crop():
    computed = []

    def load(block_info=None):
        computed.append(tuple(block_info[None]["chunk-location"]))
        return np.full((64, 64), sum(computed[-1]), np.float32)

    image = da.map_blocks(load, chunks=((64,) * 8, (64,) * 8), dtype=np.float32, meta=np.empty((0, 0), np.float32))
    found = Plane.of(image).read(Crop(70, 130, 120, 180, 32))
    assert computed == [(1, 2)]
    assert isinstance(found, np.ndarray)
    assert (found == 3).all()


def test_zarr_loads_only_the_chunks_of_the_crop():
    zarr = pytest.importorskip("zarr", minversion="3")
    loaded = []

    class Store(zarr.storage.MemoryStore):
        async def get(self, key, *args, **kwargs):
            if "/" in key and "zarr" not in key:
                loaded.append(key)
            return await super().get(key, *args, **kwargs)

    image = zarr.create_array(Store(), shape=(256, 256), chunks=(64, 64), dtype="u2")
    image[:] = np.arange(65536, dtype="u2").reshape(256, 256)
    loaded.clear()
    found = Plane.of(image).read(Crop(70, 130, 120, 180, 32))
    assert len(loaded) == 1
    np.testing.assert_array_equal(found[0], np.arange(65536).reshape(256, 256)[70:120, 130:180])


def test_a_huge_memmap_costs_no_more_than_its_crop(tmp_path):
    file = tmp_path / "huge.raw"
    image = np.memmap(file, dtype=np.uint8, mode="w+", shape=(40_000, 40_000))  # sparse: takes no room on the disk
    image[20_000, 20_000] = 9
    tracemalloc.start()
    found = Plane.of(image).read(Crop(19_900, 19_900, 20_100, 20_100, 256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0, 100, 100] == 9
    assert peak < 2e6


# --- large crops


def block_means(plane, crop, shape):
    """Means over equal shares of the crop, computed from all its pixels in float64."""
    full = padded_reference(plane.astype(np.float64), crop)
    ys, xs = (np.linspace(0, n, m + 1).round().astype(int) for n, m in zip(full.shape, shape, strict=True))
    rows = (full[a:b] for a, b in itertools.pairwise(ys))
    return np.array([[row[:, a:b].mean() for a, b in itertools.pairwise(xs)] for row in rows])


@pytest.mark.parametrize(
    "crop",
    [
        Crop(0, 0, 512, 512, 32),
        Crop(3, 7, 500, 333, 32),
        Crop(-200, -130, 310, 700, 32),
        Crop(100, 10, 400, 50, 32),  # reduced along y only
        Crop(10, 100, 50, 400, 32),  # reduced along x only
        Crop(600, 600, 1200, 1500, 32),  # wholly outside
        Crop(-900, 200, 1100, 260, 32),
    ],
)
def test_large_crops_are_averaged_over_equal_blocks(crop):
    plane = RNG.integers(0, 4000, (512, 560)).astype(np.uint16)
    found = Plane.of(plane).read(crop)[0]
    for have, full in zip(found.shape, crop.shape, strict=True):
        assert have == full if full < 128 else 64 <= have <= 97  # reduce * size is kept, or a little more
    np.testing.assert_allclose(found, block_means(plane, crop, found.shape), rtol=1e-5)


def test_block_means_keep_small_signals_on_large_offsets():
    plane = (60_000 + RNG.integers(0, 8, (2000, 2000))).astype(np.uint16)
    crop = Crop(0, 0, 2000, 2000, 32)
    found = Plane.of(plane).read(crop)[0]
    np.testing.assert_allclose(found, block_means(plane, crop, found.shape), atol=0.01)


def test_a_reduced_crop_keeps_positions():
    """The centre of mass of a bright patch lies where the crop's transform says."""
    image = np.zeros((3000, 3000), np.float32)
    image[1200:1300, 700:780] = 1
    crop = Crop(-400, 100, 2700, 2100, 64)
    found = Plane.of(image).read(crop)[0]
    ys, xs = (np.arange(n) for n in found.shape)
    centre = [(found.sum(axis=1) * ys).sum() / found.sum(), (found.sum(axis=0) * xs).sum() / found.sum()]
    in_crop = (np.array(centre) + 0.5) / found.shape * crop.size - 0.5
    np.testing.assert_allclose(crop.to_plane(in_crop), (1249.5, 739.5), atol=0.6 * 3100 / found.shape[0])


def test_reduced_means_leave_nan_out_and_fill_blocks_that_hold_nothing_else():
    plane = np.full((640, 640), 1000.0)
    plane[:300] = np.nan  # a mosaic's empty part
    plane[400, 400] = np.inf
    found = Plane.of(plane).read(Crop(0, 0, 640, 640, 32))
    np.testing.assert_allclose(found, 1000)
    np.testing.assert_array_equal(Plane.of(np.full((640, 640), np.nan)).read(Crop(0, 0, 640, 640, 32)), 0)


def test_huge_crops_are_read_in_strips_with_bounded_memory():
    class Virtual:
        """A 16-bit image of 200,000 x 200,000 pixels that is made up where it is read."""

        shape, dtype, largest = (200_000, 200_000), np.dtype(np.uint16), 0

        def __getitem__(self, key):
            size = tuple(s.stop - s.start for s in key)
            self.largest = max(self.largest, size[0] * size[1])
            return np.broadcast_to(np.uint16(7), size)

    image = Virtual()
    tracemalloc.start()
    found = Plane.of(image).read(Crop(-5000, 20_000, 15_000, 40_000, 256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape[1] <= 600
    assert (found == 7).all()
    assert image.largest < 5e6
    assert peak < 1.5e8


def test_a_click_far_beyond_the_border_costs_no_memory():
    """A crop of a million pixels a side over a small image is mostly replicated border."""
    plane = RNG.random((300, 300), dtype=np.float32)
    Plane.of(plane).read(Crop(0, 0, 300, 300, 32))  # what is imported at first use does not count
    tracemalloc.start()
    found = Plane.of(plane).read(Crop(-1_000_000, -1_000_000, 1_000, 1_000, 256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0, 0, 0] == plane[0, 0]
    assert peak < 5e7
