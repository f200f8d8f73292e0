"""`sdg refine`: diagnose, edit where it is wrong, diagnose again, and keep what is better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdg.cli.options import GPU, PAGE, PATH, PROFILE, SEED, end_dry_run, resumable, sources_and_prompts
from sdg.cli.terminal import say
from sdg.errors import SdgError

if TYPE_CHECKING:
    from sdg.detectors import StreamingDetector
    from sdg.refinement.batch import Plan
    from sdg.refinement.loop import HeatSource
    from sdg.refinement.sources import StoredHeat
    from sdg.runs.inputs import Item


@click.command()
@sources_and_prompts
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write to.")
@click.option("--detector", default="testbed", help="As for `sdg diagnose`.")
@PROFILE
@click.option(
    "--editor",
    default="testbed",
    help="testbed, testbed:FOLDER or diffusers:FOLDER, each with ?lora=FOLDER, steps, guidance, batch_size "
    "and sampling, openai:BASE_URL#MODEL, or python:MODULE.FUNCTION.",
)
@click.option(
    "--mode",
    type=click.Choice(["sdg", "fixed", "heatmap"]),
    default="sdg",
    help="sdg: edit in and around the boxes; fixed: the whole picture, from the prompt alone; heatmap: where "
    "two heat maps are bright, drawn from the detections or given by --heat.",
)
@click.option(
    "--heat", type=PATH, metavar="FOLDER", help="Heat maps of the inputs, laid out as for heatmap:FOLDER."
)
@click.option("--rounds", type=click.IntRange(1), default=3, help="Edits one upon another.")
@click.option(
    "--from-severity",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Leave images alone whose importances sum to less.",
)
@click.option("--candidates", type=click.IntRange(1), default=1, help="Edits a round.")
@click.option(
    "--artifact",
    type=(float, float),
    default=(0.3, 0.6),
    metavar="W S",
    help="Strength of an edit at importance 1 and 100, where something is drawn badly.",
)
@click.option(
    "--misalignment",
    type=(float, float),
    default=(0.8, 1.0),
    metavar="W S",
    help="The same where the image contradicts the prompt.",
)
@click.option("--feather", type=float, default=0.03, help="Mask's soft edge, of the side.")
@click.option(
    "--reach",
    type=(float, float),
    default=(0.4, 1.0),
    metavar="A M",
    help="How far around an artifact and a misalignment the strength falls to nothing, of the side.",
)
@click.option(
    "--steps", type=click.IntRange(1), show_default="as its class is sampled", help="Steps of a pipeline."
)
@click.option("--device", default="auto", help="Of a pipeline; auto takes a GPU if there is one.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default="bfloat16, on a CPU float32",
    help="Of a diffusers editor.",
)
@SEED
@click.option("--resume", is_flag=True, help="Go on with --out: try again what is missing or failed.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only write what an editor would be told, to DIR/requests, and check it without its weights.",
)
@GPU
@click.option("--html", type=PAGE, metavar="FILE", help="Report to write, with before/after sliders.")
def refine(
    sources: tuple[Path, ...],
    out: Path,
    detector: str,
    profile: str | None,
    editor: str,
    mode: str,
    heat: Path | None,
    rounds: int,
    from_severity: int,
    candidates: int,
    artifact: tuple[float, float],
    misalignment: tuple[float, float],
    feather: float,
    reach: tuple[float, float],
    steps: int | None,
    device: str,
    dtype: str,
    seed: int,
    resume: bool,
    dry_run: bool,
    gpu: str,
    html: Path | None,
    **reading: Any,
) -> None:
    """Repair images: each is diagnosed, edited where it is wrong, and diagnosed again.

    The best round is kept, never one that scores worse than the input; clean images are left alone. Each
    result is written as it comes, to DIR/refinements.jsonl with the pictures in DIR/pictures; a run that
    was stopped or killed goes on with --resume. Exit code 1 if any image failed. Started by torchrun, each
    process takes its share of the images, on a GPU of its own.

    \b
    Examples:
      sdg refine cat.png --prompt "a cat on a red chair" --editor diffusers:models/FLUX.1-dev --out refined
      sdg refine pictures.jsonl --out refined --rounds 2 --candidates 4 --html refined.html
      sdg refine pictures.jsonl --out requests --dry-run
    """
    if heat is not None and (mode != "heatmap" or rounds > 1):
        raise click.UsageError("The maps of --heat show the inputs: they need --mode heatmap and --rounds 1.")
    from sdg.detectors import load_detector
    from sdg.refinement.batch import OUTPUT, Plan, is_output, refine_all, require_writable
    from sdg.refinement.dry_run import check_editor
    from sdg.refinement.editors import load_editor
    from sdg.refinement.request import EditSettings, Mode
    from sdg.runs.inputs import gather
    from sdg.runs.processes import shared

    items = gather(sources, **reading)
    try:
        settings = EditSettings(artifact, misalignment, *reach, feather)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    items = [item for item in items if not is_output(Path(item.file), out)]  # a folder may hold its own --out
    if not items:
        raise SdgError(f"All of these images were written by a run into {out}; give its inputs.")
    maps = _heat(mode, heat, items)
    named = f"{editor}, {steps or 'its own'} steps, {dtype}"
    maps_from = str(heat.absolute()) if heat else ""
    plan = Plan(named, Mode(mode), rounds, candidates, settings, seed, maps_from, from_severity)
    require_writable(out)

    def report(row: dict[str, Any], left: int) -> None:
        say(f"{row['id']}: {row['status']}{_tail(row)} ({left:,} left)")

    with resumable(out), shared() as processes:
        model = load_detector(detector, profile=profile)
        if dry_run:
            if processes.is_main:
                _write_requests(items, out, model, plan, maps)
                end_dry_run(check_editor(editor, gpu=gpu, processes=processes.count, dtype=dtype))
            return
        summary = refine_all(
            items,
            out,
            detector=model,
            editor=load_editor(editor, device=device, dtype=dtype, steps=steps),
            plan=plan,
            heat=maps,
            resume=resume,
            on_result=report,
            processes=processes,
        )
    if not processes.is_main:
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(summary.outcomes.items()))
    say(f"{summary.pictures:,} images: {counts}. {out / OUTPUT}")
    if html is not None:
        from sdg.io.paths import real_path
        from sdg.reporting import Report, write_report
        from sdg.reporting.refinement import Refinements, read_refinements

        folders = {real_path(item.file).parent for item in items}
        shown = Refinements(
            read_refinements(out / OUTPUT, folders), note=f"Detector: {detector}, editor: {editor}"
        )
        write_report(Report("Refinement", (shown,)), html)
        say(f"Report: {html}")
    if summary.failed:
        first = summary.failed[0]
        raise SdgError(
            f"{len(summary.failed):,} of {summary.pictures:,} images failed (--resume tries them again); "
            f"the first, {first['id']}: {first['error']}"
        )


def _heat(mode: str, folder: Path | None, items: Sequence[Item]) -> HeatSource | StoredHeat | None:
    if mode != "heatmap":
        return None
    if folder is not None:
        from sdg.refinement.sources import StoredHeat

        return StoredHeat(folder, items)
    from sdg.alignment.reward_map import drawn_heat

    return drawn_heat


def _write_requests(
    items: Sequence[Item],
    out: Path,
    detector: StreamingDetector,
    plan: Plan,
    heat: HeatSource | StoredHeat | None,
) -> None:
    """The dry run; raises SdgError where a picture has no request and is not clean."""
    from sdg.refinement.dry_run import write_requests

    written, failed = 0, []
    for one in write_requests(items, out, detector=detector, plan=plan, heat=heat):
        said = one.folder or f"no request. {one.error or one.left}"
        say(f"{one.item.filepath}: {said}")
        written += one.folder is not None
        failed += [one] if one.error else []
    say(f"Wrote {written:,} requests; nothing was sent.")
    if failed:
        first = failed[0]
        raise SdgError(
            f"{len(failed):,} of {len(items):,} images have no request; the first, {first.item.filepath}: "
            f"{first.error}"
        )


def _tail(row: dict[str, Any]) -> str:
    if row.get("error"):
        return f": {row['error']}"
    before, after = (len(row[key]["defects"]) for key in ("diagnosis_before", "diagnosis_after"))
    stopped = f"; then it stopped: {row['stopped']}" if row["stopped"] else ""
    return f", {before} → {after} defects, {100 * row['pixels_changed']:.0f} % of pixels{stopped}"
