"""The study of propagation: its simple ways, its scores and its files."""

import csv
import importlib

import numpy as np
import pytest
import tifffile

from napari_delse.geometry import ObjectMask
from napari_delse.propagation.config import Gap, PropagationConfig


@pytest.fixture
def study(checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "training"))
    return importlib.import_module("propagation_study")


def disk(y, x, radius, shape=(60, 70)):
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    return (ys - y) ** 2 + (xs - x) ** 2 <= radius**2


@pytest.fixture
def data(tmp_path):
    """A time series whose right half has a moving disk, and pixels without truth."""
    labels = np.zeros((5, 60, 140), np.uint16)
    for plane in range(5):
        labels[plane][disk(30, 90 + 5 * plane, 8, labels.shape[1:])] = 7
    images = (labels * 30 + np.random.default_rng(0).integers(0, 9, labels.shape)).astype(np.uint8)
    labels[:, :5] = 65535
    for name, array in (("images", images), ("labels", labels)):
        (tmp_path / "ctc_phc_psc" / name).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "ctc_phc_psc" / name / "seq01.tif", array)
    return tmp_path


def test_the_ways_are_scored_on_the_half_that_is_reported(study, data, tmp_path):
    (stack,) = study.stacks(data, "ctc_phc_psc", "reported", None, None)
    assert stack.images.shape == (5, 60, 70)
    scores, unreached = study.study(stack, 4, study.NoModel(), PropagationConfig())
    results = study.Results()
    results.scores = scores
    assert unreached == 0
    moved, copy, interpolation = (results.of("ctc_phc_psc", 4, way) for way in ("moved", "copy", "interpolation"))
    assert len(moved) == 3
    assert min(moved) > 0.9
    assert np.mean(copy) < 0.7
    assert np.mean(interpolation) < np.mean(moved)
    results.write(tmp_path / "out", "A test.")
    with (tmp_path / "out" / "propagation.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["way"] == "copy"]
    assert [(row["distance"], row["objects"]) for row in rows] == [("1", "2"), ("2", "1")]
    assert "| ctc_phc_psc | 4 |" in (tmp_path / "out" / "propagation.md").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "propagation.png").stat().st_size > 1000


def test_nothing_is_found_in_the_other_half(study, data):
    (stack,) = study.stacks(data, "ctc_phc_psc", "chosen", None, None)
    assert study.study(stack, 4, study.NoModel(), PropagationConfig()) == ([], 0)
    assert stack.void[:, :5].all()


def test_pixels_without_truth_do_not_count(study, data):
    (stack,) = study.stacks(data, "ctc_phc_psc", "reported", None, None)
    hidden = ObjectMask(np.ones((5, 9), bool), (0, 20))
    assert study.scored(stack, 0, hidden, None) is None
    assert study.scored(stack, 0, ObjectMask(np.ones((10, 9), bool), (0, 20)), None) == 0
    assert study.scored(stack, 0, None, None) is None


def test_interpolation_lies_between_and_copies_what_only_one_key_shows(study):
    small, large = (ObjectMask.from_plane(disk(30, 30, radius)) for radius in (5, 15))
    gap = Gap(1, 9, 0, 10)
    middle = study.interpolated(gap, 5, small, large, (60, 70))
    np.testing.assert_allclose(middle.area, np.pi * 10**2, rtol=0.05)
    assert study.interpolated(gap, 4, small, None, (60, 70)) is small
    assert study.interpolated(gap, 6, small, None, (60, 70)) is None
    edge = ObjectMask.from_plane(disk(30, 69, 8))
    assert study.interpolated(gap, 5, edge, edge, (60, 70)).to_plane((60, 70)).sum() == edge.area
    assert study.copied(gap, 5, small, large) is small
    assert study.copied(Gap(0, 9, None, 10), 0, None, large) is large


def test_the_key_planes_needed_are_read_between_the_measured_shares(study):
    assert study.needed([0.1, 0.5], [0.6, 0.8], 0.7) == "30%"
    assert study.needed([0.1, 0.5], [0.6, 0.8], 0.5) == "<= 10%"
    assert study.needed([0.1, 0.5], [0.6, 0.8], 0.9) == "> 50%"
