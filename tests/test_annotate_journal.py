"""What the annotate widget keeps of the work: its journals, restoring after a crash, and the list of objects."""

import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.components import ViewerModel
from qtpy.QtCore import QItemSelectionModel, Qt

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from hands import Hands

from napari_delse.annotation import journal
from napari_delse.annotation.actions import Draft, LabelledObject, PackedMask, PlaneKey
from napari_delse.evolution import EvolutionSettings
from napari_delse.geometry import Crop, ObjectMask
from napari_delse.widgets import _recording
from napari_delse.widgets._annotate.review import ObjectsModel, ReviewList
from napari_delse.widgets._brush import painted
from napari_delse.widgets._kept import is_kept
from napari_delse.widgets._layers import camera_of
from napari_delse.widgets.annotate import AnnotateWidget

pytestmark = pytest.mark.usefixtures("own_home")

PLANE = np.arange(80 * 80, dtype=np.uint16).reshape(80, 80)


class Answer:
    def __init__(self, mask, confidence):
        self.mask, self.confidence = mask, confidence

    def contours(self):
        return []


class Boxes:
    """Answers with the box of the clicks; the smaller, the surer."""

    def segment(self, plane, prompt, corrections=(), *, known=None):
        y0, x0, y1, x1 = prompt.box
        ys, xs = np.mgrid[: plane.shape[0], : plane.shape[1]]
        inside = (ys >= y0) & (ys <= y1) & (xs >= x0) & (xs <= x1)
        mask = ObjectMask.from_crop(inside, Crop(0, 0, *plane.shape, 32), plane.shape)
        return Answer(mask, 1 - inside.sum() / 1000)


@pytest.fixture
def open_widget(annotating):
    """Opens the widget on a viewer with an image, without its window; ends it unless it crashed."""

    def open_it(data=PLANE, viewer=None):
        viewer = viewer or ViewerModel()
        if not len(viewer.layers):
            viewer.add_image(data, name="cells")
        return annotating(viewer, Boxes())

    return open_it


def annotate(qtbot, widget, *corners, size=9, index=()):
    """Outline boxes with four clicks each, and accept them."""
    for y, x in corners:
        last = size - 1
        for point in ((y, x + 2), (y + 2, x + last), (y + last, x + 2), (y + 2, x)):
            widget._layers.clicks.add((*index, *point))
        qtbot.waitUntil(lambda: widget._session.preview is not None)
        widget.accept()


def written(qtbot, widget):
    """The journal of the present session, once everything stands in it."""
    recording = widget._journals._recordings[widget._session]
    qtbot.waitUntil(lambda: recording.path is not None and not recording._left and not recording._flushing)
    return recording.path


def crash(qtbot, widget):
    """Stop as if the process had been killed: nothing is said to anybody."""
    path = written(qtbot, widget)
    widget._journals.abandon()
    return path


def offered(qtbot, widget):
    qtbot.waitUntil(lambda: widget.offer.isVisibleTo(widget))
    return widget.offer_text.text()


def restore(qtbot, widget):
    offered(qtbot, widget)
    widget.restore_button.click()
    qtbot.waitUntil(lambda: widget._restorer.labels is None and widget._session is not None and widget.accepted > 0)
    qtbot.waitUntil(lambda: widget.review.model.rowCount() == widget.accepted)


def rows(widget):
    """What the list shows, line by line."""
    model = widget.review.model
    return [[model.data(model.index(row, column)) for column in range(5)] for row in range(model.rowCount())]


# ---------------------------------------------------------------- recording


def test_recording_begins_with_the_first_action_and_ends_with_the_widget(open_widget, qtbot, own_home):
    widget = open_widget()
    qtbot.wait(50)
    assert not list(own_home.rglob("*.jsonl"))
    annotate(qtbot, widget, (10, 10))
    path = written(qtbot, widget)
    assert path.parent == own_home / "journals"
    contents = journal.read(path)
    assert not contents.closed
    assert contents.header.image.name == "cells"
    assert contents.header.blank
    assert contents.header.model == "default"
    assert [e["action"]["kind"] for e in contents.entries if e["step"] == "do"] == ["draft"] * 4 + ["commit"]
    widget.shut_down()
    assert journal.read(path).closed
    np.testing.assert_array_equal(journal_labels(path) == 1, box(10, 10))


def journal_labels(path):
    from napari_delse.annotation.replay import replay

    return replay(path).labels


def box(y, x, size=9):
    mask = np.zeros((80, 80), bool)
    mask[y : y + size, x : x + size] = True
    return mask


def test_deleting_the_labels_ends_their_journal(open_widget, qtbot):
    widget = open_widget()
    annotate(qtbot, widget, (10, 10))
    path = written(qtbot, widget)
    widget.viewer.layers.remove(widget._labels)
    assert journal.read(path).closed
    widget.start_over()
    annotate(qtbot, widget, (10, 10))
    assert written(qtbot, widget) != path


def test_nothing_is_left_of_a_widget_that_was_not_used(open_widget, qtbot, own_home):
    widget = open_widget()
    widget._layers.clicks.add((3, 3))
    written(qtbot, widget)
    widget._layers.clicks.add((3, 4))
    widget.shut_down()
    files = list(own_home.rglob("*.jsonl"))
    assert all(journal.read(file).closed for file in files)


def test_brush_strokes_stand_in_the_journal(open_widget, qtbot):
    widget = open_widget(np.zeros((3, 80, 80)))
    annotate(qtbot, widget, (10, 10), index=(0,))
    labels = widget._labels
    labels.brush_size = 6
    labels.paint((0, 12, 12), 5)
    labels.paint((0, 40, 40), 7)
    labels.paint((0, 41, 41), 0)
    labels.n_edit_dimensions = 3
    labels.paint((1, 60, 60), 8)
    labels.data_setitem((np.array([2, 2]), np.array([5, 9]), np.array([6, 6])), np.array([3, 4]))
    widget.undo()
    np.testing.assert_array_equal(journal_labels(written(qtbot, widget)), labels.data)


def test_older_paint_events_are_understood():
    strokes = list(painted([((np.array([1, 1]), np.array([4, 6])), np.array([0, 2]), 9)]))
    assert len(strokes) == 1
    plane, mask, before, after = strokes[0]
    assert (plane.axes, plane.index, after) == ((0, 1), (), 9)
    assert mask.origin == (1, 4)
    assert mask.mask.tolist() == [[True, False, True]]
    assert before.tolist() == [0, 2]


@pytest.mark.parametrize("when", ["opening", "writing"])
def test_trouble_is_told_and_work_goes_on(open_widget, qtbot, monkeypatch, when):
    widget = open_widget()
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*args, **kwargs):
        raise full

    monkeypatch.setattr(_recording, "_AGAIN", 0.0)
    if when == "opening":
        monkeypatch.setattr(journal, "create", refuse)
        annotate(qtbot, widget, (10, 10))
    else:
        annotate(qtbot, widget, (10, 10))
        written(qtbot, widget)
        monkeypatch.setattr(journal.Journal, "__call__", refuse)
    annotate(qtbot, widget, (30, 30))
    qtbot.waitUntil(lambda: "not being recorded" in widget.notice.text())
    assert "No space left on device." in widget.notice.text()
    assert widget.accepted == 2
    np.testing.assert_array_equal(widget._labels.data == 2, box(30, 30))
    monkeypatch.undo()  # there is room again: what was kept is written
    monkeypatch.setenv("NAPARI_DELSE_HOME", os.environ.get("NAPARI_DELSE_HOME", ""))


def test_what_could_not_be_written_is_written_later(open_widget, qtbot, monkeypatch):
    widget = open_widget()
    annotate(qtbot, widget, (10, 10))
    path = written(qtbot, widget)
    with monkeypatch.context() as patch:

        def refuse(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(journal.Journal, "__call__", refuse)
        annotate(qtbot, widget, (30, 30))
        assert "not being recorded" in widget._journals.problem(widget._session)
    annotate(qtbot, widget, (50, 50))
    assert widget._journals.problem(widget._session) == ""
    qtbot.waitUntil(lambda: not widget.notice.isVisibleTo(widget))
    np.testing.assert_array_equal(journal_labels(path), widget._labels.data)


def test_a_slow_disk_and_a_slow_image_do_not_hold_up_the_work(open_widget, qtbot, monkeypatch):
    widget = open_widget()
    real, gate = journal.create, threading.Event()

    def slowly(*args, **kwargs):
        gate.wait(5)
        return real(*args, **kwargs)

    monkeypatch.setattr(journal, "create", slowly)
    monkeypatch.setattr(os, "fsync", lambda file: time.sleep(1.0))
    begun = time.monotonic()
    widget._layers.clicks.add((5, 5))
    assert time.monotonic() - begun < 0.8
    annotate(qtbot, widget, (10, 10))
    gate.set()
    path = written(qtbot, widget)
    assert journal.object_count(journal.read(path)) == len(widget._session.objects)


# ---------------------------------------------------------------- closed and opened again


def test_the_next_widget_goes_on_with_list_undo_settings_and_journal(open_widget, qtbot):
    first = open_widget()
    annotate(qtbot, first, (10, 10), (30, 30))
    first._session.classify(2, "round")
    first._layers.clicks.add((50, 50))
    first._session.set_evolution(EvolutionSettings(steps=7))
    path, done = written(qtbot, first), first._session.actions
    first.shut_down()
    labels = first.viewer.layers["cells objects"]
    labels.paint((70, 70), 9)  # while nobody listens
    second = open_widget(viewer=first.viewer)
    assert second._labels is labels
    qtbot.waitUntil(lambda: [row[0] for row in rows(second)] == ["1", "2"])
    assert second._session.objects[2].class_name == "round"
    assert second._session.evolution == EvolutionSettings(steps=7)
    assert second._session.actions[:-1] == done
    assert second._session.next_label == 10
    second.undo()
    assert 9 not in labels.data
    second.redo()
    second._session.set_evolution(None)
    second.start_over()
    annotate(qtbot, second, (60, 10))
    assert written(qtbot, second) == path
    np.testing.assert_array_equal(journal_labels(path), labels.data)
    crash(qtbot, second)
    third = open_widget()
    restore(qtbot, third)
    np.testing.assert_array_equal(third._labels.data, labels.data)
    assert third._session.actions == second._session.actions


def test_what_could_not_be_recorded_is_recorded_by_the_next_widget(open_widget, qtbot, monkeypatch):
    first = open_widget()
    with monkeypatch.context() as patch:
        patch.setattr(journal, "create", lambda *args, **kwargs: 1 / 0)
        annotate(qtbot, first, (10, 10))
        first.shut_down()
    second = open_widget(viewer=first.viewer)
    annotate(qtbot, second, (30, 30))
    np.testing.assert_array_equal(journal_labels(written(qtbot, second)), second._labels.data)


def test_labels_of_another_shape_begin_anew(open_widget, qtbot):
    first = open_widget()
    annotate(qtbot, first, (10, 10))
    labels = first._labels
    first.shut_down()
    labels.data = np.zeros((80, 80), np.uint8)
    assert open_widget(viewer=first.viewer).accepted == 0


def test_a_session_goes_with_its_labels(open_widget, qtbot):
    widget = open_widget()
    annotate(qtbot, widget, (10, 10))
    layer, session = widget._labels, weakref.ref(widget._session)
    widget.shut_down()
    assert is_kept(layer)
    widget.viewer.layers.remove(layer)
    del layer
    gc.collect()
    assert session() is None


# ---------------------------------------------------------------- restoring


def test_work_is_restored_after_a_crash_with_its_undo(open_widget, qtbot):
    first = open_widget()
    annotate(qtbot, first, (10, 10), (15, 15), (40, 40))
    first._labels.paint((70, 70), 9)
    first.delete_object(2)
    for _ in range(3):
        first.undo()  # the third object is in progress again
    assert len(first._session.draft.clicks) == 4
    assert 9 not in first._labels.data
    expected, objects = first._labels.data.copy(), dict(first._session.objects)
    done, undone = len(first._session.actions), len(first._session.undone)
    path = crash(qtbot, first)

    second = open_widget()
    text = offered(qtbot, second)
    when = time.localtime(path.stat().st_mtime)
    assert text == f"Unfinished work on this image: 2 objects, {when.tm_mday} {time.strftime('%b %H:%M', when)}."
    restore(qtbot, second)
    assert not second.offer.isVisibleTo(second)
    np.testing.assert_array_equal(second._labels.data, expected)
    assert second._session.store.layer is second._labels
    assert second._labels.data.dtype == expected.dtype
    assert second._session.objects == objects
    assert (len(second._session.actions), len(second._session.undone)) == (done, undone)
    assert [type(x).__name__ for x in second.viewer.layers].count("Labels") == 2  # and the preview
    qtbot.waitUntil(lambda: len(second._layers.clicks.data) == 4)
    for _ in range(3):
        second.redo()
    assert second._labels.data[70, 70] == 9
    assert 2 not in second._session.objects
    annotate(qtbot, second, (60, 10))
    while second._session.can_undo:
        second.undo()
    assert not second._labels.data.any()
    assert written(qtbot, second) == path  # it goes on in the same file
    second.shut_down()
    assert journal.read(path).closed
    third = open_widget()
    qtbot.wait(100)
    assert not third.offer.isVisibleTo(third)


def test_work_is_restored_after_its_labels_were_converted_to_a_wider_type(open_widget, qtbot):
    first = open_widget()
    first._session.note_label(65534)
    annotate(qtbot, first, (10, 10))
    first._labels.data = first._labels.data.astype(np.uint32)
    annotate(qtbot, first, (40, 40))
    expected = first._labels.data.copy()
    assert expected.max() == 65536
    crash(qtbot, first)
    second = open_widget()
    restore(qtbot, second)
    assert second._labels.data.dtype == np.uint32
    np.testing.assert_array_equal(second._labels.data, expected)
    second.undo()
    np.testing.assert_array_equal(second._labels.data == 65535, box(10, 10))


def test_discarded_work_is_not_offered_again_but_kept(open_widget, qtbot):
    first = open_widget()
    annotate(qtbot, first, (10, 10))
    path = crash(qtbot, first)
    second = open_widget()
    offered(qtbot, second)
    second.discard_button.click()
    qtbot.waitUntil(lambda: not second.offer.isVisibleTo(second))
    qtbot.waitUntil(lambda: journal.read(path).closed)
    assert (journal_labels(path) == 1).sum() == 81
    third = open_widget()
    qtbot.wait(100)
    assert not third.offer.isVisibleTo(third)


def test_other_images_and_open_journals_are_not_offered(open_widget, qtbot):
    first = open_widget()
    annotate(qtbot, first, (10, 10))
    written(qtbot, first)
    same = open_widget()  # the first one is still at work
    qtbot.wait(100)
    assert not same.offer.isVisibleTo(same)
    crash(qtbot, first)
    other = open_widget(PLANE[::-1].copy())
    qtbot.wait(100)
    assert not other.offer.isVisibleTo(other)


def test_several_are_offered_one_after_the_other_into_labels_of_their_own(open_widget, qtbot):
    for corner in ((10, 10), (30, 30)):
        widget = open_widget()
        qtbot.wait(50)
        annotate(qtbot, widget, corner)
        crash(qtbot, widget)
    widget = open_widget()
    restore(qtbot, widget)
    newer = widget._labels
    np.testing.assert_array_equal(newer.data > 0, box(30, 30))
    offered(qtbot, widget)
    widget.restore_button.click()
    qtbot.waitUntil(lambda: widget._restorer.labels is None and widget._labels is not newer)
    np.testing.assert_array_equal(widget._labels.data > 0, box(10, 10))
    np.testing.assert_array_equal(newer.data > 0, box(30, 30))


@pytest.mark.parametrize("comes_back", [True, False])
def test_work_is_restored_while_another_image_is_looked_at(open_widget, qtbot, monkeypatch, comes_back):
    first = open_widget()
    annotate(qtbot, first, (10, 10), (40, 40))
    expected, path = first._labels.data.copy(), crash(qtbot, first)
    second, gate, restored = open_widget(), threading.Event(), journal.restore
    second.viewer.add_image(np.zeros((60, 60)), name="other")
    offered(qtbot, second)
    monkeypatch.setattr(journal, "restore", lambda *args, **kwargs: gate.wait(20) and restored(*args, **kwargs))
    labels = second._labels
    second.restore_button.click()
    choose_image(second, "other")
    if comes_back:
        choose_image(second, "cells")
        assert second._labels is labels
        assert second._session is None  # nobody can write to these labels now
        assert "being restored" in second.guide.text()
    gate.set()
    qtbot.waitUntil(lambda: second._restorer.labels is None)
    if not comes_back:
        assert f"back in '{labels.name}'" in second.notices.text
        assert second._session.next_label == 1
        choose_image(second, "cells")
    assert second._labels is labels
    assert second.accepted == 2
    np.testing.assert_array_equal(labels.data, expected)
    annotate(qtbot, second, (60, 10))
    assert written(qtbot, second) == path
    np.testing.assert_array_equal(journal_labels(path), labels.data)


def choose_image(widget, name):
    box = widget.image_box
    box.setCurrentIndex(box.findText(name))
    box.activated.emit(box.currentIndex())
    widget._refresh()


def test_work_on_labels_that_were_there_asks_for_them(open_widget, qtbot):
    began = np.zeros((80, 80), np.int32)
    began[:20, :20] = 4

    def open_with(labels):
        widget = open_widget()
        layer = widget.viewer.add_labels(labels.copy(), name="mine")
        return widget, layer

    def choose(widget, layer):
        widget.desk.choose_labels(layer)

    first, layer = open_with(began)
    choose(first, layer)
    annotate(qtbot, first, (15, 15), (40, 40))
    expected = layer.data.copy()
    crash(qtbot, first)
    without = open_widget()
    offered(qtbot, without)
    without.restore_button.click()
    qtbot.waitUntil(lambda: "choose them as the labels" in without.notice.text())
    assert without.offer.isVisibleTo(without)
    second, layer = open_with(began)
    restore(qtbot, second)
    assert second._labels is layer
    np.testing.assert_array_equal(layer.data, expected)
    second.undo()
    second.undo()


def test_work_is_not_restored_into_other_labels_that_nobody_chose(open_widget, qtbot):
    began = np.zeros((80, 80), np.uint16)
    began[60:70, 60:70] = 4
    first = open_widget()
    first.desk.choose_labels(first.viewer.add_labels(began.copy(), name="mine"))
    annotate(qtbot, first, (10, 10))
    labels = first._labels.data.copy()
    crash(qtbot, first)
    second = open_widget()
    wrong = second.viewer.add_labels(np.full((80, 80), 3, np.uint16), name="wrong")
    offered(qtbot, second)
    second.restore_button.click()
    qtbot.waitUntil(lambda: "This work began with labels that were there" in second.notice.text())
    assert (wrong.data == 3).all()
    right = second.viewer.add_labels(began.copy(), name="right")
    restore(qtbot, second)
    np.testing.assert_array_equal(right.data, labels)
    assert (wrong.data == 3).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_work_on_channels_is_offered_and_restored_before_they_are_chosen(open_widget, qtbot, axis):
    pixels = np.arange(3 * 2 * 80 * 80, dtype=np.uint16).reshape((3, 2, 80, 80) if axis else (2, 3, 80, 80))
    first = open_widget(pixels)
    first.desk.choose_image(first.viewer.layers["cells"], axis)
    index = (1, 0) if axis else (1,)
    first.viewer.dims.set_current_step(0 if axis else 1, 1)
    annotate(qtbot, first, (10, 10), index=index)
    labels = first._labels.data.copy()
    crash(qtbot, first)
    second = open_widget(pixels)
    assert second.desk.source.channel_axis is None
    assert f"this image, with channels along axis {axis}: 1 object" in offered(qtbot, second)
    restore(qtbot, second)
    assert second.desk.source.channel_axis == axis
    assert second.channel_box.currentData() == axis
    np.testing.assert_array_equal(second._labels.data, labels)
    assert not second.offer.isVisibleTo(second)


def test_a_damaged_journal_is_told(open_widget, qtbot):
    first = open_widget()
    annotate(qtbot, first, (10, 10))
    path = crash(qtbot, first)
    second = open_widget()
    offered(qtbot, second)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"xxx\n", *lines[2:]]))
    second.restore_button.click()
    qtbot.waitUntil(lambda: "line 2" in second.notice.text())
    annotate(qtbot, second, (30, 30))
    assert second.accepted == 1


def test_unfinished_work_that_cannot_be_read_is_told_until_other_work_begins(open_widget, qtbot):
    first = open_widget()
    annotate(qtbot, first, (10, 10), (30, 30))
    path = crash(qtbot, first)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"xxx\n", *lines[2:]]))
    second = open_widget()
    qtbot.waitUntil(lambda: "Unfinished work cannot be offered" in second.notice.text())
    assert f"{path.name}, line 2: the line was changed" in second.notice.text()
    assert "cut the file before it" in second.notice.text()
    annotate(qtbot, second, (30, 30))
    written(qtbot, second)
    qtbot.waitUntil(lambda: "Unfinished" not in second.notice.text())


KILLED = """
    import os, sys, signal
    sys.path.insert(0, sys.argv[1])
    from qtpy.QtWidgets import QApplication
    app = QApplication([])
    from test_annotate_journal import AnnotateWidget, Boxes, PLANE, ViewerModel, annotate

    class Bot:
        def waitUntil(self, condition):
            while not condition():
                app.processEvents()

    viewer = ViewerModel()
    viewer.add_image(PLANE, name="cells")
    widget = AnnotateWidget(viewer, load=lambda model, device: Boxes(), names=lambda: ["default"])
    Bot().waitUntil(lambda: widget.is_ready)
    annotate(Bot(), widget, (10, 10))
    Bot().waitUntil(lambda: widget._journals._recordings[widget._session].path is not None)
    annotate(Bot(), widget, (15, 15), (40, 40))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are not killed so here")
def test_a_killed_process_loses_nothing(open_widget, qtbot):
    script = [sys.executable, "-c", textwrap.dedent(KILLED), str(Path(__file__).parent)]
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    ended = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    widget = open_widget()
    assert "3 objects" in offered(qtbot, widget)
    restore(qtbot, widget)
    expected = np.zeros((80, 80), int)
    for label, corner in enumerate(((10, 10), (15, 15), (40, 40)), 1):
        expected[box(*corner) & (expected == 0)] = label
    np.testing.assert_array_equal(widget._labels.data, expected)


# ---------------------------------------------------------------- the list


def test_the_list_follows_everything(open_widget, qtbot):
    widget = open_widget()
    assert not widget.review.table.isVisibleTo(widget)
    assert "No objects yet" in widget.count.text()
    annotate(qtbot, widget, (10, 10), (30, 30))
    annotate(qtbot, widget, (50, 50), size=12)
    qtbot.waitUntil(lambda: len(rows(widget)) == 3)
    assert rows(widget) == [
        ["1", "", "81", "92%", "4"],
        ["2", "", "81", "92%", "4"],
        ["3", "", "144", "86%", "4"],
    ]
    assert widget.review.table.isVisibleTo(widget)
    assert widget.review.table.isColumnHidden(1)
    assert widget.review.current == 3
    widget.review.table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    assert [row[0] for row in rows(widget)] == ["3", "2", "1"]
    assert widget.review.table.currentIndex().row() == 0
    widget.undo()
    qtbot.waitUntil(lambda: [row[0] for row in rows(widget)] == ["2", "1"])
    widget.redo()
    qtbot.waitUntil(lambda: [row[0] for row in rows(widget)] == ["3", "2", "1"])
    widget.delete_object(2)
    qtbot.waitUntil(lambda: [row[0] for row in rows(widget)] == ["3", "1"])
    assert not (widget._labels.data == 2).any()
    assert widget.count.text() == "2 objects accepted"
    widget.undo()
    qtbot.waitUntil(lambda: len(rows(widget)) == 3)


@pytest.mark.parametrize("order", [Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder])
def test_every_change_of_the_list_is_told_where_it_happens(qtbot, order):
    model, seen, random = ObjectsModel(), [], np.random.default_rng(0)
    model.sort(2, order)
    model.rowsInserted.connect(lambda _, first, last: seen.insert(first, model.label_at(first)))
    model.rowsRemoved.connect(lambda _, first, last: seen.pop(first))
    objects = {}
    for _ in range(300):
        label = int(random.integers(1, 30))
        if label in objects and random.random() < 0.5:
            del objects[label]
        else:
            area = int(random.integers(1, 9))
            mask = ObjectMask(np.ones((1, area), bool), (0, 0))
            objects[label] = LabelledObject(label, Draft(PlaneKey()), PackedMask.pack(mask), area, 0.5)
        model.update(objects, {label})
        expected = sorted(objects, key=lambda label: (objects[label].area, label))
        expected = expected[::-1] if order == Qt.SortOrder.DescendingOrder else expected
        assert seen == [model.label_at(row) for row in range(model.rowCount())] == expected
        assert all(expected[model.row_of_label(label)] == label for label in objects)
    assert len(objects) > 5


def test_thousands_of_objects_are_listed_part_by_part(qtbot):
    review, mask = ReviewList(), PackedMask.pack(ObjectMask(np.ones((1, 2), bool), (0, 0)))
    qtbot.addWidget(review)
    objects = {n: LabelledObject(n, Draft(PlaneKey()), mask, 2, 0.5, class_name="a") for n in range(5000, 0, -1)}
    assert review.show_objects(objects, set(), has_planes=False)
    assert "5,000 objects" in review.heading.text()
    assert 0 < review.model.rowCount() < 5000
    review.mark(1)  # is not listed yet
    del objects[4999]
    objects[3] = replace(objects[3], class_name="b")
    assert review.show_objects(objects, {4999, 3}, has_planes=False)
    qtbot.waitUntil(lambda: review.model.rowCount() == 4999)
    listed = [review.model.label_at(row) for row in range(review.model.rowCount())]
    assert listed == sorted(objects)
    assert review.model.classes == ["a", "b"]
    assert review.table.currentIndex().row() == 0
    assert review.selected == [1]
    assert not review.show_objects(objects, set(), has_planes=False)
    review.table.sortByColumn(0, Qt.SortOrder.DescendingOrder)
    gone = set(range(2, 4000))
    for label in gone:
        objects.pop(label)
    review.show_objects(objects, gone, has_planes=False)
    review.least_sure()  # is one of those that are left, also while others are still listed
    assert review.current in objects
    qtbot.waitUntil(lambda: review.model.rowCount() == len(objects))
    listed = [review.model.label_at(row) for row in range(review.model.rowCount())]
    assert listed == sorted(objects, reverse=True)
    assert review.model.classes == ["a"]
    review.show_objects({}, set(), has_planes=False)
    assert review.model.rowCount() == 0


def test_choosing_a_row_goes_there(open_widget, qtbot):
    widget = open_widget(np.zeros((4, 80, 80), np.uint8))
    viewer = widget.viewer
    annotate(qtbot, widget, (10, 10), index=(0,))
    viewer.dims.current_step = (3, 0, 0)
    annotate(qtbot, widget, (50, 30), index=(3,))
    qtbot.waitUntil(lambda: len(rows(widget)) == 2)
    assert not widget.review.table.isColumnHidden(1)
    assert [row[1] for row in rows(widget)] == ["0", "3"]
    flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
    widget.review.table.selectionModel().setCurrentIndex(widget.review.model.index(0, 0), flags)
    assert viewer.dims.current_step[0] == 0
    assert camera_of(viewer).center[-2:] == (14, 14)
    widget.review.next_button.click()
    assert viewer.dims.current_step[0] == 3
    assert camera_of(viewer).center[-2:] == (54, 34)
    widget.review.next_button.click()
    assert widget.review.current == 1
    widget.review.previous_button.click()
    assert widget.review.current == 2


def test_objects_of_another_orientation_are_turned_into_view(open_widget, qtbot):
    widget = open_widget(np.zeros((60, 70, 80), np.uint8))
    viewer = widget.viewer
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_point(1, 33)
    for z, x in ((10, 12), (12, 18), (18, 12), (12, 10)):
        widget._layers.clicks.add((z, 33, x))
    qtbot.waitUntil(lambda: widget._session.preview is not None)
    widget.accept()
    viewer.dims.order = (0, 1, 2)
    viewer.dims.set_point(1, 0)
    widget.show_object(1)
    assert viewer.dims.order == (1, 0, 2)
    assert viewer.dims.current_step[1] == 33
    assert camera_of(viewer).center[-2:] == (14, 14)


def test_least_sure_goes_through_all_and_begins_anew(open_widget, qtbot):
    widget = open_widget()
    for number, corner in enumerate(((5, 5), (25, 25), (50, 50))):
        annotate(qtbot, widget, corner, size=(9, 14, 11)[number])
    seen = []
    for _ in range(4):
        widget.review.unsure_button.click()
        seen.append(widget.review.current)
    assert seen == [2, 3, 1, 2]


def test_a_reopened_object_keeps_its_label(open_widget, qtbot):
    widget = open_widget()
    annotate(qtbot, widget, (10, 10), (30, 30))
    widget.review.mark(1)
    widget.review.reopen_button.click()
    qtbot.waitUntil(lambda: len(widget._layers.clicks.data) == 4 and widget._session.preview is not None)
    qtbot.waitUntil(lambda: widget.guide.text().startswith("Object 1 again"))
    widget._layers.clicks.add((21, 12))
    qtbot.waitUntil(lambda: widget._session.preview is not None)
    widget.accept()
    expected = np.zeros((80, 80), int)
    expected[10:22, 10:19], expected[box(30, 30)] = 1, 2
    np.testing.assert_array_equal(widget._labels.data, expected)
    qtbot.waitUntil(lambda: rows(widget)[0] == ["1", "", "108", "89%", "5"])
    assert widget.review.current == 1
    path = crash(qtbot, widget)
    np.testing.assert_array_equal(journal_labels(path), expected)
    widget.undo()
    widget.undo()
    widget.undo()
    np.testing.assert_array_equal(widget._labels.data == 1, box(10, 10))


# ---------------------------------------------------------------- endings


def test_keys_of_the_list_and_an_end_without_traces(make_napari_viewer, qtbot):
    threads = set(threading.enumerate())
    viewer = make_napari_viewer()
    viewer.add_image(PLANE, name="cells")
    widget = AnnotateWidget(viewer, load=lambda model, device: Boxes(), names=lambda: ["default"])
    viewer.window.add_dock_widget(widget, name="Annotate (DELSE)")
    qtbot.waitUntil(lambda: widget.is_ready)
    annotate(qtbot, widget, (10, 10), (30, 30))
    path = written(qtbot, widget)
    viewer.show()
    shift, key = Qt.KeyboardModifier.ShiftModifier, Hands(viewer).key
    seen = []
    for pressed in (Qt.Key.Key_N, Qt.Key.Key_B, Qt.Key.Key_N, Qt.Key.Key_U, Qt.Key.Key_U):
        key(pressed, shift)
        seen.append(widget.review.current)
    assert seen == [1, 2, 1, 1, 2]
    key(Qt.Key.Key_R, shift)
    assert widget._session.draft.label == 2
    key(Qt.Key.Key_Escape)
    assert widget._session.draft.label is None
    key(Qt.Key.Key_D, shift)
    assert set(widget._session.objects) == {1}
    key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert set(widget._session.objects) == {1, 2}
    viewer.close()
    qtbot.waitUntil(lambda: journal.read(path).closed)
    left = [t for t in threading.enumerate() if t not in threads and t.name.startswith("napari-delse")]
    for thread in left:
        thread.join(2)
    assert not any(thread.is_alive() for thread in left)
