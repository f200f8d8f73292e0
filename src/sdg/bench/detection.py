"""SDG Tables 2 and 7: detectors by SDG-Eval, beside the published rows; ablations beside what they ablate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sdg.bench.bench_table import BenchTable, require_same
from sdg.bench.published_rows import TABLE7
from sdg.errors import SdgError, quoted
from sdg.evaluation.columns import TYPES
from sdg.evaluation.metrics import PAPER_METRICS
from sdg.evaluation.published import PUBLISHED, PublishedRow
from sdg.evaluation.result import describe_unpaired, interval_cell, signed_cell
from sdg.evaluation.tables import paper_row
from sdg.tables import Table

Document = Mapping[str, Any]
"""What `sdg evaluate --json` writes: metrics, intervals, status, settings."""

SAME: Final = ("embedder", "matching", "seed", "bootstrap", "truth")
"""Settings of an evaluation that all rows of a table share."""
_PAPERS: Final = "Qwen3-Embedding-0.6B"  # the only embedder whose DescCos compares with the published
_MARKS: Final = {None: "", True: " ✓", False: " ✗"}

OVERRIDES: Final = {
    "no-step-1": ("sft", "profile.answer.steps=[2, 3]"),
    "no-step-3": ("sft", "profile.answer.steps=[1, 2]"),
    "grpo-no-think": ("grpo", "profile.answer.think=false"),
    "no-description": ("sft", "profile.answer.description=false"),
    "no-importance": ("sft", "profile.answer.importance=false"),
    "unfrozen-vision": ("sft", "model.freeze_vision=false"),
    "no-jitter": ("sft", "data.jitter=0"),
}
"""Ablation -> (stage it is measured after, override of its SFT recipe); GRPO goes on from that checkpoint."""


def table2(documents: Mapping[str, Document]) -> BenchTable:
    """Detectors on a test split, each by its evaluation (SDG Table 2).

    Raises SdgError where evaluations differ in what their numbers depend on, or there are none.
    """
    settings = _shared(documents)
    tables = [
        Table(kind, (kind, *PAPER_METRICS), *_rows(kind, documents, PUBLISHED, settings))
        for kind in map(str, TYPES)
    ]
    return BenchTable(
        "table2",
        "Detectors by SDG-Eval (SDG Table 2)",
        tables,
        {"rows": {name: _numbers(one) for name, one in documents.items()}},
        settings,
        list(_notes(documents, settings)),
    )


def table7(
    bases: Mapping[str, Document],
    ablations: Mapping[str, Document],
    seeds: Mapping[str, object] | None = None,
) -> BenchTable:
    """Ablated detectors, and whether each difference goes the way it goes in the paper (SDG Table 7).

    bases: "sft" and, for `grpo-no-think`, "grpo". ablations: by their names in `OVERRIDES`. seeds: of the
    training of each, where known. Raises SdgError for an unknown name, a missing base, evaluations that
    differ in what their numbers depend on, and trainings of different seeds.
    """
    for name in ablations:
        if name not in TABLE7:
            raise SdgError(f"{quoted(name)} is no ablation of Table 7; those are {', '.join(TABLE7)}.")
        if (stage := OVERRIDES[name][0]) not in bases:
            raise SdgError(f"{name} is compared with {stage}; give its evaluation as well.")
    if not ablations:
        raise SdgError(f"There are no ablations to compare; name one of {', '.join(TABLE7)}.")
    if seeds and len(set(seeds.values())) > 1:
        first, *others = seeds.items()
        other = next(one for one in others if one[1] != first[1])
        raise SdgError(
            f"{first[0]} was trained with seed {first[1]} and {other[0]} with {other[1]}; numbers of both do "
            "not belong into one table."
        )
    settings = _shared({**bases, **ablations})
    published = {"sft": _published("SDG (SFT)"), "grpo": _published("SDG (GRPO)")}
    tables, numbers = [], {name: _numbers(one) for name, one in {**bases, **ablations}.items()}
    agreement: dict[str, Any] = {}
    for kind in map(str, TYPES):
        rows = [paper_row(name, one["metrics"][kind]) for name, one in bases.items()]
        notes = []
        for name, one in ablations.items():
            stage = OVERRIDES[name][0]
            rows.append(paper_row(name, one["metrics"][kind]))
            ours = _differences(one["metrics"][kind], bases[stage]["metrics"][kind])
            papers = _differences(TABLE7[name].metrics[kind], published[stage].metrics[kind])
            if not _comparable(settings):
                papers["DescCos@0.1"] = None
            agrees = {metric: _agrees(ours[metric], papers[metric]) for metric in PAPER_METRICS}
            agreement.setdefault(name, {})[kind] = {"ours": ours, "published": papers, "agrees": agrees}
            marked = (signed_cell(ours[m]) + _MARKS[agrees[m]] for m in PAPER_METRICS)
            rows.append((f"  minus {stage}", *marked))
            notes.append(len(rows))
            rows.append(("  in the paper", *(signed_cell(papers[m]) for m in PAPER_METRICS)))
        tables.append(Table(kind, (kind, *PAPER_METRICS), tuple(rows), frozenset(notes)))
    known = [value for by in agreement.values() for one in by.values() for value in one["agrees"].values()]
    same, of = sum(value is True for value in known), sum(value is not None for value in known)
    return BenchTable(
        "table7",
        "Ablations of the detector (SDG Table 7)",
        tables,
        {"rows": numbers, "differences": agreement},
        settings,
        [
            "✓: the difference has the sign that it has in the paper; ✗: the other; neither where one is 0.",
            f"The sign is the paper's in {same} of {of} differences.",
            *_notes({**bases, **ablations}, settings),
        ],
    )


def _shared(documents: Mapping[str, Document]) -> dict[str, Any]:
    if not documents:
        raise SdgError("There are no evaluations; name one as NAME=FILE.")
    return require_same({name: one.get("settings") or {} for name, one in documents.items()}, SAME)


def _comparable(settings: Mapping[str, Any]) -> bool:
    return _PAPERS in str(settings.get("embedder"))


def _rows(
    kind: str,
    documents: Mapping[str, Document],
    published: Sequence[PublishedRow],
    settings: Mapping[str, Any],
) -> tuple[tuple[tuple[str, ...], ...], frozenset[int]]:
    rows: list[tuple[str, ...]] = []
    for name, one in documents.items():
        rows.append(paper_row(name, one["metrics"][kind]))
        if bounds := (one.get("intervals") or {}).get(kind):
            rows.append(("  95 % interval", *(interval_cell(bounds.get(m)) for m in PAPER_METRICS)))
    first = len(rows)
    for row in published:
        values = dict(row.metrics[kind])
        if not _comparable(settings):
            values["DescCos@0.1"] = None
        rows.append(paper_row(f"{row.model} (published)", values))
    return tuple(rows), frozenset(range(first, len(rows)))


def _numbers(one: Document) -> dict[str, Any]:
    return {key: one.get(key) for key in ("metrics", "intervals", "status")}


def _notes(documents: Mapping[str, Document], settings: Mapping[str, Any]) -> Iterator[str]:
    for name, one in documents.items():
        status = one.get("status") or {}
        if "evaluated" in status:
            troubles = [f"{status[k]:,} {k}" for k in ("unparseable", "failed") if status.get(k)]
            more = f" ({', '.join(troubles)})" if troubles else ""
            unpaired = describe_unpaired(status)
            yield f"{name}: {status['evaluated']:,} of {status['images']:,} images evaluated{more}{unpaired}."
    yield f"Matching {settings['matching']}, embedder {settings['embedder'] or 'none'}."
    if not _comparable(settings):
        yield f"Published DescCos is left out: it was measured with {_PAPERS}."


def _published(model: str) -> PublishedRow:
    return next(row for row in PUBLISHED if row.model == model)


def _differences(
    one: Mapping[str, float | None], base: Mapping[str, float | None]
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for metric in PAPER_METRICS:
        a, b = one.get(metric), base.get(metric)
        found[metric] = None if a is None or b is None else round(a - b, 6)
    return found


def _agrees(ours: float | None, papers: float | None) -> bool | None:
    return None if not ours or not papers else (ours > 0) == (papers > 0)
