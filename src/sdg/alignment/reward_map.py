"""The spatial reward: a scalar reward, lowered where defects lie (SDG §4.2 eq. 4).

    R_D(h,w) = R − α_art·W_art(h,w) − α_mis·W_mis(h,w)

W_t is the importance, 0–1, of the worst defect of type t at a latent location. Many images are rasterised
at once; a box touches every cell it overlaps, so that one thinner than a cell still counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdg.alignment import arrays
from sdg.alignment.advantages import group_deviations
from sdg.alignment.arrays import importance_maps
from sdg.defects import Defect
from sdg.geometry import RasterMode


def spatial_reward(
    defects: Sequence[Defect],
    scalar: float | Tensor,
    grid: tuple[int, int],
    alpha_artifact: float | Tensor,
    alpha_misalignment: float | Tensor,
    mode: RasterMode = "touch",
) -> Tensor:
    """R_D of one image: its scalar reward minus the penalties of its defects (SDG §4.2 eq. 4).

    grid: (H, W), the model's own latent height and width; mode: as in `sdg.geometry.rasterize`, "truncate"
    for parity with the released code. Returns an (H, W) tensor.
    """
    scalars = torch.as_tensor(scalar).reshape(1)
    return spatial_rewards([defects], scalars, grid, alpha_artifact, alpha_misalignment, mode)[0]


def spatial_rewards(
    defect_sets: Sequence[Sequence[Defect] | None],
    scalars: Tensor,
    grid: tuple[int, int],
    alpha_artifact: float | Tensor,
    alpha_misalignment: float | Tensor,
    mode: RasterMode = "touch",
) -> Tensor:
    """`spatial_reward` of many images at once.

    defect_sets: B sets of defects, None where the detector failed; scalars: (B,); the alphas: numbers
    or (B,), from `alphas`. Returns (B, H, W) on the device of `scalars`. A row whose defects or whose scalar
    (NaN) are unknown is NaN, so that it can never pass for a clean image.
    """
    weights = batch_defect_weights(defect_sets, grid, mode)
    return penalized(scalars, weights, (alpha_artifact, alpha_misalignment))


def penalized(
    scalars: Tensor, weights: tuple[Tensor, Tensor], alpha: tuple[float | Tensor, float | Tensor]
) -> Tensor:
    """R − α_art·W_art − α_mis·W_mis at each location; scalars: (B,), weights: two (B, H, W)."""
    if not isinstance(scalars, Tensor) or scalars.shape != (len(weights[0]),):
        raise ValueError(f"{len(weights[0])} images need as many scalar rewards in one tensor.")
    if not scalars.is_floating_point():
        scalars = scalars.to(torch.get_default_dtype())
    maps = weights[0].to(scalars), weights[1].to(scalars)
    factors = _per_image(alpha[0], scalars), _per_image(alpha[1], scalars)
    return arrays.penalized(scalars[:, None, None], maps, factors)


def defect_weights(
    defects: Sequence[Defect], grid: tuple[int, int], mode: RasterMode = "touch"
) -> tuple[Tensor, Tensor]:
    """W_art and W_mis of one image, each (H, W): the largest importance/100 of the boxes at a cell, or 0.

    A defect without an importance weighs 1.
    """
    artifact, misalignment = batch_defect_weights([defects], grid, mode)
    return artifact[0], misalignment[0]


def batch_defect_weights(
    defect_sets: Sequence[Sequence[Defect] | None], grid: tuple[int, int], mode: RasterMode = "touch"
) -> tuple[Tensor, Tensor]:
    """W_art and W_mis of many images, each (B, H, W) float32 on the CPU; NaN where a set is None."""
    percent = importance_maps(defect_sets, grid, mode)
    return maps_by_type(torch.from_numpy(percent) / 100, defect_sets)


def maps_by_type(maps: Tensor, defect_sets: Sequence[Sequence[Defect] | None]) -> tuple[Tensor, Tensor]:
    """Maps (2·B, H, W) as those of artifacts and of misalignments; NaN where nothing is known."""
    pairs = maps.unflatten(0, (len(defect_sets), 2))
    unknown = [image for image, defects in enumerate(defect_sets) if defects is None]
    pairs[unknown] = torch.nan
    return pairs[:, 0], pairs[:, 1]


def alphas(
    rewards: Tensor,
    groups: Tensor,
    valid: Tensor | None = None,
    c_artifact: float = 0.5,
    c_misalignment: float = 0.05,
) -> tuple[Tensor, Tensor]:
    """α_art = c_art·σ_R and α_mis = c_mis·σ_R, so that penalties follow the scale of the base reward.

    rewards: (B,) base rewards; groups: (B,) integer ids; valid: (B,) bool, all by default. σ_R is the
    sample standard deviation (n−1) of the valid rewards of a row's group, 0 below two. Returns two (B,)
    tensors, the type of `rewards`. Raises ValueError as `spatial_advantages` does.
    """
    if rewards.ndim != 1:
        raise ValueError(f"Base rewards are (B,), not {tuple(rewards.shape)}.")
    sigma = group_deviations(rewards, groups, valid)[1].to(rewards)
    return c_artifact * sigma, c_misalignment * sigma


def _per_image(alpha: float | Tensor, scalars: Tensor) -> Tensor:
    """A weight against (B, H, W) maps: one number, or one an image."""
    weight = torch.as_tensor(alpha).to(scalars)
    if weight.ndim and weight.shape != scalars.shape:
        raise ValueError(f"A penalty's weight is one number or {len(scalars)}, not {tuple(weight.shape)}.")
    return weight[:, None, None] if weight.ndim else weight
