"""Looking over objects: where to go next."""

import numpy as np
import pytest

from napari_delse.annotation.actions import Draft, LabelledObject, PackedMask, PlaneKey
from napari_delse.annotation.review import next_empty_plane, next_unnamed
from napari_delse.geometry import ObjectMask

MASK = PackedMask.pack(ObjectMask(np.ones((2, 2), bool), (0, 0)))


def made(label, name="", *planes):
    plane, *others = planes or (PlaneKey(),)
    pieces = tuple(made(label, name, other) for other in others)
    return LabelledObject(label, Draft(plane), MASK, 4, 0.5, class_name=name, others=pieces)


def test_the_next_unnamed_object_comes_round_the_end():
    objects = {label: made(label, name) for label, name in ((5, ""), (2, ""), (3, "cell"), (9, "cell"))}
    assert next_unnamed(objects) == 2
    assert next_unnamed(objects, 2) == 5
    assert next_unnamed(objects, 5) == 2
    assert next_unnamed({3: objects[3]}, 3) is None
    assert next_unnamed({}) is None


@pytest.mark.parametrize(("shown", "expected"), [(0, 1), (1, 3), (3, 1), (2, 3)])
def test_the_next_empty_plane_comes_round_the_end(shown, expected):
    objects = {1: made(1, "", PlaneKey((1, 2), (0,)), PlaneKey((1, 2), (2,)))}
    found = next_empty_plane(objects, PlaneKey((1, 2), (shown,)), (4, 80, 80))
    assert found == PlaneKey((1, 2), (expected,))


def test_planes_across_other_axes_do_not_count():
    objects = {1: made(1, "", PlaneKey((0, 2), (1,)))}
    assert next_empty_plane(objects, PlaneKey((1, 2), (0,)), (2, 80, 80)) == PlaneKey((1, 2), (1,))


def test_empty_planes_of_several_axes_are_gone_through_in_order():
    objects = {1: made(1, "", PlaneKey((2, 3), (0, 1)))}
    here, seen = PlaneKey((2, 3), (0, 0)), []
    for _ in range(3):
        here = next_empty_plane(objects, here, (2, 2, 80, 80))
        seen.append(here.index)
    assert seen == [(1, 0), (1, 1), (0, 0)]


def test_without_an_empty_plane_there_is_none():
    assert next_empty_plane({1: made(1)}, PlaneKey(), (80, 80)) is None
    assert next_empty_plane({}, PlaneKey(), (80, 80)) == PlaneKey()
