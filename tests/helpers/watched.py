"""An alignment run that keeps what each of its optimiser steps went by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sdg.alignment.trainer as trainer
from sdg.alignment.recipe import AlignRecipe
from sdg.models.lora import lora_parameters
from sdg.recipes import load_recipe


def align(recipe: Path, out: Path, changes: list[str]) -> list[dict[str, Any]]:
    """Run it; of each optimiser step: number of processes, own valid rows, advantages, gradients."""
    seen: list[dict[str, Any]] = []
    optimise = trainer.optimise

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
        values = optimise(loaded, accelerator, policy, model, optimizer, batches, indices, everyone, signal)
        optimizer.step = step
        return values

    trainer.optimise = watch
    try:
        trainer.align(load_recipe(AlignRecipe, recipe, changes), out)
    finally:
        trainer.optimise = optimise
    return seen
