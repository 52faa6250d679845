"""The network: both architectures from one code, the prompt's channels, the editor and the config."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_delse.checkpoint import parameter_count
from napari_delse.geometry import CropConfig
from napari_delse.levelset import EvolutionConfig
from napari_delse.model import (
    ARCHITECTURES,
    Delse,
    ModelConfig,
    click_map,
    config_from_dict,
    drag_maps,
    load_encoder_weights,
)


def assert_close(found, expected, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=atol)


def build(seed=0, **values):
    torch.manual_seed(seed)
    config = ModelConfig(crop=CropConfig(size=64), **values)
    return Delse(config).eval()


@pytest.fixture(scope="module")
def small():
    """An untrained small model whose heads speak up."""
    model = build()
    with torch.no_grad():
        for head in (model.phi_head, model.motion_head, model.modulation_head):
            head[-1].weight.mul_(10)
    return model


@pytest.fixture(scope="module")
def crops():
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(2, 4, 2, generator=generator) * 64
    clicks = click_map(points, torch.ones(2, 4, dtype=torch.bool), 64, 1.6)
    return torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1, clicks


def on_meta(architecture, **values):
    """A model without memory: names and shapes only."""
    with torch.device("meta"):
        return Delse(ModelConfig(architecture=architecture, **values)).eval()


def resnet(depths):
    """Names and shapes of a torchvision bottleneck ResNet without its classifier, from the published scheme."""
    shapes = {}

    def conv(name, outputs, inputs, kernel):
        shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)

    def norm(name, channels):
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    inputs = 64
    for stage, (depth, width) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            for i, (outputs, ins, kernel) in enumerate(
                [(width, inputs, 1), (width, width, 3), (4 * width, width, 1)], start=1
            ):
                conv(f"{name}.conv{i}", outputs, ins, kernel)
                norm(f"{name}.bn{i}", outputs)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * width, inputs, 1)
                norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    return shapes


# --- architectures


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_predicts_fields_of_the_inputs_size(architecture):
    size = 96
    model = on_meta(architecture)
    image, clicks = torch.empty(2, 3, size, size, device="meta"), torch.empty(2, 1, size, size, device="meta")
    fields = model.encode(image, clicks).fields
    assert [tuple(f.shape) for f in fields] == [(2, 1, size, size), (2, 2, size, size), (2, 1, size, size)]
    assert len(model(image, clicks)) == 6


@pytest.mark.parametrize(("architecture", "depths"), [("resnet101-psp", (3, 4, 23, 3)), ("resnet50-psp", (3, 4, 6, 3))])
def test_the_papers_encoder_has_torchvisions_names_and_shapes(architecture, depths):
    own = {name: tuple(t.shape) for name, t in on_meta(architecture).encoder.state_dict().items()}
    expected = resnet(depths)
    expected["conv1.weight"] = (64, 4, 7, 7)  # RGB and the clicks
    assert own == expected


def test_resnet101_has_the_published_number_of_parameters():
    encoder = on_meta("resnet101-psp").encoder
    click_channel = 64 * 7 * 7
    classifier = 2048 * 1000 + 1000
    assert parameter_count(encoder) - click_channel + classifier == 44_549_160


def test_the_papers_encoder_has_output_stride_eight_by_dilation():
    encoder = on_meta("resnet101-psp").encoder
    features = encoder(torch.empty(1, 4, 512, 512, device="meta"))
    assert [512 // f.shape[-1] for f in features] == [2, 4, 8, 8, 8]
    assert [f.shape[1] for f in features] == [64, 256, 512, 1024, 2048]
    # As in torchvision, the first block of a dilated stage keeps the dilation of the stage before.
    assert [encoder.layer3[i].conv2.dilation[0] for i in (0, 1, 22)] == [1, 2, 2]
    assert [encoder.layer4[i].conv2.dilation[0] for i in (0, 1, 2)] == [2, 4, 4]
    assert encoder.layer2[0].conv2.stride == (2, 2)  # the stride sits in the 3 x 3 convolution


def test_encoder_weights_of_a_classifier_load_with_a_silent_click_channel():
    model = Delse(ModelConfig(architecture="resnet50-psp", crop=CropConfig(size=64)))
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.zeros((), dtype=torch.int64) if not shape else torch.rand(shape, generator=generator)
        for name, shape in resnet((3, 4, 6, 3)).items()
    }
    state |= {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    assert load_encoder_weights(model, state) == ["fc.bias", "fc.weight"]
    loaded = model.encoder.state_dict()
    assert torch.equal(loaded["conv1.weight"][:, :3], state["conv1.weight"])
    assert (loaded["conv1.weight"][:, 3] == 0).all()
    assert torch.equal(loaded["layer3.5.conv3.weight"], state["layer3.5.conv3.weight"])
    assert torch.equal(loaded["layer4.2.bn3.running_var"], state["layer4.2.bn3.running_var"])

    with pytest.raises(ValueError, match=r"lack 'layer1.0.conv1.weight'; use those of the same architecture"):
        load_encoder_weights(model, {k: v for k, v in state.items() if k != "layer1.0.conv1.weight"})
    with pytest.raises(ValueError, match=r"'bn1.weight' has shape \(3,\), expected \(64,\)"):
        load_encoder_weights(model, {**state, "bn1.weight": torch.zeros(3)})


def test_the_small_model_is_small():
    """12 MB of float16 weights at most."""
    model = on_meta("small")
    assert 2 * sum(t.numel() for t in model.state_dict().values()) < 12e6


def test_features_of_the_small_model_reach_half_the_resolution():
    encoded = on_meta("small").encode(
        torch.empty(1, 3, 256, 256, device="meta"), torch.empty(1, 1, 256, 256, device="meta")
    )
    assert encoded.features.shape == (1, 32, 128, 128)


# --- fields


def test_predicted_fields_are_finite_float32_and_bounded_modulation(small, crops):
    phi0, motion, modulation = small.encode(*crops).fields
    for field in (phi0, motion, modulation):
        assert field.dtype == torch.float32
        assert torch.isfinite(field).all()
        assert field.std() > 0
    assert 0 <= modulation.min() <= modulation.max() <= 1


def test_a_fresh_model_starts_gently(crops):
    phi0, motion, modulation = build().train().encode(*crops).fields
    assert phi0.abs().max() < 2
    assert motion.abs().max() < 2
    assert (modulation - 0.5).abs().mean() < 0.2


def test_a_batch_is_predicted_as_its_members_are_one_by_one(small, crops):
    image, clicks = crops
    together = small.encode(image, clicks).fields
    for i in range(2):
        alone = small.encode(image[i : i + 1], clicks[i : i + 1]).fields
        for a, b in zip(alone, together, strict=True):
            assert_close(a, b[i : i + 1], atol=1e-4)


def test_forward_is_encode_and_evolve(small, crops):
    states = small(*crops)
    assert len(states) == small.config.evolution.steps + 1
    fields = small.encode(*crops).fields
    assert_close(states[0], fields.phi0)
    assert len(small.evolve(fields, EvolutionConfig(steps=2))) == 3


def test_evolution_is_float32_under_autocast(small, crops):
    with torch.autocast("cpu", torch.bfloat16):
        encoded = small.encode(*crops)
        states = small.evolve(small.edit(encoded, torch.rand(2, 2, 64, 64)))
    assert encoded.features.dtype == torch.bfloat16  # the network itself is not
    assert {s.dtype for s in [*encoded.fields, *states]} == {torch.float32}
    exact = small.evolve(encoded.fields)[-1]
    assert_close(states[-1], exact, atol=1e-4)


def test_box_prompts_are_the_same_model_without_clicks(small, crops):
    """DELSE*: a click channel of zeros, no second code path."""
    image, clicks = crops
    starved = build(extreme_points=False)
    starved.load_state_dict(small.state_dict())
    without = small(image, torch.zeros_like(clicks))[-1]
    assert_close(starved(image, clicks)[-1], without)
    assert not torch.allclose(small(image, clicks)[-1], without)


@pytest.mark.parametrize("architecture", ["small", "resnet50-psp"])
@pytest.mark.parametrize("values", [{"motion": False}, {"output": "dextr"}])
def test_baselines_predict_one_field_and_evolve_nothing(architecture, values):
    model = on_meta(architecture, **values)
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == (
        {"encoder", "context", "neck", "phi_head"} if architecture == "small" else {"encoder", "neck", "phi_head"}
    )
    image, clicks = torch.empty(1, 3, 64, 64, device="meta"), torch.empty(1, 1, 64, 64, device="meta")
    encoded = model.encode(image, clicks)
    assert len(model.evolve(encoded.fields)) == 1
    assert model.edit(encoded, torch.empty(1, 2, 64, 64, device="meta")) is encoded.fields


def test_ablations_leave_out_what_they_name(crops):
    image, clicks = crops
    assert (build(modulation=False).encode(image, clicks).fields.modulation == 0).all()
    with_skips, without = build(), build(skip_features=False)
    without.load_state_dict(with_skips.state_dict())
    assert not torch.allclose(with_skips(image, clicks)[0], without(image, clicks)[0])


def test_gradients_reach_every_parameter_but_the_unused_editor(crops):
    model = build().train()
    model(*crops)[-1].square().mean().backward()
    missing = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
    assert missing == {"editor"}


# --- corrections


def test_an_untrained_editor_changes_nothing(small, crops):
    encoded = small.encode(*crops)
    drags = drag_maps(torch.full((2, 1, 2), 20.0), torch.full((2, 1, 2), 35.0), torch.ones(2, 1, dtype=torch.bool), 64)
    assert torch.equal(small.edit(encoded, drags).motion, encoded.fields.motion)


def test_the_editor_changes_the_motion_only_and_learns_from_the_first_step(crops):
    model = build()
    encoded = model.encode(*crops)
    drags = torch.rand(2, 2, 64, 64)
    model.edit(encoded, drags).motion.square().mean().backward()
    assert model.editor.leave.weight.grad.abs().sum() > 0
    with torch.no_grad():
        model.editor.leave.weight.add_(0.1)
    edited = model.edit(encoded, drags)
    assert edited.phi0 is encoded.fields.phi0
    assert edited.modulation is encoded.fields.modulation
    assert (edited.motion - encoded.fields.motion).abs().max() > 0


# --- prompt channels

positions = st.floats(-20, 84, width=32)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(positions, positions), min_size=1, max_size=6), st.floats(0.8, 12))
def test_click_maps_are_gaussians_of_height_one_joined_by_maximum(points, sigma):
    found = click_map(torch.tensor(points)[None], torch.ones(1, len(points), dtype=torch.bool), 64, sigma)[0, 0]
    y, x = np.mgrid[:64, :64]
    expected = np.max([np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * sigma**2)) for a, b in points], axis=0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_clicks_that_are_not_present_leave_no_trace():
    points = torch.tensor([[[10.0, 20.0], [30.0, 40.0]], [[5.0, 5.0], [6.0, 6.0]]])
    present = torch.tensor([[True, False], [False, False]])
    found = click_map(points, present, 64, 2)
    assert found.shape == (2, 1, 64, 64)
    assert found[0, 0, 10, 20] == 1
    assert found[0, 0, 30, 40] < 1e-6
    assert (found[1] == 0).all()


def test_a_click_far_outside_is_harmless():
    found = click_map(torch.tensor([[[1e6, -1e6]]]), torch.ones(1, 1, dtype=torch.bool), 64, 2)
    assert (found == 0).all()


@settings(max_examples=30, deadline=None)
@given(*[st.integers(2, 61)] * 4, st.booleans())
def test_drag_maps_are_centred_at_p_as_wide_as_the_drag_and_scaled_by_its_direction(py, px, qy, qx, signed):
    length = float(np.hypot(qy - py, qx - px))
    start, end = torch.tensor([[[py, px]]]).float(), torch.tensor([[[qy, qx]]]).float()
    found = drag_maps(start, end, torch.ones(1, 1, dtype=torch.bool), 64, signed=signed)[0].numpy()
    if length == 0:
        np.testing.assert_array_equal(found, 0)
        return
    direction = np.array([qy - py, qx - px]) / length
    y, x = np.mgrid[:64, :64]
    gaussian = np.exp(-((y - py) ** 2 + (x - px) ** 2) / (2 * length**2))
    expected = (direction if signed else np.abs(direction))[:, None, None] * gaussian
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_signed_drag_maps_tell_a_push_from_a_pull_and_unsigned_ones_do_not():
    p, q = torch.tensor([[[30.0, 20.0]]]), torch.tensor([[[30.0, 28.0]]])
    back = 2 * p - q
    one = torch.ones(1, 1, dtype=torch.bool)
    assert torch.equal(drag_maps(p, q, one, 64), -drag_maps(p, back, one, 64))
    assert torch.equal(drag_maps(p, q, one, 64, signed=False), drag_maps(p, back, one, 64, signed=False))


def test_several_drags_add_up_and_absent_ones_do_not_count():
    start, end = torch.rand(2, 3, 2) * 64, torch.rand(2, 3, 2) * 64
    present = torch.tensor([[True, True, False], [False, False, False]])
    found = drag_maps(start, end, present, 64)
    single = [drag_maps(start[:1, i : i + 1], end[:1, i : i + 1], present[:1, :1], 64) for i in range(2)]
    assert_close(found[:1], single[0] + single[1])
    assert (found[1] == 0).all()
    assert (drag_maps(start[:, :0], end[:, :0], present[:, :0], 64) == 0).all()


# --- config


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(),
        ModelConfig(architecture="resnet101-psp", output="dextr", crop=CropConfig(size=512, margin=0.1, squareness=1)),
        ModelConfig(evolution=EvolutionConfig(steps=7, dt=0.5, mu=0.1), threshold=-0.5, signed_drags=False),
    ],
)
def test_a_config_survives_json(config):
    assert config_from_dict(ModelConfig, json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"archtecture": "small"}, r"unknown key 'archtecture'; ModelConfig knows architecture, "),
        ({"crop": {"sise": 64}}, r"unknown key 'crop.sise'; CropConfig knows size, "),
        ({"evolution": {"dT": 1}}, r"unknown key 'evolution.dT'; EvolutionConfig knows steps, "),
        ({"architecture": "unet"}, "architecture must be one of resnet101-psp, resnet50-psp, small.*, got 'unet'"),
        ({"crop": 7}, "'crop' must hold the keys of CropConfig, got 7"),
        ({"output": "logits"}, "'output' must be 'delse' or 'dextr', got 'logits'"),
        ({"truncation": 0}, "truncation must lie in"),
        ({"click_sigma": 0.5}, "click_sigma in"),
        ({"crop": {"size": 65}}, "multiple of 32"),
    ],
)
def test_unknown_keys_and_values_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        config_from_dict(ModelConfig, values)


def test_truncation_scales_with_the_input():
    config = ModelConfig(truncation=0.125)
    assert config.truncation_pixels() == 32
    assert config.resized(128).truncation_pixels() == 16
    assert config.truncation_pixels(512) == 64
    assert config.resized(128).resized(256) == config


def test_one_net_speaks_in_fractions_of_the_crop_at_every_input_size(small):
    """The same picture at twice the size gives about the same phi in twice as many pixels."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    image = torch.tanh(4 * (0.5 - (y**2 + x**2).sqrt()))[None, None].expand(1, 3, -1, -1)
    large = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear")
    a = small.encode(image, torch.zeros(1, 1, 64, 64)).fields.phi0 / 64
    b = small.encode(large, torch.zeros(1, 1, 128, 128)).fields.phi0 / 128
    assert 0.2 < b.std() / a.std() < 5
