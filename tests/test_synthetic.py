from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_delse.synthetic.images import SyntheticConfig, synthetic_image, synthetic_set
from napari_delse.synthetic.shapes import Canvas, blob, tube

KINDS = SyntheticConfig().kinds


def _labels(kind, seed, size=256):
    return synthetic_image(np.random.default_rng(seed), SyntheticConfig(size=size), kind)[1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS), size=st.sampled_from([64, 96, 161]))
def test_any_seed_gives_a_valid_finite_image_and_consecutive_labels(seed, kind, size):
    image, labels = synthetic_image(np.random.default_rng(seed), SyntheticConfig(size=size), kind)
    assert image.dtype in (np.uint8, np.uint16, np.float32)
    assert image.shape in {(size, size), (size, size, 3)}
    assert np.isfinite(image).all()
    assert image.min() < image.max()
    assert labels.dtype == np.uint16
    assert labels.shape == (size, size)
    areas = np.bincount(labels.ravel())[1:]
    assert (areas >= SyntheticConfig().min_area).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nearly_every_image_has_an_object(kind):
    found = [(np.bincount(_labels(kind, seed, 128).ravel())[1:] >= 16).any() for seed in range(12)]
    assert np.mean(found) >= 0.75


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_image(kind):
    a, b = (synthetic_image(np.random.default_rng(7), SyntheticConfig(size=96), kind) for _ in range(2))
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


def test_item_of_a_set_does_not_depend_on_its_length():
    config = SyntheticConfig(size=64)
    short = list(synthetic_set(3, 5, config))
    for (a, la), (b, lb) in zip(short, islice(synthetic_set(50, 5, config), 3), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(la, lb)
    other = next(synthetic_set(1, 6, config))
    assert not np.array_equal(short[0][1], other[1])


def test_most_rings_have_a_hole():
    holed = total = 0
    for seed in range(8):
        labels = _labels("rings", seed)
        for i, window in enumerate(ndimage.find_objects(labels), 1):
            inside = labels[window] == i
            if min(inside.shape) > 14 and not _touches_border(window, labels.shape):
                total += 1
                holed += (ndimage.binary_fill_holes(inside) & ~inside).any()
    assert total > 20
    assert holed >= 0.9 * total


def test_most_split_objects_have_two_or_more_parts():
    parts = []
    for seed in range(12):
        labels = _labels("split", seed)
        parts += [ndimage.label(labels == i)[1] for i in range(1, labels.max() + 1)]
    assert np.mean(np.array(parts) >= 2) > 0.8
    assert max(parts) >= 3


def _touches_border(window, shape):
    return any(s.start == 0 or s.stop == n for s, n in zip(window, shape, strict=True))


@pytest.mark.parametrize("radius", [3.0, 10.5, 40.0])
def test_disk_is_labelled_by_pixel_centres_and_rendered_with_its_area(radius):
    centre = np.array([60.3, 64.8])
    disk = blob(np.random.default_rng(0), 128, centre, radius, roughness=0, elongation=1)
    canvas = Canvas(np.zeros((128, 128)))
    canvas.paint(disk, 1.0)
    canvas.mark(disk)
    y, x = np.mgrid[:128, :128]
    np.testing.assert_array_equal(canvas.labels > 0, np.hypot(y - centre[0], x - centre[1]) < radius)
    assert canvas.image.sum() == pytest.approx(np.pi * radius**2, rel=0.02)


@pytest.mark.parametrize("radius", [1.0, 2.5, 12.0])
def test_tube_has_the_width_asked_for(radius):
    points = np.stack([np.full(121, 64.4), np.linspace(30, 90, 121)], 1)
    shape = tube(128, points, np.full(121, radius))
    assert shape.coverage.sum() == pytest.approx(2 * radius * 60 + np.pi * radius**2, rel=0.05)
    assert (shape.distance > 0).sum(0).max() in {int(2 * radius), int(2 * radius) + 1}


def test_shapes_cut_by_the_border_keep_their_place():
    for centre in ([0.0, 0.0], [63.0, 10.0], [30.0, 63.0]):
        shape = blob(np.random.default_rng(1), 64, np.array(centre), 9, roughness=0, elongation=1)
        y, x = np.mgrid[shape.window]
        np.testing.assert_array_equal(shape.distance > 0, np.hypot(y - centre[0], x - centre[1]) < 9)


def test_same_mean_inside_and_outside_of_textured_objects():
    config = SyntheticConfig(degradation=0, tint=0)
    difference = []
    for seed in range(20):
        image, labels = synthetic_image(np.random.default_rng(seed), config, "textured")
        inside = labels > 0
        difference.append((image[inside].mean() - image[~inside].mean()) / image.std())
    assert np.median(np.abs(difference)) < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("unicorns",)}, "unknown kinds"),
        ({"kinds": ()}, "at least one"),
        ({"size": 16}, "at least 64"),
        ({"min_diameter": 50, "max_diameter": 20}, "min_diameter"),
    ],
)
def test_config_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**options)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unicorns"):
        synthetic_image(np.random.default_rng(0), kind="unicorns")
