"""What a source holds is told before training, in sentences; training and held-out objects do not leak."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_delse.data.samples import split_planes as data_planes
from napari_delse.finetuning.labelled_sources import ArraySource, FileSource, SampleSource
from napari_delse.finetuning.survey import PlaneFacts, look, split_planes, survey


def planes_of(counts, names=None):
    """Facts of planes with so many objects, side by side."""
    return tuple(
        PlaneFacts(
            names[i] if names else "stack", i, (i,), (50, 500), 1, False, tuple(range(1, n + 1)), (30,) * n,
            tuple((5, 10 * k, 9, 10 * k + 5) for k in range(n)),
        )
        for i, n in enumerate(counts)
    )  # fmt: skip


def said(source, share=0.25):
    return " ".join(survey(source, share).sentences())


@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=8), share=st.floats(0.05, 0.95), several=st.booleans())
def test_a_split_keeps_objects_on_each_side_and_none_on_both(counts, share, several):
    if sum(counts) < 2:
        return
    planes = planes_of(counts, [f"i{n}" for n in range(len(counts))] if several else None)
    split = split_planes(planes, share)
    sides = [set(split.training), set(split.held_out), set(split.left_out)]
    assert split.training
    assert split.held_out
    assert sum(map(len, sides)) == len(set.union(*sides)) == sum(counts)
    assert len(split.left_out) <= sum(counts) / 4


def test_planes_of_a_stack_are_held_out_in_one_block_with_a_gap():
    split = split_planes(planes_of([4] * 12), 0.25)
    assert {k.plane for k in split.held_out} == {9, 10, 11}
    assert {k.plane for k in split.left_out} == {7, 8}
    assert split.how == "Planes 9 to 11 with 12 objects are held out, and planes 7 to 8 beside them left out."


def test_planes_beside_the_held_out_ones_along_any_axis_are_left_out():
    """With planes in t and z, the same z at a time before looks as much alike as the z before."""
    planes = tuple(replace(p, index=divmod(p.number, 10)) for p in planes_of([1] * 200))
    split = split_planes(planes, 0.25)
    held, training, left = (
        {planes[k.plane].index for k in side} for side in (split.held_out, split.training, split.left_out)
    )
    assert {t for t, _ in held} == set(range(15, 20))
    assert left == {(t, z) for t in (13, 14) for z in range(10)}
    assert {t for t, _ in training} == set(range(13))
    assert split.how == "Planes 150 to 199 with 50 objects are held out, and 20 planes beside them left out."


def test_planes_beside_a_part_of_a_stack_are_left_out_and_the_others_train():
    planes = tuple(replace(p, index=divmod(p.number, 10)) for p in planes_of([1] * 100))
    split = split_planes(planes, 0.05)
    held, left = ({planes[k.plane].index for k in side} for side in (split.held_out, split.left_out))
    assert held == {(9, z) for z in range(5, 10)}
    assert left == {(9, 3), (9, 4)} | {(t, z) for t in (7, 8) for z in range(3, 10)}


def test_planes_that_look_alike_along_an_axis_are_told_where_too_many_would_be_left_out():
    planes = tuple(replace(p, index=divmod(p.number, 4)) for p in planes_of([1] * 8))
    split = split_planes(planes, 0.5)
    assert not split.left_out
    assert "; the planes beside them look much alike, so the score may be a little too good." in split.how


def test_planes_of_an_array_are_known_by_their_place_on_each_axis(disks):
    image, labels = (part.reshape(2, 3, 96, 96) for part in disks(6))
    assert [p.index for p in survey(ArraySource(image, labels)).planes] == list(np.ndindex(2, 3))
    samples = SampleSource(list(data_planes("disks", *disks(2))))
    assert [p.index for p in survey(samples).planes] == [(0,), (1,)]


def test_planes_that_are_far_apart_need_no_gap():
    planes = tuple(replace(p, number=10 * p.number, index=(10 * p.number,)) for p in planes_of([4] * 8))
    split = split_planes(planes, 0.25)
    assert not split.left_out
    assert split.how == "Planes 60 to 70 with 8 objects are held out."


def test_whole_images_are_held_out_where_there_are_several():
    planes = planes_of([2, 2, 2, 2], ["a", "a", "b", "c"])
    split = split_planes(planes, 0.25)
    assert {planes[k.plane].name for k in split.held_out} == {"c"}
    assert "1 image with 2 objects is held out (c)" in split.how


def test_of_one_plane_the_right_side_is_held_out():
    split = split_planes(planes_of([8]), 0.25)
    assert [k.label for k in split.held_out] == [7, 8]
    assert split.how == "The 2 objects farthest to the right are held out."


def test_a_survey_tells_objects_planes_sizes_and_split(disks):
    found = survey(ArraySource(*disks(8), name="disks"))
    assert found.ready
    assert (found.objects, len(found.planes), found.seen) == (32, 8, 8)
    text = " ".join(found.sentences())
    assert "32 labelled objects in 8 planes of 1 image; 8 looked at." in text
    assert "Planes of 96 x 96 pixels, 1 channel." in text
    assert "Planes 6 to 7 with 8 objects are held out" in text


def test_planes_without_labels_are_looked_at_but_hold_nothing(disks):
    image, labels = disks(6)
    labels[1:4] = 0
    found = survey(ArraySource(image, labels))
    assert [p.number for p in found.planes] == [0, 4, 5]
    assert found.seen == 6


def test_a_survey_grows_plane_by_plane(disks):
    steps = list(look(ArraySource(*disks(3))))
    assert [s.seen for s in steps] == [1, 2, 3, 3]
    assert [s.complete for s in steps] == [False, False, False, True]


def one_object(disks):
    image, labels = disks(1)
    return image, np.where(labels == 1, 1, 0)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda d: (d(2)[0], d(3)[1]), r"image (2, 96, 96) and labels (3, 96, 96) of 'x' must match in (Z, Y, X)"),
        (lambda d: (d(2)[0], np.zeros((2, 96, 96), int)), "0 labelled objects of 12 pixels or more cannot be trained"),
        (lambda d: (d(2)[0], d(2)[1].astype(float)), "labels of 'x' must be integer instance ids, got float64"),
        (one_object, "1 labelled object of 12 pixels or more cannot be trained"),
        (lambda d: (np.full((2, 96, 96), 7.0), d(2)[1]), "image 'x' is 7 in every pixel"),
        (lambda d: (d(2)[0], d(2)[1].astype(int) - 1), "labels of 'x' must lie in 0..65535, got -1..3"),
    ],
)
def test_what_cannot_be_trained_on_is_one_sentence(disks, make, problem):
    found = survey(ArraySource(*make(disks), name="x"))
    assert not found.ready
    assert len(found.problems) == 1
    assert problem in found.problems[0]


def test_missing_files_are_a_problem_and_no_crash(tmp_path):
    found = survey(FileSource(tmp_path / "gone.tif", tmp_path / "gone2.tif"))
    assert "gone.tif does not exist" in found.problems[0]


def test_remarks_tell_few_objects_specks_and_masks_that_are_no_instances(disks):
    image, labels = disks(1, 4)
    labels[0, :2, :3] = 9
    text = said(ArraySource(image, labels))
    assert "4 labelled objects are too few to tell a better model from a lucky one" in text
    assert "1 label of fewer than 12 pixels is left out." in text
    image, labels = disks(2, 4)
    labels[0] = labels[0] > 0
    labels[0, 90:, :5], labels[0, 90:, 90:] = 1, 1
    assert "Label 1 of 'image' has 6 separate parts" in said(ArraySource(image, labels))


def test_the_fingerprint_follows_the_labels_and_the_image(disks):
    image, labels = disks(3)
    one = survey(ArraySource(image, labels)).fingerprint
    assert survey(ArraySource(image, labels.copy())).fingerprint == one
    other = image.copy()
    other[2] = np.roll(other[2], 3, axis=1)
    assert survey(ArraySource(other, labels)).fingerprint != one
    labels[2, 0, 0:20] = 50
    assert survey(ArraySource(image, labels)).fingerprint != one


def test_survey_json_is_plain(disks):
    import json

    stored = json.loads(json.dumps(survey(ArraySource(*disks(8))).to_json()))
    assert stored["training_objects"] + stored["held_out_objects"] + stored["left_out_objects"] == stored["objects"]


@pytest.mark.parametrize(
    ("counts", "held"), [([10, 10], 5), ([9, 9, 2], 5), ([5, 5, 5, 5], 5), ([1] * 20, 5), ([18, 2], 5)]
)
@pytest.mark.parametrize("several", [True, False])
def test_few_large_images_are_parted_rather_than_half_of_the_objects_held_out(counts, held, several):
    split = split_planes(planes_of(counts, [f"i{n}" for n in range(len(counts))] if several else None), 0.25)
    assert len(split.held_out) == held


def test_of_a_parted_image_the_right_side_is_held_out():
    split = split_planes(planes_of([10, 10], ["a", "b"]), 0.25)
    assert [(k.plane, k.label) for k in split.held_out] == [(1, label) for label in (6, 7, 8, 9, 10)]
    assert split.how == "5 objects of 1 image are held out (b)."
