"""Full garbage collections are short while somebody annotates, and still find all garbage."""

import gc
import weakref

import pytest

from napari_delse.widgets import _collecting
from napari_delse.widgets._collecting import ShortCollections


class Knot:
    """Garbage that only a collection can find."""

    def __init__(self):
        self.me = self


@pytest.fixture
def short():
    kept = ShortCollections()
    yield kept
    kept.close()


def knot():
    made = Knot()
    return made, weakref.ref(made)


def test_what_one_collection_left_alive_is_not_looked_at_by_the_next(short):
    gc.collect()
    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects(generation=2)) < 1000


def test_new_garbage_is_found(short):
    gc.collect()
    made, gone = knot()
    del made
    gc.collect()
    assert gone() is None


def test_what_became_garbage_later_is_found_after_a_layer_was_removed(short):
    made, gone = knot()
    gc.collect()
    del made
    gc.collect()
    assert gone() is not None  # passed over: this is the price
    short.look_at_all()
    gc.collect()
    assert gone() is None


def test_what_became_garbage_later_is_found_after_some_minutes(short, monkeypatch):
    made, gone = knot()
    gc.collect()
    del made
    now = _collecting.time.monotonic()
    monkeypatch.setattr(_collecting.time, "monotonic", lambda: now + 601)
    gc.collect()
    assert gone() is None


def test_the_last_one_closed_leaves_the_collector_as_it_was():
    first, second = ShortCollections(), ShortCollections()
    gc.collect()
    first.close()
    first.close()
    assert gc.get_freeze_count() > 0
    second.close()
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert gc.get_freeze_count() == 0
