"""`sdg report`: diagnoses, scores, refinements and alignment runs as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdg.cli.options import ALLOW_OUTSIDE, PAGE, PATH
from sdg.cli.terminal import say
from sdg.errors import SdgError, path_end

if TYPE_CHECKING:
    from sdg.reporting.page import Section


@click.command()
@click.option(
    "--diagnoses",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Predictions or annotations, in any known format: a gallery. May be repeated, as "
    "--scores, --refinements, --alignment and --bench.",
)
@click.option(
    "--images",
    type=PATH,
    metavar="FOLDER",
    help="Folder of their images [default: the file's], and of the inputs of --refinements.",
)
@ALLOW_OUTSIDE
@click.option("--scores", type=PATH, multiple=True, metavar="FILE", help="What `sdg evaluate --json` wrote.")
@click.option("--refinements", type=PATH, multiple=True, metavar="FOLDER", help="What `sdg refine` wrote.")
@click.option("--alignment", type=PATH, multiple=True, metavar="FOLDER", help="What `sdg align` wrote.")
@click.option("--bench", type=PATH, multiple=True, metavar="FILE.json", help="What `sdg bench` wrote.")
@click.option("--title", default="Structured defects", help="Title of the page.")
@click.option("--note", default="", show_default=False, metavar="TEXT", help="A sentence under the title.")
@click.option(
    "--side",
    type=click.IntRange(min=64, max=4096),
    metavar="PIXELS",
    help="Longer side of each picture at most [default: 640, or 384 for more than 100 pictures].",
)
@click.option("--out", type=PAGE, required=True, metavar="FILE.html", help="HTML file to write.")
def report(
    diagnoses: tuple[Path, ...],
    images: Path | None,
    allow_outside: bool,
    scores: tuple[Path, ...],
    refinements: tuple[Path, ...],
    alignment: tuple[Path, ...],
    bench: tuple[Path, ...],
    title: str,
    note: str,
    side: int | None,
    out: Path,
) -> None:
    """Write one HTML file to look at and to pass on: it needs no network and holds its pictures.

    A gallery with boxes and reasons to filter, metrics with intervals, sliders from before to after,
    learning curves and reward maps. Exit code 1 if there are files of pictures to show, and none is found.

    \b
    Examples:
      sdg report --diagnoses predictions.jsonl --images test/ --scores scores.json --out report.html
      sdg report --alignment runs/boxflow --refinements refined/ --images pictures/ --out report.html
    """
    if not (diagnoses or scores or refinements or alignment or bench):
        raise click.UsageError(
            "Nothing to show; give --diagnoses, --scores, --refinements, --alignment or --bench, or several."
        )
    if images is not None and not images.is_dir():
        raise SdgError(f"{images} is not a folder; give the one that the images' paths are relative to.")

    from sdg.data.formats import read_records
    from sdg.data.formats.hf import pictures
    from sdg.refinement.batch import OUTPUT
    from sdg.reporting import (
        Gallery,
        Refinements,
        Report,
        Scores,
        entries_of,
        read_bench,
        read_refinements,
        read_run,
        read_scores,
        write_report,
    )

    sections: list[Section] = [read_bench(path) for path in bench]
    if scores:
        sections.append(Scores([read_scores(path) for path in scores]))
    for path in refinements:
        name = "Refinement" if len(refinements) == 1 else f"Refinement: {path.stem}"
        file, inputs = path / OUTPUT if path.is_dir() else path, () if images is None else (images,)
        sections.append(Refinements(read_refinements(file, inputs, allow_outside=allow_outside), name))
    sections += [read_run(folder) for folder in alignment]
    for path in diagnoses:
        folder = images or (pictures(path, allow_outside=allow_outside) if path.is_dir() else path.parent)
        name = "Pictures" if len(diagnoses) == 1 else f"Pictures: {path.stem}"
        entries = entries_of(read_records(path), folder, allow_outside=allow_outside)
        sections.append(Gallery(entries, name))
    page = Report(title, sections, note)
    write_report(page, out, side=side)
    say(f"Report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if missing := page.missing():
        named = len(page.pictures())
        lacking = (
            f"{len(missing):,} of {named:,} pictures could not be shown; the first: "
            f"{path_end(str(missing[0]), 160)}; name their folder with --images."
        )
        if len(missing) == named:
            raise SdgError(lacking)
        say(lacking)
