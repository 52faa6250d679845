"""The command that calibrates a model: its measures, and the whole of it on a few small images."""

import csv
import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import tifffile

from napari_delse.checkpoint import load_model
from napari_delse.confidence import FITTED
from napari_delse.predict import Predictor


@pytest.fixture
def calibrate(checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "training"))
    return importlib.import_module("calibrate")


def test_calibration_error_is_the_distance_of_score_and_truth(calibrate):
    ious = np.linspace(0.2, 1, 100)
    assert calibrate.calibration_error(ious, ious) == pytest.approx(0)
    assert calibrate.calibration_error(ious - 0.1, ious) == pytest.approx(0.1)
    rng = np.random.default_rng(0)
    noisy = rng.uniform(size=20000) < np.repeat(ious, 200)  # right on average, whatever each single one is
    assert calibrate.calibration_error(np.repeat(ious, 200), noisy.astype(float)) < 0.02


def test_the_worst_masks_are_found_by_a_score_that_ranks_them_low(calibrate):
    ious = np.random.default_rng(0).permutation(np.linspace(0, 1, 200))
    assert calibrate.worst_found(ious, ious) == 1
    assert calibrate.worst_found(-ious, ious) == 0
    guessed = [calibrate.worst_found(np.random.default_rng(i).uniform(size=200), ious) for i in range(50)]
    assert np.mean(guessed) == pytest.approx(0.25, abs=0.05)


def test_sets_that_differ_do_not_count_as_rank_within_sets(calibrate):
    """A score that only tells easy sets from hard ones orders all predictions, but none of a set."""
    rng = np.random.default_rng(0)
    sets = np.repeat(["easy", "hard"], 500)
    level = np.where(sets == "easy", 0.9, 0.5)
    ious = level + rng.uniform(-0.05, 0.05, 1000)
    score = level + rng.uniform(-0.05, 0.05, 1000)
    assert calibrate.rank(score, ious) > 0.7
    assert abs(calibrate.rank_within_sets(score, ious, sets)) < 0.1


def judged(calibrate, count, seed=0):
    """Predictions whose expected IoU tells half of the truth and whose boxes tell the rest."""
    rng = np.random.default_rng(seed)
    result = []
    for i in range(count):
        sure, off = rng.normal(), rng.uniform(0, 0.5)
        iou = 1 / (1 + np.exp(-(1.5 + sure - 6 * off)))
        features = dict.fromkeys(calibrate.DIRECTIONS, 0.0) | {"expected_iou": sure, "box_off": off}
        key = calibrate.ObjectKey(f"set{i % 4}", "image", 0, i // 4)
        simple = 1 / (1 + np.exp(-sure))
        result.append(calibrate.Judged(key, calibrate.CONDITIONS[i % 3], iou, simple, iou, features))
    return result


def test_the_map_is_carried_if_it_orders_other_sets_better(calibrate):
    calibration, rows, facts, table = calibrate.calibrate(judged(calibrate, 400), 0)
    of = {(row.subset, row.score): row for row in rows}
    assert of["all", calibrate.MAP].rank > of["all", calibrate.FORMULA].rank + 0.1
    assert 0 < facts["gain_interval"][0] < facts["gain_interval"][1]
    assert calibration.names == FITTED
    assert len(table.ious) == 400


def test_the_formula_stays_if_the_map_orders_other_sets_worse(calibrate, monkeypatch):
    fitted = calibrate.out_of_set
    worse = {FITTED: lambda table: 1 - table.ious}
    monkeypatch.setattr(
        calibrate, "out_of_set", lambda names, table: worse.get(names, lambda t: fitted(names, t))(table)
    )
    calibration, _, facts, _ = calibrate.calibrate(judged(calibrate, 100), 0)
    assert calibration.names == ("expected_iou",)
    assert "formula" in facts["carried"]


def test_a_model_is_calibrated_and_the_page_says_how(calibrate, tmp_path, monkeypatch):
    y, x = np.mgrid[:96, :96]
    listed = []
    for number, name in enumerate(("bright", "dim", "noisy")):
        rng = np.random.default_rng(number)
        labels = np.zeros((96, 96), np.uint16)
        for label, (cy, cx, radius) in enumerate(((25, 25, 15), (66, 30, 12), (60, 70, 18)), start=1):
            labels[np.hypot(y - cy, (x - cx) * (1 + 0.2 * number)) < radius] = label
        image = (labels > 0) * (200 / (1 + number)) + rng.normal(40, 10 + 25 * number, labels.shape)
        for part, pixels in (("images", image.clip(0, 255).astype(np.uint8)), ("labels", labels)):
            (tmp_path / "data" / name / part).mkdir(parents=True)
            tifffile.imwrite(tmp_path / "data" / name / part / "one.tif", pixels)
        listed.append(f"{name}/one")
    (tmp_path / "list.txt").write_text("\n".join(listed))
    monkeypatch.setattr(calibrate, "LISTED", tmp_path / "list.txt")
    model = tmp_path / "copy"
    shutil.copytree(load_model("default").path, model)
    arguments = [str(model), str(tmp_path / "data"), "--moves", "1", "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *arguments])
    before = json.loads((model / "card.json").read_text(encoding="utf-8"))
    calibrate.main()
    card = json.loads((model / "card.json").read_text(encoding="utf-8"))
    stored = card["confidence"]
    assert {k: v for k, v in card.items() if k != "confidence"} == {
        k: v for k, v in before.items() if k != "confidence"
    }
    assert stored["objects"] == 9
    assert 27 <= stored["predictions"] <= 36
    assert len(stored["commit"]) == 40
    predictor = Predictor.load(model, device="cpu")
    assert predictor.calibration is not None
    assert predictor.calibration.to_card() == {key: stored[key] for key in predictor.calibration.to_card()}
    page = (tmp_path / "results" / "confidence.md").read_text(encoding="utf-8")
    assert "9 objects of 3 data sets" in page
    assert str(tmp_path) not in page
    with (tmp_path / "results" / "confidence.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["subset"] for row in rows} >= {"all", "bright", "dim", "noisy"}
    assert {row["seed"] for row in rows} == {"0"}
