"""Statistics and splits as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from sdg.data.splits import Assignment
from sdg.data.statistics import BINS, KINDS, NO_GENERATOR, Statistics
from sdg.defects import DefectType


def statistics_tables(statistics: Statistics) -> Iterator[Table]:
    """The three panels of Figure 3: a row a generator, and for the importance a column."""
    groups = [*statistics.generators.items(), ("all", statistics.overall)]

    table = _table("Defects per image", "generator", "images", *(kind.value for kind in DefectType))
    for name, group in groups:
        means = (_number(group.defects_per_image(kind), "{:.2f}") for kind in DefectType)
        table.add_row(Text(name), f"{group.images:,}", *means)
    yield table

    table = _table("Images by what they hold, %", "generator", *KINDS)
    for name, group in groups:
        table.add_row(Text(name), *(_percent(share) for share in group.shares().values()))
    yield table

    table = _table("Importance, % of defects", "importance", *(name for name, _ in groups))
    for column, (low, high) in enumerate(BINS):
        shares = []
        for _, group in groups:
            counts = group.importance.sum(0)
            shares.append(_percent(counts[column] / counts.sum() if counts.sum() else None))
        table.add_row(f"{low}–{high}", *shares)
    yield table


def split_table(assignment: Assignment) -> Table:
    """Images by generator and split, with each split's share of the generator's images."""
    generators = {name for counts in assignment.counts.values() for name in counts}
    table = _table("Images by split", "generator", *assignment.names)
    split = assignment.counts.values()
    rows = [
        (generator or NO_GENERATOR, [counts.get(generator, 0) for counts in split])
        for generator in sorted(generators, key=lambda name: name or "")
    ]
    for name, numbers in [*rows, ("all", [sum(counts.values()) for counts in split])]:
        cells = (f"{number:,} ({_percent(number / sum(numbers))} %)" for number in numbers)
        table.add_row(Text(name), *cells)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number else "left")
    return table


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
