"""What a teacher wrote about a sample, as one page to look at before the rest is sent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from sdg.data.formats.sdg30k import from_annotation
from sdg.reporting import Entry, Gallery, Report, Tables, write_report
from sdg.reporting.page import Section
from sdg.tables import Table
from sdg.teacher.enrich import ACCEPTED, Enriched
from sdg.teacher.plan import Given


def write_page(
    given: Sequence[Given], result: Enriched, path: str | os.PathLike[str], title: str, note: str = ""
) -> Path:
    """Write the pictures with what is accepted, each reason beside what it was, and what was refused.

    Raises SdgError where the file cannot be written.
    """
    entries, reasons, refused = [], [], []
    for one in given:
        row = result.rows[one.key]
        name = one.record.filepath
        if row["status"] == ACCEPTED:
            record = from_annotation(row["annotation"])
            assert record.diagnosis is not None
            entries.append(Entry(name, record.prompt, record.diagnosis, record.generator, one.file))
            pairs = zip(one.diagnosis.defects, record.diagnosis.defects, strict=True)
            reasons += [(name, *_score(a.importance, b.importance), a.reason, b.reason) for a, b in pairs]
        refused += [(name, fault["kind"], fault["fault"]) for fault in row["faults"]]
        if row.get("error"):
            refused.append((name, "no answer", row["error"]))
    counts = [(status, f"{count:,}") for status, count in sorted(result.statuses.items())]
    sections: list[Section] = [
        Gallery(entries, "Accepted", "Boxes and labels are as they were given; texts are the teacher's."),
        _section("Reasons", ("picture", "importance", "now", "given", "written"), reasons),
        _section(
            "Refused answers", ("picture", "kind", "fault"), refused, "Asked again, or left for a person."
        ),
        _section("Pictures", ("status", "pictures"), counts),
    ]
    if result.votes.pairs:
        sections.append(Tables("Votes", (result.votes.table(),)))
    return write_report(Report(title, sections, note), path)


def _section(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], note: str = "") -> Tables:
    return Tables(title, (Table(columns[0], columns, tuple(rows)),), note)


def _score(before: int | None, after: int | None) -> tuple[str, str]:
    return "–" if before is None else str(before), "–" if after is None else str(after)
