"""Sections of words and numbers: the summary at the head of a report, and tables, as those of `sdg bench`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sdg.errors import SdgError
from sdg.io.jsonl import load_document
from sdg.tables import Table

State = Literal["done", "failed", "left out"]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the work: its name, what it came to in one sentence, and how long it took in seconds."""

    name: str
    result: str
    seconds: float | None = None
    state: State = "done"

    @property
    def time(self) -> str:
        """The time in words, "" where it is not known."""
        if self.seconds is None:
            return ""
        minutes, seconds = divmod(round(self.seconds), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class Summary:
    """A section of facts, (number, what it counts), and of parts in their order."""

    kind: ClassVar[str] = "summary"

    facts: Sequence[tuple[str, str]] = ()
    parts: Sequence[Part] = ()
    title: str = "Summary"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tables:
    """A section of tables. note: one sentence under the title; remarks: sentences below the tables."""

    kind: ClassVar[str] = "tables"

    title: str
    tables: Sequence[Table]
    note: str = ""
    remarks: Sequence[str] = ()


def read_bench(path: str | os.PathLike[str]) -> Tables:
    """What a file of `sdg bench` holds; raises SdgError where it is none."""
    document: Any = load_document(path)
    try:
        tables = []
        for one in document["tables"]:
            columns, rows = tuple(one["columns"]), tuple(map(tuple, one["rows"]))
            texts = (one["title"], *columns, *(cell for row in rows for cell in row))
            if not columns or any(len(row) != len(columns) for row in rows):
                raise TypeError
            if not all(type(text) is str for text in texts):
                raise TypeError
            tables.append(Table(one["title"], columns, rows, frozenset(map(int, one["published"]))))
        title, remarks = document["title"], list(document["notes"])
        if not document["bench"] or not all(type(text) is str for text in (title, *remarks)):
            raise TypeError
    except (LookupError, TypeError, ValueError, OverflowError):
        raise SdgError(
            f"{os.fspath(path)} holds no table; give a .json file that `sdg bench` wrote."
        ) from None
    return Tables(title, tables, remarks=remarks)
