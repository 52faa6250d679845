"""Training as people rely on it: it learns, stops, resumes exactly and says what went wrong."""

import csv
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from napari_delse.annotator import worst_point
from napari_delse.checkpoint import load_model
from napari_delse.data.samples import split_planes
from napari_delse.geometry import CropConfig
from napari_delse.model import ARCHITECTURES, Architecture, Delse, ModelConfig
from napari_delse.train import LossConfig, TrainConfig, fit, loop
from napari_delse.train.crops import AugmentConfig, CropSampler, join_packs, pack_objects
from napari_delse.train.log import CsvLog, LossMeter
from napari_delse.train.loop import interactive_losses, simulate_drag, training_losses
from napari_delse.train.recipes import read_recipe, write_pack

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


def disks():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96]
    labels = np.zeros((96, 96), np.uint16)
    for i, (cy, cx, r) in enumerate([(25, 25, 12), (66, 30, 15), (40, 70, 17), (80, 78, 9)], start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = i
    image = (labels > 0) * 150.0 + rng.normal(60, 10, labels.shape)
    return join_packs(pack_objects(split_planes("disks", image.astype(np.float32), labels), 0, canvas=96))


@pytest.fixture(scope="module")
def pack():
    return disks()


def model(seed=0, **changes) -> Delse:
    torch.manual_seed(seed)
    return Delse(ModelConfig(architecture="tiny", crop=CropConfig(size=64), **changes))


def losses_of(progress):
    return [(p.step, p.loss) for p in progress]


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(pack, tmp_path):
    whole = losses_of(fit(model(), pack, CONFIG, tmp_path / "whole"))
    first = losses_of(itertools.islice(fit(model(), pack, CONFIG, tmp_path / "parts"), 3))
    torch.manual_seed(99)  # another process has another global seed
    rest = losses_of(fit(Delse(model().config), pack, CONFIG, tmp_path / "parts"))
    assert first + rest == whole
    for file in ("model.safetensors", "resume.safetensors"):  # the average; weights, optimizer and average
        a, b = (load_file(tmp_path / name / file) for name in ("whole", "parts"))
        assert all(torch.equal(a[name], b[name]) for name in a if name != "clock")
    assert table(tmp_path / "whole") == table(tmp_path / "parts")


def table(folder, without=("seconds",)):
    """The rows of a run's log."""
    with (folder / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


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
    with pytest.raises(ValueError, match=r"another config \(train.seed was 0, is 5\)"):
        next(fit(model(), pack, replace(CONFIG, seed=5), tmp_path / "run"))


def test_a_run_from_before_a_setting_existed_goes_on(pack, tmp_path):
    next(fit(model(), pack, CONFIG, tmp_path / "run"))
    recipe = tmp_path / "run" / "run.json"
    older = json.loads(recipe.read_text())
    del older["train"]["report_seconds"]
    recipe.write_text(json.dumps(older))
    assert next(fit(model(), pack, CONFIG, tmp_path / "run")).step == 2


def test_a_crash_before_the_first_checkpoint_of_a_new_run_does_not_wake_the_old_one(pack, tmp_path):
    next(fit(model(), pack, CONFIG, tmp_path / "run"))
    other = replace(CONFIG, seed=5)
    bad = pack._replace(hull=pack.hull * float("nan"))
    with pytest.raises(FloatingPointError):
        next(fit(model(), bad, other, tmp_path / "run", resume=False))
    assert next(fit(model(), pack, other, tmp_path / "run")).step == 1


def rare(**changes):
    """A run that saves only when it ends or is stopped."""
    return replace(CONFIG, save_minutes=60, **changes)


def test_closing_saves_what_was_done_since_the_last_checkpoint(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_LOST_SECONDS", 0)
    whole = losses_of(fit(model(), pack, CONFIG, tmp_path / "whole"))
    run = fit(model(), pack, rare(report_seconds=0), tmp_path / "run")
    first = [next(run), next(run)]
    assert not first[-1].saved
    assert not (tmp_path / "run" / "model.safetensors").exists()
    run.close()
    assert load_model(tmp_path / "run").card["steps"] == 2
    rest = fit(model(), pack, rare(report_seconds=0), tmp_path / "run")
    assert losses_of(first) + losses_of(rest) == whole


def test_seconds_of_work_are_not_worth_a_checkpoint(pack, tmp_path):
    run = fit(model(), pack, rare(report_seconds=0), tmp_path / "run")
    next(run)
    run.close()
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_ctrl_c_finishes_the_step_and_saves_it(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_LOST_SECONDS", 0)
    interactive = loop.interactive_losses

    def pressed(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return interactive(*args)

    monkeypatch.setattr(loop, "interactive_losses", pressed)
    before = signal.getsignal(signal.SIGINT)
    config = rare(interactive_from=0.5, interactive_share=1.0)
    with pytest.raises(KeyboardInterrupt):
        list(fit(model(), pack, config, tmp_path / "run"))
    assert signal.getsignal(signal.SIGINT) is before
    assert load_model(tmp_path / "run").card["steps"] == 4  # the step it was pressed in counts
    monkeypatch.undo()
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)
    *_, last = fit(model(), pack, config, tmp_path / "run")
    assert last.step == 6
    list(fit(model(), pack, config, tmp_path / "whole"))
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)


class LateMeter(LossMeter):
    """Reads a step while the next one is computed, as on a GPU."""

    def add(self, note, own, mean):
        self._waiting.append((note, torch.stack([own, mean]), None))
        self._read(1)


def test_ctrl_c_does_not_save_a_step_whose_losses_were_not_yet_read_and_are_not_finite(pack, tmp_path, monkeypatch):
    real, factors = loop.training_losses, iter([1.0, float("nan")])

    def pressed(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        factor = next(factors)
        return {name: value * factor for name, value in real(*args, **kwargs).items()}

    monkeypatch.setattr(loop, "_LOST_SECONDS", 0)
    monkeypatch.setattr(loop, "LossMeter", LateMeter)
    monkeypatch.setattr(loop, "training_losses", pressed)
    for error in (KeyboardInterrupt, FloatingPointError):
        with pytest.raises(error):
            list(fit(model(), pack, rare(), tmp_path / "run"))
        assert load_model(tmp_path / "run").card["steps"] == 1


def test_training_in_a_thread_leaves_ctrl_c_alone(pack, tmp_path):
    seen = []

    def work():
        seen.extend(fit(model(), pack, replace(CONFIG, steps=1), tmp_path / "run"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[-1].fraction == 1


def test_crops_made_ahead_are_the_same(pack, tmp_path, monkeypatch):
    config = replace(CONFIG, sizes=((0.0, 32), (0.5, 64)))
    plain = losses_of(fit(model(), pack, config, tmp_path / "plain"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert losses_of(fit(model(), pack, config, tmp_path / "ahead")) == plain


def test_the_log_gains_columns_and_forgets_what_was_never_saved(tmp_path):
    path = tmp_path / "log.csv"
    log = CsvLog(path, 0)
    log({"step": 1, "loss": 0.5})
    log({"step": 2, "loss": 0.4, "simulated": 0.1})
    log({"step": 3, "loss": 0.3})
    with path.open("a") as file:
        file.write("4,0.")  # the line it died in
    again = CsvLog(path, 2)
    again({"step": 3, "loss": 0.25})
    assert path.read_text().split() == ["step,loss,simulated", "1,0.5,", "2,0.4,0.1", "3,0.25,"]


def test_tensorboard_shows_the_losses(pack, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    list(itertools.islice(fit(model(), pack, CONFIG, tmp_path / "run"), 2))
    list(fit(model(), pack, CONFIG, tmp_path / "run"))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert shown == [(int(r["step"]), pytest.approx(float(r["loss"]))) for r in table(tmp_path / "run")]


def test_two_processes_train_as_one(tmp_path):
    """Parameters are equal bit by bit, also after stopping and resuming; what goes wrong in one stops both."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).with_name("train_on_two.py")
    write_pack(tmp_path / "pack.safetensors", disks(), ("disks",))
    text = '[model]\narchitecture = "tiny"\n[train]\nsteps = 2\nbatch_size = 4\n[data]\npack = "pack.safetensors"\n'
    (tmp_path / "recipe.toml").write_text(text + 'out = "two"\n')
    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    states = {f"{n}-{r}": load_file(tmp_path / f"{n}-{r}.safetensors") for n in ("whole", "parts") for r in (0, 1)}
    for name, state in states.items():
        assert all(torch.equal(state[k], states["whole-0"][k]) for k in state), name
    assert any(k.endswith("running_mean") for k in states["whole-0"])
    lead, other = (json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in (0, 1))
    assert len(lead["losses"]) == 4
    assert lead["parts"] == lead["losses"]
    assert other["losses"] == other["parts"] == []  # the first process speaks for both
    assert lead["timed"] >= 1
    assert lead["code"] == other["code"] == 0
    assert done.stdout.count("two: 2 steps") == 1  # only one of them speaks
    assert load_model(tmp_path / "two").card["steps"] == 2
    assert "of another process" in lead["error"]
    assert "objects set 0 [" in other["error"]
    averages = [load_file(tmp_path / f"average-{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(averages[0][k], averages[1][k]) for k in averages[0])
    averages = [load_file(tmp_path / n / "resume.safetensors") for n in ("whole", "parts")]
    assert all(torch.equal(averages[0][k], averages[1][k]) for k in averages[0] if k != "clock")


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


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.0, 1.5]))
@example(seed=817, threshold=1.5)
def test_training_drags_what_evaluation_drags(seed, threshold):
    """Not from where the truth is unknown, and by the threshold with which the model predicts."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]

    def blob():
        return sum(
            rng.uniform(8, 14) * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 60) for a, b in rng.integers(22, 42, (3, 2))
        )

    phi, mask = blob() - 6, blob() > 6
    unknown = np.zeros((64, 64), bool)
    unknown[:, : rng.integers(20, 40)] = True
    told = worst_point(phi > threshold, mask, unknown)
    start, end, made = simulate_drag(
        *(torch.from_numpy(a.astype(np.float32))[None, None] for a in (phi, mask, ~unknown)), threshold
    )
    if told is None or math.dist(*told) > 15.5:  # farther than a quarter of the crop is all the same
        return
    assert made.item() == (math.dist(*told) > 1)  # next to each other they are as right as network pixels can be
    if not made.item():
        return
    assert (start[0] - end[0]).norm().item() == pytest.approx(math.dist(*told), abs=1e-3)
    assert not unknown[tuple(start[0].int().tolist())]


def with_drag(network, pack, start, end):
    """A batch whose first object has one recorded drag."""
    batch = CropSampler(network.config, None)(pack, None)
    batch.drags[0, 0] = torch.tensor([start, end])
    return batch


def test_a_recorded_drag_goes_before_a_simulated_one_while_its_error_is_there(pack):
    network = model()
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    phi = (10 - ((y - 32).square() + (x - 32).square()).sqrt()).expand(4, 1, 64, 64)  # smaller than the object
    batch = with_drag(network, pack, (32.0, 42.0), (32.0, 50.0))
    start, end, made = loop.next_drag(phi, batch, 0)
    assert start[0].tolist() == [32, 42]
    assert end[0].tolist() == [32, 50]
    assert made.all()

    def is_simulated(drag, simulated):
        """Give or take the place within a pixel of the image."""
        return [(a - b).norm(dim=-1).max() <= batch.pixel.max() + 1 for a, b in zip(drag, simulated, strict=True)]

    assert all(is_simulated((start[1:], end[1:]), [x[1:] for x in simulate_drag(phi, batch.mask)[:2]]))
    for moot, turn in ((phi + 12, 0), (phi, 1), (phi, 3)):  # the contour has left; the person made no second drag
        assert all(is_simulated(loop.next_drag(moot, batch, turn)[:2], simulate_drag(moot, batch.mask)[:2]))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), sides=st.tuples(*2 * [st.floats(0.2, 6)]))
def test_simulated_ends_lie_inside_the_boundary_by_up_to_a_pixel_of_the_image(seed, sides):
    """As centres of boundary pixels of the image do, and at all such depths."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    phi = (20 - ((y - 31).square() + (x - 32).square()).sqrt()).expand(400, 1, 64, 64)
    angle = torch.rand(400, generator=generator) * 2 * torch.pi
    outwards = torch.stack([angle.sin(), angle.cos()], dim=-1)
    points = torch.tensor([31.0, 32.0]) + 19.5 * outwards
    pixel = torch.tensor([sides]).expand(400, 2)
    moved = loop.on_image_pixels(points, phi, pixel, generator)
    depth = 20 - (moved - torch.tensor([31.0, 32.0])).norm(dim=-1)
    deepest = (outwards * pixel.clamp_min(1)).norm(dim=-1)
    assert (depth > -0.1).all()
    assert (depth < deepest + 0.2).all()
    assert 0.35 < (depth / deepest).mean() < 0.65


def test_recorded_drags_reach_the_editor(pack, monkeypatch):
    network, seen = model(), []
    batch = with_drag(network, pack, (30.0, 30.0), (30.0, 50.0))
    maps = loop.drag_maps
    nothing = torch.zeros(4, 2), torch.ones(4, 2), torch.zeros(4, dtype=torch.bool)
    monkeypatch.setattr(loop, "simulate_drag", lambda *_: nothing)
    monkeypatch.setattr(loop, "_nearest", lambda boundary, point: (point, torch.zeros(len(point))))
    monkeypatch.setattr(loop, "drag_maps", lambda *told, **more: seen.append(told) or maps(*told, **more))
    interactive_losses(network, batch, LossConfig(), 1)
    start, end, made, _ = seen[0]
    assert (start[0, 0].tolist(), end[0, 0].tolist()) == ([30, 30], [30, 50])
    assert made[:, 0].tolist() == [True, False, False, False]


def test_corrections_teach_the_editor(pack):
    network = model()
    batch = CropSampler(network.config, AugmentConfig())(pack, torch.Generator().manual_seed(1))
    sum(interactive_losses(network, batch, LossConfig(), 2).values()).backward()
    assert network.editor.leave.weight.grad.abs().max() > 0


def test_the_contour_is_asked_to_pass_where_a_drag_ends(pack):
    network = model()
    batch = CropSampler(network.config, AugmentConfig())(pack, torch.Generator().manual_seed(1))
    told = interactive_losses(network, batch, LossConfig(), 1)["drag"]
    assert told.item() > 0
    told.backward()
    assert network.editor.leave.weight.grad.abs().max() > 0
    assert "drag" not in interactive_losses(network, batch, LossConfig(drag=0), 1)


def test_sets_count_by_the_power_of_their_size():
    from napari_delse.train.loop import _sampling_weights

    groups = torch.tensor([0] * 100 + [1] * 4)
    part = {b: _sampling_weights(type("Pack", (), {"group": groups}), b) for b in (0.0, 0.5, 1.0)}
    share = {b: float(w[:100].sum() / w.sum()) for b, w in part.items()}
    assert share[0.0] == pytest.approx(0.5)
    assert share[0.5] == pytest.approx(10 / 12)
    assert share[1.0] == pytest.approx(100 / 104)
    doubled = _sampling_weights(type("Pack", (), {"group": groups}), 0.5, {1: 2.0})
    assert float(doubled[:100].sum() / doubled.sum()) == pytest.approx(10 / 14)


def test_weights_of_sets_go_by_name(pack, tmp_path):
    two = join_packs([pack, pack._replace(group=pack.group + 1)])
    config = replace(CONFIG, steps=2, set_weights={"cells": 0})
    seen = []
    drawn = loop.Batches.draw

    def draw(self, step, size):
        seen.append(drawn(self, step, size))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Batches, "draw", draw)
        list(fit(model(), two, config, tmp_path / "run", sets=("coins", "cells")))
    assert {int(two.group[i]) for one in seen for i in one.chosen} == {0}
    with pytest.raises(ValueError, match="set_weights name 'cells', but the data has coins, nuclei"):
        next(fit(model(), two, config, tmp_path / "other", sets=("coins", "nuclei")))
    assert not (tmp_path / "other").exists()
    with pytest.raises(ValueError, match="leave out every object"):
        next(fit(model(), pack, config, tmp_path / "other", sets=("cells",)))


@pytest.mark.parametrize("recipe", sorted((ROOT / "training" / "recipes").rglob("*.toml")), ids=lambda p: p.name)
def test_every_recipe_is_read(recipe):
    found = read_recipe(recipe)
    assert found.model.architecture in ARCHITECTURES
    assert found.train.steps > 0
