"""Where labelled objects come from: files, arrays such as a viewer's layers, and annotation journals.

A source gives `LabelledPlane` s one after the other. Each is to be read before the next one is asked for; nothing
of a stack stays in memory but what the reader keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from napari_delse.annotation.edits import ArrayLabels, PlaneKey
from napari_delse.annotation.journal import read
from napari_delse.annotation.records import Contents
from napari_delse.annotation.replay import rebuild
from napari_delse.annotation.session import AnnotationSession
from napari_delse.data.images import ArrayLike, Plane
from napari_delse.data.labelled_planes import LabelledPlane, file_pairs, open_pair, paired_planes
from napari_delse.data.prompts import ObjectPrompt
from napari_delse.data.samples import Sample


class Source(Protocol):
    """Labelled planes to learn from."""

    @property
    def name(self) -> str:
        """To show, and what a model is named after."""
        ...

    def about(self) -> dict[str, Any]:
        """Plain data that says where the planes come from."""
        ...

    def planes(self) -> Iterator[LabelledPlane]:
        """One plane after the other.

        Raises
        ------
        FileNotFoundError, ValueError
            If files are missing, or images and labels do not fit.
        """
        ...


@dataclass(frozen=True)
class FileSource:
    """Two files or OME-Zarr folders, or two folders with files of the same names.

    Parameters
    ----------
    images, labels : path
        Images, and instance ids.
    axes : str, optional
        Letters for the axes of the images, where files name them wrongly.
    channels : tuple of int
        One to three channels to look at; the first three by default.
    """

    images: Path | str
    labels: Path | str
    axes: str | None = None
    channels: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Stem of the images."""
        return Path(self.images).absolute().stem

    def about(self) -> dict[str, Any]:
        """Both paths."""
        return {
            "kind": "files",
            "images": str(Path(self.images).absolute()),
            "labels": str(Path(self.labels).absolute()),
            "axes": self.axes,
            "channels": list(self.channels),
        }

    def planes(self) -> Iterator[LabelledPlane]:
        """The planes of all pairs."""
        for name, image, labels in file_pairs(Path(self.images), Path(self.labels)):
            yield from open_pair(name, image, labels, self.axes, self.channels)


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An image and its labels in memory, or lazy: what has ``shape``, ``dtype`` and slicing.

    Parameters
    ----------
    image, labels : array-like
        The labels have the image's axes without its channels; axes of length 1 may be there or not.
    name : str
        Of the image.
    axes : (int, int)
        Which axes of the labels are y and x: the shown ones.
    channel_axis : int, optional
        Of the image.
    channels : tuple of int
        One to three channels to look at; the first three by default.
    rgb : bool
        Whether the channels are colours; then they are the last axis.
    """

    image: ArrayLike
    labels: ArrayLike
    name: str = "image"
    axes: tuple[int, int] = (-2, -1)
    channel_axis: int | None = None
    channels: tuple[int, ...] = ()
    rgb: bool = False

    def about(self) -> dict[str, Any]:
        """Name and shape."""
        return {
            "kind": "arrays",
            "name": self.name,
            "shape": list(self.image.shape),
            "dtype": str(self.image.dtype),
            "channel_axis": self.channel_axis,
            "channels": list(self.channels),
            "rgb": self.rgb,
        }

    def planes(self) -> Iterator[LabelledPlane]:
        """The planes."""
        yield from paired_planes(
            self.name,
            self.image,
            self.labels,
            axes=self.axes,
            channel_axis=-1 if self.rgb and self.channel_axis is None else self.channel_axis,
            channels=self.channels,
            rgb=self.rgb,
        )


@dataclass(frozen=True, eq=False)
class SampleSource:
    """Labelled planes that were read already.

    Parameters
    ----------
    samples : sequence of Sample
        The planes.
    name : str
        To show.
    """

    samples: Sequence[Sample]
    name: str = "samples"

    def about(self) -> dict[str, Any]:
        """Names of the images."""
        return {"kind": "samples", "images": list(dict.fromkeys(sample.name for sample in self.samples))}

    def planes(self) -> Iterator[LabelledPlane]:
        """The planes."""
        for name, number, image, labels in self.samples:
            yield LabelledPlane(name, number, image, Plane.of(labels))


@dataclass(frozen=True, eq=False)
class JournalSource:
    """The objects of an annotation journal, with the clicks and drags that made them.

    The labels are made anew from the journal, strokes of the brush included. Only planes with objects are given.

    Parameters
    ----------
    path : path
        The journal.
    image : array-like
        The annotated image.
    labels : array-like, optional
        Labels at the journal's beginning, if they were not all 0; a copy is made.
    channel_axis, channels, rgb
        As for `ArraySource`.
    """

    path: Path | str
    image: ArrayLike
    labels: ArrayLike | None = None
    channel_axis: int | None = None
    channels: tuple[int, ...] = ()
    rgb: bool = False

    @property
    def name(self) -> str:
        """Name of the annotated image."""
        return Path(read(self.path).header.image.name or Path(self.path).name.split(".")[0]).stem

    def about(self) -> dict[str, Any]:
        """The journal and its image."""
        header = read(self.path).header
        return {
            "kind": "journal",
            "journal": str(Path(self.path).absolute()),
            "image": header.image.path or header.image.name,
            "channel_axis": self.channel_axis,
            "channels": list(self.channels),
            "rgb": self.rgb,
        }

    def planes(self) -> Iterator[LabelledPlane]:
        """The planes that hold objects."""
        session = self._session(read(self.path))
        labels = session.store.data if isinstance(session.store, ArrayLabels) else None
        for number, (key, prompts) in enumerate(sorted(_by_plane(session).items(), key=lambda one: _order(one[0]))):
            turned = key.axes != (len(key.index), len(key.index) + 1)
            for plane in paired_planes(
                f"{self.name}, axes {key.axes[0]} and {key.axes[1]}" if turned else self.name,
                self.image,
                labels,  # type: ignore[arg-type] # an array: `rebuild` makes one
                axes=key.axes,
                channel_axis=-1 if self.rgb and self.channel_axis is None else self.channel_axis,
                channels=self.channels,
                rgb=self.rgb,
            ):
                if plane.labels.index == key.index:
                    yield replace(plane, number=number if len(key.index) != 1 else key.index[0], prompts=prompts)
                    break

    def _session(self, contents: Contents) -> AnnotationSession:
        labels = None if self.labels is None else np.array(self.labels[(slice(None),) * len(self.labels.shape)])
        try:
            return rebuild(contents, labels)
        except MemoryError as error:
            raise ValueError(
                f"the labels of {self.path} ({contents.header.shape}) do not fit into memory; "
                "export them and give image and labels as files"
            ) from error


def _by_plane(session: AnnotationSession) -> dict[PlaneKey, dict[int, ObjectPrompt]]:
    """Prompts of the objects by plane and label, merged and split ones without."""
    found: dict[PlaneKey, dict[int, ObjectPrompt]] = {}
    for label, made in session.objects.items():
        for piece in made.pieces:
            prompts = found.setdefault(piece.plane, {})
            if not piece.origins and not piece.draft.missing:
                prompts[label] = ObjectPrompt(label, piece.plane.index, piece.draft.prompt(), piece.draft.corrections)
    return found


def _order(key: PlaneKey) -> tuple[tuple[int, int], tuple[int, ...]]:
    return key.axes, key.index
