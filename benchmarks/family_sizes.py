"""What each family's recipe takes at real size: parameters trained, memory of a GPU, arithmetic of a pass.

Run: python benchmarks/family_sizes.py [RECIPE…]; a recipe takes a few minutes. The table is in
docs/guides/align.md.
Memory is that of `sdg align RECIPE --dry-run` on eight GPUs, CUDA's own included, at 512×512 and 1024×1024
pixels. A pass is one step of a roll-out of one picture, both passes of guidance where there are two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sdg.alignment.memory import memory, passes, trained_parameters
from sdg.alignment.policies.real_size import configured, policy_on_meta
from sdg.alignment.recipe import AlignRecipe
from sdg.recipes import load_recipe
from sdg.runs.rehearsal import CUDA

RECIPES = Path(__file__).parents[1] / "recipes" / "align"
NAMES = (
    "boxflow-flux1-dev",
    "boxflow-flux2-dev",
    "boxflow-flux2-klein-4b",
    "boxflow-longcat-image",
    "boxflow-qwen-image",
    "boxflow-sana15",
    "boxflow-sd35-medium",
    "boxflow-z-image",
)
SIDES = (512, 1024)
PROCESSES = 8
HEADER = """| recipe | trained | GB a GPU at 512² | at 1024² | TFLOP a pass at 512² | at 1024² |
|---|---|---|---|---|---|"""


def row(name: str) -> str:
    """A recipe's line of the table."""
    recipe = load_recipe(AlignRecipe, RECIPES / f"{name}.yaml")
    known = configured(recipe.policy.family, recipe.policy.model)
    sizes, flops, trained = [], [], 0
    for side in SIDES:
        sized = replace(recipe, policy=replace(recipe.policy, height=side, width=side))
        policy = policy_on_meta(sized.policy, known)
        batch = recipe.sampling.batch_size
        taken = passes(policy, batch)
        trained = trained_parameters(policy)
        sizes.append((sum(memory(sized, policy, known, taken, PROCESSES).values()) + CUDA) / 1e9)
        flops.append(taken.sampling.flop / batch / 1e12)
    numbers = [f"{value:.1f}" for value in (*sizes, *flops)]
    return f"| `{name}` | {trained / 1e6:.1f} M | {' | '.join(numbers)} |"


def rows(names: Sequence[str]) -> Iterator[str]:
    yield HEADER
    for name in names:
        yield row(name)


def main(arguments: Sequence[str] = ()) -> None:
    for line in rows(arguments or NAMES):
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
