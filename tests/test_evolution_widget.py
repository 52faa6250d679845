"""The tab that shows the evolution, in a real viewer, with a small untrained model that really evolves."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.components import ViewerModel
from napari.layers import Image, Vectors
from qtpy.QtCore import QPoint, Qt

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from hands import Hands

from napari_delse.annotation.edits import PlaneKey
from napari_delse.annotation.journal import read
from napari_delse.annotation.replay import predict_draft, replay
from napari_delse.checkpoint import save_model
from napari_delse.evolution import EvolutionSettings
from napari_delse.geometry import CropConfig
from napari_delse.model import ARCHITECTURES, Architecture, Delse, ModelConfig
from napari_delse.predict import Predictor
from napari_delse.widgets._annotate.evolution_layers import CONTOUR, MODULATION, MOTION, PHI

pytestmark = pytest.mark.usefixtures("own_home")

TINY = Architecture("basic", (1, 1, 1, 1), (8, 8, 16, 16), 8, False, 5, 8, 0, True, 8, 8, 2)
DIAMOND = [(20, 40), (40, 60), (60, 40), (40, 20)]


class Blob(Predictor):
    """An untrained model whose phi_0 is put right: the distance to a disk in the box of the clicks."""

    def _infer(self, images, clicks, drags, evolution=None):
        fields, _ = super()._infer(images, clicks, drags, evolution)
        size = images.shape[-1]
        ys, xs = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        disk = (size / 3 - torch.hypot(ys - size / 2 + 0.5, xs - size / 2 + 0.5)).float()
        fields = fields._replace(
            phi0=disk.expand_as(fields.phi0).contiguous(),
            motion=torch.full_like(fields.motion, 0.5),
            modulation=torch.full_like(fields.modulation, 0.25),
        )
        return fields, self._model.evolve(fields, evolution)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    ARCHITECTURES.setdefault("tiny", TINY)
    torch.manual_seed(0)
    model = Delse(ModelConfig(architecture="tiny", crop=CropConfig(size=64)))
    folder = save_model(tmp_path_factory.mktemp("models") / "tiny", model, {})
    return Blob.load(folder, device="cpu")


@pytest.fixture
def real_viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def open_widget(annotating, predictor, request):
    def open_it():
        viewer = request.getfixturevalue("real_viewer" if "real_viewer" in request.fixturenames else "viewer")
        return annotating(viewer, predictor)

    return open_it


def outlined(widget, qtbot, index=(), points=DIAMOND):
    for point in points:
        widget._layers.clicks.add((*index, *point))
    settled(widget, qtbot)


def settled(widget, qtbot):
    """All that was said is shown."""
    view = widget.evolution
    qtbot.waitUntil(lambda: widget._session.preview is not None and widget.accept_button.isEnabled())
    qtbot.waitUntil(lambda: view.is_settled and widget.has_shown_preview)
    assert not view.is_on or view._seen[0] is widget._session.preview.prediction


def layer(viewer, name):
    return viewer.layers[name]


def contour_points(viewer, widget):
    """Where the contour layer lies, in the labels' space."""
    return layer(viewer, CONTOUR).data[:, 0]


def names(viewer):
    return {one.name for one in viewer.layers}


def shown_names(viewer):
    return {one.name for one in viewer.layers if one.visible} & {CONTOUR, MOTION, MODULATION, PHI}


# ---------------------------------------------------------------- on and off


def test_nothing_of_it_is_there_until_its_tab_is_opened(real_viewer, open_widget, qtbot):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    real_viewer.show()
    outlined(widget, qtbot)
    assert not widget.evolution.is_on
    assert not names(real_viewer) & {CONTOUR, MOTION, MODULATION, PHI}
    widget.show_tab(widget.evolution)  # one click
    settled(widget, qtbot)
    assert shown_names(real_viewer) == {CONTOUR, MOTION}
    assert real_viewer.layers.selection.active is widget._layers.clicks
    assert set(real_viewer.layers.selection) == {widget._layers.clicks}
    assert widget._layers.clicks.mode == "add"
    switch = widget.evolution.switch
    qtbot.mouseClick(switch, Qt.MouseButton.LeftButton, pos=QPoint(8, switch.height() // 2))
    assert not widget.evolution.is_on
    qtbot.waitUntil(lambda: not names(real_viewer) & {CONTOUR, MOTION, MODULATION, PHI})


def test_real_clicks_are_answered_by_contour_and_arrows(real_viewer, open_widget, qtbot):
    real_viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    real_viewer.window._qt_window.resize(1280, 800)
    real_viewer.show()
    qtbot.wait(50)
    real_viewer.reset_view()
    widget.show_tab(widget.evolution)
    qtbot.waitUntil(lambda: {CONTOUR, MOTION} <= names(real_viewer))
    mouse = Hands(real_viewer)
    for point in DIAMOND:
        mouse.click(point)
    settled(widget, qtbot)
    np.testing.assert_allclose(widget._layers.clicks.data, DIAMOND, atol=0.3)
    assert shown_names(real_viewer) == {CONTOUR, MOTION}
    mouse.key(Qt.Key.Key_Return)
    assert widget.accepted == 1
    qtbot.waitUntil(lambda: shown_names(real_viewer) == set())
    for y, x in DIAMOND:
        mouse.click((y - 5, x - 5))
    settled(widget, qtbot)
    assert shown_names(real_viewer) == {CONTOUR, MOTION}


def test_a_layer_that_a_person_deletes_stays_away_until_its_box_is_checked(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    widget.evolution.switch.setChecked(True)
    outlined(widget, qtbot)
    viewer.layers.remove(layer(viewer, MOTION))
    assert not widget.evolution.boxes[MOTION].isChecked()
    widget.evolution.step_slider.setValue(1)
    qtbot.wait(20)
    assert MOTION not in names(viewer)
    widget.evolution.boxes[MOTION].setChecked(True)
    qtbot.waitUntil(lambda: MOTION in shown_names(viewer))
    assert len(layer(viewer, MOTION).data) > 100


def test_an_eye_that_a_person_closed_stays_closed(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    widget.evolution.switch.setChecked(True)
    outlined(widget, qtbot)
    layer(viewer, MOTION).visible = False
    widget.accept()
    qtbot.waitUntil(lambda: shown_names(viewer) == set())
    outlined(widget, qtbot)
    assert shown_names(viewer) == {CONTOUR}


def test_its_pictures_are_not_offered_as_images_to_annotate(viewer, open_widget, qtbot):
    image = viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    for name in (MODULATION, PHI):
        view.boxes[name].setChecked(True)
    outlined(widget, qtbot)
    assert shown_names(viewer) == {CONTOUR, MOTION, MODULATION, PHI}
    assert [widget.image_box.itemData(i) for i in range(widget.image_box.count())] == [image]
    viewer.layers.remove(image)
    qtbot.waitUntil(lambda: widget._source is None)
    assert names(viewer) & {CONTOUR, MOTION, MODULATION, PHI} == set()


# ---------------------------------------------------------------- what is shown


def test_the_contour_moves_with_the_slider_and_ends_on_the_preview(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    outlined(widget, qtbot)
    assert view.step == 5
    assert view.step_text.text() == "phi 5 of 5"
    centres = []
    for step in range(6):
        view.step_slider.setValue(step)
        qtbot.waitUntil(lambda: view.is_settled)
        centres.append(contour_points(viewer, widget).mean(axis=0))
    assert (np.diff(centres, axis=0) > 0.2).all()  # V pushes down and right all the time
    mask = widget.preview_mask.to_plane((80, 80))
    found = contour_points(viewer, widget)
    rows, columns = np.nonzero(mask)
    np.testing.assert_allclose(found.min(axis=0), [rows.min() - 0.5, columns.min() - 0.5], atol=0.6)
    np.testing.assert_allclose(found.max(axis=0), [rows.max() + 0.5, columns.max() + 0.5], atol=0.6)


def test_play_goes_from_the_first_phi_to_the_last_and_stops(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    assert not view.play_button.isEnabled()
    outlined(widget, qtbot)
    seen = []
    view.step_slider.valueChanged.connect(seen.append)
    view.play_button.click()
    assert view.play_button.text() == "Pause"
    qtbot.waitUntil(lambda: view.play_button.text() == "Play", timeout=10000)
    assert seen == [0, 1, 2, 3, 4, 5]
    view.play_button.click()
    view.play_button.click()
    assert not view._clock.isActive()


@pytest.mark.parametrize("shape", [(80, 80), (3, 80, 80), (2, 3, 80, 80)])
def test_layers_lie_on_the_object_in_any_plane_of_a_turned_and_scaled_image(viewer, open_widget, qtbot, shape):
    ndim = len(shape)
    scale = (3.0, 2.0, 0.5, 0.25)[-ndim:]
    image = viewer.add_image(np.zeros(shape), scale=scale, translate=(5,) * ndim, rotate=30)
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    for name in (MODULATION, PHI):
        view.boxes[name].setChecked(True)
    index = tuple(n - 1 for n in shape[:-2])
    viewer.dims.current_step = (*index, 0, 0)
    outlined(widget, qtbot, index=index)
    prediction = widget._session.preview.prediction
    for name in (CONTOUR, MOTION):
        lines = layer(viewer, name)
        assert isinstance(lines, Vectors)
        assert (lines.data[:, 0, : ndim - 2] == index).all()
        assert (lines.data[:, 1, : ndim - 2] == 0).all()
        np.testing.assert_allclose(lines.data_to_world(lines.data[3, 0]), image.data_to_world(lines.data[3, 0]))
    expected = np.concatenate(prediction.contours())
    np.testing.assert_allclose(contour_points(viewer, widget)[:, -2:].min(axis=0), expected.min(axis=0), atol=1e-3)
    for name in (MODULATION, PHI):
        picture = layer(viewer, name)
        assert isinstance(picture, Image)
        top = max(prediction.crop.y0, 0), max(prediction.crop.x0, 0)
        np.testing.assert_allclose(picture.data_to_world((0,) * ndim), image.data_to_world((*index, *top)), atol=1e-9)
        end = np.array(picture.data.shape) - 1
        last = *index, *np.add(top, np.array(picture.data.shape[-2:]) - 1)
        np.testing.assert_allclose(picture.data_to_world(end), image.data_to_world(last), atol=1e-9)
    image.scale = np.array(scale) * 2
    qtbot.waitUntil(lambda: view.is_settled)
    picture = layer(viewer, PHI)
    np.testing.assert_allclose(picture.data_to_world((0,) * ndim), image.data_to_world((*index, *top)), atol=1e-9)


def test_phi_is_white_where_the_contour_is(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    view.boxes[PHI].setChecked(True)
    outlined(widget, qtbot)
    view.knobs.sliders["threshold"].setValue(20)
    settled(widget, qtbot)
    low, high = layer(viewer, PHI).contrast_limits
    assert (low + high) / 2 == pytest.approx(2.0)
    colors = layer(viewer, PHI).colormap.map(np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(colors[1], 1)
    assert colors[0, 2] > colors[0, 0]  # blue outside
    assert colors[2, 0] > colors[2, 2]  # red inside


def test_late_pictures_are_dropped(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    outlined(widget, qtbot)
    kept, number = view._picture, view._asked
    view._asked += 1
    view._got(number, object())
    assert view._picture is kept


# ---------------------------------------------------------------- settings


def test_what_the_sliders_show_is_accepted_and_replayed_bit_by_bit(viewer, open_widget, qtbot, predictor):
    image = viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    outlined(widget, qtbot)
    own = widget.preview_mask
    for name, position in (("steps", 8), ("mu", 1), ("threshold", 25), ("curvature", 10), ("dt", 14)):
        view.knobs.sliders[name].setValue(position)
        settled(widget, qtbot)
    settings = widget._session.draft.evolution
    assert settings == EvolutionSettings(steps=8, dt=0.7, curvature=0.5, mu=0.01, threshold=2.5)
    seen = widget.preview_mask
    assert seen.area < own.area
    assert "changed" in view.knobs.hint.text()
    widget.accept()
    np.testing.assert_array_equal(widget._labels.data, seen.to_plane((80, 80)))

    path = widget._session.recorder.path
    plane = widget._source.plane(PlaneKey())
    assert replay(path).session.objects[1].draft.evolution == settings
    found = replay(path, predictor=lambda draft: predict_draft(predictor, plane, draft))
    assert found.predicted == 1
    assert found.differences == ()
    np.testing.assert_array_equal(found.labels, widget._labels.data)
    assert read(path).header.shape == image.data.shape


def test_reset_brings_the_models_own_back_and_undo_the_settings(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    outlined(widget, qtbot)
    own = widget.preview_mask
    assert not view.knobs.reset_button.isEnabled()
    view.knobs.sliders["steps"].setValue(1)
    settled(widget, qtbot)
    assert view.knobs.values["steps"].text() == "1"
    assert view.step_slider.maximum() == 1
    view.knobs.reset_button.click()
    settled(widget, qtbot)
    assert widget._session.draft.evolution is None
    assert widget.preview_mask is own
    assert view.knobs.values["steps"].text() == "5"
    assert not view.knobs.reset_button.isEnabled()
    view.knobs.sliders["threshold"].setValue(30)
    settled(widget, qtbot)
    widget.undo()
    qtbot.waitUntil(lambda: view.knobs.values["threshold"].text() == "0.0 px")
    assert view.knobs.sliders["threshold"].value() == 0


def test_sliders_stop_where_the_evolution_would_diverge_and_say_why(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    outlined(widget, qtbot)
    for name, value in (("steps", 8), ("mu", 0.24), ("curvature", 1), ("dt", 1)):
        slider = view.knobs.sliders[name]
        assert "diverges" in slider.toolTip()
        slider.setValue(slider.maximum())
        assert "diverges" in view.knobs.hint.text()
        assert getattr(view.knobs.settings, name) == pytest.approx(value)
        settled(widget, qtbot)
        assert slider.value() < slider.maximum()
    assert np.isfinite(widget._session.preview.prediction.states[-1]).all()
    slider = view.knobs.sliders["dt"]
    slider.setValue(slider.minimum())
    assert view.knobs.settings.dt == pytest.approx(0.05)
    settled(widget, qtbot)


def test_a_moving_slider_is_one_step_of_undo(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    outlined(widget, qtbot)
    count = len(widget._session.actions)
    for position in range(1, 30):
        view.knobs.sliders["threshold"].setValue(position)
        qtbot.wait(7)
    settled(widget, qtbot)
    assert len(widget._session.actions) == count + 1
    assert widget._session.draft.evolution.threshold == pytest.approx(2.9)


def test_settings_stay_for_the_next_object(viewer, open_widget, qtbot):
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    view = widget.evolution
    view.switch.setChecked(True)
    view.knobs.sliders["steps"].setValue(2)
    qtbot.waitUntil(lambda: widget._session.evolution is not None)
    outlined(widget, qtbot)
    assert widget._session.draft.evolution.steps == 2
    assert len(widget._session.preview.prediction.states) == 3
    view.switch.setChecked(False)
    assert "changed" in view.knobs.hint.text()  # also told while it is off


def test_a_model_without_an_evolution_has_a_threshold_only(viewer, open_widget, qtbot, monkeypatch, predictor):
    from dataclasses import replace

    monkeypatch.setattr(predictor, "config", replace(predictor.config, motion=False))
    viewer.add_image(np.zeros((80, 80)))
    widget = open_widget()
    enabled = {name for name, slider in widget.evolution.knobs.sliders.items() if slider.isEnabled()}
    assert enabled == {"threshold"}
