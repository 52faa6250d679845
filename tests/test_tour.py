"""A person's hour in a real window: clicks, pulls, keys and the list, a crash, and the work restored; default model."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

import tifffile

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import tour

from napari_delse._sample_data import sample_folder
from napari_delse.metrics import iou

pytestmark = pytest.mark.usefixtures("own_home", "checkout")

PLANE = 4


@pytest.fixture(scope="module")
def stack():
    folder = sample_folder()
    return tifffile.imread(folder / "cells.tif"), tifffile.imread(folder / "cells_labels.tif")


@pytest.fixture
def sit_down(make_napari_viewer):
    """Opens a window on an image, with a person before it."""

    def sit(image, **options):
        layer = (image, {"name": "cells", **options}, "image")
        return tour.Person(*tour.open_window([layer], viewer=make_napari_viewer(show=True)), pause=0.02)

    return sit


def only(truth, *labels):
    return np.where(np.isin(truth, labels), truth, 0)


def test_an_hour_on_a_plane_of_a_stack(stack, sit_down):
    image, labels = stack
    person = sit_down(image, scale=(1, 0.25, 0.25))
    person.viewer.dims.current_step = (PLANE, 0, 0)
    truth = only(labels[PLANE], 14, *tour.nearest_cells(labels[PLANE], 14, 3))
    day = tour.label_all(person, truth, pulls=3)

    ours = person.labels
    assert sorted(day.made.values()) == [1, 2, 3, 4]
    assert not ours[:PLANE].any()
    for label, made in day.made.items():
        assert iou(ours[PLANE] == made, truth == label) > 0.85
    assert day.pulled
    assert day.pulled[0].after > day.pulled[0].before - 0.01

    assert tour.undo_and_redo(person, 2)

    hard = day.made[14]
    before = (person.labels == hard).sum()
    assert tour.reopen(person, hard, truth == 14) == hard
    assert before * 0.8 < (person.labels == hard).sum() < before * 1.25

    person.choose(1, 2)
    person.name("round")
    named = {label for label, made in person.session.objects.items() if made.class_name == "round"}
    assert named == {1, 2}

    apart = most_apart(person.labels[PLANE], day.made.values())
    whole = person.labels.copy()
    tour.merge(person, *apart)
    assert np.array_equal(person.labels > 0, whole > 0)
    assert set(np.unique(person.labels)) == set(np.unique(whole)) - {max(apart)}
    tour.split(person, min(apart))
    assert np.array_equal(person.labels > 0, whole > 0)
    assert len(np.unique(person.labels)) == len(np.unique(whole))

    while person.session.can_undo:
        person.undo()
    assert not person.labels.any()


def most_apart(labels, made):
    """Two objects that do not touch."""
    places = {n: np.argwhere(labels == n).mean(axis=0) for n in made}
    return sorted(max(((a, b) for a in places for b in places), key=lambda p: np.hypot(*(places[p[0]] - places[p[1]]))))


def test_work_is_restored_after_a_crash(stack, sit_down, tmp_path):
    image, truth, left = (tmp_path / f"{name}.npy" for name in ("cells", "truth", "left"))
    plane = only(stack[1][PLANE], 14, *tour.nearest_cells(stack[1][PLANE], 14, 1))
    np.save(image, stack[0][PLANE])
    np.save(truth, plane)
    assert tour.crash(image, truth, 1, left) == tour.KILLED
    person = sit_down(stack[0][PLANE])
    tour.restore(person)
    assert np.array_equal(person.labels, np.load(left))
    assert len(person.session.objects) == 1
    person.wait()  # the second object was outlined and not accepted
    assert person.accept() == 2
    person.undo()
    person.undo()
    assert np.array_equal(person.labels, np.load(left))


def test_enter_in_a_field_accepts_no_object(stack, sit_down):
    person = sit_down(stack[0][PLANE])
    truth = stack[1][PLANE]
    for label in (14, *tour.nearest_cells(truth, 14, 1)):
        person.outline(truth == label)
        if label == 14:
            person.accept()
    person.choose(1)
    person.name("round")
    assert person.session.objects[1].class_name == "round"
    assert len(person.session.objects) == 1
    assert person.session.preview is not None
