"""Removing layers without a crash of the viewer."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel


def ready_to_remove(viewer: ViewerModel) -> None:
    """Give the canvas its drawing context before a layer is removed.

    napari 0.9 frees the buffers, textures and programs of a removed layer at once, in whatever context of OpenGL is
    the current one. That is Qt's own after it has drawn a dock widget; the canvas then goes on with what is gone, and
    the process ends with a segmentation fault.
    """
    window: Any = getattr(viewer, "window", None)
    with suppress(AttributeError, RuntimeError):  # private: another version may hide its canvas elsewhere
        window._qt_viewer.canvas._scene_canvas.set_current()
