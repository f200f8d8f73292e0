"""Which of a generator's layers can learn from its samples? A measurement to choose `policy.lora.targets` by.

    python benchmarks/alignment_layers.py recipes/align/boxflow-testbed.yaml --epochs 24

Draws epochs of the recipe's roll-outs with the untrained generator, and takes the policy gradient of each
optimizer step for an adapter on every linear layer. For each layer it prints:

- own: how alike the gradients of two independent steps are, E⟨g, g'⟩ / E|g|². What they share is signal, all
  else is noise that training follows as well: a layer near 0 only adds to it.
- judge: how alike a step's gradient is to that of another step whose reward is minus the number of defects
  that the recipe's first judge finds. Below 0, the recipe's reward teaches this layer the wrong thing.

Both are in percent, with the standard error they would have if there were no signal at all.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from sdg.alignment.policies import FlowPolicy, Transitions, load_policy
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.rollout import (
    Purpose,
    Rollouts,
    Sampler,
    Score,
    Scoring,
    StepRows,
    epoch_prompts,
    group_rows,
    noise_seed,
    sde_steps,
    share,
)
from sdg.alignment.update import training_signal
from sdg.detectors import load_detector
from sdg.errors import SdgError
from sdg.images import Pair
from sdg.io.uri import read_prompts
from sdg.models.lora import add_lora, lora_parameters
from sdg.recipes import load_recipe
from sdg.scorers.weighted import load_reward

UP: Final = ".lora_B."  # the half of an adapter that starts at zero, and alone has a gradient then


class Likeness(NamedTuple):
    """What independent steps' gradients share, of one layer or by one signal."""

    of: str
    own: float
    own_error: float
    judge: float
    judge_error: float


def adapt_every_layer(policy: FlowPolicy, recipe: AlignRecipe) -> None:
    """Put an adapter on every linear layer of the policy, in the place of the recipe's."""
    policy.transformer.unload_lora()
    layers = [name for name, module in policy.transformer.named_modules() if isinstance(module, nn.Linear)]
    add_lora(policy.transformer, replace(recipe.policy.lora, targets=tuple(layers)), recipe.seed)


def raised(
    recipe: AlignRecipe, policy: FlowPolicy, batch: Transitions, rows: Sequence[int], epoch: int
) -> Iterator[Tensor]:
    """What an advantage raises at each location, (B, H, W) or (B, L), by one forward pass each.

    The log-probability of a stochastic step. On the forward process, for each of sampling.sde_steps: minus
    the squared error of the picture predicted at that step's noise level, over its mean error, which is
    what DiffusionNFT's gradient begins with (arXiv 2509.16117). That has advantages cut to
    ±optimizer.advantage_limit, which are taken here as they are.
    """
    if not recipe.forward:
        for step in range(len(batch.x)):
            yield policy.score(batch, step).log_prob
        return
    levels = policy.sigmas(recipe.sampling.steps)
    for step in recipe.sampling.sde_steps:
        seeds = [noise_seed(recipe.seed, Purpose.FORWARD, epoch, row, step) for row in rows]
        noise = policy.noise([torch.Generator().manual_seed(seed) for seed in seeds])
        x_t = (1 - levels[step]) * batch.final + levels[step] * noise
        predicted = x_t - levels[step] * policy.velocity(x_t, levels[step].expand(len(rows)), batch.prompts)
        distance = predicted - batch.final
        mean = distance.detach().abs().flatten(1).mean(1).clamp(min=1e-5)
        error = distance.square().mean(policy.channel_dim)
        yield -error / mean.view(-1, *[1] * (error.ndim - 1))


def step_gradients(
    recipe: AlignRecipe,
    policy: FlowPolicy,
    drawn: Rollouts,
    advantages: Sequence[Tensor],
    parts: Sequence[StepRows],
    epoch: int,
) -> list[list[dict[str, Tensor]]]:
    """For each optimizer step, each of the signals' gradients, by parameter."""
    parameters = {name: p for name, p in lora_parameters(policy.transformer).items() if UP in name}
    steps = []
    batches = len(drawn.transitions) // len(parts)
    for number, part in enumerate(parts):
        sums = [[torch.zeros_like(p) for p in parameters.values()] for _ in advantages]
        rows = list(part.own)
        for transitions in drawn.transitions[number * batches : (number + 1) * batches]:
            chosen, rows = rows[: len(transitions.prompts)], rows[len(transitions.prompts) :]
            for quantity in raised(recipe, policy, transitions, chosen, epoch):
                by_location = quantity.flatten(1)
                for signal, total in enumerate(sums):
                    weight = advantages[signal][chosen].reshape(len(chosen), -1)  # (B, 1 or locations)
                    objective = (weight * by_location).mean(1).sum()
                    last = signal == len(sums) - 1
                    gradients = torch.autograd.grad(
                        objective, list(parameters.values()), retain_graph=not last
                    )
                    torch._foreach_add_(total, gradients)
        steps.append([dict(zip(parameters, total, strict=True)) for total in sums])
    return steps


def likeness(of: str, own: Tensor, judged: Tensor) -> Likeness:
    """Of gradients (steps, numbers) by a reward and by the judge's."""
    different = ~torch.eye(len(own), dtype=torch.bool)
    own_size, judged_size = own.square().sum(1).mean().sqrt(), judged.square().sum(1).mean().sqrt()

    def mean(products: Tensor, scale: Tensor, pairs: int) -> tuple[float, float]:
        values = products[different] / scale.clamp(min=1e-30)
        # Two steps have but one product of their own.
        spread = float(values.std()) if len(own) > 2 else math.nan
        return float(values.mean()), spread / pairs**0.5

    pairs = len(own) * (len(own) - 1)
    ours = mean(own @ own.T, own_size.square(), pairs // 2)  # a product stands there twice
    theirs = mean(own @ judged.T, own_size * judged_size, pairs)
    return Likeness(of, *ours, *theirs)


Signals = Callable[[AlignRecipe, Sequence[Score], Tensor, tuple[int, int]], dict[str, Tensor]]
"""Advantages of an epoch's samples by name, of recipe, scores, groups (N,) and grid."""


def gradients(
    recipe: AlignRecipe, policy: FlowPolicy, epochs: int, signals: Signals
) -> list[dict[str, dict[str, Tensor]]]:
    """Of each optimizer step of `epochs` epochs: by each signal, and "judge", each parameter's gradient.

    The judge's reward is minus the number of defects that the recipe's first judge finds.
    """
    if not recipe.monitor.judges:
        raise SdgError("monitor.judges is empty; name the judge that gradients are measured by.")
    parts = share(recipe, 0, 1)
    prompts = read_prompts(recipe.prompts.train)
    detector = load_detector(recipe.reward.detector or "") if recipe.needs_detector else None
    judge = load_detector(recipe.monitor.judges[0].uri)
    reward = load_reward(recipe.reward.scorers, "cpu")
    counted = replace(recipe, method="flow-grpo")
    steps = []
    with Scoring(reward, detector) as scoring:
        sampler = Sampler(recipe, policy, scoring)
        for epoch in track(range(epochs), "epochs", console=Console(stderr=True)):
            rows = group_rows(recipe, epoch_prompts(recipe, prompts, epoch), Purpose.TRAINING, epoch)
            drawn = sampler.draw(rows, sde_steps(recipe, epoch))
            scores = drawn.scores()
            pairs: list[Pair] = [(p, row.prompt) for p, row in zip(drawn.pictures, rows, strict=True)]
            judged = [
                Score(-float(len(found.defects)) if found.is_informative else None, None)
                for found in judge.diagnose(pairs)
            ]
            groups = torch.tensor([row.group for row in rows])
            by_name = signals(recipe, scores, groups, policy.grid)
            by_name["judge"] = training_signal(counted, judged, groups, policy.grid).advantages
            for step in step_gradients(recipe, policy, drawn, list(by_name.values()), parts, epoch):
                steps.append(dict(zip(by_name, step, strict=True)))
    return steps


def measure(recipe: AlignRecipe, epochs: int) -> list[Likeness]:
    """Every layer's likeness over `epochs` epochs, the best for the judge first."""

    def own(recipe: AlignRecipe, scores: Sequence[Score], *of: Any) -> dict[str, Tensor]:
        return {"own": training_signal(recipe, scores, *of).advantages}

    policy = load_policy(recipe.policy, "cpu", recipe.precision, recipe.seed)
    adapt_every_layer(policy, recipe)
    steps = gradients(recipe, policy, epochs, own)
    found = []
    for name in steps[0]["own"]:
        ours, judged = (torch.stack([step[by][name].flatten() for step in steps]) for by in ("own", "judge"))
        found.append(likeness(name.split(UP)[0], ours, judged))
    return sorted(found, key=lambda item: -item.judge)


def command(about: str, measure: Callable[[AlignRecipe, int], list[Likeness]], first: str) -> None:
    """Measure as the command line says, and print a table whose first column is called `first`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--epochs", type=int, default=24, help="of the recipe's roll-outs, at least 2")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    try:
        if options.epochs < 2:
            raise SdgError("--epochs is at least 2.")
        found = measure(load_recipe(AlignRecipe, options.recipe, options.overrides), options.epochs)
    except SdgError as error:
        sys.exit(f"Error: {error}")
    table = Table(first, "own, %", "judge, %", box=None)
    for item in found:
        table.add_row(
            item.of,
            f"{100 * item.own:+.2f} ± {100 * item.own_error:.2f}",
            f"{100 * item.judge:+.2f} ± {100 * item.judge_error:.2f}",
        )
    Console(width=110).print(table)


def main() -> None:
    command(__doc__ or "", measure, "layer")


if __name__ == "__main__":
    main()
