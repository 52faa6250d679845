"""The annotate widget in a real viewer, with a predictor that answers with the ellipse in the box of the clicks."""

import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from skimage.measure import find_contours

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.components import ViewerModel
from napari.layers import Image, Labels, Points
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import Qt

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from hands import Hands

import napari_delse.checkpoint  # noqa: F401 - imports torch, for which the first test would else wait in the worker
from napari_delse._giving_up import go_on
from napari_delse.geometry import Crop, ObjectMask
from napari_delse.widgets import _desk
from napari_delse.widgets._annotate import editing
from napari_delse.widgets._label_store import largest_label
from napari_delse.widgets._layers import camera_of, nearest_on, outline
from napari_delse.widgets._source import ImageSource, channel_axes
from napari_delse.widgets._still import StillWindow

pytestmark = pytest.mark.usefixtures("own_home")

RNG = np.random.default_rng(0)
DIAMOND = [(20, 40), (40, 60), (60, 40), (40, 20)]


@dataclass
class Ellipse:
    mask: ObjectMask
    confidence: float
    corrections: tuple

    def contours(self):
        (y, x), mask = self.mask.origin, np.pad(self.mask.mask, 1)
        return [line + np.array([y - 1, x - 1]) for line in find_contours(mask.astype(float), 0.5)]


class StubPredictor:
    """Answers at once, or when `gate` is opened; notes the planes it was asked about."""

    def __init__(self, error=None):
        self.gate = threading.Event()
        self.gate.set()
        self.asked, self.planes, self.error = [], [], error

    def segment(self, plane, prompt, corrections=(), *, known=None):
        self.asked.append(tuple(corrections))
        self.known = known
        deadline = time.monotonic() + 60
        while not self.gate.wait(0.005) and time.monotonic() < deadline:
            go_on()
        self.planes.append(plane)
        if self.error is not None:
            raise self.error
        y0, x0, y1, x1 = prompt.box
        ys, xs = np.mgrid[: plane.shape[0], : plane.shape[1]]
        grow = sum(c.end[0] - c.start[0] for c in corrections)
        inside = ((ys - (y0 + y1) / 2) / max((y1 - y0) / 2 + grow, 0.5)) ** 2
        inside = inside + ((xs - (x0 + x1) / 2) / max((x1 - x0) / 2, 0.5)) ** 2 <= 1
        mask = ObjectMask.from_crop(inside, Crop(0, 0, *plane.shape, 32), plane.shape)
        return Ellipse(mask, 0.9, tuple(corrections))


def bring_up(viewer, qtbot):
    """Show a real window with all of the image in it."""
    viewer.window._qt_window.resize(1000, 700)
    viewer.show()
    qtbot.wait(50)
    viewer.reset_view()


@pytest.fixture
def predictor():
    return StubPredictor()


@pytest.fixture
def real_viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def viewer():
    """The viewer without its window: enough for all but mouse, keys and endings, and ten times faster."""
    return ViewerModel()


@pytest.fixture
def open_widget(annotating, predictor, request):
    """Opens the widget on the viewer of the test, and waits until it is ready."""

    def open_it(load=None, ready=True):
        viewer = request.getfixturevalue("real_viewer" if "real_viewer" in request.fixturenames else "viewer")
        return annotating(viewer, predictor, load, ("default", "mine"), ready=ready)

    yield open_it
    predictor.gate.set()


def click(widget, *points, index=()):
    """Clicks as the Points layer records them."""
    for point in points:
        widget._layers.clicks.add((*index, *point))


def wait_for_preview(qtbot, widget):
    qtbot.waitUntil(lambda: widget._session.preview is not None and widget.accept_button.isEnabled())


def shown_mask(widget, shape):
    """The pixels under the preview overlay, in the world's coordinates."""
    preview = widget._layers.preview
    positions = np.argwhere(np.ones(shape))
    inside = []
    for position in positions:
        value = preview.get_value(widget._layers.clicks.data_to_world(position), world=True)
        inside.append(bool(value))
    return np.array(inside).reshape(shape)


# ---------------------------------------------------------------- opening


def test_without_an_image_it_says_what_to_do(viewer, open_widget, qtbot):
    widget = open_widget(ready=False)
    assert "Open an image" in widget.guide.text()
    viewer.add_image(np.zeros((64, 64)), name="later")
    qtbot.waitUntil(lambda: widget._layers is not None and widget._layers.is_complete)
    assert "top-most" in widget.guide.text()


def test_layers_lie_where_the_image_is(real_viewer, open_widget):
    kwargs = {
        "scale": (2, 0.5, 0.25),
        "translate": (7, 5, -3),
        "rotate": 30,
        "units": ("um", "um", "um"),
        "axis_labels": ("z", "y", "x"),
    }
    image = real_viewer.add_image(np.zeros((4, 64, 48)), **kwargs)
    widget = open_widget()
    for layer in (widget._layers.clicks, widget._layers.drags, widget._layers.preview, widget._labels):
        np.testing.assert_allclose(layer.data_to_world((1, 10, 20)), image.data_to_world((1, 10, 20)))
        assert layer.units == image.units
        assert layer.axis_labels == image.axis_labels
    assert widget._labels.data.shape == image.data.shape
    assert real_viewer.layers.selection.active is widget._layers.clicks
    assert widget._layers.clicks.mode == "add"


@pytest.mark.parametrize("shape", [(2, 40, 50), (2, 3, 40, 50)])
def test_layers_lie_where_a_sheared_image_is_also_without_its_channels(shape):
    ndim = len(shape)
    shear = np.arange(1, ndim * (ndim - 1) // 2 + 1) / 10
    image = Image(np.zeros(shape), shear=shear, scale=np.arange(1, ndim + 1), translate=np.arange(ndim))
    layer = Points(ndim=ndim - 1, **ImageSource(image, 0).placement())
    for point in RNG.uniform(0, 30, (5, ndim - 1)):
        np.testing.assert_allclose(layer.data_to_world(point), image.data_to_world((0, *point))[1:])


def test_manifest_names_this_widget():
    import napari_delse

    manifest = (Path(napari_delse.__file__).parent / "napari.yaml").read_text()
    assert "napari_delse.widgets.annotate:AnnotateWidget" in manifest


# ---------------------------------------------------------------- four clicks, one key


def test_four_clicks_preview_and_accept(real_viewer, open_widget, qtbot):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    for number, point in enumerate(DIAMOND, 1):
        assert f"{number} of 4" in widget.guide.text()
        assert not widget._labels.data.any()
        click(widget, point)
        qtbot.wait(5)
    wait_for_preview(qtbot, widget)
    assert "Enter accepts" in widget.guide.text()
    mask = widget._session.preview.mask.to_plane((80, 80))
    assert not widget._labels.data.any()
    np.testing.assert_array_equal(shown_mask(widget, (80, 80)), mask)
    widget.accept()
    np.testing.assert_array_equal(widget._labels.data, mask)
    qtbot.waitUntil(lambda: "1 of 4" in widget.guide.text())
    assert len(widget._layers.clicks.data) == 0
    assert not shown_mask(widget, (80, 80)).any()
    assert widget.count.text() == "1 object accepted"
    click(widget, *DIAMOND)
    wait_for_preview(qtbot, widget)
    widget.protect_box.setChecked(False)
    widget.accept()
    np.testing.assert_array_equal(widget._labels.data, mask * 2)


def test_real_mouse_and_keys(real_viewer, open_widget, qtbot):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    bring_up(real_viewer, qtbot)
    mouse = Hands(real_viewer)
    for point in DIAMOND:
        mouse.click(point)
    np.testing.assert_allclose(widget._layers.clicks.data, DIAMOND, atol=0.3)
    wait_for_preview(qtbot, widget)
    center = camera_of(real_viewer).center
    mouse.drag((59.9, 40), (69.9, 40))  # the outline is pulled down ...
    qtbot.waitUntil(lambda: len(widget._session.draft.corrections) == 1)
    wait_for_preview(qtbot, widget)
    assert widget._session.preview.mask.mask.shape[0] > 50
    qtbot.waitUntil(lambda: len(widget._layers.drags.data) == 1)
    assert camera_of(real_viewer).center == center
    mouse.drag((30, 70), (30, 75))  # ... and elsewhere the camera moves
    assert camera_of(real_viewer).center != center
    assert len(widget._session.draft.corrections) == 1
    mouse.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not widget._session.draft.corrections
    qtbot.waitUntil(lambda: len(widget._layers.drags.data) == 0)
    mouse.key(Qt.Key.Key_Return)
    assert (widget._labels.data == 1).sum() == widget._session.objects[1].area > 0
    mouse.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not widget._labels.data.any()
    assert len(widget._session.draft.clicks) == 4
    qtbot.waitUntil(lambda: len(widget._layers.clicks.data) == 4)
    mouse.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    assert widget._labels.data.any()
    click(widget, DIAMOND[0])
    mouse.key(Qt.Key.Key_Escape)
    assert widget._session.draft.is_empty


def test_a_pull_that_rests_shows_its_outline_before_it_is_let_go(real_viewer, open_widget, predictor, qtbot):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    bring_up(real_viewer, qtbot)
    before = outlined(widget, qtbot)
    qtbot.waitUntil(lambda: widget.has_shown_preview)
    mouse = Hands(real_viewer)
    mouse.drag((59.9, 40), (69.9, 40), release=False)
    qtbot.waitUntil(lambda: widget.desk.shown[0].mask is not before)
    assert widget.preview_mask is before
    assert not widget._session.draft.corrections
    asked = len(predictor.planes)
    mouse.release((69.9, 40))
    qtbot.waitUntil(lambda: len(widget._session.draft.corrections) == 1)
    assert widget.has_shown_preview
    assert widget.preview_mask.mask.shape[0] > before.mask.shape[0]
    assert len(predictor.planes) == asked
    assert predictor.known.mask is before  # whose pixels need not be read again
    top = widget.preview_mask.origin[0]
    mouse.drag((top, 40), (top - 5, 40), release=False)  # and back to where it began: no pull
    qtbot.waitUntil(lambda: not widget.has_shown_preview)
    mouse.move((top, 40))
    mouse.release((top, 40))
    qtbot.waitUntil(lambda: widget.has_shown_preview)
    assert len(widget._session.draft.corrections) == 1


def test_a_pull_that_goes_on_does_not_wait_for_the_outline_of_where_it_rested(
    real_viewer, open_widget, predictor, qtbot
):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    bring_up(real_viewer, qtbot)
    before = outlined(widget, qtbot)
    predictor.gate.clear()
    mouse = Hands(real_viewer)
    mouse.drag((59.9, 40), (64.9, 40), release=False)
    qtbot.waitUntil(lambda: predictor.asked[-1] == (widget._hearing._pulled,))
    mouse.move((69.9, 40))
    mouse.release((69.9, 40))
    # The gate is shut: the one before was given up.
    qtbot.waitUntil(lambda: predictor.asked[-1] == widget._session.draft.corrections != ())
    assert len(predictor.planes) == 1
    predictor.gate.set()
    qtbot.waitUntil(lambda: widget.has_shown_preview and widget.preview_mask is not before)
    assert len(predictor.planes) == 2


def test_the_window_is_not_painted_while_an_answer_is_near(real_viewer, open_widget, predictor, qtbot, monkeypatch):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    bring_up(real_viewer, qtbot)
    qtbot.wait(100)
    drawn = []
    canvas = real_viewer.window._qt_viewer.canvas._scene_canvas
    canvas.events.draw.connect(lambda _: drawn.append(widget.has_shown_preview), position="last")

    def be_patient(seconds):
        monkeypatch.setattr(editing, "PATIENCE", seconds)
        widget._timers["patience"].setInterval(round(1000 * seconds))
        widget._still.longest = round(1000 * seconds)

    be_patient(60)  # however busy the machine is
    predictor.gate.clear()
    click(widget, *DIAMOND[:3])
    qtbot.waitUntil(lambda: bool(drawn))
    click(widget, DIAMOND[3])
    drawn.clear()
    qtbot.wait(100)
    assert not drawn
    predictor.gate.set()
    qtbot.waitUntil(lambda: bool(drawn))
    assert drawn[0]  # with the answer in it
    predictor.gate.clear()
    drawn.clear()
    be_patient(0.1)
    click(widget, (75, 40))
    qtbot.waitUntil(lambda: bool(drawn))  # the answer did not come soon enough
    assert not drawn[0]
    predictor.gate.set()
    wait_for_preview(qtbot, widget)
    predictor.gate.clear()
    drawn.clear()
    be_patient(60)
    click(widget, (40, 75))  # and is not expected to come soon from now on
    qtbot.waitUntil(lambda: bool(drawn))
    predictor.gate.set()


@pytest.mark.parametrize("ending", ["closed", "forgotten"])
def test_a_window_whose_widget_goes_while_it_waits_is_painted(real_viewer, open_widget, predictor, qtbot, ending):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    bring_up(real_viewer, qtbot)
    widget._still.longest = 60_000 if ending == "closed" else 250
    predictor.gate.clear()
    click(widget, *DIAMOND)
    drawn = []
    real_viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(drawn.append)
    real_viewer.window._qt_viewer.canvas._scene_canvas.update()
    if ending == "closed":
        widget.shut_down()
    else:
        widget._still = StillWindow(widget, 250)  # nobody is left who would end the other one
    qtbot.waitUntil(lambda: bool(drawn))


# ---------------------------------------------------------------- corrections


def outlined(widget, qtbot, points=DIAMOND, index=()):
    click(widget, *points, index=index)
    wait_for_preview(qtbot, widget)
    return widget._session.preview.mask


def test_a_line_on_the_drags_layer_corrects(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    before = outlined(widget, qtbot)
    widget.switch_tool()
    assert viewer.layers.selection.active is widget._layers.drags
    widget._layers.drags.add_lines([[(60, 40), (66, 40)]])
    qtbot.waitUntil(lambda: widget._session.draft.corrections and widget._session.preview is not None)
    assert widget._session.preview.mask.area > before.area
    drag = widget._session.draft.corrections[0]
    assert drag.start == pytest.approx((60.5, 40), abs=0.5)  # put onto the outline
    assert drag.start != (60, 40)
    assert drag.end == (66, 40)
    widget._layers.drags.selected_data = {0}
    widget._layers.drags.remove_selected()
    qtbot.waitUntil(lambda: not widget._session.draft.corrections and widget._session.preview is not None)
    assert widget._session.preview.mask.area == before.area
    widget.switch_tool()
    assert viewer.layers.selection.active is widget._layers.clicks


def test_a_line_far_from_the_outline_is_refused(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    widget._layers.drags.add_lines([[(5, 5), (9, 9)]])
    qtbot.waitUntil(lambda: "from the outline" in widget.notice.text())
    qtbot.waitUntil(lambda: len(widget._layers.drags.data) == 0)
    assert not widget._session.draft.corrections


def test_a_line_on_another_plane_is_refused(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((3, 80, 80)))
    widget = open_widget()
    widget._layers.drags.add_lines([[(0, 60, 40), (0, 66, 40)]])
    qtbot.waitUntil(lambda: "there is none yet; click the extreme points first" in widget.notice.text())
    qtbot.waitUntil(lambda: len(widget._layers.drags.data) == 0)
    outlined(widget, qtbot, index=(0,))
    widget._layers.drags.add_lines([[(0, 60, 40), (0, 66, 40)]])
    qtbot.waitUntil(lambda: len(widget._session.draft.corrections) == 1)
    draft = widget._session.draft
    viewer.dims.set_point(0, 2)
    widget._layers.drags.add_lines([[(2, 60, 40), (2, 70, 40)]])
    qtbot.waitUntil(lambda: "begun on another plane" in widget.notice.text())
    qtbot.waitUntil(lambda: len(widget._layers.drags.data) == 1)
    assert widget._session.draft == draft


def test_a_moved_corner_leaves_a_box_a_box(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    widget._layers.drags.add_rectangles([[(20, 20), (20, 60), (60, 60), (60, 20)]])
    wait_for_preview(qtbot, widget)
    clicks = widget._layers.clicks
    qtbot.waitUntil(lambda: len(clicks.data) == 2)
    for place in ((60, 60), (70, 65)):  # taken, and moved
        clicks._move([1], np.array(place))
    wait_for_preview(qtbot, widget)
    assert widget._session.draft.kind == "box"
    assert widget._session.draft.clicks == ((20, 20), (70, 65))


def test_a_rectangle_is_a_box_prompt(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    widget.switch_tool()
    widget._layers.drags.add_rectangles([[(20, 20), (20, 60), (60, 60), (60, 20)]])
    wait_for_preview(qtbot, widget)
    assert widget._session.draft.kind == "box"
    qtbot.waitUntil(lambda: len(widget._layers.drags.data) == 0)


def test_a_box_that_is_being_drawn_is_left_alone(real_viewer, open_widget, qtbot):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    real_viewer.show()
    qtbot.wait(50)
    mouse = Hands(real_viewer)
    widget.switch_tool()
    widget._layers.drags.mode = "add_rectangle"
    mouse.drag((20, 20), (50, 60), release=False)
    widget._refresh()
    mouse.release((50, 60))
    qtbot.waitUntil(lambda: widget._session.draft.kind == "box")


def test_further_clicks_and_moved_clicks_outline_anew(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    before = outlined(widget, qtbot)
    after = outlined(widget, qtbot, [(70, 40)])
    assert len(widget._session.draft.clicks) == 5
    assert after.area > before.area
    widget._layers.clicks.selected_data = {4}
    widget._layers.clicks.remove_selected()
    qtbot.waitUntil(lambda: len(widget._session.draft.clicks) == 4)
    assert widget._session.preview.mask.area == before.area  # known already
    widget.undo()
    widget.undo()
    widget.undo()
    assert len(widget._session.draft.clicks) == 3
    qtbot.waitUntil(lambda: len(widget._layers.clicks.data) == 3)
    widget.redo()
    assert widget._session.preview.mask.area == before.area


def test_the_outline_stays_until_the_next_one_is_found(viewer, open_widget, qtbot, predictor):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    before = widget._layers.preview.data
    predictor.gate.clear()
    click(widget, (75, 40))
    qtbot.waitUntil(lambda: "Outlining" in widget.guide.text())
    assert widget._layers.preview.data is before
    predictor.gate.set()
    wait_for_preview(qtbot, widget)
    qtbot.waitUntil(lambda: widget._layers.preview.data is not before)
    widget.undo()
    widget.undo()  # three clicks are left
    qtbot.waitUntil(lambda: widget._layers.preview.data.size == 1)


def test_a_preview_is_shown_by_one_refresh(real_viewer, open_widget, qtbot):
    real_viewer.add_image(np.zeros((2, 80, 80), np.uint8), scale=(4, 2, 2))
    widget = open_widget()
    real_viewer.dims.current_step = (1, 0, 0)
    told = []
    outlined(widget, qtbot, index=(1,))
    preview = widget._layers.preview
    shown = real_viewer.window._qt_viewer.canvas.layer_to_visual[preview]
    preview.events.set_data.connect(told.append)
    before = shown.node.transform.matrix[3, :2]
    click(widget, (1, 75, 40))
    qtbot.waitUntil(lambda: bool(told))
    assert len(told) == 1
    assert shown._data.shape == preview.data.shape[1:]
    assert np.any(shown.node.transform.matrix[3, :2] != before)
    real_viewer.dims.set_point(0, 0)
    assert not shown.node.visible or not shown._data.any()  # it is the other plane's


def test_late_answers_are_dropped(viewer, open_widget, qtbot, predictor):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    predictor.gate.clear()
    click(widget, *DIAMOND)
    qtbot.waitUntil(lambda: "Outlining" in widget.guide.text() and len(predictor.asked) == 1)
    click(widget, (70, 40))
    click(widget, (75, 40))
    predictor.gate.set()
    wait_for_preview(qtbot, widget)
    assert widget._session.preview.mask.mask.shape[0] > 50


def test_of_several_that_wait_only_the_newest_is_predicted(viewer, open_widget, qtbot, predictor):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    gate = threading.Event()
    widget._outliner.runner.submit(lambda: gate.wait(60), bool, bool)
    click(widget, *DIAMOND)
    qtbot.waitUntil(lambda: "Outlining" in widget.guide.text())
    click(widget, (70, 40))
    click(widget, (75, 40))
    gate.set()
    wait_for_preview(qtbot, widget)
    assert widget._session.preview.mask.mask.shape[0] > 50
    assert len(predictor.asked) == 1


# ---------------------------------------------------------------- all kinds of images


@pytest.mark.parametrize("shape", [(3, 80, 80), (2, 3, 80, 80), (2, 2, 3, 80, 80)])
def test_the_plane_shown_is_the_plane_labelled(viewer, open_widget, qtbot, predictor, shape):
    viewer.add_image(np.zeros(shape, np.uint8))
    widget = open_widget()
    index = tuple(n - 1 for n in shape[:-2])
    viewer.dims.current_step = (*index, 0, 0)
    mask = outlined(widget, qtbot, index=index)
    assert predictor.planes[-1].index == index
    widget.accept()
    np.testing.assert_array_equal(widget._labels.data[index], mask.to_plane((80, 80)))
    assert widget._labels.data.sum() == mask.area


def test_rolled_dims_and_scale(real_viewer, open_widget, qtbot, predictor):
    real_viewer.add_image(np.zeros((80, 90, 100), np.uint8), scale=(4, 1, 0.5))
    widget = open_widget()
    real_viewer.dims.order = (1, 0, 2)  # the plane of z and x at one y
    real_viewer.dims.set_point(1, 33)
    click(widget, *((z, 33, x) for z, x in DIAMOND))
    wait_for_preview(qtbot, widget)
    assert predictor.planes[-1].axes == (0, 2)
    assert predictor.planes[-1].index == (33,)
    mask = widget._session.preview.mask.to_plane((80, 100))
    inside, outside = widget._layers.preview.get_value((40, 33, 40)), widget._layers.preview.get_value((3, 33, 3))
    assert not outside
    widget.accept()
    np.testing.assert_array_equal(widget._labels.data[:, 33], mask)
    del inside
    real_viewer.dims.order = (0, 1, 2)
    widget.reopen_object(1)
    assert sorted(real_viewer.dims.displayed) == [0, 2]
    assert real_viewer.dims.current_step[1] == 33
    real_viewer.dims.order = (0, 1, 2)
    widget.undo()
    assert sorted(real_viewer.dims.displayed) == [0, 2]


def test_a_click_on_another_plane_is_taken_back(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((3, 80, 80)))
    widget = open_widget()
    click(widget, DIAMOND[0], index=(0,))
    click(widget, DIAMOND[1], index=(1,))
    qtbot.waitUntil(lambda: len(widget._layers.clicks.data) == 1)
    assert "another plane" in widget.notice.text()
    click(widget, DIAMOND[1], index=(0,))
    qtbot.waitUntil(lambda: not widget.notice.isVisibleTo(widget))


def test_undo_of_an_accepted_object_shows_its_plane(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((3, 80, 80)), scale=(5, 1, 1), translate=(100, 0, 0))
    widget = open_widget()
    viewer.dims.current_step = (2, 0, 0)
    outlined(widget, qtbot, index=(2,))
    widget.accept()
    viewer.dims.current_step = (0, 0, 0)
    widget.undo()
    assert viewer.dims.current_step[0] == 2


def test_rgb(viewer, open_widget, qtbot, predictor):
    viewer.add_image(np.zeros((2, 80, 80, 3), np.uint8), rgb=True)
    widget = open_widget()
    outlined(widget, qtbot, index=(1,))
    plane = predictor.planes[-1]
    assert plane.rgb
    assert plane.channel_axis == 3
    assert plane.index == (1,)
    assert not widget.channel_box.isVisibleTo(widget.settings)
    widget.accept()
    assert widget._labels.data.shape == (2, 80, 80)


def choose_channels(widget, axis, text=""):
    box = widget.channel_box
    box.setCurrentIndex(next(i for i in range(box.count()) if box.itemData(i) == axis))
    widget.channels_edit.setText(text)
    box.activated.emit(box.currentIndex())


def test_labels_that_were_left_are_outlined_anew_with_another_image(viewer, open_widget, qtbot, predictor):
    first, second = viewer.add_image(np.zeros((80, 80))), np.ones((80, 80))
    widget = open_widget()
    former = widget._labels
    outlined(widget, qtbot)
    other = viewer.add_labels(np.zeros((80, 80), np.uint16))
    widget.desk.choose_labels(other)
    first.data = second
    widget.desk.choose_labels(former)
    wait_for_preview(qtbot, widget)
    assert predictor.planes[-1].data is second
    assert predictor.known is None


def test_other_channels_are_outlined_anew(viewer, open_widget, qtbot, predictor):
    viewer.add_image(np.zeros((4, 80, 80), np.uint8))
    widget = open_widget()
    choose_channels(widget, 0, "1, 3")
    labels = widget._labels
    outlined(widget, qtbot)
    widget.accept()
    outlined(widget, qtbot, [(y, x + 10) for y, x in DIAMOND])
    choose_channels(widget, 0, "2")
    qtbot.waitUntil(lambda: widget._labels is labels and widget._session.preview is not None)
    assert [plane.channels for plane in predictor.planes] == [(1, 3), (1, 3), (2,)]


def test_channels_on_the_first_axis(viewer, open_widget, qtbot, predictor):
    viewer.add_image(np.zeros((4, 80, 80), np.uint8))
    widget = open_widget()
    choose_channels(widget, 0, "1, 3")
    assert widget._labels.data.shape == (80, 80)
    assert len([layer for layer in viewer.layers if isinstance(layer, Labels)]) == 2  # and the preview
    viewer.dims.current_step = (2, 0, 0)
    mask = outlined(widget, qtbot)
    assert predictor.planes[-1].channels == (1, 3)
    widget.accept()
    np.testing.assert_array_equal(widget._labels.data, mask.to_plane((80, 80)))


def test_channels_are_those_of_the_image_that_is_chosen(viewer, open_widget):
    viewer.add_image(np.zeros((4, 80, 80), np.uint8), name="channels")
    widget = open_widget()
    choose_channels(widget, 0, "1, 3")
    labels = widget._labels
    labels.paint((5, 5), 1)
    viewer.add_image(np.zeros((30, 80, 80), np.uint8), name="planes")
    viewer.add_image(np.zeros((80, 80), np.uint8), name="flat")
    for name, axis, channels, shape in (
        ("planes", None, (), (30, 80, 80)),
        ("flat", None, (), (80, 80)),
        ("channels", 0, (1, 3), (80, 80)),
    ):
        widget.image_box.setCurrentIndex(widget.image_box.findText(name))
        widget.image_box.activated.emit(widget.image_box.currentIndex())
        source = widget.desk.source
        assert (source.layer.name, source.channel_axis, source.channels) == (name, axis, channels)
        assert widget._labels.data.shape == shape
        assert widget.channels_edit.text() == ",".join(map(str, channels))
    assert widget._labels is labels


def test_channels_in_the_middle(viewer, open_widget, qtbot, predictor):
    image = viewer.add_image(np.zeros((2, 4, 80, 80), np.uint8), scale=(3, 2, 1, 1), translate=(0, 7, 0, 0))
    widget = open_widget()
    choose_channels(widget, 1)
    assert widget._labels.data.shape == (2, 1, 80, 80)
    for channel in range(4):  # one label plane lies under every channel
        world = image.data_to_world((1, channel, 5, 6))
        assert np.round(widget._labels.world_to_data(world)).tolist() == [1, 0, 5, 6]
    viewer.dims.current_step = (1, 3, 0, 0)
    mask = outlined(widget, qtbot, index=(1, 0.375))  # as a click on channel 3 lies
    plane = predictor.planes[-1]
    assert (plane.channel_axis, plane.channels, plane.index) == (1, (0, 1, 2), (1,))
    widget.accept()
    assert widget._labels.data[1].sum() == mask.area


def test_wrong_channels_are_refused_in_one_sentence(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((4, 80, 80), np.uint8))
    widget = open_widget()
    choose_channels(widget, 0, "7")
    qtbot.waitUntil(lambda: "channels 0 to 3" in widget.notice.text())


def test_multiscale_and_dask(viewer, open_widget, qtbot, predictor):
    da = pytest.importorskip("dask.array")
    big = da.zeros((160, 160), chunks=40, dtype=np.uint8)
    viewer.add_image([big, big[::2, ::2]], multiscale=True)
    widget = open_widget()
    mask = outlined(widget, qtbot)
    assert predictor.planes[-1].data is big
    widget.accept()
    assert widget._labels.data.shape == (160, 160)
    assert widget._labels.data.sum() == mask.area


def test_three_dimensional_view_asks_for_two(real_viewer, open_widget, qtbot):
    real_viewer.add_image(np.zeros((3, 80, 80)))
    widget = open_widget()
    real_viewer.dims.ndisplay = 3
    qtbot.waitUntil(lambda: "2D view" in widget.guide.text())
    click(widget, DIAMOND[0], index=(0,))
    qtbot.waitUntil(lambda: len(widget._layers.clicks.data) == 0)
    assert "2D view" in widget.notice.text()


# ---------------------------------------------------------------- labels that are there already


def choose_labels(widget, layer):
    box = widget.labels_box
    box.setCurrentIndex(next(i for i in range(box.count()) if box.itemData(i) is layer))
    box.activated.emit(box.currentIndex())


def test_existing_labels_are_chosen_protected_and_continued(viewer, open_widget, qtbot):
    data = np.zeros((80, 80), np.uint8)
    data[:, :40] = 9
    viewer.add_image(np.zeros((80, 80)))
    labels = viewer.add_labels(data, name="mine")
    widget = open_widget()
    offered = [widget.labels_box.itemText(i) for i in range(widget.labels_box.count())]
    assert offered == ["mine", "Image objects", "New layer"]
    choose_labels(widget, labels)
    labels.preserve_labels = True  # the brush's setting changes nothing
    mask = outlined(widget, qtbot).to_plane((80, 80))
    widget.accept()
    np.testing.assert_array_equal(labels.data[:, :40], 9)
    np.testing.assert_array_equal(labels.data[:, 40:] == 10, mask[:, 40:])
    assert labels.preserve_labels
    widget.undo()
    assert set(np.unique(labels.data)) == {0, 9}
    widget.protect_box.setChecked(False)
    widget.accept()
    np.testing.assert_array_equal(labels.data == 10, mask)
    widget.undo()
    np.testing.assert_array_equal(labels.data[:, :40], 9)
    assert not labels.data[:, 40:].any()


def test_labels_that_do_not_fit_are_shown_with_the_reason(viewer, open_widget):
    viewer.add_image(np.zeros((80, 80)))
    viewer.add_labels(np.zeros((8, 8), np.uint8), name="small")
    viewer.add_labels([np.zeros((80, 80), int), np.zeros((40, 40), int)], multiscale=True, name="pyramid")
    box = open_widget().labels_box
    texts = [box.itemText(i) for i in range(box.count())]
    assert texts[:2] == ["Image objects", "New layer"]
    assert texts[2] == "small: shape (8, 8), and the image has (80, 80)"
    assert texts[3].startswith("pyramid: several resolutions")
    assert [box.model().item(i).isEnabled() for i in range(4)] == [True, True, False, False]
    assert box.currentIndex() == 0


def test_full_dtype_is_told_in_one_sentence(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    labels = viewer.add_labels(np.full((80, 80), 255, np.uint8))
    widget = open_widget()
    choose_labels(widget, labels)
    outlined(widget, qtbot)
    widget.accept()
    qtbot.waitUntil(lambda: "label 256 does not fit into uint8" in widget.notice.text().lower())


def test_painting_is_respected(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    widget.accept()
    assert widget._labels.selected_label == 1  # the brush goes on with the new object
    before = widget._labels.data.copy()
    widget._labels.paint((40, 40), 7)
    painted = widget._labels.data.copy()
    widget._labels.paint((41, 40), 0)
    assert widget._session.next_label == 8
    widget.undo()  # one stroke after the other, before the object
    np.testing.assert_array_equal(widget._labels.data, painted)
    widget.undo()
    np.testing.assert_array_equal(widget._labels.data, before)
    widget.undo()
    assert not widget._labels.data.any()
    for _ in range(2):
        widget.redo()
    np.testing.assert_array_equal(widget._labels.data, painted)


def test_strokes_on_labels_that_are_not_chosen_are_noted_and_undone_in_their_turn(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    widget.accept()
    first, session = widget._labels, widget._session
    before = first.data.copy()
    widget.desk.choose_labels(None)
    assert widget._labels is not first
    first.paint((70, 70), 7)
    assert session.next_label == 8
    undo, redo = (first.keymap[coerce_keybinding(key)] for key in ("Ctrl+Z", "Ctrl+Shift+Z"))
    undo(first)
    np.testing.assert_array_equal(first.data, before)
    assert list(session.objects) == [1]
    undo(first)
    assert not first.data.any()
    assert not session.objects  # the object goes with its pixels
    redo(first)
    redo(first)
    assert first.data[70, 70] == 7
    choose_labels(widget, first)
    outlined(widget, qtbot, [(y, x + 15) for y, x in DIAMOND])
    widget.accept()
    assert sorted(session.objects) == [1, 8]


def test_undo_keys_are_given_back_when_the_work_ends(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    widget.accept()
    first, key = widget._labels, coerce_keybinding("Ctrl+Z")
    widget.desk.choose_labels(None)
    assert key in first.keymap
    widget.shut_down()
    assert key not in first.keymap


@pytest.mark.parametrize("kind", ["zarr", "dask", "memmap"])
def test_labels_on_disk(viewer, open_widget, qtbot, tmp_path, kind):
    if kind == "zarr":
        data = pytest.importorskip("zarr").zeros(shape=(2, 80, 80), chunks=(1, 32, 32), dtype="uint16")
    elif kind == "dask":
        data = pytest.importorskip("dask.array").zeros((2, 80, 80), chunks=(1, 32, 32), dtype="uint16")
    else:
        data = np.memmap(tmp_path / "labels.dat", np.uint16, "w+", shape=(2, 80, 80))
    viewer.add_image(np.zeros((2, 80, 80)))
    labels = viewer.add_labels(data)
    widget = open_widget()
    choose_labels(widget, labels)
    mask = outlined(widget, qtbot, index=(0,)).to_plane((80, 80))
    qtbot.waitUntil(lambda: not widget.desk.searched)
    widget.accept()
    np.testing.assert_array_equal(np.asarray(labels.data[0]), mask)
    widget.undo()
    assert not np.asarray(labels.data[0]).any()


@pytest.mark.parametrize("again", ["accept", "choose"])
def test_labels_that_could_not_be_searched_are_searched_again(viewer, open_widget, qtbot, monkeypatch, again):
    zarr, reads = pytest.importorskip("zarr"), []

    def search(data, is_stopped):
        reads.append(data)
        if len(reads) == 1:
            raise OSError("the disk is away\nfor now")
        return largest_label(data, is_stopped)

    monkeypatch.setattr(_desk, "largest_label", search)
    data = zarr.zeros(shape=(80, 80), chunks=(32, 32), dtype="uint16")
    data[0, 0] = 5
    viewer.add_image(np.zeros((80, 80)))
    labels = viewer.add_labels(data, name="mine")
    widget = open_widget()
    choose_labels(widget, labels)
    qtbot.waitUntil(lambda: "could not be searched for the largest one (the disk is away);" in widget.notice.text())
    outlined(widget, qtbot)
    if again == "accept":
        widget.accept()
        assert not widget._session.objects  # its label may be taken
    else:
        choose_labels(widget, labels)
    qtbot.waitUntil(lambda: not widget.desk.searched)
    widget.accept()
    assert list(widget._session.objects) == [6]
    assert len(reads) == 2


def test_read_only_labels_are_told_in_one_sentence(viewer, open_widget, qtbot):
    data = np.zeros((80, 80), np.uint8)
    data.flags.writeable = False
    viewer.add_image(np.zeros((80, 80)))
    labels = viewer.add_labels(data)
    widget = open_widget()
    choose_labels(widget, labels)
    outlined(widget, qtbot)
    widget.accept()
    qtbot.waitUntil(lambda: "read-only" in widget.notice.text())
    assert not widget._session.objects


def test_writing_without_the_private_painting(viewer, open_widget, qtbot, monkeypatch):
    monkeypatch.delattr(Labels, "_paint_region_with_mask")
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    mask = outlined(widget, qtbot).to_plane((80, 80))
    widget.accept()
    np.testing.assert_array_equal(widget._labels.data, mask)
    widget.undo()
    assert not widget._labels.data.any()


# ---------------------------------------------------------------- what people do to layers


def test_renamed_layers_go_on_working(viewer, open_widget, qtbot):
    image = viewer.add_image(np.zeros((80, 80)), name="before")
    widget = open_widget()
    for number, layer in enumerate(list(viewer.layers)):
        layer.name = f"renamed {number}"
    assert widget.image_box.currentText() == image.name == "renamed 0"
    outlined(widget, qtbot)
    widget.accept()
    assert widget._labels.data.any()


@pytest.mark.parametrize("name", ["clicks", "drags", "preview"])
def test_deleted_working_layers_come_back(viewer, open_widget, qtbot, name):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    viewer.layers.remove(getattr(widget._layers, name))
    qtbot.waitUntil(lambda: "Start over" in widget.guide.text())
    widget.accept()
    widget.start_over()
    assert widget._layers.is_complete
    mask = outlined(widget, qtbot).to_plane((80, 80))
    widget.protect_box.setChecked(False)
    widget.accept()
    np.testing.assert_array_equal(widget._labels.data > 0, mask)


def test_deleted_labels_come_back_empty(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    widget.accept()
    viewer.layers.remove(widget._labels)
    qtbot.waitUntil(lambda: "Start over" in widget.guide.text())
    for key in (widget.accept, widget.undo, widget.redo, widget.switch_tool):
        key()
    click(widget, DIAMOND[0])
    widget.start_over()
    assert not widget._labels.data.any()
    outlined(widget, qtbot)
    widget.accept()
    assert widget._labels.data.max() == 1


def test_deleted_image_while_predicting(viewer, open_widget, qtbot, predictor):
    image = viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    predictor.gate.clear()
    click(widget, *DIAMOND)
    viewer.layers.remove(image)
    predictor.gate.set()
    qtbot.waitUntil(lambda: "Open an image" in widget.guide.text())
    assert [layer.name for layer in viewer.layers] == []  # nothing was accepted, nothing is left behind
    viewer.add_image(np.zeros((50, 50)))
    qtbot.waitUntil(lambda: widget._layers is not None and widget._layers.is_complete)
    assert widget._labels.data.shape == (50, 50)


def test_all_layers_cleared(real_viewer, open_widget, qtbot):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    widget.accept()
    real_viewer.layers.clear()
    qtbot.waitUntil(lambda: "Open an image" in widget.guide.text())


def test_work_on_an_image_is_kept_while_another_is_chosen(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)), name="first")
    widget = open_widget()
    outlined(widget, qtbot)
    widget.accept()
    first = widget._labels
    viewer.add_image(np.zeros((60, 60)), name="second")
    box = widget.image_box
    for name in ("second", "first"):
        box.setCurrentIndex(box.findText(name))
        box.activated.emit(box.currentIndex())
    assert widget._labels is first
    widget.undo()
    assert not first.data.any()
    assert "second objects" not in viewer.layers


def look_at(widget, name):
    box = widget.image_box
    box.setCurrentIndex(box.findText(name))
    box.activated.emit(box.currentIndex())


def test_each_image_of_a_size_has_labels_of_its_own(viewer, open_widget, qtbot):
    for name in ("a", "b"):
        viewer.add_image(np.zeros((80, 80)), name=name)
    widget = open_widget()
    look_at(widget, "a")
    outlined(widget, qtbot)
    widget.accept()
    of_a = widget._labels
    look_at(widget, "b")
    assert widget._labels is not of_a
    told = "'b' gets labels of its own. To go on in 'a objects', choose these under Settings."
    qtbot.waitUntil(lambda: widget.notice.text() == told)
    outlined(widget, qtbot)
    widget.accept()
    of_b = widget._labels
    look_at(widget, "a")
    assert widget._labels is of_a
    assert (of_a.data.max(), of_b.data.max()) == (1, 1)
    mine = viewer.add_labels(np.zeros((80, 80), np.uint8), name="mine")
    widget.desk.choose_labels(mine)  # a person may think otherwise
    look_at(widget, "b")
    assert widget._labels is of_b
    look_at(widget, "a")
    assert widget._labels is mine


@pytest.mark.parametrize("how", ["array", "channels"])
def test_channels_of_one_picture_share_their_labels_and_the_object_in_progress(viewer, open_widget, qtbot, how):
    pixels = np.zeros((2, 80, 80))
    if how == "array":
        for name, part in zip("ab", pixels, strict=True):
            viewer.add_image(part, name=name)
    else:
        viewer.add_image(pixels, channel_axis=0, name=["a", "b"])
    widget = open_widget()
    look_at(widget, "a")
    click(widget, *DIAMOND)
    wait_for_preview(qtbot, widget)
    labels = widget._labels
    look_at(widget, "b")
    assert widget._labels is labels
    qtbot.waitUntil(lambda: np.array_equal(widget._layers.clicks.data, DIAMOND))
    wait_for_preview(qtbot, widget)
    widget.accept()
    assert labels.data.max() == 1


def test_labels_that_lie_elsewhere_are_told_of(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)), name="cells", scale=(0.5, 0.5))
    widget = open_widget()
    mine = viewer.add_labels(np.zeros((80, 80), np.uint8), name="mine")
    widget.desk.choose_labels(mine)
    qtbot.waitUntil(lambda: "'mine' has another scale or place than 'cells'" in widget.notice.text())
    outlined(widget, qtbot)
    widget.accept()
    assert mine.data[40, 40] == 1
    mine.scale = (0.5, 0.5)
    widget.desk.choose_labels(mine)
    qtbot.waitUntil(lambda: widget.notice.text() == "")


def test_a_stroke_that_is_still_made_is_noted_before_an_object_is_written(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    labels = widget._labels
    labels._begin_stroke()  # the button of the mouse goes down
    labels.paint((5, 5), 2)
    widget.accept()
    labels.paint((8, 8), 2)
    labels._commit_stroke()
    assert [one.kind for one in widget._session.actions][-3:] == ["paint", "commit", "paint"]
    assert widget._session.next_label == 4
    for _ in range(len(widget._session.actions)):
        widget.undo()
    assert not labels.data.any()


def test_an_object_in_progress_survives_a_conversion_of_the_labels(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    widget._labels.data = widget._labels.data.astype(np.uint32)
    wait_for_preview(qtbot, widget)
    widget.accept()
    assert widget._labels.data[40, 40] == 1


def test_moving_the_end_of_a_pull_leaves_its_start(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    widget._layers.drags.add([[20, 40], [10, 40]], shape_type="line")
    wait_for_preview(qtbot, widget)
    (drag,) = widget._session.draft.corrections
    line = np.array([drag.start, (8.0, 42.0)])
    widget._layers.drags.data = [line]
    (moved,) = widget._session.draft.corrections
    assert moved.start == drag.start
    assert moved.end == (8.0, 42.0)


@pytest.mark.parametrize("step", ["start_over", "undo"])
def test_a_click_right_after_a_step_back_belongs_to_what_is_there_now(viewer, open_widget, step):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    click(widget, *DIAMOND[:3])
    getattr(widget, step)()
    click(widget, (50, 50))  # before the window was drawn anew
    kept = [] if step == "start_over" else DIAMOND[:2]
    assert widget._session.draft.clicks == (*kept, (50, 50))


def test_labels_that_were_written_without_telling_stay(viewer, open_widget):
    viewer.add_image(np.zeros((80, 80)), name="a")
    widget = open_widget()
    labels = widget._labels
    labels.data[:30, :30] = 1
    widget.shut_down()
    assert labels in viewer.layers


@pytest.mark.parametrize("way", ["accept", "start_over", "switch_tool"])
def test_a_polygon_that_is_not_finished_does_not_stay_in_the_way(real_viewer, open_widget, qtbot, way):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    bring_up(real_viewer, qtbot)
    outlined(widget, qtbot)
    drags, hands = widget._layers.drags, Hands(real_viewer)
    real_viewer.layers.selection.active = drags
    drags.mode = "add_polygon"
    for place in ((30, 30), (30, 50), (50, 50)):
        hands.click(place)
    assert drags._is_creating
    getattr(widget, way)()
    assert not drags._is_creating
    qtbot.waitUntil(lambda: drags.nshapes == 0)
    assert widget._session.draft.corrections == ()


@pytest.mark.parametrize(
    ("what", "why"), [("visible", "is hidden"), ("editable", "is locked"), ("mode", "moves the view")]
)
def test_clicks_that_do_nothing_are_explained_and_mended(viewer, open_widget, qtbot, what, why):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    clicks = widget._layers.clicks
    setattr(clicks, what, "pan_zoom" if what == "mode" else False)
    qtbot.waitUntil(lambda: why in widget.guide.text())
    widget.switch_tool()
    assert viewer.layers.selection.active is clicks
    assert (clicks.visible, clicks.editable, str(clicks.mode)) == (True, True, "add")
    qtbot.waitUntil(lambda: why not in widget.guide.text())


def test_the_way_from_selecting_clicks_leads_back_to_clicking(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    clicks = widget._layers.clicks
    clicks.mode = "select"
    qtbot.waitUntil(lambda: "Move or delete clicks. To click again" in widget.guide.text())
    widget.switch_tool()
    assert viewer.layers.selection.active is clicks
    assert str(clicks.mode) == "add"
    qtbot.waitUntil(lambda: "1 of 4" in widget.guide.text())


def test_what_can_be_undone_waits_while_another_image_is_looked_at(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)), name="a")
    viewer.add_image(np.zeros((60, 60)), name="b")
    widget = open_widget()
    look_at(widget, "b")
    click(widget, *DIAMOND[:2])
    look_at(widget, "a")
    outlined(widget, qtbot)
    widget.accept()
    labels = widget._labels
    widget.editor.delete([1])
    assert not labels.data.any()
    look_at(widget, "b")
    qtbot.waitUntil(lambda: np.array_equal(widget._layers.clicks.data, DIAMOND[:2]))
    look_at(widget, "a")
    assert widget._labels is labels
    widget.undo()
    assert labels.data.max() == 1


def test_labels_that_were_replaced_are_searched_for_the_largest(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    widget.accept()
    other = widget._labels.data.copy()
    other[:5, :5] = 7
    widget._labels.data = other
    outlined(widget, qtbot, [(66, 40), (70, 44), (74, 40), (70, 36)])
    widget.accept()
    assert widget._labels.data.max() == 8
    assert (widget._labels.data == 7).sum() == 25


def test_labels_that_are_replaced_while_they_are_searched_are_searched_again(viewer, open_widget, monkeypatch, qtbot):
    monkeypatch.setattr("napari_delse.widgets._label_store.SMALL", 10)
    gate, searched = threading.Event(), []

    def slowly(data, is_stopped):
        gate.wait(5)
        searched.append(int(data.max()))
        return searched[-1]

    monkeypatch.setattr(_desk, "largest_label", slowly)
    viewer.add_image(np.zeros((80, 80)))
    mine = viewer.add_labels(np.full((80, 80), 1, np.uint8))
    widget = open_widget()
    widget.desk.choose_labels(mine)
    mine.data = np.full((80, 80), 7, np.uint8)
    gate.set()
    qtbot.waitUntil(lambda: widget._session.next_label == 8)
    assert searched == [1, 7]


def test_labels_that_no_longer_fit_are_left(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    outlined(widget, qtbot)
    widget.accept()
    former = widget._labels
    former.data = np.zeros((40, 40), np.uint16)
    qtbot.waitUntil(lambda: widget._labels is not former)
    assert widget._labels.data.shape == (80, 80)
    outlined(widget, qtbot)
    widget.accept()
    assert widget._labels.data.max() == 1


def test_a_fine_outline_gives_the_sliders_no_finer_steps(real_viewer, open_widget, qtbot):
    real_viewer.add_image(np.zeros((5, 80, 80)), scale=(3, 0.5, 0.5))
    widget = open_widget()
    steps = real_viewer.dims.nsteps
    camera_of(real_viewer).zoom = 40
    outlined(widget, qtbot, index=(2,))
    assert widget._layers.preview.scale[-1] < 0.5
    real_viewer.add_points(np.zeros((0, 3)), scale=(3, 0.5, 0.5))  # has napari look at all layers
    assert real_viewer.dims.nsteps != steps  # of axes that are no sliders
    widget.accept()
    real_viewer.dims.order = (1, 0, 2)
    assert real_viewer.dims.nsteps == steps


def test_layers_are_removed_in_the_context_of_the_canvas(real_viewer, open_widget, qtbot):
    gui = pytest.importorskip("qtpy.QtGui")
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    bring_up(real_viewer, qtbot)
    canvas = real_viewer.window._qt_viewer.canvas.native
    qtbot.waitUntil(lambda: canvas.context() is not None)
    removed = []
    real_viewer.layers.events.removed.connect(
        lambda event: removed.append((event.value.name, gui.QOpenGLContext.currentContext() == canvas.context()))
    )
    other = real_viewer.add_points(np.zeros((0, 2)), name="other")
    canvas.doneCurrent()  # as after Qt has drawn a dock widget
    real_viewer.layers.remove(other)
    canvas.doneCurrent()
    widget.shut_down()
    assert len(removed) == 5
    assert all(in_context for _, in_context in removed), removed


def test_moved_image_takes_its_layers_along(viewer, open_widget, qtbot):
    image = viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    mask = outlined(widget, qtbot).to_plane((80, 80))
    image.scale = (2, 2)
    image.translate = (10, -5)
    qtbot.wait(10)
    np.testing.assert_array_equal(shown_mask(widget, (80, 80)), mask)
    assert widget._labels.scale.tolist() == [2, 2]


# ---------------------------------------------------------------- errors and endings


def test_model_that_cannot_be_loaded(viewer, open_widget, qtbot, predictor):
    def load(model, device):
        if device != "cpu":
            raise ValueError("no such device; choose the CPU")
        return predictor

    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget(load=load, ready=False)
    qtbot.waitUntil(lambda: widget.notice.text() == "No such device; choose the CPU.")
    qtbot.waitUntil(lambda: widget._layers is not None and widget._layers.is_complete)
    widget.notices.tell("2 objects became object 1.")
    widget.device_box.activated.emit(0)
    qtbot.waitUntil(lambda: widget.notice.text() == "No such device; choose the CPU.")
    assert widget.status.property("trouble")
    click(widget, *DIAMOND)
    widget.device_box.setCurrentIndex(widget.device_box.findText("CPU"))
    widget.device_box.activated.emit(0)
    wait_for_preview(qtbot, widget)  # what was clicked meanwhile is outlined


def test_prediction_that_fails_is_told_and_the_next_works(viewer, open_widget, qtbot, predictor):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    predictor.error = RuntimeError("out of memory\nlong trace")
    click(widget, *DIAMOND)
    qtbot.waitUntil(lambda: widget.notice.text() == "Out of memory.")
    predictor.error = None
    outlined(widget, qtbot, [(70, 40)])
    assert widget.notice.text() == ""


def test_empty_prediction_cannot_be_accepted(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    click(widget, (-60, -40), (-40, -20), (-20, -40), (-40, -60))
    qtbot.waitUntil(lambda: widget._session.preview is not None and "No object" in widget.guide.text())
    assert not widget.accept_button.isEnabled()
    widget.accept()
    assert not widget._session.objects


def test_models_are_offered(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    qtbot.waitUntil(lambda: widget.model_box.count() == 2)
    assert widget.model_box.currentText() == "default"


def test_keys_of_others_are_left_alone(viewer, open_widget):
    pressed = []
    viewer.bind_key("N", lambda _: pressed.append("N"))
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    widget.shut_down()
    assert "N" in {str(key) for key in viewer.keymap}
    assert "W" not in {str(key) for key in viewer.keymap}


def test_closed_dock_leaves_the_labels_only(real_viewer, open_widget, qtbot, predictor):
    real_viewer.add_image(np.zeros((80, 80)), name="image")
    widget = open_widget()
    outlined(widget, qtbot)
    widget.accept()
    predictor.gate.clear()
    click(widget, *DIAMOND)
    real_viewer.window.remove_dock_widget(widget)
    predictor.gate.set()
    qtbot.wait(50)
    assert [layer.name for layer in real_viewer.layers] == ["image", "image objects"]
    real_viewer.layers[1].selected_label = 3
    real_viewer.add_image(np.zeros((8, 8)))


def test_closed_viewer_while_predicting(real_viewer, open_widget, qtbot, predictor):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    predictor.gate.clear()
    click(widget, *DIAMOND)
    real_viewer.close()
    predictor.gate.set()
    qtbot.wait(50)


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize(("size", "zoom"), [(5, 40.0), (60, 7.0), (60, 1.0), (60, 0.2), (3000, 0.3), (3000, 5.0)])
def test_outline_is_thin_on_the_screen_and_bounded_in_size(size, zoom):
    ys, xs = np.mgrid[:size, :size]
    disk = np.hypot(ys - size / 2 + 0.5, xs - size / 2 + 0.5) <= size / 2
    picture, step = outline(disk, zoom)
    assert picture.size <= 1_100_000
    np.testing.assert_allclose(np.array(picture.shape) * step, disk.shape, rtol=0.02, atol=step)
    assert set(np.unique(picture)) <= {0, 1, 2}
    np.testing.assert_allclose((picture > 0).sum() * step**2, disk.sum(), rtol=0.06)
    middle = picture[picture.shape[0] // 2]
    rim = np.argmin(middle == 2)  # how many rim pixels from the left
    assert 0.9 <= rim * step * zoom <= max(8, step * zoom)


def test_nearest_point_lies_between_the_vertices():
    square = np.array([(0, 0), (0, 10), (10, 10), (10, 0), (0, 0)], float)
    assert nearest_on([square], (4, 12)) == ((4.0, 10.0), 2.0)
    assert nearest_on([], (0, 0)) is None


def test_largest_label_is_found_piece_by_piece():
    data = np.zeros((5, 4000, 4000), np.uint8)
    data[4, 7, 7] = 200
    assert largest_label(data) == 200
    assert largest_label(data, lambda: True) == 0


def test_axes_of_channels_are_short_and_not_those_of_the_planes():
    assert channel_axes(_image((2, 70, 4, 40, 40))) == [("-5 (2 channels)", 0), ("-3 (4 channels)", 2)]
    assert channel_axes(_image((40, 40))) == []
    assert channel_axes(_image((70, 70, 2))) == [("-1 (2 channels)", 2)]  # shown once the axes are rolled


def test_source_refuses_what_it_cannot_label():
    image = ImageSource(_image((3, 8, 8)))
    with pytest.raises(ValueError, match="no channel axis 5"):
        ImageSource(image.layer, 5)
    with pytest.raises(ValueError, match="one to three of the 3 channels"):
        ImageSource(image.layer, 0, (0, 9))


def _image(shape):
    from napari.layers import Image

    return Image(np.zeros(shape))
