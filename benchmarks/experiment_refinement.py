"""The testbed's refinement experiment: modes `sdg`, `fixed` and `heatmap`, and clean inputs, by the oracle.

    python benchmarks/experiment_refinement.py                       # the same again goes on after a stop
    python benchmarks/experiment_refinement.py --count 4 --runs /tmp/few --out /tmp/few/out    # a try
    # One greedy look instead of eight:
    python benchmarks/experiment_refinement.py --without-heatmap --detector testbed --from-severity 1 \
        --runs runs/refinement-greedy --out docs/experiments/refinement-greedy

The generator draws held-out prompts until the oracle calls --count pictures defective and as many clean. All
modes have the same detector, editor, rounds, candidates and seeds; the oracle guides nothing and counts the
defects of what was kept. A picture that cannot be refined counts as it was.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest

from sdg import Diagnosis, load_detector
from sdg.alignment.figures import TILE, picture_grid
from sdg.alignment.monitors import defect_measures
from sdg.alignment.reward_map import drawn_heat
from sdg.data.formats.sdg30k import read_annotations
from sdg.detectors.base import StreamingDetector
from sdg.errors import SdgError
from sdg.evaluation.resampling import bootstrap_sums, interval
from sdg.images import load_image, save_image
from sdg.io import jsonl
from sdg.io.files import write_text
from sdg.overlay import draw_overlay
from sdg.refinement import Editor, EditSettings, Mode, load_editor, severity
from sdg.refinement.batch import OUTPUT, Plan, refine_all
from sdg.reporting.refinement import Refinement, read_refinements
from sdg.runs.inputs import Item
from sdg.testbed.models.measure import RESAMPLES, measure_generator
from sdg.testbed.oracle import diagnose_all

ROOT: Final = Path(__file__).resolve().parents[1]
STEPS: Final = 20
"""Sampling steps of the pictures and of the edits."""
MOST_DRAWS: Final = 10
FEWER: Final = 0.4  # defects a picture, as a share of those before
LEFT_ALONE: Final = 0.95  # of the clean pictures
ROWS: Final = 12  # of the grid
DETECTOR: Final = "testbed?looks=8&agree=0.1&batch_size=16"
FROM_SEVERITY: Final = 60
"""Chosen with the detector, on pictures of another seed, so that clean ones are left alone."""
KINDS: Final = ("defects", "artifacts", "misalignments")
MEASURES: Final = "measures.jsonl"
CLEAN: Final = "clean"
"""The run on clean pictures; the others are named by their modes."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """An input, and all that the oracle finds in it."""

    item: Item
    diagnosis: Diagnosis


@dataclass(frozen=True)
class Estimate:
    """A number, not finite where it is undefined, with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, form: str = ".2f") -> str:
        if not np.isfinite(self.value):
            return "–"
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def draw(runs: Path, count: int, seed: int) -> tuple[list[Picture], list[Picture]]:
    """`count` defective and `count` clean pictures; SdgError where the generator hardly draws one of them."""
    defective: list[Picture] = []
    clean: list[Picture] = []
    for turn in range(MOST_DRAWS):
        folder = runs / f"pictures-{turn}"
        measure_generator(folder, prompts=2 * count, seeds=1, steps=STEPS, seed=seed + turn)
        for record in read_annotations(folder / "test.jsonl"):
            assert record.diagnosis is not None
            item = Item(f"{folder.name}/{record.filepath}", record.prompt, folder / record.filepath)
            (clean if record.diagnosis.is_clean else defective).append(Picture(item, record.diagnosis))
        if min(len(defective), len(clean)) >= count:
            return defective[:count], clean[:count]
    raise SdgError(f"Only {len(clean)} pictures are clean and {len(defective)} defective; lower --count.")


def refine_pictures(
    pictures: Sequence[Picture], out: Path, detector: StreamingDetector, editor: Editor, plan: Plan
) -> list[Refinement]:
    """Refined into the folder `out`, begun or gone on with; one for each picture, in order."""
    refine_all(
        [picture.item for picture in pictures],
        out,
        detector=detector,
        editor=editor,
        plan=plan,
        heat=drawn_heat if plan.mode is Mode.HEATMAP else None,
        resume=True,
        on_result=lambda row, left: print(f"{out.name}: {row['status']}, {left} left", file=sys.stderr),
    )
    return read_refinements(out / OUTPUT, {picture.item.file.parent for picture in pictures})


def kept(refinement: Refinement) -> Image.Image:
    """The picture that counts, which is the input where nothing better came of it."""
    return load_image(str(refinement.after or refinement.before))


def measure(run: str, pictures: Sequence[Picture], refinements: Sequence[Refinement]) -> list[Row]:
    """One row a picture: what the oracle and the detector find, before and after."""
    prompts = [picture.item.prompt for picture in pictures]
    judged = diagnose_all(zip(map(kept, refinements), prompts, strict=True), workers=1)
    rows: list[Row] = []
    for picture, refinement, after in zip(pictures, refinements, judged, strict=True):
        row: dict[str, Any] = {"run": run, "id": picture.item.filepath, "prompt": picture.item.prompt}
        row |= {"status": refinement.status, "pixels_changed": refinement.pixels_changed or 0.0}
        for when, found, seen in (
            ("before", picture.diagnosis, refinement.found_before),
            ("after", after, refinement.found_after),
        ):
            row |= defect_measures(when, found)
            row[f"{when}/severity"] = severity(found)
            row[f"{when}/detector"] = None if seen is None else severity(seen)
        rows.append(row)
    return rows


def pool(rows: Mapping[str, Sequence[Row]], outs: Sequence[Path]) -> dict[str, list[Row]]:
    """Each run with the rows that other experiments wrote of it into their folders."""
    pooled = {name: list(run) for name, run in rows.items()}
    for out in outs:
        found = list(jsonl.read_objects(out / MEASURES))
        for name, run in pooled.items():
            more = [row for row in found if row["run"] == name]
            if not more:
                raise SdgError(f"{out} has no pictures of run {name!r}; leave out one of the two.")
            run += more
    return pooled


def estimate(formula: Callable[..., NDArray[np.float64]], *columns: Sequence[float]) -> Estimate:
    """`formula` of the columns' means; a resample of the pictures takes all columns together."""
    table = np.array(columns, dtype=np.float64).T  # (pictures, columns)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = formula(*bootstrap_sums(table, RESAMPLES, 0).T / len(table))
        value = float(formula(*table.mean(0)))
    low, high = interval(np.where(np.isfinite(drawn), drawn, np.nan)[:, None])
    return Estimate(value, float(low[0]), float(high[0]))


def mean(rows: Sequence[Row], key: str, scale: float = 1.0) -> Estimate:
    """Over the pictures of which it is known."""
    known = [row[key] for row in rows if row[key] is not None]
    return estimate(lambda value: scale * value, known or [np.nan])


def change(rows: Sequence[Row], kind: str) -> Estimate:
    """Per cent of the defects before: −40 is 40 % fewer."""
    before, after = ([row[f"{when}/{kind}"] for row in rows] for when in ("before", "after"))
    return estimate(lambda old, new: 100 * (new / old - 1), before, after)


def difference(one: Sequence[Row], other: Sequence[Row], key: str, scale: float = 1.0) -> Estimate:
    """First minus second, paired by picture."""
    return estimate(lambda a, b: scale * (a - b), [row[key] for row in one], [row[key] for row in other])


def table(head: str, rows: Mapping[str, Sequence[str]]) -> str:
    """Markdown; `head` is its first line without the outer bars."""
    lines = [f"| {' | '.join((name, *cells))} |" for name, cells in rows.items()]
    return "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|", *lines])


def report(runs: Mapping[str, Sequence[Row]]) -> str:
    """Tables over the modes, and what they and the clean inputs say of the targets."""
    modes = {name: rows for name, rows in runs.items() if name != CLEAN}
    sdg, kinds = modes["sdg"], " | ".join(KINDS)
    counts = {"before": [mean(sdg, f"before/{kind}").text() for kind in KINDS] + ["–"] * 4}
    changes, paired, seen = {}, {}, {}
    for name, rows in modes.items():
        counts[name] = [mean(rows, f"after/{kind}").text() for kind in KINDS]
        counts[name] += [mean(rows, key, 100).text(".1f") for key in ("after/clean_rate", "pixels_changed")]
        counts[name] += [str(sum(row["status"] == end for row in rows)) for end in ("no better", "failed")]
        changes[name] = [change(rows, kind).text("+.1f") for kind in KINDS]
        if name != "sdg":
            paired[f"sdg − {name}"] = [difference(sdg, rows, f"after/{kind}").text("+.2f") for kind in KINDS]
        pleased = [row for row in rows if row["after/detector"] == 0]
        seen[name] = [
            mean(rows, f"{when}/{who}").text(".1f")
            for who in ("detector", "severity")
            for when in ("before", "after")
        ]
        seen[name].append(f"{sum(row['after/clean_rate'] == 1 for row in pleased)} of {len(pleased)}")
    return "\n\n".join(
        (
            f"{len(sdg)} defective pictures, judged by the oracle; in brackets 95 % intervals over pictures.",
            table(f"a picture | {kinds} | clean, % | pixels changed, % | no better | failed", counts),
            table(f"change of a picture's defects, % | {kinds}", changes),
            table(f"paired difference a picture | {kinds}", paired),
            "Whether edits fool the detector: severity, the sum of the importances, by it and by the oracle, "
            "and how many of the pictures that end clean by the detector are so by the oracle.",
            table("severity | detector, before | after | oracle, before | after | clean by both", seen),
            "\n".join(verdicts(sdg, modes["fixed"], runs[CLEAN])),
        )
    )


def verdicts(sdg: Sequence[Row], fixed: Sequence[Row], clean: Sequence[Row]) -> list[str]:
    """Each target with the numbers it is about, met or missed."""
    fewer, gain = change(sdg, "defects"), difference(sdg, fixed, "after/defects")
    untouched = sum(row["pixels_changed"] == 0 for row in clean)
    bounds = binomtest(untouched, len(clean)).proportion_ci(method="wilson")
    alone = Estimate(100 * untouched / len(clean), 100 * bounds.low, 100 * bounds.high)
    return [
        f"- Defects after `sdg`: {fewer.text('+.1f')} %; the target of −{100 * FEWER:.0f} % is "
        f"{met(fewer.value <= -100 * FEWER)}.",
        f"- `sdg` minus `fixed`: {gain.text('+.2f')} defects a picture; the target, fewer beyond chance, is "
        f"{met(gain.high < 0)}.",
        f"- Clean pictures left alone: {alone.text('.1f')} % of {len(clean)} (Wilson's interval); the target "
        f"of {100 * LEFT_ALONE:.0f} % is {met(alone.value >= 100 * LEFT_ALONE)}. Afterwards they have "
        f"{mean(clean, 'after/defects').text()} defects a picture.",
    ]


def met(reached: bool) -> str:
    return "met" if reached else "missed"


def grid(pictures: Sequence[Picture], columns: Mapping[str, Sequence[Refinement]]) -> Image.Image:
    """The first inputs with the oracle's boxes, and what was kept of each."""
    shown = pictures[:ROWS]
    boxes = [draw_overlay(load_image(one.item.file), one.diagnosis.defects, min_side=TILE) for one in shown]
    after = [(name, [kept(one) for one in refined[:ROWS]]) for name, refined in columns.items()]
    return picture_grid([("before", boxes), *after], [one.item.prompt for one in shown])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="defective pictures, and as many clean ones")
    parser.add_argument("--detector", default=DETECTOR, help=DETECTOR)
    parser.add_argument("--from-severity", type=int, default=FROM_SEVERITY, help="as of `sdg refine`")
    parser.add_argument("--editor", default="testbed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=2, help="edits a round")
    parser.add_argument(
        "--without-heatmap", action="store_true", help="leave out the mode that is given heat maps"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--with",
        dest="others",
        nargs="+",
        type=Path,
        default=[],
        metavar="OUT",
        help="pool the pictures of these, of other seeds, into the tables",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/refinement"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs/experiments/refinement")
    options = parser.parse_args()
    edit, named = EditSettings(), f"{options.editor}, {STEPS} steps"
    refined: dict[str, list[Refinement]] = {}
    rows: dict[str, list[Row]] = {}
    try:
        defective, clean = draw(options.runs, options.count, options.seed)
        detector, editor = load_detector(options.detector), load_editor(options.editor, steps=STEPS)
        for name in ("fixed", *([] if options.without_heatmap else ["heatmap"]), "sdg", CLEAN):
            pictures, mode = (clean, Mode.SDG) if name == CLEAN else (defective, Mode(name))
            plan = Plan(
                named,
                mode,
                options.rounds,
                options.candidates,
                edit,
                options.seed,
                from_severity=options.from_severity,
            )
            refined[name] = refine_pictures(pictures, options.runs / name, detector, editor, plan)
            rows[name] = measure(name, pictures, refined[name])
        pooled = pool(rows, options.others)
    except SdgError as error:
        sys.exit(f"Error: {error}")
    settings = (
        f"Detector {options.detector}, editor {named}, {options.rounds} rounds of {options.candidates} "
        f"candidates, from severity {options.from_severity}, seed {options.seed}; strengths {edit.artifact} "
        f"for artifacts and {edit.misalignment} for misalignments, reaches {edit.artifact_reach} and "
        f"{edit.misalignment_reach}."
    )
    command = shlex.join(["python", "benchmarks/experiment_refinement.py", *sys.argv[1:]])
    if options.others:
        settings += f" Pooled with {', '.join(map(str, options.others))}."
    text = f"{report(pooled)}\n\n{settings}\n\n    {command}\n"
    jsonl.write_objects(options.out / MEASURES, [row for run in rows.values() for row in run])
    save_image(grid(defective, {name: refined[name] for name in ("fixed", "sdg")}), options.out / "grid.png")
    write_text(options.out / "summary.md", text)
    print(text)


if __name__ == "__main__":
    main()
