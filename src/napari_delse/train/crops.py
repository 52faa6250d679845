"""Training crops: objects packed once, then cropped and augmented as batches of tensors.

An object is packed with generous context onto a square canvas that keeps its proportions. A batch is
then one gather, one resampling and a few tensor operations on whatever device trains, with no loop
over objects in Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from napari_delse.data.images import Plane
from napari_delse.data.prompts import ObjectPrompt
from napari_delse.data.samples import IGNORE, Sample, normalise, object_ids
from napari_delse.geometry import Crop, CropConfig
from napari_delse.levelset import boundary_directions, signed_distance
from napari_delse.model import ModelConfig, click_map
from napari_delse.settings import check_ranges
from napari_delse.train.crop_records import box_of, records, turned, with_recorded

_HULL = 64  # hull vertices kept per object
CONTEXT = 0.6  # of the box's sides, on a canvas around it
REACH = 8.0  # plane pixels on a canvas around it at least, where the model asks for no more; see `reach_of`


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training crops vary. Probabilities are per object."""

    rotate: float = 0.6  # probability of a free rotation; otherwise quarter turns
    scale: float = 0.2  # log range of the anisotropic stretching
    jitter: float = 0.025  # usual error of a click, as a fraction of the box side
    coarse_jitter: float = 0.2  # probability of clicks that are twice as wrong
    margin: float = 0.3  # log range of the crop margin
    intensity: float = 0.8  # probability of gamma, gain and illumination changes
    invert: float = 0.15  # probability of inverted contrast
    noise: float = 0.35  # probability of added noise
    blur: float = 0.25  # probability of blur
    grey: float = 0.15  # probability that colours are lost
    extra_clicks: float = 0.25  # probability of one to three further boundary clicks
    box_only: float = 0.08  # probability of a prompt without clicks (DELSE*)
    recorded: float = 0.5  # probability of a person's recorded clicks and drags, of objects that have them

    def __post_init__(self) -> None:
        probabilities = "rotate coarse_jitter intensity invert noise blur grey extra_clicks box_only recorded"
        check_ranges(self, shares=probabilities.split(), not_negative=("scale", "jitter", "margin"))


def reach_of(crop: CropConfig) -> float:
    """Plane pixels to keep around objects that a model with these crops is trained on."""
    return max(REACH, crop.min_margin)


class ObjectPack(NamedTuple):
    """Objects on canvases, ready to be cropped.

    Parameters
    ----------
    pixels : uint8 Tensor, shape (N, 5, S, S)
        RGB, the object and the ignored pixels (0..255).
    hull : float32 Tensor, shape (N, 64, 2)
        Convex hull of the object's pixel centres, (y, x) in canvas pixels; short hulls repeat a vertex.
    zoom : float32 Tensor, shape (N,)
        Canvas pixels per plane pixel.
    colour : bool Tensor, shape (N,)
        Whether the image is RGB.
    group : int64 Tensor, shape (N,)
        Which data set the object comes from.
    prompt : float32 Tensor, shape (N, 8, 2)
        Recorded clicks, (y, x) in canvas pixels; infinity where there are no more.
    boxed : bool Tensor, shape (N,)
        Whether these are the corners of a box.
    drags : float32 Tensor, shape (N, 3, 2, 2)
        Recorded drags in their order, from the first to the second point; infinity where there are no more.
    """

    pixels: Tensor
    hull: Tensor
    zoom: Tensor
    colour: Tensor
    group: Tensor
    prompt: Tensor
    boxed: Tensor
    drags: Tensor

    def select(self, indices: Tensor) -> ObjectPack:
        """The objects at the given positions."""
        return ObjectPack(*(part[indices.to(part.device)] for part in self))


class CropBatch(NamedTuple):
    """What the network and the losses need, (B, C, H, W) in network pixels."""

    image: Tensor  # normalised, 3 channels
    clicks: Tensor  # Gaussians at the clicks
    points: Tensor  # (B, N, 2) clicks
    present: Tensor  # (B, N) which of them are shown
    mask: Tensor  # truth, 0 or 1
    weight: Tensor  # 0 on ignored pixels
    distance: Tensor  # truncated signed distance of the truth
    pixel: Tensor  # (B, 2) sides of a pixel of the image, y and x, before the crop was turned and stretched
    drags: Tensor  # (B, 3, 2, 2) recorded drags, start and end; infinity where there is none to use

    @property
    def directions(self) -> Tensor:
        """U_gt, unit vectors to the true boundary."""
        return boundary_directions(self.distance)


def pack_object(
    sample: Sample, label: int, canvas: int, context: float = CONTEXT, reach: float = REACH
) -> tuple[npt.NDArray[np.uint8], ...]:
    """One object's canvas (5, S, S), hull (64, 2) and zoom.

    The canvas shows ``context`` times the box's sides, and at least ``reach`` plane pixels, around the box.
    """
    mask = sample.labels == label
    box = _box(mask)
    crop = _canvas_crop(box, canvas, context, reach)
    side = crop.shape[0]
    pixels = sample.image.read(crop)
    # As in `to_input`, colours share one range and channels do not.
    low, high = np.percentile(
        pixels[:, ::2, ::2], (0.2, 99.8), axis=(0, 1, 2) if sample.image.rgb else (1, 2), keepdims=True
    )
    flat = high - low <= 1e-6 * np.maximum(abs(low), abs(high)) + 1e-30  # as in `normalise`, whatever the unit
    scaled = np.where(flat, 0, (pixels - low) * (255 / np.where(flat, 1, high - low)))
    scaled = np.clip(scaled, 0, 255).astype(np.float32)[[[0, 0, 0], [0, 1, 1], [0, 1, 2]][len(pixels) - 1]]
    truth = np.stack([mask, sample.labels == IGNORE]).astype(np.uint8)
    layers = Plane(truth, axes=(1, 2), channel_axis=0).read(crop) * 255.0
    if crop.y0 < 0 or crop.x0 < 0 or crop.y1 > mask.shape[0] or crop.x1 > mask.shape[1]:
        layers[0] *= _inside(crop, mask.shape, layers.shape[1:])  # beyond the border there is no object
    stacked = [
        F.interpolate(torch.from_numpy(part)[None], (canvas, canvas), mode="bilinear", antialias=True)[0]
        for part in (scaled, np.ascontiguousarray(layers))
    ]
    hull = crop.to_network(_hull_points(mask, box))
    result = torch.cat(stacked).round().clamp(0, 255).to(torch.uint8).numpy()
    return result, hull.astype(np.float32), np.float32(canvas / side)  # type: ignore[return-value]


def _box(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(rows[0]), float(columns[0]), float(rows[-1]), float(columns[-1])


def _canvas_crop(box: tuple[float, float, float, float], canvas: int, context: float, reach: float) -> Crop:
    """The square part of the plane that a canvas shows."""
    crop = Crop.around(box, CropConfig(size=canvas, margin=context, min_margin=reach, squareness=1))
    side = max(crop.shape)
    return replace(crop, y1=crop.y0 + side, x1=crop.x0 + side)


def _inside(crop: Crop, shape: tuple[int, ...], size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    rows = crop.y0 + (np.arange(size[0]) + 0.5) * crop.shape[0] / size[0]
    columns = crop.x0 + (np.arange(size[1]) + 0.5) * crop.shape[1] / size[1]
    inside = ((rows >= 0) & (rows < shape[0]))[:, None] & ((columns >= 0) & (columns < shape[1]))[None]
    return inside.astype(np.float32)


def _hull_points(mask: npt.NDArray[np.bool_], box: tuple[float, float, float, float]) -> npt.NDArray[np.float64]:
    y0, x0 = int(box[0]), int(box[1])
    window = mask[y0 : int(box[2]) + 1, x0 : int(box[3]) + 1]
    ends = [(y, x) for y, row in enumerate(window) if row.any() for x in np.flatnonzero(row)[[0, -1]]]
    points = np.unique(np.asarray(ends, dtype=np.float64), axis=0)
    if len(points) > 3:
        try:
            points = points[ConvexHull(points).vertices]
        except QhullError:  # all on one line
            points = points[[0, -1]]
    if len(points) > _HULL:
        points = points[np.linspace(0, len(points) - 1, _HULL).round().astype(int)]
    padded = np.concatenate([points, np.repeat(points[-1:], _HULL - len(points), axis=0)])
    padded += (y0, x0)
    return padded


def pack_objects(
    samples: Iterable[Sample],
    group: int,
    canvas: int = 256,
    limit: int | None = None,
    seed: int = 0,
    min_area: int = 12,
    reach: float = REACH,
    recorded: Mapping[tuple[str, int, int], ObjectPrompt] | None = None,
) -> Iterator[ObjectPack]:
    """Pack the objects of many planes, yielding one plane's at a time.

    Parameters
    ----------
    samples : iterable of Sample
        Labelled planes.
    group : int
        Number of the data set, for balanced sampling.
    canvas : int
        Side of a canvas.
    limit : int, optional
        Keep at most about this many objects, chosen at random within each plane.
    seed : int
        Of that choice.
    min_area : int
        Smaller objects are left out.
    reach : float
        Plane pixels kept around each object at least: as many as the model's ``crop.min_margin``.
    recorded : mapping of (name, plane, label) to ObjectPrompt, optional
        What a person clicked and dragged for some of the objects, in pixels of the plane. Training then uses it in
        place of simulated clicks and drags, as often as ``AugmentConfig.recorded`` says.
    """
    rng = np.random.default_rng(seed)
    found: Iterable[tuple[Sample, list[int]]] = ((sample, object_ids(sample.labels, min_area)) for sample in samples)
    keep = 1.0
    if limit is not None:  # without it the planes need not be in memory together
        found = list(found)
        total = sum(len(ids) for _, ids in found)
        keep = min(1.0, limit / total) if total else 1.0
    for sample, ids in found:
        chosen = [i for i in ids if rng.random() < keep]
        if chosen:
            parts = [pack_object(sample, i, canvas, CONTEXT, reach) for i in chosen]
            pixels, hulls, zooms = (torch.from_numpy(np.stack(column)) for column in zip(*parts, strict=True))
            known = [(recorded or {}).get((sample.name, sample.plane, i)) for i in chosen]
            crops = [_canvas_crop(_box(sample.labels == i), canvas, CONTEXT, reach) for i in chosen]
            yield ObjectPack(
                pixels,
                hulls,
                zooms,
                colour=torch.full((len(chosen),), sample.image.rgb),
                group=torch.full((len(chosen),), group),
                **records(list(zip(known, crops, strict=True))),
            )


def join_packs(packs: Iterable[ObjectPack]) -> ObjectPack:
    """One pack from many; ValueError if there are none."""
    packs = list(packs)
    if not packs:
        raise ValueError("no object to train on: label at least one object of 12 pixels or more")
    return ObjectPack(*(torch.cat(parts) for parts in zip(*packs, strict=True)))


class CropSampler:
    """Batches of crops from packed objects.

    Parameters
    ----------
    model : ModelConfig
        Input size, margins, click width and truncation.
    augment : AugmentConfig or None
        None crops exactly, with true extreme points and no changes.
    """

    def __init__(self, model: ModelConfig, augment: AugmentConfig | None) -> None:
        self.model = model
        self.augment = augment

    def __call__(self, pack: ObjectPack, generator: torch.Generator | None = None) -> CropBatch:
        """Crop every object of a pack; random numbers come from the generator."""
        size, device = self.model.crop.size, pack.pixels.device
        canvas = pack.pixels.shape[-1]
        rand = _Random(generator, device)
        recorded = self._recorded(pack, rand)
        spread = self._spread(recorded, rand)
        centre = (canvas - 1) / 2
        hull = torch.einsum("bij,bnj->bni", spread, pack.hull - centre)  # spread plane, origin at the centre
        points = self._extreme_points(hull, rand)
        said = turned(pack.prompt, spread, centre, recorded)  # infinity where the clicks are simulated
        low, high = self._window(*box_of(points, said), pack.zoom, rand)
        cell = (high - low) / size
        axis = (torch.arange(size, device=device) + 0.5)[None, :, None]
        where = low[:, None] + axis * cell[:, None]  # (B, size, 2) positions along y and x
        inverse = torch.linalg.inv(spread)
        # An affine map of a grid is the sum of what it makes of the rows and of the columns.
        by_row = where[..., :1] * inverse[:, None, :, 0]
        by_column = where[..., 1:] * inverse[:, None, :, 1]
        back = by_row[:, :, None] + by_column[:, None]  # (B, size, size, 2)
        # grid_sample wants (x, y) with the canvas' edges at -1 and 1
        sampled = F.grid_sample(
            pack.pixels.float(), back.flip(-1) * (2 / canvas), padding_mode="border", align_corners=False
        )
        mask = (sampled[:, 3:4] > 127.5).float()
        weight = (sampled[:, 4:] < 127.5).float()
        inside = (back.abs() <= canvas / 2).all(dim=-1)[:, None]
        mask = mask * inside
        image = self._photometric(sampled[:, :3], pack.colour, rand)
        image = normalise(image, joint=pack.colour)
        clicks = (points - low[:, None]) / cell[:, None] - 0.5
        clicks, present = self._choose_clicks(clicks, mask, rand)
        clicks, present = with_recorded(clicks, present, (said - low[:, None]) / cell[:, None] - 0.5, pack.boxed)
        drags = turned(pack.drags.flatten(1, 2), spread, centre, recorded)
        drags = ((drags - low[:, None]) / cell[:, None] - 0.5).view_as(pack.drags)
        return CropBatch(
            image,
            click_map(clicks, present, size, self.model.click_sigma * size),
            clicks,
            present,
            mask,
            weight,
            signed_distance(mask, self.model.truncation_pixels(size)),
            pack.zoom[:, None] / cell,
            drags,
        )

    def _recorded(self, pack: ObjectPack, rand: _Random) -> Tensor:
        """Of which objects the recorded clicks and drags are used, (B,)."""
        known = pack.prompt[:, 0, 0].isfinite()
        if self.augment is None or not known.any():  # no random number is spent on packs without records
            return torch.zeros_like(known)
        return known & rand.chance(self.augment.recorded, len(known))

    def _spread(self, recorded: Tensor, rand: _Random) -> Tensor:
        """Random rotation, flip and stretching as (B, 2, 2) matrices.

        Recorded clicks are turned by quarters only: turned freely they would be extreme points no more.
        """
        count = len(recorded)
        if self.augment is None:
            return torch.eye(2, device=rand.device).expand(count, 2, 2)
        quarter = rand.integers(4, count) * (torch.pi / 2)
        free = rand.chance(self.augment.rotate, count) & ~recorded
        angle = torch.where(free, rand.uniform(0, 2 * torch.pi, count), quarter)
        rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).view(-1, 2, 2)
        stretch = rand.uniform(-self.augment.scale, self.augment.scale, count, 2).exp()
        flip = torch.where(rand.chance(0.5, count), -1.0, 1.0)
        return rotation * torch.stack([stretch[:, 0], stretch[:, 1] * flip], dim=-1)[:, None]

    def _extreme_points(self, hull: Tensor, rand: _Random) -> Tensor:
        """Where a person would click the top, left, bottom and right, (B, 4, 2)."""
        points = []
        extent = (hull.amax(dim=1) - hull.amin(dim=1)).clamp_min(1e-3)
        for axis, sign in ((0, -1), (1, -1), (0, 1), (1, 1)):
            along = hull[..., axis] * sign
            gap = along.amax(dim=1, keepdim=True) - along
            # A flat side offers many equal points: take any mixture of those nearly extreme.
            near = (gap <= 0.01 * extent[:, axis, None] + 1e-4).float()
            if self.augment is not None:
                near = near * rand.uniform(0.01, 1, *near.shape).log().neg()
            points.append((hull * near[..., None]).sum(dim=1) / near.sum(dim=1)[:, None])
        result = torch.stack(points, dim=1)
        if self.augment is not None:
            count = len(hull)
            error = torch.where(rand.chance(self.augment.coarse_jitter, count), 2.0, 1.0) * self.augment.jitter
            error = error * rand.uniform(0, 1, count)
            result = result + rand.uniform(-1, 1, *result.shape) * 2 * error[:, None, None] * extent[:, None]
        return result

    def _window(self, low: Tensor, high: Tensor, zoom: Tensor, rand: _Random) -> tuple[Tensor, Tensor]:
        """`Crop.around` for a batch, with a varied margin: lower and upper edge, (B, 2) each."""
        crop = self.model.crop
        pixel = zoom[:, None]
        low, high = low - pixel / 2, high + pixel / 2
        extent = high - low
        margin = extent.new_full((len(zoom), 1), crop.margin)
        if self.augment is not None:
            margin = margin * rand.uniform(-self.augment.margin, self.augment.margin, len(zoom), 1).exp()
        grow = torch.maximum(margin * extent, crop.min_margin * pixel)
        low, high = low - grow, high + grow
        side = high - low
        missing = (crop.squareness * side.amax(dim=1, keepdim=True) - side).clamp_min(0)
        return low - missing / 2, high + missing / 2

    def _choose_clicks(self, clicks: Tensor, mask: Tensor, rand: _Random) -> tuple[Tensor, Tensor]:
        """Add boundary clicks to some objects and hide all clicks of others."""
        count = len(clicks)
        present = torch.ones(count, 4, dtype=torch.bool, device=rand.device)
        if self.augment is None:
            return clicks, present
        shown = ~rand.chance(self.augment.box_only, count)
        eroded = -F.max_pool2d(-F.pad(mask, (1, 1, 1, 1)), 3, 1)
        score = rand.uniform(0, 1, *mask.shape) * (mask - eroded)
        best, where = score.flatten(1).topk(3, dim=1)
        size = mask.shape[-1]
        extra = torch.stack([where // size, where % size], dim=-1).to(clicks)
        wanted = rand.chance(self.augment.extra_clicks, count) * (1 + rand.integers(3, count))
        offered = (torch.arange(3, device=rand.device)[None] < wanted[:, None]) & (best > 0)
        return torch.cat([clicks, extra], dim=1), torch.cat([present, offered], dim=1) & shown[:, None]

    def _photometric(self, image: Tensor, colour: Tensor, rand: _Random) -> Tensor:
        """Changes of gain, gamma, light, colour, sharpness and noise that a label does not notice."""
        if self.augment is None:
            return image
        c, count = self.augment, len(image)
        on = [rand.chance(p, count)[:, None, None, None] for p in (c.intensity, c.invert, c.noise, c.blur, c.grey)]
        image = (image / 255).clamp(0, 1)
        image = torch.where(on[4], image.mean(dim=1, keepdim=True), image)
        mixed = image[:, rand.order(3)] * rand.uniform(0.6, 1, count, 3)[..., None, None]
        image = torch.where(
            on[0] & colour[:, None, None, None] & (rand.chance(0.5, count))[:, None, None, None], mixed, image
        )
        gamma = rand.uniform(-0.7, 0.7, count).exp()[:, None, None, None]
        line = torch.linspace(-1, 1, image.shape[-1], device=image.device)
        slope = rand.uniform(-0.35, 0.35, count, 2)
        light = 1 + slope[:, :1, None] * line[None, :, None] + slope[:, 1:, None] * line[None, None, :]
        image = torch.where(on[0], image.clamp_min(1e-4).pow(gamma) * light[:, None], image)
        image = torch.where(on[1], 1 - image, image)
        kernel = int(rand.integers(2, 1).item()) * 2 + 3
        soft = F.avg_pool2d(image, kernel, 1, kernel // 2, count_include_pad=False)
        image = torch.where(on[3], soft, image)
        grain = rand.normal(count, 1, *image.shape[-2:]) * rand.uniform(0, 0.18, count)[:, None, None, None]
        coarse = F.interpolate(grain[..., ::2, ::2], image.shape[-2:], mode="bilinear") * 1.5
        grain = torch.where(rand.chance(0.4, count)[:, None, None, None], coarse, grain)
        speckle = torch.where(rand.chance(0.3, count)[:, None, None, None], image * 2, torch.ones_like(image))
        return torch.where(on[2], image + grain * speckle, image)


class _Random:
    """Random tensors on a device from one generator."""

    def __init__(self, generator: torch.Generator | None, device: torch.device) -> None:
        self.generator, self.device = generator, device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def chance(self, probability: float, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, device=self.device) < probability

    def integers(self, high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=self.generator, device=self.device)

    def order(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self.generator, device=self.device)
