"""The mathematics of the level set: signs, curvature, regularisation, translation, gradients, distances."""

import itertools
import math
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from napari_delse.levelset import (
    EvolutionConfig,
    boundary_directions,
    curvature,
    distance_regularisation,
    evolution_step,
    evolve,
    gradient,
    signed_distance,
    values_at,
)

GOLDEN = Path(__file__).parent / "golden"


def grid(height, width=None, dtype=torch.float64):
    """Coordinates (y, x) with 0 in the middle."""
    height, width = height, width or height
    y = torch.arange(height, dtype=dtype) - (height - 1) / 2
    x = torch.arange(width, dtype=dtype) - (width - 1) / 2
    return y[:, None].expand(height, width), x[None].expand(height, width)


def disk(radius, size, y0=0.0, x0=0.0, dtype=torch.float64):
    """Signed distance of a disk, positive inside."""
    y, x = grid(size, dtype=dtype)
    return (radius - ((y - y0) ** 2 + (x - x0) ** 2).sqrt())[None, None]


def assert_close(found, expected, rtol=1e-6, atol=1e-5):
    """Like torch.testing.assert_close, which imports sympy for seconds."""
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=atol)


def iou(a, b):
    return ((a & b).sum() / (a | b).sum()).item()


def still(phi):
    """No motion and no modulation."""
    return torch.zeros_like(phi).repeat(1, 2, 1, 1), torch.zeros_like(phi)


def slope(phi):
    return gradient(phi).square().sum(dim=1, keepdim=True).sqrt()


def smooth_fields(seed, batch=1, height=14, width=11, dtype=torch.float64):
    """phi, V and m without symmetry, of moderate size."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 4, 4, 4, generator=generator, dtype=dtype)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return 4 * fine[:, :1], fine[:, 1:3], torch.sigmoid(fine[:, 3:])


# --- motion


@pytest.mark.parametrize("shift", [-5, -3, 3, 5])
def test_a_shifted_ellipse_evolves_back_and_with_the_opposite_sign_away(shift):
    y, x = grid(128)
    truth = ((y / 25) ** 2 + (x / 40) ** 2 <= 1)[None, None]
    distance = signed_distance(truth, 30).double()
    motion = boundary_directions(distance)
    start = distance + shift
    config = EvolutionConfig(steps=5)
    rest = torch.zeros_like(start)
    before = iou(start > 0, truth)
    towards = iou(evolve(start, motion, rest, config)[-1] > 0, truth)
    away = iou(evolve(start, -motion, rest, config)[-1] > 0, truth)
    assert 0.65 < before < 0.9
    assert towards > 0.92
    assert away < 0.65


def test_directions_are_unit_vectors_to_the_boundary_from_both_sides():
    y, x = grid(61)
    distance = signed_distance((y**2 + x**2 <= 15**2)[None, None], 10)
    u_y, u_x = boundary_directions(distance)[0]
    radius = (y**2 + x**2).sqrt()
    band = ((radius - 15).abs() < 5) & ((radius - 15).abs() > 1)
    outwards = (u_y * y + u_x * x) / radius
    for found in (outwards[band & (radius < 15)], -outwards[band & (radius > 15)]):
        assert found.mean() > 0.98
        assert found.min() > 0.8  # a disk of pixels has steps
    length = (u_y**2 + u_x**2).sqrt()
    assert_close(length[band], torch.ones_like(length[band]))
    assert (length[radius > 28] == 0).all()  # where the distance is cut off nothing points anywhere


@pytest.mark.parametrize("velocity", [(1.0, 0.0), (0.0, -1.0), (0.6, 0.8), (-0.35, 0.2), (1.5, 1.5), (0.01, 0.0)])
def test_a_constant_motion_translates_any_shape_by_its_length_per_unit_time(velocity):
    steps = 5
    y, x = grid(96)

    def blob(dy, dx):
        """A smooth shape without symmetry."""
        v, u = y - dy, x - dx
        return (18 - ((v / 1.3) ** 2 + u**2 + 0.3 * v * u + 1).sqrt() + 2 * torch.sin(u / 9))[None, None]

    motion = torch.tensor(velocity, dtype=torch.float64)[None, :, None, None].expand(1, 2, 96, 96)
    config = EvolutionConfig(steps=steps, dt=0.2, mu=0)
    phi = evolve(blob(0, 0), motion, torch.zeros(1, 1, 96, 96, dtype=torch.float64), config)[-1]
    time = steps * config.dt
    expected = blob(velocity[0] * time, velocity[1] * time)
    near = expected.abs() < 5
    near[..., :8, :], near[..., -8:, :], near[..., :8], near[..., -8:] = False, False, False, False
    # Explicit Euler is off by |V|^2 t dt / 2 times the second derivative; far less than the way gone.
    allowed = 0.02 + 0.03 * math.hypot(*velocity)
    assert (phi - expected)[near].abs().max() < allowed


@pytest.mark.parametrize("velocity", [(1.0, 0.0), (0.7, -0.7), (0.25, 0.5)])
def test_the_contour_of_a_disk_goes_where_the_motion_goes_in_five_unit_steps(velocity):
    start = disk(15, 64)
    motion = torch.tensor(velocity, dtype=torch.float64)[None, :, None, None].expand(1, 2, 64, 64)
    final = evolve(start, motion, torch.zeros_like(start), EvolutionConfig(steps=5))[-1]
    inside = final[0, 0] > 0
    y, x = grid(64)
    centre = (y[inside].mean().item(), x[inside].mean().item())
    assert centre == pytest.approx((5 * velocity[0], 5 * velocity[1]), abs=0.15)
    assert inside.sum().item() == pytest.approx(math.pi * 15**2, rel=0.05)


# --- curvature


@pytest.mark.parametrize("radius", [6, 10, 20, 40])
def test_curvature_of_a_disk_is_minus_one_over_radius(radius):
    phi = disk(radius, 2 * radius + 21)
    ring = phi.abs() < 1.5
    found = curvature(phi)[ring]
    true = -1 / (radius - phi)[ring]  # each level line has its own radius
    assert_close(found, true, rtol=0.05, atol=0)
    assert found.mean().item() == pytest.approx(-1 / radius, rel=0.02)


def test_curvature_does_not_depend_on_the_steepness_of_phi():
    phi = disk(12, 41)
    ring = phi.abs() < 2
    assert_close(curvature(3 * phi)[ring], curvature(phi)[ring], rtol=1e-4, atol=1e-6)


def test_curvature_of_a_hole_has_the_other_sign_and_of_a_plane_is_zero():
    phi = disk(12, 41)
    assert_close(curvature(-phi), -curvature(phi))
    y, x = grid(20)
    flat = curvature((0.3 * y - 0.7 * x)[None, None])
    assert flat[..., 1:-1, 1:-1].abs().max() < 1e-9


@pytest.mark.parametrize("radius", [8, 14])
def test_the_curvature_term_shrinks_a_disk_as_the_differential_equation_says(radius):
    phi = disk(radius, 48)
    motion, _ = still(phi)
    config = EvolutionConfig(steps=40, dt=0.1, mu=0)
    final = evolve(phi, motion, torch.ones_like(phi), config)[-1]
    expected = math.sqrt(radius**2 - 2 * 4.0)  # dr/dt = -1/r over 4 units of time
    row = final[0, 0, 24]  # phi along x, half a pixel beside the centre
    right = int((row > 0).nonzero().max())
    crossing = right + (row[right] / (row[right] - row[right + 1])).item() - 23.5
    assert math.hypot(crossing, 0.5) == pytest.approx(expected, abs=0.05)


def test_modulation_says_where_the_curvature_acts():
    phi = disk(8, 40)
    motion, modulation = still(phi)
    modulation[..., :20] = 1
    final = evolve(phi, motion, modulation, EvolutionConfig(steps=3, mu=0))[-1]
    assert_close(final[..., 20:], phi[..., 20:])
    assert (final - phi)[..., :20].abs().max() > 0.1
    off = evolve(phi, motion, torch.ones_like(phi), EvolutionConfig(steps=3, mu=0, curvature=0))[-1]
    assert_close(off, phi)


# --- distance regularisation


@pytest.mark.parametrize("steepness", [0.6, 0.75, 1.5, 2.0])
def test_distance_regularisation_drives_the_slope_at_the_contour_to_one(steepness):
    phi = steepness * disk(8, 32)
    band = disk(8, 32).abs() < 2.5
    final = evolve(phi, *still(phi), EvolutionConfig(steps=800, mu=0.2))[-1]
    before = (slope(phi)[band] - 1).abs().mean()
    after = (slope(final)[band] - 1).abs().mean()
    assert after < 0.15 * before


def test_distance_regularisation_makes_a_signed_distance_of_a_step_with_plateaus_beside_it():
    phi = 6 * torch.sign(disk(8, 40))
    band, far = disk(8, 40).abs() < 2.5, disk(8, 40) < -9
    assert (slope(phi)[band] - 1).abs().mean() > 2
    final = evolve(phi, *still(phi), EvolutionConfig(steps=300, mu=0.2))[-1]
    assert (slope(final)[band] - 1).abs().mean() < 0.05
    assert slope(final)[far].mean() < 0.1


def test_distance_regularisation_hardly_moves_the_contour_in_the_papers_five_steps():
    phi = 1.5 * disk(16, 64, 0.2, -0.3)
    final = evolve(phi, *still(phi), EvolutionConfig())[-1]
    edge = phi.abs() < 1
    assert (final - phi)[edge].abs().max() < 0.05


def test_distance_regularisation_smooths_plateaus_to_slope_zero():
    y, x = grid(48)
    ripple = 20 + 0.4 * torch.sin(y / 3) * torch.cos(x / 4)
    phi = ripple[None, None]
    assert slope(phi).max() < 0.25  # where the potential leads to 0
    motion, modulation = still(phi)
    final = evolve(phi, motion, modulation, EvolutionConfig(steps=400, mu=0.2))[-1]
    assert slope(final).max() < 0.1 * slope(phi).max()


def test_distance_regularisation_is_zero_on_constants_and_planes_of_slope_one():
    y, x = grid(24)
    inner = np.s_[..., 2:-2, 2:-2]  # the Neumann border bends a plane
    for phi in (torch.full((24, 24), 7.0, dtype=torch.float64), y, 0.6 * y + 0.8 * x):
        assert distance_regularisation(phi[None, None])[inner].abs().max() < 1e-9
    assert distance_regularisation(torch.zeros(1, 1, 9, 9)).abs().max() == 0


def test_distance_regularisation_diffuses_where_it_is_too_steep():
    """For slopes above 1 it is the Laplacian minus the curvature (p'(s)/s = 1 - 1/s)."""
    phi = 3 * disk(20, 64)
    ring = (disk(20, 64).abs() < 4)[..., 1:-1, 1:-1]
    # A cone of slope 3 has Laplacian -3/r and curvature -1/r.
    radius = 20 - disk(20, 64)[..., 1:-1, 1:-1]
    found = distance_regularisation(phi)[..., 1:-1, 1:-1]
    assert_close(found[ring], (-2 / radius)[ring], rtol=0.05, atol=0)


# --- gradients and extremes


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10_000))
def test_evolution_through_five_steps_has_right_gradients(seed):
    phi, motion, modulation = smooth_fields(seed, height=6, width=5)
    # Where |grad phi| is 0 or 1 the potential has kinks in its derivatives; keep off them.
    phi = 1.7 * phi + 3 * torch.arange(5, dtype=torch.float64)
    inputs = [t.detach().requires_grad_() for t in (phi, 0.2 * motion, modulation)]
    config = EvolutionConfig(steps=5, dt=0.3)
    assert torch.autograd.gradcheck(
        lambda *fields: evolve(*fields, config)[-1], inputs, eps=1e-7, atol=1e-4, rtol=1e-3, fast_mode=True
    )


def test_every_gradient_of_a_disk_through_five_unit_steps_is_right():
    phi = disk(2.1, 6, 0.1, -0.2)
    _, motion, modulation = smooth_fields(3, height=6, width=6)
    inputs = [t.detach().requires_grad_() for t in (2 * phi, 0.3 * motion, modulation)]
    assert torch.autograd.gradcheck(
        lambda *f: evolve(*f, EvolutionConfig())[-1], inputs, eps=1e-7, atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, -1.0, 30.0, 1e4])
def test_a_constant_phi_stays_as_it_is_and_has_finite_gradients(value, dtype):
    phi = torch.full((2, 1, 9, 7), value, dtype=dtype, requires_grad=True)
    motion = torch.ones(2, 2, 9, 7, dtype=dtype, requires_grad=True)
    modulation = torch.ones(2, 1, 9, 7, dtype=dtype, requires_grad=True)
    states = evolve(phi, motion, modulation, EvolutionConfig())
    assert_close(states[-1], phi)
    states[-1].square().sum().backward()
    for tensor in (phi, motion, modulation):
        assert torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("kind", ["step", "checker", "spike", "ridge", "tiny", "steep"])
def test_values_and_gradients_stay_finite_on_unpleasant_fields(kind):
    y, x = grid(16, dtype=torch.float32)
    phi = {
        "step": torch.where(x > 0, 30.0, -30.0),
        "checker": (y + x) % 2 * 60 - 30,
        "spike": torch.where((y.abs() < 1) & (x.abs() < 1), 1e4, 0.0),
        "ridge": 5 - x.abs(),
        "tiny": 1e-20 * x,
        "steep": 1e5 * x,
    }[kind][None, None].clone()
    fields = [phi, torch.full((1, 2, 16, 16), 2.0), torch.ones(1, 1, 16, 16)]
    fields = [f.requires_grad_() for f in fields]
    final = evolve(*fields, EvolutionConfig())[-1]
    assert torch.isfinite(final).all()
    final.tanh().sum().backward()
    assert all(torch.isfinite(f.grad).all() for f in fields)


@pytest.mark.parametrize("operator", [curvature, distance_regularisation, boundary_directions, gradient])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2)])
def test_operators_work_on_grids_of_few_pixels(operator, shape):
    assert torch.isfinite(operator(torch.randn(2, 1, *shape))).all()


# --- structure


def test_a_batch_evolves_as_its_members_do_one_by_one():
    phi, motion, modulation = smooth_fields(1, batch=4, height=20, width=17, dtype=torch.float32)
    together = evolve(phi, motion, modulation, EvolutionConfig())
    for i in range(4):
        alone = evolve(phi[i : i + 1], motion[i : i + 1], modulation[i : i + 1], EvolutionConfig())
        for a, b in zip(alone, together, strict=True):
            assert_close(a, b[i : i + 1])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_evolution_commutes_with_flips_and_transposes(seed):
    phi, motion, modulation = smooth_fields(seed)
    config = EvolutionConfig()
    final = evolve(phi, motion, modulation, config)[-1]
    v_y, v_x = motion[:, :1], motion[:, 1:]

    def close(a, b):
        assert_close(a, b, rtol=1e-9, atol=1e-9)

    upside_down = torch.cat([-v_y, v_x], dim=1).flip(2)
    close(evolve(phi.flip(2), upside_down, modulation.flip(2), config)[-1], final.flip(2))
    mirrored = torch.cat([v_y, -v_x], dim=1).flip(3)
    close(evolve(phi.flip(3), mirrored, modulation.flip(3), config)[-1], final.flip(3))
    turned = torch.cat([v_x, v_y], dim=1).mT
    close(evolve(phi.mT, turned, modulation.mT, config)[-1], final.mT)
    # Inside and outside change places under phi -> -phi.
    close(evolve(-phi, motion, modulation, config)[-1], -final)


def test_evolution_returns_every_state_and_starts_from_phi_itself():
    phi, motion, modulation = smooth_fields(2)
    config = EvolutionConfig(steps=3)
    states = evolve(phi, motion, modulation, config)
    assert len(states) == 4
    assert states[0] is phi
    for before, after in itertools.pairwise(states):
        assert_close(after, evolution_step(before, motion, modulation, config))
    assert len(evolve(phi, motion, modulation, EvolutionConfig(steps=0))) == 1


def test_one_step_is_the_sum_of_the_three_terms():
    phi, motion, modulation = smooth_fields(5)
    config = EvolutionConfig(dt=0.7, curvature=0.5, mu=0.1)
    grad = gradient(phi)
    rate = -(motion * grad).sum(dim=1, keepdim=True)
    rate = rate + 0.5 * modulation * slope(phi) * curvature(phi) + 0.1 * distance_regularisation(phi)
    found = evolution_step(phi, motion, modulation, config)
    steep = slope(phi) > 0.1  # |grad phi| kappa is regularised where phi is flat
    assert_close(found[steep], (phi + 0.7 * rate)[steep], rtol=1e-3, atol=1e-4)


def test_evolution_is_float32_for_half_precision_and_under_autocast():
    phi, motion, modulation = (t.float() for t in smooth_fields(4))
    exact = evolve(phi, motion, modulation, EvolutionConfig())[-1]
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = evolve(phi, motion, modulation, EvolutionConfig())[-1]
    assert under_autocast.dtype == torch.float32
    assert_close(under_autocast, exact)
    half = evolve(phi.bfloat16(), motion.bfloat16(), modulation.bfloat16(), EvolutionConfig())[-1]
    assert half.dtype == torch.float32
    assert evolve(*smooth_fields(4), EvolutionConfig())[-1].dtype == torch.float64


def test_evolution_reproduces_a_stored_result():
    """A fixed evolution gives what it gave when it was written down.

    `python tests/test_levelset.py` (see the end of this file) writes the array anew, after a change that is meant.
    """
    stored = np.load(GOLDEN / "evolution.npy")
    np.testing.assert_allclose(golden_evolution(), stored, atol=2e-4)


def golden_evolution():
    """phi_0, phi_2 and phi_5 of two touching disks under a turning motion."""
    phi = torch.maximum(disk(7, 32, -3, -4), disk(5, 32, 4, 5)).clamp(-6, 6)
    y, x = grid(32)
    motion = torch.stack([torch.cos(x / 6), torch.sin(y / 5)])[None]
    modulation = torch.sigmoid((y - x) / 4)[None, None]
    states = evolve(phi, motion, modulation, EvolutionConfig())
    return np.stack([states[i][0, 0].numpy() for i in (0, 2, 5)]).astype(np.float32)


# --- signed distance


def reference_distance(mask, truncation):
    """Distance to the nearest pixel of the other kind, less the half pixel to the edge between them."""
    mask = np.asarray(mask, dtype=bool)
    if mask.all() or not mask.any():
        return np.where(mask, truncation, -truncation).astype(np.float64)
    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    return np.where(mask, inside - 0.5, 0.5 - outside).clip(-truncation, truncation)


@settings(deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=16), fill=st.booleans()), st.integers(1, 20))
def test_signed_distance_is_the_exact_euclidean_one(masks, truncation):
    found = signed_distance(torch.from_numpy(masks)[:, None], truncation)
    assert found.dtype == torch.float32
    for one, mask in zip(found[:, 0].numpy(), masks, strict=True):
        np.testing.assert_allclose(one, reference_distance(mask, truncation), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.002, 0.998), st.integers(1, 40))
def test_signed_distance_of_sparse_and_dense_masks(seed, density, truncation):
    mask = np.random.default_rng(seed).random((53, 71)) < density
    found = signed_distance(torch.from_numpy(mask)[None, None], truncation)[0, 0]
    np.testing.assert_allclose(found.numpy(), reference_distance(mask, truncation), atol=1e-4)


def test_signed_distance_of_empty_and_full_masks_is_cut_off():
    assert (signed_distance(torch.zeros(1, 1, 9, 9), 5) == -5).all()
    assert (signed_distance(torch.ones(1, 1, 9, 9), 5) == 5).all()


def test_the_border_of_the_grid_is_no_boundary_of_the_object():
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., :20] = 1
    distance = signed_distance(mask, 30)
    assert_close(distance[0, 0, 0], 19.5 - torch.arange(40.0))
    assert (distance == distance[..., :1, :]).all()


def test_the_contour_of_the_signed_distance_runs_between_the_pixels():
    y, x = grid(41)
    mask = ((y.abs() <= 10) & (x.abs() <= 6))[None, None]
    distance = signed_distance(mask, 8)
    assert distance[mask].min() == 0.5
    assert distance[~mask].max() == -0.5
    assert torch.equal(distance > 0, mask)


# --- limits


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient(torch.zeros(4, 4)), r"phi must have shape \(B, 1, H, W\), got \(4, 4\)"),
        (lambda: curvature(torch.zeros(1, 2, 4, 4)), r"phi must have shape \(B, 1, H, W\), got \(1, 2, 4, 4\)"),
        (lambda: distance_regularisation(torch.zeros(1, 4, 4)), r"phi must have shape"),
        (lambda: boundary_directions(torch.zeros(1, 4, 4)), r"must have shape \(B, 1, H, W\)"),
        (lambda: signed_distance(torch.zeros(4, 4), 3), r"mask must have shape \(B, 1, H, W\), got \(4, 4\)"),
        (lambda: signed_distance(torch.zeros(1, 1, 4, 4), 0), "truncation must be at least 1 pixel, got 0"),
    ],
)
def test_operators_name_the_shape_they_want(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 2, 8, 8), (1, 2, 8, 8), (1, 1, 8, 8)), r"phi must have shape \(B, 1, H, W\), got \(1, 2, 8, 8\)"),
        (((1, 1, 8, 8), (1, 1, 8, 8), (1, 1, 8, 8)), r"motion must have shape \(B, 2, H, W\)"),
        (((1, 1, 8, 8), (1, 2, 8, 8), (8, 8)), r"modulation must have shape \(B, 1, H, W\), got \(8, 8\)"),
        (((1, 1, 8, 8), (1, 2, 8, 9), (1, 1, 8, 8)), r"\(1, 2, 8, 9\).*must match in \(B, H, W\)"),
        (((2, 1, 8, 8), (3, 2, 8, 8), (2, 1, 8, 8)), r"\(3, 2, 8, 8\).*must match in \(B, H, W\)"),
    ],
)
def test_evolution_names_the_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ValueError, match=message):
        evolve(*(torch.zeros(shape) for shape in shapes), EvolutionConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": -1}, "steps must be a whole number >= 0"),
        ({"steps": 2.5}, "steps must be"),
        ({"dt": 0}, "dt > 0"),
        ({"dt": math.nan}, "got nan"),
        ({"dt": math.inf}, "got inf"),
        ({"mu": 0.25}, r"mu\*dt must lie in \[0, 0.25\) \(explicit diffusion limit\), got 0.25; lower mu or dt"),
        ({"mu": -0.01}, r"mu\*dt must lie in"),
        ({"mu": 0.1, "dt": 3}, r"mu\*dt must lie in"),
        ({"curvature": 1.1}, r"curvature\*dt must lie in \[0, 1\], got 1.1"),
        ({"curvature": -1}, r"curvature\*dt must lie in"),
    ],
)
def test_evolution_config_limits(values, message):
    with pytest.raises(ValueError, match=message):
        EvolutionConfig(**values)


def test_evolution_defaults_are_the_papers():
    config = EvolutionConfig()
    assert (config.steps, config.dt, config.curvature, config.mu) == (5, 1.0, 1.0, 0.04)


if __name__ == "__main__":
    np.save(GOLDEN / "evolution.npy", golden_evolution())


@given(seed=st.integers(0, 10**6))
def test_values_at_points_are_those_of_the_pixels_and_linear_between(seed):
    rng = np.random.default_rng(seed)
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")
    field = torch.stack([3 * y - x, y + 2 * x])[None]
    points = torch.from_numpy(rng.uniform(0, (6, 8), (1, 5, 2)).astype(np.float32))
    found = values_at(field, points)
    assert found[0, 0] == pytest.approx(3 * points[0, :, 0] - points[0, :, 1], abs=1e-4)
    assert found[0, 1] == pytest.approx(points[0, :, 0] + 2 * points[0, :, 1], abs=1e-4)
    assert torch.equal(
        values_at(field, points.round(), "nearest")[0, 1], (points[0, :, 0].round() + 2 * points[0, :, 1].round())
    )
    assert values_at(field, torch.tensor([[[-4.0, 20.0]]]))[0, 0] == pytest.approx(-8)
