"""The settings of fine-tuning, and what became of the held-out objects."""

import math
from types import SimpleNamespace

import pytest
import torch

from napari_delse.finetuning.config import PRESETS, FineTuneConfig, Gain, better, train_config
from napari_delse.finetuning.held_out import ScoredObjects


def scored(*ious):
    return ScoredObjects(tuple(ious), tuple(ious))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minutes": 0}, "minutes must be a number > 0, got 0"),
        ({"minutes": math.nan}, "minutes must be a number > 0, got nan"),
        ({"minutes": math.inf}, "minutes must be a number > 0, got inf"),
        ({"validation": 1.0}, r"validation must be a share in \(0, 1\)"),
        ({"validation": math.nan}, r"validation must be a share in \(0, 1\)"),
        ({"learning_rate": -1.0}, "learning_rate must be a number > 0, got -1"),
        ({"seed": -1}, "seed must be a number >= 0, got -1"),
        ({"interactive_share": 5.0}, r"interactive_share must be a share in \[0, 1\], got 5"),
        ({"patience": 0}, "patience must be >= 1, got 0"),
        ({"objects": 0}, "objects must be >= 1"),
        ({"batch_size": 1}, "batch_size must be >= 2, got 1"),
        ({"replay": 1.0}, "replay must be a share in"),
        ({"size": 100}, r"size must be a positive multiple of 32, .*, got 100"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        FineTuneConfig(**values)


def test_presets_are_settings():
    minutes = {name: FineTuneConfig(**values).minutes for name, values in PRESETS.items()}
    assert (minutes["2 minutes"], minutes["10 minutes"]) == (2, 10)
    assert FineTuneConfig(**PRESETS["until it stops improving"]).patience


def test_checkpoints_are_at_most_a_minute_apart():
    assert train_config(FineTuneConfig(minutes=600)).save_minutes <= 1
    assert train_config(FineTuneConfig(minutes=600)).report_seconds <= 2
    assert train_config(FineTuneConfig(batch_size=8), 4).batch_size == 4


@pytest.mark.parametrize("own", [5, 500])
def test_replay_is_the_share_of_synthetic_examples_however_many_objects_are_labelled(own):
    from napari_delse.train.loop import _sampling_weights, _set_factors

    config = train_config(FineTuneConfig(replay=0.25))
    group = torch.tensor([0] * own + [1] * 192)
    weights = _sampling_weights(
        SimpleNamespace(group=group), config.balance, _set_factors(config, ("own", "synthetic"))
    )
    assert float(weights[own:].sum() / weights.sum()) == pytest.approx(0.25)


def test_a_gain_tells_its_spread_over_the_objects():
    before, after = scored(0.5, 0.6, 0.7, 0.8), scored(0.6, 0.7, 0.8, 0.78)
    gain = Gain.between(before, after)
    assert gain.mean == pytest.approx(0.07)
    assert gain.sd == pytest.approx(0.06)
    assert gain.low <= gain.mean <= gain.high
    assert (gain.improved, gain.worsened, gain.objects) == (3, 1, 4)
    certain = Gain.between(scored(0.5, 0.5), scored(0.6, 0.6))
    assert (certain.low, certain.high, certain.sd) == pytest.approx((0.1, 0.1, 0))
    assert Gain.between(scored(0.5), scored(0.7)).sd == 0


def test_the_same_scores_are_not_better():
    """Neither are those of which the report would not show that they are."""
    assert not better(scored(0.5, 0.6), scored(0.5, 0.6))
    assert not better(scored(0.5, 0.6), scored(0.5, 0.6009))
    assert better(scored(0.5, 0.6), scored(0.8, 0.9))
