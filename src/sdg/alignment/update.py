"""One optimizer step on recorded transitions, by any of the three objectives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from sdg.alignment.losses import (
    boxflow_loss,
    denseflow_loss,
    flow_grpo_loss,
    mean_over_valid,
    ratio_stats,
    step_kl,
)
from sdg.alignment.policies import FlowPolicy, Transitions
from sdg.alignment.recipe import AlignRecipe, OptimizerRecipe
from sdg.alignment.signals import Signal
from sdg.errors import SdgError
from sdg.models.lora import lora_parameters


def adapter_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerRecipe) -> torch.optim.AdamW:
    """The recipe's AdamW on an adapter's parameters."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(settings.betas[0], settings.betas[1]),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
    )


def optimize(
    recipe: AlignRecipe,
    accelerator: Accelerator,
    policy: FlowPolicy,
    model: Any,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Transitions],
    indices: Sequence[int],
    everyone: Sequence[int],
    signal: Signal,
) -> dict[str, float]:
    """One optimizer step on this process's `batches`, whose rows are `indices` of the epoch.

    everyone: the rows of all processes in this step; the loss is the mean over the valid ones. Returns
    loss, grad_norm, clip_fraction, approx_kl (from the policy that drew), ratio_error (largest |ρ − 1|) and,
    where the recipe has that term, kl (from the model before training), the same on every process.
    """
    settings = recipe.optimizer
    valid_rows = int(signal.valid[list(everyone)].sum())
    if valid_rows == 0:  # nothing was scored: no step, on any process
        return dict.fromkeys(("loss", "grad_norm", "clip_fraction", "approx_kl", "ratio_error"), 0.0)
    trained = len(batches[0].x)  # stochastic steps a sample
    denominator = valid_rows * trained / accelerator.num_processes  # gradients are averaged over processes
    sums = torch.zeros(5, dtype=torch.float64)  # loss, then over (valid row, step): count, clipped, both KLs
    ratio_error = 0.0
    parameters = list(lora_parameters(policy.transformer).values())
    optimizer.zero_grad(set_to_none=True)
    size = recipe.sampling.batch_size
    for number, batch in enumerate(batches):
        chosen = torch.tensor(list(indices[number * size : (number + 1) * size]))
        valid = signal.valid[chosen].to(policy.device)
        advantages = signal.advantages[chosen].to(policy.device)
        heat = None if signal.heat is None else signal.heat[chosen].to(policy.device)
        for step in range(trained):
            final = number == len(batches) - 1 and step == trained - 1
            old = batch.old_log_prob[step]
            with nullcontext() if final else accelerator.no_sync(model):
                scored = policy.score(batch, step, model)
                new, clip = scored.log_prob, settings.clip
                if recipe.method == "boxflow":
                    loss = boxflow_loss(new, old, advantages, clip, valid, denominator=denominator)
                elif recipe.method == "flow-grpo":
                    loss = flow_grpo_loss(new, old, advantages, clip, valid, denominator=denominator)
                else:
                    assert heat is not None
                    loss = denseflow_loss(new, old, advantages, heat, clip, valid, denominator=denominator)
                if settings.kl > 0:
                    with torch.no_grad(), policy.reference():
                        reference = policy.score(batch, step).mean
                    kl = step_kl(scored.mean, reference, scored.std, policy.channel_dim)
                    loss = loss + settings.kl * mean_over_valid(kl, valid, denominator=denominator)
                    sums[4] += float(mean_over_valid(kl.detach(), valid)) * int(valid.sum())
                accelerator.backward(loss)
            stats = ratio_stats(new.detach(), old, clip, valid)
            if stats.rows:
                ratio_error = max(ratio_error, abs(stats.ratio_max - 1), abs(stats.ratio_min - 1))
                sums[1:4] += torch.tensor([1.0, stats.clip_fraction, stats.approx_kl]) * stats.rows
            sums[0] += float(loss.detach()) / accelerator.num_processes
    grad_norm = accelerator.clip_grad_norm_(parameters, settings.grad_norm)
    optimizer.step()
    total = accelerator.reduce(sums.to(policy.device), "sum").cpu()
    worst = accelerator.gather(torch.tensor([ratio_error], device=policy.device)).max()
    values = {
        "loss": float(total[0]),
        "grad_norm": float(grad_norm),
        "clip_fraction": float(total[2] / total[1]),
        "approx_kl": float(total[3] / total[1]),
        "ratio_error": float(worst),
    }
    if settings.kl > 0:
        values["kl"] = float(total[4] / total[1])
    if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
        raise SdgError("The loss or its gradient is no longer a number; lower optimizer.learning_rate.")
    return values
