"""One two-dimensional plane of any array, read crop by crop.

Only the pixels of a crop are ever read, whatever the array is (numpy, memmap, dask, zarr), so the
size of the image does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from napari_delse.geometry import Crop

Float32Array = npt.NDArray[np.float32]


class ArrayLike(Protocol):
    """What an image must offer: a shape, a dtype and slicing."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane of an n-dimensional image.

    Parameters
    ----------
    data : array-like
        Any array with ``shape``, ``dtype`` and basic slicing; bool, integer or float.
    axes : (int, int)
        Which axes of ``data`` are y and x.
    channel_axis : int or None
        Axis of the colours or channels, if there is one.
    channels : tuple of int
        One to three channels to look at. Without it: the first three of RGB(A), else the first three.
    index : tuple of int
        Position on the remaining axes, in their order; 0 where missing.
    rgb : bool
        Whether the channels are colours of one picture: then they share one intensity range.

    Raises
    ------
    ValueError
        If an axis, channel or position does not exist in ``data``.
    """

    data: ArrayLike
    axes: tuple[int, int] = (-2, -1)
    channel_axis: int | None = None
    channels: tuple[int, ...] = ()
    index: tuple[int, ...] = ()
    rgb: bool = False
    _rest: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ndim = len(self.data.shape)
        if ndim < 2:
            raise ValueError(f"an image must have at least two axes, got shape {tuple(self.data.shape)}")
        named = [*self.axes, *(() if self.channel_axis is None else (self.channel_axis,))]
        if any(not -ndim <= axis < ndim for axis in named) or len({a % ndim for a in named}) != len(named):
            raise ValueError(f"axes {self.axes} and channel axis {self.channel_axis} do not fit {ndim} axes")
        axes = (self.axes[0] % ndim, self.axes[1] % ndim)
        rest = tuple(a for a in range(ndim) if a not in {n % ndim for n in named})
        index = tuple(int(i) for i in self.index) + (0,) * (len(rest) - len(self.index))
        if len(index) > len(rest) or any(not 0 <= i < self.data.shape[a] for i, a in zip(index, rest, strict=True)):
            raise ValueError(f"position {self.index} does not exist on the axes {rest} of shape {self.data.shape}")
        channels = tuple(self.channels)
        if self.channel_axis is not None:
            count = self.data.shape[self.channel_axis]
            channels = channels or tuple(range(min(3, count)))
            if len(channels) > 3 or any(not 0 <= c < count for c in channels):
                raise ValueError(f"choose one to three of the {count} channels 0..{count - 1}, got {channels}")
            object.__setattr__(self, "channel_axis", self.channel_axis % ndim)
        elif channels not in ((), (0,)):
            raise ValueError(f"the image has no channel axis, so channels {channels} cannot be chosen")
        for name, value in (("axes", axes), ("index", index), ("channels", channels), ("_rest", rest)):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, image: Plane | ArrayLike, channels: tuple[int, ...] = ()) -> Plane:
        """A plane from what a person hands over: (Y, X), or (Y, X, 3 or 4) as RGB(A).

        Raises
        ------
        ValueError
            For other shapes: name the axes with ``Plane(...)``.
        """
        if isinstance(image, Plane):
            return image
        if isinstance(image, (list, tuple)):
            image = cast(ArrayLike, np.asarray(image))
        if len(image.shape) == 2:
            return cls(image, channels=channels)
        if len(image.shape) == 3 and image.shape[-1] in (3, 4):
            return cls(image, axes=(0, 1), channel_axis=2, channels=channels, rgb=not channels)
        raise ValueError(
            f"image of shape {tuple(image.shape)} is neither (Y, X) nor RGB(A) (Y, X, 3 or 4); "
            "say which axes are y, x and channels with Plane(data, axes=..., channel_axis=..., index=...)"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.data.shape[self.axes[0]], self.data.shape[self.axes[1]]

    def window(self, y0: int, x0: int, y1: int, x1: int) -> npt.NDArray[Any]:
        """The pixels ``[y0, y1) x [x0, x1)`` inside the plane as (C, h, w), in the image's own dtype."""
        key: list[Any] = [0] * len(self.data.shape)
        key[self.axes[0]], key[self.axes[1]] = slice(y0, y1), slice(x0, x1)
        for axis, position in zip(self._rest, self.index, strict=True):
            key[axis] = position
        kept = sorted(self.axes)
        if self.channel_axis is not None:
            first, last = min(self.channels), max(self.channels)
            key[self.channel_axis] = slice(first, last + 1)
            kept = sorted((*kept, self.channel_axis))
        block = np.asarray(self.data[tuple(key)])
        if self.channel_axis is None:
            order = [kept.index(a) for a in self.axes]
            return block.transpose(order)[None]
        order = [kept.index(a) for a in (self.channel_axis, *self.axes)]
        return block.transpose(order)[[c - first for c in self.channels]]

    def read(self, crop: Crop, reduce: int = 2) -> Float32Array:
        """The crop's pixels as finite float32, replicated beyond the border.

        A crop more than ``reduce`` times finer than the network's input is averaged over whole blocks while
        it is read, so that memory stays bounded by the network's input and one strip of rows.

        Parameters
        ----------
        crop : Crop
            What to read; may reach outside the plane, even wholly.
        reduce : int
            Resolution kept, as a multiple of ``crop.size``.

        Returns
        -------
        float32 array, shape (C, h, w)
            The whole crop, about ``crop.shape``, divided by an integer factor per axis if it is larger than
            ``reduce * crop.size``. NaN and infinities are replaced by the median of the finite pixels.
        """
        (height, width), (plane_h, plane_w) = crop.shape, self.shape
        rows = np.clip(np.arange(crop.y0, crop.y1), 0, plane_h - 1)
        columns = np.clip(np.arange(crop.x0, crop.x1), 0, plane_w - 1)
        fy, fx = max(1, height // (reduce * crop.size)), max(1, width // (reduce * crop.size))
        left, right = int(columns[0]), int(columns[-1]) + 1
        if fy == fx == 1:
            strip = _finite_float32(self.window(int(rows[0]), left, int(rows[-1]) + 1, right))
            return strip[:, rows - rows[0]][:, :, columns - left]
        # Block means over equal shares of the crop, so that the ends still map onto the crop's edges.
        y_edges = np.linspace(0, height, round(height / fy) + 1).round().astype(int)
        x_edges = np.linspace(0, width, round(width / fx) + 1).round().astype(int)
        strips = []
        for low, high in zip(y_edges[:-1:16], [*y_edges[16::16], y_edges[-1]], strict=False):
            if high <= low:
                continue
            chosen = rows[low:high]
            block = _finite_float32(self.window(int(chosen[0]), left, int(chosen[-1]) + 1, right))
            block = block[:, chosen - chosen[0]][:, :, columns - left]
            starts = y_edges[(y_edges >= low) & (y_edges < high)] - low
            sums = np.add.reduceat(np.add.reduceat(block, starts, axis=1), x_edges[:-1], axis=2)
            counts = np.diff([*starts, high - low])[:, None] * np.diff(x_edges)[None]
            strips.append(sums / counts.astype(np.float32))
        return np.concatenate(strips, axis=1)


def _finite_float32(block: npt.NDArray[Any]) -> Float32Array:
    """A float32 copy in which NaN and infinities take the median of what is finite (0 if nothing is)."""
    if not (np.issubdtype(block.dtype, np.number) or block.dtype == bool) or np.iscomplexobj(block):
        raise ValueError(f"an image must be bool, integer or real, got dtype {block.dtype}")
    if block.dtype == np.float64:
        block = np.clip(block, -3e38, 3e38)  # keeps NaN; what float32 cannot hold is as good as infinite
    result = block.astype(np.float32)
    bad = ~np.isfinite(result) | (np.abs(result) > 1e30)
    if bad.any():
        good = result[~bad]
        result[bad] = np.median(good) if good.size else 0.0
    return result
