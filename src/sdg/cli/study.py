"""`sdg study`: pictures of two systems rated blindly, and the ratings counted as Good, Same and Bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sdg.cli.options import ALLOW_OUTSIDE, FOLDER, JSON, PATH, write_numbers
from sdg.cli.terminal import say, show


def _named(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, Path]:
    name, _, path = value.partition("=")
    if not (name.strip() and path):
        raise click.BadParameter(f"{value!r} is not NAME=PATH, such as sdg=refined-sdg/.")
    return name.strip(), Path(path)


@click.group()
def study() -> None:
    """Rate two systems' pictures blindly: a page for annotators, and its Good/Same/Bad.

    \b
    Example:
      sdg study make --a sdg=refined-sdg/ --b fixed=refined-fixed/ --images . --out study
      sdg study count study ratings-ann.json ratings-bob.json
    """


@study.command()
@click.option(
    "--a",
    required=True,
    callback=_named,
    metavar="NAME=PATH",
    help="Folder that `sdg refine` wrote, or a .jsonl file with filepath and caption; Good is where this "
    "one is better.",
)
@click.option(
    "--b", required=True, callback=_named, metavar="NAME=PATH", help="The same of what it is compared with."
)
@click.option("--limit", type=click.IntRange(1), help="So many pairs, drawn by --seed [default: all].")
@click.option(
    "--side",
    type=click.IntRange(64, 4096),
    default=1024,
    help="Longer side of each picture in pixels at most.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the draw and of each annotator's order.")
@click.option(
    "--images", type=FOLDER, metavar="FOLDER", help="Folder of the inputs, where `sdg refine` kept some."
)
@ALLOW_OUTSIDE
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write to.")
def make(a: tuple[str, Path], b: tuple[str, Path], out: Path, **options: Any) -> None:
    """Pair the results of two systems and write DIR/study.html, to rate, and DIR/key.json, which names them.

    The page needs no network and says nowhere which system made what: give it alone to annotators and keep
    the key. Pairs whose pictures are the same in every pixel are not shown and count as Same.

    \b
    Example:
      sdg study make --a sdg=refined-sdg/ --b fixed=refined-fixed/ --limit 200 --out study
    """
    from rich.console import Console

    from sdg.study.make import KEY, make_study

    if a[0] == b[0]:
        raise click.UsageError("Give --a and --b different names.")
    with Console(stderr=True).status("Comparing pictures") as status:
        made = make_study(
            a[1],
            b[1],
            out,
            names=(a[0], b[0]),
            on_pair=lambda done: status.update(f"{done:,} pairs written"),
            **options,
        )
    pairs, shown = len(made.key.pairs), len(made.key.shown)
    say(
        f"{pairs:,} pairs: {shown:,} to rate, {pairs - shown:,} identical, which count as Same. Left out: "
        f"{made.unmatched:,} inputs with one result only, {made.failed:,} that a system failed on.",
    )
    say(f"For annotators: {made.page} ({made.page.stat().st_size / 1e6:.1f} MB)")
    say(f"To keep from them: {out / KEY}")


@study.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.argument("ratings", type=PATH, nargs=-1, required=True, metavar="RATINGS.json...")
@JSON
def count(folder: Path, ratings: tuple[Path, ...], json_path: Path | None) -> None:
    """Count downloaded ratings of the study in DIR: Good, Same and Bad for A, as in the paper's Table 6.

    With 95 % bootstrap intervals over pairs, a two-sided sign test and, for each two annotators, how often
    they agree and Cohen's kappa.

    \b
    Example:
      sdg study count study ratings-ann.json ratings-bob.json --json gsb.json
    """
    from sdg.io.files import require_other
    from sdg.study import count as gsb
    from sdg.study.make import KEY, read_key
    from sdg.tables import print_tables

    require_other(json_path, [folder / KEY, *ratings])
    key = read_key(folder / KEY)
    tally = gsb.count(key, [gsb.read_ratings(path, key) for path in ratings])
    if write_numbers(json_path, tally.to_document()):
        return
    print_tables(gsb.tally_tables(tally))
    if tally.identical:
        show(f"Same holds {tally.identical:,} identical pairs that were not shown.")
