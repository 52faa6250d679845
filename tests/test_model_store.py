"""The user's models: found, renamed, deleted, and carried in one file that cannot do harm."""

import json
import zipfile
import zlib

import numpy as np
import pytest

from napari_delse.annotation.preferences import Preferences, read_preferences, write_preferences
from napari_delse.checkpoint import available_models, load_model, save_model, user_models
from napari_delse.finetuning.config import FineTuneConfig
from napari_delse.finetuning.jobs import prepare
from napari_delse.finetuning.labelled_sources import ArraySource
from napari_delse.finetuning.model_store import (
    add_model,
    choose_model,
    compare_models,
    current_model,
    delete_model,
    describe_models,
    export_model,
    import_model,
    model_info,
    provenance,
    rename_model,
)


@pytest.fixture(autouse=True)
def home(own_home):
    return own_home


@pytest.fixture
def mine(tiny_parent):
    """A model of the user's, called mine."""
    loaded = load_model(tiny_parent)
    card = {
        "parent": "default", "date": "2026-01-02T03:04:05+00:00", "steps": 9, "seconds": 4, "device": "cpu",
        "data": {"source": {"images": "stack.tif"}, "found": ["24 labelled objects in 6 planes."]},
        "validation": {name: {"miou": v, "f_2px": v, "objects": 8} for name, v in (("before", 0.7), ("after", 0.8))},
    }  # fmt: skip
    add_model("mine", lambda folder: save_model(folder, loaded.model, card))
    return "mine"


def test_models_are_described_from_their_files(mine):
    found = {info.name: info for info in describe_models()}
    assert found["default"].packaged
    assert found["default"].current
    assert not found["mine"].packaged
    assert found["mine"].parent == "default"
    assert found["mine"].scores["after"]["miou"] == 0.8
    text = "\n".join(provenance(found["mine"]))
    for part in ("fine-tuned from default on 2026-01-02", "24 labelled objects", "stack.tif", "after: IoU 0.8000"):
        assert part in text


def test_a_damaged_model_is_listed_with_its_problem(mine):
    (user_models() / "mine" / "model.safetensors").write_bytes(b"short")
    assert model_info("mine").problem


BEFORE = {"miou": 0.7, "f_2px": 0.7, "objects": 8}


@pytest.mark.parametrize(
    "card",
    [
        None,
        [],
        "text",
        {"validation": None},
        {"validation": [1]},
        {"validation": {"before": BEFORE, "after": {}}, "parent": "default"},
        {"validation": {"before": BEFORE, "after": {**BEFORE, "miou": "x"}}, "parent": "default"},
        {"validation": {"extreme_points": {"miou": None}}},
        {"parent": None},
        {"parent": "default", "data": "abc"},
        {"parent": "default", "data": {"source": []}},
        {"parent": "default", "data": {"found": 3}},
    ],
)
def test_a_model_with_an_odd_card_is_listed_with_its_problem_and_not_taken(mine, tmp_path, card):
    file = export_model(mine, tmp_path / "good.zip")
    (user_models() / "mine" / "card.json").write_text(json.dumps(card))
    info = model_info("mine")
    assert "card.json" in info.problem
    assert "damaged: " in provenance(info)[1]
    with pytest.raises(ValueError, match="'mine' cannot be used: "):
        choose_model("mine")
    with zipfile.ZipFile(file) as good:
        parts = {name: good.read(name) for name in good.namelist()}
    with pytest.raises(ValueError, match=r"card\.json"):
        import_model(packed(tmp_path / "odd.zip", **{**parts, "card.json": json.dumps(card)}))
    assert set(available_models()) == {"default", "mine"}


@pytest.mark.parametrize(
    "change",
    [{"format": 3}, {"model": [1]}, {"model": {"architecture": "huge"}}, {"model": {"crop": {"size": -5}}}],
)
def test_a_model_that_cannot_be_loaded_is_listed_with_its_problem(mine, change):
    file = user_models() / "mine" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert model_info("mine").problem


def test_a_new_model_gets_a_free_name(mine, tiny_parent):
    model = load_model(tiny_parent).model
    for name in ("mine-2", "mine-3"):
        assert add_model("mine", lambda folder: save_model(folder, model, {}))[0] == name
    assert add_model("default", lambda folder: save_model(folder, model, {}))[0] == "default-2"
    assert load_model("mine").card["parent"] == "default"


def test_what_cannot_be_written_is_not_added():
    def broken(folder):
        folder.mkdir()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        add_model("new", broken)
    assert not list(user_models().iterdir())


def test_a_model_that_is_being_written_is_not_listed(tiny_parent):
    model, listed = load_model(tiny_parent).model, []

    def write(folder):
        save_model(folder, model, {})
        listed.append(set(available_models()))

    add_model("new", write)
    assert listed == [{"default"}]
    assert [path.name for path in user_models().iterdir()] == ["new"]


def test_the_current_model_is_remembered_beside_other_preferences_and_follows_a_rename(mine):
    write_preferences(Preferences(keys={"accept": "Q"}))
    choose_model(mine)
    assert read_preferences() == Preferences(keys={"accept": "Q"}, model="mine")
    rename_model("mine", "cells")
    assert current_model() == "cells"
    assert load_model("cells").card["parent"] == "default"
    delete_model("cells")
    assert current_model() == "default"


def test_a_model_in_use_keeps_its_name_where_the_settings_cannot_be_written(mine, monkeypatch):
    choose_model(mine)

    def read_only(*_):
        raise OSError("Read-only file system")

    monkeypatch.setattr("napari_delse.annotation.preferences.write_preferences", read_only)
    with pytest.raises(
        OSError, match=r"'mine' keeps its name, as it is in use and the settings, .*see to it that they can"
    ):
        rename_model("mine", "cells")
    assert set(available_models()) == {"default", "mine"}


def test_settings_that_cannot_be_read_are_replaced(mine, own_home):
    own_home.mkdir(exist_ok=True)
    (own_home / "preferences.json").write_text("{")
    choose_model(mine)
    assert current_model() == mine


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rename_model("mine", "default"), "comes with the package"),
        (lambda: rename_model("mine", "../x"), "may hold only letters"),
        (lambda: rename_model("default", "x"), "comes with the package"),
        (lambda: rename_model("mine", "mine"), "there is a model 'mine' already"),
        (lambda: delete_model("default"), "comes with the package"),
        (lambda: delete_model("gone"), "no model 'gone'; there are default, mine"),
        (lambda: choose_model("gone"), "no model 'gone'"),
        (lambda: export_model("gone", "x.zip"), "no model 'gone'"),
    ],
)
def test_what_must_not_be_is_refused_in_a_sentence(mine, call, message):
    with pytest.raises(ValueError, match=message):
        call()
    assert set(available_models()) == {"default", "mine"}


def test_a_model_travels_as_one_file(mine, tmp_path):
    file = export_model(mine, tmp_path / "cells")
    assert file.name == "cells.delse.zip"
    delete_model(mine)
    assert import_model(file)[0] == "cells"
    assert import_model(file)[0] == "cells-2"
    assert import_model(file, "nuclei")[0] == "nuclei"
    assert load_model("nuclei").card["parent"] == "default"


def packed(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "sub/config.json", "run.py", "C:\\x", "x/"])
def test_nothing_else_is_taken_from_a_file(mine, tmp_path, name):
    good = export_model(mine, tmp_path / "good.zip")
    with zipfile.ZipFile(good, "a") as file:
        file.writestr(name, "print('harm')")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="and nothing else, so it is not taken"):
        import_model(good)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"model.safetensors": b"x"}, "must hold model.safetensors and config.json"),
        ({"model.safetensors": b"x", "config.json": b" " * (2**20 + 1)}, "more than any model of this kind"),
        ({"model.safetensors": b"x", "config.json": b"{}"}, "model format None"),
    ],
)
def test_a_file_that_holds_no_model_is_refused(tmp_path, members, message):
    path = packed(tmp_path / "odd.zip", **members)
    with pytest.raises(ValueError, match=message):
        import_model(path)
    assert set(available_models()) == {"default"}
    assert not user_models().is_dir() or not list(user_models().iterdir())


def test_a_file_that_lies_about_its_size_is_refused(mine, tmp_path):
    good = export_model(mine, tmp_path / "good.zip")
    data = bytearray(good.read_bytes())
    card = json.dumps(load_model(mine).card).encode()
    assert len(card) > 10
    for marker, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):  # the sizes in both of the zip's headers
        place = -1
        while (place := data.find(marker, place + 1)) >= 0:
            data[place + offset : place + offset + 4] = (7).to_bytes(4, "little")
    good.write_bytes(data)
    with pytest.raises(ValueError, match=r"good\.zip"):
        import_model(good)
    assert set(available_models()) == {"default", "mine"}


def test_a_text_is_no_model_file(tmp_path):
    (tmp_path / "x.zip").write_text("hello")
    with pytest.raises(ValueError, match="is no model file"):
        import_model(tmp_path / "x.zip")


def test_a_damaged_stream_is_no_model_file(mine, tmp_path, monkeypatch):
    good = export_model(mine, tmp_path / "good.zip")

    def damaged(*_):
        raise zlib.error("Error -3 while decompressing data: invalid block type")

    monkeypatch.setattr("napari_delse.finetuning.model_store._unpack", damaged)
    with pytest.raises(ValueError, match=r"good\.zip is no model file \(Error -3"):
        import_model(good)


def test_models_are_compared_on_the_held_out_objects_of_a_training(mine, disks, tiny_parent):
    job = prepare(ArraySource(*disks(4), name="disks"), FineTuneConfig(steps=1, replay=0), parent=tiny_parent)
    found = compare_models(job.folder, [str(tiny_parent), "mine"])
    assert len(found["objects"]) == 4
    first, second = found["models"]
    assert first["iou"] == second["iou"]  # the same weights
    assert second["gain"]["mean"] == 0
    assert np.isfinite(first["miou"])
