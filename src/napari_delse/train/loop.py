"""Training: one loop for DELSE, its baselines and the corrections.

`fit` is a generator: stopping it at any yield, or by Ctrl-C at any moment, leaves a checkpoint that loads and resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_delse import losses
from napari_delse.levelset import gradient, signed_distance, values_at
from napari_delse.model import Delse, Encoded, ModelConfig, click_map, drag_maps
from napari_delse.train.batches import Batches, Draw, random_stream
from napari_delse.train.config import LossConfig, TrainConfig, TrainProgress
from napari_delse.train.crop_records import CORRECTIONS
from napari_delse.train.crops import CropBatch, ObjectPack
from napari_delse.train.distributed import CLOSED, INTERRUPTED, World
from napari_delse.train.interrupt import HeldInterrupt
from napari_delse.train.log import LossMeter, RunLog, StepNote, name_objects
from napari_delse.train.state import TrainingState, learning_rate

_LOST_SECONDS = 3.0  # of work that are not worth another checkpoint when a run is stopped


def evolved_loss(states: list[Tensor], batch: CropBatch, config: ModelConfig, loss: LossConfig) -> dict[str, Tensor]:
    """Weighted losses of phi_0 .. phi_T of one batch, by name."""
    size = batch.mask.shape[-1]
    if config.output == "dextr":
        weight = losses.class_weights(batch.mask, batch.weight, loss.balance)
        return {
            "final": loss.final * losses.mask_loss(states[-1], batch.mask, weight, 1.0),
            "overlap": loss.overlap * losses.overlap_loss(states[-1], batch.mask, batch.weight, 1.0),
        }
    scale = loss.scale * size
    weight = losses.class_weights(batch.mask, batch.weight, loss.balance)

    def mask_loss(phi: Tensor) -> Tensor:
        return losses.mask_loss(phi, batch.mask, weight, scale, arctan=loss.arctan)

    parts = {
        "distance": loss.distance
        * losses.tsdf_loss(states[0], batch.distance, batch.weight)
        / config.truncation_pixels(size) ** 2,
        "initial": loss.initial * mask_loss(states[0]),
    }
    if len(states) > 1:
        parts["final"] = loss.final * mask_loss(states[-1])
        if len(states) > 2 and loss.between:
            parts["between"] = loss.between * sum(mask_loss(s) for s in states[1:-1]) / (len(states) - 2)  # type: ignore[assignment]
    if loss.overlap:
        parts["overlap"] = loss.overlap * losses.overlap_loss(states[-1], batch.mask, batch.weight, scale)
    return parts


def training_losses(
    model: Delse, batch: CropBatch, loss: LossConfig, *, simulate: bool, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """All losses of one batch of crops, by name; their sum is minimised."""
    encoded = model.encode(batch.image, batch.clicks)
    fields = encoded.fields
    parts = evolved_loss(model.evolve(fields), batch, model.config, loss)
    if not model.config.evolves:
        return parts
    size = batch.mask.shape[-1]
    if loss.direction:
        near = batch.weight * (batch.distance.abs() < model.config.truncation_pixels(size)).float()
        parts["direction"] = loss.direction * losses.direction_loss(fields.motion, batch.directions, near)
    if simulate and loss.simulated:
        shift = torch.rand(len(batch.mask), 1, 1, 1, generator=generator, device=batch.mask.device) * 2 - 1
        start = batch.distance + shift * loss.shift * size
        final = model.evolve(fields._replace(phi0=start))[-1]
        weight = losses.class_weights(batch.mask, batch.weight, loss.balance)
        parts["simulated"] = loss.simulated * losses.mask_loss(
            final, batch.mask, weight, loss.scale * size, arctan=loss.arctan
        )
    return parts


def simulate_drag(
    phi: Tensor, mask: Tensor, weight: Tensor | None = None, threshold: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The simulated annotator: the predicted boundary point farthest from the true boundary goes there.

    `annotator.worst_point` does the same with two masks of the plane, when a model is evaluated.

    Parameters
    ----------
    phi : Tensor, shape (B, 1, H, W)
        Prediction, positive inside.
    mask : Tensor, shape (B, 1, H, W)
        Truth, 0 or 1.
    weight : Tensor, shape (B, 1, H, W), optional
        0 where the truth is unknown: there p is not looked for.
    threshold : float
        phi above this is inside.

    Returns
    -------
    start, end : Tensor, shape (B, 2)
        p and q, (y, x) in network pixels.
    wrong : bool Tensor, shape (B,)
        Whether there is a boundary on both sides and they differ by more than a pixel.
    """
    size = mask.shape[-1]
    predicted, true = _boundary((phi > threshold).float()), _boundary(mask)
    if weight is not None:
        predicted = predicted & (weight > 0.5)
    # Distance from each true boundary pixel, cut far out: farther than a quarter of the crop is all the same.
    away = -signed_distance(true, size // 4)
    score = torch.where(predicted, away, torch.full_like(away, -1e6)).flatten(1)
    worst, index = score.max(dim=1)
    start = torch.stack([index // size, index % size], dim=-1).to(phi)
    end, away_from_start = _nearest(true, start)
    return start, end, (worst > 0.6) & away_from_start.isfinite()


def _nearest(boundary: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """The pixel of a boundary (B, 1, H, W) nearest to a point (B, 2), and how far it is; infinity without any."""
    size = boundary.shape[-1]
    axis = torch.arange(size, device=point.device, dtype=point.dtype)
    squared = (axis - point[:, :1])[:, :, None].square() + (axis - point[:, 1:])[:, None, :].square()
    near, index = squared.masked_fill(~boundary[:, 0], torch.inf).flatten(1).min(dim=1)
    return torch.stack([index // size, index % size], dim=-1).to(point), near.sqrt()


def on_image_pixels(points: Tensor, phi: Tensor, pixel: Tensor, generator: torch.Generator | None) -> Tensor:
    """Centres of boundary pixels of the network, moved to where those of the image may lie.

    People and `annotator.worst_point` see pixels of the image. The centre of one that lies just inside a boundary is
    up to its side away from it; in the crop of a small object that is several pixels of the network.

    Parameters
    ----------
    points : Tensor, shape (B, 2)
        (y, x) in network pixels, half a pixel inside the boundary.
    phi : Tensor, shape (B, 1, H, W)
        Whose boundary it is, positive inside.
    pixel : Tensor, shape (B, 2)
        Sides of a pixel of the image in network pixels.
    generator : torch.Generator or None
        Of the random depth.
    """
    sides = pixel.clamp_min(1.0)  # several pixels of the image in one of the network: then the latter is what is seen
    inwards = values_at(gradient(phi), points[:, None])[..., 0]
    inwards = inwards / inwards.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    depth = torch.rand(len(points), 1, generator=generator, device=points.device) * sides - 0.5
    moved: Tensor = points + inwards * depth
    return moved.clamp(0, phi.shape[-1] - 1)


def _boundary(mask: Tensor) -> Tensor:
    """Inside pixels with one of their four neighbours outside; the border of the crop is no boundary."""
    padded = F.pad(mask, (1, 1, 1, 1), mode="replicate")
    vertical = torch.minimum(padded[..., :-2, 1:-1], padded[..., 2:, 1:-1])
    horizontal = torch.minimum(padded[..., 1:-1, :-2], padded[..., 1:-1, 2:])
    return (mask - torch.minimum(vertical, horizontal)) > 0.5


def next_drag(
    phi: Tensor, batch: CropBatch, turn: int, threshold: float = 0.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The drag that a person recorded for this turn, else the one of `simulate_drag`, `on_image_pixels`.

    A recorded drag counts as long as it holds what it was made to move: its start must lie on the predicted contour,
    give or take half its length (or two pixels). A model that does not make this error needs another example.

    Parameters
    ----------
    phi : Tensor, shape (B, 1, H, W)
        Prediction, positive inside.
    batch : CropBatch
        Truth and recorded drags.
    turn : int
        How many drags were made before.
    threshold : float
        phi above this is inside.
    generator : torch.Generator, optional
        Of the place within a pixel of the image.

    Returns
    -------
    start, end : Tensor, shape (B, 2)
        p and q, (y, x) in network pixels.
    made : bool Tensor, shape (B,)
        Whether there is such a drag.
    """
    start, end, made = simulate_drag(phi, batch.mask, batch.weight, threshold)
    start = on_image_pixels(start, phi, batch.pixel, generator)
    end = on_image_pixels(end, batch.distance, batch.pixel, generator)
    if turn >= batch.drags.shape[1]:
        return start, end, made
    told = batch.drags[:, turn]
    known = told.isfinite().flatten(1).all(dim=1)
    told = torch.where(known[:, None, None], told, 0.0).to(start)
    reach = ((told[:, 1] - told[:, 0]).norm(dim=-1) / 2).clamp_min(2.0)
    used = known & (_nearest(_boundary((phi > threshold).float()), told[:, 0])[1] <= reach)
    start, end = (torch.where(used[:, None], told[:, i], x) for i, x in enumerate((start, end)))
    return start, end, made | used


def interactive_losses(
    model: Delse, batch: CropBatch, loss: LossConfig, drags: int, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Losses after one to three drags, each made on the prediction before it (section 4.4); see `next_drag`."""
    size = batch.mask.shape[-1]
    config = model.config
    starts: list[Tensor] = []
    ends: list[Tensor] = []
    made: list[Tensor] = []
    points, present = batch.points, batch.present
    encoded: Encoded | None = None
    phi: Tensor | None = None
    for turn in range(drags + 1):
        last = turn == drags
        with torch.set_grad_enabled(last):
            if turn:
                assert phi is not None
                start, end, wrong = next_drag(phi, batch, turn - 1, config.threshold, generator)
                starts, ends, made = [*starts, start], [*ends, end], [*made, wrong]
                points = torch.cat([points, end[:, None]], dim=1)
                present = torch.cat([present, wrong[:, None]], dim=1)
            clicks = click_map(points, present, size, config.click_sigma * size) if turn else batch.clicks
            encoded = model.encode(batch.image, clicks)
            fields = encoded.fields
            if turn:
                maps = drag_maps(
                    torch.stack(starts, 1), torch.stack(ends, 1), torch.stack(made, 1), size, signed=config.signed_drags
                )
                fields = model.edit(encoded, maps)
            states = model.evolve(fields)
            phi = states[-1].detach()
    parts = evolved_loss(states, batch, config, loss)
    if loss.drag and drags:
        drags_made = torch.stack(ends, 1), torch.stack(made, 1)
        missed = losses.drag_loss(states[-1], batch.distance, batch.weight, *drags_made, loss.scale * size)
        parts["drag"] = loss.drag * missed
    return parts


class _Losses(torch.nn.Module):
    """All losses of a batch as one module: so `DistributedDataParallel` averages gradients while they are made."""

    def __init__(self, model: Delse, loss: LossConfig) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: CropBatch, drags: int, simulate: bool, generator: torch.Generator) -> dict[str, Tensor]:
        if drags:
            return interactive_losses(self.model, batch, self.loss, drags, generator)
        return training_losses(self.model, batch, self.loss, simulate=simulate, generator=generator)


def fit(
    model: Delse,
    pack: ObjectPack,
    config: TrainConfig,
    folder: Path | str,
    *,
    device: torch.device | str = "cpu",
    resume: bool = True,
    sets: Sequence[str] = (),
    card: dict[str, Any] | None = None,
    log: Callable[[dict[str, Any]], None] | None = None,
    world: World | None = None,
) -> Generator[TrainProgress, None, None]:
    """Train a model on packed objects.

    Parameters
    ----------
    model : Delse
        Trained in place.
    pack : ObjectPack
        Objects to train on.
    config : TrainConfig
        The run.
    folder : path
        Where the averaged model and the state to resume from are saved.
    device : torch.device or str
        Where to train.
    resume : bool
        Go on from ``folder`` if it holds a state of the same config.
    sets : sequence of str
        Names of the data sets, by their number in the pack.
    card : dict, optional
        What the model card shall say.
    log : callable, optional
        Called with a row of numbers at every yield; by default rows go to ``folder/log.csv`` and to TensorBoard.
    world : World, optional
        The processes that train together, see `distributed.joined`. Each makes its share of every batch, and only
        the first saves, logs and yields.

    Yields
    ------
    TrainProgress
        At every report, every checkpoint and at the end. Closed or interrupted in between, the run is saved once
        more, unless only seconds were spent since.

    Raises
    ------
    FloatingPointError
        If a loss or the gradient is not finite; the message names the step, the learning rate and the objects, and
        the last checkpoint stays.
    ValueError
        If ``folder`` holds a state of another config, or ``set_weights`` name unknown sets.
    """
    folder, device, world = Path(folder), torch.device(device), world or World()
    batches = _batches(pack, config, model.config, sets, device, world)
    run = TrainingState(model, config, device, world)
    run.begin(folder, resume=resume)
    session = _Session(run, batches, folder, {**(card or {}), "train": asdict(config)}, log)
    meter = LossMeter(lambda chosen: name_objects(chosen, pack.group, sets), folder)
    compute: torch.nn.Module = _Losses(run.model, config.loss)
    if world.size > 1:
        # Steps without corrections leave the editor out, on all processes alike.
        compute = torch.nn.parallel.DistributedDataParallel(compute, find_unused_parameters=True)
    interrupt = HeldInterrupt()
    try:
        while True:
            with interrupt:
                began = time.monotonic()
                fraction, stop = world.agree(run.fraction, INTERRUPTED if interrupt.pressed else 0.0)
                if stop or fraction >= 1:
                    break
                session.step(compute, meter, fraction)
                run.seconds += time.monotonic() - began
                progress = session.report(meter) if world.leads else None
            if progress is not None:
                yield progress
        meter.take()  # which raises if the last step was not finite: it must not replace the last good model
        session.save_again()
    except GeneratorExit:
        session.save_again()
        with suppress(RuntimeError):  # the others may be gone
            world.agree(run.fraction, CLOSED)
        raise
    finally:
        session.close()
    if stop == INTERRUPTED:
        raise KeyboardInterrupt


class _Session:
    """One stretch of a run, from its start or resumption to its end or interruption."""

    def __init__(
        self,
        run: TrainingState,
        batches: Batches,
        folder: Path,
        card: dict[str, Any],
        log: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.run, self.batches, self.folder, self.card = run, batches, folder, card
        self._log = RunLog(folder, run.step) if log is None and run.world.leads else None
        self._write = log or self._log
        self._saved_at = self._reported_at = time.monotonic()
        self._saved_step = run.step
        self._size, self._rate = run.model.config.crop.size, 0.0
        self._autocast = run.config.precision == "bf16" or (
            run.config.precision == "auto" and _has_bf16(batches.device)
        )

    def step(self, compute: torch.nn.Module, meter: LossMeter, fraction: float) -> None:
        """One step of the optimizer."""
        run, config = self.run, self.run.config
        following = (run.step + 1) / config.steps if config.minutes is None else fraction
        self._size, self._rate = self._size_at(fraction), learning_rate(config, fraction)
        drawn = self.batches(run.step, self._size, self._size_at(following))
        parts = self._losses(compute, drawn, fraction)
        total: Tensor = sum(parts.values())  # type: ignore[assignment]
        norm = run.descend(total, self._rate)
        own = torch.stack([*parts.values(), total, norm]).detach().float()
        mean = own.clone()
        run.settle(mean)
        meter.add(StepNote(run.step - 1, self._rate, drawn.chosen, (*parts, "loss", "gradient")), own, mean)

    def _losses(self, compute: torch.nn.Module, drawn: Draw, fraction: float) -> dict[str, Tensor]:
        config = self.run.config
        # The same dice on all processes: their steps must be of one kind.
        dice = np.random.default_rng(random_stream(config.seed, 0, self.run.step)).random(2)
        interactive = fraction >= config.interactive_from and self.run.model.config.evolves
        drags = 1 + int(dice[1] * CORRECTIONS) if interactive and dice[0] < config.interactive_share else 0
        with torch.autocast(self.batches.device.type, torch.bfloat16, enabled=self._autocast):
            parts: dict[str, Tensor] = compute(drawn.batch, drags, fraction < config.joint_from, drawn.generator)
        return parts

    def _size_at(self, fraction: float) -> int:
        sizes = reversed(self.run.config.sizes)
        return next((size for start, size in sizes if fraction >= start), self.run.model.config.crop.size)

    def report(self, meter: LossMeter) -> TrainProgress | None:
        """Save, log and report if it is time to."""
        run, now = self.run, time.monotonic()
        due = run.fraction >= 1 or now - self._saved_at > 60 * run.config.save_minutes
        if not due and now - self._reported_at < run.config.report_seconds:
            return None
        means = meter.take()
        if due:
            self._save()
        if self._write is not None:
            self._write(
                {"step": run.step, "seconds": round(run.seconds, 1), "size": self._size, "lr": self._rate, **means}
            )
        means.pop("gradient")
        remaining = run.seconds * (1 - run.fraction) / max(run.fraction, 1e-6)
        self._reported_at = time.monotonic()
        return TrainProgress(
            run.step, run.fraction, means.pop("loss"), means, self._rate, run.seconds, remaining, self.folder, due
        )

    def _save(self) -> None:
        self.run.save(self.folder, self.card)
        self._saved_at, self._saved_step = time.monotonic(), self.run.step

    def save_again(self) -> None:
        """Save what was done since the last checkpoint, unless it was the work of seconds."""
        spent = time.monotonic() - self._saved_at
        if self.run.world.leads and self.run.step > self._saved_step and spent > _LOST_SECONDS:
            self._save()

    def close(self) -> None:
        """Stop the background work and close the logs."""
        self.batches.close()
        if self._log is not None:
            self._log.close()


def _batches(
    pack: ObjectPack, config: TrainConfig, model: ModelConfig, sets: Sequence[str], device: torch.device, world: World
) -> Batches:
    if config.batch_size % world.size:
        raise ValueError(
            f"batch_size {config.batch_size} cannot be shared out among {world.size} processes; "
            f"make it a multiple of {world.size}"
        )
    return Batches(
        pack,
        _sampling_weights(pack, config.balance, _set_factors(config, sets)),
        model,
        config.augment,
        count=config.batch_size // world.size,
        seed=(config.seed, 1 + world.rank),
        device=device,
    )


def _set_factors(config: TrainConfig, sets: Sequence[str]) -> dict[int, float]:
    """How often the objects of a set are drawn, by its number."""
    if unknown := [name for name in config.set_weights if name not in sets]:
        raise ValueError(
            f"set_weights name {unknown[0]!r}, but the data has {', '.join(sets) or 'no named sets'}; correct the name"
        )
    return {sets.index(name): factor for name, factor in config.set_weights.items()}


def _sampling_weights(pack: ObjectPack, balance: float, factors: Mapping[int, float] | None = None) -> Tensor:
    """Probability of each object, so that a set as a whole counts ~ its size ** balance times its factor."""
    share = torch.bincount(pack.group).double().clamp_min(1) ** (balance - 1)
    for group, factor in (factors or {}).items():
        if group < len(share):
            share[group] *= factor
    weights = share[pack.group]
    if not weights.any():
        raise ValueError("set_weights leave out every object; give at least one set of the data a factor above 0")
    return weights


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Emulated bfloat16 is slower than float32, so ask for the instructions themselves.
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available()) and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check()) if check else False
