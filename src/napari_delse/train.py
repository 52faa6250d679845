"""Training: one loop for DELSE, its baselines and the corrections.

`fit` is a generator: it saves before it yields, so that stopping at any yield leaves a checkpoint
that loads and resumes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from napari_delse import losses
from napari_delse.checkpoint import save_model, write_json, write_tensors
from napari_delse.crops import AugmentConfig, CropBatch, CropSampler, ObjectPack
from napari_delse.levelset import signed_distance
from napari_delse.model import Delse, Encoded, ModelConfig, click_map, drag_maps

_CORRECTIONS = 3  # drags the simulated annotator makes at most


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and scales of the losses; a weight of 0 leaves a loss out."""

    distance: float = 1.0  # L0 on phi_0, in units of D^2 (the paper: px^2)
    initial: float = 0.5  # mask loss on phi_0 itself
    final: float = 1.0  # LT: mask loss on phi_T
    between: float = 0.25  # mean mask loss on phi_1 .. phi_(T-1)
    overlap: float = 0.5  # soft IoU of phi_T
    direction: float = 0.0  # Ldirect
    simulated: float = 0.25  # LT from simulated phi_0 = TSDF + dh, until the joint part begins
    scale: float = 1 / 32  # epsilon of the Heaviside, as a fraction of the crop side
    arctan: bool = False  # the paper's arctangent Heaviside instead of the logistic one
    balance: float = 0.5  # class weighting: 1 is the paper's, 0 none
    shift: float = 0.04  # range of the simulated dh, as a fraction of the crop side


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run."""

    encoder_weights: str = ""  # file or address of ImageNet weights for the encoder; none without it
    steps: int = 20_000  # optimiser steps
    minutes: float | None = None  # if given, the schedule runs over this time instead of the steps
    batch_size: int = 16  # objects per step
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 2e-3  # at its highest
    weight_decay: float = 0.02
    warmup: float = 0.02  # fraction of the run
    schedule: Literal["cosine", "steps"] = "cosine"  # "steps": x 0.3 four times, as in the paper
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.999  # decay of the averaged weights, which are the ones saved
    sizes: tuple[tuple[float, int], ...] = ()  # (from fraction of the run, input side); () is the model's
    joint_from: float = 0.4  # fraction of the run from which simulated phi_0 are no longer used
    interactive_from: float = 0.7  # fraction of the run from which corrections are trained; 1 for never
    interactive_share: float = 0.5  # of the steps from then on
    balance: float = 0.5  # objects of a set are drawn with probability ~ count ** balance
    freeze_norm: bool = False  # keep the batch norms' statistics: for fine-tuning on few images
    precision: Literal["auto", "bf16", "float32"] = "auto"
    save_minutes: float = 1.0  # time between checkpoints
    seed: int = 0
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise ValueError(f"steps must be >= 1 and batch_size >= 2, got {self.steps} and {self.batch_size}")


class TrainProgress(NamedTuple):
    """What `fit` yields at every checkpoint."""

    step: int
    fraction: float  # of the run, 0 to 1
    loss: float  # mean since the last one
    parts: dict[str, float]  # the same, by loss
    learning_rate: float
    seconds: float  # spent so far
    remaining: float  # seconds, estimated
    folder: Path  # where the model is


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


def simulate_drag(phi: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The simulated annotator: the predicted boundary point farthest from the true boundary goes there.

    Parameters
    ----------
    phi : Tensor, shape (B, 1, H, W)
        Prediction, positive inside.
    mask : Tensor, shape (B, 1, H, W)
        Truth, 0 or 1.

    Returns
    -------
    start, end : Tensor, shape (B, 2)
        p and q, (y, x) in network pixels.
    wrong : bool Tensor, shape (B,)
        Whether there is a boundary on both sides and they differ by more than a pixel.
    """
    size = mask.shape[-1]
    predicted, true = _boundary((phi > 0).float()), _boundary(mask)
    # Distance from each true boundary pixel, cut far out: farther than a quarter of the crop is all the same.
    away = -signed_distance(true, size // 4)
    score = torch.where(predicted, away, torch.full_like(away, -1e6)).flatten(1)
    worst, index = score.max(dim=1)
    start = torch.stack([index // size, index % size], dim=-1).to(phi)
    axis = torch.arange(size, device=phi.device, dtype=phi.dtype)
    to_start = (axis - start[:, :1])[:, :, None].square() + (axis - start[:, 1:])[:, None, :].square()
    to_start = torch.where(true[:, 0], to_start, torch.full_like(to_start, 1e9)).flatten(1)
    near, index = to_start.min(dim=1)
    end = torch.stack([index // size, index % size], dim=-1).to(phi)
    return start, end, (worst > 0.6) & (near < 1e8)


def _boundary(mask: Tensor) -> Tensor:
    inner = -F.max_pool2d(-F.pad(mask, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return (mask - inner) > 0.5


def interactive_losses(model: Delse, batch: CropBatch, loss: LossConfig, drags: int) -> dict[str, Tensor]:
    """Losses after one to three simulated drags, each made on the prediction before it (section 4.4)."""
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
                start, end, wrong = simulate_drag(phi, batch.mask)
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
    return evolved_loss(states, batch, config, loss)


def _learning_rate(config: TrainConfig, fraction: float) -> float:
    if fraction < config.warmup:
        return config.learning_rate * (0.05 + 0.95 * fraction / config.warmup)
    if config.schedule == "steps":
        return float(config.learning_rate * 0.3 ** int(fraction * 4))
    done = (fraction - config.warmup) / (1 - config.warmup)
    return float(config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))))


def _optimizer(model: Delse, config: TrainConfig) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99))


class _Run:
    """Everything that changes while training, and how it is saved."""

    def __init__(self, model: Delse, config: TrainConfig, device: torch.device) -> None:
        self.model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if config.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
        self.average = deepcopy(self.model).eval().requires_grad_(False)
        self.config = config
        self.optimizer = _optimizer(self.model, config)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.step = 0
        self.seconds = 0.0

    @property
    def fraction(self) -> float:
        if self.config.minutes is not None:
            return min(1.0, self.seconds / (60 * self.config.minutes))
        return self.step / self.config.steps

    def update_average(self) -> None:
        # Early on a long memory would keep the random start.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)

    def save(self, folder: Path, card: dict[str, Any]) -> None:
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        state = self.optimizer.state_dict()["state"]
        for index, values in state.items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        tensors |= {f"average.{n}": t for n, t in self.average.state_dict().items()}
        tensors["generator"] = self.generator.get_state()
        tensors["clock"] = torch.tensor([self.step, self.seconds], dtype=torch.float64)
        write_tensors(folder / "resume.safetensors", tensors)
        save_model(folder, self.average, {**card, "steps": self.step, "seconds": round(self.seconds)})

    def load(self, folder: Path) -> None:
        tensors = load_file(folder / "resume.safetensors")

        def part(prefix: str) -> dict[str, Tensor]:
            return {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.average.load_state_dict(part("average."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part("optimizer.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.generator.set_state(tensors["generator"].to(torch.uint8))
        self.step, self.seconds = int(tensors["clock"][0]), float(tensors["clock"][1])


def fit(
    model: Delse,
    pack: ObjectPack,
    config: TrainConfig,
    folder: Path | str,
    *,
    device: torch.device | str = "cpu",
    resume: bool = True,
    card: dict[str, Any] | None = None,
    log: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[TrainProgress]:
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
        Where the averaged model and the state to resume from are saved, before every yield.
    device : torch.device or str
        Where to train.
    resume : bool
        Go on from ``folder`` if it holds a state of the same config.
    card : dict, optional
        What the model card shall say.
    log : callable, optional
        Called with a row of numbers at every yield; by default rows go to ``folder/log.jsonl``.

    Yields
    ------
    TrainProgress
        At every checkpoint and at the end.

    Raises
    ------
    FloatingPointError
        If a loss is not finite; the message names the step and the objects, and the last checkpoint stays.
    ValueError
        If ``folder`` holds a state of another config.
    """
    folder, device = Path(folder), torch.device(device)
    run = _Run(model, config, device)
    _resume(run, folder, resume)
    use_bf16 = config.precision == "bf16" or (config.precision == "auto" and _has_bf16(device))
    pick = _sampling_weights(pack, config.balance)
    sums: dict[str, float] = {}
    counted, saved = 0, time.monotonic()
    while run.fraction < 1:
        began = time.monotonic()
        rate = _learning_rate(config, run.fraction)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        size = next((s for start, s in reversed(config.sizes) if run.fraction >= start), model.config.crop.size)
        chosen = torch.multinomial(pick, config.batch_size, replacement=True, generator=_cpu_twin(run.generator))
        batch = CropSampler(model.config.resized(size), config.augment)(_to(pack.select(chosen), device), run.generator)
        batch = batch._replace(image=batch.image.contiguous(memory_format=torch.channels_last))
        interactive = run.fraction >= config.interactive_from and model.config.evolves
        dice = torch.rand(2, generator=run.generator, device=device).tolist()
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            if interactive and dice[0] < config.interactive_share:
                parts = interactive_losses(run.model, batch, config.loss, 1 + int(dice[1] * _CORRECTIONS))
            else:
                simulate = run.fraction < config.joint_from
                parts = training_losses(run.model, batch, config.loss, simulate=simulate, generator=run.generator)
            total: Tensor = sum(parts.values())  # type: ignore[assignment]
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"loss is {total.item()} at step {run.step} (objects {chosen.tolist()}); "
                f"lower the learning rate, the last good model is in {folder}"
            )
        run.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.clip)
        run.optimizer.step()
        run.step += 1
        run.update_average()
        run.seconds += time.monotonic() - began
        for name, value in {**{k: v.item() for k, v in parts.items()}, "loss": total.item()}.items():
            sums[name] = sums.get(name, 0.0) + value
        counted += 1
        if run.fraction >= 1 or time.monotonic() - saved > 60 * config.save_minutes:
            run.save(folder, {**(card or {}), "train": asdict(config)})
            means = {name: value / counted for name, value in sums.items()}
            row = {"step": run.step, "seconds": round(run.seconds, 1), "size": size, "lr": rate, **means}
            (log or _append_to(folder / "log.jsonl"))(row)
            remaining = run.seconds * (1 - run.fraction) / max(run.fraction, 1e-6)
            yield TrainProgress(run.step, run.fraction, means.pop("loss"), means, rate, run.seconds, remaining, folder)
            sums, counted, saved = {}, 0, time.monotonic()


def _resume(run: _Run, folder: Path, resume: bool) -> None:
    """Continue a run in its folder, or begin one there."""
    wanted = json.loads(json.dumps({"train": asdict(run.config), "model": asdict(run.model.config)}))
    recipe = folder / "run.json"
    if resume and (folder / "resume.safetensors").is_file():
        if json.loads(recipe.read_text(encoding="utf-8")) != wanted:
            raise ValueError(f"{folder} holds a run with another config; choose another folder or the same config")
        run.load(folder)
    else:
        write_json(recipe, wanted)


def _append_to(path: Path) -> Callable[[dict[str, Any]], None]:
    def append(row: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    return append


def _sampling_weights(pack: ObjectPack, balance: float) -> Tensor:
    """Probability of each object, so that a set as a whole counts ~ its size ** balance."""
    counts = torch.bincount(pack.group).double()
    return (counts.clamp_min(1) ** (balance - 1))[pack.group]


def _cpu_twin(generator: torch.Generator) -> torch.Generator:
    """A CPU generator seeded from another one (the pack lies in main memory)."""
    if generator.device.type == "cpu":
        return generator
    seed = torch.randint(2**31, (1,), generator=generator, device=generator.device).item()
    return torch.Generator().manual_seed(int(seed))


def _to(pack: ObjectPack, device: torch.device) -> ObjectPack:
    return ObjectPack(*(part.to(device, non_blocking=True) for part in pack))


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Emulated bfloat16 is slower than float32, so ask for the instructions themselves.
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available()) and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check()) if check else False
