"""The simulated annotator against all pairs of boundary points, and cases a person can check."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_delse.annotator import (
    inner_boundary,
    jittered,
    simulated_click,
    simulated_drag,
    simulated_prompt,
    worst_point,
)
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask

EMPTY = ObjectMask(np.zeros((0, 0), bool), (0, 0))


def rng():
    return np.random.default_rng(0)


def block(top, left, height, width):
    return ObjectMask(np.ones((height, width), bool), (top, left))


@given(st.floats(0, 0.5), st.integers(0, 2**31))
def test_jitter_stays_within_its_share_of_each_side(jitter, seed):
    prompt = ExtremePoints(((10, 30), (20, 20), (29, 40), (15, 119)))
    points = jittered(prompt, jitter, np.random.default_rng(seed)).points
    moved = np.abs(np.asarray(points) - prompt.points)
    assert (moved <= np.array([20, 100]) * jitter + 1e-9).all()


def test_jitter_uses_its_whole_range_and_the_seed():
    prompt = ExtremePoints(((0, 50), (50, 0), (99, 50), (50, 99)))
    moves = np.concatenate(
        [np.asarray(jittered(prompt, 0.05, np.random.default_rng(s)).points) - prompt.points for s in range(300)]
    )
    assert np.abs(moves).max() > 4.9
    assert np.abs(moves.mean(axis=0)).max() < 0.3
    assert jittered(prompt, 0.05, rng()) == jittered(prompt, 0.05, rng())
    assert jittered(prompt, 0, rng()) is prompt
    with pytest.raises(ValueError, match="jitter"):
        jittered(prompt, -0.1, rng())


def test_prompts_come_from_the_object_in_the_plane():
    truth = ObjectMask(np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool), (10, 20))
    assert set(simulated_prompt(truth, rng()).points) == {(10, 21), (11, 20), (12, 21), (11, 22)}
    box = simulated_prompt(truth, rng(), box=True)
    assert box == ExtremePoints(((10, 20), (12, 22)), kind="box")
    assert simulated_prompt(truth, rng(), box=True, jitter=0.1).kind == "box"
    assert len(simulated_prompt(block(3, 4, 1, 1), rng()).points) == 4  # a single pixel has a box, too


def test_a_bump_is_dragged_back_to_the_nearest_true_boundary():
    true = np.zeros((40, 40), bool)
    true[10:30, 10:30] = True
    pred = true.copy()
    pred[18:21, 30:36] = True
    assert worst_point(pred, true) in [((y, 35.0), (y, 29.0)) for y in (18.0, 19.0, 20.0)]


def test_a_dent_is_dragged_out():
    true, pred = block(10, 10, 20, 20), block(15, 10, 15, 20)
    drag = simulated_drag(pred, true, (40, 40))
    assert drag is not None
    assert drag.length == 5
    assert drag.start[0] == 15
    assert simulated_click(pred, true, (40, 40)) == drag.end


def test_nothing_to_repair_is_none():
    mask = block(10, 10, 5, 5)
    assert simulated_drag(mask, mask, (40, 40)) is None
    assert simulated_click(mask, mask, (40, 40)) is None
    assert simulated_drag(EMPTY, mask, (40, 40)) is None
    assert simulated_drag(block(0, 0, 40, 40), mask, (40, 40)) is None  # a mask of the whole plane has no boundary


def test_the_border_of_the_image_is_no_boundary():
    true, pred = block(0, 0, 10, 10), block(0, 0, 10, 12)
    drag = simulated_drag(pred, true, (40, 40))
    assert drag is not None
    assert drag.start[1] == 11
    assert drag.end[1] == 9


def test_unknown_pixels_are_not_repaired():
    true, pred = block(10, 10, 10, 10), block(10, 10, 10, 20)
    ignore = np.zeros((40, 40), bool)
    ignore[:, 20:] = True
    assert simulated_drag(pred, true, (40, 40)) is not None
    assert simulated_drag(pred, true, (40, 40), ignore) is None


@given(hnp.arrays(bool, (2, 7, 8)))
def test_worst_point_is_the_farthest_of_all_pairs(masks):
    def edge(mask):
        found = []
        for y, x in np.argwhere(mask):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            if any(0 <= v < mask.shape[0] and 0 <= u < mask.shape[1] and not mask[v, u] for v, u in around):
                found.append((y, x))
        return found

    pred, true = masks
    assert [tuple(p) for p in np.argwhere(inner_boundary(pred))] == edge(pred)
    distances = [min((math.dist(p, q) for q in edge(true)), default=0) for p in edge(pred)]
    found = worst_point(pred, true)
    if not distances or max(distances) == 0:
        assert found is None
    else:
        assert found is not None
        p, q = found
        assert p in edge(pred)
        assert q in edge(true)
        assert math.dist(p, q) == pytest.approx(max(distances))


@given(hnp.arrays(bool, (2, 6, 7)))
def test_a_window_answers_like_the_plane(masks):
    def cut(mask):
        ys, xs = np.nonzero(mask)
        if len(ys) == 0:
            return EMPTY
        return ObjectMask(mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1], (int(ys.min()), int(xs.min())))

    pred, true = masks
    whole = worst_point(pred, true)
    drag = simulated_drag(cut(pred), cut(true), (6, 7))
    assert (drag is None) == (whole is None)
    if drag is not None and whole is not None:
        assert drag.start == whole[0]
        assert drag.length == pytest.approx(Correction(*whole).length)
