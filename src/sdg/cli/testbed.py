"""`sdg testbed`: the embedded world of coloured shapes, its pictures with known defects, its models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sdg.testbed.world import Level

_FOLDER = click.Path(path_type=Path)
_SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
_RESUME = click.option("--resume", is_flag=True, help="Go on with the run in --out, or begin it.")
_MINUTES = click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=115,
    show_default=True,
    help="Stop then, with everything saved; --resume goes on.",
)
_PIPELINE = click.option(
    "--pipeline", type=_FOLDER, metavar="FOLDER", help="Generator to use [default: the embedded one]."
)


def _training(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options every from-scratch training has."""
    out = click.option("--out", required=True, type=_FOLDER, metavar="DIR", help="Folder of the run.")
    for option in (_MINUTES, _RESUME, _SEED, out):
        command = option(command)
    return command


def _steps(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--steps", type=click.IntRange(min=1), default=default, show_default=True, help="Optimiser steps."
    )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal; yields a function to be told how many pictures are done."""
    console = Console(stderr=True)
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


@click.group()
def testbed() -> None:
    """The embedded world of coloured shapes: pictures with known defects, and its small models."""


@testbed.command()
@click.option("--count", required=True, type=click.IntRange(min=1), help="Number of pictures.")
@click.option("--out", required=True, type=_FOLDER, metavar="DIR", help="New folder to write to.")
@_SEED
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

    with _progress(count) as on_progress:
        splits = write(
            out,
            count,
            seed=seed,
            level=level,
            size=size,
            workers=workers or os.cpu_count() or 1,
            on_progress=on_progress,
        )
    shares = ", ".join(f"{number:,} {split}" for split, number in splits.items())
    click.echo(f"Wrote {count:,} pictures ({shares}) to {out}", err=True)


@testbed.command("train-vae")
@_steps(3000)
@_training
def train_vae(steps: int, out: Path, seed: int, resume: bool, max_minutes: float) -> None:
    """Train the generator's autoencoder from scratch; the result is in DIR/vae.

    \b
    Example:
      sdg testbed train-vae --out runs/vae
    """
    from sdg.testbed.generator.vae import train_vae as train

    train(out, steps=steps, seed=seed, resume=resume, max_minutes=max_minutes)
    click.echo(f"The autoencoder is in {out / 'vae'}, the log in {out / 'log.jsonl'}.", err=True)


@testbed.command("train-generator")
@click.option(
    "--vae", required=True, type=_FOLDER, metavar="FOLDER", help="Autoencoder that train-vae wrote."
)
@_steps(6000)
@click.option(
    "--scenes", type=click.IntRange(min=1), default=36_000, show_default=True, help="Scenes to train on."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@_training
def train_generator(
    vae: Path,
    steps: int,
    scenes: int,
    batch_size: int,
    out: Path,
    seed: int,
    resume: bool,
    max_minutes: float,
) -> None:
    """Train the text-to-image generator from scratch; the result is in DIR/pipeline.

    A grid of pictures of held-out prompts is saved every 500 steps.

    \b
    Example:
      sdg testbed train-generator --vae runs/vae/vae --out runs/generator
      sdg testbed train-generator --vae runs/vae/vae --out runs/generator --resume
    """
    from sdg.testbed.generator.flow import train_generator as train

    train(
        vae,
        out,
        steps=steps,
        batch_size=batch_size,
        scenes=scenes,
        seed=seed,
        resume=resume,
        max_minutes=max_minutes,
    )
    click.echo(f"The generator is in {out / 'pipeline'}, the log in {out / 'log.jsonl'}.", err=True)


@testbed.command("train-scorer")
@_steps(6000)
@click.option(
    "--pairs", type=click.IntRange(min=2), default=64, show_default=True, help="Pairs of scenes a batch."
)
@_training
def train_scorer(steps: int, pairs: int, out: Path, seed: int, resume: bool, max_minutes: float) -> None:
    """Train the CLIP-like scorer of pictures and prompts from scratch; the result is in DIR/scorer.

    \b
    Example:
      sdg testbed train-scorer --out runs/scorer
    """
    from sdg.testbed.scorer import train_scorer as train

    train(out, steps=steps, pairs=pairs, seed=seed, resume=resume, max_minutes=max_minutes)
    click.echo(f"The scorer is in {out / 'scorer'}, the log in {out / 'log.jsonl'}.", err=True)
