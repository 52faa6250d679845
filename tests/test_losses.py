"""Losses against formulas written out with numpy, and their gradients where they are most extreme."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_delse import losses
from napari_delse.levelset import boundary_directions, signed_distance


def case(seed, batch=3, height=7, width=6):
    """phi, mask, weight with ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    phi = 3 * torch.randn(batch, 1, height, width, generator=generator)
    mask = (torch.rand(batch, 1, height, width, generator=generator) < 0.3).float()
    weight = (torch.rand(batch, 1, height, width, generator=generator) < 0.8).float()
    return phi, mask, weight


def mean_over_objects(values, weight):
    values, weight = np.broadcast_arrays(np.asarray(values), np.asarray(weight))
    return np.mean([(v * w).sum() / w.sum() for v, w in zip(values, weight, strict=True)])


EVERY = {
    "tsdf": lambda phi, mask, weight: losses.tsdf_loss(phi, 2 * mask - 1, weight),
    "logistic": lambda phi, mask, weight: losses.mask_loss(phi, mask, weight, 4.0),
    "arctan": lambda phi, mask, weight: losses.mask_loss(phi, mask, weight, 1.0, arctan=True),
    "balanced": lambda phi, mask, weight: losses.mask_loss(phi, mask, losses.class_weights(mask, weight), 4.0),
    "overlap": lambda phi, mask, weight: losses.overlap_loss(phi, mask, weight, 4.0),
    "direction": lambda phi, mask, weight: losses.direction_loss(
        torch.cat([phi, 0.7 * phi], 1), torch.cat([2 * mask - 1, torch.zeros_like(mask)], 1), weight
    ),
}


def test_heaviside_is_the_papers():
    s = np.array([-1e6, -3.0, -1.0, 0.0, 1.0, 3.0, 1e6])
    found = losses.heaviside(torch.from_numpy(s), 1.0).numpy()
    np.testing.assert_allclose(found, 0.5 * (1 + 2 / np.pi * np.arctan(s)))
    np.testing.assert_allclose(found[[0, 2, 3, 4, 6]], [0, 0.25, 0.5, 0.75, 1], atol=1e-6)


def test_distance_loss_is_the_mean_squared_error_of_the_pixels_that_count():
    phi, _, weight = case(0)
    distance = torch.randn_like(phi)
    found = losses.tsdf_loss(phi, distance, weight).item()
    assert found == pytest.approx(mean_over_objects((phi - distance) ** 2, weight), rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_logistic_mask_loss_is_the_cross_entropy_of_a_sigmoid(scale):
    phi, mask, weight = case(1)
    p = 1 / (1 + np.exp(-phi.numpy() / scale))
    values = -np.where(mask > 0.5, np.log(p), np.log(1 - p))
    found = losses.mask_loss(phi, mask, weight, scale).item()
    assert found == pytest.approx(mean_over_objects(values, weight), rel=1e-5)


def test_arctangent_mask_loss_is_the_cross_entropy_of_the_papers_heaviside():
    phi, mask, weight = case(2)
    h = 0.5 * (1 + 2 / np.pi * np.arctan(phi.numpy() / 1.5))
    values = -np.where(mask > 0.5, np.log(h), np.log(1 - h))
    found = losses.mask_loss(phi, mask, weight, 1.5, arctan=True).item()
    assert found == pytest.approx(mean_over_objects(values, weight), rel=1e-5)


def test_overlap_loss_is_one_minus_the_soft_iou():
    phi, mask, weight = case(3)
    p, y, w = (1 / (1 + np.exp(-phi.numpy() / 2))), mask.numpy(), weight.numpy()
    scores = [((a * b * c).sum() + 1) / (((a + b - a * b) * c).sum() + 1) for a, b, c in zip(p, y, w, strict=True)]
    assert losses.overlap_loss(phi, mask, weight, 2.0).item() == pytest.approx(1 - np.mean(scores), rel=1e-5)


def test_overlap_loss_of_a_sure_mask_is_one_minus_its_iou():
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 10:30, 10:30] = 1
    shifted = mask.roll(5, dims=3)
    iou = (15 * 20 + 1) / (25 * 20 + 1)
    assert losses.overlap_loss(1e3 * (2 * shifted - 1), mask, torch.ones_like(mask), 1.0).item() == pytest.approx(
        1 - iou
    )
    assert losses.overlap_loss(1e3 * (2 * mask - 1), mask, torch.ones_like(mask), 1.0).item() == pytest.approx(
        0, abs=1e-6
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_class_weights_make_object_and_background_count_alike(seed):
    _, mask, weight = case(seed, height=16, width=16)
    balanced = losses.class_weights(mask, weight)
    for m, w, b in zip(mask, weight, balanced, strict=True):
        assert (b * m).sum().item() == pytest.approx((b * (1 - m)).sum().item(), rel=1e-4)
        assert b.sum().item() == pytest.approx(w.sum().item(), rel=1e-4)
    assert torch.equal(losses.class_weights(mask, weight, balance=0), weight)


def test_class_weights_of_an_absent_object_are_bounded():
    mask, weight = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    for truth in (mask, 1 - mask):
        balanced = losses.class_weights(truth, weight)
        assert 0.5 < balanced.max() < 26
    assert torch.isfinite(losses.class_weights(mask, torch.zeros_like(weight))).all()


def test_every_object_counts_the_same_however_many_pixels_it_ignores():
    values = torch.stack([torch.full((1, 4, 4), 1.0), torch.full((1, 4, 4), 3.0)])
    weight = torch.ones(2, 1, 4, 4)
    weight[0, 0, 1:] = 0
    assert losses.weighted_mean(values, weight).item() == 2


@pytest.mark.parametrize("name", EVERY)
def test_ignored_pixels_do_not_matter(name):
    phi, mask, weight = case(4)
    changed = torch.where(weight > 0, phi, 50 * torch.randn_like(phi))
    other = torch.where(weight > 0, mask, 1 - mask)
    assert EVERY[name](changed, other, weight).item() == pytest.approx(EVERY[name](phi, mask, weight).item(), rel=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_losses_do_not_depend_on_who_else_is_in_the_batch(name):
    phi, mask, weight = case(5)
    alone = [EVERY[name](phi[i : i + 1], mask[i : i + 1], weight[i : i + 1]).item() for i in range(3)]
    assert EVERY[name](phi, mask, weight).item() == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("value", [0.0, 1e-9, 30.0, -30.0, 1e4, -1e4])
def test_losses_and_their_gradients_are_finite_at_extremes(name, value):
    for mask_value, weight_value in ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0)):
        phi = torch.full((2, 1, 5, 4), value, requires_grad=True)
        ones = torch.ones(2, 1, 5, 4)
        loss = EVERY[name](phi, mask_value * ones, weight_value * ones)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(phi.grad).all()
        if weight_value == 0:
            assert (phi.grad == 0).all()


@pytest.mark.parametrize("arctan", [False, True])
def test_a_wrong_pixel_far_from_the_contour_still_pulls(arctan):
    phi = torch.full((1, 1, 1, 1), -64.0, requires_grad=True)
    losses.mask_loss(phi, torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1), 4.0, arctan=arctan).backward()
    assert phi.grad.item() < -1e-3


@pytest.mark.parametrize("length", [0.3, 1.0, 20.0])
@pytest.mark.parametrize(
    ("turn", "expected"), [(0, 0), (90, (math.pi / 2) ** 2), (180, math.pi**2), (-45, (math.pi / 4) ** 2)]
)
def test_direction_loss_is_the_squared_angle_whatever_the_length(length, turn, expected):
    y, x = torch.meshgrid(torch.arange(31.0), torch.arange(31.0), indexing="ij")
    distance = signed_distance((((y - 15) ** 2 + (x - 15) ** 2) < 64)[None, None], 20)
    right = boundary_directions(distance)
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    motion = length * torch.stack([c * right[:, 0] - s * right[:, 1], s * right[:, 0] + c * right[:, 1]], 1)
    found = losses.direction_loss(motion, right, torch.ones_like(distance)).item()
    assert found == pytest.approx(expected, abs=0.03)


def test_where_no_direction_is_known_none_is_asked_for():
    motion = torch.randn(1, 2, 6, 6, requires_grad=True)
    directions = torch.zeros(1, 2, 6, 6)
    directions[:, 0, :3] = 1
    losses.direction_loss(motion, directions, torch.ones(1, 1, 6, 6)).backward()
    assert (motion.grad[..., 3:, :] == 0).all()
    assert (motion.grad[..., :3, :] != 0).all()


def test_a_motion_of_zero_does_not_drown_every_other_gradient():
    motion = torch.zeros(1, 2, 6, 6, requires_grad=True)
    directions = torch.zeros(1, 2, 6, 6)
    directions[:, 0] = 1
    losses.direction_loss(motion, directions, torch.ones(1, 1, 6, 6)).backward()
    assert motion.grad.norm() < 1e4
    assert (motion.grad[:, 0] < 0).all()  # a step downhill turns V towards the boundary


def test_drag_loss_is_huber_of_what_phi_lacks_of_the_distance_where_the_drags_end():
    distance = torch.full((1, 1, 5, 6), 0.5)
    phi = distance + torch.arange(6.0)  # off by x
    ends = torch.tensor([[[2.0, 1.0], [3.0, 4.5], [0.0, 0.0]]])
    made = torch.tensor([[True, True, False]])
    weight = torch.ones_like(phi)
    found = losses.drag_loss(phi, distance, weight, ends, made, 2.0).item()
    assert found == pytest.approx(((1 / 2) ** 2 / 2 + (4.5 / 2 - 0.5)) / 2)
    weight[..., 1] = 0  # unknown where the first one ends
    found = losses.drag_loss(phi, distance, weight, ends, made, 2.0).item()
    assert found == pytest.approx(4.5 / 2 - 0.5)


def test_drag_loss_is_nothing_without_drags():
    phi = torch.randn(2, 1, 5, 6, requires_grad=True)
    found = losses.drag_loss(
        phi, torch.zeros_like(phi), torch.ones_like(phi), torch.zeros(2, 1, 2), torch.zeros(2, 1, dtype=torch.bool), 2.0
    )
    found.backward()
    assert found.item() == 0
    assert (phi.grad == 0).all()
