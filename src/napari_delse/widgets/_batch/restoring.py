"""Bringing a run back that was cut off: by a crash of napari, or by a power cut."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels

from napari_delse.annotation.session import AnnotationSession
from napari_delse.widgets._batch.labels import fits
from napari_delse.widgets._desk import desk_of
from napari_delse.widgets._guide import labels_wanted
from napari_delse.widgets._layers import new_labels

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_delse.widgets._batch.form import LayersForm
    from napari_delse.widgets._batch.labels import BatchLabels
    from napari_delse.widgets._notices import Notices
    from napari_delse.widgets._recording import Journals


class BatchRestorer:
    """Offers unfinished work on the chosen image, unless the annotate widget does, and restores it into labels."""

    def __init__(
        self,
        viewer: ViewerModel,
        form: LayersForm,
        labels: BatchLabels,
        journals: Journals,
        notices: Notices,
        offer: Callable[[], object],
    ) -> None:
        self._viewer, self._form, self._labels = viewer, form, labels
        self._journals, self._notices, self._offer = journals, notices, offer
        self._looked: Image | None = None
        self._is_busy = False

    def look(self) -> None:
        """Look for unfinished work when another image was chosen."""
        source = self._form.source
        layer = None if source is None else source.layer
        if layer is not self._looked:
            self._looked = layer
            self._journals.look(source)

    @property
    def text(self) -> str:
        """What is offered; empty for nothing."""
        offer = self._journals.offer
        if offer is None or self._is_busy or self._is_annotated():
            return ""
        return offer.text

    def _is_annotated(self) -> bool:
        return any(isinstance(layer, Labels) and desk_of(layer) is not None for layer in self._viewer.layers)

    def restore(self) -> None:
        """Bring unfinished work back: into the chosen labels, or into new ones if it began with none."""
        offer, source = self._journals.offer, self._form.source
        if offer is None or source is None or self._is_busy:
            return
        with self._notices.told():
            header = offer.header
            layer = self._form.labels_box.currentData()
            suits = isinstance(layer, Labels) and fits(layer, source) and np.can_cast(header.dtype, layer.data.dtype)
            if header.blank and not (suits and not np.any(layer.data)):
                layer = new_labels(source, header.dtype)
            elif not suits:
                raise ValueError(labels_wanted(header.dtype))
            self._is_busy = True
            self._journals.restore(layer.data, partial(self._restored, layer), self._not_restored)

    def _restored(self, layer: Labels, session: AnnotationSession) -> None:
        self._is_busy = False
        if layer not in self._viewer.layers:
            self._viewer.add_layer(layer)
        self._labels.adopt(layer, session)
        layer.refresh()
        self._offer()
        self._form.choose_labels(layer)
        self._notices.tell(f"The unfinished work is back in '{layer.name}'; Undo takes its steps back.")

    def _not_restored(self, error: Exception) -> None:
        self._is_busy = False
        self._notices.say(error)
