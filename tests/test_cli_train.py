"""`napari-delse train`: its options, recipes, and data that cannot be trained on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

from napari_delse import cli
from napari_delse.checkpoint import load_model, save_model
from napari_delse.finetuning.config import FineTuneConfig
from napari_delse.geometry import CropConfig
from napari_delse.model import ARCHITECTURES, Architecture, Delse, ModelConfig
from napari_delse.settings import settings

TINY = Architecture("basic", (1, 1, 1, 1), (8, 8, 16, 16), 8, False, 5, 8, 0, True, 8, 8, 2)
RECIPE = """
[model]
architecture = "tiny"
crop = { size = 64 }
[train]
minutes = 90
batch_size = 4
precision = "float32"
[data]
images = "stack.tif"
labels = "labels.tif"
canvas = 64
"""


@pytest.fixture
def folder(tmp_path, own_home, monkeypatch):
    """A stack, its labels, a tiny model and a recipe."""
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)
    torch.manual_seed(0)
    save_model(tmp_path / "parent", Delse(ModelConfig(architecture="tiny", crop=CropConfig(size=64))), {})
    labels = np.zeros((4, 64, 64), np.uint8)
    labels[:, 10:25, 12:30], labels[:, 40:55, 35:50] = 1, 2
    tifffile.imwrite(tmp_path / "stack.tif", labels.astype(np.uint16) * 900 + 100, photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def run(capsys, folder):
    """Run ``napari-delse train`` in the folder; gives exit code, stdout and stderr."""

    def call(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            with pytest.raises(SystemExit) as left:
                cli.main(["train", *map(str, args)])
        captured = capsys.readouterr()
        return SimpleNamespace(code=left.value.code, out=captured.out, err=captured.err)

    return call


def test_every_plain_setting_of_fine_tuning_is_an_option_with_its_comment(run):
    text = " ".join(run("--help").out.split())
    for setting in settings(FineTuneConfig):
        assert f"--{setting.name.replace('_', '-')}" in text
        assert setting.note[1:] in text


def test_options_and_set_reach_the_training(run, folder, monkeypatch):
    import napari_delse.finetuning.jobs
    import napari_delse.finetuning.run

    seen = []
    real = napari_delse.finetuning.jobs.prepare

    def watched(source, config, **more):
        seen.append((config, more))
        return real(source, config, **more)

    monkeypatch.setattr(napari_delse.finetuning.jobs, "prepare", watched)
    monkeypatch.setattr(napari_delse.finetuning.run, "run", lambda *_, **__: (x for x in ()))
    options = ("--minutes", "2", "--no-freeze-norm", "--score-objects", "7", "--set", "augment.invert=0.5")
    done = run("stack.tif", "labels.tif", "--name", "mine", "--from", "parent", *options)
    assert done.code == 0
    config, more = seen[0]
    assert (more["parent"].name, more["name"], more["out"]) == ("parent", "mine", None)
    assert (config.minutes, config.freeze_norm, config.score_objects, config.augment.invert) == (2, False, 7, 0.5)
    assert config.seed == FineTuneConfig().seed
    assert "8 labelled objects in 4 planes of 1 image" in done.err
    assert "Plane 3 with 2 objects is held out" in done.err


def test_fine_tuning_tells_survey_progress_and_verdict_and_the_same_again_is_not_trained_twice(run, folder):
    command = ("stack.tif", "labels.tif", "--from", "parent", "--steps", "2", "--replay", "0", "--json")
    first = run(*command)
    assert first.code == 0
    result = json.loads(first.out)
    assert {"before", "after", "gain", "improved", "held_out_objects", "model", "sentences", "job"} <= set(result)
    assert result["after"]["miou"] >= result["before"]["miou"]
    assert (result["model"] == "stack") == result["improved"]
    assert "held-out IoU" in first.err
    assert "nan" not in first.err
    again = run(*command)
    assert json.loads(again.out) == result
    assert "was complete" in again.err
    by_name = run("--job", "stack", "--json")
    assert json.loads(by_name.out) == result


def test_ctrl_c_is_not_the_end(run, folder, monkeypatch):
    import napari_delse.finetuning.run

    command = ("stack.tif", "labels.tif", "--from", "parent", "--steps", "3", "--replay", "0", "--minutes", "0.001")
    real = napari_delse.finetuning.run.run

    def interrupted(*args, **kwargs):
        for progress in real(*args, **kwargs):
            yield progress
            if progress.step == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(napari_delse.finetuning.run, "run", interrupted)
        stopped = run(*command)
    assert stopped.code == 130
    assert "the same command goes on from here" in stopped.err
    again = run(*command)
    assert again.code == 0
    assert "goes on from where it was stopped" in again.err
    assert " 67%" in again.err
    assert " 33%" not in again.err


def test_a_journal_with_its_image_is_trained_on(run, folder, annotated):
    labels = tifffile.imread(folder / "labels.tif")
    annotated(tifffile.imread(folder / "stack.tif"), labels, folder / "work.jsonl", drags=3)
    done = run("stack.tif", "work.jsonl", "--from", "parent", "--steps", "1", "--replay", "0", "--json")
    assert done.code == 0
    assert "8 labelled objects in 4 planes" in done.err
    assert "The clicks of 8 of them were recorded, and of 3 also drags." in done.err
    wrong = run("stack.tif", "labels.tif", "--begun-with", "labels.tif")
    assert "--begun-with goes with an annotation journal" in wrong.err


def test_a_recipe_is_trained_and_goes_on(run, folder):
    # Steps said on the command line count, although the recipe goes by the clock.
    first = run("recipe.toml", "--out", "mine", "--steps", "2", "--json")
    assert (first.code, json.loads(first.out)["steps"]) == (0, 2)
    assert "step 2, 100.0%, loss " in first.err
    assert load_model(folder / "mine").card["recipe"] == "recipe.toml"
    again = run("recipe.toml", "--out", "mine", "--steps", "2")
    assert "was complete" in again.out
    other = run("recipe.toml", "--out", "mine", "--steps", "2", "--seed", "4")
    assert (other.code, "train.seed was 0, is 4" in other.err) == (2, True)
    listed = [path.name for path in (folder / "mine").iterdir()]
    assert {"log.csv", "run.json", "resume.safetensors", "model.safetensors"} <= set(listed)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "say what to train on"),
        (("stack.tif",), "stack.tif needs labels"),
        (("stack.tif", "labels.tif", "--name", "x", "--out", "mine"), "leave one of them out"),
        (("stack.tif", "--job", "stack"), "--job goes on with what was begun"),
        (("--job", "stack", "--name", "n", "--channels", "2"), "so --name and --channels do not go with it"),
        (("recipe.toml", "data", "--axes", "YX"), "so --axes does not go with it"),
        (("--job", "gone"), "gone is no training"),
        (("stack.tif", "labels.tif", "--progress", "jsonl"), "goes with --job"),
        (("stack.tif", "labels.tif", "--out", "stack.tif"), "is a file"),
        (("gone.tif", "labels.tif", "--out", "mine"), "gone.tif does not exist"),
        (("stack.tif", "parent", "--out", "mine"), "must be two images or two folders of images"),
        (
            ("stack.tif", "labels.tif", "--out", "mine", "--set", "ema=1"),
            "unknown key 'ema'; FineTuneConfig knows minutes",
        ),
        (("stack.tif", "labels.tif", "--out", "mine", "--minutes", "0"), "minutes must be a number > 0"),
        (("recipe.toml",), "does not say where the model goes"),
        (("recipe.toml", "--out", "mine", "--validation", "0.5"), "--validation is for fine-tuning"),
        (("recipe.toml", "--out", "mine", "--from", "parent"), "trains from the start"),
        (("recipe.toml", "--out", "mine", "--set", "train.setps=1"), "unknown key 'train.setps'; TrainConfig knows"),
        (("recipe.toml", "gone.safetensors", "--out", "mine"), "gone.safetensors is no file"),
        (("gone.toml", "--out", "mine"), "gone.toml"),
    ],
)
def test_wrong_usage_is_one_sentence_and_leaves_nothing(run, folder, args, message):
    before = sorted(folder.rglob("*"))
    result = run(*args)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


NONE, ONE = np.zeros((4, 64, 64), np.uint8), np.zeros((4, 64, 64), np.uint8)
ONE[0, 5:15, 5:15] = 7


@pytest.mark.parametrize(
    ("name", "pixels", "message"),
    [
        ("labels", NONE, "0 labelled objects of 12 pixels or more"),
        ("labels", ONE, "1 labelled object of 12 pixels or more"),
        ("labels", np.ones((4, 60, 64), np.uint8), "must match in (Z, Y, X)"),
        ("labels", np.ones((4, 64, 64), np.float32), "must be integer instance ids, got float32"),
        ("stack", np.full((4, 64, 64), 5, np.uint8), "is 5 in every pixel"),
    ],
)
def test_bad_data_is_one_sentence_and_leaves_nothing(run, folder, name, pixels, message):
    tifffile.imwrite(folder / f"{name}.tif", pixels, photometric="minisblack")
    before = sorted(folder.rglob("*"))
    result = run("stack.tif", "labels.tif", "--out", "mine", "--from", "parent", "--steps", "2")
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
