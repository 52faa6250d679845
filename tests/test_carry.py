"""What a run over many planes writes: one step of undo, in the journal part by part."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from napari_delse.annotation import edits
from napari_delse.annotation.actions import action_from_json, action_to_json
from napari_delse.annotation.carrying import edits_of
from napari_delse.annotation.edits import ArrayLabels, PixelEdit, PlaneKey, touched
from napari_delse.annotation.journal import Identity, object_count, read, restore, so_far, start
from napari_delse.annotation.records import carried_count
from napari_delse.annotation.session import AnnotationSession
from napari_delse.geometry import ObjectMask

AXES = (1, 2)


@dataclass(frozen=True)
class Answer:
    mask: ObjectMask
    confidence: float = 1.0


@pytest.fixture
def session():
    return AnnotationSession(ArrayLabels(np.zeros((6, 20, 20), np.uint16)))


def carried(session, run, place, value=3):
    """Two labels written to a plane."""
    before = session.store.data[place].copy()
    after = before.copy()
    after[4:9, 4:9], after[10:12, 3:8] = value, value + 1
    session.carry(run, [PixelEdit.of_window(PlaneKey(AXES, (place,)), (0, 0), before, after)])
    return after


def painted(session, place, value=9):
    """A stroke of the brush in a plane."""
    mask = ObjectMask(np.ones((2, 2), bool), (15, 15))
    session.store.data[place, 15:17, 15:17] = value
    session.note_painted([(PlaneKey(AXES, (place,)), mask, 0, value)])


def test_an_edit_of_a_window_writes_many_labels_and_takes_them_back(session):
    after = carried(session, "a", 2)
    assert np.array_equal(session.store.data[2], after)
    assert session.actions[0].pixels[0].labels == {3, 4}
    assert session.actions[0].pixels[0].pixels.shape == (8, 6)
    session.undo()
    assert not session.store.data.any()


def test_an_edit_that_changes_nothing_is_none():
    plane = np.ones((4, 4), np.uint8)
    assert PixelEdit.of_window(PlaneKey(AXES, (0,)), (0, 0), plane, plane.copy()) is None


def test_what_was_painted_over_a_run_stays_when_it_is_undone(session):
    carried(session, "a", 1)
    session.store.data[1, 5, 5] = 7
    session.undo()
    assert session.store.data[1, 5, 5] == 7
    assert np.count_nonzero(session.store.data) == 1


def test_a_run_is_one_step_whatever_is_done_meanwhile(session):
    carried(session, "a", 0)
    painted(session, 5)
    carried(session, "a", 1)
    assert session.next_label == 10
    session.undo()
    assert not session.store.data[5].any()
    assert session.store.data[0].any()
    assert session.store.data[1].any()
    session.undo()
    assert not session.store.data.any()
    assert not session.can_undo
    session.redo()
    assert session.store.data[0].any()
    assert session.store.data[1].any()
    assert not session.store.data[5].any()
    session.redo()
    assert session.store.data[5].any()
    assert not session.can_redo


def test_a_run_leaves_alone_what_was_changed_since_it_began(session):
    """An object that it went around is deleted while it runs: undo still gives all of it back."""
    store = session.store
    session.set_box(PlaneKey((0, 2), (6,)), [(0, 4), (5, 11)])
    session.receive(session.request(), Answer(ObjectMask(np.ones((6, 8), bool), (0, 4))))
    session.commit()  # across the planes of the run
    start = store.data.copy()
    for place in (0, 1):
        session.carry("a", list(edits_of(store, PlaneKey(AXES, (place,)), np.full((20, 20), 3))))
        if place == 0:
            assert store.data[0, 6, 6] == 1
            session.delete(1)
    assert (store.data[0] == 3).sum() == (store.data[1] == 3).sum() == 400 - 8
    session.undo()
    assert (store.data == 1).sum() == 6 * 8
    session.undo()
    np.testing.assert_array_equal(store.data, start)
    session.redo()
    session.redo()
    assert set(np.unique(store.data[1])) == {0, 3}
    assert not (store.data == 1).any()


def test_a_part_of_a_run_that_somebody_has_written_over_is_not_one(session):
    carried(session, "a", 0)
    painted(session, 1, value=7)
    before = session.store.data[1].copy()
    after = before.copy()
    after[15:17, 15:17] = 3
    session.carry("a", [PixelEdit.of_window(PlaneKey(AXES, (1,)), (0, 0), before, after)])
    assert [action.kind for action in session.actions] == ["carry", "paint"]
    np.testing.assert_array_equal(session.store.data[1], before)


@pytest.mark.parametrize("plane", [PlaneKey((1, 2), (2,)), PlaneKey((2, 1), (2,)), PlaneKey((0, 2), (9,))])
def test_pixels_of_an_edit_are_found_in_planes_along_and_across(plane):
    labels, rng = np.zeros((6, 20, 22), np.uint8), np.random.default_rng(0)
    edit = PixelEdit.plan(ArrayLabels(labels), plane, ObjectMask(rng.random((5, 9)) < 0.5, (1, 7)), 1)
    edit.do(ArrayLabels(labels))
    for axes, index in (((1, 2), (2,)), ((2, 1), (2,)), ((0, 1), (9,)), ((0, 2), (9,)), ((1, 2), (3,))):
        other = PlaneKey(axes, index)
        window = slice(2, 6), slice(4, 15)
        expected = ArrayLabels(labels).read(other, *window) == 1
        np.testing.assert_array_equal(touched([edit], other, *window), expected)
    rest = edit.without(np.arange(9) % 2 == np.zeros((5, 1)))
    assert rest.pixels.unpack().mask.sum() == edit.pixels.unpack().mask[:, 1::2].sum()
    assert edit.without(np.ones((5, 9), bool)) is None
    assert edit.without(np.zeros((5, 9), bool)) is edit


def test_two_runs_are_two_steps(session):
    carried(session, "a", 0)
    carried(session, "b", 1)
    session.undo()
    assert session.store.data[0].any()
    assert not session.store.data[1].any()


def test_what_was_undone_can_be_done_again_after_a_part_of_a_run_elsewhere(session):
    recorded = []
    session.recorder = recorded.append
    carried(session, "a", 0)
    painted(session, 5)
    session.undo()
    carried(session, "a", 1)
    assert session.can_redo
    session.redo()
    assert (session.store.data[5, 15:17, 15:17] == 9).all()
    again = AnnotationSession(ArrayLabels(np.zeros_like(session.store.data)))
    for entry in recorded:
        again.repeat(entry)
    np.testing.assert_array_equal(again.store.data, session.store.data)


@pytest.mark.parametrize(("place", "value"), [(0, 9), (5, 3)], ids=["its label", "its pixels"])
def test_what_was_undone_is_forgotten_when_a_run_takes(session, place, value):
    painted(session, 5)
    session.undo()
    before = session.store.data[place].copy()
    after = before.copy()
    after[14:18, 14:18] = value
    session.carry("a", [PixelEdit.of_window(PlaneKey(AXES, (place,)), (0, 0), before, after)])
    assert not session.can_redo


def test_what_was_undone_is_forgotten_when_a_run_writes_more_of_its_object(session):
    session.set_box(PlaneKey(AXES, (0,)), [(4, 4), (8, 8)])
    session.receive(session.request(), Answer(ObjectMask(np.ones((5, 5), bool), (4, 4))))
    session.commit()
    session.delete(1)
    session.undo()
    assert session.can_redo
    carried(session, "a", 1, value=1)
    assert not session.can_redo  # the object would be gone, and its pixels there


def test_a_run_that_was_undone_is_forgotten_when_it_goes_on(session, tmp_path):
    start(session, Identity("cells", (6, 20, 20), "<u2"), tmp_path, sync="never")
    carried(session, "a", 0)
    session.undo()
    carried(session, "a", 1)
    assert not session.can_redo
    session.undo()
    session.redo()
    assert carried_count(read(session.recorder.path)) == 1


def test_a_run_keeps_the_clicks_that_were_made_meanwhile(session):
    carried(session, "a", 0)
    session.add_click(PlaneKey(AXES, (3,)), (2.0, 2.0))
    carried(session, "a", 1)
    assert session.draft.clicks == ((2.0, 2.0),)
    session.undo()
    session.undo()
    assert session.draft.is_empty
    assert not session.store.data.any()


def test_a_killed_run_is_restored_with_all_its_planes_and_as_one_step(session, tmp_path):
    start(session, Identity("cells", (6, 20, 20), "<u2"), tmp_path, sync="never")
    carried(session, "a", 0)
    painted(session, 5)
    carried(session, "a", 1)
    session.undo()
    session.redo()
    path = session.recorder.path
    assert (carried_count(read(path)), object_count(read(path))) == (2, 0)
    session.recorder.abandon()
    again = restore(path, ArrayLabels(np.zeros((6, 20, 20), np.uint16)), resume=False)
    assert np.array_equal(again.store.data, session.store.data)
    again.undo()
    again.undo()
    assert not again.store.data.any()


def test_an_undone_run_counts_no_planes_and_a_late_journal_holds_it(session, tmp_path):
    carried(session, "a", 0)
    carried(session, "a", 1)
    carried(session, "b", 2)
    session.undo()
    session.undo()
    assert [entry["step"] for entry in so_far(session)] == ["do", "do", "do", "undo", "undo"]
    start(session, Identity("cells", (6, 20, 20), "<u2"), tmp_path, sync="never")
    path = session.recorder.path
    assert carried_count(read(path)) == 0
    session.recorder.abandon()
    again = restore(path, ArrayLabels(np.zeros((6, 20, 20), np.uint16)), resume=False)
    again.redo()
    assert again.store.data[0].any()
    assert again.store.data[1].any()
    assert not again.store.data[2].any()


@pytest.mark.parametrize("is_restored", [False, True])
def test_deleting_does_not_unpack_again_what_runs_wrote(session, is_restored, monkeypatch, tmp_path):
    store = session.store
    start(session, Identity("cells", (6, 20, 20), "<u2"), tmp_path, sync="never")
    for place in range(6):
        carried(session, "a", place)
    session.set_box(PlaneKey(AXES, (0,)), [(14, 14), (16, 16)])
    session.receive(session.request(), Answer(ObjectMask(np.ones((3, 3), bool), (14, 14))))
    session.commit()
    session.recorder.abandon()
    if is_restored:
        session = restore(session.recorder.path, ArrayLabels(np.zeros_like(store.data)), resume=False)
    unpack = edits._unpack

    def mask_only(text, dtype):
        assert dtype == np.uint8, "labels were unpacked"
        return unpack(text, dtype)

    with monkeypatch.context() as patch:
        patch.setattr(edits, "_unpack", mask_only)
        session.recorder = None
        session.delete(5)
    assert set(np.unique(session.store.data)) == {0, 3, 4}


def test_an_edit_that_was_asked_for_its_labels_is_still_the_same(session):
    carried(session, "a", 2)
    action = session.actions[0]
    again = action_from_json(action_to_json(action))
    assert "labels" in vars(action.pixels[0])
    assert "labels" not in vars(again.pixels[0])
    assert again == action
    assert hash(again.pixels[0]) == hash(action.pixels[0])
    assert replace(action.pixels[0], after=7).labels == {7}


def test_a_deleted_object_goes_from_carried_planes_too(session):
    session.set_box(PlaneKey(AXES, (0,)), [(4, 4), (8, 8)])
    request = session.request()
    session.receive(request, Answer(ObjectMask(np.ones((5, 5), bool), (4, 4))))
    session.commit()
    carried(session, "a", 1, value=1)
    session.delete(1)
    assert set(np.unique(session.store.data)) == {0, 2}
