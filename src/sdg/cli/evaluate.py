"""`sdg evaluate`: SDG-Eval of a prediction file against a truth file."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdg.cli.options import ALLOW_OUTSIDE, BOX_ORDER, PAGE, PATH, write_numbers
from sdg.cli.terminal import say, show
from sdg.data.line_pairs import begin_reading
from sdg.errors import SdgError
from sdg.io.files import require_other
from sdg.response.strict import BoxOrder
from sdg.tables import load_printer, print_tables

if TYPE_CHECKING:
    from sdg.evaluation.slices import SliceBy


@click.command()
@click.option("--truth", type=PATH, required=True, metavar="FILE", help="Annotations, in any known format.")
@click.option(
    "--predictions", type=PATH, required=True, metavar="FILE", help="Raw responses, or any known format."
)
@click.option(
    "--matching",
    type=click.Choice(["hungarian", "greedy"]),
    default="hungarian",
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
    metavar="N",
    help="Resamples of images for the 95 % intervals; 0 for none.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the resampling.")
@click.option(
    "--compare",
    "other",
    type=PATH,
    metavar="FILE",
    help="Other predictions: differences, intervals, p-values.",
)
@click.option(
    "--slice",
    "by",
    type=click.Choice(["generator", "tier", "size", "subtype"]),
    multiple=True,
    help="Also within parts of the data; may be repeated.",
)
@click.option("--published", is_flag=True, help="Print the paper's Table 2 beside, marked as published.")
@BOX_ORDER
@click.option("--allow-missing", is_flag=True, help="Evaluate the images that both files share.")
@click.option("--images", type=PATH, metavar="FOLDER", help="Images, for the HTML report.")
@ALLOW_OUTSIDE
@click.option("--json", "json_path", type=PATH, metavar="FILE", help="Write all numbers; - for stdout.")
@click.option(
    "--counts", type=PATH, metavar="FILE", help="Write the sums behind the metrics; those of shards add up."
)
@click.option("--html", "html_path", type=PAGE, metavar="FILE", help="Write a report with the worst images.")
def evaluate(
    truth: Path,
    predictions: Path,
    embedder: str | None,
    other: Path | None,
    by: tuple[SliceBy, ...],
    published: bool,
    box_order: BoxOrder,
    allow_missing: bool,
    images: Path | None,
    allow_outside: bool,
    json_path: Path | None,
    counts: Path | None,
    html_path: Path | None,
    **options: Any,
) -> None:
    """Score predicted defects against the truth with SDG-Eval.

    Both files are joined by `filepath`, whatever their order; every path needs one truth and one prediction.

    \b
    Example:
      sdg evaluate --truth annotations.jsonl --predictions predictions.jsonl \\
          --embedder minilm --slice tier --published --json scores.json
    """
    for out in (json_path, counts):
        require_other(out, [truth, predictions, *([] if other is None else [other])])
    if images is not None and not images.is_dir():
        raise SdgError(f"{images} is not a folder; give the one that the images' paths are relative to.")
    plain = embedder is None and other is None and not by and html_path is None
    reading = begin_reading(truth, predictions, box_order=box_order) if plain else None
    if reading is not None:
        # A thread of BLAS, which has nothing to do here, would wait in a loop on the core of another process.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Loaded while other processes read, which need none of it.
    from sdg.evaluation.from_files import evaluate_files, evaluate_quickly, join_files
    from sdg.evaluation.result import describe_settings, describe_status

    found = None
    if reading is not None:
        load_printer()
        found = evaluate_quickly(reading, published=published, **options)
    if found is None:
        from sdg.cli.progress import embedder_of

        files = join_files(truth, predictions, box_order=box_order, allow_missing=allow_missing, say=say)
        with embedder_of(embedder) as reader:
            found = evaluate_files(
                files, embedder=reader, other=other, by=by, published=published, say=say, **options
            )
    tables = found.tables()
    if html_path is not None:
        from sdg.evaluation.result import Evaluation
        from sdg.reporting.evaluation import write_evaluation

        assert isinstance(found.result, Evaluation)
        title = f"SDG-Eval: {predictions.name}"
        write_evaluation(
            html_path,
            found.result,
            found.files.joined,
            tables,
            title=title,
            statuses=found.statuses(),
            images=images,
            allow_outside=allow_outside,
        )
        say(f"Report: {html_path}")
    write_numbers(counts, found.result.counts.to_dict())
    if not write_numbers(json_path, found.to_document()):
        print_tables(tables)
        for told in found.statuses():
            show(told)
        show(describe_settings(found.result.settings))
    if not found.result.status["evaluated"]:
        raise SdgError(f"Nothing was scored: {describe_status(found.result.status)}.")
    if reading is not None:
        gc.freeze()  # spares the interpreter's end a look at every object
