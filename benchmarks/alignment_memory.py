"""GPU memory of aligning FLUX.1-dev by boxflow-flux1-dev.yaml, by part, worked out on the meta device.

Run: python benchmarks/alignment_memory.py [BATCH_SIZE]
What each part counts is told in `sdg.alignment.memory`. CUDA itself is left out (about 1.5 GB).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sdg.alignment.memory import memory, passes, trained_parameters
from sdg.alignment.policies.real_size import configured, policy_on_meta
from sdg.alignment.recipe import AlignRecipe
from sdg.recipes import load_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "align" / "boxflow-flux1-dev.yaml"
PROCESSES = 8


def parts(recipe: AlignRecipe) -> dict[str, float]:
    """Part -> GB on each GPU."""
    known = configured(recipe.policy.family, recipe.policy.model)
    policy = policy_on_meta(recipe.policy, known)
    print(f"The adapter has {trained_parameters(policy) / 1e6:.1f} M parameters.")
    taken = passes(policy, recipe.sampling.batch_size)
    return {name: size / 1e9 for name, size in memory(recipe, policy, known, taken, PROCESSES).items()}


def table(found: Mapping[str, float]) -> str:
    lines = ["| part | GB |", "|---|---|", *(f"| {name} | {value:.1f} |" for name, value in found.items())]
    total = sum(found.values())
    cached = total - found["text encoders, bf16"]
    return "\n".join([*lines, f"| all | {total:.1f} |", f"| all, with `policy.text_cache` | {cached:.1f} |"])


def main(arguments: Sequence[str] = ()) -> None:
    recipe = load_recipe(AlignRecipe, RECIPE, ["policy.text_cache=null"])
    batch = int(arguments[0]) if arguments else recipe.sampling.batch_size
    print(table(parts(replace(recipe, sampling=replace(recipe.sampling, batch_size=batch)))))


if __name__ == "__main__":
    main(sys.argv[1:])
