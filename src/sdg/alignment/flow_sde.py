"""One denoising step of a flow-matching model: with noise and its log-probability, or as the plain ODE.

Symbols (Flow-GRPO, arXiv 2505.05470): x latent, v velocity, σ → σ' noise levels with dt = σ' − σ < 0,
a noise level of the SDE, s = a·sqrt(σ/(1−σ)) its diffusion coefficient. Nothing here keeps state.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

SIGMA_FLOOR = 1e-6
"""σ and 1−σ are kept above this, so that s is positive and finite."""
PURE_NOISE = 1e-3
"""Below this 1−σ a level counts as pure noise: a DPM-Solver begins at 0.9997, where s would be 50 times a."""


SdeKind = Literal["flow-sde", "cps"]
"""How a stochastic step adds its noise; see `sde_step`."""


class SdeStep(NamedTuple):
    """Outcome of `sde_step`; `log_prob` alone carries the velocity's gradient into the objective."""

    next_x: Tensor  # the shape of x, without gradient
    mean: Tensor  # the shape of x
    std: Tensor  # of the step's noise: no dimensions for one σ, (B, 1, …) for one σ a sample
    log_prob: Tensor  # one value a location: the shape of x without its channels


def sde_step(
    x: Tensor,
    velocity: Tensor,
    sigma: float | Tensor,
    sigma_next: float | Tensor,
    noise_level: float,
    *,
    noise: Tensor | None = None,
    next_x: Tensor | None = None,
    sigma_max: float | Tensor | None = None,
    channel_dim: int = -1,
    store_dtype: torch.dtype | None = None,
    kind: SdeKind = "flow-sde",
) -> SdeStep:
    """Draw the next latent with given noise, or score a given one, under the flow SDE (SDG §4.2).

        mean = x·(1 + s²/(2σ)·dt) + v·(1 + s²(1−σ)/(2σ))·dt,    x' = mean + s·sqrt(−dt)·noise

    The flow SDE has the ODE's marginals for small steps only: a large one adds more noise than σ' has room
    for, and it is left in the picture. kind="cps" (coefficients-preserving sampling, arXiv 2509.05952) puts
    fresh noise in the place of a part of the old, so that all of it together is σ' after a step of any size:

        mean = (1−σ')·(x − σv) + sqrt(σ'² − std²)·(x + (1−σ)v),    std = σ'·sin(a·π/2),    0 < a ≤ 1

    x, velocity, noise, next_x: (B, L, C) packed tokens with channel_dim=-1, or (B, C, H, W) with
    channel_dim=1. sigma, sigma_next: a number, or (B,) for one a sample; 1 ≥ σ > σ' ≥ 0. Pass `noise` to
    draw, `next_x` to score, never both. sigma_max stands in for σ in 1−σ where σ is 1 or nearly so, see
    PURE_NOISE; by default it is sigma_next. store_dtype: the type in which latents are kept; a drawn x' is
    rounded to it *before* it is scored, so that scoring the stored latent later gives the same value: clip
    ranges are as small as 1e-4.

    log_prob is the mean over channels of the Gaussian log-density: one value a location. Arithmetic is
    at least float32 whatever the inputs' type. Raises ValueError for arguments outside these domains.
    """
    if (noise is None) == (next_x is None):
        raise ValueError("Pass either noise, to draw the next latent, or next_x, to score a given one.")
    if noise_level <= 0:
        raise ValueError(
            f"The SDE's noise level is positive, not {noise_level}; without noise, use ode_step."
        )
    if kind not in get_args(SdeKind):
        raise ValueError(f"A stochastic step is one of {', '.join(get_args(SdeKind))}, not {kind!r}.")
    dtype = _compute_dtype(x, velocity, next_x if noise is None else noise)
    stand_in = _level(x, sigma_next if sigma_max is None else sigma_max)
    sigma, sigma_next = _check_levels(x, sigma, sigma_next)
    if kind == "cps":
        weights = _cps_weights(sigma, sigma_next, noise_level)
    else:
        weights = _flow_sde_weights(sigma, sigma_next, noise_level, stand_in)
    x_weight, v_weight, std = (weight.to(dtype) for weight in weights)

    mean = x.to(dtype) * x_weight + velocity.to(dtype) * v_weight
    if noise is not None:
        next_x = mean.detach() + std * noise.to(dtype)
        next_x = next_x if store_dtype is None else next_x.to(store_dtype)
    assert next_x is not None
    next_x = next_x.detach()
    z = (next_x.to(dtype) - mean) / std
    log_scale = std.log() if std.ndim == 0 else std.log().select(channel_dim, 0)
    log_prob = -0.5 * z.square().mean(channel_dim) - log_scale - 0.5 * math.log(2 * math.pi)
    return SdeStep(next_x, mean, std, log_prob)


def _flow_sde_weights(
    sigma: Tensor, sigma_next: Tensor, noise_level: float, stand_in: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What x and v weigh in the flow SDE's mean, and its standard deviation."""
    dt = sigma_next - sigma
    gap = 1 - torch.where(1 - sigma < PURE_NOISE, stand_in, sigma)
    if (gap <= 0).any():
        raise ValueError("sigma_max stands in for σ = 1 and must be below 1.")
    sigma = sigma.clamp(min=SIGMA_FLOOR)
    s = noise_level * (sigma / gap.clamp(min=SIGMA_FLOOR)).sqrt()
    pull = s.square() / (2 * sigma)  # s²/(2σ)
    return 1 + pull * dt, (1 + pull * (1 - sigma)) * dt, s * (-dt).sqrt()


def _cps_weights(sigma: Tensor, sigma_next: Tensor, noise_level: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same of coefficients-preserving sampling."""
    if noise_level > 1:
        raise ValueError(
            f"The noise level of cps is the share of noise drawn anew, at most 1, not {noise_level}."
        )
    if (sigma_next == 0).any():
        raise ValueError("cps has no noise in the step to σ = 0; leave the last step to ode_step.")
    std = sigma_next * math.sin(noise_level * math.pi / 2)
    kept = sigma_next * math.cos(noise_level * math.pi / 2)  # of the old noise: sqrt(σ'² − std²)
    return 1 - sigma_next + kept, kept * (1 - sigma) - (1 - sigma_next) * sigma, std


def ode_step(
    x: Tensor,
    velocity: Tensor,
    sigma: float | Tensor,
    sigma_next: float | Tensor,
    *,
    store_dtype: torch.dtype | None = None,
) -> Tensor:
    """x + v·(σ' − σ): the deterministic Euler step, for the steps that are not trained.

    Shapes as in `sde_step`. Returns x', float32 at least, or rounded to `store_dtype`.
    """
    dtype = _compute_dtype(x, velocity)
    sigma, sigma_next = _check_levels(x, sigma, sigma_next)
    next_x = x.to(dtype) + velocity.to(dtype) * (sigma_next - sigma).to(dtype)
    return next_x if store_dtype is None else next_x.to(store_dtype)


def sigma_schedule(
    scheduler: Any, steps: int, image_tokens: int, *, uniform: bool = True, mu: float | None = None
) -> Tensor:
    """The noise levels σ_0 > … > σ_steps = 0 at which a diffusers pipeline would sample.

    scheduler: of a flow-matching pipeline, left unchanged; it applies its own shift, by resolution where its
    configuration says so: by FLUX.1's rule, or by `mu` where that is given. image_tokens: image positions the
    transformer sees. uniform: hand it the levels 1, …, 1/steps as FluxPipeline does; False lets it space
    them, as StableDiffusion3Pipeline does.
    Returns (steps + 1,) float32 on the CPU.
    """
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    private = type(scheduler).from_config(scheduler.config)
    config = private.config
    shift = {}
    if config.use_dynamic_shifting:
        if mu is None:
            lengths = config.base_image_seq_len, config.max_image_seq_len
            mu = calculate_shift(image_tokens, *lengths, config.base_shift, config.max_shift)
        shift["mu"] = mu
    if uniform:
        private.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), **shift)
    else:
        private.set_timesteps(steps, **shift)
    return private.sigmas.to("cpu", torch.float32)


def to_grid(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, H·W, …) as a grid (B, H, W, …), row by row: the order in which FLUX packs latents."""
    if values.ndim < 2 or values.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"Values of shape {tuple(values.shape)} do not fill a grid of {grid[0]}×{grid[1]}.")
    return values.unflatten(1, grid)


def to_tokens(values: Tensor) -> Tensor:
    """A grid (B, H, W, …) as tokens (B, H·W, …): the inverse of `to_grid`."""
    if values.ndim < 3:
        raise ValueError(f"A grid is (B, H, W, …), not {tuple(values.shape)}.")
    return values.flatten(1, 2)


def _compute_dtype(x: Tensor, velocity: Tensor, other: Tensor | None = None) -> torch.dtype:
    """The type to calculate in; raises ValueError where shapes differ and broadcasting would hide it."""
    shapes = [tuple(tensor.shape) for tensor in (x, velocity, other) if tensor is not None]
    if len(set(shapes)) > 1:
        raise ValueError(f"Latents, velocity and noise have one shape, not {', '.join(map(str, shapes))}.")
    return torch.promote_types(torch.promote_types(x.dtype, velocity.dtype), torch.float32)


def _level(x: Tensor, sigma: float | Tensor) -> Tensor:
    """A noise level in float64: without dimensions, or (B, 1, …) against x."""
    level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device)
    if level.ndim == 0:
        return level
    if level.shape != (len(x),):
        raise ValueError(f"A noise level is one number or {len(x)}, not of shape {tuple(level.shape)}.")
    return level.view(-1, *[1] * (x.ndim - 1))


def _check_levels(x: Tensor, sigma: float | Tensor, sigma_next: float | Tensor) -> tuple[Tensor, Tensor]:
    first, second = torch.broadcast_tensors(_level(x, sigma), _level(x, sigma_next))
    if not ((first <= 1) & (first > second) & (second >= 0)).all():
        raise ValueError("Noise levels fall with each step: 1 >= sigma > sigma_next >= 0.")
    return first, second
