"""Tables as a section of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdg.tables import Table


@dataclass(frozen=True, slots=True)
class Tables:
    """A section of tables. note: one sentence under the title; remarks: sentences below the tables."""

    kind: ClassVar[str] = "tables"

    title: str
    tables: Sequence[Table]
    note: str = ""
    remarks: Sequence[str] = ()
