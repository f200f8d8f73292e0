"""An alignment run that keeps what each of its optimizer steps went by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sdg.alignment.trainer as trainer
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.update import Learner
from sdg.recipes import load_recipe


def align(recipe: Path, out: Path, changes: list[str]) -> list[dict[str, Any]]:
    """Run it; of each optimizer step: number of processes, own valid rows, advantages, gradients."""
    seen: list[dict[str, Any]] = []
    optimize = Learner.step

    def watch(learner, rows, batches, signal, epoch):
        step = learner.optimizer.step

        def keep(*args: Any, **options: Any) -> Any:
            gradients = {name: p.grad.clone() for name, p in learner.parameters.items()}
            seen.append(
                {
                    "processes": learner.accelerator.num_processes,
                    "valid": signal.valid[rows.own].sum().item(),
                    "advantages": signal.advantages,
                    "gradients": gradients,
                }
            )
            return step(*args, **options)

        learner.optimizer.step = keep
        values = optimize(learner, rows, batches, signal, epoch)
        learner.optimizer.step = step
        return values

    Learner.step = watch
    try:
        trainer.align(load_recipe(AlignRecipe, recipe, changes), out)
    finally:
        Learner.step = optimize
    return seen
