"""Labelled planes that are read window by window, so that the size of a stack does not matter."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_delse.data.files import ImageFile, open_image, stem_of
from napari_delse.data.images import ArrayLike, Plane
from napari_delse.data.ome_zarr import is_zarr
from napari_delse.data.prompts import ObjectPrompt

IGNORE = 65535
_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
_STRIP = 2**22  # pixels looked at together

Box = tuple[int, int, int, int]


class ObjectFacts(NamedTuple):
    """What is known of a label in one plane."""

    area: int  # pixels
    box: Box  # (y0, x0, y1, x1), the last pixel included


@dataclass(frozen=True, eq=False)
class LabelledPlane:
    """One plane of an image and of its labels; nothing is read before it is asked for.

    Parameters
    ----------
    name : str
        Of its image.
    number : int
        Which plane of the image, 0 for the first.
    image, labels : Plane
        Pixels, and instance ids with 0 for background and 65535 for pixels to ignore.
    prompts : mapping of int to ObjectPrompt
        What was clicked and dragged, by label, where that was recorded.
    """

    name: str
    number: int
    image: Plane
    labels: Plane
    prompts: Mapping[int, ObjectPrompt] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.name!r}" + (f", plane {self.number}" if self.number else "")

    def ids(self, y0: int, x0: int, y1: int, x1: int) -> npt.NDArray[np.uint16]:
        """Instance ids of a window.

        Raises
        ------
        ValueError
            If one is not in 0..65535.
        """
        found = self.labels.window(y0, x0, y1, x1)[0]
        if found.size and found.dtype != np.uint16 and found.dtype != np.uint8:
            lowest, highest = int(found.min()), int(found.max())
            if lowest < 0 or highest > IGNORE:
                raise ValueError(
                    f"labels of {self.name!r} must lie in 0..{IGNORE}, got {lowest}..{highest}; relabel them"
                )
        ids: npt.NDArray[np.uint16] = found.astype(np.uint16, copy=False)
        return ids

    def strips(self) -> Iterator[tuple[int, int]]:
        """First and last row (exclusive) of parts of the plane that fit into memory."""
        height, width = self.labels.shape
        rows = max(1, _STRIP // max(1, width))
        for top in range(0, height, rows):
            yield top, min(height, top + rows)

    def objects(self) -> dict[int, ObjectFacts]:
        """Area and box of every label, without background and ignored pixels."""
        width = self.labels.shape[1]
        found: dict[int, ObjectFacts] = {}
        for top, bottom in self.strips():
            if not self.labels.window(top, 0, bottom, width).any():  # most of a stack is empty
                continue
            ids = self.ids(top, 0, bottom, width)
            areas = np.bincount(ids.ravel())
            for label, where in enumerate(ndimage.find_objects(ids.astype(np.int32)), start=1):
                if where is None or label == IGNORE:
                    continue
                rows, columns = where
                new = ObjectFacts(
                    int(areas[label]), (top + rows.start, columns.start, top + rows.stop - 1, columns.stop - 1)
                )
                found[label] = _joined(found[label], new) if label in found else new
        return dict(sorted(found.items()))

    def constant(self) -> float | None:
        """The value of all pixels of the image if they are equal, else None; stops at the first that differs."""
        width = self.image.shape[1]
        first: Any = None
        for top, bottom in self.strips():
            pixels = self.image.window(top, 0, bottom, width)
            first = pixels.flat[0] if first is None else first
            if not np.array_equal(pixels, np.full_like(pixels, first), equal_nan=pixels.dtype.kind == "f"):
                return None
        return float(first)


def _joined(one: ObjectFacts, other: ObjectFacts) -> ObjectFacts:
    (a0, b0, a1, b1), (c0, d0, c1, d1) = one.box, other.box
    return ObjectFacts(one.area + other.area, (min(a0, c0), min(b0, d0), max(a1, c1), max(b1, d1)))


def paired_planes(
    name: str,
    image: ArrayLike,
    labels: ArrayLike,
    *,
    axes: tuple[int, int] = (-2, -1),
    channel_axis: int | None = None,
    channels: tuple[int, ...] = (),
    rgb: bool = False,
) -> Iterator[LabelledPlane]:
    """The planes of an image and of its labels.

    Parameters
    ----------
    name : str
        Of the image.
    image, labels : array-like
        The labels have the image's axes without its channels; axes of length 1 may be there or not.
    axes : (int, int)
        Which axes of the labels are y and x.
    channel_axis, channels, rgb
        See `images.Plane`.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the labels are no integers.
    """
    check_labels(name, labels)
    ndim = len(image.shape)
    if channel_axis is not None:
        channel_axis %= ndim
    ours = [a for a in range(ndim) if a != channel_axis]
    if len(labels.shape) == ndim and channel_axis is not None and labels.shape[channel_axis] == 1:
        partner: list[int | None] | None = _partners_with_channel(image.shape, labels.shape, channel_axis)
    else:
        partner = _partners([image.shape[a] for a in ours], list(labels.shape))
    y, x = (axis % len(labels.shape) for axis in axes)
    if partner is not None and (y, x) == (len(partner) - 2, len(partner) - 1) and None in (partner[y], partner[x]):
        y, x = (a for a in range(len(partner)) if partner[a] in (len(ours) - 2, len(ours) - 1))  # channels come last
    if partner is None or partner[y] is None or partner[x] is None:
        raise ValueError(
            f"image {tuple(image.shape)} and labels {tuple(labels.shape)} of {name!r} must match in (Z, Y, X); "
            "re-export one of them"
        )
    to_image = [None if p is None else ours[p] for p in partner]
    others = [a for a in range(len(labels.shape)) if a not in (y, x)]
    drawn = (to_image[y], to_image[x])
    rest = [a for a in ours if a not in drawn]
    for number, index in enumerate(np.ndindex(*(labels.shape[a] for a in others))):
        place = {to_image[a]: i for a, i in zip(others, index, strict=True)}
        shown = Plane(
            image,
            axes=drawn,  # type: ignore[arg-type] # which were checked
            channel_axis=channel_axis,
            channels=channels,
            index=tuple(place.get(a, 0) for a in rest),
            rgb=rgb and not channels,
        )
        yield LabelledPlane(name, number, shown, Plane(labels, axes=(y, x), index=tuple(index)))


def _partners_with_channel(image: Sequence[int], labels: Sequence[int], axis: int) -> list[int | None] | None:
    """As `_partners`, for labels that have a length of 1 where the image has its channels."""
    others = [a for a in range(len(image)) if a != axis]
    if any(image[a] != labels[a] for a in others):
        return None
    return [None if a == axis else others.index(a) for a in range(len(image))]


def _partners(image: list[int], labels: list[int]) -> list[int | None] | None:
    """For each axis of the labels the axis of the image that it goes with; None if they do not fit."""
    if image == labels:
        return list(range(len(labels)))
    if len(image) < 2 or len(labels) < 2 or image[-2:] != labels[-2:]:
        return None
    long = [a for a, n in enumerate(image[:-2]) if n > 1]
    wanted = [a for a, n in enumerate(labels[:-2]) if n > 1]
    if [image[a] for a in long] != [labels[a] for a in wanted]:
        return None
    found: list[int | None] = [None] * len(labels)
    for ours, theirs in zip([*long, len(image) - 2, len(image) - 1], [*wanted, -2, -1], strict=True):
        found[theirs] = ours
    return found


def check_labels(name: str, labels: ArrayLike) -> None:
    """Refuse what cannot be instance ids.

    Raises
    ------
    ValueError
        If they are no integers, or look like a picture.
    """
    if np.dtype(labels.dtype).kind not in "iu":
        raise ValueError(f"labels of {name!r} must be integer instance ids, got {labels.dtype}; re-export them")
    if len(labels.shape) > 2 and labels.shape[-1] in (3, 4):
        raise ValueError(
            f"labels {tuple(labels.shape)} of {name!r} look like a colour picture; export one id per pixel"
        )


def image_files(folder: Path) -> dict[str, Path]:
    """The images of a folder by their stems."""
    found = (f for f in sorted(folder.iterdir()) if f.suffix.lower() in _SUFFIXES or is_zarr(f))
    return {stem_of(f): f for f in found if not f.name.startswith(".")}  # macOS leaves ._name.tif beside name.tif


def file_pairs(images: Path, labels: Path, names: Collection[str] | None = None) -> list[tuple[str, Path, Path]]:
    """Name, image and labels of two files, or of two folders with files of the same names.

    Raises
    ------
    FileNotFoundError
        If one of them does not exist, or no names match.
    ValueError
        If one is an image and the other a folder.
    """
    for path in (images, labels):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give a file or a folder")
    alone = [path.is_file() or is_zarr(path) for path in (images, labels)]
    if alone[0] != alone[1]:
        raise ValueError(f"{images} and {labels} must be two images or two folders of images")
    if alone[0]:
        return [(stem_of(images), images, labels)]
    pictures, truths = image_files(images), image_files(labels)
    shared = [stem for stem in pictures if stem in truths and (names is None or stem in names)]
    if not shared:
        raise FileNotFoundError(f"no file of {images} has a file of the same name in {labels}")
    return [(stem, pictures[stem], truths[stem]) for stem in shared]


def open_pair(
    name: str, image: Path, labels: Path, axes: str | None = None, channels: tuple[int, ...] = ()
) -> Iterator[LabelledPlane]:
    """The planes of two files; each must be read before the next one is asked for, because then files are closed."""
    with open_image(image, axes) as opened, open_image(labels, labels=True) as truth:
        shape, ids = opened.data.shape, truth.data.shape
        if axes is None and (shape == ids or (shape[:-1] == ids and shape[-1] in (3, 4))):
            # The same layout says more than what the file calls its axes.
            rgb = len(shape) > len(ids)
            yield from paired_planes(
                name,
                opened.data,
                truth.data,
                channel_axis=-1 if rgb else None,
                channels=channels if rgb else (),
                rgb=rgb,
            )
            return
        yield from _by_letters(name, opened, truth.data, channels)


def _by_letters(name: str, opened: ImageFile, labels: ArrayLike, channels: tuple[int, ...]) -> Iterator[LabelledPlane]:
    """Planes of an image whose channels stand anywhere."""
    first = opened.plane((0,) * len(opened.plane_counts), channels)
    y, x = first.axes
    kept = [a for a in range(len(opened.data.shape)) if a != first.channel_axis]
    behind = kept[-2:] != [y, x]
    if behind:
        raise ValueError(
            f"{opened.path} has its axes in the order {opened.axes}; Y and X must be the last besides channels, so "
            "export it again"
        )
    yield from paired_planes(
        name,
        opened.data,
        labels,
        channel_axis=first.channel_axis,
        channels=() if first.rgb else first.channels if first.channel_axis is not None else (),
        rgb=first.rgb,
    )
