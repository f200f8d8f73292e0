"""`sdg demo`: the whole story on the embedded world, told in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sdg.cli.options import PATH, SEED
from sdg.cli.terminal import say, show
from sdg.errors import SdgError


@click.command()
@click.option("--out", type=PATH, default=Path("demo"), metavar="DIR", help="Folder to write to.")
@click.option("--prompts", type=click.IntRange(1), default=24, help="Held-out prompts to draw.")
@SEED
@click.option(
    "--detector",
    default="testbed",
    help="As `sdg diagnose --detector`, or python:MODULE.FUNCTION of a picture and its prompt.",
)
@click.option("--steps", type=click.IntRange(1), default=2, help="Steps of BoxFlow-NFT.")
@click.option("--refine", "refined", type=click.IntRange(1), default=6, help="Worst pictures to refine.")
@click.option("--pipeline", type=PATH, metavar="FOLDER", help="Generator to use [default: the embedded one].")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the alignment recipe."
)
def demo(out: Path, **settings: Any) -> None:
    """Draw, diagnose, evaluate, align, refine: all of it on the small embedded world, in a few minutes.

    Writes DIR/report.html, one page that needs no network, with the files behind it beside it, and prints its
    path. A part that fails is told in the report, and the exit code is 1. Run again, it replaces its outputs.

    \b
    Example:
      sdg demo
      sdg demo --prompts 8 --steps 1 --out quick
    """
    from sdg.demo import Settings, run_demo

    ending = run_demo(Settings(**settings), out, say)
    show(ending.report)
    if ending.failed:
        first = ending.failed[0]
        raise SdgError(
            f"{first.name} failed ({first.result.rstrip('.')}); {ending.report} says what there is."
        )
    say(f"Open {ending.report.resolve().as_uri()} in a browser.")
