"""The objectives: clipped, per location (SDG §4.2 eq. 6), its two baselines, and the forward process's.

ρ = exp(log_prob − old_log_prob) is the likelihood ratio at a location. Rows are (sample, step) pairs;
invalid rows take no part, neither in the value nor in the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""|log ρ| is cut here, far outside any clip range: an infinite ρ times an advantage of 0 would be NaN."""


def boxflow_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    clip: float,
    valid: Tensor | None = None,
    *,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """−J of BoxFlow-GRPO: minus the mean of min(ρ·A, clip(ρ, 1−ε, 1+ε)·A) (SDG §4.2 eq. 6).

    log_prob, old_log_prob, advantages: (B, H, W), or (B, L) tokens, all the same shape; clip: ε;
    valid: (B,) bool, all by default. Mean over locations, then over valid rows; 0 without any.
    denominator: what to divide the sum over rows by instead of this batch's number of valid rows, see
    `mean_over_valid`. Returns a scalar. Raises ValueError for shapes that do not fit.
    """
    if advantages.shape != log_prob.shape:
        raise ValueError(
            f"Advantages {tuple(advantages.shape)} and log-probabilities {tuple(log_prob.shape)} differ in "
            "shape; to_grid and to_tokens convert between tokens and the grid."
        )
    log_prob, old_log_prob, advantages = _valid_rows(valid, log_prob, old_log_prob, advantages)
    objective = _clipped(log_prob, old_log_prob, advantages, clip)
    return -mean_over_valid(objective, denominator=denominator)


def flow_grpo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    clip: float,
    valid: Tensor | None = None,
    *,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Flow-GRPO's loss: one advantage an image, `advantages` (B,); the rest as in `boxflow_loss`.

    It differs from BoxFlow-GRPO in the advantage only, and equals it exactly, value and gradient, where the
    map is constant. As published it has one ratio an image, from the mean log-probability over locations,
    whose gradient is the same where ρ = 1, at the first step after a roll-out.
    """
    constant = _constant_map(advantages, log_prob)
    return boxflow_loss(log_prob, old_log_prob, constant, clip, valid, denominator=denominator)


def denseflow_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    heat: Tensor,
    clip: float,
    valid: Tensor | None = None,
    *,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """DenseFlow-GRPO's loss: one advantage an image, and a heat map that masks it, ∝ −A·ρ·(1−H).

    advantages: (B,); heat: the shape of log_prob, in [0, 1]. The clip of eq. 6 applies to ρ·A before the
    mask (ImageDoctor, arXiv 2510.01010); the mean is over all locations, masked or not. The rest as in
    `boxflow_loss`.
    """
    constant = _constant_map(advantages, log_prob)
    if heat.shape != log_prob.shape:
        raise ValueError(
            f"Heat maps {tuple(heat.shape)} and log-probabilities {tuple(log_prob.shape)} differ in shape."
        )
    log_prob, old_log_prob, constant, heat = _valid_rows(valid, log_prob, old_log_prob, constant, heat)
    if not ((heat >= 0) & (heat <= 1)).all():
        raise ValueError("Heat lies between 0 and 1.")
    objective = _clipped(log_prob, old_log_prob, constant, clip) * (1 - heat)
    return -mean_over_valid(objective, denominator=denominator)


def nft_loss(
    v: Tensor,
    v_old: Tensor,
    x_t: Tensor,
    x_0: Tensor,
    t: float | Tensor,
    r: Tensor,
    beta: float,
    advantage_limit: float,
    valid: Tensor | None = None,
    channel_dim: int = -1,
    *,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """DiffusionNFT's loss on the forward process (arXiv 2509.16117), weighted per location where r is a map.

    With v⁺ = β·v + (1−β)·v_old, v⁻ = (1+β)·v_old − β·v and x̂± = x_t − t·v±, each row has
    advantage_limit/β · mean(r·|x̂⁺ − x_0|²/w⁺ + (1−r)·|x̂⁻ − x_0|²/w⁻), squares averaged over the channels of
    a location; w± is the row's mean |x̂± − x_0|, detached and at least 1e-5.

    v, v_old: velocities at (x_t, t) of the model that is trained and of the one that drew, (B, L, C) tokens
    or (B, C, H, W) with channel_dim 1, as x_t and the drawn latents x_0; t: noise level, one or (B,).
    r: optimality probability in [0, 1], (B,) for one a picture or (B, H, W) for one a location, which is
    the same where the map is constant. valid, denominator: as in `boxflow_loss`. Returns a scalar, whose
    gradient at v = v_old is (2r − 1) times that of flow matching. Raises ValueError where shapes differ.
    """
    if not v.shape == v_old.shape == x_t.shape == x_0.shape:
        raise ValueError(
            f"Velocities {tuple(v.shape)} and {tuple(v_old.shape)} and latents {tuple(x_t.shape)} and "
            f"{tuple(x_0.shape)} differ in shape."
        )
    if beta <= 0 or advantage_limit <= 0:
        raise ValueError(f"beta and advantage_limit are above 0, not {beta} and {advantage_limit}.")
    level = torch.as_tensor(t, dtype=v.dtype, device=v.device)
    level = level.expand(len(v)) if level.ndim == 0 else level
    v, v_old, x_t, x_0, level, r = _valid_rows(valid, v, v_old, x_t, x_0, level, r)
    v_old, x_0, r = v_old.detach(), x_0.detach(), r.detach().to(v.dtype)
    level = level.view(-1, *[1] * (v.ndim - 1))

    def error(velocity: Tensor) -> Tensor:
        """(B, locations): squared distance of the predicted latents from the drawn ones, over w."""
        distance = x_t - level * velocity - x_0
        weight = distance.detach().abs().flatten(1).mean(1).clamp(min=1e-5)
        return distance.square().mean(channel_dim).flatten(1) / weight[:, None]

    positive = error(beta * v + (1 - beta) * v_old)
    negative = error((1 + beta) * v_old - beta * v)
    probability = r[:, None] if r.ndim == 1 else r.flatten(1)
    if len(r) != len(v) or probability.shape[1] not in (1, positive.shape[1]):
        raise ValueError(f"r has one value a row or a location, not the shape {tuple(r.shape)}.")
    rows = (probability * positive + (1 - probability) * negative) * (advantage_limit / beta)
    return mean_over_valid(rows, denominator=denominator)


def step_kl(mean: Tensor, reference_mean: Tensor, std: Tensor, channel_dim: int = -1) -> Tensor:
    """KL divergence of one SDE step from the reference model's, per location, mean over channels.

    mean, reference_mean: from `sde_step` at the same x; std: its standard deviation, the same for both.
    The step's mean is linear in the velocity, so this is Flow-GRPO's KL on velocity:
    (mean − mean_ref)²/(2·std²) = −dt/2·(s(1−σ)/(2σ) + 1/s)²·(v − v_ref)².
    Its term in the loss is β·mean_over_valid(step_kl(…), valid).
    """
    return 0.5 * ((mean - reference_mean.detach()) / std).square().mean(channel_dim)


def mean_over_valid(
    values: Tensor, valid: Tensor | None = None, *, denominator: float | Tensor | None = None
) -> Tensor:
    """Mean over locations, then over valid rows, of values (B, …); 0 where no row is valid.

    Data parallelism averages the gradients of R processes, however many valid rows each has. With
    denominator = (valid rows on all processes, in all micro-batches of the step)/R, that average, summed
    over micro-batches, is the mean over all valid rows.
    """
    (values,) = _valid_rows(valid, values)
    total = values.flatten(1).mean(1).sum() if values.ndim > 1 else values.sum()
    if denominator is None:
        return total / max(len(values), 1)
    if denominator <= 0:
        raise ValueError(f"A loss is divided by a positive number of rows, not {float(denominator)}.")
    return total / denominator


@dataclass(frozen=True, slots=True)
class RatioStats:
    """How far the policy has moved since the roll-out; NaN where no row is valid."""

    rows: int  # valid rows these numbers are over
    clip_fraction: float  # share of locations with |ρ − 1| > ε
    approx_kl: float  # mean of ρ − 1 − log ρ, an estimate of KL(old ‖ new) that is never negative
    ratio_min: float
    ratio_max: float


@torch.no_grad()
def ratio_stats(
    log_prob: Tensor, old_log_prob: Tensor, clip: float, valid: Tensor | None = None
) -> RatioStats:
    """Diagnostics of the ratios in a loss over the same log-probabilities; shapes as in `boxflow_loss`."""
    log_prob, old_log_prob = _valid_rows(valid, log_prob, old_log_prob)
    if not log_prob.numel():
        nan = float("nan")
        return RatioStats(0, nan, nan, nan, nan)
    log_ratio = _log_ratio(log_prob.double(), old_log_prob.double())
    ratio = log_ratio.exp()
    outside = ((ratio - 1).abs() > clip).double()
    numbers = [outside.mean(), (log_ratio.expm1() - log_ratio).mean(), ratio.min(), ratio.max()]
    return RatioStats(len(log_prob), *torch.stack(numbers).tolist())


def _log_ratio(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    if log_prob.shape != old_log_prob.shape:
        raise ValueError(
            f"New log-probabilities {tuple(log_prob.shape)} and old ones {tuple(old_log_prob.shape)} "
            "differ in shape."
        )
    return (log_prob - old_log_prob.detach()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def _clipped(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """min(ρ·A, clip(ρ, 1−ε, 1+ε)·A), elementwise."""
    ratio = _log_ratio(log_prob, old_log_prob).exp()
    advantages = advantages.detach()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def _valid_rows(valid: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Only the valid rows; selecting, unlike masking, keeps a NaN elsewhere out of the gradient too."""
    if valid is None:
        return tensors
    if valid.dtype != torch.bool or any(valid.shape != (len(tensor),) for tensor in tensors):
        raise ValueError(
            f"Validity is one boolean a row, not {valid.dtype} of shape {tuple(valid.shape)} "
            f"beside {', '.join(str(tuple(tensor.shape)) for tensor in tensors)}."
        )
    return tuple(tensor[valid] for tensor in tensors)


def _constant_map(advantages: Tensor, log_prob: Tensor) -> Tensor:
    """One advantage an image, (B,), at all locations of its row; raises ValueError for another shape."""
    if advantages.shape != (len(log_prob),):
        raise ValueError(f"{len(log_prob)} images need as many advantages, not {tuple(advantages.shape)}.")
    return advantages.view(-1, *[1] * (log_prob.ndim - 1)).expand_as(log_prob)
