"""What an image layer offers to be annotated: planes of pixels, and the space its labels live in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_delse.annotation.edits import PlaneKey
from napari_delse.data.images import Plane
from napari_delse.geometry import Point

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

_MOST_CHANNELS = 64  # a longer axis holds planes
_MOST_LAST = 10  # the same on the last two axes


@dataclass(frozen=True, eq=False)
class ImageSource:
    """An image layer as planes to segment, and the space its labels live in.

    Parameters
    ----------
    layer : Image
        Any image layer: 2D to nD, RGB, multiscale (then its full resolution is used).
    channel_axis : int or None
        The layer's axis that holds channels. The labels have no channels: the axis is left out where it is
        the first one, else it has length 1 there.
    channels : tuple of int
        One to three of them; empty for the first three.

    Raises
    ------
    ValueError
        If the layer has no such axis or channels.
    """

    layer: Image
    channel_axis: int | None = None
    channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.layer.ndim < 2:
            raise ValueError(f"'{self.layer.name}' has one axis only; choose an image with two or more")
        if self.channel_axis is None:
            return
        if self.layer.rgb or self.layer.ndim < 3 or not 0 <= self.channel_axis < self.layer.ndim:
            raise ValueError(f"'{self.layer.name}' has no channel axis {self.channel_axis}")
        count = self.data.shape[self.channel_axis]
        if len(self.channels) > 3 or any(not 0 <= c < count for c in self.channels):
            raise ValueError(f"choose one to three of the {count} channels 0 to {count - 1}, got {self.channels}")

    @property
    def data(self) -> Any:
        """The pixels at full resolution."""
        return self.layer.data[0] if self.layer.multiscale else self.layer.data

    @property
    def _dropped(self) -> int:
        """How many leading axes the labels lack."""
        return 1 if self.channel_axis == 0 else 0

    @property
    def ndim(self) -> int:
        """Axes of the labels."""
        return int(self.layer.ndim) - self._dropped

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the labels."""
        shape = list(self.data.shape[: self.layer.ndim])
        if self.channel_axis:
            shape[self.channel_axis] = 1
        return tuple(shape[self._dropped :])

    def plane(self, key: PlaneKey) -> Plane:
        """The plane of pixels that belongs to a plane of the labels.

        Raises
        ------
        ValueError
            If it cuts across the channels.
        """
        named = tuple(a + self._dropped for a in key.axes)
        if self.channel_axis in named:
            raise ValueError("the view cuts across the channels; show the two axes of the picture")
        others = [a for a in range(self.ndim) if a not in key.axes]
        index = tuple(i for a, i in zip(others, key.index, strict=True) if a + self._dropped != self.channel_axis)
        if self.layer.rgb:
            return Plane(self.data, axes=(named[0], named[1]), channel_axis=-1, index=index, rgb=True)
        return Plane(
            self.data, axes=(named[0], named[1]), channel_axis=self.channel_axis, channels=self.channels, index=index
        )

    def placement(self) -> dict[str, Any]:
        """Keyword arguments that put a layer of the labels' space where the image is."""
        layer, first = self.layer, self._dropped
        scale, translate = np.array(layer.scale, float), np.array(layer.translate, float)
        if self.channel_axis:  # one label plane spans all channels
            count, axis = self.data.shape[self.channel_axis], self.channel_axis
            translate[axis] += scale[axis] * (count - 1) / 2
            scale[axis] *= count
        placement: dict[str, Any] = {
            "scale": scale[first:],
            "translate": translate[first:],
            "rotate": np.asarray(layer.rotate)[first:, first:],
            "affine": np.asarray(layer.affine)[first:, first:],
        }
        placement["shear"] = _shear_without(np.asarray(layer.shear), int(layer.ndim), first)
        for name in ("units", "axis_labels"):
            if (values := getattr(layer, name, None)) is not None:
                placement[name] = tuple(values)[first:]
        return placement

    def shown_plane(self, viewer: ViewerModel, position: Sequence[float]) -> PlaneKey:
        """Which plane of the labels a position of their space lies in, as the viewer shows it now.

        Raises
        ------
        ValueError
            If the viewer shows a volume, a plane across other axes, or one outside the image.
        """
        if viewer.dims.ndisplay != 2:
            raise ValueError("objects are outlined in the 2D view; switch to it with Ctrl+Y")
        shown, own = getattr(viewer.dims, "units", None), self.placement().get("units")
        if shown and own and tuple(shown)[-self.ndim :] != tuple(own):
            raise ValueError(
                f"'{self.layer.name}' is measured in {_names(own)} but shown in {_names(shown)}, and napari misplaces "
                "clicks then; give all layers and axes the same units"
            )
        offset = viewer.dims.ndim - self.ndim
        axes = sorted(d - offset for d in viewer.dims.displayed)
        if axes[0] < 0:
            raise ValueError("the view shows an axis that this image does not have; roll the axes with Ctrl+E")
        key = PlaneKey((axes[0], axes[1]), self._index(position, axes))
        self.plane(key)  # refuses planes across the channels
        return key

    def _index(self, position: Sequence[float], axes: Sequence[int]) -> tuple[int, ...]:
        index = []
        for axis, size in enumerate(self.shape):
            if axis not in axes:
                place = int(np.round(position[axis]))  # halves to the even plane, as napari shows it
                if not 0 <= place < size:
                    raise ValueError(f"the view lies outside '{self.layer.name}' on axis {axis}; move the slider back")
                index.append(place)
        return tuple(index)


def _shear_without(shear: npt.NDArray[np.float64], ndim: int, first: int) -> npt.NDArray[np.float64]:
    """The shear of a layer without its first axes; a matrix, or what stands above its diagonal."""
    if shear.ndim == 2:
        return shear[first:, first:]
    whole = np.zeros((ndim, ndim))
    whole[np.triu_indices(ndim, 1)] = shear
    left = whole[first:, first:]
    return left[np.triu_indices(ndim - first, 1)]


def is_same_picture(one: Image, other: Image) -> bool:
    """Whether two layers are channels of one picture: from one file, parts of one array, or laid over each other."""
    paths = [getattr(layer.source, "path", None) for layer in (one, other)]
    if one is other or (paths[0] is not None and paths[0] == paths[1]):
        return True
    if str(one.blending) == str(other.blending) == "additive":  # as napari shows channels
        return True
    parts = [ImageSource(layer).data for layer in (one, other)]
    return all(isinstance(part, np.ndarray) for part in parts) and _base(parts[0]) is _base(parts[1])


def _base(array: npt.NDArray[Any]) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def channel_axes(layer: Image) -> list[tuple[str, int]]:
    """Axes of an image that may hold channels, with what to call them.

    The last two are mostly those of its planes, also of small ones: there a few channels only are taken for some.
    """
    if layer.rgb or layer.ndim < 3:
        return []
    data = layer.data[0] if layer.multiscale else layer.data
    names = getattr(layer, "axis_labels", None) or [""] * layer.ndim
    return [
        (f"{names[a] or a} ({length} channels)", a)
        for a, length in enumerate(data.shape)
        if length < (_MOST_CHANNELS if a < layer.ndim - 2 else _MOST_LAST)
    ]


def channel_axis_by_shape(source: ImageSource) -> dict[tuple[int, ...], int | None]:
    """For the shape of labels, along which axis of the image its channels were; the present axis where it may be it."""
    layer = source.layer
    axes = [] if layer.rgb or layer.ndim < 3 else list(range(layer.ndim))
    found = {ImageSource(layer, axis).shape: axis for axis in (*reversed(axes), None)}
    return found | {source.shape: source.channel_axis}


def channel_numbers(text: str) -> tuple[int, ...]:
    """Channels as a person writes them.

    Raises
    ------
    ValueError
        If they are no numbers.
    """
    try:
        return tuple(int(word) for word in text.replace(",", " ").split())
    except ValueError:
        raise ValueError("channels are numbers counted from 0, such as 0,2; correct them or leave them out") from None


def _names(units: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, units)))


def to_plane(key: PlaneKey, position: Sequence[float]) -> Point:
    """(y, x) in a plane of a position of the labels' space."""
    return float(position[key.axes[0]]), float(position[key.axes[1]])


def to_space(key: PlaneKey, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Positions of the labels' space of (y, x) points of a plane."""
    points = np.asarray(points, float).reshape(-1, 2)
    result = np.empty((len(points), len(key.index) + 2))
    result[:, [a for a in range(result.shape[1]) if a not in key.axes]] = key.index
    result[:, list(key.axes)] = points
    return result
