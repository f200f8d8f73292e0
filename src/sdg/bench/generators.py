"""SDG Tables 5 and 6 and Figure 3: generators by scorers, edits by people, data sets by their defects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdg.alignment.compare import BASE, Comparison
from sdg.bench.bench_table import BenchTable
from sdg.bench.published_rows import TABLE5, TABLE5_SCORERS, TABLE6
from sdg.data.formats import read_records
from sdg.data.statistics import statistics
from sdg.errors import SdgError, path_end
from sdg.evaluation.result import cell, interval_cell
from sdg.io.jsonl import load_document
from sdg.tables import Table


def table5(found: Comparison, averaged: list[str], settings: Mapping[str, Any]) -> BenchTable:
    """Generators by scorers and defects a picture, Avg the mean relative change of `averaged` (SDG Table 5).

    Published rows stand below for the scorers of the same names, whatever their case.
    """
    measures = list(found.cells[BASE])
    rows: list[tuple[str, ...]] = []
    for name, cells in found.cells.items():
        average = found.averages[name] if name != BASE else None
        rows.append((name, *(cell(cells[m].mean) for m in measures), _percent(average)))
        bounds = found.average_intervals[name] if name != BASE else None
        between = "–" if bounds is None else f"{_percent(bounds[0])} to {_percent(bounds[1])}"
        rows.append(("  95 % interval", *(interval_cell(cells[m].interval) for m in measures), between))
    first = len(rows)
    column = {name.casefold(): at for at, name in enumerate(TABLE5_SCORERS)}
    here = [column.get(name.casefold()) for name in measures]
    if any(at is not None for at in here):
        for name, values in TABLE5.items():
            cells_ = ["–" if at is None or values[at] is None else f"{values[at]:g}" for at in here]
            rows.append((f"{name} (published)", *cells_, _percent(values[-1])))
    notes = [
        f"{found.prompts:,} prompts, {found.samples} pictures each; intervals resample prompts.",
        f"Avg is the mean relative change of {', '.join(averaged)} against {BASE}.",
    ]
    pictures = found.prompts * found.samples
    for name, cells in found.cells.items():
        unknown = [f"{m} {pictures - c.known:,}" for m, c in cells.items() if c.known < pictures]
        if unknown:
            notes.append(
                f"{name}: left out of {pictures:,} pictures, as nothing is known: {', '.join(unknown)}."
            )
    table = Table(
        "generator", ("generator", *measures, "Avg"), tuple(rows), frozenset(range(first, len(rows)))
    )
    return BenchTable(
        "table5",
        "Generators by scorers and defects (SDG Table 5)",
        [table],
        asdict(found),
        settings,
        notes,
    )


def table6(studies: Mapping[str, Path]) -> BenchTable:
    """Good, Same and Bad of blind studies, as `sdg study count --json` wrote them (SDG Table 6).

    Raises SdgError for a file that holds no such numbers, and for studies counted with different seeds.
    """
    rows: list[tuple[str, ...]] = []
    numbers: dict[str, Any] = {}
    seeds: dict[str, object] = {}
    for name, path in studies.items():
        document = load_document(path)
        try:
            pooled = document["pooled"]
            shares = [float(pooled["shares"][verdict]) for verdict in ("good", "same", "bad")]
            bounds = [pooled["intervals"][verdict] for verdict in ("good", "same", "bad")]
            seeds[name] = document["seed"]
            pairs = int(document["pairs"])
            rows.append((name, *(f"{100 * share:.2f} %" for share in shares), f"{pairs:,}"))
            text = (f"{100 * float(low):.2f}–{100 * float(high):.2f}" for low, high in bounds)
            rows.append(("  95 % interval", *text, ""))
        except (LookupError, TypeError, ValueError, OverflowError):
            raise SdgError(
                f"{path_end(str(path))} holds no count; give a file that `sdg study count --json` wrote."
            ) from None
        numbers[name] = document
    if not rows:
        raise SdgError("There are no studies; name one as NAME=FILE.")
    if len(set(map(str, seeds.values()))) > 1:
        raise SdgError(f"The studies were counted with different seeds ({seeds}); count them with one.")
    first = len(rows)
    rows += [(f"{name} (published)", *(f"{100 * v:.2f} %" for v in of), "873") for name, of in TABLE6.items()]
    columns = ("study", "Good", "Same", "Bad", "pairs")
    return BenchTable(
        "table6",
        "Edits rated blindly (SDG Table 6)",
        [Table("study", columns, tuple(rows), frozenset(range(first, len(rows))))],
        numbers,
        {"seed": next(iter(seeds.values()))},
    )


def figure3(files: list[Path]) -> BenchTable:
    """Defects a picture, what pictures hold and importances, by generator (SDG Figure 3)."""
    found = statistics(record for file in files for record in read_records(file))
    notes = ["Published: 25.1 % clean, 46.3 % artifact only, 5.4 % misalignment only, 23.2 % both."]
    if found.unknown:
        notes.append(f"{found.unknown:,} pictures of which nothing is known are left out.")
    return BenchTable(
        "figure3",
        "What pictures hold (SDG Figure 3)",
        list(found.tables()),
        found.to_dict(),
        {"files": [str(file) for file in files]},
        notes,
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f} %".replace("-", "−")
