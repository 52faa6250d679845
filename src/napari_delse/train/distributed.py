"""One training run on several processes, started by ``torchrun``.

Gradients go over the devices' own backend (NCCL on GPUs, gloo on CPUs). What steers the run goes over gloo, so that
no GPU has to wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

CLOSED, INTERRUPTED = 1.0, 2.0
"""Why a run ends early: its generator was closed, or somebody pressed Ctrl-C."""


@dataclass(frozen=True, eq=False)
class World:
    """The processes of a run; a single one by default."""

    rank: int = 0  # of this process
    size: int = 1  # number of processes
    control: Any = None  # process group for what steers the run

    @property
    def leads(self) -> bool:
        """Whether this process keeps the clock, saves and reports."""
        return self.rank == 0

    def agree(self, fraction: float, stop: float) -> tuple[float, float]:
        """How far the first process is, and the strongest reason to stop of all processes (0 for none)."""
        if self.size == 1:
            return fraction, stop
        said = torch.tensor([fraction if self.leads else 0.0, stop], dtype=torch.float64)
        dist.all_reduce(said, dist.ReduceOp.MAX, group=self.control)
        return float(said[0]), float(said[1])

    def share(self, content: bytes) -> bytes:
        """The first process' bytes, on all processes."""
        if self.size == 1:
            return content
        length = torch.tensor([len(content)])
        dist.broadcast(length, 0, group=self.control)
        data = torch.empty(int(length), dtype=torch.uint8)
        if self.leads and content:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if len(data):
            dist.broadcast(data, 0, group=self.control)
        return data.numpy().tobytes()

    def spread_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first process'."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each float tensor by its mean over the processes, in one exchange."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join the other processes that ``torchrun`` started, if it did.

    Parameters
    ----------
    device : torch.device
        Where to train; of several GPUs each process takes the one of its local rank.

    Yields
    ------
    World, torch.device
        This process' place and its device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # A second group of one process would meet the addresses that the first left at the meeting point.
    first = not dist.is_initialized()
    if first:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    world = World(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))
    yield world, device
    # Not after an error: the others may wait in an exchange that this process will never join.
    if first:
        dist.barrier(group=world.control)  # no process may leave while another is still in an exchange
        object.__setattr__(world, "control", None)  # a group that outlives the interpreter aborts it
        dist.destroy_process_group()
