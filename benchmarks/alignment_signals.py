"""Does a training signal point to fewer defects? Its gradient beside that of the oracle's count.

    python benchmarks/alignment_signals.py recipes/align/boxflow-testbed.yaml --epochs 8
    python benchmarks/alignment_signals.py recipes/align/boxflow-testbed.yaml --set sampling.sde_steps=[1]
    python benchmarks/alignment_signals.py recipes/align/boxflow-nft-testbed.yaml --set sampling.sde_steps=[0]

Draws epochs of the recipe's roll-outs with the untrained generator, and takes the gradient of each optimizer
step for the recipe's adapter by several signals: one reward an image, which is the base reward or minus the
number of defects that the detector finds; eq. 4 (SDG §4.2) with all defects, and with those of one type or
size. For each signal it prints:

- own: how alike the gradients of two independent steps are, E⟨g, g'⟩ / E|g|². What they share is signal, all
  else is noise that training follows as well.
- judge: how alike a step's gradient is to that of another step whose reward is minus the number of defects
  that the recipe's first judge finds. Below 0, the signal teaches the wrong thing.

Both are in percent, with the standard error they would have if there were no signal at all. The last row is
the judge's own gradient: how alike another signal's could be at best. On the forward process
sampling.sde_steps are the steps at whose noise levels pictures are noised.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

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
from sdg.defects import BOX_SCALE, Defect, DefectType
from sdg.detectors import load_detector
from sdg.errors import SdgError
from sdg.images import Pair
from sdg.io.uri import read_prompts
from sdg.models.lora import lora_parameters
from sdg.recipes import load_recipe
from sdg.scorers.weighted import load_reward

UP: Final = ".lora_B."  # the half of an adapter that starts at zero, and alone has a gradient then
SMALL: Final = 0.1  # of the picture's area
KEPT: Final[dict[str, Callable[[Defect], bool]]] = {
    "eq. 4": lambda defect: True,
    "its artifacts": lambda defect: defect.type is DefectType.ARTIFACT,
    "its misalignments": lambda defect: defect.type is not DefectType.ARTIFACT,
    f"its boxes below {SMALL:.0%}": lambda defect: _area(defect) < SMALL,
    f"its boxes from {SMALL:.0%}": lambda defect: _area(defect) >= SMALL,
}
"""Which defects a signal by eq. 4 sees."""


class Likeness(NamedTuple):
    """What independent steps' gradients share, by one signal."""

    of: str
    own: float
    own_error: float
    judge: float
    judge_error: float


def _area(defect: Defect) -> float:
    x0, y0, x1, y1 = defect.box
    return (x1 - x0) * (y1 - y0) / BOX_SCALE**2


def signals(
    recipe: AlignRecipe, scores: Sequence[Score], groups: Tensor, grid: tuple[int, int]
) -> dict[str, Tensor]:
    """Advantages by each signal, of the same roll-outs and scores."""

    def advantages(of: AlignRecipe, seen: Sequence[Score] = scores) -> Tensor:
        return training_signal(of, seen, groups, grid).advantages

    def only(keep: Callable[[Defect], bool]) -> list[Score]:
        return [
            score
            if score.diagnosis is None
            else Score(
                score.reward,
                replace(score.diagnosis, defects=tuple(filter(keep, score.diagnosis.defects))),
            )
            for score in scores
        ]

    published = replace(recipe, method="boxflow")
    scalar = replace(recipe, method="flow-grpo")
    counts = [
        Score(None if score.diagnosis is None else -float(len(score.diagnosis.defects)), None)
        for score in scores
    ]
    found = {"base reward": advantages(scalar), "number of defects": advantages(scalar, counts)}
    return found | {name: advantages(published, only(keep)) for name, keep in KEPT.items()}


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
) -> list[list[Tensor]]:
    """For each optimizer step, each of the signals' gradients."""
    parameters = [p for name, p in lora_parameters(policy.transformer).items() if UP in name]
    steps = []
    batches = len(drawn.transitions) // len(parts)
    for number, part in enumerate(parts):
        sums = [[torch.zeros_like(p) for p in parameters] for _ in advantages]
        rows = list(part.own)
        for transitions in drawn.transitions[number * batches : (number + 1) * batches]:
            chosen, rows = rows[: len(transitions.prompts)], rows[len(transitions.prompts) :]
            for quantity in raised(recipe, policy, transitions, chosen, epoch):
                by_location = quantity.flatten(1)
                for signal, total in enumerate(sums):
                    weight = advantages[signal][chosen].reshape(len(chosen), -1)  # (B, 1 or locations)
                    objective = (weight * by_location).mean(1).sum()
                    last = signal == len(sums) - 1
                    gradients = torch.autograd.grad(objective, parameters, retain_graph=not last)
                    torch._foreach_add_(total, gradients)
        steps.append([torch.cat([gradient.flatten() for gradient in total]) for total in sums])
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


def gradients(recipe: AlignRecipe, policy: FlowPolicy, epochs: int) -> list[dict[str, Tensor]]:
    """Of each optimizer step of `epochs` epochs: by each signal, and "judge", the adapter's gradient.

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
    """Every signal's likeness over `epochs` epochs of roll-outs, and the judge's own."""
    if not recipe.needs_detector:
        raise SdgError("The recipe's method asks no detector; --set method=boxflow.")
    policy = load_policy(recipe.policy, "cpu", recipe.precision, recipe.seed)
    steps = gradients(recipe, policy, epochs)
    whole = {name: torch.stack([step[name] for step in steps]) for name in steps[0]}
    return [likeness(name, own, whole["judge"]) for name, own in whole.items()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    table = Table("signal", "own, %", "judge, %", box=None)
    for item in found:
        table.add_row(
            item.of,
            f"{100 * item.own:+.2f} ± {100 * item.own_error:.2f}",
            f"{100 * item.judge:+.2f} ± {100 * item.judge_error:.2f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
