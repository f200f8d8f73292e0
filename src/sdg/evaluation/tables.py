"""Evaluations, comparisons and slices as tables, for a terminal and for the HTML report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sdg.evaluation.columns import TYPES
from sdg.evaluation.comparison import Comparison
from sdg.evaluation.metrics import METRICS, PAPER_METRICS
from sdg.evaluation.published import PublishedRow
from sdg.evaluation.result import Scores, cell, interval_cell, signed_cell
from sdg.evaluation.slices import OF_TRUE_DEFECTS, Slice
from sdg.tables import Table


def evaluation_tables(
    evaluation: Scores, name: str, published: Sequence[PublishedRow] = ()
) -> Iterator[Table]:
    """The paper's Table 2, one table a type: these predictions, their intervals, published rows."""
    for kind in map(str, TYPES):
        rows = [paper_row(name, evaluation.metrics[kind])]
        if evaluation.intervals is not None:
            bounds = evaluation.intervals[kind]
            rows.append(("95 % interval", *(interval_cell(bounds[metric]) for metric in PAPER_METRICS)))
        notes = range(1, len(rows) + len(published))
        rows += [paper_row(f"{row.model} (published)", row.metrics[kind]) for row in published]
        yield Table(kind, (kind, *PAPER_METRICS), tuple(rows), frozenset(notes))


def comparison_tables(comparison: Comparison, first: str, second: str) -> Iterator[Table]:
    """Difference, interval and p-value of every metric, one table a type; the last two where resampled."""
    bounds, p_values = comparison.intervals, comparison.p_values
    resampled = () if bounds is None else ("95 % interval", "p")
    columns = ("metric", first, second, "difference", *resampled)
    for kind in map(str, TYPES):
        rows = tuple(
            (
                name,
                cell(comparison.first[kind][name]),
                cell(comparison.second[kind][name]),
                signed_cell(comparison.difference[kind][name]),
                *(() if bounds is None else (_signed_interval(bounds[kind][name]),)),
                *(() if p_values is None else (p_cell(p_values[kind][name]),)),
            )
            for name in METRICS
        )
        title = f"{kind}: {first} minus {second} on {comparison.images:,} images"
        yield Table(title, columns, rows)


def slice_tables(parts: Sequence[Slice]) -> Iterator[Table]:
    """One row a part, one table a type; parts without a true defect of the type are left out."""
    if not parts:
        return
    by = parts[0].by
    names = PAPER_METRICS if by == "generator" else OF_TRUE_DEFECTS
    for kind in map(str, TYPES):
        rows = tuple(
            (
                part.value,
                f"{part.images:,}",
                f"{part.defects[kind]:,}",
                *(cell(part.metrics[kind][metric]) for metric in names),
            )
            for part in parts
            if by == "generator" or part.defects[kind]
        )
        if rows:
            yield Table(f"{kind} by {by}", (by, "images", "true defects", *names), rows)


def p_cell(value: float | None) -> str:
    """A p-value to three decimals, "–" where it is undefined."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def paper_row(name: str, values: Mapping[str, float | None]) -> tuple[str, ...]:
    """A row of the paper's metrics, "–" where one is undefined or not there."""
    return (name, *(cell(values.get(metric)) for metric in PAPER_METRICS))


def _signed_interval(bounds: tuple[float, float] | None) -> str:
    return "–" if bounds is None else f"{signed_cell(bounds[0])} to {signed_cell(bounds[1])}"
