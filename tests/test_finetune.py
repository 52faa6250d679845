"""Fine-tuning as a person meets it: honest splits, a score before and after, never a worse model."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_delse.checkpoint import load_model, save_model
from napari_delse.data import split_planes
from napari_delse.finetune import FineTuneConfig, fine_tune, score, split_objects
from napari_delse.geometry import CropConfig
from napari_delse.model import ARCHITECTURES, Architecture, Delse, ModelConfig
from napari_delse.predict import Predictor

TINY = Architecture("basic", (1, 1, 1, 1), (8, 8, 16, 16), 8, False, 5, 8, 0, True, 8, 8, 2)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)


@pytest.fixture
def parent(tmp_path):
    torch.manual_seed(0)
    model = Delse(ModelConfig(architecture="tiny", crop=CropConfig(size=64)))
    return load_model(save_model(tmp_path / "parent", model, {}))


def disks(planes=3, per_plane=4, seed=0):
    """A stack of bright disks on a dark ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    labels = np.zeros((planes, 96, 96), np.uint16)
    for z in range(planes):
        for i in range(per_plane):
            cy, cx = 26 + 44 * (i // 2) + rng.integers(-3, 4), 26 + 44 * (i % 2) + rng.integers(-3, 4)
            labels[z][(y - cy) ** 2 + (x - cx) ** 2 < rng.integers(9, 16) ** 2] = i + 1
    return list(split_planes("disks", (labels > 0) * 120.0 + rng.normal(60, 8, labels.shape), labels))


def keys(side):
    return {(sample.name, sample.plane, i) for sample, ids in side.planes for i in ids}


@given(planes=st.integers(1, 6), per_plane=st.integers(1, 4), share=st.floats(0.05, 0.95))
def test_a_split_keeps_objects_on_each_side_and_none_on_both(planes, per_plane, share):
    if planes * per_plane < 2:
        return
    samples = disks(planes, per_plane)
    training, held_out = split_objects(samples, share)
    assert training.total > 0
    assert held_out.total > 0
    assert not keys(training) & keys(held_out)
    assert len(keys(training) | keys(held_out)) == planes * per_plane


def test_planes_of_a_stack_are_held_out_in_one_block():
    training, held_out = split_objects(disks(planes=8), 0.25)
    assert max(s.plane for s, _ in training.planes) < min(s.plane for s, _ in held_out.planes)
    assert [s.plane for s, _ in held_out.planes] == [6, 7]


def test_whole_images_are_held_out_where_there_are_several():
    samples = [s._replace(name=f"image{i}") for i in range(4) for s in disks(planes=2, seed=i)]
    training, held_out = split_objects(samples, 0.25)
    assert not {s.name for s, _ in training.planes} & {s.name for s, _ in held_out.planes}


@pytest.mark.parametrize(("labels", "message"), [((0,), "0 labelled objects"), ((0, 1), "1 labelled object of")])
def test_too_few_objects_are_told(parent, tmp_path, labels, message):
    plane = np.zeros((40, 40), np.uint16)
    plane[10:20, 10:20] = labels[-1]
    with pytest.raises(ValueError, match=message):
        next(fine_tune(parent, list(split_planes("one", plane * 10, plane)), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_fine_tuning_raises_the_score_and_tells_before_and_after(parent, tmp_path):
    config = FineTuneConfig(steps=60, replay=0, freeze_norm=False, learning_rate=5e-3, interactive_share=0)
    first, *_, last = fine_tune(parent, disks(), tmp_path / "better", config)
    assert first.now == first.before == last.before
    assert last.done
    assert last.improved
    assert last.best.mean_iou > first.before.mean_iou + 0.1
    card = load_model(tmp_path / "better").card
    assert card["parent"] == "parent"
    assert card["validation"]["after"]["miou"] == pytest.approx(last.best.mean_iou)
    again = score(Predictor(load_model(tmp_path / "better"), torch.device("cpu")), split_objects(disks(), 0.25)[1], 40)
    assert again == last.best


def test_a_worse_model_is_never_kept(parent, tmp_path):
    config = FineTuneConfig(steps=2, replay=0, learning_rate=1e-12)
    *_, last = fine_tune(parent, disks(), tmp_path / "same", config)
    assert last.best.mean_iou >= last.before.mean_iou
    kept, old = (load_model(tmp_path / n).model.state_dict() for n in ("same", "parent"))
    if not last.improved:
        assert all(torch.equal(kept[name], old[name]) for name in old)


def test_stopping_leaves_a_model_and_going_on_keeps_the_best(parent, tmp_path):
    config = FineTuneConfig(steps=4, replay=0, minutes=1e-4)
    stopped = list(islice(fine_tune(parent, disks(), tmp_path / "run", config), 3))
    assert load_model(tmp_path / "run").card["parent"] == "parent"
    resumed = next(fine_tune(parent, disks(), tmp_path / "run", config))
    assert resumed.best == stopped[-1].best


def test_unlabelled_neighbours_change_only_what_is_an_example(parent):
    """A neighbour without a label is background of the labelled object, as it would be with one."""
    from napari_delse.crops import CropSampler
    from napari_delse.finetune import LabelledObjects, _pack

    sample = disks(planes=1)[0]
    partly = sample._replace(labels=np.where(sample.labels == 1, 1, 0).astype(np.uint16))
    config, sampler = FineTuneConfig(replay=0), CropSampler(parent.config, None)
    full, part = (sampler(_pack(LabelledObjects(((s, (1,)),)), config, 96)) for s in (sample, partly))
    assert torch.equal(full.mask, part.mask)
    assert torch.equal(full.weight, part.weight)
    assert torch.equal(full.image, part.image)
