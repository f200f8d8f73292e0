"""`sdg bench`: published prompt sets, and the tables of the paper by one command each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click

from sdg.cli.terminal import say, show

_PATH = click.Path(path_type=Path)


@click.group()
def bench() -> None:
    """Published prompt sets, and the paper's tables: your numbers beside the published ones.

    \b
    Example:
      sdg bench prompts partiprompts --category Animals --limit 20
    """


@bench.command("prompts")
@click.argument("name", metavar="NAME")
@click.option("--path", type=_PATH, metavar="PATH", help="Your copy: a file or folder as it was published.")
@click.option("--split", metavar="NAME", help="Of the files that are fetched [default: the set's first].")
@click.option("--category", metavar="NAME", help="Only prompts of this category.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first so many.")
@click.option("--without", type=_PATH, metavar="FILE", help="Leave out the prompts of this annotation file.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines with caption and category, not plain text.")
def prompts_(
    name: str,
    path: Path | None,
    split: str | None,
    category: str | None,
    limit: int | None,
    without: Path | None,
    as_json: bool,
) -> None:
    """Print the prompts of a published set, one a line.

    NAME is drawbench, partiprompts, geneval, t2i-compbench, dpg-bench or pick-a-pic. In a recipe the same is
    prompts.train: bench:NAME?path=…&category=…&limit=…

    \b
    Example:
      sdg bench prompts t2i-compbench --path examples/dataset --category color > prompts.txt
    """
    from sdg.bench.prompts import read_prompt_set

    found = read_prompt_set(name, path, split=split, category=category, limit=limit, without=without)
    for prompt in found:
        show(json.dumps(prompt.to_dict(), ensure_ascii=False) if as_json else prompt.text)
    counts = Counter(prompt.category for prompt in found if prompt.category)
    kinds = "".join(f"; {kind} {count:,}" for kind, count in counts.most_common(12)) if counts else ""
    say(f"{len(found):,} prompts{kinds}")
