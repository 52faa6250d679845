"""The tabs of the annotate widget: objects, settings, export and keys, in real windows where mouse or keys matter."""

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QComboBox, QFileDialog, QKeySequenceEdit, QLineEdit, QSpinBox

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from hands import Hands

from napari_delse.annotation.policy import LabelPolicy
from napari_delse.annotation.preferences import preferences_file, read_preferences
from napari_delse.data.prompts import read_prompts
from napari_delse.evolution import EvolutionSettings
from napari_delse.export.labels import OBJECT_FORMATS
from napari_delse.geometry import Crop, ObjectMask
from napari_delse.widgets._annotate import exporting
from napari_delse.widgets._annotate.exporting import FORMATS, Export, suggested
from napari_delse.widgets._annotate.features import with_classes
from napari_delse.widgets._annotate.keys import ACTIONS, Keyboard, from_qt, to_qt, used_by_napari
from napari_delse.widgets._guide import Words, next_click, preview

pytestmark = pytest.mark.usefixtures("own_home")

SHIFT, CONTROL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier


class Answer:
    def __init__(self, mask):
        self.mask, self.confidence = mask, 0.9

    def contours(self):
        return []


class Boxes:
    """Answers with the box of the clicks; with a hole of 3 x 3 pixels and a part of its own on wish."""

    untidy = False

    def segment(self, plane, prompt, corrections=(), *, known=None):
        y0, x0, y1, x1 = (round(v) for v in prompt.box)
        inside = np.zeros(plane.shape[:2], bool)
        inside[y0 : y1 + 1, x0 : x1 + 1] = True
        if self.untidy:
            inside[y0 + 2 : y0 + 5, x0 + 2 : x0 + 5] = False
            inside[y1 + 3, x1 + 3 : x1 + 6] = True
        return Answer(ObjectMask.from_crop(inside, Crop(0, 0, *plane.shape[:2], 32), plane.shape[:2]))


def until(qtbot, condition):
    qtbot.waitUntil(condition, timeout=20_000)  # these machines may be busy


@pytest.fixture
def open_widget(annotating):
    """Opens the widget on a viewer with an image; in a window if the viewer has one."""

    def open_it(viewer=None, shape=(80, 80), predictor=None):
        viewer = viewer or ViewerModel()
        if not len(viewer.layers):
            viewer.add_image(np.arange(np.prod(shape), dtype=np.uint16).reshape(shape), name="cells")
        return annotating(viewer, predictor or Boxes())

    return open_it


@pytest.fixture
def in_window(make_napari_viewer, open_widget, qtbot):
    """The widget in a window of 1280 x 800, with hands for it."""

    def open_it(**kwargs):
        viewer = make_napari_viewer()
        widget = open_widget(viewer, **kwargs)
        viewer.show()
        viewer.window._qt_window.resize(1280, 800)
        qtbot.wait(50)
        return widget, Hands(viewer)

    return open_it


def outline(qtbot, widget, y, x, size=9, index=()):
    last = size - 1
    for point in ((y, x + 2), (y + 2, x + last), (y + last, x + 2), (y + 2, x)):
        widget._layers.clicks.add((*index, *point))
    until(qtbot, lambda: widget._session.preview is not None)


def annotate(qtbot, widget, *corners, size=9, index=()):
    """Outline boxes with four clicks each, and accept them."""
    for y, x in corners:
        outline(qtbot, widget, y, x, size, index)
        widget.accept()
    until(qtbot, lambda: widget.review.model.rowCount() == widget.accepted)


def click_row(widget, row, modifier=Qt.KeyboardModifier.NoModifier):
    """A mouse click on a row of the list."""
    table = widget.review.table
    where = table.visualRect(widget.review.model.index(row, 0)).center()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, modifier, where)


def told(widget, text):
    return lambda: text in widget.notice.text()


# ---------------------------------------------------------------- the panel


def test_everything_stays_in_view_in_a_window_of_1280_by_800(in_window, qtbot):
    widget, _ = in_window(shape=(3, 80, 80))
    annotate(qtbot, widget, (10, 10), index=(0,))
    widget.editor.classify([1], "cell")
    widget._journals.offer = None
    window = widget.window()
    for number in range(widget.tabs.count()):
        widget.tabs.setCurrentIndex(number)
        qtbot.wait(20)
        for one in (widget.guide, widget.accept_button, widget.undo_button, widget.redo_button, widget.restart_button):
            corner = one.mapTo(window, QPoint(one.width(), one.height()))
            assert one.isVisible()
            assert corner.x() <= window.width()
            assert corner.y() <= window.height()
    assert (window.width(), window.height()) == (1280, 800)
    assert widget.width() < 400
    widget.tabs.setCurrentIndex(0)
    qtbot.wait(20)
    assert widget.review.delete_button.isVisible()
    assert widget.review.table.height() > 150


def test_every_control_says_what_it_does(open_widget):
    widget = open_widget()
    kinds = (QAbstractButton, QComboBox, QSpinBox, QKeySequenceEdit)
    found = [one for kind in kinds for one in widget.findChildren(kind)]
    inner = [one for one in widget.findChildren(QLineEdit) if not isinstance(one.parent(), kinds)]
    ours = [
        one for one in (*found, *inner) if not type(one.parent()).__name__.startswith(("QTab", "QLineEdit", "QTable"))
    ]
    assert len(ours) > 40
    assert not [one for one in ours if not one.toolTip()]


def test_a_tab_of_somebody_else_stands_beside_ours(open_widget):
    widget = open_widget()
    other, ours = QLineEdit(), widget.tabs.count()
    widget.add_tab(other, "More", "Something else")
    assert [widget.tabs.tabText(n) for n in range(3)] == ["Objects", "Settings", "Keys"]
    assert (widget.tabs.tabText(ours), widget.tabs.tabToolTip(ours)) == ("More", "Something else")
    widget.show_tab(other)
    assert widget.tabs.currentIndex() == ours
    widget.show_tab(widget.review)
    assert widget.tabs.currentIndex() == 0


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_icons_follow_the_theme(in_window, theme):
    widget, _ = in_window()
    button = widget.accept_button
    before = button.icon().pixmap(16).toImage()
    widget.viewer.theme = "light" if theme == "dark" else "dark"
    widget.viewer.theme = theme
    assert not button.icon().isNull()
    assert button.text() == "Accept"
    assert (button.icon().pixmap(16).toImage() == before) == (theme == "dark")


# ---------------------------------------------------------------- objects


def test_selected_objects_become_one_and_two_again(in_window, qtbot):
    widget, hands = in_window()
    annotate(qtbot, widget, (5, 5), (30, 30), (55, 55))
    assert not widget.review.merge_button.isEnabled()
    click_row(widget, 2)
    assert widget.review.current == 3
    click_row(widget, 0, CONTROL)
    assert widget.review.selected == [1, 3]
    hands.key(Qt.Key.Key_M, SHIFT)
    until(qtbot, told(widget, "2 objects became object 1"))
    assert sorted(widget._session.objects) == [1, 2]
    assert (widget._labels.data == 1).sum() == 162
    assert widget.review.selected == [1]
    hands.key(Qt.Key.Key_Z, CONTROL)
    assert sorted(widget._session.objects) == [1, 2, 3]
    assert (widget._labels.data == 3).sum() == 81


def test_unconnected_parts_are_split(in_window, qtbot):
    widget, hands = in_window()
    annotate(qtbot, widget, (5, 5), (40, 40))
    widget.merge_objects([1, 2])
    click_row(widget, 0)
    hands.key(Qt.Key.Key_S, SHIFT)
    until(qtbot, told(widget, "Object 1 was split: its other parts are 2"))
    assert (widget._labels.data[40:49, 40:49] == 2).all()
    hands.key(Qt.Key.Key_S, SHIFT)
    until(qtbot, told(widget, "one connected part"))


def test_the_outlined_part_is_split_off(open_widget, qtbot):
    widget = open_widget()
    annotate(qtbot, widget, (10, 10), size=20)
    outline(qtbot, widget, 10, 10, size=8)
    widget.review.split_button.click()
    until(qtbot, lambda: widget.review.model.rowCount() == 2)
    assert (widget._labels.data == 2).sum() == 64
    assert (widget._labels.data == 1).sum() == 400 - 64
    assert widget._session.draft.is_empty
    widget.undo()
    assert len(widget._session.draft.clicks) == 4
    widget.undo()
    assert (widget._labels.data == 1).sum() == 400


def test_several_objects_are_named_at_once_from_the_keyboard(in_window, qtbot):
    widget, hands = in_window()
    annotate(qtbot, widget, (5, 5), (30, 30), (55, 55))
    review = widget.review
    assert review.table.isColumnHidden(5)
    assert not review.unnamed_button.isVisible()
    click_row(widget, 0)
    click_row(widget, 1, SHIFT)
    edit = review.class_box.lineEdit()
    QTest.mouseClick(edit, Qt.MouseButton.LeftButton)
    QTest.keyClicks(edit, "nucleus")
    QTest.keyClick(edit, Qt.Key.Key_Return)
    until(qtbot, lambda: not review.table.isColumnHidden(5))
    assert {label: made.class_name for label, made in widget._session.objects.items()} == {
        1: "nucleus",
        2: "nucleus",
        3: "",
    }
    assert widget._labels.features.to_dict("list") == {"index": [1, 2], "class": ["nucleus", "nucleus"]}
    assert not edit.hasFocus()
    hands.key(Qt.Key.Key_C, SHIFT)
    assert review.current == 3
    assert review.class_box.findText("nucleus") >= 0
    hands.key(Qt.Key.Key_Z, CONTROL)
    until(qtbot, lambda: review.table.isColumnHidden(5))
    assert widget._labels.features.to_dict("list") == {"index": [], "class": []}
    assert review.class_box.findText("nucleus") >= 0  # remembered


def test_several_objects_are_deleted_in_one_step(open_widget, qtbot):
    widget = open_widget()
    annotate(qtbot, widget, (5, 5), (30, 30), (55, 55))
    widget.review.table.selectAll()
    assert widget.review.selected == [1, 2, 3]
    assert not widget.review.reopen_button.isEnabled()
    widget.review.delete_button.click()
    assert not widget._labels.data.any()
    until(qtbot, lambda: "No objects yet" in widget.count.text())
    widget.undo()
    assert set(np.unique(widget._labels.data)) == {0, 1, 2, 3}


def test_a_selection_outlives_sorting_and_changes_elsewhere(open_widget, qtbot):
    widget = open_widget()
    annotate(qtbot, widget, (5, 5), size=8)
    annotate(qtbot, widget, (30, 30), size=12)
    annotate(qtbot, widget, (55, 55), size=10)
    review = widget.review
    for row in (0, 2):
        flags = review.table.selectionModel().SelectionFlag
        review.table.selectionModel().select(review.model.index(row, 0), flags.Select | flags.Rows)
    assert review.selected == [1, 3]
    review.table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    assert review.selected == [1, 3] == sorted(review._selected_rows())
    widget.editor.classify([2], "other")
    until(qtbot, lambda: not review.table.isColumnHidden(5))
    assert review.selected == [1, 3] == sorted(review._selected_rows())
    widget.delete_object(3)
    until(qtbot, lambda: review.model.rowCount() == 2)
    assert review.selected == [1] == sorted(review._selected_rows())


def test_classes_come_back_with_restored_work(open_widget, qtbot):
    first = open_widget()
    annotate(qtbot, first, (5, 5), (30, 30))
    first.editor.classify([2], "nucleus")
    recording = first._journals._recordings[first._session]
    until(qtbot, lambda: recording.path is not None and not recording._left and not recording._flushing)
    first._journals.abandon()
    second = open_widget()
    until(qtbot, lambda: second.offer.isVisibleTo(second))
    second.restore_button.click()
    until(qtbot, lambda: second.accepted == 2 and len(second._labels.features))
    assert second._labels.features.to_dict("list") == {"index": [2], "class": ["nucleus"]}
    assert second.review.class_box.findText("nucleus") >= 0


def test_many_changes_of_the_labels_are_shown_once(open_widget, qtbot):
    widget, shown = open_widget(), []
    annotate(qtbot, widget, (5, 5), (30, 30), (55, 55))
    for event in (widget._labels.events.set_data, widget._labels.events.labels_update):
        event.connect(lambda _: shown.append(1))
    widget.editor.delete([1, 2, 3])
    assert len(shown) == 1
    widget.undo()
    assert len(shown) == 2
    assert widget._labels.data.max() == 3


def test_the_next_plane_without_an_object_is_shown(open_widget, qtbot):
    widget = open_widget(shape=(3, 80, 80))
    viewer = widget.viewer
    assert viewer.dims.current_step[0] == 1
    annotate(qtbot, widget, (5, 5), index=(1,))
    annotate(qtbot, widget, (5, 5), index=(2,))
    widget.review.empty_button.click()
    assert viewer.dims.current_step[0] == 0
    annotate(qtbot, widget, (5, 5), index=(0,))
    widget.review.empty_button.click()
    until(qtbot, told(widget, "There is an object in every plane"))
    assert viewer.dims.current_step[0] == 0


def test_a_flat_image_has_no_button_for_planes(open_widget, qtbot):
    widget = open_widget()
    annotate(qtbot, widget, (5, 5))
    assert not widget.review.empty_button.isVisibleTo(widget.review)


def test_other_columns_of_the_features_stay():
    table = pd.DataFrame({"index": [0, 2, 7], "area": [0.0, 5.0, 9.0]})
    named = with_classes(table, {2: "cell", 4: "debris"}, {})
    assert named["index"].tolist() == [0, 2, 4, 7]
    assert named["class"].tolist() == ["", "cell", "debris", ""]
    assert named["area"].tolist()[:2] + named["area"].tolist()[3:] == [0.0, 5.0, 9.0]
    again = with_classes(named, {4: "cell"}, {2: "cell", 4: "debris"})
    assert again["class"].tolist() == ["", "", "cell", ""]
    assert table.columns.tolist() == ["index", "area"]


def test_rows_without_an_index_are_counted_as_napari_does():
    named = with_classes(pd.DataFrame({"area": [0, 5, 9]}), {2: "cell"}, {})
    assert named["index"].tolist() == [0, 1, 2]
    assert named["class"].tolist() == ["", "", "cell"]


# ---------------------------------------------------------------- how objects are written


def test_filled_holes_and_dropped_parts_are_told_and_the_choice_is_remembered(open_widget, qtbot):
    predictor = Boxes()
    predictor.untidy = True
    widget = open_widget(predictor=predictor)
    annotate(qtbot, widget, (10, 10))
    assert widget.notice.text() == ""
    assert (widget._labels.data == 1).sum() == 81 - 9 + 3
    widget.settings.fill_box.click()
    widget.settings.part_box.setValue(5)
    annotate(qtbot, widget, (40, 40))
    until(qtbot, told(widget, "Object 2: 9 pixels of holes filled and 1 small part left out (3 px)."))
    assert not widget.status.property("trouble")
    assert (widget._labels.data == 2).sum() == 81
    outline(qtbot, widget, 60, 10)
    until(qtbot, lambda: widget.notice.text() == "")
    widget.shut_down()
    assert read_preferences().policy == LabelPolicy(fill_holes=True, min_part=5)
    again = open_widget()
    assert again.settings.policy == again._session.policy == LabelPolicy(fill_holes=True, min_part=5)


def test_settings_that_cannot_be_read_are_told_and_replaced(open_widget, qtbot, own_home):
    own_home.mkdir()
    preferences_file().write_text("{")
    widget = open_widget()
    until(qtbot, told(widget, "preferences.json cannot be read"))
    assert widget.settings.policy == LabelPolicy()
    widget.settings.protect_box.click()
    until(qtbot, lambda: widget.notice.text() == "")
    assert not read_preferences().policy.protect


def test_settings_that_cannot_be_saved_are_told(open_widget, qtbot, own_home):
    own_home.write_text("in the way")
    widget = open_widget()
    until(qtbot, lambda: widget.is_ready)
    widget.settings.fill_box.click()
    until(qtbot, told(widget, "The settings cannot be saved"))
    assert widget._session.policy.fill_holes


# ---------------------------------------------------------------- export


def export(qtbot, widget, kind, path):
    """Fill the form in and press the button; what is told then."""
    form = widget.export_form
    if not form.isVisibleTo(widget.review):
        widget.review.export_button.click()
    form.format_box.setCurrentIndex([one.kind for one in FORMATS].index(kind))
    form.file_edit.setText(str(path))
    form.write_button.click()
    until(qtbot, lambda: not widget._exports.exporter.is_busy and widget.notice.text() != "")
    qtbot.wait(5)
    return widget.notice.text()


@pytest.mark.parametrize("kind", [one.kind for one in FORMATS])
def test_every_format_is_written(open_widget, qtbot, tmp_path, kind):
    widget = open_widget(shape=(2, 80, 80))
    annotate(qtbot, widget, (5, 5), (30, 30), index=(1,))
    widget.editor.classify([2], "nucleus\n")
    widget.desk.source.layer.name = "well 3.5 um"
    suffix = next(one.suffix for one in FORMATS if one.kind == kind)
    path = tmp_path / f"out{suffix}"
    text = export(qtbot, widget, kind, path)
    assert text.endswith(f"written to {path}.")
    assert not widget.status.property("trouble")
    assert [one.name for one in tmp_path.iterdir() if one.name != "home"] == [path.name]
    assert not widget.export_form.isVisibleTo(widget.review)
    if suffix.endswith("tif"):
        np.testing.assert_array_equal(tifffile.imread(path), widget._labels.data)
    elif kind == "coco":
        content = json.loads(path.read_text())
        assert "nucleus" in {one["name"] for one in content["categories"]}
        assert [one["file_name"] for one in content["images"]] == ["well 3.5 um-z0000.tif", "well 3.5 um-z0001.tif"]
    elif kind == "prompts":
        found = read_prompts(path)
        assert [(one.label, one.index) for one in found] == [(1, (1,)), (2, (1,))]


@pytest.mark.parametrize("kind", [one.kind for one in FORMATS if one.kind != "prompts"])
@pytest.mark.parametrize(("units", "letter"), [("um", "T"), (("s", "um", "um"), "Z")])
def test_layers_are_exported_whatever_units_their_axes_have(tmp_path, kind, units, letter):
    shape = (2, 3, 8, 8) if letter == "T" else (3, 8, 8)
    data = np.zeros(shape, np.uint16)
    data[..., 2:5, 2:5] = 1
    layer = Labels(data, scale=(0.5,) * len(shape), units=units)
    path = tmp_path / f"out{next(one.suffix for one in FORMATS if one.kind == kind)}"
    told = Export.of(kind, path, layer, {}, "cells").run(lambda done, total: None)
    has_sizes = kind not in OBJECT_FORMATS
    assert (f"Along {letter} the sizes are in pixels" in told) == has_sizes
    if kind == "ome-tiff":
        with tifffile.TiffFile(path) as file:
            assert 'PhysicalSizeX="0.5"' in file.ome_metadata
            assert ('PhysicalSizeZ="0.5"' in file.ome_metadata) == (letter == "T")


def test_a_table_of_prompts_tells_that_it_lacks_evolution_settings(open_widget, qtbot, tmp_path):
    widget = open_widget()
    annotate(qtbot, widget, (5, 5), (30, 30))
    made = widget._session.objects[2]
    widget._session.objects[2] = replace(made, draft=replace(made.draft, evolution=EvolutionSettings(steps=2)))
    text = export(qtbot, widget, "prompts", tmp_path / "out.csv")
    assert text.endswith("out.csv. The table does not hold the evolution settings of 1 of them.")


def test_what_is_there_is_replaced_only_when_asked_for(open_widget, qtbot, tmp_path):
    widget = open_widget()
    annotate(qtbot, widget, (5, 5))
    path = tmp_path / "out.tif"
    path.write_text("mine")
    assert "There is out.tif already" in export(qtbot, widget, "tiff", path)
    assert widget.status.property("trouble")
    assert path.read_text() == "mine"
    form = widget.export_form
    assert form.write_button.text() == "Replace"
    form.file_edit.setText(str(path) + "f")
    assert form.write_button.text() == "Write"
    form.file_edit.setText(str(path))
    form.write_button.click()
    until(qtbot, lambda: form.write_button.text() == "Replace")
    form.write_button.click()
    until(qtbot, told(widget, "written to"))
    np.testing.assert_array_equal(tifffile.imread(path), widget._labels.data)


def test_a_failed_export_is_told_and_the_form_stays(open_widget, qtbot, tmp_path, monkeypatch):
    widget = open_widget()
    annotate(qtbot, widget, (5, 5))
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "out.tif"
    assert export(qtbot, widget, "tiff", path).startswith(f"{path} could not be written: ")
    assert widget.status.property("trouble")
    assert widget.export_form.isVisibleTo(widget.review)
    assert widget.export_form.write_button.isEnabled()
    assert not widget.export_form.bar.isVisibleTo(widget.export_form)


def test_a_cancelled_export_leaves_nothing(open_widget, qtbot, tmp_path, monkeypatch):
    widget, begun, go_on = open_widget(shape=(4, 80, 80)), threading.Event(), threading.Event()
    annotate(qtbot, widget, (5, 5), index=(1,))
    real = exporting.Exporter._on_plane

    def slow(self, done, total):
        begun.set()
        go_on.wait(10)
        real(self, done, total)

    monkeypatch.setattr(exporting.Exporter, "_on_plane", slow)
    widget.review.export_button.click()
    form = widget.export_form
    form.file_edit.setText(str(tmp_path / "out.tif"))
    form.write_button.click()
    until(qtbot, begun.is_set)
    assert form.cancel_button.text() == "Cancel"
    assert not form.write_button.isEnabled()
    annotate(qtbot, widget, (40, 40), index=(1,))  # the work goes on
    form.cancel_button.click()
    go_on.set()
    until(qtbot, told(widget, "cancelled, and nothing was written"))
    assert [one.name for one in tmp_path.iterdir() if one.name != "home"] == []
    form.cancel_button.click()
    assert not form.isVisibleTo(widget.review)


def test_the_file_ends_as_its_format_does(open_widget, qtbot):
    widget = open_widget()
    annotate(qtbot, widget, (5, 5))
    widget.review.export_button.click()
    form = widget.export_form
    assert form.file_edit.text() == str(Path.home() / "cells-objects.tif")
    for one in (*FORMATS, FORMATS[0]):
        form.format_box.setCurrentIndex(FORMATS.index(one))
        assert form.file_edit.text() == str(Path.home() / f"cells-objects{one.suffix}")
    widget.review.export_button.click()
    assert not form.isVisibleTo(widget.review)


def test_a_place_is_chosen_without_holding_up_the_work(open_widget, qtbot, tmp_path):
    widget = open_widget()
    annotate(qtbot, widget, (5, 5))
    widget.review.export_button.click()
    form = widget.export_form
    form.browse_button.click()
    dialog = form.findChild(QFileDialog)
    until(qtbot, dialog.isVisible)
    assert not dialog.isModal()
    dialog.fileSelected.emit(str(tmp_path / "mine"))
    dialog.close()
    assert form.file_edit.text() == str(tmp_path / "mine.tif")
    widget.viewer.layers[0].name = "renamed"
    widget.desk.choose_image(widget.viewer.layers[0])
    assert form.file_edit.text() == str(Path.home() / "renamed-objects.tif")


def test_labels_are_suggested_beside_the_image(tmp_path):
    image = tmp_path / "scan.ome.tif"
    image.write_text("")
    assert suggested(str(image), "a layer", ".json", Path("/home/me")) == tmp_path / "scan-objects.json"
    assert suggested("https://somewhere/a.tif", "a/b:c", ".json", Path("/home/me")) == Path(
        "/home/me/a_b_c-objects.json"
    )


# ---------------------------------------------------------------- keys


def press_into(widget, name, key, modifier=Qt.KeyboardModifier.NoModifier):
    """Type a key into the field of an action, and leave it."""
    field = widget.keys.fields[name]
    QTest.keyClick(field, key, modifier)
    field.editingFinished.emit()


def test_another_key_works_at_once_and_is_remembered(in_window, qtbot, own_home):
    widget, hands = in_window()
    annotate(qtbot, widget, (5, 5), (30, 30))
    widget.tabs.setCurrentIndex(2)
    press_into(widget, "next", Qt.Key.Key_J)
    press_into(widget, "accept_here", Qt.Key.Key_G)
    assert "(J)" in widget.review.next_button.toolTip()
    assert "(G or N)" in widget.accept_button.toolTip()
    hands.key(Qt.Key.Key_J)
    assert widget.review.current == 1
    hands.key(Qt.Key.Key_N, SHIFT)
    assert widget.review.current == 1  # the former key is free again
    outline(qtbot, widget, 55, 55)
    until(qtbot, lambda: "G accepts it" in widget.guide.text())
    hands.key(Qt.Key.Key_G)
    assert widget.accepted == 3
    until(qtbot, lambda: preferences_file().exists() and len(read_preferences().keys) == 2)
    assert read_preferences().keys == {"next": "J", "accept_here": "G"}
    widget.keys.reset_button.click()
    hands.key(Qt.Key.Key_N, SHIFT)
    assert widget.review.current == 1
    until(qtbot, lambda: read_preferences().keys == {})
    assert "J" not in {str(key) for key in widget.viewer.keymap}


def test_remembered_keys_are_used_from_the_start(open_widget, own_home):
    own_home.mkdir()
    preferences_file().write_text(json.dumps({"keys": {"next": "J", "split": "", "undo": "A", "gone": "Q"}}))
    widget = open_widget()
    assert widget.keyboard["next"] == "J"
    assert widget.keyboard["split"] == ""
    assert widget.keyboard["undo"].endswith("+Z")
    assert "used by napari" in widget.keyboard.problem
    assert widget.keys.fields["next"].keySequence().toString() == "J"
    assert "J" in {str(key) for key in widget.viewer.keymap}
    assert "Shift+N" not in {str(key) for key in widget.viewer.keymap}


@pytest.mark.parametrize(
    ("key", "modifier", "why"),
    [
        (Qt.Key.Key_S, Qt.KeyboardModifier.NoModifier, "S is used by napari"),
        (Qt.Key.Key_Y, CONTROL, "Ctrl\\+Y is used by napari"),
        (Qt.Key.Key_W, Qt.KeyboardModifier.NoModifier, "W is the key of 'Draw lines, or click'"),
        (Qt.Key.Key_F5, SHIFT, "Shift with letters only"),
    ],
)
def test_keys_that_are_not_free_are_refused_in_one_sentence(open_widget, qtbot, key, modifier, why):
    widget = open_widget()
    press_into(widget, "next", key, modifier)
    until(qtbot, told(widget, why.replace("\\", "")))
    assert widget.keyboard["next"] == "Shift+N"
    assert widget.keys.fields["next"].keySequence().toString() == "Shift+N"
    assert read_preferences().keys == {}


def test_the_guide_names_keys_or_what_to_click_instead():
    assert next_click(3, Words.of({"start_over": "Q"}.get)).endswith("Q starts over.")
    without = preview(5, 0.5, Words.of(lambda _: ""))
    assert "The button Accept accepts it." in without
    assert without.endswith("The button Start over starts over.")


def test_keys_of_napari_are_known():
    used = used_by_napari(ViewerModel())
    points, labels, shapes = "1 2 3 4 5 A P S Z Backspace Delete", "B E F L M X [ ] - =", "R D T I Shift+L Shift+P"
    assert set(f"{points} {labels} {shapes} Ctrl+Y Ctrl+E V Ctrl+C Space".split()) <= set(used)
    ours = {action.default for action in ACTIONS if not action.on_layers}
    assert not ours & set(used)
    assert len({action.default for action in ACTIONS}) == len(ACTIONS)


def test_an_action_can_be_left_without_a_key():
    viewer, pressed = ViewerModel(), []
    keyboard = Keyboard(viewer, {action.name: lambda: pressed.append(1) for action in ACTIONS})
    keyboard.rebind("next", "")
    assert keyboard.chosen == {"next": ""}
    keyboard.rebind("accept", "Shift+N")  # free now
    assert {str(key) for key in viewer.keymap} >= {"Shift+N", "W"}
    with pytest.raises(ValueError, match="no key that napari knows"):
        keyboard.rebind("next", "Blue")
    keyboard.release()
    assert not viewer.keymap


@pytest.mark.parametrize(
    "chosen",
    [{"accept": "", "accept_here": "N"}, {"next": "Shift+B", "previous": "Shift+N"}],
    ids=["moved", "swapped"],
)
def test_remembered_keys_come_back_whatever_the_others_are_without_them(chosen):
    keyboard = Keyboard(ViewerModel(), {action.name: bool for action in ACTIONS}, chosen)
    assert (keyboard.chosen, keyboard.problem) == (chosen, "")


def test_remembered_keys_that_are_not_free_are_told_and_leave_the_others():
    chosen = {"next": "Ctrl+Y", "previous": "Shift+N", "merge": "Blue", "gone": "Q"}
    keyboard = Keyboard(ViewerModel(), {action.name: bool for action in ACTIONS}, chosen)
    assert keyboard.chosen == {"next": "", "previous": "Shift+N"}  # its default is taken
    assert "Ctrl+Y is used by napari" in keyboard.problem


@pytest.mark.parametrize("key", ["Escape", "Enter", "Ctrl+Shift+Z", "PageUp", "Alt+F2", "Shift+N", "Delete", "="])
def test_keys_come_back_from_qt(key):
    assert from_qt(to_qt(key)) == key


def test_keys_that_napari_does_not_know_are_refused():
    assert from_qt("") == ""
    for key in ("Ctrl++", "Shift", "Ctrl+Blue", "Media Play"):
        with pytest.raises(ValueError, match="no key that napari knows"):
            from_qt(key)
