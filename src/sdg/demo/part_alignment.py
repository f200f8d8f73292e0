"""Part 4: a few steps of BoxFlow-GRPO, by the recipe and the trainer of `sdg align`."""

from __future__ import annotations

from pathlib import Path

from sdg.demo.part_pictures import Found
from sdg.demo.settings import Settings, demo_recipe
from sdg.reporting import AlignmentRun, read_run

FOLDER = "alignment"


def align(settings: Settings, folder: Path, found: Found) -> tuple[AlignmentRun, str]:
    """Train in folder/alignment; the run as a section of the report. `found` says that a detector works."""
    from sdg.alignment.trainer import align as train

    recipe = demo_recipe(settings)
    train(recipe, folder / FOLDER)
    run = read_run(folder / FOLDER)
    epochs = [line for line in run.lines if line["kind"] == "train"]
    samples = sum(line["samples"] for line in epochs)
    told = (
        f"{settings.steps} optimizer {'step' if settings.steps == 1 else 'steps'} on {samples:,} pictures in "
        f"{len(epochs)} {'epoch' if len(epochs) == 1 else 'epochs'}: enough to see how it works, too few "
        "to tell by the few pictures watched whether the generator is better."
    )
    return run, told
