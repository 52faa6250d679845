"""The session's state machine on a napari Labels layer, with napari's own brush, fill and polygon in between."""

import numpy as np
import pytest

pytest.importorskip("napari")

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from napari.layers import Labels
from test_session import SHAPE, Annotating

from napari_delse.annotation.edits import PlaneKey
from napari_delse.widgets._brush import painted
from napari_delse.widgets._label_store import LayerLabels

places = st.tuples(*(st.integers(0, side - 1) for side in SHAPE))


class AnnotatingALayer(Annotating):
    """As `Annotating`, but the labels change through napari, and the session hears of strokes as the widget does."""

    def store(self, labels):
        self.kept = layer = Labels(labels)  # the store lets go of deleted layers
        layer.events.paint.connect(self.hear)
        return LayerLabels(layer)

    def hear(self, event):
        if not self.session.store.is_writing:
            self.session.note_painted(painted(event.value))

    @property
    def layer(self):
        return self.session.store.layer

    def values(self, data):
        return data.draw(st.sampled_from([0, 3, 7, *self.session.objects]))

    @rule(data=st.data(), line=st.lists(places, min_size=1, max_size=4), size=st.integers(1, 6), volume=st.booleans())
    def brush(self, data, line, size, volume):
        """A stroke of one value over several places, in one plane or in three dimensions."""
        value, layer = self.values(data), self.layer
        layer.brush_size, layer.n_edit_dimensions = size, 3 if volume else 2
        with layer.block_history():
            for place in line:
                layer.paint(place if volume else (line[0][0], *place[1:]), value)
        layer.n_edit_dimensions = 2
        self.note()

    @rule(data=st.data(), place=places)
    def fill(self, data, place):
        self.layer.fill(place, self.values(data))
        self.note()

    @rule(data=st.data(), positions=st.lists(places, min_size=1, max_size=6, unique=True))
    def script(self, data, positions):
        """Another plugin sets single pixels, twice in one step of napari's history."""
        where = tuple(np.array(positions).T)
        with self.layer.block_history():
            self.layer.data_setitem(where, self.values(data))
            self.layer.data_setitem(tuple(axis[:3] for axis in where), self.values(data))
        self.note()

    @precondition(lambda self: self.session.is_untouched)
    @rule()
    def undo_by_napari(self):
        self.layer.undo()
        np.testing.assert_array_equal(self.labels, self.start)


AnnotatingALayer.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnnotatingALayer = AnnotatingALayer.TestCase


@pytest.mark.parametrize(("count", "steps"), [(10, 1), (11, 0), (400, 0)])
def test_few_values_are_known_to_naparis_undo_and_many_are_written_at_once(count, steps):
    layer = Labels(np.zeros((64, 64), np.uint16))
    wanted = np.zeros((64, 64), np.uint16)
    wanted.reshape(-1, 8)[:count, 2:5] = 1 + np.arange(count)[:, None]
    window = slice(0, 64), slice(0, 64)
    LayerLabels(layer).write(PlaneKey(), *window, wanted > 0, wanted[wanted > 0])
    np.testing.assert_array_equal(layer.data, wanted)
    assert len(layer._undo_history) == steps
