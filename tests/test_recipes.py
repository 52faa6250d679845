"""Recipes: what they say, what they train on, and how they name what is wrong."""

import numpy as np
import pytest
import tifffile
import torch
from skimage.io import imsave

from napari_delse.checkpoint import load_model, write_tensors
from napari_delse.model import ARCHITECTURES, Architecture, Delse
from napari_delse.train import recipes
from napari_delse.train.recipes import (
    DataConfig,
    begin_with,
    on_data,
    read_objects,
    read_pack,
    read_recipe,
    train_recipe,
    with_changes,
    write_pack,
)

TINY = Architecture("basic", (1, 1, 1, 1), (8, 8, 16, 16), 8, False, 5, 8, 0, True, 8, 8, 2)
RECIPE = """
[model]
architecture = "tiny"
[model.crop]
size = 64
[train]
steps = 2
batch_size = 2
precision = "float32"
[train.set_weights]
cells = 2
[data]
folders = ["cells", "coins"]
canvas = 64
out = "runs/tiny"
"""


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)


def squares(*ids, shape=(48, 60)):
    labels = np.zeros(shape, np.uint16)
    for i in ids:
        labels[5 + 14 * i : 15 + 14 * i, 8:30] = i + 1
    return labels


@pytest.fixture
def folder(tmp_path):
    """A recipe beside two data sets."""
    for name, ids in (("cells", (0, 1)), ("coins", (0, 1, 2))):
        for part in ("images", "labels"):
            (tmp_path / name / part).mkdir(parents=True)
        labels = squares(*ids)
        imsave(tmp_path / name / "images" / "a.png", (labels * 40 + 20).astype(np.uint8), check_contrast=False)
        imsave(tmp_path / name / "labels" / "a.png", labels, check_contrast=False)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def test_a_recipe_trains_a_model_where_it_says(folder):
    recipe = read_recipe(folder / "recipe.toml")
    *_, last = train_recipe(recipe, name="recipe.toml")
    assert last.step == 2
    card = load_model(folder / "runs" / "tiny").card
    assert (card["recipe"], card["sets"], card["objects"]) == ("recipe.toml", ["cells", "coins"], 5)
    assert card["train"]["set_weights"] == {"cells": 2}


def test_objects_are_packed_with_as_much_around_them_as_the_model_sees(folder, monkeypatch):
    seen = []
    packed = recipes.pack_objects
    monkeypatch.setattr(recipes, "pack_objects", lambda *told: seen.append(told[-1]) or packed(*told))
    next(train_recipe(read_recipe(folder / "recipe.toml")))
    far = ["model.crop.min_margin=50", f"data.out={folder / 'far'}"]
    next(train_recipe(read_recipe(folder / "recipe.toml", far)))
    assert seen == [8.0, 8.0, 50.0, 50.0]


@pytest.mark.parametrize("part", ["all", "encoder"])
def test_a_run_begins_with_the_weights_of_its_parent(folder, part):
    *_, _last = train_recipe(read_recipe(folder / "recipe.toml"))
    parent = load_model(folder / "runs" / "tiny").model.state_dict()
    torch.manual_seed(1)
    network = Delse(read_recipe(folder / "recipe.toml").model)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    begin_with(network, folder / "runs" / "tiny", part)
    for name, value in network.state_dict().items():
        taken = part == "all" or (name.startswith("encoder.") and not name.endswith("num_batches_tracked"))
        torch.testing.assert_close(value, (parent if taken else fresh)[name], rtol=0, atol=0)


def test_a_parent_of_another_build_says_what_can_be_taken(folder):
    list(train_recipe(read_recipe(folder / "recipe.toml")))
    recipe = read_recipe(folder / "recipe.toml", ["model.motion=false"])
    with pytest.raises(ValueError, match='only its encoder with parent_part = "encoder"'):
        begin_with(Delse(recipe.model), folder / "runs" / "tiny")


def test_settings_are_changed_from_outside(folder, tmp_path):
    changes = [
        "train.steps=7",
        'train.optimizer="sgd"',
        "train.schedule=steps",
        "train.sizes=[[0.0, 32]]",
        "data.out=x",
    ]
    recipe = read_recipe(folder / "recipe.toml", changes)
    assert (recipe.train.steps, recipe.train.optimizer, recipe.train.schedule) == (7, "sgd", "steps")
    assert recipe.train.sizes == ((0.0, 32),)
    assert recipe.data.out == "x"  # relative to where it was said, not to the recipe
    assert recipe.data.folders == (str(folder / "cells"), str(folder / "coins"))
    other = on_data(recipe, folder / "cells", tmp_path / "out")
    assert (other.data.folders, other.data.out) == ((str(folder / "cells"),), str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"--set takes NAME=VALUE .* got 'steps'"):
        with_changes({}, ["steps"])
    with pytest.raises(ValueError, match="'steps' holds no settings"):
        with_changes({"steps": 1}, ["steps.more=1"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps", "setps", "unknown key 'train.setps'; TrainConfig knows encoder_weights, parent, "),
        ("[data]", "[date]", r"unknown table 'date'; a recipe knows \[model\], \[train\] and \[data\]"),
        ("steps = 2", "steps = 'two'", "'train.steps' must be a whole number, got 'two'"),
        ("steps = 2", "steps = ", "is no TOML"),
        ("canvas = 64", "pack = 'p'", "one of images, folders and pack, got folders and pack"),
        ("canvas = 64", "images = 'p'", "got images and folders"),
        ("folders", "labels = 'p'\n#", "needs both images and labels"),
        ("steps = 2", "steps = 2\nsizes = [[0, 128], [0.5, 200]]", "sizes must be positive multiples of 32 .* got 200"),
        ("steps = 2", "steps = 2\nsizes = [[0.5, 64], [0, 32]]", r"sizes must begin at rising fractions"),
        ("cells = 2", "cells = -1", "set_weights must not be negative"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(folder, old, new, message):
    (folder / "recipe.toml").write_text(RECIPE.replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(folder / "recipe.toml")
    assert "\n" not in str(caught.value)


def test_a_pack_keeps_the_names_of_its_sets(folder, tmp_path):
    pack, sets = read_objects(read_recipe(folder / "recipe.toml").data)
    assert sets == ("cells", "coins")
    assert pack.group.tolist() == [0, 0, 1, 1, 1]
    write_pack(tmp_path / "pack.safetensors", pack, sets)
    again, names = read_objects(DataConfig(pack=str(tmp_path / "pack.safetensors")))
    assert names == sets
    assert all(torch.equal(a, b) for a, b in zip(pack, again, strict=True))
    before = {name: part for name, part in pack._asdict().items() if name not in ("prompt", "boxed", "drags")}
    write_tensors(tmp_path / "old.safetensors", before)  # as packs were before
    old, unnamed = read_pack(tmp_path / "old.safetensors")
    assert unnamed == ()
    assert all(torch.equal(a, b) for a, b in zip(pack, old, strict=True))
    write_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="holds no packed objects"):
        read_pack(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="is no file"):
        read_pack(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
    ("labels", "image", "message"),
    [
        (np.zeros((48, 60), np.uint16), None, "labels of image hold no object of 12 pixels or more"),
        (squares(0), None, "one labelled object is too little"),
        (squares(0, 1)[:40], None, r"image \(48, 60\) and labels \(40, 60\) of 'image' must match"),
        (squares(0, 1).astype(np.float32), None, "labels of 'image' must be integer instance ids, got float32"),
        (squares(0, 1), np.full((48, 60), 7, np.uint8), "image 'image' is 7 in every pixel"),
    ],
)
def test_data_that_cannot_be_trained_on_is_told_before_anything_is_written(tmp_path, labels, image, message):
    image = squares(0, 1) * 20 if image is None else image
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    text = RECIPE.replace('folders = ["cells", "coins"]', 'images = "image.tif"\nlabels = "labels.tif"')
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        next(train_recipe(read_recipe(tmp_path / "recipe.toml")))
    assert not (tmp_path / "runs").exists()


def test_a_recipe_without_data_or_place_says_so(folder):
    with pytest.raises(ValueError, match="names no data"):
        read_objects(DataConfig())
    with pytest.raises(ValueError, match="does not say where the model goes"):
        next(train_recipe(read_recipe(folder / "recipe.toml", ['data.out=""'])))
    with pytest.raises(FileNotFoundError, match="no folder 'images'"):
        read_objects(DataConfig(folders=(str(folder),)))
