"""What a demo is asked for, and the alignment recipe it shares with `sdg align`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sdg.errors import SdgError
from sdg.testbed.models.packaged import ALIGNED

if TYPE_CHECKING:
    from sdg.alignment.recipe import AlignRecipe

RECIPE: Final = "boxflow-nft-testbed.yaml"
EMBEDDED: Final = "testbed"


@dataclass(frozen=True, slots=True)
class Settings:
    """The demo's size and what it works with; the defaults take a few minutes on two processor cores.

    prompts: held-out prompts, one picture each. steps: of BoxFlow-NFT. refined: how many of the worst
    pictures are refined. pipeline: the generator's folder, None for the embedded one. aligned: folder of the
    shipped adapter, which may be missing. overrides: of the alignment recipe, after the demo's own.
    """

    prompts: int = 24
    seed: int = 0
    detector: str = EMBEDDED
    steps: int = 2
    refined: int = 6
    pipeline: Path | None = None
    aligned: Path = ALIGNED
    overrides: tuple[str, ...] = ()


def recipe_file() -> Path:
    """The testbed's BoxFlow-NFT recipe: inside an installed package, or in the checkout it runs from."""
    checkout = Path(__file__).resolve().parents[3] / "recipes" / "align" / RECIPE
    for file in (Path(__file__).with_name(RECIPE), checkout):
        if file.is_file():
            return file
    raise SdgError(f"The recipe {RECIPE} is missing from this installation; install the package again.")


def demo_recipe(settings: Settings) -> AlignRecipe:
    """That recipe, cut down to a few short epochs; what each epoch does stays the same."""
    from sdg.alignment.recipe import AlignRecipe
    from sdg.recipes import load_recipe

    changes = [
        f"seed={settings.seed}",
        f"optimizer.steps={settings.steps}",
        "groups.prompts=4",
        "groups.size=8",
        f"monitor.every={settings.steps}",  # before the first step and after the last
        "monitor.prompts=8",
        "run.pictures=1",
    ]
    if settings.pipeline is not None:
        changes.append(f"policy.model={json.dumps(str(settings.pipeline))}")
    if settings.detector != EMBEDDED:
        changes.append(f"reward.detector={json.dumps(settings.detector)}")
    recipe = load_recipe(AlignRecipe, recipe_file(), [*changes, *settings.overrides])
    # The first and the last epoch as figures, however many there are.
    figures = [f"run.pictures_every={recipe.epochs}", f"run.save_every={recipe.epochs}"]
    return load_recipe(AlignRecipe, recipe_file(), [*changes, *figures, *settings.overrides])
