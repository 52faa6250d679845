"""Bringing unfinished work back into labels."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels

from napari_delse.annotation.session import AnnotationSession
from napari_delse.widgets._guide import labels_wanted
from napari_delse.widgets._label_store import LayerLabels, is_quick, largest_label
from napari_delse.widgets._layers import MINE, new_labels
from napari_delse.widgets._source import ImageSource

if TYPE_CHECKING:
    from napari_delse.annotation.records import Header
    from napari_delse.widgets._desk import Desk
    from napari_delse.widgets._notices import Notices
    from napari_delse.widgets._recording import Journals


def _may_be_begun_with(labels: Labels, header: Header) -> bool:
    """Whether work may have begun with labels that nobody has chosen: the largest one is the same."""
    return is_quick(labels.data) and largest_label(labels.data) == header.largest


class Restorer:
    """Restores unfinished work that the journals offer, into the labels of a desk."""

    def __init__(self, desk: Desk, journals: Journals, notices: Notices) -> None:
        self._desk, self._journals, self._notices = desk, journals, notices

    @property
    def labels(self) -> Labels | None:
        """Those that are being restored into."""
        return self._desk.restoring

    @property
    def is_busy(self) -> bool:
        """Whether the labels of the desk are being restored, so that nobody can work on them."""
        return self.labels is not None and self.labels is self._desk.labels

    def restore(self) -> None:
        """Bring unfinished work on this image back: into the labels if they are untouched, else into new ones."""
        desk, offer = self._desk, self._journals.offer
        if offer is None or desk.source is None or self.labels is not None:
            return
        if offer.moves:
            desk.choose_image(desk.source.layer, offer.channel_axis)
            self._journals.keep_offer(offer)
        with self._notices.told():
            layer = self._labels_for(offer.header, desk.source)
            desk.restoring = layer
            desk.end(layer)
            if layer is desk.labels:
                desk.session = None
            self._journals.restore(layer.data, partial(self._on_restored, desk.source, layer), self._not_restored)

    def _labels_for(self, header: Header, source: ImageSource) -> Labels:
        """The labels that unfinished work is restored into.

        Raises
        ------
        ValueError
            If it began with labels that are not there, or the memory does not suffice for new ones.
        """
        sessions, mine = self._desk.sessions, self._desk.labels
        found = [x for x in self._desk.matching_labels() if np.can_cast(header.dtype, x.data.dtype)]
        free = [x for x in found if x not in sessions or not sessions[x].can_undo]
        if not header.blank:
            filled = [x for x in free if not x.metadata.get(MINE) or mine is not x]
            if mine is not None and mine in filled:
                return mine
            alike = [x for x in filled if _may_be_begun_with(x, header)]
            if len(alike) == 1:
                return alike[0]
            raise ValueError(labels_wanted(header.dtype))
        if mine is not None and mine in free and mine.metadata.get(MINE) and sessions[mine].next_label == 1:
            return mine
        return new_labels(source, header.dtype)

    def _on_restored(self, source: ImageSource, layer: Labels, session: AnnotationSession) -> None:
        desk = self._desk
        desk.restoring = None
        if layer not in desk.viewer.layers:
            desk.viewer.add_layer(layer)
        session.store = LayerLabels(layer)
        desk.sessions.begin(layer, session)
        with suppress(AttributeError):  # private: what napari would undo is gone
            layer._reset_history()
        layer.refresh()
        is_shown = desk.source is not None and desk.source.layer is source.layer and layer in desk.matching_labels()
        if is_shown or desk.labels is layer:
            desk.choose_labels(layer)
        else:
            self._notices.tell(f"The unfinished work is back in '{layer.name}'.")

    def _not_restored(self, error: Exception) -> None:
        desk, layer = self._desk, self._desk.restoring
        desk.restoring = None
        if layer is not None and layer is desk.labels:
            desk.choose_labels(layer)
        self._notices.say(error)
