"""`sdg data`: check, describe, split, convert and compare annotation files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sdg.cli.enrich import enrich
from sdg.cli.options import ALLOW_OUTSIDE, BOX_ORDER, FOLDER, JSON, PAGE, PATH, together, write_numbers
from sdg.cli.progress import records_read
from sdg.cli.terminal import say, show
from sdg.data import formats
from sdg.data.formats import FORMATS, Format
from sdg.errors import SdgError, quoted
from sdg.io.files import require_data, require_other
from sdg.io.uri import count
from sdg.records import Fault
from sdg.response.strict import BoxOrder
from sdg.tables import print_tables

_with_format = together(
    click.option(
        "--format",
        type=click.Choice(FORMATS),
        help="Format of the files [default: found from the first record].",
    ),
    BOX_ORDER,
)
"""The options that say how input files are to be read."""


@click.group()
def data() -> None:
    """Check, describe, split, convert, enrich and compare annotation files.

    Formats: sdg (our own JSON Lines), sdg30k (the released annotations), predictions (raw responses),
    coco, label-studio, hf (a Hugging Face imagefolder).
    """


data.add_command(enrich)


@data.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option("--images", type=FOLDER, help="Also read every image, from this folder.")
@ALLOW_OUTSIDE
@_with_format
def validate(paths: tuple[Path, ...], **options: Any) -> None:
    """List every fault of annotation files: file, line and reason. Exit code 1 if there is any.

    \b
    Example:
      sdg data validate annotations.jsonl --images .
    """
    from sdg.data.validation import validate as validate_file

    def report(fault: Fault) -> None:
        show(f"{fault.path}, {fault.place}: {fault.reason}")

    found = 0
    with records_read() as on_record:
        for path in paths:
            summary = validate_file(path, report, on_record=on_record, **options)
            say(f"{path}: {summary}")
            found += summary.faults
    if found:
        click.get_current_context().exit(1)


@data.command()
@click.argument("path", type=PATH, metavar="FILE")
@JSON
@click.option("--plot", "plot_path", type=PATH, help="Also draw the three panels (.png, .svg or .pdf).")
@_with_format
def stats(path: Path, json_path: Path | None, plot_path: Path | None, **reading: Any) -> None:
    """Defects per image, kinds of images and importance, by generator (the paper's Figure 3).

    \b
    Example:
      sdg data stats annotations.jsonl --plot figure3.png
    """
    from sdg.data.statistics import statistics

    for out in (json_path, plot_path):
        require_other(out, [path])
    result = statistics(formats.read_records(path, **reading))
    if plot_path is not None:
        result.plot(plot_path)
    if not write_numbers(json_path, result.to_dict()):
        print_tables(result.tables())
    if result.unknown:
        say(f"{result.unknown:,} images of which nothing is known are not counted.")


@data.command()
@click.argument("path", type=PATH, metavar="FILE")
@click.option("--out", required=True, type=PATH, help="Folder for the splits, one file each.")
@click.option(
    "--part",
    "parts",
    multiple=True,
    metavar="NAME=SHARE",
    default=("train=0.96", "test=0.04"),
    help="A split and its share of the images, in any unit; give each.",
)
@click.option("--seed", type=int, default=0, help="Another seed, another split.")
def split(path: Path, out: Path, parts: tuple[str, ...], seed: int) -> None:
    """Divide a JSON Lines file so that no prompt is in two splits, stratified by generator.

    Prompts that differ in case or spacing only are one prompt. The result depends on the prompts, the
    generators and the seed, not on the order of the lines.

    \b
    Example:
      sdg data split annotations.jsonl --out splits/ --part train=96 --part test=4
    """
    from sdg.data.splits import assign_prompts, write_splits

    named = list(map(_part, parts))
    if len(shares := dict(named)) < len(named):
        raise click.BadParameter("A split is given twice; give each once.", param_hint="--part")
    assignment = assign_prompts(path, shares, seed)
    written = write_splits(path, out, assignment)
    print_tables([assignment.table()])
    for target in written.values():
        say(f"Wrote {target}")


@data.command()
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@click.option("--to", "to_format", required=True, type=click.Choice(FORMATS), help="Format to write.")
@click.option(
    "--from",
    "format",
    type=click.Choice(FORMATS),
    help="Format to read [default: found from the first record].",
)
@BOX_ORDER
@click.option(
    "--images",
    type=FOLDER,
    help="Folder of the images: their sizes for coco and label-studio, the files for hf.",
)
@ALLOW_OUTSIDE
@click.option(
    "--size",
    metavar="WIDTHxHEIGHT",
    help="For coco and label-studio: size in pixels of images without a file.",
)
@click.option("--blind", is_flag=True, help="For label-studio: tasks only, without what is known.")
@click.option("--restore-images", type=PATH, help="From hf: put the images back into this folder.")
def convert(
    source: Path,
    target: Path,
    to_format: Format,
    format: Format | None,
    box_order: BoxOrder,
    size: str | None,
    restore_images: Path | None,
    **options: Any,
) -> None:
    """Rewrite annotations in another format; only `predictions` loses something on the way there and back.

    Annotations of a Label Studio export that are faulty, such as one with an importance of 55.5, are listed
    with their annotators and left out. Exit code 1 if there are any.

    \b
    Examples:
      sdg data convert annotations.jsonl tasks.json --to label-studio --blind
      sdg data convert export.json annotations.jsonl --from label-studio --to sdg30k
      sdg data convert annotations.jsonl coco.json --to coco --images .
    """
    if size is not None and to_format not in ("coco", "label-studio"):
        raise click.UsageError(f"--size is for coco and label-studio; leave it out for {to_format}.")
    if restore_images is not None and (format or formats.guess_format(source)) != "hf":
        raise click.UsageError("--restore-images is for a source that is hf, a folder with its pictures.")
    require_other(target, [source])
    require_data(target)
    returned: list[Fault] = []
    records = formats.read_records(source, format, box_order=box_order, on_fault=returned.append)
    pixels = None if size is None else _size(size)
    count = formats.write_records(target, records, to_format, size=pixels, **options)
    say(f"Wrote {count:,} to {target}")
    if restore_images is not None:
        from sdg.data.formats.hf import restore_images as restore

        say(f"Put {restore(source, restore_images):,} images into {restore_images}")
    for fault in returned:
        say(str(fault))
    if returned:
        raise SdgError(
            f"{len(returned):,} faults in annotations of {source}, listed above; these go back to their "
            "annotators, and all others are written."
        )


@data.command()
@click.argument("parts", nargs=-1, required=True, type=PATH, metavar="PART...")
@click.option("--out", required=True, type=PATH, help="File to write, JSON Lines or .parquet.")
@click.option(
    "--inputs",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="What the run was about, as `sdg diagnose` got it: every image has to have a line. A file, "
    "or a pattern in quotes; may be repeated.",
)
def merge(parts: tuple[Path, ...], out: Path, inputs: tuple[Path, ...]) -> None:
    """Put the shards of a run of `sdg diagnose` together, once they are whole and of one run.

    \b
    Example:
      sdg data merge found/part-*.jsonl --out found.jsonl --inputs 'data/*.jsonl'
    """
    from sdg.runs.inputs import gather
    from sdg.runs.merge import merge as put_together

    expected = None
    if inputs:
        # A shell expands no pattern behind an option into several options.
        patterns = [[one] if one.exists() else sorted(one.parent.glob(one.name)) or [one] for one in inputs]
        files = [file for found in patterns for file in found]
        expected = [item.key for item in gather(files, allow_outside=True, embedded=True)]
    merged = put_together(parts, out, expected)
    say(f"Wrote {merged.lines:,} lines to {out}, {merged.failed:,} without an answer.")
    if merged.unknown:
        say(
            f"Not compared: {merged.unknown:,} of {len(parts):,} parts have no PART.run.json beside them, "
            "which says with what detector they were made."
        )


@data.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="FILE [AGAIN]")
@click.option("--embedder", help="Also compare reasons, with this embedder (see sdg evaluate).")
@click.option("--bootstrap", type=click.IntRange(0), default=0, help="Resamples for 95 % intervals.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the resamples.")
@JSON
@click.option("--per-image", type=PATH, help="Also write the agreement on each image, as JSON Lines.")
@_with_format
def agreement(
    paths: tuple[Path, ...],
    json_path: Path | None,
    per_image: Path | None,
    format: Format | None,
    box_order: BoxOrder,
    **options: Any,
) -> None:
    """Score annotators against each other: the human bound of SDG-Eval.

    AGAIN is a second annotation of the images of FILE, and is scored against it as a detector would be. With
    FILE alone, different annotators of one image (`annotator`) are compared two by two.

    \b
    Example:
      sdg data agreement original.jsonl reannotated.jsonl --per-image agreement.jsonl
    """
    from sdg.evaluation import agreement as agreements
    from sdg.io.jsonl import write_objects

    if len(paths) > 2:
        raise click.UsageError("Give one file with annotators, or two files.")
    for out in (json_path, per_image):
        require_other(out, paths)
    files = [formats.read_records(path, format, box_order=box_order) for path in paths]
    pairs, skipped = (
        agreements.pair_files(*files) if len(files) == 2 else agreements.pair_annotators(files[0])
    )
    result = agreements.agreement(pairs, skipped, **options)
    if per_image is not None:
        write_objects(per_image, result.per_image())
    if not write_numbers(json_path, result.to_document()):
        show(f"Second against first\n{result.forward}\n\nFirst against second\n{result.backward}")
    if skipped:
        say(f"{len(skipped):,} images have no two annotations and are left out.")


@data.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option("--images", type=FOLDER, help="Folder of the pictures, to find those that are alike.")
@ALLOW_OUTSIDE
@click.option("--html", type=PAGE, metavar="FILE", help="Also write a page: findings, pictures, numbers.")
@JSON
@_with_format
def audit(
    paths: tuple[Path, ...],
    images: Path | None,
    allow_outside: bool,
    html: Path | None,
    json_path: Path | None,
    **reading: Any,
) -> None:
    """Look at a finished data set as a whole: what stands out before it is trained on.

    Images listed twice; pictures that are alike and prompts in several splits; numbers far from the paper's
    Figure 3; boxes that hold everything or nothing; annotators unlike the rest; reasons that repeat; inflated
    importance. Each file is a split, named as the file is (and its folder, where two files have one name),
    unless its records name theirs.

    \b
    Example:
      sdg data audit train.jsonl test.jsonl --images . --html audit.html
    """
    from sdg.data.audit import audit as audit_files
    from sdg.data.audit import split_names
    from sdg.reporting.audit_page import write_audit

    require_other(json_path, paths)
    with records_read() as on_record:
        found = audit_files(
            zip(split_names(paths), (formats.read_records(path, **reading) for path in paths), strict=True),
            images=images,
            allow_outside=allow_outside,
            on_record=on_record,
        )
    if html is not None:
        title = f"Audit of {', '.join(path.name for path in paths)}"
        write_audit(found, html, title=title, images=images, allow_outside=allow_outside)
        say(f"Page: {html}")
    if not write_numbers(json_path, found.to_dict()):
        print_tables(found.tables)
    if images is None:
        say("Pictures were not compared; name their folder with --images.")


def _part(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not NAME=SHARE, such as test=0.04.", param_hint="--part"
        ) from None


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    try:
        return count(width), count(height)
    except ValueError:
        raise click.BadParameter(
            f"{quoted(text)} is not WIDTHxHEIGHT, such as 1024x1024.", param_hint="--size"
        ) from None
