"""Losses on the predicted fields and on the evolved level set function.

Every loss is a mean over the pixels that count, so that crops of different sizes weigh the same;
``weight`` is 0 on ignored pixels. Lengths are network pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_delse.levelset import values_at


def heaviside(phi: Tensor, epsilon: float) -> Tensor:
    """H_eps(s) = (1 + 2/pi atan(s / eps)) / 2, the paper's smooth step."""
    return 0.5 + torch.atan(phi / epsilon) / torch.pi


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of values (B, C, H, W) under a weight (B, 1, H, W), each object counting the same."""
    weight = weight.expand_as(values)
    total = (values * weight).flatten(1).sum(dim=1)
    return (total / weight.flatten(1).sum(dim=1).clamp_min(1.0)).mean()


def tsdf_loss(phi: Tensor, distance: Tensor, weight: Tensor) -> Tensor:
    """L0: mean squared error of phi_0 against the truncated signed distance, pixel^2."""
    return weighted_mean((phi - distance).square(), weight)


def class_weights(mask: Tensor, weight: Tensor, balance: float = 1.0) -> Tensor:
    """Pixel weights under which object and background count alike in each crop.

    ``balance`` = 0 leaves the weights alone, 1 balances fully (the paper's class-weighted BCE).
    """
    share = (mask * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1.0)
    share = share.clamp(0.02, 0.98)[:, None, None, None]
    balanced = torch.where(mask > 0.5, 0.5 / share, 0.5 / (1 - share))
    return weight * (balance * balanced + (1 - balance))


def mask_loss(phi: Tensor, mask: Tensor, weight: Tensor, scale: float, *, arctan: bool = False) -> Tensor:
    """LT: binary cross entropy of a smooth step of phi against the mask.

    Parameters
    ----------
    phi : Tensor, shape (B, 1, H, W)
        Level set function, or a logit with ``scale`` = 1.
    mask, weight : Tensor, shape (B, 1, H, W)
        Truth (0 or 1) and pixel weights.
    scale : float
        Width of the step: logistic ``sigmoid(phi / scale)``, or the paper's ``H_scale`` with ``arctan``.
    arctan : bool
        Use the paper's Heaviside.
    """
    if arctan:
        # Symmetric in the sign of phi, so no 1 - H that would cancel digits far inside.
        right = heaviside(torch.where(mask > 0.5, phi, -phi), scale)
        values = -right.clamp_min(1e-6).log()
    else:
        values = F.binary_cross_entropy_with_logits(phi / scale, mask, reduction="none")
    return weighted_mean(values, weight)


def overlap_loss(phi: Tensor, mask: Tensor, weight: Tensor, scale: float) -> Tensor:
    """1 - soft IoU of sigmoid(phi / scale): the score itself, made smooth."""
    inside = torch.sigmoid(phi / scale) * weight
    mask = mask * weight
    both = (inside * mask).flatten(1).sum(1)
    either = (inside + mask - inside * mask).flatten(1).sum(1)
    return (1 - (both + 1) / (either + 1)).mean()


def direction_loss(motion: Tensor, directions: Tensor, weight: Tensor) -> Tensor:
    """Ldirect: mean squared angle between V and the unit vectors towards the boundary, radian^2."""
    cosine = (motion * directions).sum(dim=1, keepdim=True)
    sine = motion[:, :1] * directions[:, 1:] - motion[:, 1:] * directions[:, :1]
    # atan2 rather than acos: its slope stays finite where V already points the right way. A V of 0 has no
    # direction; the offset (in pixels, as atan2 does not mind lengths) bounds the slope there by 1000.
    angle = torch.atan2(sine.abs() + 1e-3, cosine)
    known = (directions.square().sum(dim=1, keepdim=True) > 0.25).to(weight)
    return weighted_mean(angle.square(), weight * known)


def drag_loss(phi: Tensor, distance: Tensor, weight: Tensor, ends: Tensor, made: Tensor, scale: float) -> Tensor:
    """How far the contour stays from where it was dragged: mean smooth |phi - distance| at the ends of the drags.

    The truth there is asked for, not 0: a simulated q is the centre of a pixel on the inner side of the boundary, half
    a pixel off, and a model that learns to pass through it puts a dent into the outline at every click. A person's own
    q may lie off the labels, which then count.

    Parameters
    ----------
    phi : Tensor, shape (B, 1, H, W)
        Evolved level set function.
    distance : Tensor, shape (B, 1, H, W)
        True signed distance, network pixels; truncated.
    weight : Tensor, shape (B, 1, H, W)
        0 where the truth is unknown: there a drag ends unheard.
    ends : Tensor, shape (B, K, 2)
        q of every drag, (y, x) in network pixels.
    made : bool Tensor, shape (B, K)
        Which of them exist.
    scale : float
        Distance in network pixels that costs about 1; smaller ones are squared (Huber).
    """
    missed = values_at((phi - distance) / scale, ends)[:, 0]
    known = values_at(weight, ends, "nearest")[:, 0]
    counted = made * known
    costs = F.smooth_l1_loss(missed, torch.zeros_like(missed), reduction="none")
    return (costs * counted).sum() / counted.sum().clamp_min(1)
