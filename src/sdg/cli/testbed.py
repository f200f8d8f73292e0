"""`sdg testbed`: the embedded world of coloured shapes, its pictures with known defects, its models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from sdg.cli.options import JSON, MINUTES, PATH, RESUME, SEED, write_numbers
from sdg.cli.progress import counted
from sdg.cli.terminal import say, show
from sdg.cli.testbed_training import TRAININGS
from sdg.errors import SdgError

_PIPELINE = click.option(
    "--pipeline", type=PATH, metavar="FOLDER", help="Generator to use [default: the embedded one]."
)

_SAMPLING_STEPS = click.option("--steps", type=click.IntRange(min=1), default=20, help="Sampling steps.")


@click.group()
def testbed() -> None:
    """The embedded world of coloured shapes: pictures with known defects, and its small models."""


@testbed.command()
@click.option("--count", required=True, type=click.IntRange(min=1), help="Number of pictures.")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="New folder to write to.")
@SEED
@click.option(
    "--level",
    type=click.Choice(["core", "rich"]),
    default="core",
    help="core: what the embedded models know; rich: also sizes, words, shadows and more objects.",
)
@click.option("--size", type=click.IntRange(64, 1024), default=128, help="Pixels a side.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes; the bytes do not depend on it [default: all cores].",
)
def generate(count: int, out: Path, workers: int | None, **options: Any) -> None:
    """Write a data set of pictures with injected defects, in the layout of SDG-30K.

    Holds images/, settings.json and one annotation file a split (train, validation, test), which share no
    prompt. Interrupted, the same command goes on where it stopped.

    \b
    Example:
      sdg testbed generate --count 1000 --out shapes/
      sdg data stats shapes/train.jsonl
    """
    from sdg.testbed.datasets.injected import generate as write

    with counted("pictures", count) as on_progress:
        splits = write(out, count, workers=workers or os.cpu_count() or 1, on_progress=on_progress, **options)
    shares = ", ".join(f"{number:,} {split}" for split, number in splits.items())
    say(f"Wrote {count:,} pictures ({shares}) to {out}")


@testbed.command()
@click.argument("prompts", nargs=-1)
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write to.")
@click.option("--count", type=click.IntRange(min=1), default=16, help="Held-out prompts, if none is given.")
@_PIPELINE
@click.option("--lora", type=PATH, metavar="FOLDER", help="Adapter that `sdg align` wrote.")
@_SAMPLING_STEPS
@SEED
@RESUME
@MINUTES
def sample(
    prompts: tuple[str, ...], out: Path, count: int, pipeline: Path | None, lora: Path | None, **options: Any
) -> None:
    """Draw pictures by the generator: one of each of PROMPTS, or of held-out prompts.

    Writes DIR/000000.png … and DIR/pictures.jsonl, which says what was asked for.

    \b
    Example:
      sdg testbed sample --out pictures "Three blue stars" "A red ring above a pink cross"
      sdg testbed sample --out pictures --count 32 --steps 8
    """
    from sdg.testbed.datasets.samples import check_prompts, draw_folder

    check_prompts(prompts)
    from sdg.testbed.datasets.corpus import fingerprints
    from sdg.testbed.models.generator.sampling import held_out_prompts
    from sdg.testbed.models.packaged import load_generator

    texts = list(prompts) or held_out_prompts(count, options["seed"])
    generator = load_generator(pipeline, lora=lora)
    with counted("pictures", len(texts)) as on_progress:
        weights = fingerprints(pipeline, lora)
        drawn = draw_folder(generator, texts, out, weights=weights, on_progress=on_progress, **options)
    if drawn < len(texts):
        say(f"Time is up after {drawn:,} of {len(texts):,} pictures; go on with --resume.")
    else:
        say(f"Drew {drawn:,} pictures to {out}")


@testbed.command()
@click.option("--count", required=True, type=click.IntRange(min=1), help="Number of pictures.")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="New folder to write to.")
@click.option("--generated-only", is_flag=True, help="Leave out the injected half.")
@_PIPELINE
@SEED
@MINUTES
def corpus(count: int, out: Path, generated_only: bool, **options: Any) -> None:
    """Write the small analogue of SDG-30K: half injected pictures, half the generator's.

    Four variants of the generator (4, 8, 12 and 20 sampling steps) draw; the oracle annotates. Interrupted,
    the same command goes on where it stopped.

    \b
    Example:
      sdg testbed corpus --count 10000 --out corpus
      sdg data stats corpus/train.jsonl
    """
    from sdg.testbed.datasets.corpus import generate_corpus

    with counted("pictures", count) as on_progress:
        splits = generate_corpus(out, count, injected=not generated_only, on_progress=on_progress, **options)
    if splits is None:
        say("Time is up; the same command goes on.")
        return
    shares = ", ".join(f"{number:,} {split}" for split, number in splits.items())
    say(f"Wrote {count:,} pictures ({shares}) to {out}")


@testbed.command()
@click.option("--what", required=True, type=click.Choice(["generator", "scorer"]))
@click.option(
    "--out",
    type=PATH,
    metavar="DIR",
    help="Keep the generator's pictures here; needed to go on after a stop.",
)
@_PIPELINE
@click.option("--lora", type=PATH, metavar="FOLDER", help="Adapter that `sdg align` wrote.")
@click.option("--scorer", type=PATH, metavar="FOLDER", help="Scorer to use [default: the embedded one].")
@click.option("--prompts", type=click.IntRange(min=1), default=500, help="Held-out prompts.")
@click.option("--seeds", type=click.IntRange(min=1), default=2, help="Pictures a prompt.")
@_SAMPLING_STEPS
@SEED
@MINUTES
@JSON
def measure(
    what: str,
    out: Path | None,
    scorer: Path | None,
    prompts: int,
    seeds: int,
    seed: int,
    json_path: Path | None,
    **options: Any,
) -> None:
    """Measure a small model: the generator's defects by the oracle, or the scorer's retrieval accuracy.

    Prints a table. The scorer is asked about 2 × PROMPTS scenes. With --out, an interrupted measurement of
    the generator goes on, and a complete one is counted again.

    \b
    Example:
      sdg testbed measure --what generator --out measured --json measured.json
      sdg testbed measure --what scorer
    """
    from tempfile import TemporaryDirectory

    from sdg.testbed.models.measure import GeneratorQuality, ScorerQuality, measure_generator, measure_scorer

    result: GeneratorQuality | ScorerQuality | None
    if what == "scorer":
        result = measure_scorer(scorer, scenes=2 * prompts, seed=seed)
    else:
        with TemporaryDirectory() as temporary, counted("pictures", prompts * seeds) as on_progress:
            result = measure_generator(
                out or Path(temporary) / "pictures",
                prompts=prompts,
                seeds=seeds,
                seed=seed,
                on_progress=on_progress,
                **options,
            )
    if result is None:
        raise SdgError("Time is up before all pictures were drawn; with --out, the same command goes on.")
    if not write_numbers(json_path, result.to_dict()):
        show(result.table())


for training in TRAININGS:
    testbed.add_command(training)
