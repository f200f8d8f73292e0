"""`sdg testbed`: the embedded world of coloured shapes, its pictures with known defects, its models."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdg.cli.options import (
    JSON,
    MINUTES,
    PATH,
    RESUME,
    SEED,
    Decorator,
    resumable,
    resumed_training,
    together,
    write_numbers,
)
from sdg.cli.progress import counted
from sdg.cli.terminal import say, show
from sdg.errors import SdgError

if TYPE_CHECKING:
    from sdg.testbed.models.detector.speak import Stage
    from sdg.testbed.models.loop import Run

_PIPELINE = click.option(
    "--pipeline", type=PATH, metavar="FOLDER", help="Generator to use [default: the embedded one]."
)

_SAMPLING_STEPS = click.option("--steps", type=click.IntRange(min=1), default=20, help="Sampling steps.")

_training = together(
    click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder of the run."),
    SEED,
    RESUME,
    MINUTES,
    resumed_training,
)
"""The options every from-scratch training has."""


def _run(out: Path, options: dict[str, Any]) -> Run:
    """What a training is asked for, taken out of its command's options."""
    from sdg.testbed.models.loop import Run

    return Run(out, *(options.pop(name) for name in ("steps", "seed", "resume", "max_minutes")))


def _steps(default: int) -> Decorator:
    return click.option("--steps", type=click.IntRange(min=1), default=default, help="Optimizer steps.")


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

    with resumable(None), counted("pictures", count) as on_progress:
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
    with resumable(out), counted("pictures", len(texts)) as on_progress:
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

    with resumable(None), counted("pictures", count) as on_progress:
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
        with (
            TemporaryDirectory() as temporary,
            resumable(None) if out else nullcontext(),
            counted("pictures", prompts * seeds) as on_progress,
        ):
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


@testbed.command("train-vae")
@_steps(3000)
@_training
def train_vae(out: Path, **options: Any) -> None:
    """Train the generator's autoencoder from scratch; the result is in DIR/vae.

    \b
    Example:
      sdg testbed train-vae --out runs/vae
    """
    from sdg.testbed.models.generator.vae import train_vae as train

    train(_run(out, options), **options)
    say(f"The autoencoder is in {out / 'vae'}, the log in {out / 'log.jsonl'}.")


@testbed.command("train-generator")
@click.option("--vae", required=True, type=PATH, metavar="FOLDER", help="Autoencoder that train-vae wrote.")
@_steps(6000)
@click.option("--scenes", type=click.IntRange(min=1), default=36_000, help="Scenes to train on.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64)
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=1.5e-3)
@click.option(
    "--decay",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=0.5,
    help="Share of the steps, at the end, over which the learning rate falls.",
)
@click.option(
    "--start-from", type=PATH, metavar="FOLDER", help="Pipeline to train further [default: from scratch]."
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile first: a minute and a C++ compiler, for a seventh less time in bfloat16.",
)
@_training
def train_generator(vae: Path, start_from: Path | None, out: Path, **options: Any) -> None:
    """Train the text-to-image generator, from scratch or further; the result is in DIR/pipeline.

    A grid of pictures of held-out prompts is saved every 500 steps. A resumed run may have other --steps,
    --decay, --learning-rate and --scenes: train at a constant rate, look, and decide then when it falls.

    \b
    Example:
      sdg testbed train-generator --vae runs/vae/vae --out runs/generator
      sdg testbed train-generator --vae runs/vae/vae --out runs/generator --resume
      sdg testbed train-generator --vae runs/vae/vae --start-from runs/generator/pipeline --out runs/further
    """
    from sdg.testbed.models.generator.flow import train_generator as train
    from sdg.testbed.models.packaged import load_generator

    known = None if start_from is None else load_generator(start_from)
    train(vae, _run(out, options), start_from=known, **options)
    say(f"The generator is in {out / 'pipeline'}, the log in {out / 'log.jsonl'}.")


@testbed.command("distil-generator")
@click.option(
    "--pipeline", required=True, type=PATH, metavar="FOLDER", help="Pipeline that train-generator wrote."
)
@click.option(
    "--scale",
    type=click.FloatRange(min=1, min_open=True),
    default=1.5,
    help="Guidance whose effect is learned.",
)
@_steps(400)
@click.option("--scenes", type=click.IntRange(min=1), default=16_000, help="Scenes to train on.")
@_training
def distil_generator(pipeline: Path, out: Path, **options: Any) -> None:
    """Build classifier-free guidance into a generator's weights; the result is in DIR/pipeline.

    \b
    Example:
      sdg testbed distil-generator --pipeline runs/generator/pipeline --out runs/distilled
    """
    from sdg.testbed.models.generator.flow import distil_guidance
    from sdg.testbed.models.packaged import load_generator

    distil_guidance(load_generator(pipeline), _run(out, options), **options)
    say(f"The generator is in {out / 'pipeline'}, the log in {out / 'log.jsonl'}.")


@testbed.command("train-scorer")
@_steps(6000)
@click.option("--pairs", type=click.IntRange(min=2), default=64, help="Pairs of scenes a batch.")
@_training
def train_scorer(out: Path, **options: Any) -> None:
    """Train the CLIP-like scorer of pictures and prompts from scratch; the result is in DIR/scorer.

    \b
    Example:
      sdg testbed train-scorer --out runs/scorer
    """
    from sdg.testbed.models.scorer import train_scorer as train

    train(_run(out, options), **options)
    say(f"The scorer is in {out / 'scorer'}, the log in {out / 'log.jsonl'}.")


@testbed.command("pretrain-detector")
@click.option(
    "--stage",
    type=click.Choice(["see", "speak", "both"]),
    default="both",
    help="see: the vision tower alone; speak: the whole model, from a tower that sees.",
)
@click.option(
    "--vae", type=PATH, metavar="FOLDER", help="Autoencoder of train-vae; its texture is learned as well."
)
@click.option("--seeing", type=PATH, metavar="FOLDER", help="Tower for stage speak [default: that of --out].")
@click.option("--see-steps", type=click.IntRange(min=1), default=2000)
@click.option("--speak-steps", type=click.IntRange(min=1), default=2000)
@_training
def pretrain_detector(stage: Stage, vae: Path | None, seeing: Path | None, out: Path, **options: Any) -> None:
    """Make the base model that the embedded detector's SFT starts from: one that can see and ground.

    First its vision tower learns dense targets for every cell of a picture, then the whole model grounded
    captions and diagnoses, on injected pictures. The result is in DIR/speak/detector.

    \b
    Example:
      sdg testbed pretrain-detector --vae runs/vae/vae --out runs/base
      sdg testbed pretrain-detector --vae runs/vae/vae --out runs/base --stage speak --resume
    """
    from sdg.testbed.models.detector.speak import pretrain
    from sdg.testbed.models.generator.vae import load_vae

    if stage == "see" and seeing is not None:
        raise click.UsageError("--seeing is for stage speak, which begins with that tower; leave it out.")
    known = None if vae is None else load_vae(vae)
    made = pretrain(out, stage=stage, seeing=seeing, vae=known, **options)
    say(f"The result is in {made}.")
