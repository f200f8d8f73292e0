"""`sdg testbed train-…` and `pretrain-detector`: the small models from scratch, each run resumable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sdg.cli.options import MINUTES, PATH, RESUME, SEED, Decorator, together
from sdg.cli.terminal import say

if TYPE_CHECKING:
    from sdg.testbed.models.detector.pretrain import Stage
    from sdg.testbed.models.loop import Run


_training = together(
    click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder of the run."),
    SEED,
    RESUME,
    MINUTES,
)
"""The options every from-scratch training has."""


def _run(out: Path, options: dict[str, Any]) -> Run:
    """What a training is asked for, taken out of its command's options."""
    from sdg.testbed.models.loop import Run

    return Run(out, *(options.pop(name) for name in ("steps", "seed", "resume", "max_minutes")))


def _steps(default: int) -> Decorator:
    return click.option("--steps", type=click.IntRange(min=1), default=default, help="Optimizer steps.")


@click.command("train-vae")
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


@click.command("train-generator")
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
    help="Compile first: a minute and a C++ compiler for a fifth more speed.",
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


@click.command("distil-generator")
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


@click.command("train-scorer")
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


@click.command("pretrain-detector")
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
    from sdg.testbed.models.detector.pretrain import pretrain
    from sdg.testbed.models.generator.vae import load_vae

    if stage == "see" and seeing is not None:
        raise click.UsageError("--seeing is for stage speak, which begins with that tower; leave it out.")
    known = None if vae is None else load_vae(vae)
    made = pretrain(out, stage=stage, seeing=seeing, vae=known, **options)
    say(f"The result is in {made}.")


TRAININGS: Final = (train_vae, train_generator, distil_generator, train_scorer, pretrain_detector)
"""The commands, in the order in which a newcomer would run them."""
