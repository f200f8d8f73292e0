"""Advantages by hand, and one optimizer step: what its loss is made of, against computations of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toy
import toy_families
from accelerate import Accelerator
from plain_recipe import RECIPE
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from sdg import Defect, Diagnosis
from sdg.alignment.policies import FAMILIES, FlowPolicy, Transitions, load_pipeline, load_policy
from sdg.alignment.recipe import (
    AlignRecipe,
    GroupsRecipe,
    PolicyOptimizer,
    PolicyRecipe,
    PromptsRecipe,
    RewardRecipe,
    SamplingRecipe,
)
from sdg.alignment.rollout import Rollouts, Score, StepRows
from sdg.alignment.update import Learner, Signal, epoch_values, training_signal
from sdg.models.lora import lora_parameters
from sdg.scorers.weighted import ScorerRecipe
from sdg.sections import LoraRecipe

LEFT = Defect((0, 0, 500, 1000), "artifact", importance=50)


# --- advantages ---------------------------------------------------------------------------------------


def test_spatial_advantages_by_hand() -> None:
    # Two samples: R = 1 and 3, σ_R = √2; the second has an artifact of weight 0.5 on its left half.
    scores = [Score(1.0, Diagnosis()), Score(3.0, Diagnosis((LEFT,)))]
    signal = training_signal(RECIPE, scores, torch.tensor([7, 7]), (1, 2))
    assert signal.maps is not None
    assert torch.allclose(signal.maps[:, 0], torch.tensor([[1.0, 1.0], [3 - 2**0.5 / 2, 3.0]]))
    assert torch.allclose(
        signal.advantages[:, 0], torch.tensor([[-1.0, -1.0], [1.0, 1.0]]) / 2**0.5, atol=1e-5
    )


@pytest.mark.parametrize("method", ["boxflow", "flow-grpo", "denseflow"])
def test_a_sample_that_was_not_scored_takes_no_part(method: Any) -> None:
    known = [Score(1.0, Diagnosis()), Score(3.0, Diagnosis((LEFT,)))]
    unknown = [Score(None, Diagnosis()), Score(99.0, None)]
    groups = torch.tensor([0, 0, 0, 0])
    recipe = replace(RECIPE, method=method)
    alone = training_signal(recipe, known, groups[:2], (2, 2))
    # Flow-GRPO asks no detector, so only the missing reward counts there.
    extra = unknown[:1] if method == "flow-grpo" else unknown
    signal = training_signal(recipe, known + extra, groups[: 2 + len(extra)], (2, 2))
    assert signal.valid.tolist() == [True, True] + [False] * len(extra)
    assert torch.equal(signal.advantages[:2], alone.advantages)
    assert (signal.advantages[2:] == 0).all()
    if method == "denseflow":
        assert signal.heat is not None
        assert torch.equal(signal.heat[1], torch.tensor([[0.5, 0.0], [0.5, 0.0]]))
        assert signal.heat.isfinite().all()


def test_a_failed_detection_never_counts_as_clean() -> None:
    scores = [Score(1.0, None), Score(1.5, Diagnosis((LEFT,))), Score(2.0, Diagnosis((LEFT,)))]
    values = epoch_values(
        training_signal(RECIPE, scores, torch.zeros(3, dtype=torch.long), (2, 2)),
        scores,
    )
    assert (values["defects"], values["valid"], values["failed_detector"], values["failed_reward"]) == (
        1.0,
        2,
        1,
        0,
    )


# --- an optimizer step --------------------------------------------------------------------------------


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
            max_sequence_length=toy_families.TEXT.get(family, toy.TEXT),
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
        optimizer=PolicyOptimizer(kl=kl, grad_norm=1e9),
    )


def step(
    checkpoints: Path, policy: FlowPolicy, batches: list[Transitions], kl: float, valid: Tensor = VALID
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What the step says, and the gradients that it was taken by; its length is 0."""
    settings = recipe(checkpoints, policy.recipe.family, kl)
    learner = Learner(settings, Accelerator(cpu=True, mixed_precision="no"), policy)
    learner.optimizer = torch.optim.SGD(learner.parameters.values(), lr=0.0)
    rewards = torch.linspace(-1, 1, 6)
    signal = Signal(valid, rewards.double(), rewards * valid)
    rows = list(range(6))
    values = learner.step(StepRows(rows, rows), batches, signal)
    return values, {name: parameter.grad.clone() for name, parameter in learner.parameters.items()}


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


@pytest.mark.parametrize("family", ["flux", "sd3", "z-image"])
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


def test_a_batch_without_a_scored_sample_leaves_the_steps_shares_known(checkpoints: Path) -> None:
    policy = load_policy(recipe(checkpoints, "flux", 0.0).policy)

    def draw(seeds: range) -> Transitions:
        prompts = [toy.PROMPTS[0]] * len(seeds)
        return policy.sample(prompts, list(seeds), steps=5, sde_steps=(1,), noise_level=NOISE).transitions

    batches = [draw(indices) for indices in BATCHES]
    first = torch.tensor([True] * 3 + [False] * 3)
    values, _ = step(checkpoints, policy, batches, 0.0, first)
    assert values["clip_fraction"] == 0
    assert values["approx_kl"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("ema_time", "times"),
    [
        ("updates", [0, 1, 2]),  # the first, second and third update
        ("steps", [7, 15, 23]),  # every eighth optimizer step, counted from 0, as in Flow-GRPO's code
    ],
)
def test_the_averages_time_counts_its_updates_or_the_optimizer_steps(
    monkeypatch: pytest.MonkeyPatch, ema_time: Any, times: list[int]
) -> None:
    seen: list[int] = []
    learner: Any = Learner.__new__(Learner)
    learner.recipe = replace(RECIPE, optimizer=PolicyOptimizer(ema_every=4, ema_time=ema_time))
    learner.ema = SimpleNamespace(update=seen.append)
    learner.schedule = SimpleNamespace(get_last_lr=lambda: [1.0], step=lambda: None)
    monkeypatch.setattr(learner, "step", lambda *_: {"loss": 0.0, "ratio_error": 0.0})
    nothing: Any = None
    for epoch in range(12):  # of two steps each
        learner.learn(epoch, [StepRows([], [])] * 2, Rollouts([], [], nothing), nothing)
    assert seen == times
