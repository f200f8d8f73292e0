"""`sdg diagnose`: what is wrong with one image, a folder of them, or every image of a JSON Lines file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdg.cli.options import PAGE, PATH, PROFILE, resumable, sources_and_prompts
from sdg.cli.progress import blocks_done, diagnosed
from sdg.cli.terminal import say, show
from sdg.errors import SdgError

if TYPE_CHECKING:
    from sdg.detectors.base import StreamingDetector
    from sdg.detectors.bulk import Shard
    from sdg.runs.inputs import Item


@click.command()
@sources_and_prompts
@click.option(
    "--detector",
    default="testbed",
    help="testbed, hf:ORG/NAME, a checkpoint folder, openai:BASE_URL#MODEL, heatmap:FOLDER, replay:FILE, "
    "ocr, union:URI|URI, python:MODULE.FUNCTION.",
)
@PROFILE
@click.option("--batch-size", type=click.IntRange(1), help="Images at a time (hf) [default: 8].")
@click.option("--device", help="auto, cpu, cuda, cuda:1, mps (hf) [default: auto].")
@click.option("--dtype", help="auto, float32, bfloat16, float16 (hf) [default: auto].")
@click.option("--concurrency", type=click.IntRange(1), help="Requests at a time (openai) [default: 8].")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Processes that each load the detector: one a GPU, or one a few cores [default: 1; with --ray one "
    "a GPU].",
)
@click.option(
    "--out",
    type=PATH,
    help="JSON Lines or .parquet file to write, or a folder for it; not needed for a single image.",
)
@click.option(
    "--shard", metavar="K/N", help="Only the K-th of N equal parts, such as 3/8; in a folder, a file each."
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Diagnose Parquet files on a Ray cluster, or `local`; --jobs is its number of workers.",
)
@click.option("--resume", is_flag=True, help="Go on with --out: ask again for what is missing or failed.")
@click.option("--overlays", type=PATH, help="Folder to draw the boxes into, one PNG an image.")
@click.option("--html", type=PAGE, metavar="FILE", help="HTML gallery to write: boxes, reasons, filters.")
def diagnose(
    sources: tuple[Path, ...],
    prompt: str | None,
    prompts: Path | None,
    images: Path | None,
    allow_outside: bool,
    detector: str,
    jobs: int | None,
    out: Path | None,
    shard: str | None,
    ray: str | None,
    resume: bool,
    overlays: Path | None,
    html: Path | None,
    **options: Any,
) -> None:
    """Find the defects of images: where, what, why and how much.

    A single image without --out is printed as JSON. Otherwise every result is written to --out as soon as
    it is there: filepath, caption, response (the raw text), status, and the error where there is no answer.
    A run that was stopped or killed goes on with --resume. Exit code 1 if any image got no answer.

    \b
    Examples:
      sdg diagnose cat.png --prompt "a cat on a red chair"
      sdg diagnose test.jsonl --detector hf:out/grpo --out predictions.jsonl --overlays drawn/
      sdg diagnose test.jsonl --detector openai:http://localhost:8000/v1#sdg --profile sdg.toml --out p.jsonl
      sdg diagnose data/*.parquet --detector hf:out/grpo --shard 3/8 --resume --out found/
      sdg diagnose data/*.parquet --detector hf:out/grpo --ray local --resume --out found/
    """
    if prompt is not None and prompts is not None:
        raise click.UsageError("Give --prompt or --prompts, not both.")
    if resume and out is None:
        raise click.UsageError("--resume needs the --out that it is to go on with.")
    part = _shard(shard)
    if shard and out is None:
        raise click.UsageError("--shard needs --out, a folder or a file for that part.")
    if ray is not None:
        if out is None or shard or prompts or overlays or html:
            raise click.UsageError("--ray needs --out, and has no --shard, --prompts, --overlays, --html.")
        reading = {"prompt": prompt, "images": images, "allow_outside": allow_outside}
        running = {"address": ray, "workers": jobs, "resume": resume, "options": options}
        _on_ray(detector, sources, out, **running, **reading)
        return
    from sdg.runs.inputs import gather

    items = gather(
        sources,
        prompt=prompt,
        prompts=prompts,
        images=images,
        leave_out=overlays,
        allow_outside=allow_outside,
        embedded=True,
    )
    if out is None and len(items) != 1:
        raise click.UsageError(f"These are {len(items):,} images; name the file to write with --out.")

    from sdg.detectors import bulk, load_detector
    from sdg.io import jsonl
    from sdg.reporting.overlays import draw_overlays, refuse_overwriting

    if out is not None and (out.is_dir() or not out.suffix):
        parquet = all(source.suffix.lower() == ".parquet" for source in sources)
        out = out / f"{part.stem}.{'parquet' if parquet else 'jsonl'}"
    if overlays is not None:
        refuse_overwriting(items, overlays)
    if jobs and jobs > 1 and len(items) > 1:
        from sdg.detectors.jobs import JobsDetector

        model: StreamingDetector = JobsDetector(detector, jobs, **options)
    else:
        model = load_detector(detector, **options)
    if out is None:
        diagnosis = bulk.ask(model, items[0])
        if diagnosis.error:
            raise SdgError(f"{items[0].filepath} could not be diagnosed: {diagnosis.error}")
        text = json.dumps(bulk.readable(items[0], diagnosis), indent=2, ensure_ascii=False)
        show(text.encode("utf-8", "replace").decode())  # answers may hold half a surrogate pair
        rows, failed = [bulk.to_row(items[0], diagnosis)], []
    else:
        mine = items[part.of(len(items))]
        with resumable(out), diagnosed(len(mine)) as advance:
            summary = bulk.run(model, items, out, resume=resume, shard=part, on_result=advance)
        items = mine
        rows, failed = list(jsonl.read_objects(out)), list(summary.failed)
        say(f"{summary.images:,} images in {out}, {summary.diagnosed:,} of them asked for now.")
    if unread := sum(row["status"] == "unparseable" for row in rows):
        say(
            f"{unread:,} of {len(rows):,} answers could not be read (status unparseable), which leaves these "
            "images unknown; does --profile suit the model?"
        )
    if overlays is not None:
        say(f"{draw_overlays(items, rows, overlays):,} overlays in {overlays}.")
    if html is not None:
        _write_gallery(items, rows, html, detector)
    if failed:
        raise SdgError(
            f"{len(failed):,} of {len(items):,} images got no answer (add --resume to ask for them again); "
            f"the first, {failed[0]['filepath']}: {failed[0].get('error') or 'no reason was given'}"
        )


def _on_ray(detector: str, sources: Sequence[Path], out: Path, **settings: Any) -> None:
    from sdg.detectors.on_ray import run_on_ray

    with blocks_done() as advance:
        done = run_on_ray(
            detector,
            sources,
            out,
            on_block=lambda block, number, total: advance(number, total, block.failed),
            **settings,
        )
    say(f"{done.images:,} images in {out}, {done.diagnosed:,} of them asked for now.")
    if done.failed:
        again = "add --resume to ask for them again"
        raise SdgError(f"{done.failed:,} of {done.images:,} images got no answer ({again}).")


def _shard(text: str | None) -> Shard:
    from sdg.detectors.bulk import ALL, Shard

    if text is None:
        return ALL
    number, _, count = text.partition("/")
    try:
        return Shard(int(number), int(count))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not K/N with K from 1 to N, such as 3/8.", param_hint="--shard"
        ) from None


def _write_gallery(
    items: Sequence[Item], rows: Sequence[Mapping[str, Any]], html: Path, detector: str
) -> None:
    """The results as a page; rows: one an item, in the same order."""
    from sdg.io.predictions import read_prediction
    from sdg.reporting import Entry, Gallery, Report, write_report

    entries = [
        Entry(item.filepath, item.prompt, read_prediction(row).diagnosis, picture=item.file)
        for item, row in zip(items, rows, strict=True)
    ]
    write_report(Report("Diagnosis", (Gallery(entries, note=f"Detector: {detector}"),)), html)
    say(f"Report: {html}")
