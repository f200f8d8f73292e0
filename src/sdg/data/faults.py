"""What is wrong in a data file: readers stop at the first fault, `sdg data validate` lists them all.

A format hands out its file in parts (a line, an image, a task), each made into records on its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sdg.errors import SdgError
from sdg.records import Record

Path = str | os.PathLike[str]
Part = tuple[str, Callable[[], Iterable[Record]]]
"""Where in the file ("line 17"), and what makes its records or raises ValueError with the reason."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: the file, the place in it ("line 17", "" for the whole file) and the reason."""

    path: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, {self.place}: {self.reason}" if self.place else self.reason


class Faults(ValueError):
    """Several reasons why one part of a file cannot be used; as text, the first of them."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(self.reasons[0])


def reasons(error: ValueError) -> tuple[str, ...]:
    """All reasons a ValueError holds."""
    return error.reasons if isinstance(error, Faults) else (str(error),)


def raise_all(checks: Iterable[Callable[[], object]]) -> None:
    """Call every check; raises Faults with all reasons where any of them raised ValueError."""
    found: list[str] = []
    for check in checks:
        try:
            check()
        except ValueError as error:
            found.extend(reasons(error))
    if found:
        raise Faults(found)


def read_parts(path: Path, parts: Iterable[Part]) -> Iterator[Record]:
    """The records of all parts; raises SdgError with file, place and reason at the first fault."""
    for place, make in parts:
        try:
            records = make()
        except ValueError as error:
            raise SdgError(str(Fault(str(path), place, str(error)))) from None
        yield from records
