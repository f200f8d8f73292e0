"""An alignment run that keeps what each of its optimizer steps went by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sdg.alignment.trainer as trainer
from sdg.alignment.recipe import AlignRecipe
from sdg.models.lora import lora_parameters
from sdg.recipes import load_recipe


def align(recipe: Path, out: Path, changes: list[str]) -> list[dict[str, Any]]:
    """Run it; of each optimizer step: number of processes, own valid rows, advantages, gradients."""
    seen: list[dict[str, Any]] = []
    optimize = trainer.optimize

    def watch(loaded, accelerator, policy, model, optimizer, batches, indices, everyone, signal):
        step = optimizer.step

        def keep(*args: Any, **options: Any) -> Any:
            gradients = {n: p.grad.clone() for n, p in lora_parameters(policy.transformer).items()}
            seen.append(
                {
                    "processes": accelerator.num_processes,
                    "valid": signal.valid[list(indices)].sum().item(),
                    "advantages": signal.advantages,
                    "gradients": gradients,
                }
            )
            return step(*args, **options)

        optimizer.step = keep
        values = optimize(loaded, accelerator, policy, model, optimizer, batches, indices, everyone, signal)
        optimizer.step = step
        return values

    trainer.optimize = watch
    try:
        trainer.align(load_recipe(AlignRecipe, recipe, changes), out)
    finally:
        trainer.optimize = optimize
    return seen
