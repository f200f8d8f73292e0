"""The spatial reward: a scalar reward, lowered where defects lie (SDG §4.2 eq. 4).

    R_D(h,w) = R − α_art·W_art(h,w) − α_mis·W_mis(h,w)

W_t is the importance, 0–1, of the worst defect of type t at a latent location. Many images are rasterised
at once; a box touches every cell it overlaps, so that one thinner than a cell still counts.

Another map is made of the same detections: heat for DenseFlow-GRPO. That was published with a model that
predicts heat maps; drawing them from boxes compares the two uses of a map, as a reward and as a mask, with
everything else equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sdg.alignment.advantages import group_deviations
from sdg.alignment.arrays import importance_maps, penalized
from sdg.defects import Defect, Diagnosis
from sdg.geometry import RasterMode

CELL: Final = 8
"""Pixels a side of a cell of `drawn_heat`."""


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
    if not isinstance(scalars, Tensor) or scalars.shape != (len(defect_sets),):
        raise ValueError(f"{len(defect_sets)} images need as many scalar rewards in one tensor.")
    if not scalars.is_floating_point():
        scalars = scalars.to(torch.get_default_dtype())
    artifact, misalignment = batch_defect_weights(defect_sets, grid, mode)
    maps = artifact.to(scalars), misalignment.to(scalars)
    factors = _per_image(alpha_artifact, scalars), _per_image(alpha_misalignment, scalars)
    return penalized(scalars[:, None, None], maps, factors)


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
    pairs = (torch.from_numpy(percent) / 100).unflatten(0, (len(defect_sets), 2))
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


def heat_maps(
    defect_sets: Sequence[Sequence[Defect] | None],
    grid: tuple[int, int],
    kind: Literal["artifact", "misalignment", "both"] = "artifact",
    mode: RasterMode = "touch",
) -> Tensor:
    """H in [0, 1] at each location: W_t, or the larger of the two types.

    defect_sets: B sets of defects, None where the detector failed: NaN in that row, to be left out of the
    loss. The publications do not say which map masks the loss; artifact is our default. Returns (B, H, W).
    """
    artifact, misalignment = batch_defect_weights(defect_sets, grid, mode)
    if kind == "artifact":
        return artifact
    if kind == "misalignment":
        return misalignment
    if kind == "both":
        return torch.maximum(artifact, misalignment)
    raise ValueError(f"Heat shows 'artifact', 'misalignment' or 'both', not {kind!r}.")


def drawn_heat(
    picture: Image.Image, prompt: str, found: Diagnosis
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Detections as heat maps of artifacts and of misalignments, (h, w) in cells of CELL pixels."""
    grid = (max(1, picture.height // CELL), max(1, picture.width // CELL))
    artifact, misalignment = defect_weights(found.defects, grid)
    return artifact.numpy(), misalignment.numpy()


def _per_image(alpha: float | Tensor, scalars: Tensor) -> Tensor:
    """A weight against (B, H, W) maps: one number, or one an image."""
    weight = torch.as_tensor(alpha).to(scalars)
    if weight.ndim and weight.shape != scalars.shape:
        raise ValueError(f"A penalty's weight is one number or {len(scalars)}, not {tuple(weight.shape)}.")
    return weight[:, None, None] if weight.ndim else weight
