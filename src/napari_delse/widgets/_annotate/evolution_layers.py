"""The layers that show an evolution: the moving contour, the motion field, the modulation and phi itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Vectors
from napari.utils.colormaps import Colormap

from napari_delse.annotation.edits import PlaneKey
from napari_delse.annotation.evolution_view import Raster
from napari_delse.widgets._layers import DRAGS, MINE, physical, place, zoom_on
from napari_delse.widgets._source import ImageSource, to_space

if TYPE_CHECKING:
    from napari.components import ViewerModel

CONTOUR, MOTION, MODULATION, PHI = "DELSE contour", "DELSE motion field", "DELSE modulation", "DELSE phi"
CONTOUR_COLOR, MOTION_COLOR = "#5dff3b", "#ff8c1a"
ARROW_TIME = 3.0  # arrows show the way in this time: about as long as they are apart

_CONTOUR_WIDTH, _ARROW_WIDTH = 2.0, 1.5  # screen pixels
_PHI_COLORS = Colormap([[0.1, 0.3, 0.8, 1], [1, 1, 1, 1], [0.8, 0.15, 0.1, 1]], name="phi")


class EvolutionLayers:
    """The layers of the evolution on one image, those that are wanted.

    Parameters
    ----------
    viewer : ViewerModel
        Where they are shown.
    source : ImageSource
        Where they lie.
    """

    def __init__(self, viewer: ViewerModel, source: ImageSource) -> None:
        self.viewer, self.source = viewer, source
        self._layers: dict[str, Vectors | Image] = {}
        self._hidden: set[str] = set()  # by us, not by a person

    @property
    def names(self) -> list[str]:
        """Of the layers that are there."""
        return list(self._layers)

    def make(self, name: str, key: PlaneKey | None) -> None:
        """Add a layer if it is missing; the active layer stays active."""
        if name in self._layers:
            return
        kind = _KINDS[name]
        layer = self._layers[name] = kind.make(self.source.ndim, self.source.placement())
        layer.name, layer.metadata[MINE], layer.visible = name, name, False
        self._hidden.add(name)
        active = self.viewer.layers.selection.active
        self.rescale(key)
        self.viewer.layers.insert(self._place_of(kind.below_labels), layer)
        self.viewer.layers.selection.active = active

    def _place_of(self, below_labels: bool) -> int:
        """Pictures lie on the image and below all labels; lines below what is clicked and dragged."""
        layers = self.viewer.layers
        if below_labels and self.source.layer in layers:
            return int(layers.index(self.source.layer)) + 1
        return int(layers.index(DRAGS)) if DRAGS in layers else len(layers)

    def drop(self, name: str) -> None:
        """Take a layer out of the viewer."""
        layer = self._layers.pop(name, None)
        self._hidden.discard(name)
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)

    def remove(self) -> None:
        """Take all layers out of the viewer."""
        for name in self.names:
            self.drop(name)

    def forget(self, layer: Any) -> str | None:
        """A layer was removed from the viewer; its name if it was one of these."""
        name = next((name for name, mine in self._layers.items() if mine is layer), None)
        if name is not None:
            del self._layers[name]
            self._hidden.discard(name)
        return name

    # ---- showing

    def show_lines(self, name: str, key: PlaneKey, vectors: npt.NDArray[np.float64]) -> None:
        """Show (start, way) pairs of a plane, shape (N, 2, 2), on a Vectors layer, if there is one."""
        if name not in self._layers:
            return
        if len(vectors) == 0:
            self.hide(name)
            return
        others = [axis for axis in range(self.source.ndim) if axis not in key.axes]
        lifted = np.empty((len(vectors), 2, self.source.ndim), np.float32)
        lifted[:, 0] = to_space(key, vectors[:, 0])
        lifted[:, 1, list(key.axes)] = vectors[:, 1]
        lifted[:, 1, others] = 0
        self._layers[name].data = lifted
        self._show(name)

    def show_raster(self, name: str, key: PlaneKey, raster: Raster | None, limits: tuple[float, float]) -> None:
        """Show a field of a plane on an Image layer, if there is one."""
        layer = self._layers.get(name)
        if layer is None:
            return
        if raster is None:
            self.hide(name)
            return
        placement = self.source.placement()
        others = [axis for axis in range(self.source.ndim) if axis not in key.axes]
        turned = raster.values if key.axes[0] < key.axes[1] else raster.values.T
        scale = np.array(placement["scale"])
        scale[list(key.axes)] *= raster.step
        layer.data = np.expand_dims(turned, others)
        if not np.array_equal(scale, layer.scale):
            layer.scale = scale
        translate = physical(placement, to_space(key, [raster.origin])[0])
        if not np.array_equal(translate, layer.translate):
            layer.translate = translate
        if tuple(layer.contrast_limits) != limits:
            layer.contrast_limits_range = layer.contrast_limits = limits
        self._show(name)

    def _show(self, name: str) -> None:
        """Visible again, unless it was a person who hid it."""
        if name in self._hidden:
            self._hidden.discard(name)
            self._layers[name].visible = True

    def hide(self, name: str, *, keep: bool = True) -> None:
        """Hide a layer, if there is one, until something is shown on it.

        Whether a person hid it is remembered, unless ``keep`` is off.
        """
        layer = self._layers.get(name)
        if layer is not None and name not in self._hidden and (layer.visible or not keep):
            layer.visible = False
            if isinstance(layer, Image):  # sliders step by the finest layer, also by a hidden one
                placement = self.source.placement()
                layer.data = np.zeros((1,) * self.source.ndim, np.float32)
                layer.scale, layer.translate = placement["scale"], placement["translate"]
            self._hidden.add(name)

    def hide_all(self) -> None:
        """Hide all layers until something is shown on them."""
        for name in self._layers:
            self.hide(name)

    # ---- place

    def move(self) -> None:
        """Follow the image after its scale, place or rotation changed; pictures have to be shown anew."""
        for layer in self._layers.values():
            place(layer, self.source)

    def rescale(self, key: PlaneKey | None) -> None:
        """Keep lines as wide on the screen as they were after a change of zoom."""
        zoom = zoom_on(self.viewer, self.source, key)
        for name, width in ((CONTOUR, _CONTOUR_WIDTH), (MOTION, _ARROW_WIDTH)):
            if name in self._layers:
                self._layers[name].edge_width = width / zoom


def _lines(ndim: int, placement: dict[str, Any], color: str, **options: Any) -> Vectors:
    layer = Vectors(np.zeros((1, 2, ndim), np.float32), edge_color=color, opacity=1.0, **options, **placement)
    # Private, and harmless where napari has it no more: it draws vector by vector, three times as long as the rest.
    layer._update_thumbnail = lambda: None
    return layer


def _picture(ndim: int, placement: dict[str, Any], **options: Any) -> Image:
    data = np.zeros((1,) * ndim, np.float32)
    return Image(data, opacity=0.6, contrast_limits=(0, 1), interpolation2d="linear", **options, **placement)


def _contour_layer(ndim: int, placement: dict[str, Any]) -> Vectors:
    return _lines(ndim, placement, CONTOUR_COLOR, vector_style="line")


def _motion_layer(ndim: int, placement: dict[str, Any]) -> Vectors:
    return _lines(ndim, placement, MOTION_COLOR, vector_style="arrow", length=ARROW_TIME)


def _modulation_layer(ndim: int, placement: dict[str, Any]) -> Image:
    return _picture(ndim, placement, colormap="magma")


def _phi_layer(ndim: int, placement: dict[str, Any]) -> Image:
    return _picture(ndim, placement, colormap=_PHI_COLORS)


class _Kind(NamedTuple):
    make: Callable[[int, dict[str, Any]], Vectors | Image]
    below_labels: bool


_KINDS = {
    CONTOUR: _Kind(_contour_layer, below_labels=False),
    MOTION: _Kind(_motion_layer, below_labels=False),
    MODULATION: _Kind(_modulation_layer, below_labels=True),
    PHI: _Kind(_phi_layer, below_labels=True),
}
