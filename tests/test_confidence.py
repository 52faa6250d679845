"""Confidence: what the features say about predictions made by hand, and a fit that keeps its promises."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from napari_delse._sample_data import cells, coins
from napari_delse.annotator import simulated_prompt
from napari_delse.confidence import (
    DIRECTIONS,
    Calibration,
    agreement,
    box_iou,
    confidence,
    expected_iou,
    features_of,
    fit,
)
from napari_delse.evaluation import objects_of
from napari_delse.geometry import Correction, Crop, ExtremePoints, ObjectMask
from napari_delse.metrics import score_object
from napari_delse.predict import Predictor

SIZE = 96
CROP = Crop(0, 0, SIZE, SIZE, SIZE)
Y, X = np.mgrid[:SIZE, :SIZE].astype(np.float32)
CLICKS = ExtremePoints(((18, 48), (48, 18), (78, 48), (48, 78)))


def disk(radius=30.0, centre=(48, 48), slope=1.0):
    return (slope * (radius - np.hypot(Y - centre[0], X - centre[1]))).astype(np.float32)


def prediction(*states, prompt=CLICKS, corrections=()):
    return SimpleNamespace(
        states=states,
        threshold=0.0,
        softness=3.0,
        mask=ObjectMask.from_plane(states[-1] > 0),
        prompt=prompt,
        corrections=corrections,
        crop=CROP,
    )


GOOD = features_of(prediction(disk(), disk(), disk()))


def test_a_prediction_without_doubt_has_nothing_against_it():
    assert set(GOOD) == set(DIRECTIONS)
    assert GOOD["steepness"] == pytest.approx(0, abs=0.02)
    assert GOOD["last_move"] == GOOD["evolved"] == GOOD["pieces"] == 0
    assert GOOD["clicks_off"] <= 1 / SIZE  # the contour is the mask's outermost pixels
    assert GOOD["box_off"] < 0.08
    assert GOOD["area"] == pytest.approx(np.log(np.pi * 30**2 / SIZE**2), abs=0.02)


@pytest.mark.parametrize(
    ("name", "worse"),
    [
        ("expected_iou", prediction(disk(), disk(slope=0.3))),
        ("steepness", prediction(disk(), disk(slope=0.3))),
        ("weakest", prediction(disk(), np.where(X > 60, disk(slope=0.1), disk()))),
        ("last_move", prediction(disk(), disk(27), disk())),
        ("evolved", prediction(disk(22), disk(), disk())),
        ("clicks_off", prediction(disk(), disk(24))),
        ("clicks_off", prediction(disk(), disk(), corrections=(Correction((48, 78), (48, 90)),))),
        ("box_off", prediction(disk(), disk(24))),
        ("pieces", prediction(disk(), np.maximum(disk(), disk(5, (8, 8))))),
        ("thinness", prediction(disk(), np.minimum(disk(), 4 - np.abs(Y - 48)))),
    ],
)
def test_each_feature_sees_its_kind_of_trouble(name, worse):
    assert DIRECTIONS[name] * (features_of(worse)[name] - GOOD[name]) < -1e-3


def test_the_last_move_is_the_way_of_the_contour():
    moved = features_of(prediction(disk(26, slope=2.5), disk(30, slope=2.5)))
    assert moved["last_move"] == pytest.approx(4 / SIZE, rel=0.05)


def test_a_box_is_judged_by_its_sides_and_not_by_its_corners():
    box = features_of(prediction(disk(), prompt=ExtremePoints.from_box([(18, 18), (78, 78)])))
    assert box["clicks_off"] == 0
    assert box["boxed"] == 1
    assert box["box_off"] == pytest.approx(GOOD["box_off"])


@pytest.mark.parametrize("states", [(disk(),), (disk() * 0 + 5, disk() * 0 + 5), (-disk(), np.full_like(X, 7))])
def test_features_are_finite_whatever_the_mask(states):
    assert np.isfinite(list(features_of(prediction(*states)).values())).all()


def test_an_empty_mask_is_worth_nothing():
    empty = prediction(disk(), np.full_like(X, -3))
    calibration = fit(["area"], np.array([[0.0], [1.0]]), np.array([0.9, 0.8]))
    assert confidence(empty, calibration) == 0
    assert confidence(empty, None) == 0
    outside = prediction(disk())
    outside.mask = ObjectMask(np.zeros((0, 0), bool), (0, 0))  # what phi outlines lies beyond the plane
    assert confidence(outside, None) == confidence(outside, calibration) == 0
    with pytest.raises(ValueError, match="empty mask has no features"):
        features_of(empty)


def test_expected_iou_is_the_share_of_the_probable_pixels():
    phi = np.array([[50.0, 50.0, -50.0, -50.0]], np.float32)
    assert expected_iou(phi, 0.0, 1.0) == pytest.approx(1)
    # one sure pixel, one of probability 3/4 inside and one of probability 1/4 outside
    phi = np.array([[50.0, np.log(3), -np.log(3), -50.0]], np.float32)
    assert expected_iou(phi, 0.0, 1.0) == pytest.approx(1.75 / 2.25)


@given(st.lists(st.floats(-20, 20), min_size=8, max_size=8))
def test_the_iou_of_boxes_is_that_of_their_pixels(values):
    corners = np.round(np.sort(np.reshape(values, (2, 2, 2)), axis=1)).astype(int)
    one, other = ((*low, *high) for low, high in corners)
    planes = []
    for y0, x0, y1, x1 in (one, other):
        plane = np.zeros((50, 50), bool)
        plane[y0 + 22 : y1 + 23, x0 + 22 : x1 + 23] = True
        planes.append(plane)
    expected = (planes[0] & planes[1]).sum() / (planes[0] | planes[1]).sum()
    assert box_iou(one, other) == pytest.approx(expected)


# ---------------------------------------------------------------- the fit


def objects(count, seed=0):
    """Features of which two tell the IoU, with noise."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 4)) * (1, 0.1, 5, 1) + (2, 0, 1, 0)
    odds = 1.5 + 0.8 * (rows[:, 0] - 2) - 8 * rows[:, 1]
    return rows, 1 / (1 + np.exp(-odds + rng.normal(size=count) * 0.2))


NAMES = ("expected_iou", "evolved", "area", "pieces")


def test_a_fit_finds_what_tells_the_iou_and_is_calibrated():
    rows, ious = objects(600)
    calibration = fit(NAMES, rows, ious)
    others, true = objects(300, seed=1)
    scores = calibration.scores(others)
    assert spearmanr(scores, true).statistic > 0.95
    for part in np.array_split(np.argsort(scores), 5):
        assert scores[part].mean() == pytest.approx(true[part].mean(), abs=0.03)
    assert abs(calibration.weights[2]) < 0.1 < calibration.weights[0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_fitted_score_falls_with_every_trouble_whatever_the_data_say(seed):
    rng = np.random.default_rng(seed)
    names = list(DIRECTIONS)
    calibration = fit(names, rng.normal(size=(30, len(names))), rng.uniform(size=30))
    for name, weight in zip(calibration.names, calibration.weights, strict=True):
        assert weight * DIRECTIONS[name] >= 0


def test_objects_count_as_their_weights_say():
    rows = np.zeros((2, 1))
    calibration = fit(["area"], rows, np.array([0.2, 0.8]), np.array([3.0, 1.0]))
    assert calibration.scores(rows)[0] == pytest.approx(0.35, abs=1e-3)


def test_far_off_features_get_no_bolder_score():
    rows, ious = objects(200)
    calibration = fit(NAMES, rows, ious)
    scores = calibration.scores(np.array([rows.mean(axis=0) + k * np.array([100.0, 0, 0, 0]) for k in (1, 1000)]))
    assert scores[0] == scores[1]


def test_a_calibration_comes_back_from_the_card():
    rows, ious = objects(50)
    calibration = fit(NAMES, rows, ious)
    assert Calibration.from_card({"confidence": {**calibration.to_card(), "objects": 50}}) == calibration
    assert Calibration.from_card({"name": "old"}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["beauty", "evolved"]}, "unknown feature 'beauty'"),
        ({"scales": [1.0, 0.0]}, "scale > 0"),
        ({"weights": [1.0]}, "per feature"),
        ({"bias": float("nan")}, "finite"),
        ({"means": None}, "is damaged"),
    ],
)
def test_a_damaged_calibration_says_so(change, message):
    whole = {"names": ["area", "evolved"], "means": [0, 0], "scales": [1, 1], "weights": [1, 1], "bias": 0.0}
    assert Calibration.from_card({"confidence": whole})
    with pytest.raises(ValueError, match=message):
        Calibration.from_card({"confidence": {**whole, **change}})


def test_a_fit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="two or more objects"):
        fit(["area"], np.zeros((1, 1)), np.ones(1))


def test_agreement_is_the_mean_overlap_with_masks_of_moved_clicks():
    class Boxes:
        """Masks are the boxes of their prompts."""

        def segment_many(self, image, prompts, corrections=()):
            assert len(prompts) == len(corrections) == 6
            for prompt in prompts:
                y0, x0, y1, x1 = (round(v) for v in prompt.box)
                yield SimpleNamespace(mask=ObjectMask(np.ones((y1 - y0 + 1, x1 - x0 + 1), bool), (y0, x0)))

        def evolve_like(self, prediction, other):
            return prediction

    whole = ObjectMask(np.ones((61, 61), bool), (18, 18))
    one = SimpleNamespace(mask=whole, prompt=CLICKS, corrections=())
    assert agreement(Boxes(), None, one, 6, jitter=0) == 1
    near, far = (agreement(Boxes(), None, one, 6, jitter=jitter, seed=3) for jitter in (0.03, 0.2))
    assert 1 > near > far > 0.5
    assert near == agreement(Boxes(), None, one, 6, jitter=0.03, seed=3)


# ---------------------------------------------------------------- the model that ships


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load("default", device="cpu")


def test_the_default_model_knows_its_bad_masks(predictor):
    """Sample objects from exact, hasty and very hasty clicks: the order of the scores is the order of the IoU."""
    (photograph, _, _), (coin_labels, _, _), _ = coins()
    (stack, _, _), (cell_labels, _, _), _ = cells()
    scores, ious = [], []
    for image, labels in ((photograph, coin_labels), (stack[1], cell_labels[1])):
        for number, truth in list(objects_of(labels).items())[:10]:
            for jitter in (0.0, 0.08, 0.3):
                prompt = simulated_prompt(truth, np.random.default_rng(number), jitter=jitter)
                found = predictor.segment(image, prompt)
                scores.append(found.confidence)
                ious.append(score_object(found.mask, truth, labels.shape).iou)
    assert all(0 <= score <= 1 for score in scores)
    test = spearmanr(scores, ious)
    assert test.statistic > 0.4
    assert test.pvalue < 1e-3


def test_the_default_model_carries_a_calibration_and_others_fall_back(predictor):
    (photograph, _, _), _, _ = coins()
    clicks = ExtremePoints.from_clicks([(34, 275), (70, 276), (51, 255), (50, 295)])
    found = predictor.segment(photograph, clicks)
    assert predictor.calibration is not None
    assert found.confidence == predictor.calibration.score(features_of(found))
    plain = replace(found, calibration=None)
    assert plain.confidence == expected_iou(found.states[-1], found.threshold, found.softness)


def test_a_damaged_calibration_does_not_keep_a_model_from_working(monkeypatch):
    import napari_delse.predict as predict

    loaded = predict.load_model("default")
    broken = replace(loaded, card={**loaded.card, "confidence": {"names": ["beauty"]}})
    monkeypatch.setattr(predict, "load_model", lambda _: broken)
    with pytest.warns(RuntimeWarning, match="not calibrated"):
        assert Predictor.load("default", device="cpu").calibration is None
