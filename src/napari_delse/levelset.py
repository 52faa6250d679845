"""Level set functions on tensors: signed distance, curvature, regularisation and evolution.

All functions take and return tensors of shape (B, C, H, W), are differentiable, work on any device
and treat the border as Neumann (replicated), because otherwise the contour leaks out of the crop.
phi > 0 inside the object; vector fields have channels (y, x); lengths are in grid pixels.

References
----------
.. [1] Wang et al., Object Instance Annotation with Deep Extreme Level Set Evolution, CVPR 2019.
.. [2] Li et al., Distance Regularized Level Set Evolution and Its Application to Image
       Segmentation, 2010, doi:10.1109/TIP.2010.2069690
.. [3] Osher & Fedkiw, Level Set Methods and Dynamic Implicit Surfaces, 2003, doi:10.1007/b98879
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_delse.evolution import EvolutionConfig as EvolutionConfig

_TINY = 1e-6  # |grad phi|^2 below this counts as flat; keeps every division finite


def _require_field(name: str, tensor: Tensor, channels: int) -> None:
    if tensor.ndim != 4 or tensor.shape[1] != channels:
        raise ValueError(f"{name} must have shape (B, {channels}, H, W), got {tuple(tensor.shape)}")


def _pad(field: Tensor) -> Tensor:
    return F.pad(field, (1, 1, 1, 1), mode="replicate")


def _central(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along y and x of a field padded by one pixel."""
    d_y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    d_x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    return d_y, d_x


def _second(padded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Second differences (yy, xx, yx) of a field padded by one pixel."""
    centre = padded[..., 1:-1, 1:-1]
    d_yy = padded[..., 2:, 1:-1] - 2 * centre + padded[..., :-2, 1:-1]
    d_xx = padded[..., 1:-1, 2:] - 2 * centre + padded[..., 1:-1, :-2]
    d_yx = (padded[..., 2:, 2:] - padded[..., 2:, :-2] - padded[..., :-2, 2:] + padded[..., :-2, :-2]) / 4
    return d_yy, d_xx, d_yx


def gradient(phi: Tensor) -> Tensor:
    """Central differences of a level set function.

    Parameters
    ----------
    phi : Tensor, shape (B, 1, H, W)
        Level set function.

    Returns
    -------
    Tensor, shape (B, 2, H, W)
        Derivatives along y and x.
    """
    _require_field("phi", phi, 1)
    return torch.cat(_central(_pad(phi)), dim=1)


def _bent(phi_y: Tensor, phi_x: Tensor, phi_yy: Tensor, phi_xx: Tensor, phi_yx: Tensor) -> Tensor:
    """|grad phi|^3 times the curvature."""
    return phi_xx * phi_y.square() - 2 * phi_y * phi_x * phi_yx + phi_yy * phi_x.square()


def curvature(phi: Tensor) -> Tensor:
    """Curvature div(grad phi / |grad phi|) of the level lines.

    Parameters
    ----------
    phi : Tensor, shape (B, 1, H, W)
        Level set function in grid pixels, positive inside.

    Returns
    -------
    Tensor, shape (B, 1, H, W)
        1/pixel; -1/r on a disk of radius r; 0 where phi is flat.

    Raises
    ------
    ValueError
        If phi does not have shape (B, 1, H, W).
    """
    _require_field("phi", phi, 1)
    padded = _pad(phi)
    phi_y, phi_x = _central(padded)
    squared = phi_y.square() + phi_x.square() + _TINY
    return _bent(phi_y, phi_x, *_second(padded)) / (squared * squared.sqrt())


def _diffusion_rate(slope: Tensor) -> Tensor:
    """p'(s) / s of the double-well potential, with its limit 1 at s = 0 (eq. 16 of [2]_)."""
    safe = slope.clamp_min(1e-4)  # sin(2 pi s) / (2 pi s) is 1 to 7 digits there
    inner = torch.sin(2 * torch.pi * safe) / (2 * torch.pi * safe)
    return torch.where(slope <= 1, inner, (safe - 1) / safe)


def _regularise(phi_y: Tensor, phi_x: Tensor, laplacian: Tensor) -> Tensor:
    # div(d grad phi) = div((d - 1) grad phi) + laplacian: the compact laplacian couples neighbouring
    # pixels, which wide central differences alone would leave to oscillate.
    slope = (phi_y.square() + phi_x.square() + 1e-12).sqrt()
    rate = _diffusion_rate(slope) - 1
    flux_yy, _ = _central(_pad(rate * phi_y))
    _, flux_xx = _central(_pad(rate * phi_x))
    return flux_yy + flux_xx + laplacian


def distance_regularisation(phi: Tensor) -> Tensor:
    """Distance regularisation div(p'(|grad phi|) / |grad phi| * grad phi) of DRLSE.

    It drives |grad phi| to 1 near the contour and to 0 on plateaus.

    Parameters
    ----------
    phi : Tensor, shape (B, 1, H, W)
        Level set function in grid pixels.

    Returns
    -------
    Tensor, shape (B, 1, H, W)
        Its rate of change; 0 for constant phi and for planes of slope 1.
    """
    _require_field("phi", phi, 1)
    padded = _pad(phi)
    phi_y, phi_x = _central(padded)
    phi_yy, phi_xx, _ = _second(padded)
    return _regularise(phi_y, phi_x, phi_yy + phi_xx)


def evolution_step(phi: Tensor, motion: Tensor, modulation: Tensor, config: EvolutionConfig) -> Tensor:
    """One explicit step phi + dt * dphi/dt of eq. 9; see `evolve`."""
    padded = _pad(phi)
    phi_y, phi_x = _central(padded)
    phi_yy, phi_xx, phi_yx = _second(padded)
    rate = -(motion[:, :1] * phi_y + motion[:, 1:] * phi_x)
    if config.curvature:
        squared = phi_y.square() + phi_x.square() + _TINY
        rate = rate + config.curvature * modulation * _bent(phi_y, phi_x, phi_yy, phi_xx, phi_yx) / squared
    if config.mu:
        rate = rate + config.mu * _regularise(phi_y, phi_x, phi_yy + phi_xx)
    return phi + config.dt * rate


def evolve(phi: Tensor, motion: Tensor, modulation: Tensor, config: EvolutionConfig) -> list[Tensor]:
    """Evolve a level set function under a motion field (eq. 4 and 9).

    dphi/dt = - <V, grad phi> + lambda m |grad phi| div(grad phi / |grad phi|)
              + mu div(p'(|grad phi|) / |grad phi| grad phi)

    Parameters
    ----------
    phi : Tensor, shape (B, 1, H, W)
        Initial level set function, positive inside, in grid pixels.
    motion : Tensor, shape (B, 2, H, W)
        V: velocity (y, x) of the contour in grid pixels per unit time.
    modulation : Tensor, shape (B, 1, H, W)
        m in [0, 1]: where the curvature term acts.
    config : EvolutionConfig
        T, dt, lambda and mu.

    Returns
    -------
    list of Tensor, T + 1 entries of shape (B, 1, H, W)
        phi_0 .. phi_T, in float32 (float64 for float64 input) also under autocast.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    _require_field("phi", phi, 1)
    _require_field("motion", motion, 2)
    _require_field("modulation", modulation, 1)
    if not phi.shape == modulation.shape == (motion.shape[0], 1, *motion.shape[2:]):
        raise ValueError(
            f"phi {tuple(phi.shape)}, motion {tuple(motion.shape)} and modulation {tuple(modulation.shape)} "
            "must match in (B, H, W)"
        )
    exact = torch.float64 if phi.dtype == torch.float64 else torch.float32
    device = phi.device.type
    # MPS refuses even to switch autocast off before torch 2.5, where there is none to switch off.
    with torch.autocast(device, enabled=False) if device in ("cpu", "cuda") else nullcontext():
        states = [phi.to(exact)]
        motion, modulation = motion.to(exact), modulation.to(exact)
        for _ in range(config.steps):
            states.append(evolution_step(states[-1], motion, modulation, config))
    return states


def signed_distance(mask: Tensor, truncation: int) -> Tensor:
    """Truncated signed distance (TSDF) to the boundary of a mask, positive inside (eq. 5).

    The boundary runs between the pixels: the two pixels beside it are at +0.5 and -0.5. Exact
    Euclidean distances, by a lower envelope that need not look further than the truncation.

    Parameters
    ----------
    mask : Tensor, shape (B, 1, H, W)
        Non-zero inside the object.
    truncation : int
        D, in grid pixels; distances are cut at +-D.

    Returns
    -------
    float32 Tensor, shape (B, 1, H, W)
        In [-D, D]; -D everywhere for an empty mask, D for a full one. The border of the grid is no
        boundary of the object.
    """
    _require_field("mask", mask, 1)
    if truncation < 1:
        raise ValueError(f"truncation must be at least 1 pixel, got {truncation}")
    inside = mask != 0
    seeds = torch.cat([inside, ~inside], dim=1)  # distance to the object, distance to the background
    reach = truncation + 1  # half a pixel is subtracted below
    column = torch.arange(mask.shape[-1], device=mask.device, dtype=torch.float32).expand(seeds.shape)
    infinity = torch.full_like(column, float("inf"))
    left = torch.where(seeds, column, -infinity).cummax(dim=-1).values
    right = torch.where(seeds, column, infinity).flip(-1).cummin(dim=-1).values.flip(-1)
    # Squares of whole numbers: the small type halves the memory that the long minimum below runs through.
    whole = torch.int16 if 2 * (reach + 1) ** 2 < 2**15 else torch.int32
    along_x = torch.minimum(column - left, right - column).clamp_max(reach + 1).square().to(whole)
    height = mask.shape[-2]
    padded = F.pad(along_x, (0, 0, reach, reach), value=(reach + 1) ** 2)
    best = along_x.clone()
    for offset in range(1, reach + 1):
        above, below = (padded.narrow(-2, reach + side, height) for side in (-offset, offset))
        torch.minimum(best, torch.minimum(above, below).add_(offset**2), out=best)
    distance = best.float().sqrt() - 0.5
    signed = torch.where(inside, distance[:, 1:], -distance[:, :1])
    return signed.clamp(-truncation, truncation)


def boundary_directions(distance: Tensor) -> Tensor:
    """U_gt = -grad DT / |grad DT|: unit vectors that point to the true boundary from both sides (eq. 13).

    Parameters
    ----------
    distance : Tensor, shape (B, 1, H, W)
        Signed distance, positive inside.

    Returns
    -------
    Tensor, shape (B, 2, H, W)
        (y, x) unit vectors; 0 where the distance is flat (truncated).
    """
    grad = gradient(distance)
    length = grad.square().sum(dim=1, keepdim=True).sqrt()
    return torch.where(length > 1e-3, -torch.sign(distance) * grad / length.clamp_min(1e-3), torch.zeros_like(grad))


def values_at(field: Tensor, points: Tensor, mode: str = "bilinear") -> Tensor:
    """Values of a field at points between its pixels; beyond its border those of the border.

    Parameters
    ----------
    field : Tensor, shape (B, C, H, W)
        Any field.
    points : Tensor, shape (B, K, 2)
        (y, x) in pixels, 0 at the centre of the first one.
    mode : str
        "bilinear" or "nearest".

    Returns
    -------
    Tensor, shape (B, C, K)
    """
    sides = torch.tensor(field.shape[-2:], device=points.device, dtype=points.dtype)
    where = ((2 * points + 1) / sides - 1).flip(-1)[:, None]  # (x, y); -1 and 1 are the outer edges
    return F.grid_sample(field, where, mode=mode, padding_mode="border", align_corners=False)[:, :, 0]
