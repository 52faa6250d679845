"""Metrics against an independent implementation that looks at every pair of pixels, and hand-made cases."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_delse.geometry import ObjectMask
from napari_delse.metrics import (
    WIDTHS,
    boundary_curve,
    boundary_f,
    common_window,
    contour,
    davis_statistics,
    davis_width,
    in_window,
    iou,
    score_object,
    sequence_statistics,
)

shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


@st.composite
def mask_triples(draw):
    """Prediction, truth and ignored pixels: noise, blocks or nothing."""
    shape = draw(shapes)

    def mask():
        kind = draw(st.sampled_from(["noise", "block", "empty", "full"]))
        if kind == "noise":
            return draw(hnp.arrays(bool, shape))
        result = np.full(shape, kind == "full")
        if kind == "block":
            y, x = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
            result[y : y + draw(st.integers(1, 6)), x : x + draw(st.integers(1, 6))] = True
        return result

    return mask(), mask(), mask() if draw(st.booleans()) else np.zeros(shape, bool)


def slow_iou(pred, true, void):
    cells = [(y, x) for y, x in np.ndindex(pred.shape) if not void[y, x]]
    a = {c for c in cells if pred[c]}
    b = {c for c in cells if true[c]}
    return len(a & b) / len(a | b) if a | b else 1.0


def slow_contour(mask, void):
    """Contour pixels, and those of them whose neighbourhood is known."""
    height, width = mask.shape
    edge, counted = [], []
    for y in range(height):
        for x in range(width):
            block = [(y + dy, x + dx) for dy in (0, 1) for dx in (0, 1) if y + dy < height and x + dx < width]
            if any(mask[c] != mask[y, x] for c in block):
                edge.append((y, x))
                if not any(void[c] for c in block):
                    counted.append((y, x))
    return edge, counted


def slow_boundary_f(pred, true, void, k):
    (edge_p, counted_p), (edge_t, counted_t) = slow_contour(pred, void), slow_contour(true, void)

    def share(points, others):
        if not points:
            return 1.0
        return sum(any(math.dist(a, b) <= k for b in others) for a in points) / len(points)

    precision, recall = share(counted_p, edge_t), share(counted_t, edge_p)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@given(mask_triples())
def test_iou_is_that_of_pixel_sets(masks):
    assert iou(*masks) == pytest.approx(slow_iou(*masks))


@settings(deadline=None)
@given(mask_triples(), st.sampled_from([0, 1, 1.5, 2, 3, 10]))
def test_boundary_f_is_that_of_all_pairs_of_pixels(masks, k):
    pred, true, void = masks
    assert boundary_f(pred, true, k, void) == pytest.approx(slow_boundary_f(pred, true, void, k))


@pytest.mark.parametrize("seed", range(4))
def test_boundary_curve_is_that_of_distance_transforms_on_large_blobs(seed):
    """As the DAVIS toolkit does it: contours of one mask inside the dilated contours of the other."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(160, 190)), 9)
    pred, true = field > 0, (field + ndimage.gaussian_filter(rng.normal(size=field.shape), 4) * 0.3) > 0.003

    def edge(mask):
        below, right = np.roll(mask, -1, 0), np.roll(mask, -1, 1)
        corner = np.roll(below, -1, 1)
        below[-1], right[:, -1], corner[-1], corner[:, -1] = mask[-1], mask[:, -1], mask[-1], mask[:, -1]
        corner[-1, :-1], corner[:-1, -1] = mask[-1, :-1], mask[:-1, -1]
        return (mask != below) | (mask != right) | (mask != corner)

    pairs = ((edge(pred), edge(true)), (edge(true), edge(pred)))
    for k, found in zip(WIDTHS, boundary_curve(pred, true), strict=True):
        precision, recall = ((ndimage.distance_transform_edt(~other)[own] <= k).mean() for own, other in pairs)
        assert found == pytest.approx(2 * precision * recall / (precision + recall))
    counts = np.histogram2d(pred.ravel(), true.ravel(), bins=2)[0]
    assert iou(pred, true) == pytest.approx(counts[1, 1] / (counts.sum() - counts[0, 0]))


@given(mask_triples())
def test_measures_are_symmetric_and_the_curve_rises(masks):
    pred, true, void = masks
    curve = boundary_curve(pred, true, void)
    assert iou(pred, true, void) == iou(true, pred, void)
    np.testing.assert_allclose(curve, boundary_curve(true, pred, void))
    assert (np.diff(curve) >= -1e-12).all()
    assert curve.min() >= 0
    assert curve.max() <= 1


@given(mask_triples())
def test_a_window_scores_like_the_plane(masks):
    pred, true, void = masks
    objects = [_object(pred), _object(true)]
    scores = score_object(*objects, pred.shape, void)
    assert scores.iou == pytest.approx(iou(pred, true, void))
    np.testing.assert_allclose(scores.boundary_f, boundary_curve(pred, true, void))
    window = common_window(objects, pred.shape)
    np.testing.assert_array_equal(in_window(objects[0], window), pred[window])


def _object(mask):
    if not mask.any():
        return ObjectMask(np.zeros((0, 0), bool), (0, 0))
    ys, xs = np.nonzero(mask)
    return ObjectMask(mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1], (int(ys.min()), int(xs.min())))


def square(top, left, side, shape=(40, 40)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_equal_masks_score_one():
    mask = square(5, 5, 10)
    assert iou(mask, mask) == 1
    np.testing.assert_array_equal(boundary_curve(mask, mask), np.ones(len(WIDTHS)))


def test_empty_masks_are_defined():
    empty, full, mask = np.zeros((9, 9), bool), np.ones((9, 9), bool), square(2, 2, 3, (9, 9))
    assert iou(empty, empty) == 1
    assert boundary_f(empty, empty, 1) == 1
    assert iou(mask, empty) == 0
    assert boundary_f(mask, empty, 10) == 0
    assert boundary_f(empty, mask, 10) == 0
    assert not contour(full).any()  # the border of the image is no contour
    assert boundary_f(full, empty, 1) == 1


def test_a_shift_by_three_pixels_is_forgiven_from_three_pixels_on():
    true, pred = square(10, 10, 10), square(10, 13, 10)
    assert iou(pred, true) == pytest.approx(70 / 130)
    assert boundary_f(pred, true, 3) == 1
    # Each contour is a ring of 40 pixels. Of one in the other's eyes, the outer side (11) lies 3 px off, and of the
    # side inside the other ring the 5 pixels that are farther than 2 px from its corners, too.
    assert boundary_f(pred, true, 2) == pytest.approx(24 / 40)


def test_contour_is_that_of_davis():
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    np.testing.assert_array_equal(np.argwhere(contour(mask)), [[1, 1], [1, 2], [2, 1], [2, 2]])


def test_ignored_pixels_hide_errors():
    true, pred = square(10, 10, 10), square(10, 10, 10)
    pred[10:20, 20:26] = True
    void = np.zeros_like(true)
    void[:, 20:] = True
    assert iou(pred, true) == pytest.approx(100 / 160)
    assert iou(pred, true, void) == 1
    assert boundary_f(pred, true, 1) < 0.85
    assert boundary_f(pred, true, 1, void) == 1


def test_large_objects_are_scored_quickly():
    ys, xs = np.ogrid[:2200, :2200]
    true = (ys - 1100) ** 2 + (xs - 1100) ** 2 <= 1000**2
    pred = (ys - 1104) ** 2 + (xs - 1100) ** 2 <= 1000**2
    curve = boundary_curve(pred, true)
    assert curve[3] > 0.99
    # A circle moved by 4 px: |4 cos a| <= 1 for a share of 2 / pi * asin(1/4), plus the pixel grid.
    assert 0.15 < curve[0] < 0.25


def test_davis_statistics():
    assert davis_statistics([0.2, 0.6, math.nan, 1.0]) == pytest.approx((0.6, 2 / 3))
    assert all(math.isnan(v) for v in davis_statistics([]))
    assert davis_width((480, 854)) == 8


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(3, 3\), \(3, 4\)"):
        iou(np.ones((3, 3)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="2D"):
        boundary_f(np.ones(3), np.ones(3), 1)
    with pytest.raises(ValueError, match="widths"):
        boundary_curve(np.ones((3, 3)), np.ones((3, 3)), widths=())


def test_a_sequence_counts_once_however_long_it_is():
    overall, by_sequence = sequence_statistics({"long": [0.9] * 90, "short": [0.2, 0.6], "empty": [np.nan]})
    assert by_sequence["short"] == pytest.approx((0.4, 0.5))
    assert overall == pytest.approx((0.65, 0.75))
    assert np.isnan(by_sequence["empty"].mean)
    assert np.isnan(sequence_statistics({})[0].mean)
