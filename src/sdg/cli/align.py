"""`sdg align`: train a generator by BoxFlow-GRPO, BoxFlow-NFT or a baseline, and compare what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sdg.cli.options import (
    PATH,
    comparing,
    end_dry_run,
    needed_out,
    recipe,
    refuse_dry_options,
    resumable,
    training,
)
from sdg.cli.terminal import say, show


class RecipeGroup(click.Group):
    """A group in which `sdg align RECIPE` is short for `sdg align run RECIPE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and args[0].endswith((".yaml", ".yml")):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


_CHANGED = "optimizer.clip=1e-3"  # the example of --set


@click.group(cls=RecipeGroup)
def align() -> None:
    """Align a flow-matching generator with spatial rewards, by BoxFlow-GRPO or BoxFlow-NFT.

    \b
    Example:
      sdg align recipes/align/boxflow-nft-testbed.yaml --out runs/boxflow
      sdg align compare recipes/align/boxflow-nft-testbed.yaml --lora boxflow=runs/boxflow/best --out table
    """


@align.command("run")
@training(_CHANGED)
def run_(
    recipe: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    dry_run: bool,
    gpu: str,
    processes: int,
    json_path: Path | None,
) -> None:
    """Train an adapter, or a whole transformer, as RECIPE says; `sdg align RECIPE` does the same.

    Several processes: torchrun --standalone --nproc_per_node N -m sdg align RECIPE --out DIR

    \b
    Example:
      sdg align recipes/align/boxflow-flux1-dev.yaml --dry-run --gpu H100 --processes 8
    """
    from sdg.alignment.recipe import AlignRecipe
    from sdg.recipes import load_recipe

    settings = load_recipe(AlignRecipe, recipe, overrides)
    if dry_run:
        from sdg.alignment.preflight import preflight

        end_dry_run(preflight(settings, gpu=gpu, processes=processes, out=out), json_path)
        return
    refuse_dry_options()
    from sdg.alignment.trainer import align as train  # after the recipe is known to be good: this loads torch

    with resumable(needed_out(out), "The newest checkpoint is kept"):
        train(settings, needed_out(out), resume=resume)


@align.command()
@recipe(_CHANGED)
@click.option("--lora", type=PATH, required=True, help="Folder of the adapter or transformer.")
@click.option("--out", type=PATH, required=True, help="Folder to write.")
def merge(recipe: Path, overrides: tuple[str, ...], lora: Path, out: Path) -> None:
    """Put what was trained into RECIPE's generator, an adapter or a transformer, and write the pipeline.

    \b
    Example:
      sdg align merge recipes/align/boxflow-flux1-dev.yaml --lora runs/flux/best --out models/flux-aligned
    """
    from sdg.alignment.recipe import AlignRecipe
    from sdg.recipes import load_recipe

    settings = load_recipe(AlignRecipe, recipe, overrides)
    from sdg.alignment.policies import merge as write_merged

    write_merged(settings.policy, lora, out)
    say(f"The pipeline is in {out}.")


@align.command()
@recipe(_CHANGED)
@click.option("--out", type=PATH, required=True, help="Folder for table and pictures.")
@comparing
def compare(
    recipe: Path, overrides: tuple[str, ...], out: Path, adapters: tuple[str, ...], **options: Any
) -> None:
    """Base and aligned generators on RECIPE's held-out prompts, with the same noise.

    Measures everything the recipe's monitor and reward name; started by torchrun, each process takes its
    share. Prints the table; writes table.md,
    comparison.json, measures.jsonl and grid.png.
    """
    from sdg.alignment.recipe import AlignRecipe
    from sdg.recipes import load_recipe

    settings = load_recipe(AlignRecipe, recipe, overrides)
    from sdg.alignment.compare import compare_generators, parse_adapters, untrained
    from sdg.runs.processes import shared

    with resumable(out, "What is measured so far is kept"), shared() as processes:
        named = parse_adapters(adapters)
        for name in untrained(named) if processes.is_main else ():
            say(f"{name} is untrained: its weights change nothing, so its pictures are those of the base.")
        result = compare_generators(settings, named, out, processes=processes, **options)
    if processes.is_main:
        show(result.table())
        say(f"Table, measures and pictures are in {out}.")
