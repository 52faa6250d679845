"""Labels layers as a session writes to them, keeping napari's own undo in step."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import contextmanager, suppress
from itertools import product
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

from napari_delse.annotation.edits import PlaneKey
from napari_delse.geometry import BoolArray
from napari_delse.widgets._source import to_space

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.utils.events import EventEmitter

_WRITTEN = "delse_written"
SMALL = 4_000_000  # labels that are searched for the largest one at once
_AT_ONCE = 8_000_000  # labels that are read at once to find the largest
_MANY = 20_000  # pixels with values of their own, which are written past napari's undo: it takes them one by one
_LONG = 50  # writes of one step, such as undoing a run, from which on they are not for napari's undo either
_FEW = 10  # values that are written one by one, so that napari's undo knows them; each takes a millisecond or two


class LayerLabels:
    """A napari Labels layer as a `annotation.session.LabelStore`, keeping napari's own undo in step."""

    def __init__(self, layer: Labels) -> None:
        self._layer = ref(layer)  # else a session that is kept by its labels would keep them
        self.is_writing = False  # the layer's paint events are ours
        self._is_grouping = self._is_long = self._is_stale = False

    @property
    def layer(self) -> Labels:
        """The layer.

        Raises
        ------
        ValueError
            If it is gone.
        """
        if (layer := self._layer()) is None:
            raise ValueError("the labels layer was deleted; choose another one")
        return layer

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the labels."""
        return tuple(self.layer.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Integer type of the labels."""
        return np.dtype(self.layer.data.dtype)

    def read(self, plane: PlaneKey, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """A window of a plane."""
        return plane.flat(np.asarray(self.layer.data[plane.key(rows, columns)]))

    def write(
        self, plane: PlaneKey, rows: slice, columns: slice, where: BoolArray, values: int | npt.NDArray[Any]
    ) -> None:
        """Write to the chosen pixels of a window, as one step of napari's undo.

        Raises
        ------
        ValueError
            If the layer's array cannot be written.
        """
        if not where.any():
            return
        different = np.unique(values) if np.size(values) <= _MANY else np.empty(0)
        if self._is_long or not 0 < different.size <= _FEW:
            with self._told():
                self._write_past_undo(plane, plane.key(rows, columns), where, np.asarray(values))
            return
        with self._told(), self.layer.block_history(), _writable(self.layer):
            for number, value in enumerate(map(int, different), 1):
                chosen = where
                if different.size > 1:
                    chosen = where.copy()
                    chosen[where] = values == value
                is_last = number == different.size and not self._is_grouping
                self._paint(plane, rows, columns, chosen, value, refresh=is_last)

    def settle(self) -> None:
        """Have napari tell of a stroke whose button is still held down; it would go in with what is written now."""
        if not self.is_writing:
            with suppress(AttributeError):  # private: another version of napari may group strokes otherwise
                self.layer._commit_staged_history()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """While the layer's paint events are ours; what goes wrong is told as the layer's trouble."""
        self.is_writing = True
        try:
            yield
        except Exception as error:  # that of any array, disk or server
            raise ValueError(
                f"labels '{self.layer.name}' cannot be written ({str(error).rstrip('.')}); choose other labels "
                "or a new layer"
            ) from error
        finally:
            self.is_writing = False

    def _write_past_undo(
        self, plane: PlaneKey, key: tuple[slice, ...], where: BoolArray, values: npt.NDArray[Any]
    ) -> None:
        """Many values at once; the layer is drawn anew if it shows them."""
        layer = self.layer
        data: Any = layer.data
        if isinstance(data, np.ndarray):
            plane.flat(data[key])[where] = values
        else:
            block = np.array(data[key])
            plane.flat(block)[where] = values
            data[key] = block
        written_past_undo(layer)(key=key)
        with suppress(AttributeError):  # private: without it the layer is always drawn
            if layer._get_update_slices(key) is None:
                return
            if isinstance(data, np.ndarray) and np.may_share_memory(data, layer._slice.image.view):
                layer._accumulate_updated_slice(key)
                if not self._is_grouping:
                    layer._partial_labels_refresh()
                return
        self._is_stale = True
        if not self._is_grouping:
            self._draw()

    def _draw(self) -> None:
        """All that is shown, anew."""
        self._is_stale = False
        self.layer.refresh(thumbnail=False, extent=False)

    @contextmanager
    def together(self, count: int) -> Iterator[None]:
        """Write several times, and show it once; without napari's undo if it is too often for that."""
        self._is_grouping, self._is_long = True, count > _LONG
        try:
            yield
        finally:
            self._is_grouping = self._is_long = False
            if self._is_stale:
                self._draw()
            try:
                self.layer._partial_labels_refresh()
            except AttributeError:  # private: without it all of the labels go to the screen again
                self.layer.refresh()

    def _paint(
        self, plane: PlaneKey, rows: slice, columns: slice, where: BoolArray, value: int, *, refresh: bool
    ) -> None:
        """One value: by napari's fast painting, else by its public one, else past its undo."""
        key, layer = plane.key(rows, columns), self.layer
        turned = where if plane.axes[0] < plane.axes[1] else where.T
        try:
            layer._paint_region_with_mask(key, turned, value, sorted(plane.axes), refresh=refresh)
        except (AttributeError, TypeError):  # private: another version of napari may not have it
            ys, xs = np.nonzero(where)
            index = to_space(plane, np.stack([ys + rows.start, xs + columns.start], axis=1)).astype(np.intp)
            try:
                layer.data_setitem(tuple(index.T), value)
            except (TypeError, ValueError, NotImplementedError, IndexError):  # dask and the like
                block = np.array(layer.data[key])
                plane.flat(block)[where] = value
                layer.data[key] = block
                layer.refresh()


def written_past_undo(layer: Labels) -> EventEmitter:
    """Tells of what napari's paint event does not: with ``key``, slices of the array that were written."""
    if not hasattr(layer.events, _WRITTEN):
        layer.events.add(**{_WRITTEN: None})
    emitter: EventEmitter = getattr(layer.events, _WRITTEN)
    return emitter


@contextmanager
def _writable(layer: Labels) -> Iterator[None]:
    """`preserve_labels` is the brush's; what to protect here is the session's business."""
    if not layer.preserve_labels:
        yield
        return
    layer.preserve_labels = False
    try:
        yield
    finally:
        layer.preserve_labels = True


def is_quick(data: Any) -> bool:
    """Whether the largest label of an array is found at once, so that nobody has to wait for it."""
    return isinstance(data, np.ndarray) and data.size <= SMALL


def largest_label(data: Any, is_stopped: Callable[[], bool] = lambda: False) -> int:
    """The largest label of an array, read in pieces; whatever was found so far when it is stopped."""
    steps = _piece(data)
    largest = 0
    for corner in product(*(range(0, side, step) for side, step in zip(data.shape, steps, strict=True))):
        if is_stopped():
            break
        window = tuple(slice(start, start + step) for start, step in zip(corner, steps, strict=True))
        largest = max(largest, int(np.asarray(data[window]).max(initial=0)))
    return largest


def _piece(data: Any) -> list[int]:
    """Sides of a piece of an array that is read at once: whole chunks, but not much memory."""
    chunks = getattr(data, "chunks", None) or (1,) * len(data.shape)
    chunk = [max(1, side[0] if isinstance(side, tuple) else side) for side in chunks]  # dask names each one
    sides = [min(one, max(1, side)) for one, side in zip(chunk, data.shape, strict=True)]
    for axis in reversed(range(len(sides))):
        times = max(1, _AT_ONCE // math.prod(sides))
        sides[axis] = max(1, min(sides[axis] * times, data.shape[axis]))
    return sides
