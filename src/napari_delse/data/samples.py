"""Reading labelled images, and the one normalisation shared by training and prediction.

The layout is a folder with ``images/`` and ``labels/`` whose files share stems; labels are integer
instance ids with 0 for background and 65535 for pixels to ignore. Multi-page files are stacks, read
plane by plane.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_delse.data.images import ArrayLike, Plane
from napari_delse.data.labelled_planes import IGNORE as IGNORE
from napari_delse.data.labelled_planes import LabelledPlane, file_pairs, open_pair, paired_planes


class Sample(NamedTuple):
    """One labelled plane."""

    name: str  # stem of its file
    plane: int  # page of a stack, 0 otherwise
    image: Plane
    labels: npt.NDArray[np.uint16]  # (Y, X)


def read_folder(folder: Path | str, names: Collection[str] | None = None) -> Iterator[Sample]:
    """All labelled planes below ``folder/images`` and ``folder/labels``, in the order of their names.

    Parameters
    ----------
    folder : path
        Data set in the layout of this module.
    names : collection of str, optional
        Read only these stems.

    Yields
    ------
    Sample

    Raises
    ------
    FileNotFoundError
        If a folder is missing or empty.
    ValueError
        If the shapes of an image and its labels differ.
    """
    folder = Path(folder)
    for part in ("images", "labels"):
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"{folder} has no folder {part!r}; expected {folder}/images and {folder}/labels")
    yield from read_pairs(folder / "images", folder / "labels", names)


def read_pairs(images: Path | str, labels: Path | str, names: Collection[str] | None = None) -> Iterator[Sample]:
    """All labelled planes of two files, or of two folders with files of the same names.

    Parameters
    ----------
    images, labels : path
        Two image files or OME-Zarr folders, or two folders of them.
    names : collection of str, optional
        Read only these stems of two folders.

    Yields
    ------
    Sample

    Raises
    ------
    FileNotFoundError
        If one of them does not exist, or no names match.
    ValueError
        If one is an image and the other a folder, or the shapes of an image and its labels differ.
    """
    for name, image, truth in file_pairs(Path(images), Path(labels), None if names is None else set(names)):
        for plane in open_pair(name, image, truth):
            yield whole_plane(plane)


def whole_plane(plane: LabelledPlane) -> Sample:
    """A plane with all its pixels in memory."""
    height, width = plane.image.shape
    pixels = np.array(plane.image.window(0, 0, height, width))  # a copy: files are closed later
    rgb = plane.image.rgb
    held = cast(ArrayLike, pixels if plane.image.channel_axis is not None else pixels[0])
    axis = 0 if plane.image.channel_axis is not None else None
    image = Plane(held, axes=(-2, -1), channel_axis=axis, rgb=rgb)
    return Sample(plane.name, plane.number, image, np.array(plane.ids(0, 0, height, width)))


def split_planes(name: str, image: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Iterator[Sample]:
    """The planes of an image (..., Y, X) or (..., Y, X, 3 or 4) and its labels (..., Y, X).

    Raises
    ------
    ValueError
        If the shapes do not match or the labels are not ids in 0..65535.
    """
    colour = image.ndim == labels.ndim + 1 and image.shape[-1] in (3, 4)
    if labels.ndim < 2 or image.shape[: image.ndim - colour] != labels.shape:
        raise ValueError(
            f"image {image.shape} and labels {labels.shape} of {name!r} must match in (Z, Y, X); re-export one of them"
        )
    held = cast(ArrayLike, image), cast(ArrayLike, labels)
    for plane in paired_planes(name, *held, channel_axis=-1 if colour else None, rgb=colour):
        height, width = plane.labels.shape
        yield Sample(name, plane.number, plane.image, plane.ids(0, 0, height, width))


def check_images(samples: Iterable[Sample]) -> list[Sample]:
    """Labelled planes, none of which is blank.

    Raises
    ------
    ValueError
        If all pixels of an image that has labels are equal.
    """
    checked = list(samples)
    for sample in checked:
        pixels = sample.image.window(0, 0, *sample.image.shape)
        if np.array_equal(pixels, np.full_like(pixels, pixels.flat[0]), equal_nan=pixels.dtype.kind == "f"):
            where = f"{sample.name!r}" + (f", plane {sample.plane}," if sample.plane else "")
            raise ValueError(
                f"image {where} is {pixels.flat[0]} in every pixel, so nothing can be learned from its labels; "
                "export it again or leave it out"
            )
    return checked


def object_ids(labels: npt.NDArray[Any], min_area: int = 1) -> list[int]:
    """Ids of the objects with at least ``min_area`` pixels, without background and ignored pixels."""
    ids, areas = np.unique(labels, return_counts=True)
    return [int(i) for i, area in zip(ids, areas, strict=True) if i not in (0, IGNORE) and area >= min_area]


def group_of(name: str, pattern: str | None = None) -> str:
    """Which subject, field or series an image belongs to: the groups of a pattern's match, else its name."""
    match = re.search(pattern, name) if pattern else None
    return "/".join(match.groups()) if match and match.groups() else (match.group() if match else name)


def validation_groups(dataset: str, groups: Iterable[str], fraction: float) -> set[str]:
    """Which groups of images are held out: at least one and never all, ranked by a hash of their names.

    Parameters
    ----------
    dataset : str
        Name of the set, part of the hash.
    groups : iterable of str
        Groups of the set; of a single one nothing is held out.
    fraction : float
        Share of the groups to hold out.
    """
    ranked = sorted(set(groups), key=lambda group: hashlib.sha256(f"{dataset}/{group}".encode()).digest())
    count = min(max(1, round(fraction * len(ranked))), len(ranked) - 1)
    return set(ranked[:count])


def to_input(pixels: npt.NDArray[np.float32], size: int, *, rgb: bool = False) -> Tensor:
    """A crop's pixels as the network sees them.

    Parameters
    ----------
    pixels : float32 array, shape (C, h, w)
        What `Plane.read` returned; C is 1, 2 or 3.
    size : int
        Side of the network input.
    rgb : bool
        Colours keep their balance; otherwise each channel is normalised by itself.

    Returns
    -------
    float32 Tensor, shape (3, size, size)
        Resized (with antialiasing) and normalised. One channel is repeated; of two, the second also serves as
        the third.
    """
    joint = rgb or pixels.shape[0] == 1
    tensor = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    # Offset first: what 16-bit cameras add would cost float32 digits in the resampling.
    typical = tensor[..., ::5, ::5].flatten(2).median(dim=2).values[..., None, None]
    tensor = tensor - (typical[:, :1] if joint else typical)
    if tensor[0, 0].numel() <= 64 * 64:
        # Enlarging spreads a hot pixel over more of a small crop than the percentiles of `normalise` forgive.
        ranked = tensor.flatten(2).sort(dim=2).values
        extreme = min(1 + ranked.shape[2] // 100, (ranked.shape[2] - 1) // 2)
        tensor = tensor.clamp(ranked[..., extreme, None, None], ranked[..., -1 - extreme, None, None])
    if tensor.shape[-2:] != (size, size):
        tensor = F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    tensor = tensor[:, [0, 0, 0] if tensor.shape[1] == 1 else [0, 1, 1] if tensor.shape[1] == 2 else [0, 1, 2]]
    return normalise(tensor, joint=torch.tensor([joint]))[0]


def normalise(images: Tensor, joint: Tensor, low: float = 0.01, high: float = 0.99) -> Tensor:
    """Map each crop's percentiles to -1 and 1: robust to hot pixels, offsets and constant crops.

    Parameters
    ----------
    images : Tensor, shape (B, 3, H, W)
        Any finite intensities.
    joint : bool Tensor, shape (B,)
        Whether the three channels of a crop share one range (colours).
    low, high : float
        Percentiles as fractions.

    Returns
    -------
    float32 Tensor, shape (B, 3, H, W)
        In [-1.5, 1.5]; 0 where a crop (or channel) is constant.
    """
    step = max(1, images.shape[-1] // 64)  # 64 x 64 pixels tell a percentile well enough
    sample = images[..., step // 2 :: step, step // 2 :: step].flatten(2).sort(dim=2).values
    count = sample.shape[2]
    bottom = sample[..., round(low * (count - 1))]
    top = sample[..., round(high * (count - 1))]
    shared = joint[:, None].to(images.device)
    bottom = torch.where(shared, bottom.amin(dim=1, keepdim=True), bottom)[..., None, None]
    top = torch.where(shared, top.amax(dim=1, keepdim=True), top)[..., None, None]
    span = top - bottom
    # A step smaller than what float32 resolves at this offset is noise of the arithmetic, not a signal.
    flat = span <= 1e-6 * torch.maximum(top.abs(), bottom.abs()) + 1e-30
    scaled = (images - bottom) / torch.where(flat, torch.ones_like(span), span) * 2 - 1
    return torch.where(flat, torch.zeros_like(scaled), scaled).clamp(-1.5, 1.5)
