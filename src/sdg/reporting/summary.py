"""Sections of words and numbers: the summary at the head of a report, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

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
