"""Options that several command groups share."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)
SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
RESUME = click.option("--resume", is_flag=True, help="Go on with the run in --out, or begin it.")
MINUTES = click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=115,
    show_default=True,
    help="Stop then, with everything saved; --resume goes on.",
)
