"""Two detectors, or two files of predictions, on the same pictures, and SDG-Eval where the truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdg.app.offer import Example
from sdg.data.formats import read_records
from sdg.defects import Diagnosis
from sdg.errors import SdgError
from sdg.evaluation import evaluate
from sdg.evaluation.tables import evaluation_tables
from sdg.io.paths import PathIndex
from sdg.records import Record
from sdg.reporting import SideBySide, Tables, Twice
from sdg.reporting.page import Section
from sdg.reporting.thumbnails import Source
from sdg.tables import Table

MOST: Final = 200
"""Pictures that are shown of two files."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What two detectors said of the same pictures; truth: what is known, one a picture."""

    first: str
    second: str
    items: Sequence[Twice]
    truth: Sequence[Diagnosis | None]

    def sections(self) -> list[Section]:
        """The pictures side by side, after the scores of those whose truth is known."""
        shown = SideBySide(self.items[:MOST], self.first, self.second)
        tables = self._tables()
        return [tables, shown] if tables else [shown]

    def _tables(self) -> Tables | None:
        known = [(item, true) for item, true in zip(self.items, self.truth, strict=True) if true is not None]
        if not known:
            return None
        truth = [true for _, true in known]
        both = [
            evaluation_tables(evaluate(truth, [found or _NOTHING for found in column]), name)
            for name, column in (
                (self.first, [item.first for item, _ in known]),
                (self.second, [item.second for item, _ in known]),
            )
        ]
        tables = [Table(a.title, a.columns, a.rows + b.rows) for a, b in zip(*both, strict=True)]
        count = "1 picture" if len(known) == 1 else f"{len(known):,} pictures"
        return Tables("SDG-Eval", tables, note=f"On the {count} whose defects are known.")


_NOTHING: Final = Diagnosis(status="failed", error="It has no answer.")  # type: ignore[arg-type]


def look_twice(
    examples: Sequence[Example],
    names: tuple[str, str],
    ask: Callable[[str, Example], Diagnosis],
    on_picture: Callable[[int], bool],
) -> Compared:
    """Both detectors on each picture. on_picture: is told how many are done; False ends it there."""
    items: list[Twice] = []
    for example in examples:
        first, second = (ask(name, example) for name in names)
        items.append(Twice(example.name, example.prompt, first, second, example.picture))
        if not on_picture(len(items)):
            break
    return Compared(*names, items, [example.truth for example in examples[: len(items)]])


def read_two(first: Path, second: Path, truth: Path | None, pictures: Mapping[str, Source]) -> Compared:
    """Two files of the same pictures, and one of annotations where there is any; pictures: by their paths.

    Raises SdgError for a file that cannot be read, and where the two share no picture.
    """
    one, other = _by_path(first), _by_path(second)
    shared = [path for path in one if path in other]
    if not shared:
        raise SdgError(f"{first.name} and {second.name} share no picture; their paths have to be the same.")
    true = {} if truth is None else _by_path(truth)
    index = PathIndex(pictures)

    def picture(path: str) -> Source | None:
        found = index.find(path)
        return pictures[found[0]] if len(found) == 1 else None

    items = [
        Twice(path, one[path].prompt, one[path].diagnosis, other[path].diagnosis, picture(path))
        for path in shared
    ]
    names = first.stem, second.stem
    if names[0] == names[1]:
        names = f"{names[0]} (1)", f"{names[1]} (2)"
    return Compared(*names, items, [true[path].diagnosis if path in true else None for path in shared])


def _by_path(file: Path) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in read_records(file):
        found.setdefault(record.filepath, record)
    return found
