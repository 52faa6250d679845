"""Batches of training crops by step number, made while the step before is computed where that helps."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_delse.model import ModelConfig
from napari_delse.train.crops import AugmentConfig, CropBatch, CropSampler, ObjectPack


class Draw(NamedTuple):
    """One batch and where it comes from."""

    chosen: Tensor  # positions in the pack
    batch: CropBatch
    generator: torch.Generator  # goes on where the batch left it


def random_stream(*key: int) -> int:
    """Seed of the random numbers that belong to a key, such as (seed, step, rank)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


class Batches:
    """Batches of a run.

    Every step has random numbers of its own, made from the seed, the step and the process. So a resumed run goes on
    exactly, whatever was drawn ahead of the checkpoint.

    Parameters
    ----------
    pack : ObjectPack
        All objects, in main memory.
    weights : Tensor, shape (N,)
        How often each object is drawn, relative to the others.
    model : ModelConfig
        See `CropSampler`.
    augment : AugmentConfig or None
        See `CropSampler`.
    count : int
        Objects per batch.
    seed : sequence of int
        Of the run and the process.
    device : torch.device
        Where the crops are made.
    """

    def __init__(
        self,
        pack: ObjectPack,
        weights: Tensor,
        model: ModelConfig,
        augment: AugmentConfig | None,
        *,
        count: int,
        seed: Sequence[int],
        device: torch.device,
    ) -> None:
        self.pack, self.weights, self.model, self.augment = pack, weights, model, augment
        self.count, self.seed, self.device = count, tuple(seed), device
        # One core or two are busy with the step itself.
        ahead = device.type != "cpu" or torch.get_num_threads() > 2
        self._worker = ThreadPoolExecutor(1, "napari-delse-crops") if ahead else None
        self._next: tuple[int, Future[Draw]] | None = None

    def draw(self, step: int, size: int) -> Draw:
        """The batch of a step, cropped to an input side."""
        seed = random_stream(*self.seed, step)
        own = torch.Generator().manual_seed(seed)
        chosen = torch.multinomial(self.weights, self.count, replacement=True, generator=own)
        objects = self.pack.select(chosen)
        if self.device.type != "cpu":
            own = torch.Generator(self.device).manual_seed(seed)
            objects = ObjectPack(*(self._moved(part) for part in objects))
        batch = CropSampler(self.model.resized(size), self.augment)(objects, own)
        return Draw(chosen, batch._replace(image=batch.image.contiguous(memory_format=torch.channels_last)), own)

    def _moved(self, part: Tensor) -> Tensor:
        if self.device.type == "cuda":
            part = part.pin_memory()
        return part.to(self.device, non_blocking=True)

    def __call__(self, step: int, size: int, next_size: int) -> Draw:
        """The batch of a step; the next one is begun in the background."""
        if self._worker is None:
            return self.draw(step, size)
        drawn = self._next[1].result() if self._next and self._next[0] == step else self.draw(step, size)
        self._next = step + 1, self._worker.submit(self.draw, step + 1, next_size)
        return drawn

    def close(self) -> None:
        """Stop the background work."""
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
