"""`sdg train`: make a detector, by supervised fine-tuning and then by reinforcement."""

from __future__ import annotations

from pathlib import Path

import click

_RECIPE = click.argument("recipe", type=click.Path(path_type=Path))
_SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, as data.jitter=0."
)
_OUT = click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
_RESUME = click.option("--resume", is_flag=True, help="Go on from the run's newest checkpoint.")


@click.group()
def train() -> None:
    """Train a detector on annotated pictures.

    \b
    Example:
      sdg train sft recipes/detector/sft-testbed.yaml --out runs/sft
      sdg train grpo recipes/detector/grpo-testbed.yaml --out runs/grpo --set model.checkpoint=runs/sft/final
    """


@train.command()
@_RECIPE
@_SET
@_OUT
@_RESUME
def sft(recipe: Path, overrides: tuple[str, ...], out: Path, resume: bool) -> None:
    """Supervised fine-tuning as RECIPE says.

    Several processes: accelerate launch --num_processes N -m sdg train sft RECIPE --out DIR
    """
    from sdg.recipes import load_recipe
    from sdg.training.recipe import SftRecipe

    settings = load_recipe(SftRecipe, recipe, overrides)
    from sdg.training.sft import sft as run  # after the recipe is known to be good: this loads torch

    run(settings, out, resume=resume)


@train.command()
@_RECIPE
@_SET
@_OUT
@_RESUME
def grpo(recipe: Path, overrides: tuple[str, ...], out: Path, resume: bool) -> None:
    """Reinforcement with the composite reward as RECIPE says, from a detector that SFT made.

    Several processes: accelerate launch --num_processes N -m sdg train grpo RECIPE --out DIR
    """
    from sdg.recipes import load_recipe
    from sdg.training.recipe import GrpoRecipe

    settings = load_recipe(GrpoRecipe, recipe, overrides)
    from sdg.training.grpo import grpo as run

    run(settings, out, resume=resume)
