"""Does a training signal point to fewer defects? Its gradient beside that of the oracle's count.

    python benchmarks/alignment_signals.py recipes/align/boxflow-testbed.yaml --epochs 8
    python benchmarks/alignment_signals.py recipes/align/boxflow-testbed.yaml --set sampling.sde_steps=[1]
    python benchmarks/alignment_signals.py recipes/align/boxflow-nft-testbed.yaml --set sampling.sde_steps=[0]

As `alignment_layers.py`, for the recipe's adapter as a whole and by several signals on the same roll-outs:
one reward an image, which is the base reward or minus the number of defects that the detector finds; eq. 4
(SDG §4.2) with all defects, and with those of one type or size. The last row is the judge's own gradient:
how alike another signal's could be at best. On the forward process sampling.sde_steps are the steps at whose
noise levels pictures are noised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import torch
from alignment_layers import Likeness, command, gradients, likeness
from torch import Tensor

from sdg.alignment.policies import load_policy
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.rollout import Score
from sdg.alignment.update import training_signal
from sdg.defects import BOX_SCALE, Defect, DefectType
from sdg.errors import SdgError

SMALL: Final = 0.1  # of the picture's area
KEPT: Final[dict[str, Callable[[Defect], bool]]] = {
    "eq. 4": lambda defect: True,
    "its artifacts": lambda defect: defect.type is DefectType.ARTIFACT,
    "its misalignments": lambda defect: defect.type is not DefectType.ARTIFACT,
    f"its boxes below {SMALL:.0%}": lambda defect: _area(defect) < SMALL,
    f"its boxes from {SMALL:.0%}": lambda defect: _area(defect) >= SMALL,
}
"""Which defects a signal by eq. 4 sees."""


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


def measure(recipe: AlignRecipe, epochs: int) -> list[Likeness]:
    """Every signal's likeness over `epochs` epochs of roll-outs, and the judge's own."""
    if not recipe.needs_detector:
        raise SdgError("The recipe's method asks no detector; --set method=boxflow.")
    policy = load_policy(recipe.policy, "cpu", recipe.precision, recipe.seed)
    steps = gradients(recipe, policy, epochs, signals)
    whole = {
        name: torch.stack([torch.cat([g.flatten() for g in step[name].values()]) for step in steps])
        for name in steps[0]
    }
    return [likeness(name, own, whole["judge"]) for name, own in whole.items()]


def main() -> None:
    command(__doc__ or "", measure, "signal")


if __name__ == "__main__":
    main()
