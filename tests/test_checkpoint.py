"""Models as folders: what is saved comes back, and what is damaged says so in one sentence."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from napari_delse import checkpoint
from napari_delse.checkpoint import (
    available_models,
    load_model,
    read_weights,
    save_model,
    user_models,
    write_atomically,
    write_json,
    write_tensors,
)
from napari_delse.geometry import CropConfig
from napari_delse.levelset import EvolutionConfig
from napari_delse.model import Delse, ModelConfig

CONFIG = ModelConfig(crop=CropConfig(size=64, margin=0.3), evolution=EvolutionConfig(steps=4), threshold=-0.25)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No test touches the user's own models."""
    monkeypatch.setenv("NAPARI_DELSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = Delse(CONFIG)
    for module in network.modules():  # statistics as after some training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "good", model, {"licence": "BSD-3-Clause", "seed": 3})


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of a good model to be damaged."""
    folder = tmp_path / "copied"
    folder.mkdir()
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def one_sentence(error):
    message = str(error.value)
    assert "\n" not in message
    return len(message) < 700


def test_a_saved_model_comes_back_exactly(model, saved):
    loaded = load_model(saved)
    assert loaded.name == "good"
    assert loaded.path == saved
    assert loaded.config == CONFIG
    assert loaded.card == {"licence": "BSD-3-Clause", "seed": 3}
    assert not loaded.model.training
    for (name, a), b in zip(model.state_dict().items(), loaded.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_model_is_three_files_of_data(saved):
    assert sorted(p.name for p in saved.iterdir()) == ["card.json", "config.json", "model.safetensors"]
    assert json.loads((saved / "config.json").read_text())["model"]["crop"]["size"] == 64


def test_half_precision_is_small_and_computes_in_float32(model, tmp_path):
    folder = save_model(tmp_path / "half", model, {}, half=True)
    assert (folder / "model.safetensors").stat().st_size < 12e6
    loaded = load_model(folder).model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    image, clicks = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        exact, rounded = model.encode(image, clicks).fields.phi0, loaded.encode(image, clicks).fields.phi0
    assert (exact - rounded).abs().max() < 0.02 * exact.std()


def test_half_precision_keeps_statistics_that_float16_cannot_hold(tmp_path):
    network = Delse(CONFIG).eval()
    network.encoder.bn1.running_var.fill_(1e6)
    network.encoder.bn1.running_mean.fill_(1e-9)
    loaded = load_model(save_model(tmp_path / "half", network, {}, half=True)).model
    assert torch.equal(loaded.encoder.bn1.running_var, network.encoder.bn1.running_var)
    assert torch.equal(loaded.encoder.bn1.running_mean, network.encoder.bn1.running_mean)


def test_models_are_found_by_name_and_the_users_hide_the_packaged_ones(model, home, tmp_path, monkeypatch):
    packaged = tmp_path / "packaged"
    monkeypatch.setattr(checkpoint, "_PACKAGED", packaged)
    save_model(packaged / "default", model, {"from": "package"})
    save_model(packaged / "other", model, {})
    assert load_model().card == {"from": "package"}
    save_model(user_models() / "default", model, {"from": "user"})
    (user_models() / "half-copied").mkdir()
    assert available_models() == {"default": home / "models" / "default", "other": packaged / "other"}
    assert load_model("default").card == {"from": "user"}
    assert load_model(packaged / "default").card == {"from": "package"}


def test_a_folder_can_be_named_from_within(saved, monkeypatch):
    monkeypatch.chdir(saved)
    assert load_model(".").name == "good"


def test_an_unknown_model_names_the_known_ones(model):
    save_model(user_models() / "mine", model, {})
    with pytest.raises(ValueError, match=r"no model 'nobody': give a folder with .* or one of .*mine") as error:
        load_model("nobody")
    assert one_sentence(error)


def damage_text(text):
    return lambda folder: (folder / "config.json").write_text(text)


def damage_config(change):
    def damage(folder):
        content = json.loads((folder / "config.json").read_text())
        change(content)
        (folder / "config.json").write_text(json.dumps(content))

    return damage


def truncate(name, keep):
    def damage(folder):
        file = folder / name
        file.write_bytes(file.read_bytes()[:keep])

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_text("{"), r"config.json cannot be read as JSON"),
        (damage_text(""), r"config.json cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), "cannot be read as JSON"),
        (damage_text("[1]"), r"config.json must hold a JSON object, got list"),
        (damage_text("{}"), r"model format None, expected 2"),
        (damage_config(lambda c: c.update(format=1)), r"model format 1, expected 2; update napari-delse"),
        (damage_config(lambda c: c.pop("model")), r"config.json"),
        (damage_config(lambda c: c.update(model=[1, 2])), r"config.json"),
        (damage_config(lambda c: c["model"].update(colour=1)), r"config.json.*unknown key 'colour'"),
        (damage_config(lambda c: c["model"].update(crop=7)), r"config.json"),
        (damage_config(lambda c: c["model"]["crop"].update(size="x")), r"config.json"),
        (damage_config(lambda c: c["model"]["crop"].update(size=65)), r"config.json.*multiple of 32"),
        (damage_config(lambda c: c["model"]["evolution"].update(steps=None)), r"config.json"),
        (damage_config(lambda c: c["model"].update(motion=False)), r"model.safetensors does not hold the weights"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model.safetensors does not hold the weights"),
        (truncate("model.safetensors", 0), r"model.safetensors does not hold the weights"),
        (truncate("model.safetensors", 100), r"model.safetensors does not hold the weights"),
        (truncate("model.safetensors", 100_000), r"model.safetensors does not hold the weights"),
        (truncate("card.json", 5), r"card.json cannot be read as JSON"),
    ],
)
def test_a_damaged_model_is_refused_in_one_sentence(copied, damage, message):
    damage(copied)
    with pytest.raises(ValueError, match=message) as error:
        load_model(copied)
    assert one_sentence(error)


def test_weights_of_another_architecture_are_refused(copied):
    from safetensors.torch import load_file, save_file

    state = load_file(copied / "model.safetensors")
    state["encoder.conv1.weight"] = torch.zeros(3, 4, 3, 3)
    save_file(state, copied / "model.safetensors")
    with pytest.raises(ValueError, match=r"size mismatch for encoder.conv1.weight") as error:
        load_model(copied)
    assert one_sentence(error)


def test_weights_that_are_not_finite_are_refused(copied):
    from safetensors.torch import load_file, save_file

    state = load_file(copied / "model.safetensors")
    state["encoder.conv1.weight"][0, 0, 0, 0] = np.nan
    save_file(state, copied / "model.safetensors")
    with pytest.raises(ValueError, match=r"encoder.conv1.weight.*not finite") as error:
        load_model(copied)
    assert one_sentence(error)


def test_a_model_without_a_card_is_still_a_model(copied):
    (copied / "card.json").unlink()
    assert load_model(copied).card == {}


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to mmap 6000000 bytes: Cannot allocate memory (12)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_too_little_memory_is_no_damage(copied, monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(checkpoint, "load_file", fail)
    with pytest.raises(MemoryError, match="the memory does not suffice to load"):
        load_model(copied)


def test_a_full_disk_is_an_error_of_the_system_with_the_name_of_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_tensors(tmp_path / "weights.safetensors", {"a": torch.zeros(9)})
    assert (caught.value.errno, caught.value.strerror) == (28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_other_trouble_of_the_writer_names_the_file(tmp_path, monkeypatch):
    def fail(*_):
        raise SafetensorError("Error while serializing")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match=r"weights.safetensors cannot be written \(Error while serializing\)"):
        write_tensors(tmp_path / "weights.safetensors", {"a": torch.zeros(9)})


@pytest.mark.parametrize("name", ["a/b:c", "my model", "..", ".hidden", "-x", "ä b"])
def test_unsafe_model_names_are_refused(model, tmp_path, name):
    with pytest.raises(ValueError, match="may hold only letters"):
        save_model(tmp_path / name, model, {})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "deep" / "file.json"
    write_json(file, {"a": "ü"})
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": "ü"}

    def fail(aside: Path) -> None:
        aside.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, fail)
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": "ü"}
    assert [p.name for p in file.parent.iterdir()] == ["file.json"]


def test_a_model_that_cannot_be_saved_leaves_no_model_and_no_parts(model, tmp_path, monkeypatch):
    def fail(tensors, path, metadata=None):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(tmp_path / "broken", model, {})
    assert list((tmp_path / "broken").iterdir()) == []
    with pytest.raises(ValueError, match="no model"):
        load_model(tmp_path / "broken")


def test_weights_are_read_from_safetensors_and_pytorch_files_and_nothing_else(tmp_path):
    from safetensors.torch import save_file

    state = {"conv1.weight": torch.rand(2, 3)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        assert torch.equal(read_weights(tmp_path / name)["conv1.weight"], state["conv1.weight"])
    torch.save({"epoch": 3, **state}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="holds more than named tensors"):
        read_weights(tmp_path / "c.pth")
    torch.save({"config": Path("x")}, tmp_path / "code.pth")
    (tmp_path / "d.pth").write_bytes(b"no weights")
    for name in ("code.pth", "d.pth", "absent.pth"):
        with pytest.raises(ValueError, match=f"no weights can be read from .*{name}") as error:
            read_weights(tmp_path / name)
        assert one_sentence(error)
