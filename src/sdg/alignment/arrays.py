"""Spatial rewards and advantages of numpy arrays alone, for trainers with no other use for this package.

`reward_map` and `advantages` are these for tensors (SDG §4.2 eq. 4 and 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdg.defects import Defect, DefectType
from sdg.geometry import RasterMode, rasterize

A = TypeVar("A", bound=Any)

NO_IMPORTANCE: Final = 100
"""Stands in for an importance that is not known, here alone: such a defect weighs 1, as in the code released
with the paper, so that a detector which gives no importances lowers the reward. Elsewhere it is
`sdg.defects.UNKNOWN_IMPORTANCE`."""


def weight_maps(
    defect_sets: Sequence[Sequence[Defect] | None], grid: tuple[int, int], mode: RasterMode = "touch"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """W_art and W_mis of many images, each (B, H, W) from 0 to 1; NaN where a set is None (SDG eq. 4)."""
    maps = importance_maps(defect_sets, grid, mode) / 100.0
    pairs = maps.reshape(-1, 2, *grid)
    pairs[[image for image, one in enumerate(defect_sets) if one is None]] = np.nan
    return pairs[:, 0], pairs[:, 1]


def numpy_advantages(
    rewards: ArrayLike,
    artifact: ArrayLike,
    misalignment: ArrayLike,
    groups: ArrayLike,
    c_artifact: float = 0.5,
    c_misalignment: float = 0.05,
    eps: float = 1e-6,
) -> NDArray[np.float64]:
    """A_D of each image at each location, from scalar rewards and the maps W (SDG §4.2 eq. 4 and 5).

    rewards: (B,) base rewards R; artifact, misalignment: (B, H, W), from 0 to 1, as `weight_maps` and
    `/v1/reward` of `sdg serve` give them; groups: (B,) integers, by prompt. Per group α_t = c_t·σ_R,
    R_D = R − α_art·W_art − α_mis·W_mis, and A_D = (R_D − mean)/(std + eps) at each location; all standard
    deviations are sample ones (n−1). A row whose reward or map is not finite is left out and gets 0, and so
    does every row of a group with fewer than two others. Returns (B, H, W). Raises ValueError for shapes
    that do not fit.
    """
    scalar, ids = np.asarray(rewards, np.float64), np.asarray(groups)
    maps = np.asarray(artifact, np.float64), np.asarray(misalignment, np.float64)
    if scalar.ndim != 1 or ids.shape != scalar.shape or ids.dtype.kind not in "iu":
        raise ValueError(f"Rewards and integer groups are (B,), not {scalar.shape} and {ids.shape}.")
    if any(one.ndim != 3 or one.shape != maps[0].shape or len(one) != len(scalar) for one in maps):
        raise ValueError(f"Maps are ({len(scalar)}, H, W), not {maps[0].shape} and {maps[1].shape}.")
    known = np.isfinite(scalar) & np.isfinite(maps[0]).all((1, 2)) & np.isfinite(maps[1]).all((1, 2))
    sigma = group_deviations(scalar, ids, known)[1][:, None, None]
    spatial = penalized(scalar[:, None, None], maps, (c_artifact * sigma, c_misalignment * sigma))
    deviation, std = group_deviations(spatial, ids, known)
    return deviation / (std + eps)


def penalized(scalar: A, weights: tuple[A, A], alpha: tuple[A, A]) -> A:
    """R − α_art·W_art − α_mis·W_mis, of arrays or of tensors whose shapes go together (SDG §4.2 eq. 4)."""
    return scalar - alpha[0] * weights[0] - alpha[1] * weights[1]


def group_deviations(
    values: NDArray[np.floating], groups: NDArray[np.integer], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each row's deviation from its group's mean, and its group's sample standard deviation.

    values: (B, …), any trailing shape; groups: (B,); valid: (B,). Returns two arrays of that shape.
    Deviations are 0 in invalid rows, which may hold anything; both are 0 in groups with fewer than two valid
    rows.

    Values are first taken relative to one member of their group, in float64: subtracting equal numbers
    is exact, so a constant group has deviation and standard deviation exactly 0, where the usual
    x − mean leaves rounding noise that a division by a tiny eps would turn into a reward.
    """
    deviation, std = np.zeros(values.shape), np.zeros(values.shape)
    rows = np.flatnonzero(valid)
    rows = rows[np.argsort(groups[rows], kind="stable")]  # each group's valid rows side by side
    ids, first, count = np.unique(groups[rows], return_index=True, return_counts=True)
    for size in np.unique(count[count > 1]):  # all groups of a size at once
        alike = np.flatnonzero(count == size)
        members = rows[first[alike][:, None] + np.arange(size)]
        own = values[members].astype(np.float64)  # (groups, size, …)
        own -= own[:, :1].copy()
        own -= own.mean(1, keepdims=True)
        deviation[members] = own
        own *= own
        spread = np.sqrt(own.sum(1) / (size - 1))
        everyone = np.isin(groups, ids[alike])  # invalid rows of these groups, too
        std[everyone] = spread[np.searchsorted(ids[alike], groups[everyone])]
    return deviation, std


def severity_of(defects: Sequence[Defect]) -> float:
    """Sum of the importances over 100: a picture's defects as one number."""
    return sum(NO_IMPORTANCE if one.importance is None else one.importance for one in defects) / 100


def importance_maps(
    defect_sets: Sequence[Sequence[Defect] | None], grid: tuple[int, int], mode: RasterMode = "touch"
) -> NDArray[np.uint8]:
    """Largest importance, 0 to 100, at each location, (2·B, H, W): artifacts, misalignments by turns."""
    table = _table(defect_sets)
    percent = np.zeros((2 * len(defect_sets), *grid), dtype=np.uint8)
    if len(table):
        table = table[np.argsort(table[:, 0], kind="stable")]
        target = table[:, 0]
        painted = rasterize(table[:, 2:], grid, mode) * table[:, 1, None, None].astype(np.uint8)  # (N, H, W)
        # Round k takes the k-th box of every map at once, so rounds are as many as one map has boxes.
        _, first, count = np.unique(target, return_index=True, return_counts=True)
        turn = np.arange(len(target)) - np.repeat(first, count)
        for k in range(count.max()):
            now = turn == k
            percent[target[now]] = np.maximum(percent[target[now]], painted[now])
    return percent


def _table(defect_sets: Sequence[Sequence[Defect] | None]) -> NDArray[np.int64]:
    """One row a defect: its map, image·2 + (0 for an artifact, 1 for a misalignment), importance and box."""
    rows = [
        (
            2 * image + (defect.type is DefectType.MISALIGNMENT),
            NO_IMPORTANCE if defect.importance is None else defect.importance,
            *defect.box,
        )
        for image, defects in enumerate(defect_sets)
        for defect in defects or ()
    ]
    return np.array(rows, np.int64).reshape(-1, 6)
