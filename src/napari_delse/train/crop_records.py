"""What a person clicked and dragged for packed objects, as tensors: on canvases, and turned with the crops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_delse.data.prompts import ObjectPrompt
from napari_delse.geometry import Crop, ExtremePoints

_CLICKS = 8  # kept per object
CORRECTIONS = 3  # drags kept per object; training makes no more


def no_records(count: int) -> dict[str, Tensor]:
    """The parts of an `ObjectPack` that hold what a person did, for so many objects of which nothing is known."""
    return {
        "prompt": torch.full((count, _CLICKS, 2), torch.inf),
        "boxed": torch.zeros(count, dtype=torch.bool),
        "drags": torch.full((count, CORRECTIONS, 2, 2), torch.inf),
    }


def records(recorded: Sequence[tuple[ObjectPrompt | None, Crop]]) -> dict[str, Tensor]:
    """Recorded prompts on the canvases of their objects."""
    parts = no_records(len(recorded))
    for number, (one, crop) in enumerate(recorded):
        if one is None:
            continue
        clicks = torch.from_numpy(crop.to_network(_clicks_to_keep(one.prompt)))
        parts["prompt"][number, : len(clicks)] = clicks.float()
        parts["boxed"][number] = one.prompt.kind == "box"
        for turn, drag in enumerate(one.corrections[:CORRECTIONS]):
            ends = crop.to_network(np.array([drag.start, drag.end]))
            parts["drags"][number, turn] = torch.from_numpy(ends).float()
    return parts


def _clicks_to_keep(prompt: ExtremePoints) -> npt.NDArray[np.float64]:
    """The clicks that span the box first, then the others as far as there is room."""
    points = np.asarray(prompt.points, dtype=np.float64)
    spanning = [*points.argmin(axis=0), *points.argmax(axis=0)]
    order = list(dict.fromkeys([*map(int, spanning), *range(len(points))]))
    return points[order[:_CLICKS]]


def turned(points: Tensor, spread: Tensor, centre: float, recorded: Tensor) -> Tensor:
    """Recorded points (B, N, 2) as the object is turned; infinity where there are none or they are not used."""
    used = points.isfinite() & recorded[:, None, None]
    moved = torch.einsum("bij,bnj->bni", spread, torch.where(used, points - centre, 0.0))
    return torch.where(used, moved, torch.inf)


def box_of(points: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper corner, (B, 2) each, of recorded clicks (B, 8, 2), or of simulated ones without any."""
    known = said.isfinite()
    low = torch.where(known, said, torch.inf).amin(dim=1)
    high = torch.where(known, said, -torch.inf).amax(dim=1)
    return torch.where(known[:, 0], low, points.amin(dim=1)), torch.where(known[:, 0], high, points.amax(dim=1))


def with_recorded(clicks: Tensor, present: Tensor, said: Tensor, boxed: Tensor) -> tuple[Tensor, Tensor]:
    """Simulated clicks (B, N, 2) with recorded ones (B, 8, 2) in their place where there are any."""
    known = said.isfinite().all(dim=-1)
    used = known[:, :1]
    if not used.any():
        return clicks, present
    missing = said.shape[1] - clicks.shape[1]
    clicks, present = F.pad(clicks, (0, 0, 0, missing)), F.pad(present, (0, missing))
    return (
        torch.where(used[..., None], torch.where(known[..., None], said, 0.0), clicks),
        torch.where(used, known & ~boxed[:, None], present),
    )
