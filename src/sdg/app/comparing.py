"""Two detectors, or two files of predictions, on the same pictures, and SDG-Eval where the truth is known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
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
from sdg.runs.journal import Key
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


def read_two(first: Path, second: Path, truth: Path | None, examples: Sequence[Example]) -> Compared:
    """Two files of the same pictures, and one of annotations where there is any.

    examples: whose pictures are shown, where it is clear which of them a path and a prompt stand for.
    Raises SdgError for a file that cannot be read, and where the two share no picture.
    """
    one, other = _by_key(first), _by_key(second)
    shared = [key for key in one if key in other]
    if not shared:
        raise SdgError(
            f"{first.name} and {second.name} share no picture; its path and its prompt have to be the same."
        )
    true = {} if truth is None else _by_key(truth)
    named: defaultdict[str, list[Example]] = defaultdict(list)
    index = PathIndex(example.name for example in examples)
    for example in examples:
        for name in index.find(example.name):
            named[name].append(example)

    def picture(path: str, prompt: str) -> Source | None:
        meant = [example for name in index.find(path) for example in named[name]]
        meant = [example for example in meant if example.prompt == prompt] or meant
        alike = all(example.picture == meant[0].picture for example in meant)
        return meant[0].picture if meant and alike else None

    items = [Twice(*key, one[key].diagnosis, other[key].diagnosis, picture(*key)) for key in shared]
    names = first.stem, second.stem
    if names[0] == names[1]:
        names = f"{names[0]} (1)", f"{names[1]} (2)"
    return Compared(*names, items, [true[key].diagnosis if key in true else None for key in shared])


def _by_key(file: Path) -> dict[Key, Record]:
    found: dict[Key, Record] = {}
    for record in read_records(file):
        found.setdefault((record.filepath, record.prompt), record)
    return found
