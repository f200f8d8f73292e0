"""What a comparison has measured so far: on disk batch by batch, so that one that was stopped goes on.

In its folder: settings.json, measures.jsonl (one line a picture), pictures/ (those of the grid). Of several
processes each has a part of its own, measures.jsonl-1 and so on, while they work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from sdg.alignment.monitors import Measures
from sdg.alignment.recipe import FREE, compared
from sdg.images import load_image, save_image
from sdg.io import jsonl
from sdg.runs.begin import begin, read_settings, refuse_changes, write_settings
from sdg.runs.journal import Row, collect_parts, journal, part_of, parts_of
from sdg.runs.processes import ALONE, Processes

_PLACE: Final = ("generator", "picture")


@contextmanager
def measure_journal(
    out: Path,
    generators: Mapping[str, str | None],
    settings: Mapping[str, Any],
    *,
    total: int,
    batch: int,
    resume: bool,
    processes: Processes = ALONE,
) -> Iterator[MeasureJournal]:
    """The comparison in `out`, begun or gone on with, by one process or several.

    generators: name -> digest of the adapter's weights, None for base. settings: JSON of whatever else the
    measures depend on; of its recipe only what `FREE` and `compared` say. total, batch: pictures of a
    generator. A batch that a kill cut off is drawn again as a whole, since pictures may depend on which are
    drawn together. Raises SdgError as `begin` does, and where an adapter that was measured has changed or
    lost its place; what stands after it may change.
    """
    file, manifest = out / "measures.jsonl", out / "settings.json"
    now = {**settings, "adapters": [[name, digest] for name, digest in generators.items() if digest]}

    @contextmanager
    def begun() -> Iterator[Known]:
        free = ["adapters", *FREE]
        with begin(out, manifest, now, resume=resume, work=parts_of(file), free=free, compared=compared):
            with journal(file):  # cuts off half a line
                pass
            collect_parts(file)
            known = _read(file)
            before = read_settings(out, manifest)
            measured = [place for place, (name, _) in enumerate(before["adapters"], 1) if name in known]
            longest = max(len(before["adapters"]), len(now["adapters"]))
            later = [f"adapters.{place}" for place in range(max(measured, default=0), longest)]
            refuse_changes(out, before, {"adapters": now["adapters"]}, later)
            write_settings(manifest, before | now)
            known = {name: known.get(name, {}) for name in generators}
            for rows in known.values():
                for start in _unfinished(rows, total, batch):
                    for place in range(start, start + batch):
                        rows.pop(place, None)
            jsonl.write_objects(file, _lines(known))
            yield known

    with (
        processes.on_main(begun) as known,
        journal(part_of(file, processes.rank), batch=1) as append,
    ):
        yield MeasureJournal(out, known, append, total, batch, processes)


Known = dict[str, dict[int, Row]]
"""Generator -> place of a picture -> its measures."""


@dataclass(frozen=True)
class MeasureJournal:
    """The measures of each generator by the place of the picture; append: writes a row."""

    out: Path
    known: Known
    append: Callable[[Row], None]
    total: int
    batch: int
    processes: Processes

    def todo(self, generator: str) -> Sequence[int]:
        """Where the batches begin that are still to be measured, of those that are this process's."""
        return self.processes.share(_unfinished(self.known[generator], self.total, self.batch))

    def add(
        self, generator: str, start: int, rows: Sequence[Measures], shown: Mapping[int, Image.Image]
    ) -> None:
        """The batch that begins at `start`: its measures, and pictures of the grid by their place in it."""
        for place, picture in shown.items():
            save_image(picture, self._picture(generator, place))
        for place, row in enumerate(rows, start):
            self.append({"generator": generator, "picture": place, **row})

    def rows(self) -> dict[str, list[Measures]]:
        """For the main process, once all have added theirs: every measure, in the order of the pictures."""
        file = self.out / "measures.jsonl"
        collect_parts(file)
        known: Known = {name: {} for name in self.known} | _read(file)
        jsonl.write_objects(file, _lines(known))
        return {name: [row for _, row in sorted(rows.items())] for name, rows in known.items()}

    def shown(self, generator: str, count: int) -> list[Image.Image]:
        """The first `count` pictures of the grid."""
        return [load_image(self._picture(generator, place)) for place in range(count)]

    def _picture(self, generator: str, place: int) -> Path:
        number = list(self.known).index(generator)  # a name may be no file's name
        return self.out / "pictures" / f"{number}-{place}.png"


def _read(file: Path) -> Known:
    known: Known = {}
    for row in jsonl.read_objects(file) if file.stat().st_size else ():
        measures = {key: value for key, value in row.items() if key not in _PLACE}
        known.setdefault(row["generator"], {})[row["picture"]] = measures
    return known


def _lines(known: Known) -> Iterator[Row]:
    for name, rows in known.items():
        for place, row in sorted(rows.items()):
            yield {"generator": name, "picture": place, **row}


def _unfinished(rows: Mapping[int, Row], total: int, batch: int) -> list[int]:
    """Where batches begin that are not there whole."""
    return [
        start
        for start in range(0, total, batch)
        if any(place not in rows for place in range(start, min(start + batch, total)))
    ]
