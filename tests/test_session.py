import json
import time
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from napari_delse.annotation.actions import (
    ArrayLabels,
    Commit,
    Draft,
    PackedMask,
    PixelEdit,
    PlaneKey,
    action_from_json,
    action_to_json,
    place_in,
    run_of,
)
from napari_delse.annotation.policy import LabelPolicy
from napari_delse.annotation.review import class_names, most_uncertain, object_prompts, row_of
from napari_delse.annotation.session import AnnotationSession
from napari_delse.data.prompts import read_prompts, write_prompts
from napari_delse.evolution import EvolutionSettings
from napari_delse.geometry import Correction, Crop, ObjectMask

SHAPE = (3, 24, 20)
PLANE = PlaneKey()
DIAMOND = ((2.0, 6.0), (6.0, 2.0), (10.0, 6.0), (6.0, 10.0))


@dataclass(frozen=True)
class Ellipse:
    """Stands in for a prediction: the ellipse in the box of the clicks, moved by the drags."""

    mask: ObjectMask
    corrections: tuple = ()
    confidence: float = 0.9


def predict(draft, shape, *, untidy=False):
    y0, x0, y1, x1 = draft.prompt().box
    dy = sum(c.end[0] - c.start[0] for c in draft.corrections)
    dx = sum(c.end[1] - c.start[1] for c in draft.corrections)
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    ry, rx = max((y1 - y0) / 2, 0.5), max((x1 - x0) / 2, 0.5)
    inside = ((ys - (y0 + y1) / 2 - dy) / ry) ** 2 + ((xs - (x0 + x1) / 2 - dx) / rx) ** 2 <= 1
    if untidy and inside.any():  # now and then a part of its own, and a hole
        inside[0, 0] |= int(x0) % 2 == 1
        inside[int(y0 + y1) // 2 % shape[0], int(x0 + x1) // 2 % shape[1]] &= int(y0) % 2 == 0
    return Ellipse(ObjectMask.from_crop(inside, Crop(0, 0, *shape, 32), shape), draft.corrections)


def answer(session, *, untidy=False):
    """What a worker does; True when something was predicted."""
    request = session.request()
    if request is None:
        return False
    return session.receive(
        request, predict(request.draft, request.draft.plane.shape(session.store.shape), untidy=untidy)
    )


def outline(session, points=DIAMOND, plane=PLANE):
    for point in points:
        session.add_click(plane, point)
    answer(session)


@pytest.fixture
def session():
    return AnnotationSession(ArrayLabels(np.zeros((16, 16), np.uint8)))


# ---------------------------------------------------------------- one object


def test_nothing_is_predicted_before_four_different_clicks(session):
    for point in (DIAMOND[0], DIAMOND[0], DIAMOND[1], DIAMOND[2]):
        session.add_click(PLANE, point)
        assert session.request() is None
    assert session.draft.missing == 1
    session.add_click(PLANE, DIAMOND[3])
    assert session.request().draft.prompt().points == DIAMOND


def test_fifth_click_is_evidence_for_the_same_object(session):
    outline(session)
    session.add_click(PLANE, (12.0, 6.0))
    assert session.request().draft.clicks == (*DIAMOND, (12.0, 6.0))


def test_same_draft_is_asked_only_once(session):
    for point in DIAMOND:
        session.add_click(PLANE, point)
    assert session.request() is not None
    assert session.request() is None


@pytest.mark.parametrize("is_early", [True, False])
def test_a_foreseen_drag_needs_no_request_of_its_own(session, is_early):
    outline(session)
    drag = Correction((10.0, 6.0), (13.0, 6.0))
    request = session.foresee(drag)
    assert session.foresee(drag) is None
    assert not session.draft.corrections
    assert not session.is_waiting
    answered = predict(request.draft, (16, 16))
    if is_early:
        assert session.receive(request, answered)
        assert session.foreseen(drag) is answered
        assert session.preview is not answered
    session.add_correction(drag)
    assert session.request() is None
    assert session.is_waiting is not is_early
    if not is_early:
        assert session.receive(request, answered)
    assert session.preview is answered


def foresee(session, count):
    """A long pull, which rests at many places; the drag to the last of them."""
    for step in range(1, count + 1):
        drag = Correction((10.0, 6.0), (10.0 + step / 8, 6.0))
        request = session.foresee(drag)
        assert session.receive(request, predict(request.draft, (16, 16)))
    return drag


def test_a_long_pull_keeps_the_preview_that_it_began_with(session):
    outline(session)
    preview = session.preview
    drag = foresee(session, 40)
    assert session.preview is preview
    made = session.foreseen(drag)
    session.add_correction(drag)
    assert session.preview is made
    foresee(session, 40)
    assert session.preview is made
    session.undo()
    assert session.preview is preview
    assert session.request() is None
    session.redo()
    assert session.preview is made


def test_a_drag_that_was_foreseen_elsewhere_is_not_wanted_any_more(session):
    outline(session)
    late = session.foresee(Correction((10.0, 6.0), (13.0, 6.0)))
    session.add_correction(Correction((10.0, 6.0), (14.0, 6.0)))
    assert not session.is_wanted(late)
    assert not session.receive(late, predict(late.draft, (16, 16)))
    assert session.request().draft.corrections == (Correction((10.0, 6.0), (14.0, 6.0)),)


def test_nothing_is_foreseen_before_there_is_an_outline(session):
    assert session.foresee(Correction((10.0, 6.0), (13.0, 6.0))) is None
    for point in DIAMOND:
        session.add_click(PLANE, point)
    session.request()
    assert session.foresee(Correction((10.0, 6.0), (13.0, 6.0))) is None


def test_a_foreseen_drag_that_cannot_be_predicted_troubles_nobody(session):
    outline(session)
    request = session.foresee(Correction((10.0, 6.0), (13.0, 6.0)))
    assert not session.fail(request)
    assert not session.is_wanted(request)


def test_late_answer_is_dropped(session):
    for point in DIAMOND:
        session.add_click(PLANE, point)
    late = session.request()
    session.add_click(PLANE, (12.0, 6.0))
    now = session.request()
    assert not session.receive(late, predict(late.draft, (16, 16)))
    assert session.preview is None
    assert session.receive(now, predict(now.draft, (16, 16)))
    assert session.preview is not None


def test_late_failure_is_dropped(session):
    for point in DIAMOND:
        session.add_click(PLANE, point)
    late = session.request()
    session.clear()
    assert not session.fail(late)


def test_commit_writes_the_preview_under_the_next_free_label(session):
    session.note_label(6)
    outline(session)
    mask = session.preview.mask
    made = session.commit()
    assert made.label == 7
    np.testing.assert_array_equal(session.store.data == 7, mask.to_plane((16, 16)))
    assert session.draft.is_empty
    assert session.next_label == 8


def test_undone_drag_shows_the_former_preview_at_once(session):
    outline(session)
    first = session.preview
    session.add_correction(Correction((2, 6), (4, 6)))
    answer(session)
    assert session.preview is not first
    session.undo()
    assert session.preview is first
    assert session.request() is None


def test_drag_before_the_outline_is_refused(session):
    with pytest.raises(ValueError, match="there is none yet"):
        session.add_correction(Correction((2, 6), (4, 6)))


def test_drag_on_another_plane_is_refused():
    session = AnnotationSession(ArrayLabels(np.zeros((3, 16, 16), np.uint8)))
    here, there = (PlaneKey((1, 2), (z,)) for z in (0, 1))
    with pytest.raises(ValueError, match="there is none yet"):
        session.check_drag(here)
    session.set_clicks(here, ((2, 6), (6, 10), (10, 6), (6, 2)))
    session.check_drag(here)
    with pytest.raises(ValueError, match="another plane"):
        session.check_drag(there)


def test_click_on_another_plane_is_refused():
    session = AnnotationSession(ArrayLabels(np.zeros((3, 16, 16), np.uint8)))
    session.add_click(PlaneKey((1, 2), (0,)), (2, 6))
    with pytest.raises(ValueError, match="another plane"):
        session.add_click(PlaneKey((1, 2), (1,)), (6, 2))
    assert session.draft.clicks == ((2.0, 6.0),)


def test_box_needs_two_corners_only(session):
    session.set_box(PLANE, [(2, 2), (2, 10), (10, 10), (10, 2)])
    assert session.request().draft.prompt().kind == "box"
    assert answer(session) is False  # asked already


# ---------------------------------------------------------------- evolution settings


FAR, SHORT = EvolutionSettings(steps=8), EvolutionSettings(steps=1)


def test_another_evolution_is_predicted_anew_and_accepted_with_the_object(session):
    outline(session)
    own = session.preview
    session.set_evolution(FAR)
    assert session.preview is None
    assert session.relative(session.draft) is own
    assert answer(session)
    made = session.commit()
    assert made.draft.evolution == FAR
    session.reopen(made.label)
    assert session.evolution == FAR


def test_a_draft_with_another_drag_has_a_relative_as_long_as_its_clicks_stay(session):
    outline(session)
    own, drag = session.preview, Correction((2.0, 6.0), (1.0, 6.0))
    session.add_correction(drag)
    assert session.relative(session.draft) is None
    assert session.relative(session.draft, dragged=True) is own
    assert answer(session)
    pulled = session.preview
    session.set_evolution(FAR)
    assert session.relative(session.draft) is session.relative(session.draft, dragged=True) is pulled
    session.add_click(PLANE, (7.0, 9.0))
    assert session.relative(session.draft, dragged=True) is None


def test_settings_stay_for_the_next_object_until_they_are_reset(session):
    session.set_evolution(FAR)
    outline(session)
    assert session.draft.evolution == FAR
    session.clear()
    session.add_click(PLANE, DIAMOND[0])
    assert session.draft.evolution == FAR
    session.set_evolution(None)
    assert session.draft == Draft(PLANE, DIAMOND[:1])


def test_further_clicks_boxes_and_drags_keep_the_settings(session):
    outline(session)
    session.set_evolution(FAR)
    session.add_click(PLANE, (12.0, 6.0))
    session.add_correction(Correction((2, 2), (3, 3)))
    assert session.draft.evolution == FAR
    session.set_box(PLANE, [(2, 2), (9, 9)])
    assert session.draft.evolution == FAR


def test_a_slider_on_its_way_is_one_step_of_undo(session):
    outline(session)
    count = len(session.actions)
    for steps in (4, 3, 2, 1):
        session.set_evolution(EvolutionSettings(steps=steps))
    assert len(session.actions) == count + 1
    session.undo()
    assert session.evolution is None
    session.redo()
    assert session.evolution == SHORT
    session.set_evolution(None)  # back where it began
    assert len(session.actions) == count
    assert session.evolution is None


def test_undo_takes_the_settings_of_the_next_object_back_too(session):
    outline(session)
    session.set_evolution(FAR)
    session.undo()
    session.clear()
    assert session.evolution is None


def test_settings_of_a_reopened_object_are_its_own(session):
    outline(session)
    label = session.commit().label
    session.reopen(label)
    session.set_evolution(FAR)
    answer(session)
    session.commit()
    assert session.evolution is None
    session.reopen(label)
    assert session.evolution == FAR
    session.set_clicks(PLANE, ())
    assert session.evolution == FAR


def test_evolution_settings_survive_json_to_the_last_bit(session):
    session.set_evolution(EvolutionSettings(steps=3, dt=0.1 + 0.2, mu=1 / 3, threshold=-2.2))
    outline(session)
    session.commit()
    for action in session.actions:
        assert action_from_json(json.loads(json.dumps(action_to_json(action)))) == action


def test_an_action_as_json_holds_every_field_of_what_is_in_it(session):
    session.set_evolution(FAR)
    outline(session)
    session.classify(session.commit().label, "nucleus")
    for action in session.actions:
        plain = action_to_json(action)
        whole = {name: value for name, value in asdict(action).items() if value != ()}
        assert plain == {"kind": action.kind, **whole}


# ---------------------------------------------------------------- what is in the labels already


def test_existing_labels_are_protected(session):
    session.store.data[:, :6] = 3
    session.note_label(3)
    before = session.store.data.copy()
    outline(session)
    session.commit()
    np.testing.assert_array_equal(session.store.data[:, :6], 3)
    session.undo()
    np.testing.assert_array_equal(session.store.data, before)


def test_overwriting_is_undone_bit_by_bit(session):
    session.store.data[:] = np.arange(256, dtype=np.uint8).reshape(16, 16) % 7
    before = session.store.data.copy()
    session.protect = False
    outline(session)
    mask = session.preview.mask.to_plane((16, 16))
    session.note_label(6)
    session.commit()
    np.testing.assert_array_equal(session.store.data[mask], 7)
    session.undo()
    np.testing.assert_array_equal(session.store.data, before)
    session.redo()
    np.testing.assert_array_equal(session.store.data[mask], 7)


def test_wholly_protected_object_is_refused(session):
    session.store.data[:] = 1
    outline(session)
    with pytest.raises(ValueError, match="already have a label"):
        session.commit()
    assert not session.draft.is_empty


def test_label_beyond_the_dtype_is_refused_with_value_rule_and_remedy(session):
    session.note_label(255)
    outline(session)
    with pytest.raises(ValueError, match="label 256 does not fit into uint8 labels, which end at 255; convert"):
        session.commit()
    assert not session.store.data.any()


def test_empty_preview_is_refused(session):
    outline(session, [(-9, -6), (-6, -9), (-3, -6), (-6, -3)])
    assert session.preview.mask.area == 0
    with pytest.raises(ValueError, match="empty"):
        session.commit()


def test_undo_keeps_what_the_brush_painted_since(session):
    outline(session)
    session.commit()
    session.store.data[6, 6] = 9  # the brush, inside the object
    session.undo()
    assert session.store.data[6, 6] == 9
    assert np.count_nonzero(session.store.data) == 1
    session.redo()
    assert session.store.data[6, 6] == 9


def test_delete_takes_what_was_painted_onto_the_object(session):
    outline(session)
    session.commit()
    session.store.data[6, 6:16] = 1
    before = session.store.data.copy()
    session.delete(1)
    assert not session.store.data.any()
    session.undo()
    np.testing.assert_array_equal(session.store.data, before)
    assert 1 in session.objects


def test_several_objects_are_deleted_or_named_in_one_step(session):
    disk(session, 4, 4)
    disk(session, 11, 11)
    before, steps = session.store.data.copy(), len(session.actions)
    session.classify_all([1, 2], "nucleus")
    session.classify_all([1, 2], "nucleus")  # nothing changes
    session.delete_all([1, 2])
    assert not session.store.data.any()
    assert len(session.actions) == steps + 2
    session.undo()
    np.testing.assert_array_equal(session.store.data, before)
    assert class_names(session.objects) == {1: "nucleus", 2: "nucleus"}
    session.undo()
    assert class_names(session.objects) == {}
    with pytest.raises(ValueError, match="label 9 was not made here"):
        session.delete_all([1, 9])
    with pytest.raises(ValueError, match="choose one or more"):
        session.delete_all([])
    np.testing.assert_array_equal(session.store.data, before)


def test_unknown_label_cannot_be_deleted(session):
    with pytest.raises(ValueError, match="label 5 was not made here"):
        session.delete(5)


def test_labels_that_cannot_be_written_change_nothing():
    data = np.zeros((16, 16), np.uint8)
    data.flags.writeable = False
    session = AnnotationSession(ArrayLabels(data))
    outline(session)
    actions = session.actions
    with pytest.raises(ValueError, match="read-only"):
        session.commit()
    assert session.actions == actions
    assert not session.objects
    assert session.preview is not None


def test_zarr_labels():
    zarr = pytest.importorskip("zarr")
    data = zarr.zeros(shape=(2, 16, 16), chunks=(1, 8, 8), dtype="uint16")
    session = AnnotationSession(ArrayLabels(data))
    outline(session, plane=PlaneKey((1, 2), (1,)))
    session.commit()
    assert (data[1] == 1).sum() == session.objects[1].area
    assert not data[0].any()
    session.undo()
    assert not data[:].any()


# ---------------------------------------------------------------- reopen, merge, split


def disk(session, y, x, radius=3, plane=PLANE):
    outline(session, ((y - radius, x), (y, x - radius), (y + radius, x), (y, x + radius)), plane)
    return session.commit()


def test_reopened_object_is_committed_again_under_its_label(session):
    disk(session, 4, 4)
    made = disk(session, 11, 11)
    session.classify(2, "nucleus")
    before = session.store.data.copy()
    session.reopen(2)
    np.testing.assert_array_equal(session.store.data, before)
    assert session.draft.clicks == made.draft.clicks
    session.add_correction(Correction((8, 11), (9, 11)))
    answer(session)
    mask = session.preview.mask.to_plane((16, 16))
    again = session.commit()
    assert (again.label, again.class_name) == (2, "nucleus")
    np.testing.assert_array_equal(session.store.data == 2, mask)
    np.testing.assert_array_equal(session.store.data == 1, before == 1)
    session.undo()
    np.testing.assert_array_equal(session.store.data, before)


def test_preview_of_a_reopened_object_needs_no_network(session):
    disk(session, 4, 4)
    session.reopen(1)
    assert session.preview is not None
    assert session.request() is None


def test_giving_up_a_reopened_object_leaves_it_as_it_was(session):
    disk(session, 4, 4)
    before = session.store.data.copy(), dict(session.objects)
    session.reopen(1)
    session.add_correction(Correction((1, 4), (3, 4)))
    session.clear()
    assert session.draft == Draft()
    assert session.objects == before[1]
    np.testing.assert_array_equal(session.store.data, before[0])


def test_reopened_object_without_clicks_is_still_that_object(session):
    disk(session, 4, 4)
    session.reopen(1)
    session.set_clicks(PLANE, [])
    assert session.draft.is_empty
    assert disk(session, 5, 5).label == 1
    assert list(session.objects) == [1]


def test_recommit_keeps_what_was_painted_beside_the_object(session):
    disk(session, 4, 4)
    session.store.data[15, :] = 1  # the brush
    session.reopen(1)
    disk(session, 5, 5)
    assert (session.store.data[15] == 1).all()


def test_recommit_erases_nothing_that_was_painted_over_it(session):
    disk(session, 4, 4)
    session.store.data[1:4, 4] = 9
    session.reopen(1)
    disk(session, 9, 4)
    assert (session.store.data[1:4, 4] == 9).all()


def test_deleting_a_reopened_object_ends_the_work_on_it(session):
    disk(session, 4, 4)
    session.reopen(1)
    session.delete(1)
    assert session.draft == Draft()
    session.undo()
    assert session.reopened.label == 1


def test_merged_objects_keep_their_prompts_and_are_outlined_as_one(session):
    one, two = disk(session, 4, 4), disk(session, 4, 11)
    union = session.store.data > 0
    made = session.merge([2, 1])
    np.testing.assert_array_equal(session.store.data, np.where(union, 2, 0))
    assert set(made.prompts) == {one.draft, two.draft}
    assert made.draft.prompt().box == (1, 1, 7, 14)
    assert made.area == union.sum()
    session.undo()
    assert session.objects == {1: one, 2: two}


def test_slices_merge_to_one_object_that_is_corrected_slice_by_slice():
    session = AnnotationSession(ArrayLabels(np.zeros((3, 16, 16), np.uint8)))
    slices = [PlaneKey((1, 2), (z,)) for z in range(3)]
    for plane in slices:
        disk(session, 7, 7, plane=plane)
    session.merge([1, 2, 3])
    assert set(np.unique(session.store.data)) == {0, 1}
    session.reopen(1, slices[1])
    disk(session, 8, 8, plane=slices[1])
    assert [piece.plane for piece in session.objects[1].pieces] == slices
    with pytest.raises(ValueError, match="one connected part"):
        session.split(1)
    session.delete(1)
    assert not session.store.data.any()


def test_slices_that_do_not_touch_are_split():
    session = AnnotationSession(ArrayLabels(np.zeros((3, 16, 16), np.uint8)))
    slices = [PlaneKey((1, 2), (z,)) for z in range(3)]
    made = [disk(session, 7, 7, plane=slices[z]) for z in (0, 2)]
    session.merge([1, 2])
    parts = session.split(1)
    assert [part.label for part in parts] == [1, 2]
    assert [part.draft for part in parts] == [one.draft for one in made]


def test_painted_bridge_joins_and_a_mask_cuts(session):
    disk(session, 4, 4)
    disk(session, 4, 12)
    session.merge([1, 2])
    session.store.data[4, 8] = 1  # the brush
    with pytest.raises(ValueError, match="one connected part"):
        session.split(1)
    right = ObjectMask(np.ones((16, 8), bool), (0, 8))
    one, two = session.split(1, right)
    assert (one.label, two.label) == (1, 2)
    assert not (session.store.data[:, 8:] == 1).any()
    assert session.store.data[4, 8] == 2
    assert two.draft.prompt().box == (1, 8, 7, 15)
    with pytest.raises(ValueError, match="holds every pixel"):
        session.split(2, right)


def test_split_beyond_the_dtype_is_refused(session):
    disk(session, 4, 4)
    disk(session, 11, 11)
    session.merge([1, 2])
    session.note_label(255)
    with pytest.raises(ValueError, match="label 256 does not fit"):
        session.split(1)


def test_labels_that_fail_halfway_are_put_back(session):
    class Failing(ArrayLabels):
        writes = 0

        def write(self, *args):
            self.writes += 1
            if self.writes == 3:
                raise OSError("disk full")
            super().write(*args)

    for x in (2, 6, 10):
        disk(session, 4, x, 1)
    before, actions = session.store.data.copy(), session.actions
    session.store = Failing(session.store.data)
    session.recorder = (told := []).append
    session.merge([1, 2])  # one write
    session.undo()  # and another
    with pytest.raises(OSError, match="disk full"):
        session.merge([3, 1, 2])
    np.testing.assert_array_equal(session.store.data, before)
    assert session.actions == actions
    assert [entry["step"] for entry in told] == ["do", "undo", "do", "failed"]


def test_recorder_that_fails_stops_the_action(session):
    def full(entry):
        raise OSError("no space left")

    session.recorder = full
    with pytest.raises(OSError, match="no space"):
        session.add_click(PLANE, (2, 6))
    assert session.draft == Draft()
    session.recorder = None
    session.add_click(PLANE, (2, 6))


# ---------------------------------------------------------------- policy


def commit_mask(session, rows):
    outline(session)
    session._predictions[session.draft] = Ellipse(ObjectMask(np.array([[c == "#" for c in r] for r in rows]), (0, 0)))
    return session.commit()


RING = ("#####.#", "#...#..", "#.#.#..", "#...#.#", "#####.#")


def test_holes_are_filled_and_small_parts_dropped_and_reported(session):
    session.policy = LabelPolicy(fill_holes=True, min_part=3)
    made = commit_mask(session, RING)
    assert (session.store.data[:5, :5] == 1).all()
    assert not session.store.data[:, 5:].any()
    assert (made.area, made.filled, made.dropped) == (25, 9, (2, 1, 1))


def test_holes_and_parts_are_kept_by_default(session):
    made = commit_mask(session, RING)
    assert made.area == 20
    assert (made.filled, made.dropped) == (0, ())


def test_filling_a_hole_spares_the_object_in_it(session):
    session.store.data[2, 2] = 7
    session.note_label(7)
    session.policy = LabelPolicy(protect=False, fill_holes=True, min_part=3)
    commit_mask(session, RING)
    assert session.store.data[2, 2] == 7
    assert session.store.data[1, 1] == 8


def test_parts_that_protection_leaves_are_small_parts_too(session):
    session.store.data[:, 1] = 7
    session.note_label(7)
    session.policy = LabelPolicy(min_part=4)
    made = commit_mask(session, ("#####", "#####"))
    assert made.dropped == (2,)
    assert made.area == 6


def test_largest_part_is_kept_however_small(session):
    session.policy = LabelPolicy(min_part=100)
    assert commit_mask(session, ("##.#",)).area == 2


# ---------------------------------------------------------------- review


def reviewed():
    session = AnnotationSession(ArrayLabels(np.zeros((2, 16, 16), np.uint8)))
    for z, x, confidence in ((1, 4, 0.9), (0, 4, 0.4), (0, 11, 0.7)):
        plane = PlaneKey((1, 2), (z,))
        session.set_clicks(plane, ((1, x), (4, x - 3), (7, x), (4, x + 3)))
        request = session.request()
        session.receive(request, replace(predict(request.draft, (16, 16)), confidence=confidence))
        session.commit()
    session.classify(2, "nucleus")
    return session


def test_lines_of_a_review_list_and_the_most_uncertain_of_them():
    session = reviewed()
    rows = [row_of(session.objects[label]) for label in (1, 2, 3)]
    assert [(row.label, row.plane.index, row.confidence) for row in rows] == [
        (1, (1,), 0.9),
        (2, (0,), 0.4),
        (3, (0,), 0.7),
    ]
    assert all((row.planes, row.prompts) == (1, 4) for row in rows)
    assert [row.area for row in rows] == [session.objects[n].area for n in (1, 2, 3)]
    assert [most_uncertain(rows, seen) for seen in ((), {2}, {1, 2, 3})] == [2, 3, None]
    assert most_uncertain([]) is None
    assert class_names(session.objects) == {2: "nucleus"}


def test_prompts_of_all_objects_survive_a_table(tmp_path):
    session = reviewed()
    session.reopen(1)
    session.add_correction(Correction((1, 4), (2.5, 4)))
    answer(session)
    session.commit()
    session.merge([2, 3])
    prompts, left_out = object_prompts(session.objects)
    write_prompts(tmp_path / "prompts.csv", prompts)
    assert read_prompts(tmp_path / "prompts.csv") == prompts
    assert [(one.label, one.index, len(one.corrections)) for one in prompts] == [(1, (1,), 1), (2, (0,), 0)]
    assert not left_out


def test_prompts_in_turned_planes():
    session = AnnotationSession(ArrayLabels(np.zeros((16, 16, 16), np.uint8)))
    outline(session, [(2, 6), (6, 3), (10, 6), (6, 9)], PlaneKey((2, 1), (3,)))
    session.commit()
    outline(session, DIAMOND, PlaneKey((0, 2), (3,)))
    session.commit()
    prompts, left_out = object_prompts(session.objects)
    assert [one.prompt.points for one in prompts] == [((6, 2), (3, 6), (6, 10), (9, 6))]
    assert left_out == [2]


# ---------------------------------------------------------------- planes, masks and actions as data


@pytest.mark.parametrize(("axes", "index"), [((1, 2), (0,)), ((0, 2), (5,)), ((2, 1), (2,)), ((2, 0), (7,))])
def test_plane_key_reads_and_writes_the_plane_it_names(axes, index):
    data = np.arange(3 * 16 * 12, dtype=np.uint16).reshape(3, 16, 12)
    plane, store = PlaneKey(axes, index), ArrayLabels(data)
    other = next(a for a in range(3) if a not in axes)
    expected = np.take(data, index[0], axis=other)
    if axes[0] > axes[1]:
        expected = expected.T
    np.testing.assert_array_equal(store.read(plane, slice(0, 2), slice(1, 3)), expected[0:2, 1:3])
    where = np.array([[True, False], [False, True]])
    store.write(plane, slice(0, 2), slice(1, 3), where, 60000)
    assert plane.shape(data.shape) == expected.shape
    assert (data == 60000).sum() == 2
    np.testing.assert_array_equal(store.read(plane, slice(0, 2), slice(1, 3)) == 60000, where)


@given(st.integers(0, 9), st.integers(1, 11), st.integers(0, 2**32 - 1))
def test_packed_mask_round_trip(height, width, seed):
    mask = ObjectMask(np.random.default_rng(seed).random((height, width)) < 0.5, (3, -2))
    again = PackedMask.pack(mask).unpack()
    np.testing.assert_array_equal(again.mask, mask.mask)
    assert again.origin == mask.origin


def test_pixel_edit_leaves_equal_pixels_out():
    store = ArrayLabels(np.array([[0, 2], [2, 0]], np.uint8))
    edit = PixelEdit.plan(store, PLANE, ObjectMask(np.ones((2, 2), bool), (0, 0)), 2)
    assert edit.pixels.unpack().area == 2


def test_actions_survive_json(session):
    outline(session)
    session.add_correction(Correction((2, 6), (4, 6)))
    answer(session)
    session.commit()
    session.classify(1, "nucleus")
    session.reopen(1)
    session.commit()
    session.split(1, ObjectMask(np.ones((3, 16), bool), (5, 0)))
    session.merge([2, 1])
    session.delete(2)
    lines = [json.dumps(action_to_json(a)) for a in session.actions]
    assert tuple(action_from_json(json.loads(line)) for line in lines) == session.actions
    assert {a.kind for a in session.actions} == {
        "draft", "commit", "classify", "reopen", "split", "merge", "delete"
    }  # fmt: skip
    with pytest.raises(ValueError, match="'transmute'"):
        action_from_json({"kind": "transmute"})


# ---------------------------------------------------------------- anything, in any order

coordinates = st.tuples(st.integers(-4, 26).map(float), st.integers(-4, 22).map(float))
planes = st.sampled_from([PlaneKey((1, 2), (z,)) for z in range(3)] + [PlaneKey((0, 2), (5,)), PlaneKey((2, 1), (1,))])


def labels_of(session):
    store = session.store
    return store.data if isinstance(store, ArrayLabels) else store.layer.data


def state_of(session):
    return labels_of(session).tobytes(), session.draft, tuple(sorted(session.objects.items()))


def whole_state(session):
    return state_of(session), session.actions, session.undone, session.policy, session.next_label


def plane_of(data, plane):
    return plane.flat(data[plane.key(slice(None), slice(None))])


class Annotating(RuleBasedStateMachine):
    """Random work; undoing all of it must give the start back, bit by bit, and its record the session."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.start = np.where(rng.random(SHAPE) < 0.3, rng.integers(1, 5, SHAPE), 0).astype(np.uint8)
        self.session = AnnotationSession(self.store(self.start.copy()), largest=4)
        self.recorded = []
        self.session.recorder = lambda entry: self.recorded.append(json.dumps(entry))
        self.states = [state_of(self.session)]  # after each action, to compare undo and redo with

    def store(self, labels):
        return ArrayLabels(labels)

    @property
    def labels(self):
        return labels_of(self.session)

    def note(self):
        """After a rule: at most one action was added, and nothing changed without one."""
        count = len(self.session.actions)
        if count == len(self.states):
            self.states.append(state_of(self.session))
        assert len(self.states) == count + 1
        assert state_of(self.session) == self.states[-1]

    def some_labels(self, data):
        labels = st.sampled_from(sorted(self.session.objects))
        return data.draw(st.lists(labels, min_size=1, max_size=3, unique=True))

    def some_label(self, data):
        return data.draw(st.sampled_from(sorted(self.session.objects)))

    @rule(plane=planes, point=coordinates)
    def click(self, plane, point):
        draft = self.session.draft
        if (draft.clicks or draft.label) and draft.plane != plane:
            with pytest.raises(ValueError, match="another plane"):
                self.session.add_click(plane, point)
            return
        self.session.add_click(plane, point)
        self.note()

    @rule(plane=planes, points=st.lists(coordinates, min_size=4, max_size=6, unique=True))
    def outline(self, plane, points):
        self.session.set_clicks(self.session.draft.plane or plane, points)
        self.note()

    @rule(plane=planes, corners=st.lists(coordinates, min_size=2, max_size=2, unique=True))
    def box(self, plane, corners):
        self.session.set_box(self.session.draft.plane or plane, corners)
        self.note()

    @precondition(lambda self: self.session.draft.clicks)
    @rule(data=st.data())
    def remove_click(self, data):
        clicks = list(self.session.draft.clicks)
        del clicks[data.draw(st.integers(0, len(clicks) - 1))]
        self.session.set_clicks(self.session.draft.plane, clicks)
        self.note()

    @precondition(lambda self: self.session.draft.clicks and not self.session.draft.missing)
    @rule(start=coordinates, end=coordinates)
    def drag(self, start, end):
        if start != end:
            self.session.add_correction(Correction(start, end))
            self.note()

    @precondition(lambda self: self.session.draft.clicks and not self.session.draft.missing)
    @rule(start=coordinates, end=coordinates, comes=st.booleans())
    def foresee(self, start, end, comes):
        if start == end or (request := self.session.foresee(Correction(start, end))) is None:
            return
        made = predict(request.draft, request.draft.plane.shape(self.session.store.shape), untidy=True)
        assert self.session.receive(request, made)
        self.note()  # nothing happened
        if comes:
            self.session.add_correction(Correction(start, end))
            assert self.session.preview is made
            self.note()

    @rule(steps=st.integers(0, 3))
    def evolve(self, steps):
        before = len(self.session.actions)
        self.session.set_evolution(EvolutionSettings(steps=steps) if steps else None)
        count = len(self.session.actions)
        if count < before:  # back where the settings were before they were turned
            assert state_of(self.session) == self.states[count]
        del self.states[count:]  # settings that follow each other are one action
        self.note()

    @rule()
    def predict(self):
        answer(self.session, untidy=True)
        self.note()

    @rule(data=st.data(), plane=planes, top=st.integers(0, 20), left=st.integers(0, 16), seed=st.integers(0, 9))
    def brush(self, data, plane, top, left, seed):
        """Strokes of several steps and values, over objects, what was there before, and earlier strokes."""
        strokes, rng = [], np.random.default_rng(seed)
        for shift in range(data.draw(st.integers(1, 3))):
            value = data.draw(st.sampled_from([0, 3, 7, *self.session.objects]))
            rows, columns = slice(top + shift, top + shift + 3), slice(left, left + 4)
            before = self.session.store.read(plane, rows, columns).copy()
            where = (rng.random(before.shape) < 0.8) & (before != value)
            if where.any():
                self.session.store.write(plane, rows, columns, where, value)
                strokes.append((plane, ObjectMask(where, (rows.start, left)), before[where], value))
        self.session.note_painted(strokes)
        self.note()

    @rule(data=st.data(), plane=planes, run=st.sampled_from("ab"), seed=st.integers(0, 9))
    def carry(self, data, plane, run, seed):
        """A part of a run; it stands before what was done since the last one, as if that had come later."""
        before, actions, rng = self.labels.copy(), self.session.actions, np.random.default_rng(seed)
        here = np.array(plane_of(before, plane))
        values = data.draw(st.lists(st.sampled_from([0, 3, 7, *self.session.objects]), min_size=1, max_size=2))
        after = np.where(rng.random(here.shape) < 0.3, rng.choice(values, here.shape), here).astype(np.uint8)
        edit = PixelEdit.of_window(plane, (0, 0), here, after)
        self.session.carry(run, [] if edit is None else [edit])
        if len(self.session.actions) > len(actions):
            place, changed, now = place_in(actions, run, run_of), self.labels != before, self.labels.copy()

            def written(state):
                labels = np.where(changed, now, np.frombuffer(state[0], np.uint8).reshape(SHAPE))
                return labels.tobytes(), *state[1:]

            self.states[place + 1 :] = map(written, self.states[place:])
        self.note()

    @precondition(lambda self: self.session.can_undo)
    @rule(data=st.data(), plane=planes, run=st.sampled_from("ab"), seed=st.integers(0, 9))
    def undo_and_carry_and_redo(self, data, plane, run, seed):
        self.undo()
        self.carry(data, plane, run, seed)
        count = len(self.session.actions)
        if self.session.redo() is not None and len(self.session.actions) == count + 1:  # a run may be several
            self.note()
        else:
            while len(self.session.actions) > count:
                self.session.undo()

    @rule()
    def clear(self):
        before = self.labels.copy(), dict(self.session.objects)
        self.session.clear()
        assert self.session.draft == Draft()
        assert self.session.objects == before[1]
        np.testing.assert_array_equal(self.labels, before[0])
        self.note()

    @rule(protect=st.booleans(), fill_holes=st.booleans(), min_part=st.sampled_from([0, 2, 5]))
    def choose_policy(self, protect, fill_holes, min_part):
        self.session.policy = LabelPolicy(protect=protect, fill_holes=fill_holes, min_part=min_part)
        self.note()

    @rule(places=st.lists(st.tuples(planes, coordinates), min_size=1, max_size=4, unique=True))
    def several_objects(self, places):
        self.clear()
        for plane, (y, x) in places:
            self.session.set_clicks(plane, [(y - 3, x), (y, x - 4), (y + 3, x), (y, x + 4)])
            self.note()
            answer(self.session, untidy=True)
            self.commit()
            self.clear()

    @precondition(lambda self: self.session.preview is not None)
    @rule()
    def commit(self):
        session, before, former = self.session, self.labels.copy(), self.session.reopened
        plane, label, protect = session.draft.plane, session.next_label, session.protect
        try:
            made = session.commit()
        except ValueError:
            np.testing.assert_array_equal(self.labels, before)
            return
        changed = self.labels != before
        piece = next(piece for piece in made.pieces if piece.plane == plane)
        if former is None:
            assert made.label == label
            assert changed.sum() == made.area > 0
            assert (self.labels[changed] == made.label).all()
        else:
            assert made.label == former.label
            assert set(np.unique(self.labels[changed])) <= {0, made.label}
            assert (plane_of(self.labels, plane) == made.label).sum() >= piece.area  # more, if painted beside
        assert not (protect and not np.isin(before[changed], (0, made.label)).all())
        self.note()

    @precondition(lambda self: self.session.objects)
    @rule(data=st.data())
    def reopen(self, data):
        before = self.labels.copy()
        made = self.session.objects[self.some_label(data)]
        piece = data.draw(st.sampled_from(made.pieces))
        self.session.reopen(made.label, piece.plane)
        assert self.session.draft.unlabelled == piece.draft
        assert self.session.reopened is made
        np.testing.assert_array_equal(self.labels, before)
        self.note()

    @precondition(lambda self: self.session.objects)
    @rule(data=st.data(), shift=st.integers(-2, 2))
    def correct(self, data, shift):
        self.reopen(data)
        draft = self.session.draft
        self.session.set_clicks(draft.plane, [(y + shift, x) for y, x in draft.clicks], draft.kind)
        self.note()
        answer(self.session, untidy=True)
        if self.session.preview is not None:
            self.commit()

    @precondition(lambda self: self.session.objects)
    @rule(data=st.data())
    def delete(self, data):
        chosen = self.some_labels(data)
        gone = self.session.delete_all(chosen)
        assert [one.label for one in gone] == chosen
        assert not np.isin(self.labels, chosen).any()
        self.note()

    @precondition(lambda self: len(self.session.objects) > 1)
    @rule(data=st.data())
    def merge(self, data):
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.session.objects)), min_size=2, max_size=3, unique=True))
        before, prompts = self.labels.copy(), [p for c in chosen for p in self.session.objects[c].prompts]
        if len({self.session.objects[c].plane.axes for c in chosen}) > 1:
            with pytest.raises(ValueError, match="turned planes"):
                self.session.merge(chosen)
            return
        made = self.session.merge(chosen)
        assert made.label == chosen[0]
        assert not set(chosen[1:]) & set(self.session.objects)
        assert set(made.prompts) == set(prompts)
        expected = np.where(np.isin(before, chosen), chosen[0], before)
        np.testing.assert_array_equal(self.labels, expected)
        self.note()

    @precondition(lambda self: self.session.objects)
    @rule(data=st.data(), by_mask=st.booleans(), top=st.integers(0, 20), left=st.integers(0, 16))
    def split(self, data, by_mask, top, left):
        before, label = self.labels.copy(), self.some_label(data)
        made, first = self.session.objects[label], self.session.next_label
        plane = data.draw(st.sampled_from(made.pieces)).plane
        mask = ObjectMask(np.ones((6, 8), bool), (top, left)) if by_mask else None
        try:
            found = self.session.split(label, mask, plane)
        except ValueError:
            np.testing.assert_array_equal(self.labels, before)
            return
        labels = [one.label for one in found]
        assert labels == [label, *range(first, first + len(found) - 1)]
        np.testing.assert_array_equal(np.isin(self.labels, labels), before == label)
        np.testing.assert_array_equal(np.where(before == label, 0, self.labels), np.where(before == label, 0, before))
        assert all((self.labels == one).any() for one in labels)
        self.note()

    @precondition(lambda self: self.session.objects)
    @rule(data=st.data(), name=st.sampled_from(["", "nucleus", "Zelle"]))
    def classify(self, data, name):
        chosen = self.some_labels(data)
        self.session.classify_all(chosen, name)
        assert {self.session.objects[label].class_name for label in chosen} == {name}
        self.note()

    @rule()
    def undo(self):
        if self.session.undo() is not None:
            del self.states[len(self.session.actions) + 1 :]  # several if it was a run
            assert state_of(self.session) == self.states[-1]

    @rule(steps=st.integers(1, 5))
    def undo_and_redo(self, steps):
        done = sum(self.session.undo() is not None for _ in range(steps))
        for _ in range(done):
            self.session.redo()
        assert state_of(self.session) == self.states[-1]

    @rule(seed=st.integers(0, 9))
    def restore(self, seed):
        """From labels that are partly as they were earlier, as an interrupted write leaves them."""
        rng = np.random.default_rng(seed)
        earlier = np.stack([np.frombuffer(s[0], np.uint8).reshape(SHAPE) for s in self.states[-20:]])
        mixed = np.take_along_axis(earlier, rng.integers(0, len(earlier), (1, *SHAPE)), 0)[0]
        for labels, write in ((self.start.copy(), True), (mixed, True), (self.labels.copy(), False)):
            again = AnnotationSession(ArrayLabels(labels), largest=4)
            for entry in self.recorded:
                again.repeat(json.loads(entry), write=write)
            assert whole_state(again) == whole_state(self.session)

    @invariant()
    def same_label_is_never_used_twice(self):
        assert self.session.next_label not in self.labels

    @invariant()
    def object_in_progress_is_there(self):
        label = self.session.draft.label
        assert label is None or self.session.reopened.label == label

    def teardown(self):
        self.restore(0)
        end, actions = state_of(self.session), self.session.actions
        replayed = ArrayLabels(self.start.copy())
        for action in actions:
            for edit in action_from_json(json.loads(json.dumps(action_to_json(action)))).pixels:
                edit.do(replayed)
        np.testing.assert_array_equal(replayed.data, self.labels)
        while self.session.undo() is not None:
            pass
        np.testing.assert_array_equal(self.labels, self.start)
        assert self.session.draft == Draft()
        assert not self.session.objects
        while len(self.session.actions) < len(actions):  # a run is one step of several
            self.session.redo()
        assert state_of(self.session) == end


Annotating.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestAnnotating = Annotating.TestCase


def test_time_of_one_more_object_does_not_grow_with_their_number():
    session = AnnotationSession(ArrayLabels(np.zeros((64, 64), np.uint32)), protect=False)
    for _ in range(2000):
        session._predictions[Draft(PLANE, DIAMOND)] = Ellipse(ObjectMask(np.ones((3, 3), bool), (5, 5)))
        session._draft = Draft(PLANE, DIAMOND)
        session.commit()
    assert session.next_label == 2001
    assert sum(isinstance(a, Commit) for a in session.actions) == 2000
    while session.undo() is not None:
        pass
    assert not session.store.data.any()


def test_a_further_object_takes_as_long_as_the_first_ones():
    count, side = 4000, 5
    session = AnnotationSession(ArrayLabels(np.zeros((400, 400), np.uint16)))
    spent = []
    for number in range(count):
        y, x = side * (number // 80), side * (number % 80)
        begun = time.thread_time()
        session.set_clicks(PLANE, [(y, x + 1), (y + 1, x), (y + 2, x + 1), (y + 1, x + 2)])
        session.receive(session.request(), Ellipse(ObjectMask(np.ones((3, 3), bool), (y, x))))
        session.commit()
        spent.append(time.thread_time() - begun)
    assert session.next_label == count + 1
    # Work that grows with their number would make it some twelve times as long; noise is left out of the question.
    assert np.median(spent[-400:]) < 4 * np.median(spent[100:500])


def test_the_next_label_follows_the_largest_object(session):
    for _ in range(3):
        outline(session)
        session.policy = LabelPolicy(protect=False)
        session.commit()
    assert session.next_label == 4
    session.delete(3)
    session.delete(1)
    assert session.next_label == 3
    session.undo()
    session.undo()
    assert session.next_label == 4
    session.note_label(9)
    assert session.next_label == 10
