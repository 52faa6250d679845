"""Figures and animations of a prediction made by hand: a disk whose contour moves to the right."""

import math
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile

import napari_delse.predict
from napari_delse import cli
from napari_delse.data.images import Plane
from napari_delse.data.prompts import ObjectPrompt, write_prompts
from napari_delse.figures.colours import directions, diverging, sequential
from napari_delse.figures.evolution import evolution_figure, evolution_frames, write_animation
from napari_delse.figures.page import Page, text_width
from napari_delse.figures.panels import (
    CONTOUR,
    DRAG,
    TRUTH,
    Shown,
    contour_panel,
    ground_panel,
    image_panel,
    panel_size,
)
from napari_delse.geometry import Correction, Crop, CropConfig, ExtremePoints
from napari_delse.levelset import EvolutionConfig
from napari_delse.model import ModelConfig
from napari_delse.predict import Prediction, mask_from_phi

CLICKS = ExtremePoints(((20, 40), (40, 20), (60, 40), (40, 60)))
CONFIG = ModelConfig(crop=CropConfig(size=64), evolution=EvolutionConfig(steps=2))


def disk(prompt=CLICKS, corrections=(), steps=2, config=CONFIG, plane_shape=(80, 90)):
    """phi is the distance to a circle around the clicks, which moves two network pixels a step to the right."""
    crop = Crop.around(prompt.box, config.crop)
    y, x = np.mgrid[: config.crop.size, : config.crop.size].astype(np.float32)
    y0, x0, y1, x1 = prompt.box
    (cy, cx) = crop.to_network(((y0 + y1) / 2, (x0 + x1) / 2))
    radius = (y1 - y0) / 2 * crop.scale[0]
    states = tuple((radius - np.hypot(y - cy, x - cx - 2 * t)).astype(np.float32) for t in range(steps + 1))
    motion = np.stack([np.zeros_like(y), np.full_like(y, 2)])
    mask = mask_from_phi(states[-1], crop, plane_shape, config.threshold)
    return Prediction(mask, prompt, tuple(corrections), crop, states, motion, np.full_like(y, 0.3), plane_shape, config)


IMAGE = np.random.default_rng(0).integers(0, 255, (80, 90), dtype=np.uint8)


def shown(truth=None, **options):
    return Shown(Plane.of(IMAGE), disk(**options), truth)


def looks_like(picture, colour, tolerance=0.12):
    """Where a picture has a colour."""
    values = picture / 255 if picture.dtype == np.uint8 else picture
    return np.abs(values - np.array(colour)).max(axis=-1) < tolerance


# ---------------------------------------------------------------- colours and text


def test_maps_are_white_at_zero_and_tell_the_signs_apart():
    blue, white, orange = diverging(np.array([-1.0, 0.0, 1.0]), 1.0)
    assert white.min() > 0.95
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    light = sequential(np.linspace(0, 1, 20)).sum(axis=-1)
    assert (np.diff(light) < 0).all()


def test_the_hue_of_a_vector_is_its_direction_and_its_strength_is_its_length():
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    vectors = np.stack([np.sin(angles), np.cos(angles)])
    full, half, twice = (directions(vectors * length, 1.0) for length in (1, 0.5, 2))
    distances = np.abs(full[:, None] - full[None]).sum(axis=-1) + 9 * np.eye(12)
    assert distances.min() > 0.1
    assert (half.min(axis=-1) > full.min(axis=-1)).all()
    np.testing.assert_allclose(twice, full)
    assert directions(np.zeros((2, 1)), 1.0).min() > 0.95


def test_phi_is_drawn_as_a_letter_and_file_names_keep_their_underscores():
    assert text_width("φ_12", 20) < text_width("φ12", 20)
    assert text_width("a_b", 20) == pytest.approx(text_width("a", 20) + text_width("_b", 20), rel=0.1)
    pages = [Page(60, 40) for _ in range(2)]
    pages[0].text(20, 20, "φ", 24)
    pages[1].text(20, 20, "o", 24)
    tall = [np.ptp(np.flatnonzero((page.to_bytes() < 128).any(axis=(1, 2)))) for page in pages]
    assert tall[0] > 1.5 * tall[1]


# ---------------------------------------------------------------- panels


def test_between_two_states_phi_is_a_part_of_an_euler_step():
    one = shown()
    np.testing.assert_array_equal(one.phi(1), one.prediction.states[1])
    np.testing.assert_allclose(
        one.phi(1.25), 0.75 * one.prediction.states[1] + 0.25 * one.prediction.states[2], atol=1e-5
    )
    np.testing.assert_array_equal(one.phi(2), one.prediction.states[2])


def test_the_contour_is_drawn_where_phi_has_it():
    one = shown()
    size = panel_size(one, 320)
    panel = contour_panel(one, 0, ground_panel(one, size))
    ys, xs = np.nonzero(looks_like(panel.pixels, CONTOUR))
    scale = size[0] / 64
    centre = (one.prediction.crop.to_network((40, 40)) + 0.5) * scale - 0.5
    radius = 20 * one.prediction.crop.scale[0] * scale
    away = np.hypot(ys - centre[0], xs - centre[1]) - radius
    assert len(ys) > 2 * radius
    assert np.abs(away).max() < 2
    assert abs(away.mean()) < 0.3


def test_the_truth_and_drags_are_drawn_only_if_there_are_any():
    truth = np.zeros((80, 90), bool)
    truth[25:55, 25:55] = True
    plain, full = shown(), shown(truth, corrections=[Correction((40, 60), (40, 66))])
    size = panel_size(plain, 320)
    assert not looks_like(ground_panel(plain, size).pixels, TRUTH).any()
    assert looks_like(ground_panel(full, size).pixels, TRUTH).sum() > 300
    assert not looks_like(image_panel(plain, size).pixels, DRAG).any()
    assert looks_like(image_panel(full, size).pixels, DRAG).sum() > 30


def test_what_lies_beyond_the_image_is_pale():
    dark = Shown(Plane.of(np.zeros((80, 90))), disk(ExtremePoints(((-5, 40), (40, 20), (60, 40), (40, 60)))))
    assert dark.prediction.crop.y0 < -10
    assert (dark.background[0] == 0.6).all()
    assert (dark.background[-1] == 0).all()


def test_colours_and_channels_are_shown_as_the_network_sees_them():
    grey = shown().background
    assert (grey[..., 0] == grey[..., 2]).all()
    two = Plane(np.stack([IMAGE, IMAGE.T[:80, :80].repeat(2, axis=1)[:, :90]]), channel_axis=0)
    picture = Shown(two, disk()).background
    assert (picture[..., 1] == picture[..., 2]).all()
    assert (picture[..., 0] != picture[..., 1]).any()


# ---------------------------------------------------------------- figure and animation


@pytest.mark.parametrize("points", [CLICKS.points, ((40, 5), (38, 40), (44, 41), (41, 88)), ((2, 40), (78, 44))])
def test_a_figure_has_all_panels_whatever_the_proportions(points):
    prompt = ExtremePoints(points)
    picture = evolution_figure(shown(prompt=prompt), "title", "caption")
    assert picture.dtype == np.uint8
    assert (picture[:4] > 240).all()
    # seven pictures stand on the light page: each column of the strip and of the row above holds ink
    assert picture.shape[1] > picture.shape[0] * 0.8
    assert (picture < 200).any(axis=-1).mean() > 0.15


def test_a_model_that_does_not_evolve_has_no_motion_to_show():
    config = ModelConfig(crop=CropConfig(size=64), output="dextr")
    still = shown(steps=0, config=config)
    picture = evolution_figure(still, "title", "caption")
    assert picture.shape[0] < evolution_figure(shown(), "title", "caption").shape[0]
    assert len(list(evolution_frames(still, "title"))) == 1


def test_the_animation_moves_the_contour_and_rests_at_its_ends(tmp_path):
    frames = list(evolution_frames(shown(), "title", substeps=2))
    assert len(frames) == 2 * 2 + 1
    left = [np.nonzero(looks_like(frame[60:-70, : frame.shape[1] // 2], CONTOUR))[1].min() for frame in frames]
    assert left == sorted(left)
    assert left[-1] - left[0] == pytest.approx(4 * panel_size(shown(), 320)[1] / 64, abs=2)
    write_animation(tmp_path / "way.gif", frames)
    read = imageio.imread(tmp_path / "way.gif")
    assert read.shape == (5, *frames[0].shape)
    assert np.abs(read[-1].astype(int) - frames[-1]).mean() < 6
    durations = [imageio.immeta(tmp_path / "way.gif", index=i)["duration"] for i in range(5)]
    assert min(durations[0], durations[-1]) > 3 * durations[1]


# ---------------------------------------------------------------- the command


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A stack, its prompts and its labels; the model finds a disk around the clicks."""

    class Disks:
        name, device = "disks", "cpu"

        def segment(self, image, prompt, corrections=()):
            return disk(prompt, corrections, plane_shape=Plane.of(image).shape)

    monkeypatch.setattr(napari_delse.predict.Predictor, "load", lambda *_, **__: Disks())
    y, x = np.mgrid[:80, :90]
    labels = np.zeros((2, 80, 90), np.uint16)
    labels[0][np.hypot(y - 40, x - 40) <= 20] = 4
    labels[1][np.hypot(y - 40, x - 44) <= 20] = 9
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([IMAGE, IMAGE]), metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    drags = (Correction((40, 60), (40, 66)),)
    write_prompts(tmp_path / "clicks.csv", [ObjectPrompt(4, (0,), CLICKS), ObjectPrompt(4, (1,), CLICKS, drags)])
    return tmp_path


@pytest.fixture
def run(job, capsys):
    def call(*args):
        fixed = [job / "stack.tif", "--prompts", job / "clicks.csv", "--out", job / "figure.png"]
        with pytest.raises(SystemExit) as left:
            cli.main([str(arg) for arg in ("figure", *fixed, *args)])
        return SimpleNamespace(code=left.value.code, **capsys.readouterr()._asdict())

    return call


def test_the_command_draws_and_scores_the_object_of_the_plane(run, job):
    result = run("--plane", "1", "--labels", job / "labels.tif", "--gif", job / "way.gif")
    assert result.code == 0, result.err
    assert "4 clicks and 1 drag" in result.out
    assert "truth: label 9" in result.out  # label 4 has no object there, label 9 has
    assert float(result.out.split("IoU ")[1][:5]) > 0.95  # the contour moved on to it
    assert float(result.out.split("phi_0: ")[1][:5]) < 0.85
    assert imageio.imread(job / "figure.png").ndim == 3
    assert len(imageio.imread(job / "way.gif")) == 2 * 4 + 1


def test_the_first_object_is_shown_without_a_choice(run, job):
    result = run("--json", job / "figure.json")
    assert result.code == 0, result.err
    assert '"index": [\n  0\n ]' in (job / "figure.json").read_text()
    assert not math.isnan(result.out.count("IoU"))
    assert "IoU" not in result.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--label", "7"], "no prompts of label 7; it has the labels 4"),
        (["--plane", "5"], "no prompts of plane"),
        (["--plane", "x"], "--plane must be numbers"),
        (["--gif", "way.mp4"], "--gif must be a file such as figure.gif"),
        (["--labels", "other.tif"], "must hold labels of"),
        (["--labels", "empty.tif"], "no object where label 4 was clicked"),
    ],
)
def test_a_figure_that_cannot_be_is_told_in_one_sentence(run, job, args, message, monkeypatch):
    monkeypatch.chdir(job)
    tifffile.imwrite(job / "other.tif", np.zeros((80, 90), np.uint8))
    tifffile.imwrite(job / "empty.tif", np.zeros((2, 80, 90), np.uint8))
    result = run(*args)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (job / "figure.png").exists()
