"""An audit as one page: what stands out, the pictures that are alike, the numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sdg.data.audit import Audit
from sdg.io.paths import data_path
from sdg.reporting.gallery import Entry, Gallery
from sdg.reporting.page import Report, Section, write_report
from sdg.reporting.summary import Tables
from sdg.tables import Table

GROUPS: Final = 40
"""Groups of pictures that are alike which a page shows, at most."""


def write_audit(
    found: Audit,
    path: str | os.PathLike[str],
    *,
    title: str,
    images: Path | None = None,
    allow_outside: bool = False,
) -> Path:
    """Write the page; images: the folder that the pictures' paths are relative to. Raises SdgError."""
    examples = tuple((one.kind, one.text, " · ".join(one.where)) for one in found.findings)
    sections: list[Section] = []
    if examples:
        table = Table("about", ("about", "what", "examples"), examples)
        sections.append(Tables("What stands out", (table,)))
    entries = []
    for number, group in enumerate(found.duplicates[:GROUPS], start=1):
        for name, split in group:
            file = None if images is None else data_path(name, images, allow_outside=allow_outside)
            entries.append(Entry(name, f"Group {number}, {split}", picture=file))
    if entries:
        note = f"The first {GROUPS} of {len(found.duplicates):,} groups." if found.duplicates[GROUPS:] else ""
        sections.append(Gallery(entries, "Pictures that are alike", note))
    sections.append(Tables("Numbers", found.tables[1:]))
    return write_report(Report(title, sections, f"{found.records:,} records."), path)
