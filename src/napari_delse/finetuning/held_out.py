"""Held-out objects: windows of their images at native resolution, which a model is scored on again and again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from napari_delse._writing import write_atomically
from napari_delse.annotator import simulated_prompt
from napari_delse.checkpoint import disk_errors
from napari_delse.confidence import features_of
from napari_delse.data.images import Plane
from napari_delse.data.labelled_planes import IGNORE, Box, LabelledPlane
from napari_delse.geometry import Crop, CropConfig, ExtremePoints, ObjectMask
from napari_delse.metrics import score_object
from napari_delse.predict import Predictor

JITTER = 0.02  # error of the simulated clicks, share of the box side
_LARGEST = 2048  # pixels along a window; larger ones are thinned out
_SHOWN = 6  # objects on the strip
_THUMB = 128  # pixels along a picture of the strip


@dataclass(frozen=True, eq=False)
class HeldOutObject:
    """One object with what surrounds it.

    Parameters
    ----------
    name : str
        Image, plane and label, to show.
    pixels : array, shape (C, h, w)
        Window of the image, in its own type or float32.
    rgb : bool
        Whether the channels are colours.
    truth : uint8 array, shape (h, w)
        1 on the object, 2 where the truth is unknown.
    prompt : ExtremePoints
        The clicks that it is scored with, always the same.
    """

    name: str
    pixels: npt.NDArray[Any]
    rgb: bool
    truth: npt.NDArray[np.uint8]
    prompt: ExtremePoints

    @property
    def image(self) -> Plane:
        """The window as a plane."""
        return Plane(self.pixels, axes=(1, 2), channel_axis=0, rgb=self.rgb)

    @property
    def mask(self) -> ObjectMask:
        """The true object."""
        return ObjectMask.from_plane(self.truth == 1)


class ScoredObjects(NamedTuple):
    """Scores of held-out objects, in the order of the objects."""

    iou: tuple[float, ...]
    f_2px: tuple[float, ...]

    @property
    def mean_iou(self) -> float:
        """Mean over the objects."""
        return float(np.mean(self.iou))

    @property
    def mean_f(self) -> float:
        """Mean boundary F within two pixels."""
        return float(np.mean(self.f_2px))

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        return {
            "objects": len(self.iou),
            "miou": self.mean_iou,
            "f_2px": self.mean_f,
            "iou": list(self.iou),
            "f": list(self.f_2px),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ScoredObjects:
        """Scores that `to_json` gave."""
        return cls(tuple(map(float, stored["iou"])), tuple(map(float, stored["f"])))


def around(plane: LabelledPlane, box: Box, config: CropConfig, slack: float = 0.1) -> tuple[int, int, int, int]:
    """The window (y0, x0, y1, x1) of a plane that holds every crop of about this box."""
    y0, x0, y1, x1 = box
    loose = slack * (y1 - y0 + 1) + 2, slack * (x1 - x0 + 1) + 2
    crop = Crop.around((y0 - loose[0], x0 - loose[1], y1 + loose[0], x1 + loose[1]), config)
    height, width = plane.image.shape
    return max(0, crop.y0), max(0, crop.x0), min(height, crop.y1), min(width, crop.x1)


def cut_out(plane: LabelledPlane, label: int, box: Box, crop: CropConfig, seed: Sequence[int]) -> HeldOutObject:
    """One object of a plane as a held-out object.

    Parameters
    ----------
    plane : LabelledPlane
        Where it lies; only its window is read.
    label : int
        Which one.
    box : (y0, x0, y1, x1)
        Where it is, the last pixel included.
    crop : CropConfig
        Of the model, for the size of the window.
    seed : sequence of int
        Of the errors of the simulated clicks.
    """
    y0, x0, y1, x1 = around(plane, box, crop)
    step = -(-max(y1 - y0, x1 - x0) // _LARGEST)
    ids = plane.ids(y0, x0, y1, x1)
    while step > 1 and not (ids[::step, ::step] == label).any():  # a thin object may lie between the rows that are left
        step -= 1
    ids = ids[::step, ::step]
    pixels = plane.image.window(y0, x0, y1, x1)[:, ::step, ::step]
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        pixels = pixels.astype(np.uint8 if pixels.dtype == bool else np.float32)
    truth = np.where(ids == label, 1, np.where(ids == IGNORE, 2, 0)).astype(np.uint8)
    prompt = simulated_prompt(ObjectMask.from_plane(truth == 1), np.random.default_rng(list(seed)), jitter=JITTER)
    name = f"{plane.name}/{plane.number}/{label}"
    return HeldOutObject(name, np.ascontiguousarray(pixels), plane.image.rgb, truth, prompt)


def write_held_out(path: Path, objects: Iterable[HeldOutObject]) -> None:
    """Write held-out objects as one safetensors file."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    about = []
    for number, one in enumerate(objects):
        tensors[f"{number}.pixels"], tensors[f"{number}.truth"] = one.pixels, one.truth
        about.append({"name": one.name, "rgb": one.rgb, "points": one.prompt.points})
    with disk_errors(path):
        write_atomically(path, lambda aside: save_file(tensors, aside, {"objects": json.dumps(about)}))


def read_held_out(path: Path) -> tuple[HeldOutObject, ...]:
    """What `write_held_out` wrote.

    Raises
    ------
    ValueError
        If the file is missing or damaged.
    """
    try:
        with safe_open(str(path), "np") as file:
            about = json.loads(file.metadata()["objects"])
            return tuple(
                HeldOutObject(
                    one["name"],
                    file.get_tensor(f"{number}.pixels"),
                    bool(one["rgb"]),
                    file.get_tensor(f"{number}.truth"),
                    ExtremePoints.from_clicks(one["points"]),
                )
                for number, one in enumerate(about)
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold the held-out objects ({error}); begin the training again") from error


class Seen(NamedTuple):
    """What a model makes of one object that is shown."""

    mask: ObjectMask
    crop: Crop


def evaluate(predictor: Predictor, objects: Sequence[HeldOutObject]) -> tuple[ScoredObjects, list[Seen]]:
    """IoU and boundary F within two pixels of all objects, and the masks of those that are shown."""
    ious, fs, seen = [], [], []
    shown = set(shown_objects(objects))
    for number, one in enumerate(objects):
        found = predictor.segment(one.image, one.prompt)
        void = one.truth == 2
        result = score_object(found.mask, one.mask, one.image.shape, void if void.any() else None)
        ious.append(float(result.iou))
        fs.append(float(result.boundary_f[1]))
        if number in shown:
            seen.append(Seen(found.mask, found.crop))
    return ScoredObjects(tuple(ious), tuple(fs)), seen


def features(predictor: Predictor, objects: Sequence[HeldOutObject], names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Features of what a model makes of the objects; nan where a mask is empty. See `confidence`.

    Returns
    -------
    float64 array, shape (number of objects, number of names)
    """
    rows = np.full((len(objects), len(names)), np.nan)
    for row, one in zip(rows, objects, strict=True):
        found = predictor.segment(one.image, one.prompt)
        if found.mask.area:
            values = features_of(found)
            row[:] = [values[name] for name in names]
    return rows


# ---------------------------------------------------------------- strip


@dataclass(frozen=True, eq=False)
class Strip:
    """Pictures of a few held-out objects.

    Parameters
    ----------
    names : tuple of str
        Of the objects.
    image : uint8 array, shape (N, 128, 128, 3)
        What the network sees.
    truth, before, now : bool array, shape (N, 128, 128)
        The object, what the parent makes of it, and what the model in training does.
    """

    names: tuple[str, ...]
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.bool_]
    before: npt.NDArray[np.bool_]
    now: npt.NDArray[np.bool_]


def shown_objects(objects: Sequence[HeldOutObject]) -> list[int]:
    """Positions of the few that are shown, spread over all."""
    return [int(i) for i in np.linspace(0, len(objects) - 1, min(_SHOWN, len(objects))).round()]


def strip_of(objects: Sequence[HeldOutObject], before: Sequence[Seen], now: Sequence[Seen]) -> Strip:
    """Pictures of the shown objects, in the crops of ``before``."""
    chosen = [objects[i] for i in shown_objects(objects)]
    image = np.stack([_picture(one, seen.crop) for one, seen in zip(chosen, before, strict=True)])
    truth, old, new = (
        np.stack([_seen(mask, seen.crop) for mask, seen in zip(masks, before, strict=True)])
        for masks in ([one.mask for one in chosen], [one.mask for one in before], [one.mask for one in now])
    )
    return Strip(tuple(one.name for one in chosen), image, truth, old, new)


def _picture(one: HeldOutObject, crop: Crop) -> npt.NDArray[np.uint8]:
    pixels = one.image.read(Crop(crop.y0, crop.x0, crop.y1, crop.x1, _THUMB))
    rows, columns = (((np.arange(_THUMB) + 0.5) / _THUMB * n).astype(int) for n in pixels.shape[1:])
    sampled = pixels[:, rows][:, :, columns]
    axes = (0, 1, 2) if one.rgb or len(sampled) == 1 else (1, 2)
    low, high = np.percentile(sampled, (0.5, 99.5), axis=axes, keepdims=True)
    grey = np.clip((sampled - low) / np.maximum(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    colours: npt.NDArray[np.uint8] = grey[[0, 0, 0] if len(grey) == 1 else [0, 1, 1] if len(grey) == 2 else [0, 1, 2]]
    return colours.transpose(1, 2, 0)


def _seen(mask: ObjectMask, crop: Crop) -> npt.NDArray[np.bool_]:
    """A mask on the pixels of a picture of a crop."""
    positions = np.stack(np.meshgrid(np.arange(_THUMB), np.arange(_THUMB), indexing="ij"), axis=-1)
    where = Crop(crop.y0, crop.x0, crop.y1, crop.x1, _THUMB).to_plane(positions).round().astype(int) - mask.origin
    height, width = mask.mask.shape
    y, x = where[..., 0], where[..., 1]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    result = np.zeros((_THUMB, _THUMB), dtype=bool)
    result[inside] = mask.mask[y[inside], x[inside]]
    return result


def write_strip(path: Path, strip: Strip) -> None:
    """Write a strip as one safetensors file."""
    tensors = {"image": strip.image} | {name: getattr(strip, name) for name in ("truth", "before", "now")}
    # safetensors writes memory as it lies, and stacked transposed pictures lie otherwise
    tensors = {name: np.ascontiguousarray(tensor, np.uint8) for name, tensor in tensors.items()}
    with disk_errors(path):
        write_atomically(path, lambda aside: save_file(tensors, aside, {"names": json.dumps(strip.names)}))


def read_strip(path: Path) -> Strip | None:
    """What `write_strip` wrote last; None if there is nothing, or a power cut damaged it."""
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), "np") as file:
            masks = [file.get_tensor(name).astype(bool) for name in ("truth", "before", "now")]
            return Strip(tuple(json.loads(file.metadata()["names"])), file.get_tensor("image"), *masks)
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None
