"""The testbed's detector experiment: baselines, SFT, SFT without jitter and GRPO on the corpus' test split.

    python benchmarks/experiment_detector.py --corpus runs/corpus \\
        --model SFT=runs/sft --model "SFT without jitter"=runs/sft-no-jitter --model GRPO=runs/grpo

Each model is a run's folder, whose `final` answers greedily and whose log.jsonl gives the learning curve, or
a detector's own folder. Answers are kept in --runs, and what was stopped goes on. Injected and generated
pictures are reported apart and together, with 95 % intervals over pictures; every model is compared with the
first one, picture by picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from sdg import Defect, DefectType, Diagnosis, load_detector
from sdg.data.formats.sdg30k import read_annotations
from sdg.detectors.bulk import run
from sdg.embeddings import load_embedder
from sdg.errors import SdgError
from sdg.evaluation import PAPER_METRICS, Evaluation, compare, evaluate
from sdg.evaluation.result import cell, interval_cell
from sdg.evaluation.tables import p_cell
from sdg.io.files import write_text
from sdg.io.jsonl import read_objects
from sdg.io.predictions import read_prediction
from sdg.records import Record
from sdg.response import format_fault
from sdg.runs.inputs import Item

ROOT: Final = Path(__file__).resolve().parents[1]
INJECTED: Final = "injected"
CLEAN: Final = "always clean"
PRIOR: Final = "prior boxes"
TENTHS: Final = 100
"""Boxes count as the same where they agree after rounding to tenths of the picture."""
MOST: Final = 3
"""Boxes of a type that the prior predicts at most."""
TARGETS: Final = {"BoxF1@0.5": 0.40, "BoxF1@0.1": 0.60, "ClnAcc": 0.75}
WELL_FORMED: Final = 0.99
CURVES: Final = (
    "BoxF1@0.5",
    "artifact_BoxF1@0.5",
    "misalignment_BoxF1@0.5",
    "ClnAcc",
    "reward",
    "well_formed",
)

Half = tuple[str, Sequence[int]]
"""Its name and the places of its pictures in the test split."""


@dataclass(frozen=True)
class System:
    """What is compared: its diagnoses in the order of the test split, and its raw answers if it has any."""

    name: str
    diagnoses: Sequence[Diagnosis]
    responses: Sequence[str] = ()

    def well_formed(self, places: Sequence[int]) -> float | None:
        """Share of the answers to these pictures that pass the format gate."""
        if not self.responses:
            return None
        return sum(format_fault(self.responses[place]) is None for place in places) / len(places)


def prior_boxes(train: Sequence[Record], validation: Sequence[Record]) -> Diagnosis:
    """The most frequent boxes of each type with their commonest reason and median importance.

    As many of each type, up to MOST, as score the best BoxF1@0.5 on the validation split.
    """
    truth = [known(record) for record in validation]
    chosen: list[Defect] = []
    for kind in DefectType:
        defects = [defect for record in train for defect in known(record).of_type(kind)]
        frequent = [typical(box, defects) for box, _ in Counter(map(rounded, defects)).most_common(MOST)]

        def score(number: int, kind: DefectType = kind, frequent: Sequence[Defect] = frequent) -> float:
            result = evaluate(truth, [frequent[:number]] * len(truth))
            return result.metrics[kind.value]["BoxF1@0.5"] or 0.0

        chosen += frequent[: max(range(1, len(frequent) + 1), key=score, default=0)]
    return Diagnosis(tuple(chosen))


def rounded(defect: Defect) -> tuple[int, ...]:
    """The box in tenths of the picture, at least one tenth wide and high."""
    x0, y0, x1, y1 = (round(value / TENTHS) for value in defect.box)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def typical(box: tuple[int, ...], defects: Sequence[Defect]) -> Defect:
    """The defect that stands for all of one rounded box."""
    alike = [defect for defect in defects if rounded(defect) == box]
    reason, _ = Counter(defect.reason for defect in alike).most_common(1)[0]
    importance = round(median(defect.importance or 50 for defect in alike))
    x0, y0, x1, y1 = (min(TENTHS * value, 1000) for value in box)
    return Defect((min(x0, 1000 - TENTHS), min(y0, 1000 - TENTHS), x1, y1), alike[0].type, reason, importance)


def known(record: Record) -> Diagnosis:
    assert record.diagnosis is not None
    return record.diagnosis


def test_split(corpora: Sequence[Path]) -> Iterator[Record]:
    """The test pictures of all corpora, their paths with the corpus' folder."""
    for corpus in corpora:
        for record in read_annotations(corpus / "test.jsonl"):
            yield replace(record, filepath=str(corpus / record.filepath))


def answers(name: str, folder: Path, test: Sequence[Record], runs: Path) -> System:
    """What a trained model says of the test split; what was answered before is not asked again."""
    out = runs / f"{name.lower().replace(' ', '-')}.jsonl"
    items = [Item(record.filepath, record.prompt, Path(record.filepath)) for record in test]
    if not out.is_file():
        final = folder / "final"
        checkpoint = final if final.is_dir() else folder
        detector = load_detector(f"{checkpoint}?device=cpu&batch_size=50")
        run(detector, items, out, resume=True, on_result=told(name, len(items)))
    rows = list(read_objects(out))
    if [row["filepath"] for row in rows] != [record.filepath for record in test]:
        raise SdgError(f"{out} holds the answers to another test split; remove it.")
    return System(
        name, [known(read_prediction(row)) for row in rows], [row["response"] or "" for row in rows]
    )


def told(name: str, total: int) -> Callable[[Mapping[str, object], int], None]:
    """Says how far it is, ten times."""

    def advance(row: Mapping[str, object], left: int) -> None:
        if left % max(1, total // 10) == 0:
            print(f"{name}: {total - left:,} of {total:,} pictures", file=sys.stderr, flush=True)

    return advance


def halves(test: Sequence[Record]) -> Iterator[Half]:
    """Injected and generated pictures, and all of them."""
    yield INJECTED, [place for place, record in enumerate(test) if record.generator == INJECTED]
    yield "generated", [place for place, record in enumerate(test) if record.generator != INJECTED]
    yield "both", list(range(len(test)))


def scored(system: System, truth: Sequence[Diagnosis], places: Sequence[int], embedder: str) -> Evaluation:
    return evaluate(
        [truth[place] for place in places],
        [system.diagnoses[place] for place in places],
        embedder=load_embedder(embedder),
        bootstrap=1000,
    )


def table(kind: str, results: Mapping[str, Evaluation], formed: Mapping[str, float | None]) -> list[str]:
    """Table 2's columns of one type as Markdown, each value with its interval below."""
    lines = [
        f"| {kind} | {' | '.join(PAPER_METRICS)} | well-formed |",
        f"|---|{'---|' * (len(PAPER_METRICS) + 1)}",
    ]
    for name, result in results.items():
        assert result.intervals is not None
        values = [
            f"{cell(result.metrics[kind][metric])} ({interval_cell(result.intervals[kind][metric])})"
            for metric in PAPER_METRICS
        ]
        share = "–" if formed[name] is None else f"{100 * (formed[name] or 0):.1f} %"
        lines.append(f"| {name} | {' | '.join(values)} | {share} |")
    return [*lines, ""]


def difference(first: str, second: str, results: Mapping[str, Evaluation]) -> list[str]:
    """One row a type and box metric: first minus second, paired by picture."""
    found = compare(results[first], results[second], resamples=2000)
    rows = []
    for kind in found.difference:
        for metric in ("BoxF1@0.1", "BoxF1@0.5", "ClnAcc", "DetTypeF1"):
            value, bounds = found.difference[kind][metric], found.intervals[kind][metric]
            shown = (
                "–"
                if value is None or bounds is None
                else f"{value:+.3f} ({bounds[0]:+.3f} to {bounds[1]:+.3f})"
            )
            chance = p_cell(found.p_values[kind][metric])
            rows.append(f"| {first} − {second} | {kind} | {metric} | {shown} | {chance} |")
    return rows


def verdicts(name: str, result: Evaluation, formed: float | None) -> Iterator[str]:
    """Each target, met or missed."""
    for metric, least in TARGETS.items():
        for kind, values in result.metrics.items():
            value = values[metric]
            met = value is not None and value >= least
            yield f"- {name}, {kind} {metric} {cell(value)}: target {least:.2f} {'met' if met else 'missed'}."
    if formed is not None:
        met = "met" if formed >= WELL_FORMED else "missed"
        yield f"- {name}, well-formed {100 * formed:.1f} %: target {100 * WELL_FORMED:.0f} % {met}."


def plot(logs: Mapping[str, Path], out: Path) -> None:
    """Validation metrics while training, by optimizer step."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), constrained_layout=True)
    for axis, metric in zip(axes.flat, CURVES, strict=True):
        for name, log in logs.items():
            points = [
                (row["step"], row[f"eval_{metric}"]) for row in read_objects(log) if f"eval_{metric}" in row
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axis.set_title(metric)
        axis.set_xlabel("optimizer step")
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    figure.savefig(out, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument(
        "--also", type=Path, action="append", default=[], help="corpus whose test split is taken as well"
    )
    parser.add_argument("--model", dest="models", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--embedder", default="minilm", help="compares reasons for DescCos")
    parser.add_argument("--runs", type=Path, default=Path("runs/detector-experiment"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs/experiments/detector")
    options = parser.parse_args()
    folders = {name: Path(folder) for name, _, folder in (model.partition("=") for model in options.models)}
    try:
        train, validation = (
            list(read_annotations(options.corpus / f"{split}.jsonl")) for split in ("train", "validation")
        )
        test = list(test_split([options.corpus, *options.also]))
        truth = [known(record) for record in test]
        systems = [
            System(CLEAN, [Diagnosis()] * len(test)),
            System(PRIOR, [prior_boxes(train, validation)] * len(test)),
            *(answers(name, folder, test, options.runs) for name, folder in folders.items()),
        ]
    except SdgError as error:
        sys.exit(f"Error: {error}")
    lines, document = (
        [f"{len(test):,} pictures of the test split, on whose prompts nothing was trained.", ""],
        {},
    )
    for half, places in halves(test):
        results = {system.name: scored(system, truth, places, options.embedder) for system in systems}
        formed = {system.name: system.well_formed(places) for system in systems}
        document[half] = {
            name: result.to_document() | {"well_formed": formed[name]} for name, result in results.items()
        }
        lines += [f"## {half.capitalize()}: {len(places):,} pictures", ""]
        for kind in map(str, DefectType):
            lines += table(kind, results, formed)
        names = list(folders)
        if len(names) > 1:
            lines += [
                "| paired difference | type | metric | value (95 % interval) | p |",
                "|---|---|---|---|---|",
            ]
            for first in names[1:]:
                lines += difference(first, names[0], results)
            lines.append("")
        if half == INJECTED and names:
            lines += [*verdicts(names[-1], results[names[-1]], formed[names[-1]]), ""]
    lines.append(
        "Values in brackets are 95 % intervals over pictures. DescCos compares reasons by "
        f"{options.embedder}."
    )
    logs = {}
    for name, folder in folders.items():
        if not (folder / "log.jsonl").is_file():
            continue
        logs[name] = options.out / "logs" / f"{name.lower().replace(' ', '-')}.jsonl"
        write_text(logs[name], (folder / "log.jsonl").read_text(encoding="utf-8"))
    write_text(options.out / "scores.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_text(options.out / "summary.md", "\n".join(lines) + "\n")
    if logs:
        plot(logs, options.out / "curves.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
