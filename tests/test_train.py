"""Training as people rely on it: it learns, stops, resumes exactly and says what went wrong."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_delse.checkpoint import load_model
from napari_delse.crops import AugmentConfig, CropSampler, join_packs, pack_objects
from napari_delse.data import split_planes
from napari_delse.geometry import CropConfig
from napari_delse.model import ARCHITECTURES, Architecture, Delse, ModelConfig
from napari_delse.train import LossConfig, TrainConfig, fit, interactive_losses, simulate_drag, training_losses

TINY = Architecture("basic", (1, 1, 1, 1), (8, 8, 16, 16), 8, False, 5, 8, 0, True, 8, 8, 2)
ROOT = Path(__file__).parents[1]
CONFIG = TrainConfig(
    steps=6,
    batch_size=4,
    precision="float32",
    save_minutes=0,
    joint_from=0.5,
    interactive_from=0.5,
    interactive_share=0.5,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)


@pytest.fixture(scope="module")
def pack():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96]
    labels = np.zeros((96, 96), np.uint16)
    for i, (cy, cx, r) in enumerate([(25, 25, 12), (66, 30, 15), (40, 70, 17), (80, 78, 9)], start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = i
    image = (labels > 0) * 150.0 + rng.normal(60, 10, labels.shape)
    return join_packs(pack_objects(split_planes("disks", image.astype(np.float32), labels), 0, canvas=96))


def model(**changes) -> Delse:
    torch.manual_seed(0)
    return Delse(ModelConfig(architecture="tiny", crop=CropConfig(size=64), **changes))


def losses_of(progress):
    return [(p.step, p.loss) for p in progress]


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(pack, tmp_path):
    whole = losses_of(fit(model(), pack, CONFIG, tmp_path / "whole"))
    first = losses_of(itertools.islice(fit(model(), pack, CONFIG, tmp_path / "parts"), 3))
    torch.manual_seed(99)  # another process has another global seed
    rest = losses_of(fit(Delse(model().config), pack, CONFIG, tmp_path / "parts"))
    assert first + rest == whole
    a, b = (load_model(tmp_path / name).model.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_stopping_at_any_yield_leaves_a_model_that_loads(pack, tmp_path):
    for progress in fit(model(), pack, CONFIG, tmp_path / "run"):
        loaded = load_model(progress.folder)
        assert loaded.card["steps"] == progress.step
    assert progress.fraction == 1
    assert not list(tmp_path.rglob("*.part"))


def test_training_lowers_the_loss(pack, tmp_path):
    config = replace(CONFIG, steps=60, learning_rate=5e-3, interactive_from=1.0, save_minutes=60)
    sampler = CropSampler(model().config, None)
    batch = sampler(pack, torch.Generator().manual_seed(0))
    trained = model()
    with torch.no_grad():
        before = sum(training_losses(trained.eval(), batch, config.loss, simulate=False).values())
    list(fit(trained, pack, config, tmp_path / "run"))
    with torch.no_grad():
        after = sum(training_losses(trained.eval(), batch, config.loss, simulate=False).values())
    assert after < 0.7 * before


@pytest.mark.parametrize(
    "changes",
    [
        {"output": "dextr"},
        {"motion": False},
        {"modulation": False},
        {"skip_features": False},
        {"extreme_points": False},
    ],
)
def test_baselines_and_ablations_train_in_the_same_loop(pack, tmp_path, changes):
    *_, last = fit(model(**changes), pack, replace(CONFIG, steps=2), tmp_path / "run")
    assert np.isfinite(last.loss)
    assert load_model(tmp_path / "run").config == model(**changes).config


def test_the_paper_recipe_runs(pack, tmp_path):
    loss = LossConfig(arctan=True, balance=1, direction=1, initial=0, between=0, overlap=0, simulated=1)
    config = replace(CONFIG, optimizer="sgd", schedule="steps", learning_rate=3e-4, loss=loss)
    assert all(np.isfinite(p.loss) for p in fit(model(), pack, config, tmp_path / "run"))


def test_a_run_that_is_not_finite_names_its_batch_and_keeps_the_last_checkpoint(pack, tmp_path):
    run = fit(model(), pack, CONFIG, tmp_path / "run")
    next(run)
    broken = model()
    bad = pack._replace(hull=pack.hull * float("nan"))
    with pytest.raises(FloatingPointError, match=r"loss is nan.* at step 1 \(learning rate 0.*; objects set 0 \["):
        list(fit(broken, bad, CONFIG, tmp_path / "run"))
    assert load_model(tmp_path / "run").card["steps"] == 1


def test_a_folder_of_another_run_is_refused(pack, tmp_path):
    next(fit(model(), pack, CONFIG, tmp_path / "run"))
    with pytest.raises(ValueError, match="another config"):
        next(fit(model(), pack, replace(CONFIG, seed=5), tmp_path / "run"))


def test_several_input_sizes_in_one_run(pack, tmp_path):
    config = replace(CONFIG, steps=4, sizes=((0.0, 32), (0.5, 64)), interactive_from=1)
    assert len(list(fit(model(), pack, config, tmp_path / "run"))) == 4


def test_the_simulated_drag_starts_on_the_wrong_contour_and_ends_on_the_true_one():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    true = 20 - ((y - 32).square() + (x - 32).square()).sqrt()
    wrong = torch.maximum(true, 6 - ((y - 32).square() + (x - 50).square()).sqrt())  # a bump to the right
    start, end, found = simulate_drag(wrong[None, None], (true > 0).float()[None, None])
    assert found.all()
    assert (start[0] - torch.tensor([32.0, 50.0])).norm() == pytest.approx(5.5, abs=1)  # on the bump
    radii = [(p[0] - 32).norm() for p in (start, end)]
    assert radii[0] > 22.5
    assert radii[1] == pytest.approx(19.5, abs=1)
    assert (start - end).norm() == pytest.approx(radii[0] - radii[1], abs=1)
    _, _, found = simulate_drag(true[None, None], (true > 0).float()[None, None])
    assert not found.any()


def test_corrections_teach_the_editor(pack):
    network = model()
    batch = CropSampler(network.config, AugmentConfig())(pack, torch.Generator().manual_seed(1))
    sum(interactive_losses(network, batch, LossConfig(), 2).values()).backward()
    assert network.editor.leave.weight.grad.abs().max() > 0


def test_sets_count_by_the_power_of_their_size():
    from napari_delse.train import _sampling_weights

    groups = torch.tensor([0] * 100 + [1] * 4)
    part = {b: _sampling_weights(type("Pack", (), {"group": groups}), b) for b in (0.0, 0.5, 1.0)}
    share = {b: float(w[:100].sum() / w.sum()) for b, w in part.items()}
    assert share[0.0] == pytest.approx(0.5)
    assert share[0.5] == pytest.approx(10 / 12)
    assert share[1.0] == pytest.approx(100 / 104)


@pytest.mark.parametrize("recipe", sorted((ROOT / "training" / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_every_recipe_is_read(recipe, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "training")
    from run import read_recipe

    model_config, train_config = read_recipe(recipe)
    assert model_config.architecture in ARCHITECTURES
    assert train_config.steps > 0
