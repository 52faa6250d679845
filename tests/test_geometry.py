"""Prompts, the one transform between plane and network, and masks kept as their bounding boxes."""

import dataclasses
import itertools
import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from napari_delse.geometry import Correction, Crop, CropConfig, ExtremePoints, ObjectMask

coordinates = st.floats(-1e5, 1e5, allow_nan=False, width=32)
clicks = st.tuples(coordinates, coordinates)
crops = st.builds(
    lambda y, x, h, w, size: Crop(y, x, y + h, x + w, size),
    st.integers(-3000, 3000),
    st.integers(-3000, 3000),
    st.integers(1, 6000),
    st.integers(1, 6000),
    st.sampled_from([1, 32, 224, 256, 512]),
)


@st.composite
def boxes(draw):
    y0, x0 = draw(coordinates), draw(coordinates)
    return y0, x0, y0 + draw(st.floats(0, 5000)), x0 + draw(st.floats(0, 5000))


# --- prompts


@given(st.lists(clicks, min_size=2, max_size=8, unique=True), st.randoms())
def test_the_box_does_not_depend_on_the_order_of_the_clicks(points, random):
    ordered = ExtremePoints.from_clicks(points)
    random.shuffle(points)
    shuffled = ExtremePoints.from_clicks(points)
    assert shuffled.box == ordered.box
    assert set(shuffled.points) == set(ordered.points)
    y0, x0, y1, x1 = ordered.box
    assert all(y0 <= y <= y1 and x0 <= x <= x1 for y, x in points)


def test_doubled_clicks_count_once():
    four = [(1, 5), (5, 1), (9, 5), (5, 9)]
    assert ExtremePoints.from_clicks([*four, *four]) == ExtremePoints.from_clicks(four)


def test_more_than_four_clicks_and_clicks_outside_the_image_are_kept():
    prompt = ExtremePoints.from_clicks([(-4, 5), (5, -1), (9, 5), (5, 900), (6, 6)])
    assert len(prompt.points) == 5
    assert prompt.box == (-4, -1, 9, 900)


def test_prompts_are_plain_hashable_floats():
    prompt = ExtremePoints.from_clicks(np.array([[1, 2], [3, 4]], dtype=np.int16))
    assert {prompt: 1}[ExtremePoints(((1.0, 2.0), (3.0, 4.0)))] == 1
    assert all(type(v) is float for point in prompt.points for v in point)
    assert all(type(v) is float for v in prompt.box)
    assert ExtremePoints(**dataclasses.asdict(prompt)) == prompt


@given(boxes())
def test_a_box_prompt_has_the_box_it_was_made_from(box):
    y0, x0, y1, x1 = box
    assume(y1 > y0 or x1 > x0)
    corners = [(y0, x0), (y0, x1), (y1, x1), (y1, x0)]
    for start in range(4):
        prompt = ExtremePoints.from_box(corners[start:] + corners[:start])
        assert prompt.kind == "box"
        assert prompt.box == box


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_extreme_points_of_a_mask_lie_on_it_and_span_its_box(mask):
    assume(mask.sum() > 1)
    prompt = ExtremePoints.from_mask(mask)
    ys, xs = np.nonzero(mask)
    assert prompt.box == (ys.min(), xs.min(), ys.max(), xs.max())
    assert all(mask[int(y), int(x)] for y, x in prompt.points)
    top, left, bottom, right = prompt.points
    assert (top[0], left[1], bottom[0], right[1]) == prompt.box


def test_of_several_extreme_pixels_the_middle_one_is_taken():
    mask = np.zeros((10, 12), bool)
    mask[2:7, 3:8] = True
    assert ExtremePoints.from_mask(mask).points == ((2, 5), (4, 3), (6, 5), (4, 7))


def test_a_single_pixel_gets_the_four_sides_of_that_pixel():
    mask = np.zeros((5, 5), bool)
    mask[3, 1] = True
    assert ExtremePoints.from_mask(mask).points == ((2.5, 1), (3, 0.5), (3.5, 1), (3, 1.5))


@pytest.mark.parametrize("line", [np.s_[2, 1:6], np.s_[1:6, 2], np.s_[range(6), range(6)]])
def test_a_line_is_a_good_object(line):
    mask = np.zeros((6, 6), bool)
    mask[line] = True
    prompt = ExtremePoints.from_mask(mask)
    crop = Crop.around(prompt.box, CropConfig())
    assert min(crop.shape) >= 7


@pytest.mark.parametrize(
    "mask", [np.zeros((4, 4), bool), np.zeros((0, 4), bool), np.ones(4, bool), np.ones((2, 2, 2), bool)]
)
def test_no_extreme_points_of_an_empty_or_wrong_mask(mask):
    with pytest.raises(ValueError, match=r"mask must be 2D and hold at least one pixel, got shape"):
        ExtremePoints.from_mask(mask)


@pytest.mark.parametrize("points", [[], [(3, 3)], [(3, 3), (3.0, 3.0)], [(0.0, 0.0), (-0.0, 0.0)]])
@pytest.mark.parametrize("make", [ExtremePoints.from_clicks, ExtremePoints.from_box, lambda p: ExtremePoints(tuple(p))])
def test_a_prompt_needs_two_places(make, points):
    with pytest.raises(ValueError, match="two or more different places"):
        make(points)


@pytest.mark.parametrize("point", [(math.nan, 1), (1, math.inf), (1,), (1, 2, 3)])
def test_a_click_is_two_finite_numbers(point):
    with pytest.raises(ValueError, match=r"two finite numbers \(y, x\)"):
        ExtremePoints.from_clicks([(0, 0), point])
    with pytest.raises(ValueError, match=r"two finite numbers \(y, x\)"):
        Correction((0, 0), point)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be 'extreme' or 'box', got 'scribble'"):
        ExtremePoints(((0, 0), (1, 1)), kind="scribble")


def test_further_points_join_the_prompt_once_and_keep_its_kind():
    prompt = ExtremePoints.from_box([(0, 0), (4, 4)]).with_points((2, 9), (4, 4))
    assert prompt.kind == "box"
    assert prompt.points == ((0, 0), (4, 4), (2, 9))


def test_a_correction_knows_how_far_it_moves_and_must_move():
    assert Correction((1, 2), (4, 6)).length == 5
    with pytest.raises(ValueError, match="must move its point"):
        Correction((1, 2), (1.0, 2.0))


# --- crops


@given(crops, st.lists(clicks, min_size=1, max_size=6))
def test_crop_round_trip_anywhere(crop, points):
    points = np.array(points)
    for there, back in ((crop.to_network, crop.to_plane), (crop.to_plane, crop.to_network)):
        np.testing.assert_allclose(back(there(points)), points, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize(("y0", "x0"), list(itertools.product([-40, 0, 60], repeat=2)))
def test_crop_round_trip_at_every_border_of_a_plane(y0, x0):
    crop = Crop(y0, x0, y0 + 41, x0 + 73, 256)
    pixels = np.stack(np.meshgrid(np.arange(-45, 150), np.arange(-45, 150), indexing="ij"), axis=-1)
    np.testing.assert_allclose(crop.to_plane(crop.to_network(pixels)), pixels, atol=1e-10)


@given(crops)
def test_pixel_edges_of_the_crop_map_onto_those_of_the_network(crop):
    edges = [(crop.y0 - 0.5, crop.x0 - 0.5), (crop.y1 - 0.5, crop.x1 - 0.5)]
    np.testing.assert_allclose(crop.to_network(edges), [(-0.5, -0.5), (crop.size - 0.5,) * 2], atol=1e-9)


def test_a_crop_of_the_networks_size_only_shifts():
    crop = Crop(10, -20, 42, 12, 32)
    np.testing.assert_array_equal(crop.to_network([(10, -20), (15.5, 0)]), [(0, 0), (5.5, 20)])
    assert crop.scale == (1, 1)


@given(boxes(), st.floats(0, 1), st.floats(0, 2), st.floats(1, 50))
def test_the_crop_holds_the_box_with_its_margin(box, squareness, margin, min_margin):
    crop = Crop.around(box, CropConfig(margin=margin, min_margin=min_margin, squareness=squareness))
    for low, high, first, last in ((box[0], box[2], crop.y0, crop.y1), (box[1], box[3], crop.x0, crop.x1)):
        grow = max(margin * (high - low + 1), min_margin)
        assert first - 0.5 <= low - 0.5 - grow + 1e-6
        assert last - 0.5 >= high + 0.5 + grow - 1e-6


@given(boxes(), st.floats(0, 1))
def test_squareness_bounds_the_aspect_of_the_crop_and_adds_nothing_else(box, squareness):
    crop = Crop.around(box, CropConfig(squareness=squareness))
    short, long = sorted(crop.shape)
    assert short >= squareness * (long - 2) - 1e-6  # each side is rounded outwards by less than a pixel per end
    free = Crop.around(box, CropConfig(squareness=0))
    assert max(free.shape) <= long <= max(free.shape) + 2


@given(boxes(), st.sampled_from([0.0, 0.4, 1.0]))
def test_the_box_is_in_the_middle_of_its_crop(box, squareness):
    crop = Crop.around(box, CropConfig(squareness=squareness))
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    found = ((crop.y0 + crop.y1 - 1) / 2, (crop.x0 + crop.x1 - 1) / 2)
    np.testing.assert_allclose(found, middle, atol=0.51)


def test_crop_points_come_in_any_shape():
    crop = Crop(0, 0, 4, 8, 32)
    points = np.random.default_rng(0).normal(size=(2, 3, 5, 2))
    np.testing.assert_array_equal(crop.to_network(points)[1, 2, 4], crop.to_network(points[1, 2, 4]))
    assert crop.to_plane(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("values", [(3, 0, 3, 5, 32), (0, 5, 3, 5, 32), (0, 0, 3, 5, 0), (4, 0, 3, 5, 32)])
def test_an_empty_crop_is_refused(values):
    with pytest.raises(ValueError, match=r"at least one pixel, got Crop\("):
        Crop(*values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 100}, "multiple of 32"),
        ({"size": 0}, "multiple of 32"),
        ({"size": -32}, "multiple of 32"),
        ({"margin": -0.1}, "margin must be >= 0"),
        ({"min_margin": 0.5}, "min_margin >= 1"),
        ({"squareness": 1.1}, r"squareness must lie in \[0, 1\]"),
        ({"squareness": math.nan}, "squareness"),
        ({"margin": math.nan}, "margin"),
        ({"min_margin": math.inf}, "margin"),
    ],
)
def test_crop_config_limits(values, message):
    with pytest.raises(ValueError, match=message):
        CropConfig(**values)


# --- masks


@st.composite
def crop_masks(draw):
    """A mask of a crop's shape, the crop and a plane that it may overlap, touch or miss."""
    mask = draw(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)))
    y0, x0 = draw(st.integers(-12, 12)), draw(st.integers(-12, 12))
    plane = (draw(st.integers(1, 10)), draw(st.integers(1, 10)))
    return mask, Crop(y0, x0, y0 + mask.shape[0], x0 + mask.shape[1], 32), plane


@pytest.mark.parametrize(("y0", "x0"), list(itertools.product([-4, 0, 3, 9], [-5, 0, 4, 11])))
def test_a_mask_is_cut_at_every_border(y0, x0):
    mask = np.random.default_rng(0).random((7, 8)) < 0.7
    plane = np.zeros((40, 40), bool)
    plane[20 + y0 : 27 + y0, 20 + x0 : 28 + x0] = mask
    found = ObjectMask.from_crop(mask, Crop(y0, x0, y0 + 7, x0 + 8, 32), (12, 14))
    np.testing.assert_array_equal(found.to_plane((12, 14)), plane[20:32, 20:34])


@given(crop_masks())
def test_a_mask_cut_from_a_crop_is_the_crop_pasted_into_the_plane(case):
    mask, crop, shape = case
    expected = np.zeros(shape, bool)
    for (i, j), inside in np.ndenumerate(mask):
        y, x = crop.y0 + i, crop.x0 + j
        if inside and 0 <= y < shape[0] and 0 <= x < shape[1]:
            expected[y, x] = True
    found = ObjectMask.from_crop(mask, crop, shape)
    np.testing.assert_array_equal(found.to_plane(shape), expected)
    by_index = np.zeros(shape, bool)
    by_index[found.indices()] = True
    np.testing.assert_array_equal(by_index, expected)
    np.testing.assert_array_equal(expected[found.slices], found.mask)
    assert found.area == expected.sum()


@given(crop_masks())
def test_a_mask_is_kept_as_its_bounding_box_only(case):
    found = ObjectMask.from_crop(*case)
    if found.area == 0:
        assert found.mask.shape == (0, 0)
    else:
        assert found.mask.any(axis=0)[[0, -1]].all()
        assert found.mask.any(axis=1)[[0, -1]].all()
        assert found.mask.base is None  # holds no larger array alive


@pytest.mark.parametrize(("y0", "x0"), [(-9, 0), (0, -9), (20, 0), (0, 20), (-9, -9), (50, 50)])
def test_a_mask_wholly_outside_the_plane_is_empty(y0, x0):
    found = ObjectMask.from_crop(np.ones((5, 5), bool), Crop(y0, x0, y0 + 5, x0 + 5, 32), (20, 20))
    assert found.area == 0
    assert not found.to_plane((20, 20)).any()
    assert len(found.indices()[0]) == 0


def test_a_mask_of_another_shape_than_its_crop_is_refused():
    with pytest.raises(ValueError, match=r"mask \(3, 4\) must have the crop's shape \(4, 3\)"):
        ObjectMask.from_crop(np.ones((3, 4)), Crop(0, 0, 4, 3, 32), (9, 9))
