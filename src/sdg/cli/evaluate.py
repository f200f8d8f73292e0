"""`sdg evaluate`: SDG-Eval of a prediction file against a truth file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from sdg._version import __version__
from sdg.data.formats import guess_format, read_records
from sdg.data.formats.sdg30k import BoxOrder
from sdg.defects import Diagnosis, Status
from sdg.embeddings import Embedder, TransformerEmbedder, load_embedder
from sdg.errors import SdgError
from sdg.evaluation import PUBLISHED, Comparison, Evaluation, Joined, compare, join, slices
from sdg.evaluation.scoring import Matching
from sdg.evaluation.sdg_eval import evaluate as score
from sdg.evaluation.slices import SLICES, Slice, SliceBy
from sdg.evaluation.tables import Rows, comparison_rows, evaluation_rows, rich_table, slice_rows
from sdg.io.files import write_text
from sdg.records import Record

_FILE = click.Path(path_type=Path)


@click.command()
@click.option("--truth", type=_FILE, required=True, metavar="FILE", help="Annotations, in any known format.")
@click.option(
    "--predictions", type=_FILE, required=True, metavar="FILE", help="Raw responses, or any known format."
)
@click.option(
    "--matching",
    type=click.Choice(["hungarian", "greedy"]),
    default="hungarian",
    show_default=True,
    help="hungarian: the paper's; greedy: that of the authors' code.",
)
@click.option(
    "--embedder",
    metavar="NAME",
    help="Compares reasons: token-f1, minilm, qwen3, qwen3:last, a hub id or a folder [default: none, "
    "DescCos stays undefined].",
)
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    metavar="N",
    help="Resamples of images for the 95 % intervals; 0 for none.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the resampling."
)
@click.option(
    "--compare",
    "other",
    type=_FILE,
    metavar="FILE",
    help="Other predictions: differences, intervals, p-values.",
)
@click.option(
    "--slice",
    "by",
    type=click.Choice(SLICES),
    multiple=True,
    help="Also within parts of the data; may be repeated.",
)
@click.option("--published", is_flag=True, help="Print the paper's Table 2 beside, marked as published.")
@click.option(
    "--box-order",
    type=click.Choice(["xyxy", "yxyx"]),
    default="xyxy",
    show_default=True,
    help="Order of the coordinates in the predictions.",
)
@click.option("--allow-missing", is_flag=True, help="Evaluate the images that both files share.")
@click.option(
    "--images", type=click.Path(path_type=Path), metavar="FOLDER", help="Images, for the HTML report."
)
@click.option("--json", "json_path", type=_FILE, metavar="FILE", help="Write all numbers; - for stdout.")
@click.option("--html", "html_path", type=_FILE, metavar="FILE", help="Write a report with the worst images.")
def evaluate(
    truth: Path,
    predictions: Path,
    matching: Matching,
    embedder: str | None,
    bootstrap: int,
    seed: int,
    other: Path | None,
    by: tuple[SliceBy, ...],
    published: bool,
    box_order: BoxOrder,
    allow_missing: bool,
    images: Path | None,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Score predicted defects against the truth with SDG-Eval.

    Both files are joined by `filepath`, whatever their order; every path needs one truth and one prediction.

    \b
    Example:
      sdg evaluate --truth annotations.jsonl --predictions predictions.jsonl \\
          --embedder minilm --slice tier --published --json scores.json
    """
    if images is not None and not images.is_dir():
        raise SdgError(f"{images} is not a folder; give the one that the images' paths are relative to.")
    joined = join(_read_truth(truth), read_records(predictions, box_order=box_order))
    _check(joined, truth, predictions, allow_missing)
    comparison = None
    with _embedding(embedder) as reader:
        options: dict[str, Any] = {"embedder": reader, "matching": matching}
        result = score(joined.truth, joined.predicted, bootstrap=bootstrap, seed=seed, **options)
        if other is not None:
            others = read_records(other, box_order=box_order)
            second = _rejoin(joined, others, other, predictions, allow_missing)
            scored = score(joined.truth, second, **options)
            comparison = compare(result, scored, resamples=bootstrap or 1000, seed=seed)
    parts = {name: _slices(result, name, joined) for name in by}

    tables = [*evaluation_rows(result, predictions.stem, PUBLISHED if published else ())]
    if comparison is not None and other is not None:
        tables += comparison_rows(comparison, *_names(predictions, other))
    for part in parts.values():
        tables += slice_rows(part)
    if html_path is not None:
        from sdg.reporting.evaluation import write_evaluation

        title = f"SDG-Eval: {predictions.name}"
        write_evaluation(html_path, result, joined, tables, title=title, images=images)
        click.echo(f"Report: {html_path}", err=True)
    document = _document(result, joined, truth, predictions)
    document |= _extras(parts, comparison, other, published)
    text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    if json_path is not None and str(json_path) != "-":
        write_text(json_path, text)
        click.echo(f"Numbers: {json_path}", err=True)
    if str(json_path) == "-":
        click.echo(text, nl=False)
    else:
        _print(result, tables)


def _read_truth(path: Path) -> Iterator[Record]:
    format = guess_format(path)
    if format == "predictions":
        click.echo(f"{path} holds raw responses, not annotations: it is read leniently.", err=True)
    return read_records(path, format)


@contextmanager
def _embedding(name: str | None) -> Iterator[Embedder | None]:
    """The embedder of that name; one that takes its time shows its progress on stderr."""
    if name is None:
        yield None
        return
    embedder = load_embedder(name)
    if not isinstance(embedder, TransformerEmbedder):
        yield embedder
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Embedding reasons")
        embedder.progress = lambda done, total: bar.update(task, completed=done, total=total)
        yield embedder


def _check(joined: Joined, truth: Path, predictions: Path, allow_missing: bool) -> None:
    """Every path has one truth and one prediction, or the user knows that some have not."""
    if not joined.paths:
        raise SdgError(
            f"{truth} and {predictions} share no image: {joined.mismatch()}. "
            "Paths pair them as they are written; `sdg diagnose` keeps those of an annotation file."
        )
    if joined.is_complete:
        return
    found = f"{truth} and {predictions} do not match: {joined.mismatch()}"
    if not allow_missing:
        raise SdgError(
            f"{found}; correct the files, or evaluate the {len(joined.paths):,} images they share "
            "with --allow-missing."
        )
    click.echo(f"{found}; evaluated are the {len(joined.paths):,} images they share.", err=True)


def _rejoin(
    joined: Joined, records: Iterator[Record], other: Path, predictions: Path, allow_missing: bool
) -> list[Diagnosis]:
    """The other predictions of the same images; those it lacks count as failed, so both leave them out."""
    pairs = zip(joined.paths, joined.truth, strict=True)
    second = join((Record(path, "", diagnosis) for path, diagnosis in pairs), records)
    _check(second, predictions, other, allow_missing)
    found = dict(zip(second.paths, second.predicted, strict=True))
    return [found.get(path) or Diagnosis(status=Status.FAILED) for path in joined.paths]


def _slices(result: Evaluation, by: SliceBy, joined: Joined) -> tuple[Slice, ...]:
    parts = slices(result, by, joined.generators)
    if not parts:
        click.echo(f"No slices by {by}: the truth names none.", err=True)
    return parts


def _names(first: Path, second: Path) -> tuple[str, str]:
    return first.stem, second.stem if second.stem != first.stem else f"{second.stem} (other)"


def _document(result: Evaluation, joined: Joined, truth: Path, predictions: Path) -> dict[str, Any]:
    document = result.to_document()
    document["status"] |= {
        "missing": list(joined.missing),
        "extra": list(joined.extra),
        "duplicated": list(joined.duplicated),
        "unannotated": list(joined.unannotated),
    }
    document["settings"] |= {"truth": str(truth), "predictions": str(predictions), "version": __version__}
    return document


def _extras(
    parts: dict[SliceBy, tuple[Slice, ...]],
    comparison: Comparison | None,
    other: Path | None,
    published: bool,
) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if parts:
        extras["slices"] = {name: [part.to_dict() for part in of_name] for name, of_name in parts.items()}
    if comparison is not None:
        extras["comparison"] = {"with": str(other)} | comparison.to_dict()
    if published:
        extras["published"] = {row.model: row.metrics for row in PUBLISHED}
    return extras


def _print(result: Evaluation, tables: list[Rows]) -> None:
    from sdg.evaluation.result import describe_settings, describe_status

    console = Console()
    if not console.is_terminal:
        console.width = 200  # in a file or a pipe nothing has to be cut
    for table in tables:
        console.print(rich_table(table))
    console.print(describe_status(result.status), highlight=False, soft_wrap=True, markup=False)
    console.print(describe_settings(result.settings), highlight=False, soft_wrap=True, markup=False)
