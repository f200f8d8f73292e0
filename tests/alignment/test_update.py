"""One optimizer step: what its loss is made of, against computations of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from accelerate import Accelerator
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from sdg.alignment.optimizing import optimize
from sdg.alignment.policies import FAMILIES, FlowPolicy, Transitions, load_pipeline, load_policy
from sdg.alignment.recipe import (
    AlignRecipe,
    GroupsRecipe,
    LoraRecipe,
    OptimizerRecipe,
    PolicyRecipe,
    PromptsRecipe,
    RewardRecipe,
    SamplingRecipe,
    ScorerRecipe,
)
from sdg.alignment.signals import Signal
from sdg.models.lora import lora_parameters

NOISE = 0.7
VALID = torch.tensor([True, False, True, True, True, True])
BATCHES = (range(3), range(3, 6))


def recipe(checkpoints: Path, family: Any, kl: float) -> AlignRecipe:
    return AlignRecipe(
        policy=PolicyRecipe(
            family=family,
            model=str(checkpoints / family),
            height=toy.HEIGHT,
            width=toy.WIDTH,
            dtype="float32",
            max_sequence_length=toy.TEXT,
            lora=LoraRecipe(r=4, alpha=8, targets=("to_q", "to_out.0")),
        ),
        prompts=PromptsRecipe("x"),
        reward=RewardRecipe(scorers=(ScorerRecipe("a", "clip:x"),)),
        method="flow-grpo",
        precision="fp32",
        sampling=SamplingRecipe(
            steps=5, sde_steps=(1, 2), sde_steps_per_epoch=2, noise_level=NOISE, batch_size=3
        ),
        groups=GroupsRecipe(prompts=2, size=3),
        optimizer=OptimizerRecipe(kl=kl, grad_norm=1e9),
    )


def step(
    checkpoints: Path, policy: FlowPolicy, batches: list[Transitions], kl: float
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What `optimize` says, and the gradients it took its step by, which is one of length 0."""
    parameters = lora_parameters(policy.transformer)
    rewards = torch.linspace(-1, 1, 6)
    signal = Signal(VALID, rewards.double(), rewards * VALID, None, None)
    values = optimize(
        recipe(checkpoints, policy.recipe.family, kl),
        Accelerator(cpu=True, mixed_precision="no"),
        policy,
        policy.transformer,
        torch.optim.SGD(parameters.values(), lr=0.0),
        batches,
        range(6),
        range(6),
        signal,
    )
    return values, {name: parameter.grad.clone() for name, parameter in parameters.items()}


def divergence(policy: FlowPolicy, untrained: FlowPolicy, batches: list[Transitions]) -> Tensor:
    """KL from another copy of the model, which never had an adapter; means over channels, places, rows."""
    rows = []
    for indices, batch in zip(BATCHES, batches, strict=True):
        for at, (sigma, sigma_next) in enumerate(zip(batch.sigma, batch.sigma_next, strict=True)):
            mean = policy.score(batch, at).mean
            with torch.no_grad():
                reference = untrained.score(batch, at).mean
            std = NOISE * (sigma / (1 - sigma)) ** 0.5 * (sigma - sigma_next) ** 0.5  # SDG §4.2
            kl = kl_divergence(Normal(mean, std), Normal(reference, std)).flatten(1).mean(1)
            rows.append(kl[VALID[list(indices)]])
    return torch.cat(rows).mean()


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_with_a_kl_term_loss_and_gradient_hold_beta_times_the_divergence_from_the_untrained_model(
    checkpoints: Path, family: str
) -> None:
    settings = recipe(checkpoints, family, 0.0)
    policy = load_policy(settings.policy)
    untrained = FAMILIES[family](load_pipeline(settings.policy), settings.policy)
    seeds = list(range(6))
    prompts = [toy.PROMPTS[index // 3] for index in seeds]

    def draw(indices: range) -> Transitions:
        chosen = [prompts[i] for i in indices], [seeds[i] for i in indices]
        return policy.sample(*chosen, steps=5, sde_steps=(1, 2), noise_level=NOISE).transitions

    batches = [draw(indices) for indices in BATCHES]
    fresh, _ = step(checkpoints, policy, batches, 3.0)
    assert fresh["kl"] == pytest.approx(0, abs=1e-12)  # an adapter that was not trained changes nothing

    torch.manual_seed(1)
    for parameter in lora_parameters(policy.transformer).values():
        parameter.data += 0.2 * torch.randn_like(parameter)
    batches = [draw(indices) for indices in BATCHES]
    without, policy_gradient = step(checkpoints, policy, batches, 0.0)
    values, gradient = step(checkpoints, policy, batches, 3.0)

    expected = divergence(policy, untrained, batches)
    assert expected.item() > 1e-4
    assert "kl" not in without
    assert values["kl"] == pytest.approx(expected.item(), rel=1e-4)
    assert values["loss"] - without["loss"] == pytest.approx(3.0 * expected.item(), rel=1e-4)
    parameters = lora_parameters(policy.transformer)
    wanted = torch.autograd.grad(3.0 * expected, list(parameters.values()))
    largest = max(float(g.abs().max()) for g in wanted)
    assert largest > 0
    for name, more in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(
            gradient[name] - policy_gradient[name], more, rtol=1e-3, atol=1e-4 * largest
        )
