"""Training on the forward process: an epoch's loss and gradient against a loop over pictures and levels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from accelerate import Accelerator
from torch import Tensor

from sdg.alignment.forward import ForwardLearner, optimality
from sdg.alignment.policies import FlowPolicy, load_policy
from sdg.alignment.recipe import (
    AlignRecipe,
    GroupsRecipe,
    NftRecipe,
    PolicyOptimizer,
    PolicyRecipe,
    PromptsRecipe,
    RewardRecipe,
    SamplingRecipe,
)
from sdg.alignment.rollout import Rollouts, StepRows
from sdg.alignment.update import Signal
from sdg.models.lora import lora_parameters
from sdg.scorers.weighted import ScorerRecipe
from sdg.sections import LoraRecipe

ROWS = range(4)
VALID = torch.tensor([True, True, False, True])
KL = 0.5
STEPS, LEVELS = 5, 2


def recipe(checkpoints: Path, family: Any = "flux", **nft: Any) -> AlignRecipe:
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
        method="nft",
        precision="fp32",
        sampling=SamplingRecipe(steps=STEPS, batch_size=2),
        groups=GroupsRecipe(prompts=2, size=2),
        optimizer=PolicyOptimizer(steps_per_epoch=1, learning_rate=0.1, grad_norm=1e9, advantage_limit=2.0),
        nft=NftRecipe(**{"levels": LEVELS, "beta": 0.5, **nft}),
    )


def moved(policy: FlowPolicy) -> None:
    """Another adapter, so that it and the old policy differ from each other and from the untrained model."""
    torch.manual_seed(1)
    for parameter in lora_parameters(policy.transformer).values():
        parameter.data += 0.2 * torch.randn_like(parameter)


def drawn_by(policy: FlowPolicy) -> Rollouts:
    batches = [
        policy.sample([toy.PROMPTS[0], toy.PROMPTS[1]], [2 * n, 2 * n + 1], steps=STEPS).transitions
        for n in (0, 1)
    ]
    return Rollouts(batches, [], [])


def gradients(learner: ForwardLearner, drawn: Rollouts, advantages: Tensor) -> dict[str, Tensor]:
    """Of an optimizer step of length 0."""
    learner.optimizer = torch.optim.SGD(learner.parameters.values(), lr=0.0)
    signal = Signal(VALID, torch.zeros(4, dtype=torch.float64), advantages)
    learner.values = learner.step(StepRows(list(ROWS), list(ROWS)), drawn.transitions, signal, 3)
    return {name: parameter.grad.clone() for name, parameter in learner.parameters.items()}


def learner_of(settings: AlignRecipe) -> ForwardLearner:
    policy = load_policy(settings.policy)
    return ForwardLearner(settings, Accelerator(cpu=True, mixed_precision="no"), policy)


def spied(policy: FlowPolicy) -> list[tuple[Tensor, Tensor]]:
    """(x, levels) of every velocity that is asked for from now on."""
    asked: list[tuple[Tensor, Tensor]] = []
    plain = policy.velocity

    def velocity(x: Tensor, sigma: Tensor, *rest: Any) -> Tensor:
        asked.append((x, sigma))
        return plain(x, sigma, *rest)

    policy.velocity = velocity  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("family", ["flux", "sd3", "qwen-image"])
def test_loss_and_gradient_are_those_of_a_loop_over_pictures_levels_and_locations(
    checkpoints: Path, family: str
) -> None:
    settings = recipe(checkpoints, family)
    settings = replace(settings, optimizer=replace(settings.optimizer, kl=KL), method="nft")
    learner = learner_of(settings)
    policy, limit, beta = learner.policy, 2.0, 0.5
    drawn = drawn_by(policy)
    moved(policy)  # the old policy stays what it was, which is the untrained model too
    advantages = torch.linspace(-3, 3, 4 * policy.grid[0] * policy.grid[1]).view(4, *policy.grid)
    asked = spied(policy)
    found = gradients(learner, drawn, advantages)

    # Every (batch, level): old, present and untrained velocity at the same noised latents.
    assert len(asked) == 2 * LEVELS * 3
    losses, distances = [], []
    levels_of: dict[int, set[float]] = {row: set() for row in ROWS}
    for place in range(0, len(asked), 3):
        x_t, t = asked[place]
        number = place // 3 // LEVELS
        batch = drawn.transitions[number]
        v = policy.velocity(x_t, t, batch.prompts)
        with torch.no_grad(), policy.reference():
            v_old = policy.velocity(x_t, t, batch.prompts)
        for at in range(2):
            row = 2 * number + at
            levels_of[row].add(float(t[at]))
            noise = (x_t[at] - (1 - t[at]) * batch.final[at]) / t[at]
            assert 0.7 < float(noise.std()) < 1.4
            if not VALID[row]:
                continue
            r = 0.5 + advantages[row].clamp(-limit, limit) / (2 * limit)
            row_loss = torch.zeros(())
            for probability, velocity in (
                (r, beta * v[at] + (1 - beta) * v_old[at]),
                (1 - r, (1 + beta) * v_old[at] - beta * v[at]),
            ):
                away = x_t[at] - t[at] * velocity - batch.final[at]
                squares = away.square().mean(-1 if policy.channel_dim == -1 else 0).flatten()
                row_loss = row_loss + (probability.flatten() * squares).mean() / away.detach().abs().mean()
            losses.append(row_loss * limit / beta)
            distances.append((v[at] - v_old[at]).square().mean())
    expected_distance = torch.stack(distances).mean()
    expected = torch.stack(losses).mean() + KL * expected_distance
    assert learner.values["loss"] == pytest.approx(expected.item(), rel=1e-4)
    assert learner.values["kl"] == pytest.approx(expected_distance.item(), rel=1e-4)
    assert learner.values["velocity_change"] == pytest.approx(expected_distance.item(), rel=1e-4)
    schedule = set(policy.sigmas(STEPS)[:-1].tolist())
    assert all(len(levels) == LEVELS and levels <= schedule for levels in levels_of.values())
    parameters = lora_parameters(policy.transformer)
    wanted = torch.autograd.grad(expected, list(parameters.values()))
    largest = max(float(g.abs().max()) for g in wanted)
    assert largest > 1e-3
    for name, gradient in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * largest)


def test_nothing_is_learnt_from_average_pictures_at_the_old_policy(checkpoints: Path) -> None:
    learner = learner_of(recipe(checkpoints))
    moved(learner.policy)
    learner.old.move(0.0)
    drawn = drawn_by(learner.policy)
    average = gradients(learner, drawn, torch.zeros(4))
    good = gradients(learner, drawn, torch.ones(4))
    largest = max(float(g.abs().max()) for g in good.values())
    assert largest > 1e-3
    assert max(float(g.abs().max()) for g in average.values()) < 1e-5 * largest


def test_the_old_policy_is_not_asked_while_it_is_the_trained_one(checkpoints: Path) -> None:
    """The velocity is then the same, so that half of the passes are spared at the same loss and gradient."""
    learner = learner_of(recipe(checkpoints))
    drawn = drawn_by(learner.policy)
    advantages = torch.tensor([1.0, -0.5, 0.2, -3.0])
    asked = spied(learner.policy)
    found = gradients(learner, drawn, advantages)
    assert len(asked) == len(drawn.transitions) * LEVELS
    loss = learner.values["loss"]
    with torch.no_grad():  # of the half that has no gradient yet: the model is what it was
        next(p for name, p in learner.parameters.items() if "lora_A" in name).add_(1e-3)
    again = gradients(learner, drawn, advantages)
    assert len(asked) == 3 * len(drawn.transitions) * LEVELS
    assert learner.values["loss"] == pytest.approx(loss, rel=1e-5)
    for name, gradient in found.items():
        torch.testing.assert_close(again[name], gradient, rtol=2e-2, atol=1e-5)


def test_a_constant_map_is_scalar_nft(checkpoints: Path) -> None:
    learner = learner_of(recipe(checkpoints))
    drawn = drawn_by(learner.policy)
    moved(learner.policy)
    scalar = torch.tensor([1.0, -0.5, 0.2, -3.0])
    maps = scalar[:, None, None].expand(4, *learner.policy.grid)
    one, other = gradients(learner, drawn, scalar), gradients(learner, drawn, maps)
    for name, gradient in one.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-5, atol=1e-7)


def test_the_old_policy_draws_and_follows_the_trained_one_by_its_decay(checkpoints: Path) -> None:
    learner = learner_of(recipe(checkpoints, old_from=1, old_rise=0.5, old_limit=0.9))
    name, parameter = next((n, p) for n, p in learner.parameters.items() if ".lora_B." in n)
    first = parameter.detach().clone()
    drawn = drawn_by(learner.policy)
    signal = Signal(VALID, torch.zeros(4, dtype=torch.float64), torch.tensor([1.0, -1.0, 0.0, 1.0]))
    steps = [StepRows(list(ROWS), list(ROWS))]
    assert learner.learn(0, steps, drawn, signal)["old_decay"] == 0  # one step, and old_from is 1
    second = parameter.detach().clone()
    assert not torch.equal(first, second)
    with learner.sampling():
        assert torch.equal(parameter, second)
    assert learner.learn(1, steps, drawn, signal)["old_decay"] == 0.5
    third = parameter.detach().clone()
    with learner.sampling():
        torch.testing.assert_close(parameter.detach(), (second + third) / 2)
    torch.testing.assert_close(parameter.detach(), third)
    again = learner_of(learner.recipe)
    again.restore({k: v.clone() for k, v in learner.state().items()}, 2)
    torch.testing.assert_close(again.old.average[name], (second + third) / 2)


def test_optimality_is_a_probability() -> None:
    found = optimality(torch.tensor([-9.0, -5.0, 0.0, 2.5, 7.0]), 5.0)
    assert found.tolist() == [0, 0, 0.5, 0.75, 1]


def test_the_published_decays() -> None:
    # For β = 1, and for β = 0.1 (arXiv 2509.16117's code).
    assert [NftRecipe().decay(steps) for steps in (0, 100, 900)] == pytest.approx([0, 0.1, 0.5])
    slow = NftRecipe(beta=0.1, old_from=75, old_rise=0.0075, old_limit=0.999)
    assert [slow.decay(steps) for steps in (75, 175, 900)] == pytest.approx([0, 0.75, 0.999])
