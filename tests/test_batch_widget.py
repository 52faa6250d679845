"""The batch widget on a viewer, with a predictor that finds the bright object in the box of the clicks."""

import threading
from dataclasses import dataclass

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

import zarr
from conftest import handed
from napari.components import ViewerModel

import napari_delse.checkpoint  # noqa: F401 - imports torch, for which the first test would else wait in the worker
from napari_delse.annotation.edits import PlaneKey
from napari_delse.geometry import Crop, CropConfig, ObjectMask
from napari_delse.propagation.planes import objects_of
from napari_delse.propagation.shapes import signed_distance
from napari_delse.widgets import _label_store
from napari_delse.widgets._batch import labels as _batch_labels
from napari_delse.widgets._batch import survey as _survey
from napari_delse.widgets._batch.filework import _layer
from napari_delse.widgets._batch.form import entry
from napari_delse.widgets._batch.plan import numbers, plane_axes
from napari_delse.widgets._source import ImageSource
from napari_delse.widgets.annotate import AnnotateWidget
from napari_delse.widgets.batch import BatchWidget

pytestmark = pytest.mark.usefixtures("own_home")

SHAPE = (60, 70)
PLANES = 9
FIRST_GAP = 11  # predictions after which the planes of the first gap are done: two objects of two keys and three
# planes, and one that is begun before the last of them is delivered


@dataclass
class Answer:
    mask: ObjectMask
    states: list
    crop: Crop
    confidence: float
    threshold: float = 0.0

    def contours(self):
        return []


class StubPredictor:
    """Answers at once, or when `gate` is opened; is unsure of some planes."""

    def __init__(self, unsure=()):
        self.gate = threading.Event()
        self.gate.set()
        self.unsure, self.asked, self.most = unsure, 0, 10**9

    def segment_across(self, items, batch_size=None):
        for plane, prompt, _ in items:
            if self.asked >= self.most:  # stands still until somebody opens the gate
                self.gate.clear()
                self.most = 10**9
            if not self.gate.wait(60):
                raise TimeoutError("nobody opened the gate")
            self.asked += 1
            yield self.segment(plane, prompt)

    def segment(self, plane, prompt, corrections=()):
        pixels = plane.window(0, 0, *plane.shape)[0]
        y0, x0, y1, x1 = (max(0, round(v)) for v in prompt.box)
        inside = pixels[y0 : y1 + 1, x0 : x1 + 1]
        values, counts = np.unique(inside[inside > 0], return_counts=True)
        found = pixels == (values[counts.argmax()] if len(values) else 255)
        mask, crop = ObjectMask.from_plane(found), Crop.around(prompt.box, CropConfig(size=64))
        sure = 0.5 if plane.index and plane.index[-1] in self.unsure else 0.9
        return Answer(mask, [signed_distance(mask, crop)], crop, sure)


def disk(y, x, radius):
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (ys - y) ** 2 + (xs - x) ** 2 <= radius**2


@pytest.fixture
def truth():
    """Two objects that move a little through nine planes."""
    labels = np.zeros((PLANES, *SHAPE), np.uint16)
    for place in range(PLANES):
        labels[place][disk(18 + place // 3, 18, 9)] = 1
        labels[place][disk(42 - place // 3, 52, 8)] = 2
    return labels


@pytest.fixture
def predictor():
    return StubPredictor()


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def real_viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def open_widget(qtbot, predictor, request):
    """Opens the widget on the viewer of the test."""
    opened = []

    def open_it(load=lambda model, device: predictor):
        window = "real_viewer" in request.fixturenames
        viewer = request.getfixturevalue("real_viewer" if window else "viewer")
        widget = BatchWidget(handed(viewer), load=load, names=lambda: ["default"], fingerprint_of=lambda model: "stub")
        if window:
            viewer.window.add_dock_widget(widget, name="Batch (DELSE)")
        else:
            qtbot.addWidget(widget)
        opened.append(widget)
        return widget

    yield open_it
    predictor.gate.set()
    for widget in opened:
        widget.shut_down()


def begin(viewer, truth, keys=(0, 8), data=None):
    """The image and its labels, of which only the key planes are there."""
    labels = np.zeros_like(truth) if data is None else data
    for key in keys:
        labels[key] = truth[key]
    viewer.add_image((truth * 100).astype(np.uint8), name="cells", axis_labels=("z", "y", "x"))
    return viewer.add_labels(labels, name="mine", axis_labels=("z", "y", "x"))


def open_gate(predictor):
    """Let the predictor go on, without a further stop."""
    predictor.most = 10**9
    predictor.gate.set()


def ready(qtbot, widget):
    qtbot.waitUntil(widget.start_button.isEnabled)


def run(qtbot, widget):
    ready(qtbot, widget)
    widget.start_button.click()
    finish(qtbot, widget)


def finish(qtbot, widget):
    qtbot.waitUntil(lambda: not widget.is_busy)
    widget._refresh()


def same(found, truth):
    """Nearly: the carried shape weighs in beside what was found."""
    return all((np.asarray(found[z]) == truth[z]).mean() > 0.98 for z in range(len(truth)))


# ---------------------------------------------------------------- what it says


def test_without_an_image_it_says_what_to_do(open_widget, qtbot, viewer):
    widget = open_widget()
    widget._refresh()
    assert "Open an image" in widget.guide.text()
    assert not widget.start_button.isEnabled()
    viewer.add_image(np.zeros((8, 8)))
    qtbot.waitUntil(lambda: "only one plane" in widget.guide.text())


def test_it_says_what_it_will_do_before_it_starts(viewer, open_widget, qtbot, truth):
    begin(viewer, truth)
    widget = open_widget()
    ready(qtbot, widget)
    assert widget.guide.text() == "2 objects on 2 planes will be carried to 7 planes."
    widget.form.first_box.setValue(3)
    widget.form.last_box.setValue(4)
    qtbot.waitUntil(lambda: widget.guide.text() == "2 objects on 2 planes will be carried to 2 planes.")


def test_it_says_why_it_cannot_start(viewer, open_widget, qtbot, truth):
    labels = begin(viewer, truth, keys=())
    widget = open_widget()
    qtbot.waitUntil(lambda: "No plane has labels yet" in widget.guide.text())
    entry(widget.form.start_box, "these")
    widget.form.these_edit.setText("0, x")
    qtbot.waitUntil(lambda: "Planes are numbers such as 0,10,20" in widget.guide.text())
    widget.form.these_edit.setText("0, 20")
    qtbot.waitUntil(lambda: "There is no plane 20; they are counted from 0 to 8" in widget.guide.text())
    widget.form.these_edit.setText("3")
    qtbot.waitUntil(lambda: "Plane 3 has no labels to be carried" in widget.guide.text())
    assert widget.start_button.toolTip() == widget.guide.text()
    viewer.layers.remove(labels)
    qtbot.waitUntil(lambda: "Label one plane or more" in widget.guide.text())


def test_places_are_read_as_people_write_them():
    assert numbers("0,10, 3-5 4", 11) == [0, 3, 4, 5, 10]
    with pytest.raises(ValueError, match="planes 8-5 are none; exchange the two"):
        numbers("0, 8-5", 11)
    with pytest.raises(ValueError, match="there is no plane 10000000000"):
        numbers("0-10000000000", 11)


def test_planes_are_counted_along_the_axis_that_is_chosen_whatever_is_shown(viewer, open_widget, qtbot, truth):
    image = np.stack([truth * 0, truth]).astype(np.uint8) * 100
    labels = np.zeros_like(image)
    labels[1, 4] = truth[4]
    viewer.add_image(image, axis_labels=("t", "z", "y", "x"), scale=(1, 4, 0.5, 0.5))
    viewer.add_labels(labels, scale=(1, 4, 0.5, 0.5))
    widget = open_widget()
    assert [widget.form.along_box.itemText(n) for n in range(2)] == ["t (2 planes)", "z (9 planes)"]
    entry(widget.form.along_box, 1)
    entry(widget.form.start_box, "shown")
    viewer.dims.set_point(0, 1)
    viewer.dims.set_point(1, 4 * 4)
    qtbot.waitUntil(lambda: widget.guide.text() == "2 objects on plane 4 will be carried to 8 planes, at t 1.")
    viewer.dims.order = (0, 2, 1, 3)
    qtbot.waitUntil(lambda: "The view shows no single plane" in widget.guide.text())
    viewer.dims.order = (0, 1, 2, 3)
    run(qtbot, widget)
    assert not labels[0].any()
    assert same(labels[1], truth)


def test_doubts_are_listed_where_their_run_was(viewer, open_widget, qtbot, truth, predictor):
    predictor.unsure = (3,)
    labels = np.zeros((2, *truth.shape), np.uint8)
    labels[0, 0] = truth[0]
    viewer.add_image(np.stack([truth, truth]).astype(np.uint8) * 100, axis_labels=("t", "z", "y", "x"))
    viewer.add_labels(labels)
    widget = open_widget()
    entry(widget.form.along_box, 1)
    viewer.dims.set_point(0, 0)
    run(qtbot, widget)
    assert [(row.place, row.label) for row in widget.review.model.rows] == [(3, 1), (3, 2)]
    doubt = widget.review.model.rows[0]
    for _ in range(2):
        viewer.dims.set_point(0, 1)
        qtbot.waitUntil(lambda: widget.review.count == 0)
        assert "Move the sliders" in widget.review.heading.text()
        widget.review.chosen.emit(doubt)  # of a list that was shown a moment ago
        assert viewer.dims.current_step[:2] == (0, 3)
        qtbot.waitUntil(lambda: widget.review.count == 2)
    entry(widget.form.along_box, 0)
    qtbot.waitUntil(lambda: widget.review.count == 0)


def test_y_and_x_are_known_by_their_names():
    from napari.layers import Image

    turned = Image(np.zeros((4, 5, 6)), axis_labels=("y", "x", "z"))
    assert plane_axes(ImageSource(turned)) == (0, 1)
    assert plane_axes(ImageSource(Image(np.zeros((4, 5, 6))))) == (1, 2)


# ---------------------------------------------------------------- carrying


@pytest.mark.parametrize("kind", ["numpy", "zarr"])
def test_objects_are_carried_and_key_planes_stay(kind, viewer, open_widget, qtbot, truth, tmp_path):
    data = None
    if kind == "zarr":
        data = zarr.create_array(str(tmp_path / "a.zarr"), shape=truth.shape, chunks=(2, 32, 32), dtype="u2")
        data[:] = 0
    labels = begin(viewer, truth, data=data)
    labels.data[8, 5:8, 60:65] = 7  # an object of one key plane only, where the image shows nothing
    widget = open_widget()
    run(qtbot, widget)
    found = np.asarray(labels.data[:])
    assert same(np.where(found == 7, 0, found), truth)
    assert (found[0] == truth[0]).all()
    assert (found[8, 5:8, 60:65] == 7).all()
    assert "7 planes are done" in widget.notice.text()
    assert widget.labels.slowest < 1


def test_a_whole_run_is_undone_and_done_again_in_one_step(viewer, open_widget, qtbot, truth):
    labels = begin(viewer, truth)
    before = labels.data.copy()
    widget = open_widget()
    run(qtbot, widget)
    after = labels.data.copy()
    assert widget.undo_button.isEnabled()
    widget.undo_button.click()
    assert (labels.data == before).all()
    assert not widget.undo_button.isEnabled()
    widget.redo_button.click()
    assert (labels.data == after).all()
    widget.undo_button.click()
    ready(qtbot, widget)
    assert widget.guide.text() == "2 objects on 2 planes will be carried to 7 planes."


def test_labels_that_are_there_are_protected_or_painted_over(viewer, open_widget, qtbot, truth):
    labels = begin(viewer, truth)
    labels.data[4, 12:20, 12:20] = 5
    widget = open_widget()
    entry(widget.form.start_box, "these")
    widget.form.these_edit.setText("0, 8")
    qtbot.waitUntil(lambda: widget.guide.text().endswith("labels on 1 of these are kept."))
    run(qtbot, widget)
    assert (labels.data[4, 12:20, 12:20] == 5).all()
    widget.undo_button.click()
    widget.form.protect_box.setChecked(False)
    qtbot.waitUntil(lambda: widget.guide.text().endswith("labels on 1 of these are painted over."))
    run(qtbot, widget)
    assert (labels.data[4, 15:20, 14:20] == 1).all()


def test_a_second_run_takes_the_place_of_the_first(viewer, open_widget, qtbot, truth):
    labels = begin(viewer, truth)
    widget = open_widget()
    run(qtbot, widget)
    ready(qtbot, widget)
    assert widget.guide.text().startswith("2 objects on 2 planes will be carried to 7 planes")
    labels.data[3][labels.data[3] == 2] = 0  # nobody told
    run(qtbot, widget)
    assert same(labels.data, truth)
    widget.undo_button.click()
    assert not (labels.data[3] == 2).any()
    widget.undo_button.click()
    assert not labels.data[1:8].any()


def test_pause_cancel_and_go_on(viewer, open_widget, qtbot, truth, predictor):
    labels = begin(viewer, truth, keys=(0, 4, 8))
    widget = open_widget()
    ready(qtbot, widget)
    predictor.gate.clear()
    widget.start_button.click()
    assert not widget.start_button.isEnabled()
    assert widget.progress_line.isVisibleTo(widget)
    widget.pause_button.click()
    assert widget.pause_button.text() == "Go on"
    assert "Paused" in widget.guide.text()
    predictor.gate.set()
    qtbot.wait(100)
    assert predictor.asked <= 1
    predictor.most = FIRST_GAP
    widget.pause_button.click()
    qtbot.waitUntil(lambda: labels.data[1:4].any(axis=(1, 2)).all())
    widget.cancel_button.click()
    assert "Stopping" in widget.guide.text()
    open_gate(predictor)
    finish(qtbot, widget)
    assert "Cancelled after 3 of 6 planes" in widget.notice.text()
    assert labels.data[1:4].any(axis=(1, 2)).all()
    assert not labels.data[5:8].any()
    run(qtbot, widget)
    assert same(labels.data, truth)


def test_work_goes_on_on_other_planes_and_comes_after_the_run(viewer, open_widget, qtbot, truth, predictor):
    labels = begin(viewer, truth, keys=(0, 4, 8))
    widget = open_widget()
    ready(qtbot, widget)
    predictor.most = FIRST_GAP
    widget.start_button.click()
    qtbot.waitUntil(lambda: labels.data[1:4].any(axis=(1, 2)).all())
    viewer.dims.set_point(0, 6)
    labels.data_setitem((np.array([6, 6]), np.array([1, 2]), np.array([1, 1])), 9)
    open_gate(predictor)
    finish(qtbot, widget)
    assert (labels.data[6, 1:3, 1] == 9).all()
    widget.undo_button.click()
    assert not (labels.data == 9).any()
    assert labels.data[1:8].any(axis=(1, 2)).all()
    widget.undo_button.click()
    assert not labels.data[[1, 2, 3, 5, 6, 7]].any()


def test_a_run_that_is_undone_while_it_goes_on_stops(viewer, open_widget, qtbot, truth, predictor):
    labels = begin(viewer, truth, keys=(0, 4, 8))
    widget = open_widget()
    ready(qtbot, widget)
    predictor.most = FIRST_GAP
    widget.start_button.click()
    qtbot.waitUntil(lambda: labels.data[1:4].any(axis=(1, 2)).all())
    qtbot.waitUntil(widget.undo_button.isEnabled)
    widget.undo_button.click()
    open_gate(predictor)
    finish(qtbot, widget)
    assert "undone" in widget.notice.text()
    assert not labels.data[[1, 2, 3, 5, 6, 7]].any()


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("undone", "The run was undone, so it ended."),
        ("undone elsewhere", "The run was undone, so it ended."),
        ("full disk", "No space left."),
        ("deleted", "'mine' was deleted, so the run ended."),
        ("other data", "'mine' got other data, so the run ended."),
    ],
)
def test_a_run_ends_also_while_its_last_planes_are_being_written(
    viewer, open_widget, qtbot, truth, monkeypatch, what, told
):
    labels = begin(viewer, truth)
    widget = open_widget()
    ready(qtbot, widget)
    monkeypatch.setattr(_batch_labels, "_BUDGET", -1)  # nothing is written yet
    widget.start_button.click()
    qtbot.waitUntil(lambda: not widget.runner.is_busy)
    assert widget.is_busy
    monkeypatch.setattr(_batch_labels, "_BUDGET", 0.012)
    run = widget.work.run
    widget.labels._left.popleft()()  # the first plane
    match what:
        case "undone":
            widget.undo()
        case "undone elsewhere":  # by the annotate widget
            widget.labels.find(labels).undo()
        case "full disk":

            def carry(*args):
                raise OSError("no space left")

            monkeypatch.setattr(widget.labels.find(labels), "carry", carry)
        case "deleted":
            viewer.layers.remove(labels)
        case "other data":
            labels.data = labels.data.copy()
    finish(qtbot, widget)
    assert run.has_ended
    assert not widget.labels.is_writing
    assert widget.notice.text() == told
    assert not labels.data[2:8].any()
    if what != "deleted":
        ready(qtbot, widget)


def test_an_object_that_is_deleted_while_a_run_goes_on_does_not_come_back(
    real_viewer, open_widget, qtbot, truth, predictor
):
    labels = begin(real_viewer, np.zeros_like(truth))
    widget = open_widget()
    session = widget.labels.session(labels, widget.form.source)
    for label in (1, 2):
        session.set_box(PlaneKey((1, 2), (0,)), [(0, 0), (label, label)])
        session.receive(session.request(), Answer(ObjectMask.from_plane(truth[0] == label), [], None, 1.0))
        assert session.commit().label == label
    real_viewer.layers["cells"].data = (truth * 100).astype(np.uint8)
    predictor.most = 8
    ready(qtbot, widget)
    widget.start_button.click()
    qtbot.waitUntil(lambda: (labels.data[1] == 2).any())
    session.delete(2)
    open_gate(predictor)
    finish(qtbot, widget)
    assert (labels.data[1:] == 1).any(axis=(1, 2)).all()
    assert not (labels.data == 2).any()
    widget.undo()
    widget.undo()
    assert set(np.unique(labels.data)) == {0, 1, 2}
    assert not labels.data[1:].any()


def test_planes_that_cannot_be_read_are_named_and_others_can_be_chosen(viewer, open_widget, qtbot, truth):
    class Torn:
        shape, dtype, ndim = truth.shape, truth.dtype, truth.ndim

        def __init__(self, data):
            self.data = data

        def __getitem__(self, key):
            if key[0] == slice(3, 4):
                raise OSError("bad sector")
            return self.data[key]

    labels = begin(viewer, truth)
    widget = open_widget()
    ready(qtbot, widget)
    line = widget.work.line
    found = _survey._looked(Torn(labels.data), line, list(range(PLANES)), bool)
    assert [place for place, what in found.items() if isinstance(what, OSError)] == [3]
    widget.work.survey._found(widget.work.survey._version, found)
    widget.work.survey.known.pop(3, None)
    widget._refresh()
    assert "Plane 3 of the labels cannot be read (bad sector)" in widget.guide.text()
    entry(widget.form.start_box, "these")
    widget.form.these_edit.setText("0,3")
    widget._refresh()
    assert widget.guide.text() == "Plane 3 of the labels cannot be read (bad sector); choose other planes."
    widget.form.these_edit.setText("0,8")
    widget._refresh()
    assert "will be carried" in widget.guide.text()


@pytest.mark.parametrize("kind", ["image", "labels"])
def test_what_gets_another_shape_is_offered_as_it_is_now(viewer, open_widget, qtbot, truth, kind):
    labels = begin(viewer, truth)
    widget = open_widget()
    ready(qtbot, widget)
    layer = {"image": viewer.layers["cells"], "labels": labels}[kind]
    layer.data = np.zeros((5, *SHAPE), np.uint8)
    assert widget.form.labels_box.currentData() is None
    assert widget.form.last_box.value() == (4 if kind == "image" else 8)
    layer.data = np.zeros((PLANES, *SHAPE), np.uint8)
    assert widget.form.labels_box.currentData() is labels


def test_an_image_that_is_exchanged_ends_the_run(viewer, open_widget, qtbot, truth, predictor):
    begin(viewer, truth)
    widget = open_widget()
    ready(qtbot, widget)
    predictor.gate.clear()
    widget.start_button.click()
    viewer.layers["cells"].data = np.zeros_like(viewer.layers["cells"].data)
    predictor.gate.set()
    finish(qtbot, widget)
    assert widget.notice.text() == "'cells' got other data, so the run ended."


def test_what_goes_wrong_is_told_in_one_sentence(viewer, open_widget, qtbot, truth):
    def load(model, device):
        raise ValueError("there is no model default; install one")

    begin(viewer, truth)
    widget = open_widget(load)
    run(qtbot, widget)
    assert widget.notice.text() == "There is no model default; install one."
    assert widget.status.property("trouble")
    ready(qtbot, widget)


def test_a_run_ends_when_its_labels_are_deleted(viewer, open_widget, qtbot, truth, predictor):
    labels = begin(viewer, truth)
    widget = open_widget()
    ready(qtbot, widget)
    predictor.gate.clear()
    widget.start_button.click()
    viewer.layers.remove(labels)
    predictor.gate.set()
    finish(qtbot, widget)
    assert widget.notice.text() == "'mine' was deleted, so the run ended."


def test_dask_labels_cannot_be_written_and_lazy_images_are_read_crop_by_crop(viewer, open_widget, qtbot, truth):
    dask = pytest.importorskip("dask.array")
    viewer.add_image([dask.from_array((truth * 100).astype(np.uint8), chunks=(1, 30, 30)), truth[:, ::2, ::2]])
    lazy = viewer.add_labels(dask.from_array(truth, chunks=(1, 60, 70)), name="lazy")
    widget = open_widget()
    qtbot.waitUntil(lambda: "lie in dask, which cannot be written" in widget.guide.text())
    labels = np.zeros_like(truth)
    labels[4] = truth[4]
    mine = viewer.add_labels(labels)
    viewer.layers.remove(lazy)
    run(qtbot, widget)
    assert same(mine.data, truth)


# ---------------------------------------------------------------- review


def test_doubts_are_listed_and_gone_to(viewer, open_widget, qtbot, truth, predictor):
    predictor.unsure = (3, 5)
    begin(viewer, truth)
    widget = open_widget()
    run(qtbot, widget)
    assert widget.tabs.tabText(2) == "Review (4)"
    assert [(row.place, row.label, row.why) for row in widget.review.model.rows][:2] == [
        (3, 1, "unsure"),
        (3, 2, "unsure"),
    ]
    widget.review.next_button.click()
    assert viewer.dims.current_step[0] == 3
    widget.review.previous_button.click()
    assert viewer.dims.current_step[0] == 5
    widget.undo_button.click()
    assert widget.tabs.tabText(2) == "Review"
    widget.redo_button.click()
    assert widget.tabs.tabText(2) == "Review (4)"


def test_a_corrected_plane_is_carried_on_to_what_depends_on_it_only(viewer, open_widget, qtbot, truth, predictor):
    predictor.unsure = (3,)
    labels = begin(viewer, truth, keys=(0, 6, 8))
    widget = open_widget()
    run(qtbot, widget)
    qtbot.waitUntil(lambda: widget.review.count > 0)
    assert f"{widget.review.count} objects to look at are in the tab Review" in widget.notice.text()
    viewer.dims.set_point(0, 3)
    rows, columns = np.nonzero(labels.data[3] == 2)
    labels.data_setitem((np.full(len(rows), 3), rows, columns), 0)  # it is not there
    labels.data[7, 0, 0] = 99  # nobody told: it would go if the plane were made anew without protection
    widget.form.protect_box.setChecked(False)
    qtbot.waitUntil(widget.review.again_button.isEnabled)
    qtbot.waitUntil(lambda: "carried to 4 planes" in widget.review.again_button.toolTip())
    qtbot.waitUntil(lambda: widget.review.count == 0)  # what was corrected need not be looked at
    before = labels.data.copy()
    asked = predictor.asked
    widget.review.again_button.click()
    finish(qtbot, widget)
    assert predictor.asked > asked
    changed = [z for z in range(PLANES) if (labels.data[z] != before[z]).any()]
    assert {2, 4} <= set(changed) <= {1, 2, 4, 5}  # nearer to the corrected plane, and all that depend on it
    assert not (labels.data[2:5] == 2).any()


def test_nothing_is_carried_on_from_a_painted_plane_until_it_was_looked_at(viewer, open_widget, qtbot, truth):
    labels = begin(viewer, truth)
    widget = open_widget()
    run(qtbot, widget)
    viewer.dims.set_point(0, 3)
    button = widget.review.again_button
    qtbot.waitUntil(button.isEnabled)
    labels.paint((5, 2, 2), 3)  # on another plane
    assert button.isEnabled()
    for change in (lambda: labels.paint((3, 2, 2), 3), widget.undo):
        change()
        assert not button.isEnabled()
        qtbot.waitUntil(button.isEnabled)


@pytest.mark.parametrize("tool", ["polygon", "fill", "data_setitem"])
def test_what_any_tool_changes_in_a_plane_is_seen(viewer, open_widget, qtbot, truth, tool):
    labels = begin(viewer, truth, keys=(0, 4) if tool == "fill" else (0,))
    widget = open_widget()
    ready(qtbot, widget)
    viewer.dims.set_point(0, 4)
    labels.selected_label = 0 if tool == "fill" else 5
    if tool == "polygon":
        labels.paint_polygon([(4, 10, 10), (4, 10, 20), (4, 20, 20)], 5)
    elif tool == "fill":
        for label in (1, 2):
            labels.fill(tuple(np.argwhere(labels.data == label)[-1]), 0)
    else:
        labels.data_setitem(tuple(np.array([[4, 4], [10, 10], [10, 11]])), 5)
    had = frozenset() if tool == "fill" else frozenset({5})
    assert set(np.unique(labels.data[4])) - {0} == had
    qtbot.waitUntil(lambda: 4 in widget.work.survey.known)
    assert widget.work.survey.known[4] == had


def test_nothing_is_carried_on_in_other_labels_than_those_of_the_run(viewer, open_widget, qtbot, truth):
    labels = begin(viewer, truth)
    other = viewer.add_labels(truth.copy(), name="other", axis_labels=("z", "y", "x"))
    widget = open_widget()
    entry(widget.form.labels_box, labels)
    run(qtbot, widget)
    viewer.dims.set_point(0, 3)
    button = widget.review.again_button
    qtbot.waitUntil(button.isEnabled)
    entry(widget.form.labels_box, other)
    qtbot.waitUntil(lambda: "'cells' and 'mine' of the last run to carry on in it" in button.toolTip())
    assert not button.isEnabled()
    entry(widget.form.labels_box, labels)
    qtbot.waitUntil(button.isEnabled)


def test_a_model_that_got_the_name_of_another_is_loaded(viewer, qtbot, truth, predictor):
    begin(viewer, truth)
    loads, prints, names = [], ["a"], ["default"]

    def load(model, device):
        loads.append(model)
        return predictor

    widget = BatchWidget(viewer, load=load, names=lambda: list(names), fingerprint_of=lambda model: prints[-1])
    qtbot.addWidget(widget)
    for wanted in (1, 1, 2):
        run(qtbot, widget)
        assert len(loads) == wanted
        widget.undo()
        if wanted == len(loads) == 1 and len(prints) == 1 and widget.form.model_box.count() == 1:
            names.append("newer")
            widget._look_for_models()
            qtbot.waitUntil(lambda: widget.form.model_box.count() == 2)
        else:
            prints.append("b")
    widget.shut_down()


# ---------------------------------------------------------------- other tasks


def test_labels_of_another_tool_are_refined_into_a_new_layer(viewer, open_widget, qtbot, truth):
    coarse = np.zeros_like(truth)
    for z in range(PLANES):
        for label, mask in objects_of(truth[z]).items():
            rows, columns = mask.slices
            coarse[z, rows, columns] = label
    viewer.add_image((truth * 100).astype(np.uint8), name="cells")
    viewer.add_labels(coarse, name="coarse")
    widget = open_widget()
    entry(widget.form.task_box, "refine")
    qtbot.waitUntil(
        lambda: widget.guide.text() == "18 objects of 'coarse' on 9 planes will be refined into a new layer."
    )
    run(qtbot, widget)
    assert (viewer.layers["cells refined"].data == truth).all()
    assert (viewer.layers["coarse"].data == coarse).all()


def test_what_cannot_be_labels_is_refused_before_a_layer_is_made(viewer, open_widget, qtbot, truth):
    coarse = truth.astype(np.int32)
    coarse[2, 3, 3] = -1
    viewer.add_image((truth * 100).astype(np.uint8), name="cells")
    viewer.add_labels(coarse, name="coarse")
    widget = open_widget()
    entry(widget.form.task_box, "refine")
    qtbot.waitUntil(lambda: "Plane 2 of 'coarse' holds the label -1" in widget.guide.text())
    assert not widget.start_button.isEnabled()


def test_every_four_points_are_an_object_on_their_plane(viewer, open_widget, qtbot, truth):
    begin(viewer, truth, keys=(0,))
    rows = [
        (z, *point)
        for z in (2, 5)
        for point in [(9 + z // 3, 18), (18 + z // 3, 27), (27 + z // 3, 18), (18 + z // 3, 9)]
    ]
    points = viewer.add_points(np.array(rows[:-1], float), name="clicks")
    widget = open_widget()
    entry(widget.form.task_box, "points")
    qtbot.waitUntil(
        lambda: "'clicks' has 7 points, and every four are one object; add 1 or remove 3" in widget.guide.text()
    )
    entry(widget.form.labels_box, viewer.layers["mine"])
    points.add(np.array(rows[-1:], float))
    qtbot.waitUntil(
        lambda: widget.guide.text() == "2 objects of four points each will be outlined on 2 planes, in 'mine'."
    )
    run(qtbot, widget)
    found = viewer.layers["mine"].data
    assert (found[2] == np.where(truth[2] == 1, 3, 0)).all()  # the labels go on after those that are there
    assert (found[5] == np.where(truth[5] == 1, 4, 0)).all()


def test_labels_of_a_run_are_given_to_nobody_else_while_it_goes_on(viewer, open_widget, qtbot, truth, predictor):
    labels = begin(viewer, truth, keys=(0,))
    viewer.add_points(np.array([(z, *at) for z in (2, 5) for at in [(9, 18), (18, 27), (27, 18), (18, 9)]], float))
    widget = open_widget()
    entry(widget.form.task_box, "points")
    entry(widget.form.labels_box, labels)
    predictor.most = 1
    ready(qtbot, widget)
    widget.start_button.click()
    session = widget.labels.find(labels)
    qtbot.waitUntil(lambda: session.next_label == 5)  # 1 and 2 are there, 3 and 4 are given
    open_gate(predictor)
    finish(qtbot, widget)
    assert set(np.unique(labels.data)) == {0, 1, 2, 3, 4}


# ---------------------------------------------------------------- with the annotate widget, and after a crash


def test_the_annotate_widget_has_the_run_in_its_history(real_viewer, open_widget, qtbot, truth, predictor):
    labels = begin(real_viewer, truth)
    annotate = AnnotateWidget(handed(real_viewer), load=lambda model, device: predictor, names=lambda: ["default"])
    real_viewer.window.add_dock_widget(annotate)
    qtbot.waitUntil(lambda: annotate.is_ready)
    annotate.desk.choose_labels(labels)
    widget = open_widget()
    run(qtbot, widget)
    assert annotate._session.actions[-1].kind == "carry"
    qtbot.waitUntil(annotate.undo_button.isEnabled)
    annotate.undo_button.click()
    assert not labels.data[1:8].any()
    qtbot.waitUntil(lambda: not widget.undo_button.isEnabled())
    annotate.redo_button.click()
    assert labels.data[1:8].any(axis=(1, 2)).all()
    annotate.shut_down()
    assert widget.labels.session(labels, widget.form.source).can_undo


def test_the_annotate_widget_takes_over_what_was_done_before_it_came(real_viewer, open_widget, qtbot, truth, predictor):
    labels = begin(real_viewer, truth)
    widget = open_widget()
    run(qtbot, widget)
    annotate = AnnotateWidget(handed(real_viewer), load=lambda model, device: predictor, names=lambda: ["default"])
    real_viewer.window.add_dock_widget(annotate)
    qtbot.waitUntil(lambda: annotate.is_ready)
    assert annotate._labels is labels
    annotate.undo()
    assert not labels.data[1:8].any()
    widget.redo()
    assert labels.data[1:8].any(axis=(1, 2)).all()
    annotate.shut_down()


@pytest.mark.parametrize("kind", [None, np.uint8, np.int32], ids=["as it was", "narrower", "wider"])
def test_a_run_that_was_cut_off_is_offered_and_restored(viewer, open_widget, qtbot, truth, kind):
    labels = begin(viewer, truth)
    widget = open_widget()
    run(qtbot, widget)
    after = labels.data.copy()
    recording = widget._journals._recordings[widget.labels.find(labels)]
    qtbot.waitUntil(lambda: recording.is_whole and not recording._flushing)  # which would keep it locked
    widget._journals.abandon()
    widget.shut_down()
    labels.data[1:8] = 0
    if kind is not None:
        labels.data = labels.data.astype(kind)
    again = open_widget()
    qtbot.waitUntil(lambda: "7 carried planes" in again.offer_text.text())
    again.restore_button.click()
    if kind is np.uint8:
        qtbot.waitUntil(lambda: "open them as uint16" in again.notice.text())
        return
    qtbot.waitUntil(lambda: "is back in 'mine'" in again.notice.text())
    assert (labels.data == after).all()
    again.undo_button.click()
    assert not labels.data[1:8].any()


def test_keys_that_somebody_else_has_stay_theirs(viewer, open_widget):
    def mine(viewer):
        """Somebody's."""

    viewer.bind_key("Shift+J", mine)
    widget = open_widget()
    assert {str(key) for key in viewer.keymap} >= {"Shift+J", "Shift+K"}
    widget.shut_down()
    assert list(viewer.keymap.values()) == [mine]


def test_a_widget_that_is_opened_again_knows_what_was_carried(real_viewer, open_widget, qtbot, truth):
    labels = begin(real_viewer, truth)
    widget = open_widget()
    run(qtbot, widget)
    widget.shut_down()
    again = open_widget()
    qtbot.waitUntil(again.undo_button.isEnabled)
    qtbot.waitUntil(lambda: "2 objects on 2 planes" in again.guide.text())  # the others are no key planes
    again.undo_button.click()
    assert not labels.data[1:8].any()


def test_what_another_widget_takes_back_is_known_however_it_is_written(viewer, open_widget, qtbot, truth, monkeypatch):
    labels = begin(viewer, truth)
    widget = open_widget()
    run(qtbot, widget)
    qtbot.waitUntil(lambda: len(widget.work.survey.known) == PLANES)
    monkeypatch.setattr(_label_store, "_LONG", 3)  # past napari's undo, which tells of nothing then
    widget.labels.find(labels).undo()
    qtbot.waitUntil(lambda: not widget.work.survey.known.get(4, True))
    ready(qtbot, widget)


def test_a_damaged_journal_does_not_hide_what_was_done(viewer, open_widget, truth, qtbot):
    begin(viewer, truth)
    widget = open_widget()
    widget._journals._lost = "Unfinished work cannot be offered: it is damaged."
    widget._refresh()
    assert widget.notice.text() == widget._journals._lost
    widget.notices.tell("3 files are done.")
    widget._refresh()
    assert widget.notice.text() == "3 files are done."


def test_what_is_restored_is_chosen_so_that_it_can_be_undone(viewer, open_widget, qtbot, truth):
    labels = begin(viewer, truth)
    widget = open_widget()
    entry(widget.form.task_box, "refine")
    qtbot.waitUntil(lambda: "into a new layer" in widget.guide.text())
    run(qtbot, widget)
    made = widget.work.last_layer
    recording = widget._journals._recordings[widget.labels.find(made)]
    qtbot.waitUntil(lambda: recording.is_whole and not recording._flushing)
    widget._journals.abandon()
    widget.shut_down()
    viewer.layers.remove(made)
    again = open_widget()
    qtbot.waitUntil(lambda: "carried planes" in again.offer_text.text())
    again.restore_button.click()
    qtbot.waitUntil(lambda: "is back in" in again.notice.text())
    assert again.form.labels_box.currentData() not in (labels, None)
    again._refresh()
    assert again.undo_button.isEnabled()


def test_closing_the_window_in_a_run_leaves_what_is_done(real_viewer, open_widget, qtbot, truth, predictor):
    labels = begin(real_viewer, truth, keys=(0, 4, 8))
    widget = open_widget()
    ready(qtbot, widget)
    widget.start_button.click()
    qtbot.waitUntil(lambda: labels.data[1].any())
    real_viewer.window.remove_dock_widget(widget)
    qtbot.waitUntil(lambda: widget._closed)
    assert labels.data[1].any()


# ---------------------------------------------------------------- files


def test_files_are_made_listed_and_opened(viewer, open_widget, qtbot, truth, tmp_path):
    for folder in ("images", "keys"):
        (tmp_path / folder).mkdir()
    keys = np.zeros_like(truth)
    keys[[0, 8]] = truth[[0, 8]]
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", (truth * 100).astype(np.uint8), metadata={"axes": "ZYX"})
        tifffile.imwrite(tmp_path / "keys" / f"{name}.tif", keys, metadata={"axes": "ZYX"})
    (tmp_path / "images" / "c.tif").write_bytes(b"no image")
    widget = open_widget()
    widget.tabs.setCurrentWidget(widget.files)
    qtbot.waitUntil(lambda: "Choose a folder with images" in widget.guide.text())
    for edit, text in (
        (widget.files.images_edit, "images"),
        (widget.files.prompts_edit, "keys"),
        (widget.files.out_edit, "out"),
    ):
        edit.setText(str(tmp_path / text))
        qtbot.waitUntil(lambda: not widget.start_button.isEnabled())  # not with those listed before
    ready(qtbot, widget)
    assert "carried through the other planes of 3 images" in widget.guide.text()
    run(qtbot, widget)
    assert [row.state for row in widget.files.model.rows] == ["done", "done", "failed"]
    assert "2 files are done, 1 failed. c.tif: " in widget.notice.text()
    widget.notices.say()
    widget.files.table.doubleClicked.emit(widget.files.model.index(2, 0))
    assert "c.tif" in widget.notice.text()
    assert same(tifffile.imread(tmp_path / "out" / "a.tif"), truth)
    run(qtbot, widget)
    assert [row.state for row in widget.files.model.rows] == ["was done", "was done", "failed"]
    widget.files.table.doubleClicked.emit(widget.files.model.index(1, 0))
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    assert same(viewer.layers[1].data, truth)


def test_a_cancelled_file_is_not_called_failed_and_no_hidden_field_decides(
    viewer, open_widget, qtbot, truth, tmp_path, predictor
):
    keys = np.zeros_like(truth)
    keys[[0, 8]] = truth[[0, 8]]
    for name, data in (("images", (truth * 100).astype(np.uint8)), ("keys", keys)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", data, metadata={"axes": "ZYX"})
    widget = open_widget()
    widget.tabs.setCurrentWidget(widget.files)
    widget.files.images_edit.setText(str(tmp_path / "images"))
    widget.files.prompts_edit.setText(str(tmp_path / "keys"))
    widget.files.out_edit.setText(str(tmp_path / "out"))
    predictor.most = 6
    ready(qtbot, widget)
    widget.start_button.click()
    qtbot.waitUntil(lambda: not predictor.gate.is_set())
    widget.cancel_button.click()
    open_gate(predictor)
    finish(qtbot, widget)
    assert "Cancelled" in widget.notice.text()
    assert widget.files.model.rows[0].state != "failed"
    run(qtbot, widget)
    assert [row.state for row in widget.files.model.rows] == ["done"]
    widget.form.protect_box.setChecked(False)  # in the other tab
    run(qtbot, widget)
    assert [row.state for row in widget.files.model.rows] == ["was done"]


@pytest.mark.parametrize(("count", "axes"), [(3, "SYX"), (3, "YXS"), (5, "SYX")])
def test_samples_of_a_picture_are_opened_wherever_they_lie(count, axes, tmp_path):
    shape = {"S": count, "Y": 40, "X": 50}
    data = np.zeros([shape[axis] for axis in axes], np.uint8)
    planar = "separate" if axes[0] == "S" else "contig"
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig=planar)
    _, opened, options = _layer(tmp_path / "a.tif", "image")
    layers = ViewerModel().add_image(opened, **options)
    if count == 3:
        assert layers.rgb
        assert layers.data.shape == (40, 50, 3)
    else:
        assert [layer.data.shape for layer in layers] == [(40, 50)] * 5
