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

from sdg.errors import SdgError
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

_SAMPLING_STEPS = click.option(
    "--steps", type=click.IntRange(min=1), default=20, show_default=True, help="Sampling steps."
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


@testbed.command()
@click.argument("prompts", nargs=-1)
@click.option("--out", required=True, type=_FOLDER, metavar="DIR", help="Folder to write to.")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Held-out prompts, if none is given.",
)
@_PIPELINE
@click.option("--lora", type=_FOLDER, metavar="FOLDER", help="Adapter that `sdg align` wrote.")
@_SAMPLING_STEPS
@_SEED
@_RESUME
@_MINUTES
def sample(
    prompts: tuple[str, ...],
    out: Path,
    count: int,
    pipeline: Path | None,
    lora: Path | None,
    steps: int,
    seed: int,
    resume: bool,
    max_minutes: float,
) -> None:
    """Draw pictures by the generator: one of each of PROMPTS, or of held-out prompts.

    Writes DIR/000000.png … and DIR/pictures.jsonl, which says what was asked for.

    \b
    Example:
      sdg testbed sample --out pictures "Three blue stars" "A red ring above a pink cross"
      sdg testbed sample --out pictures --count 32 --steps 8
    """
    from sdg.testbed.drawing import check_prompts, draw_folder

    check_prompts(prompts)
    from sdg.testbed.generator.sampling import held_out_prompts
    from sdg.testbed.weights import load_generator

    texts = list(prompts) or held_out_prompts(count, seed)
    generator = load_generator(pipeline, lora=lora)
    with _progress(len(texts)) as on_progress:
        drawn = draw_folder(
            generator,
            texts,
            out,
            steps=steps,
            seed=seed,
            resume=resume,
            max_minutes=max_minutes,
            on_progress=on_progress,
        )
    if drawn < len(texts):
        click.echo(f"Time is up after {drawn:,} of {len(texts):,} pictures; go on with --resume.", err=True)
    else:
        click.echo(f"Drew {drawn:,} pictures to {out}", err=True)


@testbed.command()
@click.option("--count", required=True, type=click.IntRange(min=1), help="Number of pictures.")
@click.option("--out", required=True, type=_FOLDER, metavar="DIR", help="New folder to write to.")
@_PIPELINE
@_SEED
@_MINUTES
def corpus(count: int, out: Path, pipeline: Path | None, seed: int, max_minutes: float) -> None:
    """Write the small analogue of SDG-30K: half injected pictures, half the generator's.

    Four variants of the generator (4, 8, 12 and 20 sampling steps) draw; the oracle annotates. Interrupted,
    the same command goes on where it stopped.

    \b
    Example:
      sdg testbed corpus --count 16000 --out corpus
      sdg data stats corpus/train.jsonl
    """
    from sdg.testbed.corpus import generate_corpus

    with _progress(count) as on_progress:
        splits = generate_corpus(
            out, count, pipeline=pipeline, seed=seed, max_minutes=max_minutes, on_progress=on_progress
        )
    if splits is None:
        click.echo("Time is up; the same command goes on.", err=True)
        return
    shares = ", ".join(f"{number:,} {split}" for split, number in splits.items())
    click.echo(f"Wrote {count:,} pictures ({shares}) to {out}", err=True)


@testbed.command()
@click.option("--what", required=True, type=click.Choice(["generator", "scorer"]))
@click.option(
    "--out",
    type=_FOLDER,
    metavar="DIR",
    help="Keep the generator's pictures here; needed to go on after a stop.",
)
@_PIPELINE
@click.option("--lora", type=_FOLDER, metavar="FOLDER", help="Adapter that `sdg align` wrote.")
@click.option("--scorer", type=_FOLDER, metavar="FOLDER", help="Scorer to use [default: the embedded one].")
@click.option(
    "--prompts", type=click.IntRange(min=1), default=500, show_default=True, help="Held-out prompts."
)
@click.option("--seeds", type=click.IntRange(min=1), default=2, show_default=True, help="Pictures a prompt.")
@_SAMPLING_STEPS
@_SEED
@_MINUTES
@click.option("--json", "json_path", type=_FOLDER, metavar="FILE", help="Also write the numbers here.")
def measure(
    what: str,
    out: Path | None,
    pipeline: Path | None,
    lora: Path | None,
    scorer: Path | None,
    prompts: int,
    seeds: int,
    steps: int,
    seed: int,
    max_minutes: float,
    json_path: Path | None,
) -> None:
    """Measure a small model: the generator's defects by the oracle, or the scorer's retrieval accuracy.

    Prints a table. The scorer is asked about 2 × PROMPTS scenes. With --out, an interrupted measurement of
    the generator goes on, and a complete one is counted again.

    \b
    Example:
      sdg testbed measure --what generator --out measured --json measured.json
      sdg testbed measure --what scorer
    """
    import json
    from tempfile import TemporaryDirectory

    from sdg.files import write_text
    from sdg.testbed.measure import GeneratorQuality, ScorerQuality, measure_generator, measure_scorer

    result: GeneratorQuality | ScorerQuality | None
    if what == "scorer":
        result = measure_scorer(scorer, scenes=2 * prompts, seed=seed)
    else:
        with TemporaryDirectory() as temporary, _progress(prompts * seeds) as on_progress:
            result = measure_generator(
                out or Path(temporary) / "pictures",
                pipeline=pipeline,
                lora=lora,
                prompts=prompts,
                seeds=seeds,
                steps=steps,
                seed=seed,
                max_minutes=max_minutes,
                on_progress=on_progress,
            )
    if result is None:
        raise SdgError("Time is up before all pictures were drawn; with --out, the same command goes on.")
    click.echo(result.table())
    if json_path is not None:
        write_text(json_path, json.dumps(result.to_dict(), indent=2) + "\n")
