"""Planes, pixels and layers of every kind: what is shown is what is read, labelled and undone."""

from itertools import permutations

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.layers import Labels
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import Qt
from test_annotate_widget import (
    DIAMOND,
    Ellipse,
    StubPredictor,
    choose_channels,
    choose_labels,
    click,
    outlined,
    wait_for_preview,
)
from test_annotate_widget import open_widget as open_widget
from test_annotate_widget import real_viewer as real_viewer
from test_annotate_widget import viewer as viewer

from napari_delse import ExtremePoints, Predictor
from napari_delse.data.images import Plane
from napari_delse.geometry import Crop, ObjectMask
from napari_delse.widgets._brush import painted
from napari_delse.widgets._label_store import largest_label

pytestmark = pytest.mark.usefixtures("own_home")

MARGIN = 6


class Local(StubPredictor):
    """The ellipse in the box of the clicks, from a crop around it only, as a real predictor reads it."""

    def segment(self, plane, prompt, corrections=(), *, known=None):
        self.planes.append(plane)
        y0, x0, y1, x1 = map(int, prompt.box)
        crop = Crop(y0 - MARGIN, x0 - MARGIN, y1 + MARGIN + 1, x1 + MARGIN + 1, 64)
        assert np.isfinite(plane.read(crop)).all()
        ys, xs = np.mgrid[crop.y0 : crop.y1, crop.x0 : crop.x1]
        inside = ((ys - (y0 + y1) / 2) / max((y1 - y0) / 2, 0.5)) ** 2
        inside = inside + ((xs - (x0 + x1) / 2) / max((x1 - x0) / 2, 0.5)) ** 2 <= 1
        return Ellipse(ObjectMask.from_crop(inside, crop, plane.shape), 0.9, tuple(corrections))


@pytest.fixture
def predictor():
    return Local()


class Counting:
    """An image that exists nowhere and notes how much is read at once."""

    def __init__(self, shape, dtype=np.uint8, chunks=None):
        self.shape, self.dtype, self.ndim = tuple(shape), np.dtype(dtype), len(shape)
        self.size, self.reads = int(np.prod(shape)), []
        if chunks:
            self.chunks = chunks

    def __getitem__(self, key):
        found = np.broadcast_to(np.zeros(1, self.dtype), self.shape)[key]
        self.reads.append(found.size)
        return found.copy()

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("the whole image was read")


# ---------------------------------------------------------------- which plane

ORDERS = [(3, order) for order in permutations(range(3))]
ORDERS += [(5, order) for order in ((0, 1, 2, 3, 4), (0, 1, 2, 4, 3), (0, 3, 2, 1, 4), (4, 2, 0, 3, 1))]


@pytest.mark.parametrize(("ndim", "order"), ORDERS)
def test_the_plane_shown_is_read_and_labelled_however_the_axes_are_turned(
    viewer, open_widget, qtbot, predictor, ndim, order
):
    shape = (70, 72, 74) if ndim == 3 else (3, 70, 2, 72, 74)
    data = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    viewer.add_image(data, scale=(2, 0.5, 3, 1, 0.25)[-ndim:], translate=(7, -3, 0.5, 100, -40)[-ndim:])
    widget = open_widget()
    viewer.dims.order = order
    viewer.dims.current_step = tuple(side // 2 for side in data.shape)
    shown = np.asarray(viewer.layers[0]._slice.image.raw)  # what napari puts on the screen
    key = [side // 2 for side in data.shape]
    for point in DIAMOND:
        position = np.array(key, float)
        position[sorted(viewer.dims.displayed)] = point
        widget._layers.clicks.add(position)
    wait_for_preview(qtbot, widget)
    plane = predictor.planes[-1]
    read = plane.window(0, 0, *plane.shape)[0]
    np.testing.assert_array_equal(read if list(order[-2:]) == sorted(order[-2:]) else read.T, shown)
    widget.accept()
    on_screen = np.asarray(widget._labels._slice.image.raw)
    assert np.count_nonzero(on_screen) == np.count_nonzero(widget._labels.data) == widget._session.objects[1].area > 0
    y, x = (DIAMOND[0][0] + DIAMOND[2][0]) // 2, (DIAMOND[1][1] + DIAMOND[3][1]) // 2
    assert (on_screen if list(order[-2:]) == sorted(order[-2:]) else on_screen.T)[y, x] == 1


def test_between_two_planes_the_one_that_napari_shows_is_labelled(viewer, open_widget):
    """Where another layer has finer steps, the slider stops half way between planes."""
    image = viewer.add_image(np.arange(5)[:, None, None] * np.ones((5, 80, 80)), scale=(2, 1, 1))
    viewer.add_image(np.zeros((9, 80, 80)), name="fine")
    viewer.layers.selection.active = image
    widget = open_widget()
    assert widget._source.layer is image
    for z in range(9):
        viewer.dims.set_point(0, z)
        key = widget._source.shown_plane(viewer, widget._layers.clicks.world_to_data(viewer.dims.point))
        assert key.index == (int(image._slice.image.raw[0, 0]),)


def test_units_go_along_and_mixed_ones_are_refused(viewer, open_widget, qtbot):
    image = viewer.add_image(np.zeros((5, 80, 80)), scale=(3, 0.1, 0.1), units=("um", "um", "um"))
    widget = open_widget()
    image.units = ("nm", "nm", "nm")
    qtbot.wait(10)
    for layer in (widget._labels, widget._layers.clicks, widget._layers.drags, widget._layers.preview):
        assert layer.units == image.units
    outlined(widget, qtbot, index=(0,))
    widget.accept()
    image.units = ("um", "nm", "nm")
    click(widget, DIAMOND[0], index=(0,))
    qtbot.waitUntil(lambda: "give all layers and axes the same units" in widget.notice.text())
    assert widget._session.draft.is_empty


def test_what_was_told_about_a_view_is_over_when_it_is_turned(viewer, open_widget, qtbot):
    viewer.add_image(noise((3, 80, 80)))
    widget = open_widget()
    viewer.dims.ndisplay = 3
    click(widget, DIAMOND[0], index=(0,))
    qtbot.waitUntil(lambda: "2D view" in widget.notice.text())
    viewer.dims.ndisplay = 2
    qtbot.waitUntil(lambda: not widget.notice.text())


# ---------------------------------------------------------------- how much is read


@pytest.mark.parametrize("kind", ["planes", "channels first", "channels inside", "multiscale", "dask"])
def test_only_crops_of_the_image_are_read(viewer, open_widget, qtbot, predictor, kind):
    side = 8 * max(DIAMOND[2]) + 2 * MARGIN  # of what is read in one go, at the very most
    shape = {"planes": (6, 9000, 9000), "channels first": (4, 9000, 9000), "channels inside": (3, 5, 4000, 4000)}
    image = Counting(shape.get(kind, (9000, 9000)))
    if kind == "multiscale":
        viewer.add_image([image, np.zeros((90, 90), np.uint8)], multiscale=True, contrast_limits=(0, 255))
    elif kind == "dask":
        da = pytest.importorskip("dask.array")
        image = Counting((3, 9000, 9000))
        whole = da.from_array(image, chunks=(1, 256, 256), asarray=False, meta=np.zeros((0, 0, 0), np.uint8))
        viewer.add_image(whole, contrast_limits=(0, 255), visible=False)
    else:
        viewer.add_image(image, contrast_limits=(0, 255))
    image.reads.clear()
    widget = open_widget()
    axis = {"channels first": 0, "channels inside": 1}.get(kind)
    if axis is not None:
        choose_channels(widget, axis, "0, 3")
    index = (0,) * (widget._source.ndim - 2)
    widget._layers.clicks.add([(*index, y + 900, x + 900) for y, x in DIAMOND])
    wait_for_preview(qtbot, widget)
    widget.accept()
    assert widget.accepted == 1
    assert image.reads
    assert max(image.reads) <= 3 * 256 * 256
    assert sum(image.reads) < 20 * side**2
    assert widget._labels.data.dtype == np.uint16


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((3, 9000, 9000), None), ((40, 3000, 3000), (16, 64, 64)), ((2, 2, 5000, 5000), (1, 1, 5000, 5000))],
)
def test_the_largest_label_is_looked_for_in_small_pieces_of_whole_chunks(shape, chunks):
    labels = Counting(shape, np.uint16, chunks)
    assert largest_label(labels) == 0
    assert sum(labels.reads) == labels.size
    assert max(labels.reads) <= max(8_000_000, int(np.prod(chunks or 1)))
    assert len(labels.reads) < 100


def test_the_largest_label_lies_in_the_last_corner():
    data = np.zeros((3, 2500, 2501), np.uint16)
    data[-1, -1, -1] = 777
    assert largest_label(data) == 777


# ---------------------------------------------------------------- pixels of all kinds


def noise(shape=(80, 80)):
    return np.random.default_rng(0).random(shape)


PIXELS = {
    "NaN": np.where(np.arange(80)[:, None] < 40, np.nan, noise()),
    "only NaN": np.full((80, 80), np.nan),
    "infinite": np.where(noise() > 0.9, np.inf, 1.0),
    "huge": noise() * 1e300,
    "half": noise().astype(np.float16),
    "constant": np.full((80, 80), 7, np.uint16),
    "bool": noise() > 0.5,
    "signed": (noise() * 200 - 100).astype(np.int8),
    "offset": (60000 + noise() * 50).astype(np.uint16),
}


@pytest.fixture(scope="module")
def default_model():
    return Predictor.load(device="cpu")


@pytest.mark.parametrize("name", PIXELS)
def test_any_pixels_are_outlined(default_model, name):
    found = default_model.segment(Plane.of(PIXELS[name]), ExtremePoints.from_clicks(DIAMOND))
    assert 200 < found.mask.area < 3000
    assert 0 <= found.confidence <= 1


@pytest.mark.parametrize(
    ("shape", "clicks"),
    [
        ((8, 8), [(0, 4), (7, 4), (4, 0), (4, 7)]),
        ((1, 300), [(0, 50), (0, 60), (0, 20), (0, 90)]),
        ((300, 2), [(20, 0), (50, 1), (80, 0), (60, 0)]),
        ((1, 1), [(0, 0), (0.2, 0), (0, 0.3), (0.1, 0.1)]),
        ((80, 80), [(10, 10), (20, 20), (30, 30), (40, 40)]),
        ((80, 80), [(40, 10), (40, 20), (40, 30), (40, 40)]),
        ((80, 80), [(40, 40), (40.1, 40), (40, 40.1), (40.2, 40.2)]),
        ((80, 80), [(0, 40), (79, 40), (40, 0), (40, 79)]),
        ((80, 80), [(-10, 40), (20, -5), (40, 40), (20, 90)]),
    ],
)
def test_tiny_thin_and_flat_objects_have_a_mask_inside_the_image(default_model, shape, clicks):
    found = default_model.segment(Plane.of(noise(shape)), ExtremePoints.from_clicks(clicks))
    assert found.mask.area > 0
    rows, columns = found.mask.slices
    assert 0 <= rows.start < rows.stop <= shape[0]
    assert 0 <= columns.start < columns.stop <= shape[1]


def test_clicks_in_one_place_wait_for_another_one(viewer, open_widget, qtbot):
    viewer.add_image(noise())
    widget = open_widget()
    click(widget, *[(40, 40)] * 4)
    qtbot.waitUntil(lambda: "2 of 4" in widget.guide.text())
    assert len(widget._layers.clicks.data) == 4
    click(widget, (20, 40), (40, 60), (60, 40))
    wait_for_preview(qtbot, widget)


# ---------------------------------------------------------------- labels of all kinds


@pytest.mark.parametrize(("dtype", "largest"), [(np.int8, 126), (np.uint8, 254), (np.uint64, 2**64 - 2)])
def test_the_last_label_of_a_type_is_used_and_the_next_refused(viewer, open_widget, qtbot, dtype, largest):
    data = np.zeros((80, 80), dtype)
    data[0, 0] = largest
    viewer.add_image(noise())
    labels = viewer.add_labels(data)
    widget = open_widget()
    choose_labels(widget, labels)
    outlined(widget, qtbot)
    widget.accept()
    assert labels.data[40, 40] == largest + 1
    outlined(widget, qtbot, [(y, x + 15) for y, x in DIAMOND])
    widget.accept()
    qtbot.waitUntil(lambda: f"does not fit into {np.dtype(dtype)}" in widget.notice.text())
    assert widget.accepted == 1


@pytest.mark.parametrize("kind", ["numpy", "memmap", "zarr"])
def test_labels_that_cannot_be_written_are_named_with_a_way_out(viewer, open_widget, qtbot, tmp_path, kind):
    if kind == "zarr":
        zarr = pytest.importorskip("zarr")
        zarr.open(str(tmp_path / "l.zarr"), mode="w", shape=(80, 80), chunks=(40, 40), dtype="uint16")
        data = zarr.open(str(tmp_path / "l.zarr"), mode="r")
    else:
        np.save(tmp_path / "l.npy", np.zeros((80, 80), np.uint16))
        data = np.load(tmp_path / "l.npy", mmap_mode="r" if kind == "memmap" else None)
        data.flags.writeable = False
    viewer.add_image(noise())
    labels = viewer.add_labels(data, name="mine")
    widget = open_widget()
    choose_labels(widget, labels)
    outlined(widget, qtbot)
    qtbot.waitUntil(lambda: not widget.desk.searched)
    widget.accept()
    qtbot.waitUntil(lambda: "'mine' cannot be written" in widget.notice.text())
    assert "choose other labels or a new layer" in widget.notice.text()
    assert not widget.accepted
    assert widget._session.preview is not None


# ---------------------------------------------------------------- brush strokes between objects


def test_long_strokes_are_few_changes_and_hold_what_was_there_before():
    before = np.random.default_rng(0).integers(0, 3, (200, 300)).astype(np.uint16)
    layer = Labels(before.copy())
    told = []
    layer.events.paint.connect(lambda event: told.extend(painted(event.value)))
    layer.brush_size = 7
    with layer.block_history():
        for x in range(10, 290):
            layer.paint((50 + x // 3, x), 9)
        layer.data_setitem((np.array([5, 199]), np.array([5, 299])), 4)
    assert [stroke[3] for stroke in told] == [9, 4]
    restored = layer.data.copy()
    for _, mask, old, _ in reversed(told):
        restored[mask.slices][mask.mask] = old
    np.testing.assert_array_equal(restored, before)


def test_undo_on_the_labels_takes_strokes_and_objects_back_in_their_order(real_viewer, open_widget, qtbot):
    from hands import Hands

    data = np.zeros((80, 80), np.uint16)
    real_viewer.add_image(noise())
    labels = real_viewer.add_labels(data)
    labels.paint((5, 5), 3)  # before there is a session
    earlier = labels.data.copy()
    widget = open_widget()
    choose_labels(widget, labels)
    real_viewer.show()
    keys, control = Hands(real_viewer), Qt.KeyboardModifier.ControlModifier
    both = control | Qt.KeyboardModifier.ShiftModifier
    states = [earlier]
    outlined(widget, qtbot)
    widget.accept()
    states.append(labels.data.copy())
    for value in (1, 0):  # over the object and beside it
        labels.paint((40, 40 + 15 * value), value)
        states.append(labels.data.copy())
    real_viewer.layers.selection.active = labels
    for state in states[-2::-1]:
        keys.key(Qt.Key.Key_Z, control)
        np.testing.assert_array_equal(labels.data, state)
    assert widget._session.draft.missing == 0  # the object is in progress again
    real_viewer.layers.selection.active = labels
    for state in states[1:]:
        keys.key(Qt.Key.Key_Z, both)
        np.testing.assert_array_equal(labels.data, state)
    real_viewer.window.remove_dock_widget(widget)
    qtbot.wait(20)
    real_viewer.layers.selection.active = labels
    keys.key(Qt.Key.Key_Z, control)  # napari's again
    assert not np.array_equal(labels.data, states[-1])


def test_strokes_from_before_the_session_can_be_undone_until_it_begins(viewer, open_widget, qtbot):
    viewer.add_image(noise())
    labels = viewer.add_labels(np.zeros((80, 80), np.uint16))
    labels.paint((5, 5), 3)
    widget = open_widget()
    choose_labels(widget, labels)
    undo = labels.keymap[coerce_keybinding("Control-Z")]  # what the key calls, without a window
    undo(labels)
    assert not labels.data.any()
    labels.redo()
    outlined(widget, qtbot)
    undo(labels)
    assert len(widget._session.draft.clicks) == 3
    assert labels.data[5, 5] == 3


def test_deleting_an_object_takes_what_was_painted_under_its_label_elsewhere(viewer, open_widget, qtbot):
    viewer.add_image(noise())
    widget = open_widget()
    outlined(widget, qtbot)
    widget.accept()
    widget._labels.paint((5, 70), 1)
    before = widget._labels.data.copy()
    widget.delete_object(1)
    assert not widget._labels.data.any()
    widget.undo()
    np.testing.assert_array_equal(widget._labels.data, before)


# ---------------------------------------------------------------- what people do to layers in mid object


@pytest.mark.parametrize("shape", [(80, 80), (60, 100)])
def test_image_data_replaced_in_mid_object(viewer, open_widget, qtbot, predictor, shape):
    image = viewer.add_image(noise())
    widget = open_widget()
    click(widget, *DIAMOND[:3])
    image.data = np.ones(shape)
    qtbot.waitUntil(lambda: widget._labels is not None and widget._labels.data.shape == shape)
    qtbot.waitUntil(lambda: widget.is_ready)
    if shape == (80, 80):
        assert len(widget._session.draft.clicks) == 3
        widget.start_over()
    outlined(widget, qtbot, [(10, 40), (30, 60), (50, 40), (30, 20)])
    assert predictor.planes[-1].data is image.data
    widget.accept()
    assert widget.accepted == 1


def test_layers_duplicated_and_reordered_in_mid_object(viewer, open_widget, qtbot):
    image = viewer.add_image(noise())
    widget = open_widget()
    click(widget, *DIAMOND[:2])
    for layer in (image, widget._labels, widget._layers.clicks):
        data, options, _ = layer.as_layer_data_tuple()
        viewer.add_layer(type(layer)(np.array(data), **options))  # as napari's "Duplicate layer" does
    viewer.layers.reverse()
    viewer.layers.selection.active = widget._layers.clicks
    click(widget, *DIAMOND[2:])
    wait_for_preview(qtbot, widget)
    widget.accept()
    assert widget.accepted == 1
    assert widget._source.layer is image


def test_closed_and_opened_again_in_mid_object(viewer, open_widget, qtbot):
    viewer.add_image(noise(), name="cells")
    first = open_widget()
    outlined(first, qtbot)
    first.accept()
    click(first, *DIAMOND[:2])
    first.shut_down()
    assert [layer.name for layer in viewer.layers] == ["cells", "cells objects"]
    second = open_widget()
    assert second._labels is viewer.layers["cells objects"]
    qtbot.waitUntil(lambda: len(second._layers.clicks.data) == 2 and second.review.model.rowCount() == 1)
    click(second, *DIAMOND[2:])
    wait_for_preview(qtbot, second)
    second.undo()
    second.start_over()
    outlined(second, qtbot, [(y, x + 18) for y, x in DIAMOND])
    second.accept()
    assert set(np.unique(second._labels.data)) == {0, 1, 2}
    while second._session.can_undo:
        second.undo()
    assert not second._labels.data.any()


def test_two_widgets_on_the_same_labels_share_ids_and_respect_each_other(viewer, open_widget, qtbot):
    viewer.add_image(noise())
    labels = viewer.add_labels(np.zeros((80, 80), np.uint16))
    one, two = open_widget(), open_widget()
    for number, widget in enumerate((one, two)):
        choose_labels(widget, labels)
        outlined(widget, qtbot, [(y, x + 18 * number) for y, x in DIAMOND])
        widget.accept()
    assert set(np.unique(labels.data)) == {0, 1, 2}
    first = labels.data == 1
    two.undo()
    np.testing.assert_array_equal(labels.data > 0, first)
