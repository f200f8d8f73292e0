"""Group-relative advantages, per location (SDG §4.2 eq. 5) and per image (Flow-GRPO).

A group is the K samples of one prompt. Samples that could not be scored stay out of its statistics.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sdg.alignment import arrays


def spatial_advantages(
    maps: Tensor,
    groups: Tensor,
    valid: Tensor | None = None,
    eps: float = 1e-6,
    spread: Literal["location", "group", "epoch"] = "location",
) -> Tensor:
    """A_D = (R_D − mean)/(std + eps) at each location, over the samples of a group (SDG §4.2 eq. 5).

    maps: (B, H, W) spatial rewards; groups: (B,) integer ids in any order; valid: (B,) bool, all by
    default. The standard deviation is the sample one (n−1). Invalid rows may hold anything, also NaN;
    they are left out and get 0, and so does every row of a group with fewer than two valid rows. A
    location where all of a group agree gets exactly 0.

    spread: whose standard deviation divides. By eq. 5 it is a location's, which blows the base reward alone
    up to the size of a defect's advantage wherever no sample has a defect. "group" takes the root mean square
    of a group's over all locations, "epoch" that of all valid rows', whatever their group; locations then
    keep their weight relative to each other. Returns (B, H, W), the type of `maps`. Raises ValueError for
    shapes that do not fit and for a valid row that is not finite.
    """
    if maps.ndim != 3:
        raise ValueError(f"Reward maps are (B, H, W), not {tuple(maps.shape)}.")
    return _divided(maps, groups, valid, eps, spread)


def scalar_advantages(
    rewards: Tensor,
    groups: Tensor,
    valid: Tensor | None = None,
    eps: float = 1e-6,
    limit: float | None = None,
    spread: Literal["group", "epoch"] = "group",
) -> Tensor:
    """One advantage an image, as `spatial_advantages` of a map with one location (Flow-GRPO).

    rewards: (B,). spread: whose standard deviation divides, the group's or, as DiffusionNFT does
    (arXiv 2509.16117), that of all valid rewards. limit: clamp to ±limit; the released configuration clamps
    scalar advantages to ±5 and leaves spatial ones alone. Returns (B,), the type of `rewards`.
    """
    if rewards.ndim != 1:
        raise ValueError(f"Scalar rewards are (B,), not {tuple(rewards.shape)}.")
    advantages = _divided(rewards, groups, valid, eps, spread)
    return advantages if limit is None else advantages.clamp(-limit, limit)


def _divided(values: Tensor, groups: Tensor, valid: Tensor | None, eps: float, spread: str) -> Tensor:
    """Deviations from the group's mean over the standard deviation of what `spread` names."""
    deviation, std = group_deviations(values, groups, valid)
    if spread == "epoch":
        _, std = group_deviations(values, torch.zeros_like(groups), valid)
    if spread != "location" and values.ndim > 1:
        std = std.square().mean(tuple(range(1, values.ndim)), keepdim=True).sqrt()
    return deviation.div_(std.add_(eps)).to(values)


def group_deviations(values: Tensor, groups: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Each row's deviation from its group's mean, and its group's sample standard deviation.

    values: (B, …), any trailing shape. Returns two float64 tensors of that shape, on the CPU; see
    `sdg.alignment.arrays.group_deviations`, which computes them.
    """
    groups, valid = _check(values, groups, valid)
    rows = values.detach().cpu().double().numpy()
    found = arrays.group_deviations(rows, groups.cpu().numpy(), valid.cpu().numpy())
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _check(values: Tensor, groups: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Groups and validity as (B,) tensors beside `values`; raises ValueError where they do not fit."""
    rows = len(values)
    if not values.is_floating_point():
        raise ValueError(f"Rewards are floating-point numbers, not {values.dtype}.")
    groups = torch.as_tensor(groups, device=values.device)
    if groups.shape != (rows,) or groups.is_floating_point() or groups.is_complex():
        raise ValueError(f"Group ids are {rows} integers, not {groups.dtype} of shape {tuple(groups.shape)}.")
    if valid is None:
        valid = torch.ones(rows, dtype=torch.bool, device=values.device)
    valid = torch.as_tensor(valid, device=values.device)
    if valid.shape != (rows,) or valid.dtype != torch.bool:
        raise ValueError(f"Validity is {rows} booleans, not {valid.dtype} of shape {tuple(valid.shape)}.")
    if not torch.isfinite(values[valid]).all():
        raise ValueError("A valid row's reward is not finite; mark rows that could not be scored as invalid.")
    return groups, valid
