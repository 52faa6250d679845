"""Layers that come to the viewer, are renamed there, or are taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import QTimer

from napari_delse.widgets._layers import is_picture

if TYPE_CHECKING:
    from napari_delse.widgets._desk import Desk
    from napari_delse.widgets._events import Followed


class LayerList:
    """Keeps the desk in step with the viewer's layers, and takes up an image when there is none on it.

    Parameters
    ----------
    desk : Desk
        What is worked on.
    followed : Followed
        Where it is noted what is followed.
    choose : callable
        Called with the image to work on from now on.
    changed : callable
        Called when there are other layers to choose from, or others are missing.
    """

    def __init__(
        self, desk: Desk, followed: Followed, choose: Callable[[Image], object], changed: Callable[[], object]
    ) -> None:
        self._desk, self._followed = desk, followed
        self._choose, self._changed = choose, changed
        self._closed = False
        layers = desk.viewer.layers
        followed.follow(layers.events.inserted, self._on_inserted)
        followed.follow(layers.events.removed, self._on_removed)
        for layer in layers:
            followed.follow(layer.events.name, self._on_renamed)

    @property
    def images(self) -> list[Image]:
        """All image layers that a person opened."""
        return [layer for layer in self._desk.viewer.layers if is_picture(layer)]

    def start(self) -> None:
        """Take up the active image, or the topmost one, unless there is one already."""
        if self._closed or self._desk.source is not None:
            return
        self._changed()
        images, active = self.images, self._desk.viewer.layers.selection.active
        if images:
            self._choose(active if active in images else images[-1])

    def close(self) -> None:
        """Take up nothing any more."""
        self._closed = True

    def _on_inserted(self, event: Any) -> None:
        self._followed.follow(event.value.events.name, self._on_renamed)
        if isinstance(event.value, Labels) or is_picture(event.value):
            self._changed()
        if is_picture(event.value) and self._desk.source is None:
            QTimer.singleShot(0, self.start)

    def _on_removed(self, event: Any) -> None:
        source = self._desk.source
        if source is not None and event.value is source.layer:
            QTimer.singleShot(0, self._on_image_removed)
        else:
            self._desk.forget(event.value)
        self._changed()

    def _on_image_removed(self) -> None:
        if not self._closed:
            self._desk.choose_image(None)
            self.start()

    def _on_renamed(self) -> None:
        self._changed()
