"""`sdg testbed`: the embedded world of coloured shapes, its pictures with known defects, its models."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sdg.testbed.world import Level


@click.group()
def testbed() -> None:
    """The embedded world of coloured shapes: pictures with known defects, and its small models."""


@testbed.command()
@click.option("--count", required=True, type=click.IntRange(min=1), help="Number of pictures.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="New folder to write to."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--level",
    type=click.Choice(["core", "rich"]),
    default="core",
    show_default=True,
    help="core: what the embedded models know; rich: also sizes, words, shadows and more objects.",
)
@click.option("--size", type=click.IntRange(64, 1024), default=128, show_default=True, help="Pixels a side.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes; the bytes do not depend on it [default: all cores].",
)
def generate(count: int, out: Path, seed: int, level: Level, size: int, workers: int | None) -> None:
    """Write a data set of pictures with injected defects, in the layout of SDG-30K.

    Holds images/, settings.json and one annotation file a split (train, validation, test), which share no
    prompt. Interrupted, the same command goes on where it stopped.

    \b
    Example:
      sdg testbed generate --count 1000 --out shapes/
      sdg data stats shapes/train.jsonl
    """
    from sdg.testbed.dataset import generate as write

    console = Console(stderr=True)
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=count)
        splits = write(
            out,
            count,
            seed=seed,
            level=level,
            size=size,
            workers=workers or os.cpu_count() or 1,
            on_progress=lambda done: bar.update(task, completed=done),
        )
    shares = ", ".join(f"{number:,} {split}" for split, number in splits.items())
    click.echo(f"Wrote {count:,} pictures ({shares}) to {out}", err=True)
