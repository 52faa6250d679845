"""The weights that ship: small, documented, and good on images that never fed them."""

import numpy as np
import pytest

from napari_delse._sample_data import cells, coins
from napari_delse.annotation.edits import ArrayLabels, PlaneKey
from napari_delse.annotation.journal import Identity, start
from napari_delse.annotation.replay import replay
from napari_delse.annotation.session import AnnotationSession
from napari_delse.checkpoint import load_model
from napari_delse.data.samples import object_ids
from napari_delse.evaluation import EvaluateConfig, run
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask
from napari_delse.metrics import iou
from napari_delse.predict import Predictor


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load("default", device="cpu")


def scores(predictor, image, labels, prompt=ExtremePoints.from_mask):
    result = []
    for label in object_ids(labels, 30):
        truth = labels == label
        result.append(iou(predictor.segment(image, prompt(truth)).mask.to_plane(truth.shape), truth))
    return np.array(result)


def test_the_file_is_small_and_the_card_complete():
    loaded = load_model("default")
    assert (loaded.path / "model.safetensors").stat().st_size < 12e6
    for key in ("data", "licence", "command", "commit", "train", "validation", "threshold_search"):
        assert loaded.card[key], key
    assert loaded.card["train"]["seed"] is not None
    assert "/" not in loaded.card["train"]["parent"]  # a name, not a place on somebody's machine
    for name in ("dsb2018", "emps", "sunnybrook_lv", "usiigaci", "coco128"):
        assert loaded.card["validation"]["extreme_points"]["by_set"][name]["objects"] > 0
    assert "| dsb2018 |" in (loaded.path / "README.md").read_text(encoding="utf-8")


def test_coins_and_cells_are_outlined_well(predictor):
    (photograph, _, _), (truth, _, _), _ = coins()
    assert scores(predictor, photograph, truth).mean() > 0.93
    (stack, _, _), (labels, _, _), _ = cells()
    assert scores(predictor, stack[2], labels[2]).mean() > 0.88


def test_a_box_alone_outlines_coins_too(predictor):
    (photograph, _, _), (truth, _, _), _ = coins()

    def box(mask):
        y0, x0, y1, x1 = ExtremePoints.from_mask(mask).box
        return ExtremePoints.from_box([(y0, x0), (y1, x1)])

    assert scores(predictor, photograph, truth, box).mean() > 0.85


def test_gain_offset_and_depth_of_the_image_matter_little(predictor):
    (photograph, _, _), (truth, _, _), _ = coins()
    dim = photograph.astype(np.uint16) * 3 + 700  # 16 bit, low signal on a large offset
    mean = scores(predictor, photograph, truth).mean()
    assert scores(predictor, dim, truth).mean() == pytest.approx(mean, abs=0.02)


def test_a_drag_pulls_the_contour_towards_its_end(predictor):
    """On a disk the model outlines well, a drag outwards must move the contour outwards there, and hardly elsewhere."""
    y, x = np.mgrid[:120, :120]
    rng = np.random.default_rng(0)
    image = ((y - 60) ** 2 + (x - 60) ** 2 < 30**2) * 100.0 + rng.normal(50, 8, y.shape)
    before = predictor.segment(image, ExtremePoints.from_clicks([(30, 60), (60, 30), (90, 60), (60, 90)]))
    at = np.array([60 - 30 * np.sqrt(0.5), 60 + 30 * np.sqrt(0.5)])
    after = predictor.correct(image, before, Correction(tuple(at), tuple(at + np.array((-8, 8)))))
    change = after.mask.to_plane(image.shape).astype(int) - before.mask.to_plane(image.shape)
    near = (y - at[0] + 4) ** 2 + (x - at[1] - 4) ** 2 < 12**2
    assert change[near].sum() > 15
    assert np.abs(change[~near]).sum() < np.abs(change[near]).sum()


def test_real_nuclei_are_outlined_well(predictor, shared_data, checkout):
    """A sample of the held-out images; the whole of them stands in the model card."""
    held_out = (checkout / "training" / "validation.txt").read_text(encoding="utf-8").split()
    names = {"dsb2018": [line.split("/")[1] for line in held_out if line.startswith("dsb2018/")]}
    result = run(predictor, [shared_data / "dsb2018"], EvaluateConfig(max_objects=40), names)
    assert result["miou"] > 0.87


def test_an_object_in_the_middle_of_nothing_is_at_least_where_it_was_clicked(predictor):
    empty = np.zeros((200, 200), np.uint8)
    clicks = ExtremePoints.from_clicks([(50, 80), (80, 50), (110, 80), (80, 110)])
    mask: ObjectMask = predictor.segment(empty, clicks).mask
    ys, xs = mask.indices()
    if mask.area:
        assert 40 <= ys.min() <= ys.max() <= 120
        assert 40 <= xs.min() <= xs.max() <= 120


def test_a_journal_is_replayed_bit_by_bit_from_its_prompts(predictor, tmp_path):
    (photograph, _, _), (truth, _, _), _ = coins()
    session = AnnotationSession(ArrayLabels(np.zeros(truth.shape, np.uint16)))
    journal = start(session, Identity.of(photograph), tmp_path / "work.delse.jsonl")
    for label in object_ids(truth, 30)[:4]:
        for drags in range(2):
            if drags:
                y, x = session.draft.clicks[0]
                session.add_correction(Correction((y, x), (y - 3, x + 1)))
            else:
                session.set_clicks(PlaneKey(), ExtremePoints.from_mask(truth == label).points)
            request = session.request()
            found = predictor.segment(photograph, request.draft.prompt(), request.draft.corrections)
            session.receive(request, found)
        session.commit()
    journal.abandon()

    again = replay(journal.path, predictor=lambda d: predictor.segment(photograph, d.prompt(), d.corrections))
    assert (again.predicted, again.differences) == (4, ())
    np.testing.assert_array_equal(again.labels, session.store.data)
