"""Scores: the metrics of `sdg evaluate --json` with their intervals, several files side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from sdg.defects import DefectType
from sdg.errors import SdgError
from sdg.evaluation.metrics import PAPER_METRICS
from sdg.evaluation.result import describe_unpaired
from sdg.io.files import read_text

_LARGEST: Final = 1e9  # of a number that may be a metric, not NaN nor infinite


@dataclass(frozen=True, slots=True)
class Row:
    """One value of a metric; low and high are its 95 % bounds. All are None where undefined or unknown."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    published: bool = False


@dataclass(frozen=True, slots=True)
class Scores:
    """A section of metrics: (name, document) pairs, each document as `sdg evaluate --json` writes it."""

    kind: ClassVar[str] = "scores"

    documents: Sequence[tuple[str, Mapping[str, Any]]]
    title: str = "SDG-Eval"
    note: str = ""

    def tables(self) -> Iterator[tuple[str, list[tuple[str, list[Row]]]]]:
        """(type, [(metric, rows)]), one table a type, one row a document and published model."""
        for kind in map(str, DefectType):
            yield kind, [(metric, list(self._rows(kind, metric))) for metric in PAPER_METRICS]

    def _rows(self, kind: str, metric: str) -> Iterator[Row]:
        published: dict[str, Any] = {}
        for name, document in self.documents:
            low, high = ((document.get("intervals") or {}).get(kind) or {}).get(metric) or (None, None)
            yield Row(name, document["metrics"][kind].get(metric), low, high)
            published |= document.get("published") or {}
        for name, metrics in published.items():
            yield Row(name, metrics[kind].get(metric), published=True)

    def facts(self) -> Iterator[str]:
        """One line a document: on how many images, how the answers were read, by which settings."""
        for name, document in self.documents:
            status, settings = document.get("status") or {}, document.get("settings") or {}
            words = []
            if "evaluated" in status:
                evaluated = f"{status['evaluated']:,} of {status['images']:,} images evaluated"
                words.append(evaluated + describe_unpaired(status))
            for trouble in ("unparseable", "failed", "truncated", "repaired"):
                if status.get(trouble):
                    words.append(f"{status[trouble]:,} {trouble}")
            if settings:
                words.append(f"matching {settings.get('matching')}")
                words.append(f"embedder {settings.get('embedder') or 'none (DescCos undefined)'}")
            if settings.get("bootstrap"):
                words.append(f"95 % intervals from {settings['bootstrap']:,} resamples of images")
            yield f"{name}: {'; '.join(words)}."


def read_scores(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The file's stem and its document; raises SdgError where `sdg evaluate --json` did not write it."""
    problem = SdgError(f"{path} holds no scores; give a file that `sdg evaluate --json` wrote.")
    try:
        document = json.loads(read_text(path))
        for kind in map(str, DefectType):
            for value in document["metrics"][kind].values():
                if not _is_value(value):
                    raise problem
        section = Scores([(Path(path).stem, document)])
        rows = [row for _, metrics in section.tables() for _, of_metric in metrics for row in of_metric]
        if not all(_is_value(n) for row in rows for n in (row.value, row.low, row.high)):
            raise problem
        list(section.facts())  # which fails where status or settings are of another kind
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        raise problem from None
    return Path(path).stem, document


def _is_value(value: object) -> bool:
    """Whether this is what a metric may be: a number that a page can show, or None."""
    return value is None or (isinstance(value, int | float) and abs(value) <= _LARGEST)
