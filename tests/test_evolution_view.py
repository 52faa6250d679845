"""What is shown of an evolution lies where the mask lies, and settings stay where the evolution is stable."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_delse.annotation.evolution_view import ARROWS, motion_arrows, picture_of, raster, segments
from napari_delse.evolution import MAX_MU_DT, MAX_TIME, EvolutionConfig, EvolutionSettings
from napari_delse.geometry import Crop

CROP = Crop(-6, 10, 42, 130, 64)  # reaches over the border above; finer than the plane along y, coarser along x
PLANE = (80, 120)


@dataclass
class Evolved:
    """phi_k is the distance to a disk that grows by a pixel per step."""

    crop: Crop = CROP
    plane_shape: tuple[int, int] = PLANE
    threshold: float = 0.0

    @property
    def states(self):
        ys, xs = np.mgrid[:64, :64]
        return tuple((10 + k - np.hypot(ys - 32, xs - 32)).astype(np.float32) for k in range(4))

    motion = np.ones((2, 64, 64), np.float32)
    modulation = np.full((64, 64), 0.25, np.float32)

    def contours(self, step=-1):
        circle = np.linspace(0, 2 * np.pi, 60)
        return [self.crop.to_plane(32 + (10 + step) * np.stack([np.sin(circle), np.cos(circle)], axis=1))]


# ---------------------------------------------------------------- settings


SETTINGS = st.builds(
    lambda steps, dt, curvature, mu: (steps, dt, curvature / dt, mu / dt),
    st.integers(0, 20),
    st.floats(0.05, 2),
    st.floats(0, 1),
    st.floats(0, 0.2),
)


@given(SETTINGS, st.sampled_from(["steps", "dt", "curvature", "mu"]), st.floats(0.05, 40))
def test_no_slider_leaves_what_is_stable(values, name, wanted):
    steps, dt, curvature, mu = values
    start = EvolutionSettings(steps=min(steps, int(MAX_TIME / dt)), dt=dt, curvature=curvature * 0.999, mu=mu)
    turned = start.turned(name, wanted)
    assert turned.steps * turned.dt <= MAX_TIME + 1e-6
    assert turned.mu * turned.dt <= MAX_MU_DT + 1e-6
    assert turned.curvature * turned.dt <= 1 + 1e-6
    assert getattr(turned, name) <= max(wanted, getattr(start, name)) + 0.5  # steps are rounded
    assert replace(turned, **{name: getattr(start, name)}) == start  # the others stay


def test_the_largest_values_are_those_the_tooltips_tell():
    settings = EvolutionSettings(dt=0.5)
    assert settings.most("steps") == 16
    assert settings.most("curvature") == 2
    assert settings.most("mu") == pytest.approx(0.48)
    assert settings.most("dt") == pytest.approx(1.0)  # lambda is 1
    assert EvolutionSettings(curvature=0, mu=0).most("dt") == pytest.approx(1.6)
    assert math.isinf(settings.most("threshold"))


def test_a_model_beyond_the_limits_keeps_its_own():
    trained = EvolutionSettings(steps=40, dt=1.0)
    assert trained.turned("steps", 60).steps == 40
    assert trained.turned("steps", 6).steps == 6


def test_settings_are_a_models_evolution_and_threshold():
    config = EvolutionConfig(steps=3, dt=0.5, curvature=0.7, mu=0.1)
    settings = EvolutionSettings.of(config, 1.5)
    assert settings.config == config
    assert settings.threshold == 1.5
    with pytest.raises(ValueError, match="finite"):
        EvolutionSettings(threshold=math.nan)


# ---------------------------------------------------------------- pictures


def test_rasters_lie_on_the_pixels_of_the_plane_that_they_show():
    ys, xs = np.mgrid[:64, :64].astype(np.float32)
    for field, axis in ((ys, 0), (xs, 1)):
        made = raster(field, CROP, PLANE)
        assert made.origin == (0, 10)  # cut at the border of the plane
        assert made.step == (1, 1)
        assert made.values.shape == (42, 110)
        there = [(4, 20), (30, 100), (41, 119)]
        for y, x in there:
            expected = CROP.to_network((y, x))[axis]
            assert made.values[y - 0, x - 10] == pytest.approx(expected, abs=1e-4)


def test_rasters_of_large_crops_stay_small_and_in_place():
    ys, _ = np.mgrid[:64, :64].astype(np.float32)
    crop = Crop(100, 200, 2100, 1200, 64)
    made = raster(ys, crop, (5000, 5000))
    assert max(made.values.shape) <= 256
    assert made.step == (8, 4)
    for row in (10, 100):
        position = made.origin[0] + row * made.step[0]
        assert made.values[row, 0] == pytest.approx(crop.to_network((position, 0))[0], abs=1e-3)


def test_nothing_to_show_outside_the_plane():
    assert raster(np.zeros((64, 64), np.float32), Crop(100, 0, 140, 40, 64), PLANE) is None


def test_arrows_are_velocities_in_the_plane():
    motion = np.zeros((2, 64, 64), np.float32)
    motion[0, :, 32:], motion[1, :, 32:] = 3.0, -1.5
    arrows = motion_arrows(motion, CROP)
    assert len(arrows) == ARROWS * ARROWS // 2  # those that stand still are left out
    np.testing.assert_allclose(arrows[:, 1], np.tile([3.0 / CROP.scale[0], -1.5 / CROP.scale[1]], (len(arrows), 1)))
    starts = CROP.to_network(arrows[:, 0])
    assert starts[:, 1].min() > 32
    assert starts.min() > 0
    assert starts.max() < 63
    assert len(motion_arrows(np.zeros_like(motion), CROP)) == 0


def test_arrows_are_the_mean_of_their_cells():
    rng = np.random.default_rng(0)
    motion = rng.normal(size=(2, 64, 64)).astype(np.float32) + 5
    crop = Crop(0, 0, 64, 64, 64)
    arrows = motion_arrows(motion, crop, count=4)
    np.testing.assert_allclose(arrows[5, 0], [23.5, 23.5])
    np.testing.assert_allclose(arrows[5, 1], motion[:, 16:32, 16:32].mean(axis=(1, 2)), rtol=1e-5)


def test_segments_follow_their_lines():
    lines = [np.array([[0.0, 0], [1, 2], [3, 3]]), np.array([[9.0, 9], [8, 8]]), np.array([[5.0, 5]])]
    made = segments(lines)
    np.testing.assert_array_equal(made[:, 0], [[0, 0], [1, 2], [9, 9]])
    np.testing.assert_array_equal(made.sum(axis=1), [[1, 2], [3, 3], [8, 8]])
    assert segments([]).shape == (0, 2, 2)


def test_picture_has_a_contour_and_on_demand_a_phi_for_every_state():
    made = picture_of(Evolved(), with_phi=True)
    assert len(made.contours) == len(made.phi) == 4
    radii = [np.hypot(*(CROP.to_network(c[:, 0]) - 32).T).mean() for c in made.contours]
    np.testing.assert_allclose(radii, [10, 11, 12, 13], atol=1e-6)
    assert made.modulation.values == pytest.approx(0.25)
    assert picture_of(Evolved()).phi == ()


def test_picture_is_given_up_when_nobody_waits_for_it():
    asked = []

    def is_wanted():
        asked.append(None)
        return len(asked) < 3

    assert picture_of(Evolved(), is_wanted=is_wanted) is None
    assert len(asked) == 3
