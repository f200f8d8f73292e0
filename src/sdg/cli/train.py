"""`sdg train`: make a detector, by supervised fine-tuning and then by reinforcement."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdg.cli.options import PATH, end_dry_run, needed_out, refuse_dry_options, resumable, together, training
from sdg.cli.terminal import say
from sdg.recipes import load_recipe

if TYPE_CHECKING:
    from sdg.training.recipe import Recipe

_TRAINING = together(
    training("data.jitter=0"),
    click.option("--tokens", type=click.IntRange(1), help="Of an answer, for a dry run [default: 1024]."),
)


@click.group()
def train() -> None:
    """Train a detector on annotated pictures.

    \b
    Example:
      sdg train sft recipes/detector/sft-testbed.yaml --out runs/sft
      sdg train grpo recipes/detector/grpo-testbed.yaml --out runs/grpo --set model.checkpoint=runs/sft/final
    """


@train.command()
@_TRAINING
def sft(**given: Any) -> None:
    """Supervised fine-tuning as RECIPE says.

    Several processes: accelerate launch --num_processes N -m sdg train sft RECIPE --out DIR

    \b
    Example:
      sdg train sft recipes/detector/sft-qwen3vl-4b.yaml --dry-run --gpu H100 --processes 16
    """
    from sdg.training.recipe import SftRecipe

    _train("sft", SftRecipe, **given)


@train.command()
@_TRAINING
def grpo(**given: Any) -> None:
    """Reinforcement with the composite reward as RECIPE says, from a detector that SFT made.

    Several processes: accelerate launch --num_processes N -m sdg train grpo RECIPE --out DIR
    """
    from sdg.training.recipe import GrpoRecipe

    _train("grpo", GrpoRecipe, **given)


@train.command()
@click.argument("adapter", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder of the detector to write.")
@click.option(
    "--profile", help='TOML file, "release" or "default" [default: the adapter\'s, or its base\'s].'
)
@click.option("--base", help="The checkpoint it was trained on, if that is elsewhere by now.")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32"]),
    default="bfloat16",
    help="Of the weights that are written.",
)
def merge(adapter: Path, out: Path, base: str | None, dtype: str, profile: str | None) -> None:
    """Add an adapter into the weights of its base, and write a whole detector.

    A training does so at its end; this is for the checkpoints of one with `model.lora`, and for adapters of
    peft from elsewhere.

    \b
    Example:
      sdg train merge runs/grpo/checkpoint-200 --out runs/grpo-200
    """
    from sdg.training.model import merge_adapter

    merge_adapter(adapter, out, base, dtype, profile)
    say(f"The detector is in {out}.")


def _train(
    stage: str,
    schema: type[Recipe],
    recipe: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    dry_run: bool,
    tokens: int | None,
    json_path: Path | None,
    **machine: Any,
) -> None:
    """A stage of training, or its dry run; raises SdgError with the first thing that would fail."""
    settings = load_recipe(schema, recipe, overrides)
    if dry_run:
        from sdg.training.rehearse import ANSWER, rehearse

        end_dry_run(rehearse(settings, tokens=tokens or ANSWER, out=out, **machine), json_path)
        return
    refuse_dry_options()
    module = import_module(f"sdg.training.{stage}")  # after the recipe is known to be good: this loads torch
    with resumable(needed_out(out), "The newest checkpoint is kept"):
        getattr(module, stage)(settings, needed_out(out), resume=resume)
