"""The study of the evolution: where it says that contours pass."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from napari_delse.geometry import Crop


@pytest.fixture
def study(checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "training"))
    return importlib.import_module("evolution_study")


def half_plane(edge):
    """A prediction, magnified three times, that is inside above this row of the plane."""
    crop = Crop(0, 0, 20, 20, 60)
    rows = crop.to_plane(np.stack([np.arange(60.0)] * 2, axis=-1))[:, 0]
    phi = np.repeat(3 * (edge - rows)[:, None], 60, axis=1).astype(np.float32)
    return SimpleNamespace(crop=crop, states=(phi,), threshold=0.0)


@pytest.mark.parametrize(("too_far_in", "edge"), [(0, 9.5), (3, 8.5), (-6, 11.5)])
def test_a_contour_should_pass_half_an_image_pixel_outside_a_click(study, too_far_in, edge):
    assert study.missed(half_plane(edge), (9, 7)) == pytest.approx(too_far_in, abs=1e-4)


def test_a_contour_that_is_nowhere_missed_the_click_by_far(study):
    assert study.missed(half_plane(-99), (9, 7)) == np.inf
