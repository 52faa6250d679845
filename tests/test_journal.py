"""Journals: written before anything happens, whole after any crash, and good for making the labels anew."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from napari_delse.annotation import journal as journals
from napari_delse.annotation.edits import ArrayLabels, PlaneKey
from napari_delse.annotation.journal import Identity, Journal, read, restore, start, unfinished
from napari_delse.annotation.policy import LabelPolicy
from napari_delse.annotation.records import line_of
from napari_delse.annotation.replay import other_weights, predict_draft, rebuild, replay
from napari_delse.annotation.session import AnnotationSession
from napari_delse.evolution import EvolutionSettings
from napari_delse.geometry import Correction, Crop, ObjectMask

SHAPE = (3, 48, 40)
ODDS = {
    "outline": 8,
    "drag": 3,
    "commit": 8,
    "undo": 4,
    "redo": 3,
    "delete": 1,
    "merge": 1,
    "split": 1,
    "reopen": 2,
    "evolve": 2,
    "paint": 2,
}


@dataclass(frozen=True)
class Found:
    mask: ObjectMask
    confidence: float = 0.8


def predict(draft):
    """Stands in for a model: the ellipse in the box of the clicks, moved by the drags."""
    y0, x0, y1, x1 = draft.prompt().box
    dy = sum(c.end[0] - c.start[0] for c in draft.corrections)
    ys, xs = np.mgrid[: SHAPE[1], : SHAPE[2]]
    distance = ((ys - (y0 + y1) / 2 - dy) / ((y1 - y0) / 2)) ** 2 + ((xs - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2
    inside = distance <= 1 - (0 if draft.evolution is None else draft.evolution.threshold)
    return Found(ObjectMask.from_crop(inside, Crop(0, 0, *SHAPE[1:], 32), SHAPE[1:]))


def answer(session):
    request = session.request()
    if request is not None:
        session.receive(request, predict(request.draft))


def act(session, rng):
    """Something that a person may do."""
    what = rng.choices(list(ODDS), ODDS.values())[0]
    labels = sorted(session.objects)
    try:
        if what == "outline":
            y, x, ry, rx = rng.randint(2, 45), rng.randint(2, 37), rng.randint(2, 9), rng.randint(2, 9)
            plane = session.draft.plane or PlaneKey((1, 2), (rng.randint(0, 2),))
            session.set_clicks(plane, ((y - ry, x), (y, x - rx), (y + ry, x), (y, x + rx)))
        elif what == "drag":
            session.add_correction(Correction((5, 5), (5 + rng.choice([-2, 2]), 5)))
        elif what == "commit":
            answer(session)
            session.protect = rng.random() < 0.7
            session.commit()
        elif what == "merge":
            session.merge(rng.sample(labels, min(2, len(labels))))
        elif what == "evolve":
            session.set_evolution(
                rng.choice([None, EvolutionSettings(steps=rng.randint(0, 8), dt=1 / 3, threshold=0.2)])
            )
        elif what == "paint":
            plane, value = PlaneKey((1, 2), (rng.randint(0, 2),)), rng.choice([0, *labels])
            rows, columns = (slice(start, start + 6) for start in (rng.randint(0, 30), rng.randint(0, 30)))
            old = session.store.read(plane, rows, columns).copy()
            where = old != value
            session.store.write(plane, rows, columns, where, value)
            if where.any():
                session.note_painted([(plane, ObjectMask(where, (rows.start, columns.start)), old[where], value)])
        elif what in ("undo", "redo"):
            getattr(session, what)()
        elif labels:
            getattr(session, what)(rng.choice(labels))
    except ValueError:  # nothing to commit, nothing to split: people try that too
        pass


def blank():
    return ArrayLabels(np.zeros(SHAPE, np.uint16))


def state(session):
    return (
        session.store.data.tobytes(),
        session.draft,
        session.objects,
        session.actions,
        session.undone,
        session.next_label,
        session.policy,
    )


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_DELSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def image():
    return Identity.of(np.arange(np.prod(SHAPE)).reshape(SHAPE), "cells")


def worked(image, steps=40, seed=0, **options):
    session = AnnotationSession(blank())
    start(session, image, sync="never", **options)
    rng = random.Random(seed)
    for _ in range(steps):
        act(session, rng)
    return session


# ---------------------------------------------------------------- writing and restoring


def test_restored_session_equals_the_live_one_at_any_point(image):
    session, rng = AnnotationSession(blank()), random.Random(1)
    start(session, image, sync="never")
    for _ in range(150):
        act(session, rng)
        again = restore(session.recorder.path, blank(), resume=False)
        assert state(again) == state(session)
        assert again.recorder is None
    assert len(session.actions) > 20


def test_entry_is_written_before_it_shows(image):
    session = AnnotationSession(blank())
    start(session, image)
    seen = []
    writing = session.recorder

    def check(entry):
        writing(entry)
        seen.append((len(read(writing.path).entries), len(session.actions)))

    session.recorder = check
    session.set_box(PlaneKey((1, 2), (0,)), [(2, 2), (9, 9)])
    answer(session)
    session.commit()
    assert seen == [(1, 0), (2, 1)]


def test_work_goes_on_in_the_same_journal(image):
    session = worked(image)
    path = session.recorder.path
    session.recorder.abandon()
    again = restore(path, blank())
    rng = random.Random(9)
    for _ in range(30):
        act(again, rng)
    again.recorder.abandon()
    assert state(restore(path, blank())) == state(again)


def test_journal_begun_late_holds_what_was_done_before(image):
    session, rng = AnnotationSession(blank()), random.Random(3)
    for _ in range(40):
        act(session, rng)
    session.undo()
    journal = start(session, image)
    assert state(restore(journal.path, blank(), resume=False)) == state(session)


def test_labels_that_are_there_already_need_no_writing(image):
    session = worked(image)
    array = replay(session.recorder.path).labels
    again = restore(session.recorder.path, ArrayLabels(array), write=False, resume=False)
    assert state(again) == state(session)


def test_what_could_not_be_written_is_not_restored(image):
    session = worked(image, 0)
    session.set_box(PlaneKey((1, 2), (0,)), [(2, 2), (9, 9)])
    answer(session)
    session.store.data.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        session.commit()
    again = restore(session.recorder.path, blank(), resume=False)
    assert again.actions == session.actions
    assert not again.store.data.any()


def test_brush_strokes_are_restored_with_the_objects_around_them(image):
    session, plane = worked(image, 0), PlaneKey((1, 2), (1,))
    for top in (2, 20):
        session.set_box(plane, [(top, 2), (top + 12, 14)])
        answer(session)
        session.commit()
    stroke = ObjectMask(np.ones((3, 20), bool), (6, 5))
    old = session.store.data[1][stroke.slices].copy()
    session.store.data[1][stroke.slices] = 2
    session.note_painted([(plane, stroke, old[stroke.mask], 2)])
    session.reopen(1)
    answer(session)
    session.commit()
    session.delete(2)
    session.undo()
    assert state(restore(session.recorder.path, blank(), resume=False)) == state(session)


def test_labels_and_policy_at_the_beginning_are_kept(image):
    start_labels = blank().data
    start_labels[0, :10] = 5
    session = AnnotationSession(ArrayLabels(start_labels.copy()), largest=5, policy=LabelPolicy(min_part=3))
    journal = start(session, image)
    session.set_box(PlaneKey((1, 2), (0,)), [(2, 2), (19, 19)])
    answer(session)
    assert session.commit().label == 6
    with pytest.raises(ValueError, match="give these too"):
        replay(journal.path)
    found = replay(journal.path, start_labels.copy())
    np.testing.assert_array_equal(found.labels, session.store.data)
    assert found.session.policy == LabelPolicy(min_part=3)
    with pytest.raises(ValueError, match="of shape"):
        replay(journal.path, start_labels[:2])
    with pytest.raises(ValueError, match="open the image that it was made with"):
        restore(journal.path, ArrayLabels(start_labels[:2]), resume=False)


def test_full_disk_stops_the_action_and_leaves_the_journal_whole(image, monkeypatch):
    session = worked(image)
    path, before, following = session.recorder.path, session.recorder.path.read_bytes(), session.next_label
    write = os.write

    def half(file, data):
        if len(data) > 20:
            return write(file, data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals.os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        session.note_label(999)
    assert session.next_label == following
    assert path.read_bytes() == before
    monkeypatch.undo()
    session.note_label(999)
    assert read(path).entries[-1]["label"] == 999


# ---------------------------------------------------------------- torn and damaged files


def test_journal_cut_anywhere_in_its_last_lines_is_restored_to_the_line_before(image, tmp_path):
    session = worked(image, 60)
    data = session.recorder.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    counts = [len(read(session.recorder.path).entries) - 3 + i for i in range(4)]
    cut = tmp_path / f"cut{journals.SUFFIX}"
    for size in range(ends[-4], len(data) + 1):
        cut.write_bytes(data[:size])
        whole = sum(end <= size + 1 for end in ends) - 1  # a line without its line end is whole
        contents = read(cut)
        assert len(contents.entries) == whole
        assert contents.torn == (size not in ends and size + 1 not in ends)
    for number, end in zip(counts, ends[-4:], strict=True):
        cut.write_bytes(data[: end + 7])
        again = restore(cut, blank())
        again.add_click(again.draft.plane or PlaneKey((1, 2), (0,)), (1.0, 1.0))
        again.recorder.close()
        contents = read(cut)
        assert (contents.torn, contents.closed, len(contents.entries)) == (False, True, number + 3)
        cut.unlink()


def test_line_without_its_end_is_gone_on_from(image, tmp_path):
    path = worked(image).recorder.path
    cut = tmp_path / f"cut{journals.SUFFIX}"
    cut.write_bytes(path.read_bytes()[:-1])
    count = len(read(cut).entries)
    restore(cut, blank()).recorder.close()
    assert len(read(cut).entries) == count + 2


@pytest.mark.parametrize("damage", ["flip", "remove", "swap"])
def test_damage_before_the_end_is_one_error_that_names_the_line(image, tmp_path, damage):
    lines = worked(image).recorder.path.read_bytes().splitlines(keepends=True)
    if damage == "flip":
        lines[4] = lines[4].replace(b'"step"', b'"stop"')
    elif damage == "remove":
        del lines[4]
    else:
        lines[4], lines[5] = lines[5], lines[4]
    broken = tmp_path / "broken.delse.jsonl"
    broken.write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match=r"broken.delse.jsonl, line 5: .* cut the file before it"):
        read(broken)


def test_other_files_are_no_journals(tmp_path):
    for content in (b"", b"\n", b'{"a": 1}\n', b"\x00" * 100):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match="not a journal"):
            read(tmp_path / "x")


def test_newer_format_is_refused(image, tmp_path):
    line = worked(image, 0).recorder.path.read_bytes().splitlines()[0]
    body = line[18:].replace(b'"format":1', b'"format":2')
    newer = tmp_path / "newer.jsonl"
    newer.write_bytes(b'{"crc":"%08x",' % zlib.crc32(b"{" + body) + body + b"\n")
    with pytest.raises(ValueError, match="format 2, expected 1; update"):
        read(newer)


def test_every_line_is_json(image):
    for number, line in enumerate(worked(image).recorder.path.read_text().splitlines()):
        assert json.loads(line)["n"] == number


# ---------------------------------------------------------------- unfinished journals, locks


def test_unfinished_work_is_found_until_it_is_closed(image, tmp_path):
    session = worked(image)
    other = Identity.of(np.zeros(SHAPE), "other")
    assert unfinished(image) == []  # being written
    session.recorder.abandon()
    (found,) = unfinished(image)
    assert found.path == session.recorder.path.resolve()
    assert found.header.image == image
    assert unfinished(other) == []
    assert len(unfinished()) == 1
    again = restore(found.path, blank())
    assert unfinished(image) == []
    again.recorder.close()
    assert unfinished(image) == []
    assert read(found.path).closed


def test_unfinished_work_is_found_beside_a_renamed_image(tmp_path):
    data = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    place = tmp_path / "data"
    session = worked(Identity.of(data, "old", place / "old.tif"), path=place)
    session.recorder.abandon()
    (found,) = unfinished(Identity.of(data, "new", place / "new.tif"))
    assert found.path.parent == place
    assert unfinished() == []
    assert len(unfinished(folders=[place])) == 1


def test_journals_without_work_are_neither_offered_nor_kept(image, home):
    session = worked(image, 0)
    session.recorder.abandon()
    assert unfinished(image) == []
    worked(image, 0).recorder.close()
    worked(image, 20).recorder.close(keep=False)
    assert len(list(home.rglob("*.jsonl"))) == 1


def test_unreadable_files_beside_journals_are_passed_over(image, home):
    worked(image).recorder.abandon()
    (home / "journals" / f"foreign{journals.SUFFIX}").write_bytes(b"nothing of ours")
    (home / "journals" / f"empty{journals.SUFFIX}").touch()
    unreadable = []
    assert len(unfinished(image, (), unreadable)) == 1
    assert unreadable == []  # nothing was lost in these


def test_why_unfinished_work_cannot_be_read_is_said_unless_it_was_closed(image):
    kept, closed = worked(image).recorder, worked(image).recorder
    kept.abandon()
    closed.close()
    for path in (kept.path, closed.path):
        path.write_bytes(b"\0" * 20 + path.read_bytes()[20:])
    unreadable = []
    assert unfinished(image, (), unreadable) == []
    (error,) = unreadable
    assert str(error).startswith(f"{kept.path.resolve()} cannot be read (its first line, ")


def test_work_on_a_disk_that_may_only_be_read_is_found_and_not_gone_on_with(image, monkeypatch):
    session = worked(image)
    session.recorder.abandon()
    real = os.open

    def read_only(path, flags, *rest):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)
    (found,) = unfinished(image)
    with pytest.raises(OSError, match=r"cannot be written \(Read-only file system\); .* napari-delse replay"):
        restore(found.path, blank())


def test_two_windows_do_not_write_to_one_journal(image):
    session = worked(image)
    with pytest.raises(ValueError, match="another napari window"):
        restore(session.recorder.path, blank())
    code = "import sys; from napari_delse._filelock import is_locked; sys.exit(is_locked(sys.argv[1]))"
    ask = [sys.executable, "-c", code, str(session.recorder.path)]
    assert subprocess.run(ask, check=False).returncode == 1
    session.recorder.abandon()
    assert subprocess.run(ask, check=False).returncode == 0


def test_closed_journal_takes_nothing(image):
    session = worked(image)
    session.recorder.close()
    session.recorder.close()
    assert not session.recorder.is_open
    with pytest.raises(ValueError, match="is closed"):
        session.note_label(999)


def test_unknown_sync_is_refused(image):
    with pytest.raises(ValueError, match="sync must be"):
        start(AnnotationSession(blank()), image, sync="often")


def test_fingerprint_tells_images_apart():
    data = np.zeros((5, 300, 400), np.uint8)
    other = data.copy()
    other[2, 150, 200] = 1
    one = Identity.of(data, "a", "/data/a.tif")
    assert one.is_like(Identity.of(data.copy(), "b"))
    assert not one.is_like(Identity.of(other))
    assert not one.is_like(Identity.of(data[:, :-1]))
    assert not one.is_like(Identity.of(data.astype(np.int8)))


def test_header_names_image_model_and_version(image, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(b"weights")
    assert journals.weights_hash(tmp_path) == ""
    session = worked(image, 5, model="default", weights=journals.weights_hash(tmp_path / "m"))
    session.recorder.note_model("mine")
    header = read(session.recorder.path).header
    assert (header.model, len(header.weights), header.image, header.shape) == ("default", 64, image, SHAPE)
    assert header.version
    assert header.created.endswith("+00:00")
    assert state(restore(session.recorder.path, blank(), resume=False)) == state(session)


def test_journal_loads_neither_torch_nor_gui():
    code = "import sys, napari_delse.annotation.replay; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    assert not loaded & {"torch", "napari", "qtpy", "scipy", "skimage"}


# ---------------------------------------------------------------- replay


def test_replay_is_the_labels_bit_by_bit(image):
    session = worked(image, 80)
    found = replay(session.recorder.path)
    assert found.labels.dtype == np.uint16
    np.testing.assert_array_equal(found.labels, session.store.data)
    assert found.labels.any()


def converted(image, **options):
    """An object in uint8 labels, which are full then, and one after they were made wider."""
    session = AnnotationSession(ArrayLabels(np.zeros(SHAPE, np.uint8)), largest=254)
    start(session, image, sync="never", blank=True, **options)
    for x in (8, 24):
        session.set_clicks(PlaneKey((1, 2), (0,)), ((2, x), (6, x - 4), (10, x), (6, x + 4)))
        answer(session)
        if x == 24:
            with pytest.raises(ValueError, match="convert the labels layer to a wider type"):
                session.commit()
            session.store.data = session.store.data.astype(np.uint32)
        session.commit()
    return session


def test_work_is_restored_after_the_labels_were_converted_to_a_wider_type(image):
    session = converted(image)
    path = session.recorder.path
    assert np.dtype(read(path).header.dtype) == np.uint8
    assert read(path).dtype == np.uint32
    again = restore(path, ArrayLabels(np.zeros(SHAPE, np.uint32)), resume=False)
    assert set(np.unique(again.store.data)) == {0, 255, 256}
    assert state(again) == state(session)
    while again.can_undo:
        again.undo()
    assert not again.store.data.any()
    narrow = np.zeros(SHAPE, np.uint8)
    with pytest.raises(ValueError, match="labels of type uint32, and uint8 does not hold all of these"):
        restore(path, ArrayLabels(narrow), resume=False)
    assert not narrow.any()


@pytest.mark.parametrize("given", [None, np.uint32, np.int64])
def test_replay_makes_labels_of_the_type_that_they_were_converted_to(image, given):
    session = converted(image)
    found = replay(session.recorder.path, None if given is None else np.zeros(SHAPE, given))
    assert found.labels.dtype == (given or np.uint32)
    np.testing.assert_array_equal(found.labels, session.store.data)


@pytest.mark.parametrize("given", [np.uint8, np.uint16, np.int32])
def test_replay_refuses_labels_that_do_not_hold_all(image, given):
    path = converted(image).recorder.path
    with pytest.raises(ValueError, match="convert the labels to uint32 first"):
        replay(path, np.zeros(SHAPE, given))


def test_a_label_beyond_the_type_of_the_labels_names_its_line(image, tmp_path):
    path = converted(image).recorder.path
    lines = path.read_bytes().splitlines()
    text = json.loads(lines[-1])
    text.pop("crc")
    for edit in text["action"]["pixels"]:
        edit["dtype"] = "|u1"
    (damaged := tmp_path / "narrow.delse.jsonl").write_bytes(b"\n".join(lines[:-1]) + b"\n" + line_of(text))
    with pytest.raises(ValueError, match=rf"line {len(lines)} cannot be done again"):
        replay(damaged)


def test_same_model_gives_the_same_labels(image):
    session = worked(image, 80, seed=12)
    found = replay(session.recorder.path, predictor=predict)
    np.testing.assert_array_equal(found.labels, session.store.data)
    assert found.differences == ()
    assert found.predicted > 0


def test_another_model_is_told_from_the_first_object_by_object(image):
    session = worked(image, 0)
    plane = PlaneKey((1, 2), (0,))
    for top, left in ((2, 2), (2, 20), (25, 2)):
        session.set_box(plane, [(top, left), (top + 12, left + 12)])
        answer(session)
        session.commit()
    session.set_box(plane, [(25, 20), (37, 32)])
    answer(session)
    session.commit()
    session.merge([3, 4])

    def other(draft):
        found = predict(draft)
        if draft.prompt().box[1] == 20:
            return found
        return Found(ObjectMask(found.mask.mask[1:], found.mask.origin))

    found = replay(session.recorder.path, predictor=other)
    (difference,) = found.differences
    assert (difference.label, difference.plane, difference.problem) == (1, plane, "")
    assert 0.5 < difference.iou < 1
    assert (found.predicted, found.kept) == (2, (3,))
    np.testing.assert_array_equal(found.labels == 2, session.store.data == 2)
    np.testing.assert_array_equal(found.labels == 3, session.store.data == 3)
    assert (found.labels == 1).sum() == other(session.objects[1].draft).mask.area

    nothing = replay(session.recorder.path, predictor=lambda draft: Found(ObjectMask(np.zeros((0, 0), bool), (0, 0))))
    assert [(d.label, d.iou) for d in nothing.differences] == [(1, 0), (2, 0)]
    assert all("empty" in d.problem for d in nothing.differences)
    np.testing.assert_array_equal(nothing.labels, session.store.data)


def test_evolution_settings_are_replayed_with_the_objects_they_made(image):
    session, plane = AnnotationSession(blank()), PlaneKey((1, 2), (0,))
    start(session, image, sync="never")
    settings = EvolutionSettings(steps=7, dt=0.1 + 0.2, mu=1 / 3, threshold=0.7)
    for top, chosen in ((2, None), (25, settings)):
        session.set_evolution(chosen)
        session.set_box(plane, [(top, 2), (top + 12, 14)])
        answer(session)
        session.commit()
    assert session.objects[2].area < session.objects[1].area
    found = replay(session.recorder.path, predictor=predict)
    assert found.session.objects[1].draft.evolution is None
    assert found.session.objects[2].draft.evolution == settings  # to the last bit
    assert found.differences == ()
    np.testing.assert_array_equal(found.labels, session.store.data)


def test_journals_from_before_evolution_settings_are_replayed(image, tmp_path):
    session = worked(image, 0)
    session.set_box(PlaneKey((1, 2), (0,)), [(2, 2), (14, 14)])
    answer(session)
    session.commit()

    def without(value):
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items() if key not in ("evolution", "crc")}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    old = tmp_path / "old.delse.jsonl"
    entries = [json.loads(line) for line in session.recorder.path.read_bytes().splitlines()]
    assert any("evolution" in str(entry) for entry in entries)
    old.write_bytes(b"".join(line_of(without(entry)) for entry in entries))
    found = replay(old, predictor=predict)
    assert found.session.objects == session.objects
    assert found.differences == ()
    np.testing.assert_array_equal(found.labels, session.store.data)


def test_fields_that_are_known_need_no_network():
    class Model:
        asked = 0

        def segment(self, image, prompt, corrections, *, known=None):
            self.asked += 1
            return "fields"

        def evolve(self, fields, evolution, threshold):
            return fields, evolution, threshold

    settings, model = EvolutionSettings(steps=2, threshold=1.0), Model()
    draft = replace(AnnotationSession(blank()).draft, clicks=((2.0, 6), (6, 2), (10, 6), (6, 10)), evolution=settings)
    expected = ("fields", settings.config, 1.0)
    assert predict_draft(model, None, draft) == predict_draft(model, None, draft, "fields") == expected
    assert model.asked == 1
    assert predict_draft(model, None, replace(draft, evolution=None), "fields") == "fields"
    assert model.asked == 2  # the model's own way is what the model says


def test_other_weights_are_told_in_one_sentence(image):
    session = worked(image, 3, model="default", weights="")
    session.recorder.note_model("default", "aa")
    contents = read(session.recorder.path)
    assert other_weights(contents, "default", "aa") == other_weights(contents, "default", "") == ""
    assert "(of 'default') than those of 'mine'" in other_weights(contents, "mine", "bb")
    session.recorder.note_model("mine", "bb")
    assert "(of 'default')" in other_weights(read(session.recorder.path), "mine", "bb")
    unknown = worked(image, 3, seed=1)
    assert other_weights(read(unknown.recorder.path), "mine", "bb") == ""


def test_no_journal_can_be_begun_in_a_folder_that_is_a_file(image, tmp_path):
    (tmp_path / "data").write_text("")
    session = AnnotationSession(blank())
    with pytest.raises(OSError, match=r"exists|directory"):
        start(session, image, tmp_path / "data" / "work.delse.jsonl")
    assert session.recorder is None


# ---------------------------------------------------------------- kill -9

MOST_ACTIONS = 24  # that are waited for before a kill, however fast or slow the machine is


def digest(session):
    masks = sorted((label, made.mask.bits, made.area) for label, made in session.objects.items())
    return zlib.crc32(repr((session.store.data.tobytes(), masks, session.draft, len(session.undone))).encode())


def annotate(path, seed, report):
    """What dies: after every action, say how many lines are in the journal and what the session is."""
    session, rng = restore(path, blank(), sync="never"), random.Random(seed)
    while True:
        act(session, rng)
        os.write(report, b"%d %d\n" % (session.recorder._count, digest(session)))


def kill_often(folder, kills):
    """Kill children after a number of reported actions, at a random moment of the next one; prints what was found."""
    rng, lost, reported, torn, committed = random.Random(7), 0, 0, 0, 0
    path = None
    for number in range(kills):
        if path is None or number % 10 == 0:
            session = AnnotationSession(blank())
            journal = start(session, Identity("cells", SHAPE, "|u1"), Path(folder) / f"{number}.delse.jsonl")
            journal.abandon()
            path = journal.path
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            annotate(path, number, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            first = list(islice(pipe, rng.randint(0, MOST_ACTIONS)))  # none: it is killed while it restores
            time.sleep(rng.uniform(0, 0.002))
            os.kill(child, signal.SIGKILL)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL  # nothing else ended it
            said = [tuple(map(int, line.split())) for line in (*first, *pipe) if line.endswith(b"\n")]
        contents = read(path)
        torn += contents.torn
        if said:
            count, expected = said[-1]
            then = rebuild(replace(contents, entries=contents.entries[: count - 1]))
            lost += digest(then) != expected or len(contents.entries) + 1 < count
            reported += len(said)
            committed += len(then.objects)
        rebuild(contents)
    print(json.dumps({"lost": lost, "reported": reported, "torn": torn, "committed": committed}))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to start a hundred processes quickly")
def test_a_hundred_random_kills_lose_nothing_that_was_reported(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_journal; test_journal.kill_often(sys.argv[2], 100)"
    run = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    ended = subprocess.run(run, check=True, capture_output=True, text=True, timeout=600)
    result = json.loads(ended.stdout)
    assert result["lost"] == 0
    assert result["reported"] > 500
    assert result["committed"] > 100


def test_time_of_one_more_line_does_not_grow_with_their_number(image):
    session = worked(image, 0)
    journal: Journal = session.recorder
    times = []
    for _ in range(3000):
        before = time.perf_counter()
        journal({"step": "label", "label": 1})
        times.append(time.perf_counter() - before)
    assert np.median(times[-500:]) < 5 * np.median(times[:500]) + 1e-4
