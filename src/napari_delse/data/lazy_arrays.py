"""Images in compressed pieces of which the last used ones are kept; several threads may read at once."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

_KEPT_PAGES = 2  # at least
_KEPT_BYTES = 1 << 26  # of decoded pages or chunks


class Pages:
    """A TIFF series of compressed pages, each decoded at once.

    Parameters
    ----------
    series : tifffile.TiffPageSeries
        Of an open file.
    page : tifffile.TiffPage
        What all its pages look like.
    """

    def __init__(self, series: Any, page: Any) -> None:
        self.shape: tuple[int, ...] = tuple(series.shape)
        self.dtype = series.dtype
        self._series, self._blank = series, tuple(page.shape)
        self._leading = self.shape[: len(self.shape) - page.ndim]
        self._most = max(_KEPT_PAGES, _KEPT_BYTES // max(1, page.nbytes))
        self._kept: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def _page(self, number: int) -> npt.NDArray[Any]:
        with self._lock:  # the file has one position to read at
            if number not in self._kept:
                page = self._series.pages[number]  # None for one that was never written
                self._kept[number] = np.zeros(self._blank, self.dtype) if page is None else page.asarray()
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return self._kept[number]

    def __getitem__(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Basic indexing with as many positions or slices as there are axes."""
        lead, rest = key[: len(self._leading)], key[len(self._leading) :]
        chosen = [range(n)[k] if isinstance(k, slice) else [k] for k, n in zip(lead, self._leading, strict=True)]
        blocks = []
        for place in np.ndindex(*(len(c) for c in chosen)):
            position = tuple(int(c[i]) for c, i in zip(chosen, place, strict=True))
            number = int(np.ravel_multi_index(position, self._leading)) if position else 0
            blocks.append(self._page(number)[rest])
        shape = [len(c) for c, k in zip(chosen, lead, strict=True) if isinstance(k, slice)]
        return np.stack(blocks).reshape(*shape, *blocks[0].shape)


class Mapped:
    """A file mapped into memory anew for each piece that is read.

    Pieces of a lasting map stay in the memory of the process, in the end the whole file.

    Parameters
    ----------
    array : numpy.memmap
        The pixels.
    """

    def __init__(self, array: np.memmap[Any, Any]) -> None:
        self.shape, self.dtype = array.shape, array.dtype
        self._options: dict[str, Any] = {"mode": "r", "offset": array.offset, "shape": array.shape}
        self._path = str(array.filename)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        return np.array(np.memmap(self._path, self.dtype, **self._options)[key])


class Chunks:
    """A Zarr array whose chunks are decoded once for all objects, and all planes, that lie in them.

    Parameters
    ----------
    array : zarr.Array
        The pixels.
    """

    def __init__(self, array: Any) -> None:
        self.shape: tuple[int, ...] = tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.chunks: tuple[int, ...] = tuple(int(n) for n in array.chunks)
        self._array = array
        self._most = max(1, _KEPT_BYTES // max(1, math.prod(self.chunks) * self.dtype.itemsize))
        self._kept: OrderedDict[tuple[int, ...], npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def _chunk(self, place: tuple[int, ...]) -> npt.NDArray[Any]:
        with self._lock:
            if place not in self._kept:
                window = tuple(
                    slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(place, self.chunks, self.shape, strict=True)
                )
                self._kept[place] = np.asarray(self._array[window])
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(place)
            return self._kept[place]

    def __getitem__(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Basic indexing with as many positions or slices of step 1 as there are axes."""
        spans = [range(n)[k] if isinstance(k, slice) else range(k, k + 1) for k, n in zip(key, self.shape, strict=True)]
        result = np.empty([len(span) for span in spans], self.dtype)
        touched = (
            range(s.start // c, (s.stop - 1) // c + 1 if s else 0) for s, c in zip(spans, self.chunks, strict=True)
        )
        for place in product(*touched):
            chunk = self._chunk(place)
            source, target = [], []
            for i, c, span in zip(place, self.chunks, spans, strict=True):
                low, high = max(span.start, i * c), min(span.stop, (i + 1) * c)
                source.append(slice(low - i * c, high - i * c))
                target.append(slice(low - span.start, high - span.start))
            result[tuple(target)] = chunk[tuple(source)]
        return result[tuple(slice(None) if isinstance(k, slice) else 0 for k in key)]
