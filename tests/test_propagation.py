"""What a person relies on when objects are carried from labelled planes through the others."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import napari_delse.propagation.planes as propagation
from napari_delse._sample_data import cells
from napari_delse.data.images import Plane
from napari_delse.geometry import Crop, CropConfig, ObjectMask
from napari_delse.metrics import iou
from napari_delse.predict import Predictor, mask_from_phi
from napari_delse.propagation.config import Gap, PropagationConfig
from napari_delse.propagation.gap import Carried
from napari_delse.propagation.planes import affected, gaps, objects_of, paint, propagate
from napari_delse.propagation.shapes import (
    between,
    centre,
    interpolated,
    mask_iou,
    moved,
    movement,
    signed_distance,
)

SHAPE = (60, 70)


def disk(y, x, radius, shape=SHAPE):
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    return (ys - y) ** 2 + (xs - x) ** 2 <= radius**2


def truth_of(*objects, count=11):
    """Labels of objects, each a function from the plane to (y, x, radius) or None."""
    labels = np.zeros((count, *SHAPE), np.uint8)
    for label, where in enumerate(objects, 1):
        for plane in range(count):
            if where(plane) is not None:
                labels[plane][disk(*where(plane))] = label
    return labels


def images_of(labels):
    """A stack in which every object has a brightness and a texture of its own."""
    texture = np.random.default_rng(0).integers(0, 9, labels.shape[1:])
    return (labels * 20 + np.where(labels > 0, 40, texture)).astype(np.uint8)


def planes_of(images):
    return [Plane(images, index=(i,)) for i in range(len(images))]


class Ideal:
    """Finds the bright object that fills most of the box, exactly; nothing where there is none."""

    def __init__(self, confidence=lambda plane: 0.9):
        self.confidence = confidence
        self.calls = []  # planes of each call

    def segment_across(self, items, batch_size=None):
        self.calls.append([])
        for plane, prompt, drags in items:
            assert drags == ()
            self.calls[-1].append(plane.index[0])
            crop = Crop.around(prompt.box, CropConfig(size=64))
            pixels = plane.window(0, 0, *plane.shape)[0]
            y0, x0, y1, x1 = (round(v) for v in prompt.box)
            inside = pixels[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1]
            values, counts = np.unique(inside[inside >= 20], return_counts=True)
            mask = pixels == (values[counts.argmax()] if len(values) else 255)
            phi = signed_distance(ObjectMask.from_plane(mask), crop)
            confidence = self.confidence(plane.index[0]) if mask.any() else 0.0
            yield SimpleNamespace(states=[phi], threshold=0.0, crop=crop, confidence=confidence)


EXACT = PropagationConfig(rounds=3, trust=0, trust_alone=0)


def labels_of(found):
    return np.stack([plane.labels for plane in found])


def test_gaps_are_the_runs_between_key_planes():
    assert gaps(10, [3, 4, 8]) == [Gap(0, 2, None, 3), Gap(5, 7, 4, 8), Gap(9, 9, 8, None)]
    assert gaps(2, [0, 1]) == []
    with pytest.raises(ValueError, match=r"one or more of the 3 planes 0\.\.2, got \[\]"):
        gaps(3, [])
    with pytest.raises(ValueError, match=r"got \[5\]"):
        gaps(3, [5])


def test_moving_and_growing_objects_are_followed_between_two_keys():
    truth = truth_of(lambda z: (15 + z, 15 + 2 * z, 6 + z // 3), lambda z: (45, 60 - z, 9 - z // 3))
    predictor = Ideal()
    found = list(propagate(predictor, planes_of(images_of(truth)), {0: truth[0], 10: truth[10]}, EXACT))
    assert [plane.index for plane in found] == list(range(11))
    assert [plane.is_key for plane in found] == [True, *[False] * 9, True]
    np.testing.assert_array_equal(labels_of(found), truth)
    assert not any(plane.review for plane in found)
    assert found[4].objects[0].keys == (0, 10)
    assert found[4].objects[0].area == (truth[4] == 1).sum()


class Shrunk(Ideal):
    """Finds a disk that is too small by so many network pixels, in every plane."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def segment_across(self, items, batch_size=None):
        for found in super().segment_across(items, batch_size):
            found.states = [found.states[0] - self.by]
            yield found


def test_the_model_counts_the_less_the_more_it_misses_the_key_planes():
    truth = truth_of(lambda z: (30, 35, {0: 20, 4: 17}.get(z, 14)), count=5)
    planes, keys = planes_of(images_of(truth)), {0: truth[0], 4: truth[4]}
    areas = [list(propagate(Shrunk(by), planes, keys))[2].objects[0].area for by in (0, 4)]
    right, expected = 14**2 * np.pi, 18.5**2 * np.pi
    assert areas[0] == pytest.approx(right, rel=0.15)  # right in the key planes, so it is believed here
    assert areas[1] == pytest.approx(expected, rel=0.15)  # wrong there, so it counts less, and finds less still


def test_an_object_that_stays_is_expected_in_place_and_one_that_moves_on_its_way():
    still = truth_of(lambda z: (30, 30 + z // 4, 16), count=5)
    moving = truth_of(lambda z: (30, 20 + 6 * z, 8), count=5)
    believing = replace(PropagationConfig(), trust=1e6)
    for truth in (still, moving):
        dark = planes_of(images_of(truth))
        found = list(propagate(Shrunk(0), dark, {0: truth[0], 4: truth[4]}, believing))
        middle = objects_of(found[2].labels)[1]
        first, last = (objects_of(truth[k])[1] for k in (0, 4))
        if truth is still:
            assert mask_iou(middle, interpolated(first, last, 0.5, SHAPE)) > 0.99
        else:
            assert mask_iou(middle, objects_of(truth[2])[1]) > 0.85
            assert not interpolated(first, last, 0.5, SHAPE).area


def test_objects_and_planes_share_the_passes_of_the_model():
    truth = truth_of(lambda z: (15, 15 + z, 6), lambda z: (45, 50 - z, 9))
    predictor = Ideal()
    list(propagate(predictor, planes_of(images_of(truth)), {0: truth[0], 10: truth[10]}, EXACT))
    assert [sorted(call) for call in predictor.calls if call] == [sorted(2 * list(range(1, 10)))]
    predictor = Ideal()
    apart = {0: np.where(truth[0] == 1, 1, 0), 10: np.where(truth[10] == 2, 2, 0)}
    list(propagate(predictor, planes_of(images_of(truth)), apart, EXACT))
    assert [sorted(call) for call in predictor.calls if call][:2] == [[1, 9], [2, 8]]


def test_objects_of_one_key_are_followed_to_both_ends_of_the_stack():
    truth = truth_of(lambda z: (15 + z, 15 + 2 * z, 6), lambda z: (45 - z, 50, 9))
    found = list(propagate(Ideal(), planes_of(images_of(truth)), {4: truth[4]}, EXACT))
    assert [plane.index for plane in found] == [3, 2, 1, 0, *range(4, 11)]
    found = in_order(found)
    np.testing.assert_array_equal(labels_of(found), truth)
    assert found[0].objects[1].keys == (4,)


def in_order(found):
    """Planes before the first key plane come last to first."""
    return sorted(found, key=lambda plane: plane.index)


def test_beyond_the_outermost_key_planes_each_plane_is_there_before_the_next_is_looked_at():
    truth = truth_of(lambda z: (30, 30, 8))
    predictor = Ideal()
    running = propagate(predictor, planes_of(images_of(truth)), {3: truth[3]}, EXACT)
    for place in (2, 1, 0, 3, 4, 5):
        assert next(running).index == place
        seen = [plane for call in predictor.calls for plane in call]
        assert seen[-1] == (place if place != 3 else 0)


def ended(found):
    return [(plane.index, one.label, one.review) for plane in found for one in plane.review if not one.area]


def test_an_object_that_vanishes_ends_and_the_plane_is_marked():
    truth = truth_of(lambda z: (30, 30, 8) if z < 4 else None)
    found = list(propagate(Ideal(), planes_of(images_of(truth)), {0: truth[0]}, EXACT))
    np.testing.assert_array_equal(labels_of(found), truth)
    assert ended(found) == [(4, 1, "ended: it vanished")]
    assert found[5].objects == ()


def test_an_object_that_leaves_the_image_ends():
    truth = truth_of(lambda z: (30, 55 + 4 * z, 7) if z < 6 else None)
    found = list(propagate(Ideal(), planes_of(images_of(truth)), {0: truth[0]}, EXACT))
    np.testing.assert_array_equal(labels_of(found)[:5], truth[:5])
    ((_, label, reason),) = ended(found)
    assert (label, reason) == (1, "ended: it left the image")


def test_an_object_ends_where_confidence_falls():
    truth = truth_of(lambda z: (30, 30, 8))
    predictor = Ideal(lambda z: 0.9 if z < 3 else 0.5 if z < 6 else 0.2)
    config = replace(EXACT, min_confidence=0.3, review_below=0.6)
    found = list(propagate(predictor, planes_of(images_of(truth)), {0: truth[0]}, config))
    assert [(one.label, one.review) for one in found[4].review] == [(1, "confidence 0.50")]
    assert ended(found) == [(6, 1, "ended: confidence fell to 0.20")]
    assert not found[6].labels.any()


def test_an_object_of_both_keys_is_never_lost_between_them():
    truth = truth_of(lambda z: (30, 30, 8))
    images = images_of(truth)
    images[5] = 3  # a blank plane
    found = list(propagate(Ideal(), planes_of(images), {0: truth[0], 10: truth[10]}, EXACT))
    assert all((plane.labels == 1).any() for plane in found)
    assert [plane.index for plane in found if plane.review] == [5]


def test_what_the_next_key_does_not_show_ends_before_it():
    truth = truth_of(lambda z: (30, 30, 8))
    found = list(propagate(Ideal(), planes_of(images_of(truth)), {0: truth[0], 10: 0 * truth[0]}, EXACT))
    assert [plane.index for plane in found if (plane.labels == 1).any()] == [0, 1, 2, 3, 4, 5]
    assert [(plane.index, one.review) for plane in found for one in plane.review] == [
        (5, "carried no further: the next key plane does not show it")
    ]


def test_key_planes_are_passed_on_bit_for_bit():
    rng = np.random.default_rng(0)
    first, last = rng.integers(0, 9, SHAPE).astype(np.int16), rng.integers(0, 300, SHAPE).astype(np.uint16)
    found = list(propagate(Ideal(), planes_of(np.zeros((3, *SHAPE), np.uint8)), {0: first, 2: lambda: last}, EXACT))
    for plane, labels in ((found[0], first), (found[2], last)):
        assert plane.labels.dtype == labels.dtype
        np.testing.assert_array_equal(plane.labels, labels)
    assert found[1].labels.dtype == np.int32  # holds the labels of both


def test_no_more_than_the_gap_in_hand_is_read_and_no_more_than_two_keys_are_asked_for():
    truth = truth_of(lambda z: (30, 30, 8))
    asked, planes = [], planes_of(images_of(truth))

    class Stack:
        def __len__(self):
            return len(planes)

        def __getitem__(self, index):
            asked.append(index)
            return planes[index]

    calls = []
    keys = {z: lambda z=z: calls.append(z) or truth[z] for z in (0, 4, 8)}
    running = propagate(Ideal(), Stack(), keys, EXACT)
    for _ in range(4):
        next(running)
    assert set(calls) == {0, 4}
    assert max(asked) <= 4
    rest = list(running)
    assert [plane.index for plane in rest] == list(range(4, 11))


def stack_of(seed, count=9):
    rng = np.random.default_rng(seed)

    def course():
        y, x, r = rng.integers(10, 50), rng.integers(10, 60), rng.integers(3, 9)
        dy, dx = rng.integers(-3, 4), rng.integers(-3, 4)
        first, last = sorted(rng.integers(0, count + 3, 2))
        return lambda z: (y + dy * z, x + dx * z, r) if first <= z <= last else None

    return truth_of(*(course() for _ in range(4)), count=count)


@given(seed=st.integers(0, 10**6), keys=st.sets(st.integers(0, 8), min_size=1), start=st.integers(0, 8))
@settings(max_examples=10, deadline=None)
def test_a_stopped_run_goes_on_with_the_same_bytes(seed, keys, start):
    truth = stack_of(seed)
    planes, labels = planes_of(images_of(truth)), {z: truth[z] for z in keys}
    whole = list(propagate(Ideal(), planes, labels))
    wanted = {plane.index: plane for plane in whole[start:]}
    spans = [range(z, z + 1) for z in wanted]
    known = {plane.index: objects_of(plane.labels) for plane in whole[:start]}
    for since in (None, known):  # with what is done beyond the outermost keys, and from there alone
        for span in (range(start, 9), *spans):
            for again in propagate(Ideal(), planes, labels, only=span, since=since):
                once = wanted.get(again.index) or whole[[plane.index for plane in whole].index(again.index)]
                np.testing.assert_array_equal(again.labels, once.labels)
                assert again.objects == once.objects
    assert {z for span in spans for z in span} == set(wanted)


@pytest.mark.parametrize("way", [1, -1])
def test_a_run_goes_on_from_the_furthest_finished_plane(way):
    truth = truth_of(lambda z: (30 + way * z, 30, 8), count=9)
    planes, key = planes_of(images_of(truth)), 0 if way == 1 else 8
    finished = {key + way * n: objects_of(truth[key + way * n]) for n in (1, 2, 3, 6)}
    goal, predictor = key + way * 5, Ideal()
    only = range(goal, goal + 1)
    (plane,) = propagate(predictor, planes, {key: truth[key]}, EXACT, only=only, since=finished)
    np.testing.assert_array_equal(plane.labels, truth[goal])
    assert {seen for call in predictor.calls for seen in call} == {key + way * 4, goal}


@given(seed=st.integers(0, 10**6), keys=st.sets(st.integers(0, 8), min_size=1), changed=st.integers(0, 8))
@settings(max_examples=10, deadline=None)
def test_a_correction_changes_only_what_depends_on_it(seed, keys, changed):
    truth = stack_of(seed)
    planes, labels = planes_of(images_of(truth)), {z: truth[z] for z in keys}
    before = list(propagate(Ideal(), planes, labels))
    corrected = {**labels, changed: np.roll(truth[changed], 3, axis=0)}
    after = list(propagate(Ideal(), planes, corrected))
    again = affected(9, keys, changed)
    assert changed in again
    for old, new in zip(in_order(before), in_order(after), strict=True):
        if new.index not in again:
            np.testing.assert_array_equal(old.labels, new.labels)
            assert old.objects == new.objects
    rerun = list(propagate(Ideal(), planes, corrected, only=again))
    np.testing.assert_array_equal(labels_of(in_order(rerun)), labels_of(in_order(after))[again.start : again.stop])


@given(seed=st.integers(0, 10**6), keys=st.sets(st.integers(0, 8), min_size=1))
@settings(max_examples=10, deadline=None)
def test_ids_stay_linked_and_areas_are_those_of_the_labels(seed, keys):
    truth = stack_of(seed)
    for plane in propagate(Ideal(), planes_of(images_of(truth)), {z: truth[z] for z in keys}):
        assert {one.label: one.area for one in plane.objects if one.area} == {
            label: mask.area for label, mask in objects_of(plane.labels).items()
        }
        for one in plane.objects:
            assert all((truth[key] == one.label).any() for key in one.keys)
            assert set(one.keys) <= set(keys)


def test_a_pixel_of_two_objects_goes_to_the_one_in_which_it_lies_deeper():
    left, right = (ObjectMask.from_plane(disk(30, x, 12)) for x in (25, 40))
    objects = [Carried(1, left, 0.7, (0,)), Carried(2, right, 0.9, (0,))]
    labels = paint(objects, SHAPE, np.dtype(np.uint8))
    both = left.to_plane(SHAPE) & right.to_plane(SHAPE)
    depth = [ndimage.distance_transform_edt(mask.to_plane(SHAPE)) for mask in (left, right)]
    np.testing.assert_array_equal(labels[both], np.where(depth[0] > depth[1], 1, 2)[both])
    np.testing.assert_array_equal(labels > 0, left.to_plane(SHAPE) | right.to_plane(SHAPE))
    np.testing.assert_array_equal(paint(objects[::-1], SHAPE, np.dtype(np.uint8)), labels)


@given(seed=st.integers(0, 1000), strip=st.sampled_from([1, 70, 300, 10**6]))
@settings(max_examples=25, deadline=None)
def test_objects_are_found_in_strips_as_in_one_piece(seed, strip):
    labels = np.random.default_rng(seed).choice([0, 3, 7, 70000], SHAPE, p=[0.97, 0.01, 0.01, 0.01])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(propagation, "_STRIP", strip)
        found = objects_of(labels)
    assert sorted(found) == [label for label in (3, 7, 70000) if (labels == label).any()]
    for label, mask in found.items():
        np.testing.assert_array_equal(mask.to_plane(SHAPE), labels == label)
        assert mask.mask.any(axis=0)[[0, -1]].all()


@given(
    seed=st.integers(0, 1000),
    corner=st.tuples(st.integers(-9, 20), st.integers(-9, 20)),
    side=st.tuples(st.integers(12, 60), st.integers(12, 60)),
)
@settings(max_examples=25, deadline=None)
def test_a_signed_distance_gives_the_mask_back(seed, corner, side):
    rng = np.random.default_rng(seed)
    mask = ndimage.binary_opening(rng.random(SHAPE) < 0.8, np.ones((3, 3)))
    crop = Crop(*corner, corner[0] + side[0], corner[1] + side[1], 128)
    phi = signed_distance(ObjectMask.from_plane(mask), crop)
    assert np.abs(phi).min() >= 0.5
    seen = np.zeros(SHAPE, bool)
    seen[max(crop.y0, 0) : max(crop.y1, 0), max(crop.x0, 0) : max(crop.x1, 0)] = True
    np.testing.assert_array_equal(mask_from_phi(phi, crop, SHAPE, 0.0).to_plane(SHAPE), mask & seen)


@pytest.mark.parametrize(("width", "length"), [(1, 600), (2, 1200), (3, 2000)])
def test_an_object_thinner_than_the_grid_is_not_lost(width, length):
    mask = ObjectMask(np.ones((length, width), bool), (100, 300))
    crop = Crop.around((100.0, 300.0, 99.0 + length, 299.0 + width), CropConfig())
    phi = signed_distance(mask, crop)
    assert (phi > 0).sum(axis=1).max() in (1, 2)
    assert (phi > 0).any(axis=1).sum() == pytest.approx(length * crop.scale[0], abs=2)


def test_labels_of_64_bits_with_and_without_sign_stay_whole_numbers():
    truth = truth_of(lambda plane: (30, 30, 8), count=3)
    keys = {0: truth[0].astype(np.uint64), 2: truth[2].astype(np.int64)}
    made = list(propagate(Ideal(), planes_of(images_of(truth)), keys, EXACT))
    assert [one.labels.dtype.kind for one in made] == ["u", "i", "i"]


def test_what_lies_between_two_disks_is_a_disk_half_way():
    one, other = ObjectMask.from_plane(disk(20, 15, 6)), ObjectMask.from_plane(disk(40, 51, 12))
    middle = between(one, other, 0.5, SHAPE)
    np.testing.assert_allclose(centre(middle), (30, 33), atol=0.6)
    assert iou(middle.to_plane(SHAPE), disk(30, 33, 9)) > 0.9
    assert between(one, other, 0.0, SHAPE).to_plane(SHAPE)[disk(20, 15, 6)].all()


@pytest.mark.parametrize("size", [1, 4])
def test_movement_is_found_for_small_and_large_objects(size):
    rng = np.random.default_rng(0)
    texture = np.kron(rng.random((40, 40)), np.ones((4 * size, 4 * size)))
    before, after = texture[: 120 * size, : 120 * size], texture[8 * size : 128 * size, 4 * size : 124 * size]
    mask = ObjectMask(np.ones((30 * size, 20 * size), bool), (50 * size, 50 * size))
    assert movement(Plane.of(before), Plane.of(after), mask, 1.0, 0.1) == (-8 * size, -4 * size)
    assert movement(Plane.of(before), Plane.of(after), mask, 0.0, 0.1) == (0, 0)
    assert movement(Plane.of(0 * before), Plane.of(after), mask, 1.0, 0.1) == (0, 0)
    assert moved(mask, (-8, 5)).origin == (50 * size - 8, 50 * size + 5)


def test_around_a_huge_object_no_more_is_held_than_it_takes(monkeypatch):
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 255, (25, 25)).astype(np.uint8), np.ones((80, 80), np.uint8))
    largest = []
    window = Plane.window
    monkeypatch.setattr(
        Plane, "window", lambda self, *at: largest.append((at[2] - at[0]) * (at[3] - at[1])) or window(self, *at)
    )
    mask = ObjectMask(np.ones((1600, 1600), bool), (200, 200))
    found = movement(Plane.of(image), Plane.of(np.roll(image, 66, axis=1)), mask, 1.0, 0.1)
    assert found == pytest.approx((0, 66), abs=17)  # averaged over 33 pixels
    assert max(largest) <= 2000 * 2000  # nothing beyond the image


def test_wrong_input_is_told_in_one_sentence():
    planes = planes_of(np.zeros((3, *SHAPE), np.uint8))
    with pytest.raises(ValueError, match=r"key plane 1 must be integers of shape \(60, 70\), got float64 \(60, 70\)"):
        list(propagate(Ideal(), planes, {1: np.zeros(SHAPE)}))
    with pytest.raises(ValueError, match=r"got uint8 \(60, 71\)"):
        list(propagate(Ideal(), planes, {1: np.zeros((60, 71), np.uint8)}))
    for value in (-1, 2**32):
        with pytest.raises(ValueError, match=rf"key plane 1 holds the label {value}, but labels lie in 0\.\."):
            list(propagate(Ideal(), planes, {1: np.full(SHAPE, value, np.int64)}))
    with pytest.raises(ValueError, match=r"only must be a range of the planes 0\.\.2 with step 1"):
        list(propagate(Ideal(), planes, {1: np.zeros(SHAPE, np.uint8)}, only=range(1, 5)))
    with pytest.raises(ValueError, match="plane 3 does not exist among the 3 planes"):
        affected(3, [0], 3)
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        PropagationConfig(rounds=0)
    with pytest.raises(ValueError, match=r"min_confidence must lie in \[0, 1\], got 2"):
        PropagationConfig(min_confidence=2)


def test_cells_of_the_sample_stack_are_carried_by_the_default_model():
    (stack, _, _), (labels, _, _), _ = cells()
    chosen = np.where(np.isin(labels, [3, 5, 8, 11]), labels, 0)
    predictor = Predictor.load("default", device="cpu")
    found = list(propagate(predictor, planes_of(stack), {0: chosen[0], 4: chosen[4]}))
    scores = [iou(plane.labels == i, chosen[plane.index] == i) for plane in found[1:4] for i in (3, 5, 8, 11)]
    copies = [iou(chosen[4 * (z > 1)] == i, chosen[z] == i) for z in range(1, 4) for i in (3, 5, 8, 11)]
    assert np.mean(scores) > max(0.8, np.mean(copies) + 0.1)
    again = list(propagate(predictor, planes_of(stack), {0: chosen[0], 4: chosen[4]}, only=range(2, 3)))
    np.testing.assert_array_equal(again[0].labels, found[2].labels)


@given(seed=st.integers(0, 10**6), keys=st.sets(st.integers(0, 8), min_size=1))
@settings(max_examples=10, deadline=None)
def test_a_plane_brings_the_masks_of_its_objects(seed, keys):
    truth = stack_of(seed)
    for plane in propagate(Ideal(), planes_of(images_of(truth)), {z: truth[z] for z in keys}):
        found = objects_of(plane.labels)
        assert list(plane.masks) == list(found)
        for label, mask in found.items():
            assert plane.masks[label].origin == mask.origin
            np.testing.assert_array_equal(plane.masks[label].mask, mask.mask)
