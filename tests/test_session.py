import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from napari_delse.actions import (
    ArrayLabels,
    Commit,
    Draft,
    PackedMask,
    PixelEdit,
    PlaneKey,
    action_from_json,
    action_to_json,
)
from napari_delse.geometry import Correction, Crop, ObjectMask
from napari_delse.session import AnnotationSession

SHAPE = (3, 24, 20)
PLANE = PlaneKey()
DIAMOND = ((2.0, 6.0), (6.0, 2.0), (10.0, 6.0), (6.0, 10.0))


@dataclass(frozen=True)
class Ellipse:
    """Stands in for a prediction: the ellipse in the box of the clicks, moved by the drags."""

    mask: ObjectMask
    corrections: tuple = ()
    confidence: float = 0.9


def predict(draft, shape):
    y0, x0, y1, x1 = draft.prompt().box
    dy = sum(c.end[0] - c.start[0] for c in draft.corrections)
    dx = sum(c.end[1] - c.start[1] for c in draft.corrections)
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    ry, rx = max((y1 - y0) / 2, 0.5), max((x1 - x0) / 2, 0.5)
    inside = ((ys - (y0 + y1) / 2 - dy) / ry) ** 2 + ((xs - (x0 + x1) / 2 - dx) / rx) ** 2 <= 1
    return Ellipse(ObjectMask.from_crop(inside, Crop(0, 0, *shape, 32), shape), draft.corrections)


def answer(session):
    """What a worker does; True when something was predicted."""
    request = session.request()
    if request is None:
        return False
    return session.receive(request, predict(request.draft, request.draft.plane.shape(session.store.shape)))


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
planes = st.sampled_from(
    [PlaneKey((1, 2), (0,)), PlaneKey((1, 2), (2,)), PlaneKey((0, 2), (5,)), PlaneKey((2, 1), (1,))]
)


class Annotating(RuleBasedStateMachine):
    """Random work; undoing all of it must give the start back, bit by bit."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.start = np.where(rng.random(SHAPE) < 0.3, rng.integers(1, 5, SHAPE), 0).astype(np.uint8)
        self.session = AnnotationSession(ArrayLabels(self.start.copy()), largest=4)
        self.states = [self.state()]  # after each action, to compare undo and redo with

    def state(self):
        s = self.session
        return s.store.data.tobytes(), s.draft, tuple(sorted(s.objects)), s.next_label

    def note(self):
        """After a rule: at most one action was added."""
        count = len(self.session.actions)
        if self.state() != self.states[-1]:
            del self.states[count:]
            self.states.append(self.state())
        assert len(self.states) == count + 1

    @rule(plane=planes, point=coordinates)
    def click(self, plane, point):
        draft = self.session.draft
        if draft.clicks and draft.plane != plane:
            with pytest.raises(ValueError, match="another plane"):
                self.session.add_click(plane, point)
            return
        self.session.add_click(plane, point)
        self.note()

    @rule(plane=planes, points=st.lists(coordinates, min_size=4, max_size=6, unique=True))
    def outline(self, plane, points):
        if self.session.draft.clicks:
            plane = self.session.draft.plane
        self.session.set_clicks(plane, points)
        self.note()

    @rule(plane=planes, corners=st.lists(coordinates, min_size=2, max_size=2, unique=True))
    def box(self, plane, corners):
        self.session.set_box(plane, corners)
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

    @rule()
    def predict(self):
        answer(self.session)
        self.note()

    @rule()
    def clear(self):
        self.session.clear()
        self.note()

    @precondition(lambda self: self.session.preview is not None)
    @rule(protect=st.booleans())
    def commit(self, protect):
        self.session.protect = protect
        before = self.session.store.data.copy()
        try:
            made = self.session.commit()
        except ValueError:
            np.testing.assert_array_equal(self.session.store.data, before)
            return
        changed = self.session.store.data != before
        assert changed.sum() == made.area > 0
        assert (self.session.store.data[changed] == made.label).all()
        assert not (protect and before[changed].any())
        self.note()

    @precondition(lambda self: self.session.objects)
    @rule(data=st.data())
    def delete(self, data):
        label = data.draw(st.sampled_from(sorted(self.session.objects)))
        self.session.delete(label)
        assert label not in self.session.store.data
        self.note()

    @rule()
    def undo(self):
        if self.session.undo() is not None:
            self.states.pop()
            assert self.state() == self.states[-1]

    @rule(steps=st.integers(1, 5))
    def undo_and_redo(self, steps):
        done = sum(self.session.undo() is not None for _ in range(steps))
        for _ in range(done):
            self.session.redo()
        assert self.state() == self.states[-1]

    @invariant()
    def same_label_is_never_used_twice(self):
        assert self.session.next_label not in self.session.store.data

    def teardown(self):
        actions = [json.loads(json.dumps(action_to_json(a))) for a in self.session.actions]
        end = self.session.store.data.copy()
        replayed = ArrayLabels(self.start.copy())
        for action in map(action_from_json, actions):
            for edit in action.pixels:
                edit.do(replayed)
        np.testing.assert_array_equal(replayed.data, end)
        while self.session.undo() is not None:
            pass
        np.testing.assert_array_equal(self.session.store.data, self.start)
        assert self.session.draft == Draft()
        assert not self.session.objects
        for _ in actions:
            self.session.redo()
        np.testing.assert_array_equal(self.session.store.data, end)


Annotating.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
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
