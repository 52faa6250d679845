"""Everything that changes while training, and how it is saved and found again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from napari_delse.checkpoint import save_model, write_json, write_tensors
from napari_delse.model import Delse, ModelConfig, config_from_dict
from napari_delse.train.distributed import World

if TYPE_CHECKING:
    from napari_delse.train.config import TrainConfig


def learning_rate(config: TrainConfig, fraction: float) -> float:
    """Learning rate at a fraction of the run."""
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
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, foreach=True)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), foreach=True)


class TrainingState:
    """Weights, their average, the optimizer and the clock.

    Parameters
    ----------
    model : Delse
        Trained in place.
    config : TrainConfig
        The run.
    device : torch.device
        Where to train.
    world : World
        All processes of the run.
    """

    def __init__(self, model: Delse, config: TrainConfig, device: torch.device, world: World) -> None:
        self.model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        world.spread_(self.model.state_dict().values())
        self.average = deepcopy(self.model).eval().requires_grad_(False)
        if config.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        elif world.size > 1 and device.type == "cuda":
            torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.config, self.world = config, world
        self.optimizer = _optimizer(self.model, config)
        self.step = 0
        self.seconds = 0.0
        pairs = list(zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True))
        self._floats = [list(side) for side in zip(*(p for p in pairs if p[0].is_floating_point()), strict=True)]
        self._counts = [p for p in pairs if not p[0].is_floating_point()]
        self._statistics = [b for b in self.model.buffers() if b.is_floating_point() and not config.freeze_norm]

    @property
    def fraction(self) -> float:
        """How much of the run is done, 0 to 1."""
        if self.config.minutes is not None:
            return min(1.0, self.seconds / (60 * self.config.minutes))
        return self.step / self.config.steps

    def descend(self, total: Tensor, rate: float) -> Tensor:
        """One step of the optimizer down the gradient of a loss; returns the gradient's norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip, foreach=True)
        self.optimizer.step()
        self.step += 1
        return norm.detach()

    def settle(self, losses: Tensor) -> None:
        """Make losses and batch norm statistics equal on all processes, then update the average."""
        self.world.average_([losses, *self._statistics])
        # Early on a long memory would keep the random start.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self._floats[0], self._floats[1], 1 - decay)
            for mean, value in self._counts:
                mean.copy_(value)

    def save(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Write the averaged model, and then the state to resume from.

        A run that is cut off between the two does its last steps again. The other way round, one that was about to end
        would count as done with the weights of the checkpoint before.
        """
        save_model(folder, self.average, {**card, "steps": self.step, "seconds": round(self.seconds)})
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        state = self.optimizer.state_dict()["state"]
        for index, values in state.items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        tensors |= {f"average.{n}": t for n, t in self.average.state_dict().items()}
        tensors["clock"] = torch.tensor([self.step, self.seconds], dtype=torch.float64)
        write_tensors(folder / "resume.safetensors", tensors)

    def load(self, content: bytes) -> None:
        """Take over the state in the bytes of a file that `save` wrote."""
        tensors = load(content)

        def part(prefix: str) -> dict[str, Tensor]:
            return {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.average.load_state_dict(part("average."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part("optimizer.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.step, self.seconds = int(tensors["clock"][0]), float(tensors["clock"][1])

    def begin(self, folder: Path, *, resume: bool) -> None:
        """Continue the run in a folder, or begin one there; all processes follow the first.

        Raises
        ------
        ValueError
            If the folder holds a run with other settings.
        """
        recipe, saved, content = folder / "run.json", folder / "resume.safetensors", b""
        if self.world.leads:
            if resume and saved.is_file():
                self._compare(recipe)
                content = saved.read_bytes()
            else:
                saved.unlink(missing_ok=True)  # else a crash before the first save would resume the older run
                write_json(recipe, {"train": asdict(self.config), "model": asdict(self.model.config)})
        content = self.world.share(content)
        if content:
            try:
                self.load(content)
            except (SafetensorError, KeyError, ValueError) as error:
                raise ValueError(
                    f"{saved} is damaged ({error}), perhaps by a power cut; remove it, and the training begins anew"
                ) from error

    def _compare(self, recipe: Path) -> None:
        try:
            found = json.loads(recipe.read_text(encoding="utf-8"))
            # Through the classes, so that settings younger than the run have their defaults.
            old: list[Any] = [
                config_from_dict(cls, found[part])
                for cls, part in ((type(self.config), "train"), (ModelConfig, "model"))
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{recipe} does not tell the settings of the run in its folder ({error}); choose another folder"
            ) from error
        for part, before, now in zip(("train", "model"), old, (self.config, self.model.config), strict=True):
            was, wanted = _flat(asdict(before)), _flat(asdict(now))
            for name in {**wanted, **was}:
                if was.get(name) != wanted.get(name):
                    raise ValueError(
                        f"{recipe.parent} holds a run with another config ({part}.{name} was {was.get(name, 'unset')}, "
                        f"is {wanted.get(name, 'unset')}); choose another folder or the same config"
                    )


def set_batch_size(folder: Path, size: int) -> None:
    """Let the run in a folder go on with another number of objects per step."""
    recipe = folder / "run.json"
    if not recipe.is_file():  # not even begun
        return
    found = json.loads(recipe.read_text(encoding="utf-8"))
    found["train"]["batch_size"] = size
    write_json(recipe, found)


def _flat(config: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Settings as text by their full names."""
    flat: dict[str, str] = {}
    for name, value in json.loads(json.dumps(config)).items():
        flat |= _flat(value, f"{where}{name}.") if isinstance(value, dict) else {where + name: json.dumps(value)}
    return flat
