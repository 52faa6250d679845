"""Settings classes: documented by their comments, checked by their types."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal

import pytest

from napari_delse.finetuning.config import FineTuneConfig
from napari_delse.model import ModelConfig, config_from_dict
from napari_delse.settings import nested, notes, settings
from napari_delse.train import LossConfig, TrainConfig
from napari_delse.train.crops import AugmentConfig
from napari_delse.train.recipes import DataConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Nested settings."""

    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Settings of every kind."""

    rate: float = 0.5  # how fast; "#" is no end
    count: int | None = None  # how many
    kind: Literal["a", "b"] = "a"
    sizes: tuple[tuple[float, int], ...] = (
        (0.0, 8),  # not about the field
    )  # input sides
    on: bool = False  # whether
    inner: Inner = field(default_factory=Inner)

    def other(self):
        return 1  # not about a field


def test_comments_document_the_fields():
    assert notes(Outer) == {
        "rate": 'how fast; "#" is no end',
        "count": "how many",
        "sizes": "input sides",
        "on": "whether",
    }


def test_plain_fields_become_options():
    found = {one.name: (one.kind, one.default, one.choices) for one in settings(Outer)}
    assert found == {
        "rate": (float, 0.5, ()), "count": (int, None, ()), "kind": (str, "a", ("a", "b")), "on": (bool, False, ()),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "fast"}, "'rate' must be a number, got 'fast'"),
        ({"count": 1.5}, "'count' must be a whole number, got 1.5"),
        ({"count": True}, "'count' must be a whole number, got True"),
        ({"on": 1}, "'on' must be true or false, got 1"),
        ({"kind": "c"}, "'kind' must be 'a' or 'b', got 'c'"),
        ({"inner": {"depth": "x"}}, "'inner.depth' must be a whole number"),
        ({"inner": {"height": 1}}, "unknown key 'inner.height'; Inner knows depth"),
        ({"sizes": "large"}, "'sizes' must be a list, got 'large'"),
        ({"sizes": [128]}, "'sizes' must be a list of 2 values, got 128"),
        ({"sizes": [[0.0, 4.5]]}, "'sizes' must be a whole number, got 4.5"),
        ({"inner": 3}, "'inner' must hold the keys of Inner, got 3"),
    ],
)
def test_what_does_not_fit_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        config_from_dict(Outer, values)


def test_what_fits_is_taken():
    values = {"rate": 1, "count": None, "kind": "b", "sizes": [[0.0, 4]], "on": True, "inner": {"depth": 2}}
    assert config_from_dict(Outer, values) == Outer(rate=1, kind="b", sizes=((0.0, 4),), on=True, inner=Inner(depth=2))


@pytest.mark.parametrize("cls", [AugmentConfig, DataConfig, FineTuneConfig, LossConfig, ModelConfig, TrainConfig])
def test_every_setting_says_what_it_is(cls):
    plain = [f.name for f in fields(cls) if not nested(f)]
    assert set(plain) <= set(notes(cls))
    assert all(is_dataclass(nested(f)) for f in fields(cls) if nested(f))
