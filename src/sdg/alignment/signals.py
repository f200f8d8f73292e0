"""From an epoch's scores to its training signal: who takes part, and every sample's advantages.

Everything here is over the whole epoch, on all processes alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdg.alignment.advantages import scalar_advantages, spatial_advantages
from sdg.alignment.heat import heat_maps
from sdg.alignment.recipe import Method, OptimizerRecipe, RewardRecipe
from sdg.alignment.reward_map import alphas, spatial_rewards
from sdg.alignment.scoring import Score
from sdg.defects import Defect


@dataclass(frozen=True)
class Signal:
    """What the objective of N samples needs, rows as in the scores given."""

    valid: Tensor  # (N,) bool: scored, as far as the method needs it
    rewards: Tensor  # (N,) float64, NaN where missing
    advantages: Tensor  # (N, H, W) for boxflow, else (N,); 0 in invalid rows
    maps: Tensor | None  # (N, H, W) spatial rewards R_D, for boxflow
    heat: Tensor | None  # (N, H, W), for denseflow; 0 in invalid rows


def training_signal(
    method: Method,
    scores: Sequence[Score],
    groups: Tensor,
    grid: tuple[int, int],
    reward: RewardRecipe,
    optimizer: OptimizerRecipe,
) -> Signal:
    """Advantages by one of the three methods; groups: (N,) integer ids of the samples' prompts."""
    rewards = torch.tensor([torch.nan if s.reward is None else s.reward for s in scores], dtype=torch.float64)
    valid = rewards.isfinite()
    eps, limit = optimizer.advantage_eps, optimizer.advantage_limit
    if method == "flow-grpo":
        advantages = scalar_advantages(rewards, groups, valid, eps, limit)
        return Signal(valid, rewards, advantages.float(), None, None)

    valid &= torch.tensor([score.diagnosis is not None for score in scores])
    defects: list[Sequence[Defect] | None] = [
        None if score.diagnosis is None else score.diagnosis.defects for score in scores
    ]
    if method == "denseflow":
        heat = heat_maps(defects, grid, reward.heat, reward.raster)
        heat[~valid] = 0.0
        advantages = scalar_advantages(rewards, groups, valid, eps, limit)
        return Signal(valid, rewards, advantages.float(), None, heat)

    weights = alphas(rewards, groups, valid, reward.c_artifact, reward.c_misalignment)
    maps = spatial_rewards(defects, rewards, grid, *weights, reward.raster, reward.reach)
    spatial = spatial_advantages(maps, groups, valid, eps, optimizer.advantage_spread)
    return Signal(valid, rewards, spatial.float(), maps.float(), None)


def epoch_values(signal: Signal, scores: Sequence[Score]) -> dict[str, float | int | None]:
    """What an epoch's scores were like, for the log."""
    known = signal.rewards[signal.rewards.isfinite()]
    found = [score.diagnosis for score in scores if score.diagnosis is not None]
    defects = [defect for diagnosis in found for defect in diagnosis.defects]
    return {
        "reward": float(known.mean()) if len(known) else None,
        "reward_std": float(known.std()) if len(known) > 1 else None,
        "defects": len(defects) / len(found) if found else None,
        "without_importance": sum(defect.importance is None for defect in defects),  # weigh as 100
        "valid": int(signal.valid.sum()),
        "samples": len(scores),
        "failed_reward": sum(score.reward is None for score in scores),
        "failed_detector": sum(score.diagnosis is None for score in scores) if found else 0,
    }
