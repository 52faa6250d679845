"""Prediction: from an image and a prompt to a mask, one object or many at once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_delse._giving_up import go_on
from napari_delse.checkpoint import LoadedModel, load_model
from napari_delse.confidence import Calibration, confidence
from napari_delse.data.images import ArrayLike, Plane
from napari_delse.data.samples import to_input
from napari_delse.geometry import Correction, Crop, ExtremePoints, ObjectMask
from napari_delse.levelset import EvolutionConfig
from napari_delse.model import UNIT, Delse, LevelSetFields, ModelConfig, click_map, drag_maps

Float32Array = npt.NDArray[np.float32]
Item = tuple[Plane | ArrayLike, ExtremePoints, Sequence[Correction]]
"""One object to segment: its image or plane, its prompt and its drags."""


class Seen(NamedTuple):
    """The pixels that a network saw."""

    plane: Plane  # where they are from
    pixels: Tensor  # float32, (3, size, size), as `to_input` makes them


@dataclass(frozen=True, eq=False)
class Prediction:
    """One segmented object with all that led to it.

    Parameters
    ----------
    mask : ObjectMask
        Pixels of the object in the plane; empty if nothing is above the threshold.
    prompt : ExtremePoints
        What was clicked.
    corrections : tuple of Correction
        Drags made so far.
    crop : Crop
        Window of the plane that the network saw.
    states : tuple of float32 array, each of shape (size, size)
        phi_0 .. phi_T in network pixels, positive inside.
    motion : float32 array, shape (2, size, size)
        V, (y, x) in network pixels per unit time.
    modulation : float32 array, shape (size, size)
        m in [0, 1].
    plane_shape : (int, int)
        Shape of the plane.
    config : ModelConfig
        Of the model that predicted, with the evolution and the threshold that were used.
    calibration : Calibration, optional
        Of the model's confidence.
    seen : Seen, optional
        The crop's pixels as the network saw them; it keeps the image alive.
    """

    mask: ObjectMask
    prompt: ExtremePoints
    corrections: tuple[Correction, ...]
    crop: Crop
    states: tuple[Float32Array, ...]
    motion: Float32Array
    modulation: Float32Array
    plane_shape: tuple[int, int]
    config: ModelConfig
    calibration: Calibration | None = None
    seen: Seen | None = None

    @property
    def threshold(self) -> float:
        """phi_T above this is inside."""
        return self.config.threshold

    @property
    def softness(self) -> float:
        """Network pixels over which phi_T says that it is unsure."""
        return self.crop.size / UNIT if self.config.output == "delse" else 1.0

    @cached_property
    def confidence(self) -> float:
        """Expected IoU in [0, 1]; see `napari_delse.confidence`."""
        return confidence(self, self.calibration)

    def contours(self, step: int = -1) -> list[npt.NDArray[np.float64]]:
        """Sub-pixel contour lines of phi after a step, each (N, 2) plane positions (y, x)."""
        return [self.crop.to_plane(line) for line in contour_lines(self.states[step], self.threshold)]


def contour_lines(phi: npt.NDArray[np.floating], threshold: float) -> list[npt.NDArray[np.float64]]:
    """Sub-pixel lines around where phi is above a threshold, each (N, 2) network positions; closed, also at the rim."""
    from skimage.measure import find_contours

    outside = np.pad(phi, 1, constant_values=min(threshold - 1, float(phi.min())))
    return [line - 1 for line in find_contours(outside, threshold)]


class Predictor:
    """A model on a device, ready to segment.

    Examples
    --------
    >>> predictor = Predictor.load()
    >>> clicks = ExtremePoints.from_clicks([(10, 30), (30, 12), (52, 31), (33, 55)])
    >>> mask = predictor.segment(image, clicks).mask  # doctest: +SKIP
    """

    def __init__(self, loaded: LoadedModel, device: torch.device) -> None:
        self.name = loaded.name
        self.config = loaded.config
        self.card = loaded.card
        self.calibration = _calibration(loaded)
        self._model = _for_inference(loaded.model)
        self._place(device)

    @classmethod
    def load(
        cls, model: str | Path = "default", device: str | torch.device = "auto", threads: int | None = None
    ) -> Predictor:
        """Load a model by name or folder.

        Parameters
        ----------
        model : str or path
            See `checkpoint.load_model`.
        device : str or torch.device
            "auto" takes CUDA, else MPS, else the CPU. A device that fails is replaced by the CPU with one warning.
        threads : int, optional
            CPU threads to use.

        Raises
        ------
        ValueError
            If there is no such model or device.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        loaded = load_model(model)
        return cls(loaded, choose_device(device))

    def _place(self, device: torch.device) -> None:
        try:
            self._model = self._model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.device = device
            if device.type != "cpu":  # find out now, not at the first click, whether it works
                self._run(*self._blank(1))
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            if device.type == "cpu":
                raise
            self._fall_back(error)

    def _blank(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        size = self.config.crop.size
        return torch.zeros(count, 3, size, size), torch.zeros(count, 1, size, size), torch.zeros(count, 2, size, size)

    def _fall_back(self, error: BaseException) -> None:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(
            f"{self.device if hasattr(self, 'device') else 'the GPU'} failed ({reason}); going on with the CPU",
            RuntimeWarning,
            stacklevel=4,
        )
        self.device = torch.device("cpu")
        self._model = self._model.to(self.device)

    def warm_up(self) -> None:
        """Run once, so that the first click is as fast as the others."""
        self._infer(*self._blank(1))

    def segment(
        self,
        image: Plane | ArrayLike,
        prompt: ExtremePoints,
        corrections: Sequence[Correction] = (),
        evolution: EvolutionConfig | None = None,
        *,
        known: Prediction | None = None,
    ) -> Prediction:
        """Segment one object.

        Parameters
        ----------
        image : array-like or Plane
            (Y, X), RGB(A) (Y, X, 3 or 4), or a `Plane` of any array; only the crop is read.
        prompt : ExtremePoints
            Clicks or box.
        corrections : sequence of Correction
            Drags, in the order they were made.
        evolution : EvolutionConfig, optional
            Evolve differently from how the model was trained.
        known : Prediction, optional
            If it saw the same crop of the same plane, the pixels are not read again. Not for images whose pixels
            were changed in place since.

        Returns
        -------
        Prediction

        Raises
        ------
        ValueError
            If the image is not one plane of numbers.
        """
        return self._segment_batch([(image, prompt, corrections)], evolution, known)[0]

    def correct(self, image: Plane | ArrayLike, prediction: Prediction, *corrections: Correction) -> Prediction:
        """Segment again with further drags, evolved as `prediction` was, which stays as it is.

        Of the same image the pixels are not read again; if they were changed in place, use `segment`.
        """
        drags = *prediction.corrections, *corrections
        found = self.segment(image, prediction.prompt, drags, known=prediction)
        return self.evolve_like(found, prediction)

    def segment_many(
        self,
        image: Plane | ArrayLike,
        prompts: Sequence[ExtremePoints],
        corrections: Sequence[Sequence[Correction]] = (),
        batch_size: int | None = None,
    ) -> Iterator[Prediction]:
        """Segment many objects of one plane, yielding them in order.

        Parameters
        ----------
        image : array-like or Plane
            As for `segment`.
        prompts : sequence of ExtremePoints
            One per object.
        corrections : sequence of sequence of Correction
            Drags of each object; empty for none at all.
        batch_size : int, optional
            Objects per network pass; by default 4 on a CPU and 32 on a GPU. It halves by itself where memory
            is short.

        Raises
        ------
        ValueError
            If there are corrections for another number of objects.
        """
        plane = Plane.of(image)
        drags = [tuple(c) for c in corrections] or [()] * len(prompts)
        if len(drags) != len(prompts):
            raise ValueError(
                f"corrections of {len(drags)} objects do not fit {len(prompts)} prompts; give one list each"
            )
        yield from self.segment_across(
            ((plane, prompt, drag) for prompt, drag in zip(prompts, drags, strict=True)), batch_size
        )

    def segment_across(self, items: Iterable[Item], batch_size: int | None = None) -> Iterator[Prediction]:
        """Segment many objects of any planes, yielding them in order.

        Objects of different planes, of different sizes and shapes of plane, share the passes of the network. No more
        than one batch is read ahead, so ``items`` may be endless.

        Parameters
        ----------
        items : iterable of (array-like or Plane, ExtremePoints, sequence of Correction)
            Image, prompt and drags of each object, as for `segment`.
        batch_size : int, optional
            As for `segment_many`.

        Raises
        ------
        ValueError
            If an image is not one plane of numbers, or ``batch_size`` is less than 1.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 object, got {batch_size}")
        size = batch_size or (4 if self.device.type == "cpu" else 32)
        waiting = iter(items)
        while batch := list(islice(waiting, size)):
            yield from self._segment_batch(batch)

    def evolve(self, prediction: Prediction, evolution: EvolutionConfig, threshold: float | None = None) -> Prediction:
        """Evolve a prediction's fields again with another T, dt, lambda, mu or threshold.

        Always on the CPU, so that the same fields give the same bits wherever they were predicted.

        Parameters
        ----------
        prediction : Prediction
            Whose phi_0, V and m are taken; it stays as it is.
        evolution : EvolutionConfig
            T, dt, lambda and mu; nothing to a model that does not evolve.
        threshold : float, optional
            phi_T above this is inside, network pixels; by default the model's.
        """
        fields = LevelSetFields(
            *(
                torch.from_numpy(array).reshape(1, -1, *array.shape[-2:])
                for array in (prediction.states[0], prediction.motion, prediction.modulation)
            )
        )
        threshold = self.config.threshold if threshold is None else threshold
        with torch.inference_mode():
            states = self._model.evolve(fields, evolution)
        arrays = tuple(s[0, 0].numpy() for s in states)
        mask = mask_from_phi(arrays[-1], prediction.crop, prediction.plane_shape, threshold)
        config = replace(self.config, evolution=evolution, threshold=threshold)
        return replace(prediction, states=arrays, mask=mask, config=config)

    def evolve_like(self, prediction: Prediction, other: Prediction) -> Prediction:
        """A prediction with the evolution and the threshold of another one."""
        own, wanted = ((one.config.evolution, one.config.threshold) for one in (prediction, other))
        return prediction if own == wanted else self.evolve(prediction, *wanted)

    def _crop(self, prompt: ExtremePoints, corrections: Sequence[Correction]) -> Crop:
        crop = Crop.around(prompt.box, self.config.crop)
        ends = [c.end for c in corrections]
        if ends and not all(crop.y0 <= y <= crop.y1 - 1 and crop.x0 <= x <= crop.x1 - 1 for y, x in ends):
            crop = Crop.around(prompt.with_points(*ends).box, self.config.crop)
        return crop

    def _see(self, plane: Plane, crop: Crop, known: Prediction | None) -> Seen:
        """The crop's pixels as the network sees them."""
        if known is not None and known.seen is not None and known.crop == crop and known.seen.plane.is_same(plane):
            return known.seen
        go_on()  # reading cannot be given up
        return Seen(plane, to_input(plane.read(crop), crop.size, rgb=plane.rgb))

    def _segment_batch(
        self, items: Sequence[Item], evolution: EvolutionConfig | None = None, known: Prediction | None = None
    ) -> list[Prediction]:
        planes = [Plane.of(image) for image, _, _ in items]
        prompts = [prompt for _, prompt, _ in items]
        corrections = [tuple(drags) for _, _, drags in items]
        crops = [self._crop(p, c) for p, c in zip(prompts, corrections, strict=True)]
        seen = [self._see(plane, crop, known) for plane, crop in zip(planes, crops, strict=True)]
        clicks = self._clicks(prompts, corrections, crops)
        drags = self._drags(corrections, crops)
        fields, states = self._infer(torch.stack([one.pixels for one in seen]), clicks, drags, evolution)
        config = self.config if evolution is None else replace(self.config, evolution=evolution)
        predictions = []
        for i, (plane, prompt, drag, crop) in enumerate(zip(planes, prompts, corrections, crops, strict=True)):
            arrays = tuple(s[i, 0].numpy() for s in states)
            mask = mask_from_phi(arrays[-1], crop, plane.shape, self.config.threshold)
            motion, modulation = fields.motion[i].numpy(), fields.modulation[i, 0].numpy()
            predictions.append(
                Prediction(
                    mask,
                    prompt,
                    drag,
                    crop,
                    arrays,
                    motion,
                    modulation,
                    plane.shape,
                    config,
                    self.calibration,
                    seen[i],
                )
            )
        return predictions

    def _clicks(
        self, prompts: Sequence[ExtremePoints], corrections: Sequence[tuple[Correction, ...]], crops: Sequence[Crop]
    ) -> Tensor:
        shown = [
            ([] if prompt.kind == "box" else list(prompt.points)) + [c.end for c in drags]
            for prompt, drags in zip(prompts, corrections, strict=True)
        ]
        points, present = _padded(
            [crop.to_network(np.reshape(s, (-1, 2))) for s, crop in zip(shown, crops, strict=True)]
        )
        size = self.config.crop.size
        return click_map(points, present, size, self.config.click_sigma * size)

    def _drags(self, corrections: Sequence[tuple[Correction, ...]], crops: Sequence[Crop]) -> Tensor:
        starts, ends = (
            [
                crop.to_network(np.reshape([getattr(c, name) for c in drags], (-1, 2)))
                for drags, crop in zip(corrections, crops, strict=True)
            ]
            for name in ("start", "end")
        )
        (start, present), (end, _) = _padded(starts), _padded(ends)
        return drag_maps(start, end, present, self.config.crop.size, signed=self.config.signed_drags)

    def _infer(
        self, images: Tensor, clicks: Tensor, drags: Tensor, evolution: EvolutionConfig | None = None
    ) -> tuple[LevelSetFields, list[Tensor]]:
        """Fields and states on the CPU; halves the batch and then leaves a GPU that fails."""
        try:
            return self._run(images, clicks, drags, evolution)
        except RuntimeError as error:
            if self.device.type == "cpu":
                raise
            failed = error.with_traceback(None)  # which would keep what fills the memory
        if isinstance(failed, torch.cuda.OutOfMemoryError) and len(images) > 1:
            half = len(images) // 2
            first = self._infer(images[:half], clicks[:half], drags[:half], evolution)
            second = self._infer(images[half:], clicks[half:], drags[half:], evolution)
            fields = LevelSetFields(*(torch.cat(pair) for pair in zip(first[0], second[0], strict=True)))
            return fields, [torch.cat(pair) for pair in zip(first[1], second[1], strict=True)]
        self._fall_back(failed)
        return self._run(images, clicks, drags, evolution)

    @torch.inference_mode()
    def _run(
        self, images: Tensor, clicks: Tensor, drags: Tensor, evolution: EvolutionConfig | None = None
    ) -> tuple[LevelSetFields, list[Tensor]]:
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        encoded = self._model.encode(images, clicks.to(self.device))
        fields = encoded.fields
        dragged = drags.flatten(1).any(dim=1)
        if dragged.any() and self.config.evolves:
            motion = self._model.edit(encoded, drags.to(self.device)).motion
            fields = fields._replace(
                motion=torch.where(dragged.to(self.device)[:, None, None, None], motion, fields.motion)
            )
        states = self._model.evolve(fields, evolution)
        return LevelSetFields(*(f.cpu() for f in fields)), [s.cpu() for s in states]


def _padded(points: Sequence[npt.NDArray[np.float64]]) -> tuple[Tensor, Tensor]:
    """Point lists of different lengths as (B, N, 2) with a (B, N) mask."""
    longest = max((len(p) for p in points), default=0)
    padded = np.zeros((len(points), max(longest, 1), 2), dtype=np.float32)
    present = np.zeros(padded.shape[:2], dtype=bool)
    for i, p in enumerate(points):
        padded[i, : len(p)], present[i, : len(p)] = p, True
    return torch.from_numpy(padded), torch.from_numpy(present)


def mask_from_phi(phi: Float32Array, crop: Crop, plane_shape: tuple[int, int], threshold: float) -> ObjectMask:
    """The pixels of the plane at whose centres phi, interpolated between its own, is above the threshold.

    Only the window around the object and inside the plane is ever made, so that a crop far larger than either
    costs nothing.
    """
    inside = phi > threshold
    spans, samples = [], []
    for axis, (start, length, limit) in enumerate(zip((crop.y0, crop.x0), crop.shape, plane_shape, strict=True)):
        size = phi.shape[axis]
        found = np.flatnonzero(inside.any(axis=1 - axis))
        if len(found) == 0:
            return ObjectMask.empty()
        low = max(math.floor(found[0] * length / size) - math.ceil(length / size), 0, -start)
        high = min(math.ceil((found[-1] + 1) * length / size) + math.ceil(length / size), length, limit - start)
        if high <= low:
            return ObjectMask.empty()
        where = ((np.arange(low, high) + 0.5) * (size / length) - 0.5).clip(0, size - 1)
        below = np.minimum(where.astype(int), size - 2)
        spans.append((start + low, start + high))
        samples.append((below, (where - below).astype(np.float32)))
    (rows, along_y), (columns, along_x) = samples
    lines = phi[rows] * (1 - along_y)[:, None] + phi[rows + 1] * along_y[:, None]
    sampled = lines[:, columns] * (1 - along_x) + lines[:, columns + 1] * along_x
    window = Crop(spans[0][0], spans[1][0], spans[0][1], spans[1][1], crop.size)
    return ObjectMask.from_crop(sampled > threshold, window, plane_shape)


def choose_device(device: str | torch.device) -> torch.device:
    """The device of a name; "auto" is CUDA, else MPS, else the CPU."""
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"device must be auto, cpu, cuda or mps, got {device!r}") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _calibration(loaded: LoadedModel) -> Calibration | None:
    """The model's calibration; a damaged one must not keep a good model from working."""
    try:
        return Calibration.from_card(loaded.card)
    except ValueError as error:
        warnings.warn(f"{loaded.name}: {error}; its confidence is not calibrated", RuntimeWarning, stacklevel=3)
        return None


def _for_inference(model: Delse) -> Delse:
    """A frozen copy with every batch norm folded into the convolution before it.

    Before each convolution it asks whether its answer is still wanted, see `napari_delse._giving_up`.
    """
    from copy import deepcopy

    model = deepcopy(model).eval().requires_grad_(False)
    for parent in model.modules():
        _fold(parent)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda *_: go_on())
    return model


def _fold(parent: nn.Module) -> None:
    names: list[Any] = list(parent._modules)
    for first, second in pairwise(names):
        conv, norm = parent._modules[first], parent._modules[second]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and conv.out_channels == norm.num_features:
            parent._modules[first] = fuse_conv_bn_eval(conv, norm)
            parent._modules[second] = nn.Identity()
