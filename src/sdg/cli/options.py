"""Options that several command groups share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sdg.cli.terminal import say, show
from sdg.errors import SdgError

if TYPE_CHECKING:
    from sdg.runs.rehearsal import Rehearsal

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Page(click.Path):
    """Where a page is written, which takes the place of an earlier page and of no other file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from sdg.io.files import require_page

        path = super().convert(value, param, ctx)
        require_page(path)
        return path


PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
PAGE = _Page(path_type=Path)
SEED = click.option("--seed", type=click.IntRange(min=0), default=0)
ALLOW_OUTSIDE = click.option(
    "--allow-outside",
    is_flag=True,
    help="Take pictures from outside of the images' folder where a data file you trust names some.",
)
BOX_ORDER = click.option(
    "--box-order",
    type=click.Choice(["xyxy", "yxyx"]),
    default="xyxy",
    help="Order of the coordinates in the files that are read (sdg30k and predictions).",
)
PROFILE = click.option(
    "--profile", help='Prompt profile (TOML), "release" or "default" [default: the checkpoint\'s own].'
)
JSON = click.option(
    "--json",
    "json_path",
    type=PATH,
    metavar="FILE",
    help="Also write the numbers as JSON; - for stdout, no tables.",
)
RESUME = click.option("--resume", is_flag=True, help="Go on with the run in --out, or begin it.")
MINUTES = click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=115,
    help="Stop then, with everything saved to go on from.",
)


def together(*options: Decorator) -> Decorator:
    """Options and arguments as one decorator; help lists them in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


prompts_of = together(
    click.option("--prompt", help="The prompt of every image that is given by its path."),
    click.option("--prompts", type=PATH, help='JSON Lines file of prompts: {"filepath": …, "caption": …}.'),
    click.option("--images", type=FOLDER, help="Folder of a JSON Lines file's images [default: the file's]."),
    ALLOW_OUTSIDE,
)
"""Where the prompts of given images are, and the images of a given file."""

sources_and_prompts = together(
    click.argument("sources", nargs=-1, required=True, type=PATH, metavar="IMAGE|FOLDER|FILE.jsonl..."),
    prompts_of,
)
"""Images to work on, with their prompts: what `sdg.runs.inputs.gather` takes."""

GPU = click.option(
    "--gpu", type=click.Choice(["H100", "H200", "A100", "4090"]), default="H100", help="Of a dry run."
)


def recipe(example: str) -> Decorator:
    """A recipe and what is changed in it."""
    return together(
        click.argument("recipe", type=PATH),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help=f"Override a key, as {example}."
        ),
    )


comparing = together(
    click.option(
        "--lora",
        "adapters",
        multiple=True,
        metavar="NAME=FOLDER",
        help="An aligned adapter or transformer; may be repeated.",
    ),
    click.option("--samples", type=click.IntRange(1), default=1, help="Pictures a prompt."),
    click.option("--bootstrap", type=click.IntRange(100), default=2000, help="Resamples."),
    click.option("--resume", is_flag=True, help="Keep what a comparison that was stopped had measured."),
)
"""Aligned generators, and how they are compared with their base: what `compare_generators` takes."""


def training(example: str) -> Decorator:
    """A recipe, the folder of its run, and a dry run, which `end_dry_run` ends."""
    return together(
        recipe(example),
        click.option("--out", type=PATH, help="Folder of the run; a dry run needs none."),
        click.option("--resume", is_flag=True, help="Go on from the run's newest checkpoint."),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Train nothing: check all that can be, and estimate memory, disk and hours.",
        ),
        GPU,
        click.option("--processes", type=click.IntRange(1), default=8, help="Of a dry run."),
        click.option("--json", "json_path", type=PATH, help="Of a dry run; - for stdout."),
    )


def refuse_dry_options() -> None:
    """Raises click.UsageError for an option of dry runs that a run was given, which would do nothing."""
    context = click.get_current_context()
    for option in context.command.params:
        if (
            option.name in ("gpu", "processes", "json_path", "tokens")
            and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT
        ):
            instead = "; several are started by a launcher: see --help" if option.name == "processes" else ""
            raise click.UsageError(f"{option.opts[0]} is of a dry run alone, with --dry-run{instead}.")


def end_dry_run(page: Rehearsal, json_path: Path | None = None) -> None:
    """Print the page of a dry run; raises SdgError with the first thing that would fail."""
    if not write_numbers(json_path, page.to_dict()):
        show(page)
    if page.fault is not None:
        raise SdgError(f"The run would fail. {page.fault}")


def needed_out(out: Path | None) -> Path:
    """The folder of a run that is no dry one."""
    if out is None:
        raise click.UsageError("Name the folder of the run with --out.")
    return out


@contextmanager
def resumable(out: Path | None, kept: str = "What is done so far is kept") -> Iterator[None]:
    """Says at Ctrl-C what is kept of a run, and how it goes on: out None, by the same command."""
    try:
        yield
    except KeyboardInterrupt:
        how = "the same command goes on" if out is None else f"go on with --resume --out {out}"
        say(f"Stopped. {kept}; {how}.")
        raise


def resumed_training(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose run in `out` has checkpoints, and which says so at Ctrl-C."""

    @wraps(command)
    def run(*, out: Path, **options: Any) -> Any:
        with resumable(out, "The newest checkpoint is kept"):
            return command(out=out, **options)

    return run


def write_numbers(path: Path | None, document: Mapping[str, Any]) -> bool:
    """What `--json` asks for: a document written to its file, `-` being stdout; whether it went there."""
    if path is None:
        return False
    from sdg.io.files import write_text

    text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    if str(path) == "-":
        show(text, nl=False)
        return True
    write_text(path, text)
    say(f"Numbers: {path}")
    return False
