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
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_STRIP = 2**22  # pixels of a large crop read at once


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
        if 0 in (self.data.shape[a] for a in named):
            raise ValueError(f"a plane must hold at least one pixel, got shape {tuple(self.data.shape)}")
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

    def is_same(self, other: Plane) -> bool:
        """Whether the other one is the same plane of the same array, with the same channels."""
        ours, theirs = ((one.axes, one.channel_axis, one.channels, one.index, one.rgb) for one in (self, other))
        return self.data is other.data and ours == theirs

    def window(self, y0: int, x0: int, y1: int, x1: int) -> npt.NDArray[Any]:
        """The pixels ``[y0, y1) x [x0, x1)`` inside the plane as (C, h, w), in the image's own dtype."""
        key: list[Any] = [0] * len(self.data.shape)
        key[self.axes[0]], key[self.axes[1]] = slice(y0, y1), slice(x0, x1)
        for axis, position in zip(self._rest, self.index, strict=True):
            key[axis] = position
        turned = self.axes[0] > self.axes[1]
        if self.channel_axis is None:
            block = np.asarray(self.data[tuple(key)])
            return (block.T if turned else block)[None]
        first, last = min(self.channels), max(self.channels)
        if last - first > 3:  # far apart: rather one read each than everything in between
            parts = []
            for channel in self.channels:
                key[self.channel_axis] = channel
                block = np.asarray(self.data[tuple(key)])
                parts.append(block.T if turned else block)
            return np.stack(parts)
        key[self.channel_axis] = slice(first, last + 1)
        kept = sorted((*self.axes, self.channel_axis))
        block = np.asarray(self.data[tuple(key)])
        order = [kept.index(a) for a in (self.channel_axis, *self.axes)]
        return block.transpose(order)[[c - first for c in self.channels]]

    def read(self, crop: Crop, reduce: int = 2) -> Float32Array:
        """The crop's pixels as finite float32, replicated beyond the border.

        A crop more than ``reduce`` times finer than the network's input is averaged over whole blocks while
        it is read strip by strip, so that memory does not grow with the crop.

        Parameters
        ----------
        crop : Crop
            What to read; may reach outside the plane, even wholly.
        reduce : int
            Resolution kept, as a multiple of ``crop.size``.

        Returns
        -------
        float32 array, shape (C, h, w)
            The whole crop, about ``crop.shape``, divided per axis by the largest integer factor that leaves
            ``reduce * crop.size`` of it. NaN and infinities take no part in averages, and where nothing else is they
            are replaced by the median.
        """
        fy, fx = (max(1, side // (reduce * crop.size)) for side in crop.shape)
        if fy == fx == 1:
            rows, columns = (
                np.clip(np.arange(start, stop), 0, side - 1)
                for start, stop, side in ((crop.y0, crop.y1, self.shape[0]), (crop.x0, crop.x1, self.shape[1]))
            )
            pixels = self.window(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
            values, bad = _float32(pixels)
            return _fill(values, bad)[:, rows - rows[0]][:, :, columns - columns[0]]
        return self.means(_edges(crop.y0, crop.y1, fy), _edges(crop.x0, crop.x1, fx))

    def means(self, y_edges: IntArray, x_edges: IntArray) -> Float32Array:
        """Means over blocks, read strip by strip.

        Parameters
        ----------
        y_edges, x_edges : int array, shapes (h + 1,) and (w + 1,)
            Ascending positions between which the blocks lie; beyond the plane its border goes on.

        Returns
        -------
        float32 array, shape (C, h, w)
            Of finite pixels only.
        """
        left, right = _span(x_edges, self.shape[1])
        along_x = _block_weights(x_edges, left, right)
        count = max(1, len(self.channels)) * (right - left) * int(np.diff(y_edges).max())
        together = max(1, _STRIP // count)  # rows of blocks read at once
        totals, weights = [], []
        for first in range(0, len(y_edges) - 1, together):
            edges = y_edges[first : first + together + 1]
            top, bottom = _span(edges, self.shape[0])
            along_y = _block_weights(edges, top, bottom)
            values, bad = _float32(self.window(top, left, bottom, right))
            totals.append(np.stack([along_y @ channel @ along_x.T for channel in values]))
            weight = np.multiply.outer(np.diff(edges), np.diff(x_edges))[None]
            if bad is not None:
                weight = weight - np.stack([along_y @ channel @ along_x.T for channel in bad.astype(np.float32)])
            weights.append(np.broadcast_to(weight, totals[-1].shape))
        total, weight = np.concatenate(totals, axis=1), np.concatenate(weights, axis=1)
        empty = weight < 0.5
        return _fill((total / np.where(empty, 1, weight)).astype(np.float32), empty if empty.any() else None)


def _edges(start: int, stop: int, factor: int) -> IntArray:
    """Edges of equal shares of a range, so that the ends still map onto the crop's edges."""
    count = round((stop - start) / factor)
    return start + np.linspace(0, stop - start, count + 1).round().astype(np.int64)


def _span(edges: IntArray, length: int) -> tuple[int, int]:
    """The part of an axis that blocks need; at least the pixel at the nearer end."""
    return min(max(int(edges[0]), 0), length - 1), max(min(int(edges[-1]), length), 1)


def _block_weights(edges: IntArray, start: int, stop: int) -> Any:
    """Sparse matrix (blocks, stop - start) of sums over blocks; positions beyond the ends repeat the end."""
    from scipy.sparse import csr_matrix

    inner = np.clip(edges, start, stop)
    blocks = np.arange(len(edges) - 1)
    rows = [np.repeat(blocks, np.diff(inner)), blocks, blocks]
    columns = [np.arange(inner[0], inner[-1]) - start, np.zeros_like(blocks), np.full_like(blocks, stop - start - 1)]
    repeated = [np.diff(np.minimum(edges, start)), np.diff(np.maximum(edges, stop))]
    counts = np.concatenate([np.ones(len(rows[0])), *repeated])
    return csr_matrix((counts, (np.concatenate(rows), np.concatenate(columns))), shape=(len(blocks), stop - start))


def _float32(block: npt.NDArray[Any]) -> tuple[Float32Array, BoolArray | None]:
    """A float32 copy with 0 for NaN and infinities, and where those are (None for nowhere)."""
    if block.dtype.kind not in "biuf":
        raise ValueError(f"an image must be bool, integer or real, got dtype {block.dtype}; convert it")
    if block.dtype.kind == "f" and block.dtype.itemsize > 4:
        block = np.clip(block, -3e38, 3e38)  # keeps NaN; what float32 cannot hold is as good as infinite
    result = block.astype(np.float32)
    if block.dtype.kind != "f":
        return result, None
    bad = ~(np.abs(result) <= 1e30)
    if not bad.any():
        return result, None
    result[bad] = 0
    return result, bad


def _fill(values: Float32Array, bad: BoolArray | None) -> Float32Array:
    """The values with the median of the good ones in the bad places (0 if none is good)."""
    if bad is not None:
        good = values[~bad]
        values[bad] = np.median(good) if good.size else 0.0
    return values
