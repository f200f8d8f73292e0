"""A finished data set looked at as a whole: what no single line shows, before it is trained on.

Rows and pictures there twice, prompts in two splits, numbers far from the paper's Figure 3, annotators
unlike the rest, reasons that repeat, importance that is inflated.
"""

from __future__ import annotations

import pathlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sdg.data.duplicates import Print, alike, fingerprint
from sdg.data.findings import (
    FIGURE_3_DEFECTS,
    FIGURE_3_KINDS,
    MOST_SHOWN,
    Finding,
    annotators,
    area_share,
    duplicates,
    inflated_importance,
    leaks,
    listed_twice,
    odd_boxes,
    plain,
    repeated_reasons,
    shared_splits,
    unlike_figure_3,
)
from sdg.data.statistics import Statistics, statistics
from sdg.defects import Defect, Diagnosis, Tier
from sdg.errors import SdgError
from sdg.images import load_image
from sdg.io.paths import data_path
from sdg.records import Record
from sdg.tables import Table


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """What was found, and the numbers behind it. duplicates: groups of (image, split).

    read: how many pictures were compared; unreadable: (image, reason) of those that were not.
    """

    records: int
    findings: tuple[Finding, ...]
    statistics: Statistics
    duplicates: tuple[tuple[tuple[str, str], ...], ...]
    read: int
    unreadable: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "records": self.records,
            "findings": [finding.to_dict() for finding in self.findings],
            "statistics": self.statistics.to_dict(),
            "duplicates": [[{"filepath": p, "split": s} for p, s in group] for group in self.duplicates],
            "pictures_read": self.read,
            "unreadable": [{"filepath": path, "reason": reason} for path, reason in self.unreadable],
            "tables": [table.to_dict() for table in self.tables],
        }


def audit(
    files: Iterable[tuple[str, Iterable[Record]]],
    *,
    images: pathlib.Path | None = None,
    allow_outside: bool = False,
    on_record: Callable[[Record], object] = lambda record: None,
) -> Audit:
    """Go through the records of several files, each with a name that is the split of records without one.

    images: the folder of the pictures, to find those that are alike; without it none is read. Records are
    kept, without their think texts. Raises SdgError as readers do, and where a path leads out of `images`.
    """
    records: list[tuple[str, Record]] = []
    sources: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for name, of_file in files:
        for record in of_file:
            split = record.split or name
            records.append((split, _bare(record)))
            sources[split][name] = None
            on_record(record)
    known = [record for _, record in records if record.diagnosis is not None]
    paths = list(dict.fromkeys((record.filepath, split) for split, record in records))
    prints, unreadable = _prints([path for path, _ in paths], images, allow_outside)
    readable = [(at, found) for at, found in enumerate(prints) if found is not None]
    together = alike([found for _, found in readable])
    groups = tuple(tuple(paths[readable[index][0]] for index in group) for group in together)
    defects = [(record, defect) for record in known for defect in record.diagnosis.defects]  # type: ignore[union-attr]
    counted = statistics(known)
    by_annotator, odd = annotators(known)
    findings = (
        *shared_splits(sources),
        *listed_twice(records),
        *duplicates(groups),
        *leaks(records),
        *unlike_figure_3(counted),
        *odd_boxes(known, defects),
        *odd,
        *repeated_reasons(defects),
        *inflated_importance(defects),
        *_unreadable(unreadable),
    )
    listed = tuple((finding.kind, finding.text) for finding in findings)
    tables = (
        Table("Findings", ("about", "what"), listed or (("–", "Nothing stands out."),)),
        *_figure_3_tables(counted),
        _box_table(defects),
        by_annotator,
        _importance_table(defects),
        _reason_table(defects),
    )
    return Audit(
        len(records),
        findings,
        counted,
        groups,
        len(readable),
        tuple(unreadable),
        tuple(table for table in tables if table.rows),
    )


def split_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """A name for each file's split: its stem, where that repeats its folder too, or its whole path."""
    names = [path.stem for path in paths]
    for longer in (lambda path: f"{path.parent.name}/{path.stem}".lstrip("/"), str):
        times = Counter(names)
        names = [longer(path) if times[name] > 1 else name for path, name in zip(paths, names, strict=True)]
    return names


def _prints(
    paths: Sequence[str], images: pathlib.Path | None, allow_outside: bool
) -> tuple[list[Print | None], list[tuple[str, str]]]:
    """The fingerprint of each picture, None where it cannot be read, and why not."""
    prints: list[Print | None] = [None] * len(paths)
    unreadable: list[tuple[str, str]] = []
    if images is None:
        return prints, unreadable
    for at, path in enumerate(paths):
        file = data_path(path, images, allow_outside=allow_outside)
        try:
            prints[at] = fingerprint(load_image(file))
        except SdgError as error:
            unreadable.append((path, str(error)))
    return prints, unreadable


def _bare(record: Record) -> Record:
    """A record with what an audit looks at: its defects, where anything is known of the image."""
    found = record.diagnosis
    known = None if found is None or not found.is_informative else Diagnosis(found.defects)
    return replace(record, diagnosis=known, metadata={})


def _unreadable(unreadable: Sequence[tuple[str, str]]) -> list[Finding]:
    if not unreadable:
        return []
    text = f"Pictures that cannot be read: {len(unreadable):,}; the first: {unreadable[0][1]}"
    return [Finding("pictures", text, tuple(path for path, _ in unreadable[:MOST_SHOWN]))]


def _figure_3_tables(counted: Statistics) -> tuple[Table, ...]:
    means, shares, importance = counted.tables()
    theirs = ("SDG-30K", *(f"{100 * share:.1f}" for share in FIGURE_3_KINDS.values()))
    shares = Table(shares.title, shares.columns, (*shares.rows, theirs), frozenset({len(shares.rows)}))
    low, high = FIGURE_3_DEFECTS
    row = ("SDG-30K, by generator", "", *[f"{low}–{high}"] * 2)
    means = Table(means.title, means.columns, (*means.rows, row), frozenset({len(means.rows)}))
    return means, shares, importance


def _box_table(defects: Sequence[tuple[Record, Defect]]) -> Table:
    """Quantiles of the boxes' shares of the picture, by type."""
    rows = []
    for kind in ("artifact", "misalignment"):
        areas = np.array([area_share(defect) for _, defect in defects if defect.type == kind])
        if len(areas):
            quantiles = np.quantile(areas, (0.05, 0.25, 0.5, 0.75, 0.95))
            rows.append((kind, f"{len(areas):,}", *(f"{100 * q:.2f}" for q in quantiles)))
    columns = ("type", "boxes", "5 %", "25 %", "half", "75 %", "95 %")
    return Table("Share of the picture that a box covers, %: quantiles", columns, tuple(rows))


def _importance_table(defects: Sequence[tuple[Record, Defect]]) -> Table:
    tiers = Counter(defect.tier for _, defect in defects if defect.tier is not None)
    total = tiers.total()
    rows = tuple((tier.value, f"{tiers[tier]:,}", f"{tiers[tier] / total:.1%}") for tier in Tier if total)
    return Table("Importance by tier", ("tier", "defects", "share"), rows)


def _reason_table(defects: Sequence[tuple[Record, Defect]]) -> Table:
    """The reasons that stand most often."""
    counts = Counter(plain(defect.reason) for _, defect in defects if defect.reason)
    rows = tuple((text, f"{count:,}") for text, count in counts.most_common(MOST_SHOWN) if count > 1)
    return Table("Reasons that repeat", ("reason", "times"), rows)
