"""What a comparison has measured so far: on disk batch by batch, so that one that was stopped goes on.

In its folder: settings.json, measures.jsonl (one line a picture), pictures/ (those of the grid).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from PIL import Image

from sdg.alignment.monitors import Measures
from sdg.images import load_image, save_image
from sdg.io import jsonl
from sdg.runs.begin import begin
from sdg.runs.journal import Row, journal

_PLACE: Final = ("generator", "picture")


@contextmanager
def measure_journal(
    out: Path,
    generators: Iterable[str],
    settings: Mapping[str, Any],
    *,
    total: int,
    batch: int,
    resume: bool,
) -> Iterator[MeasureJournal]:
    """The comparison in `out`, begun or gone on with.

    generators: their names. settings: JSON of whatever the measures depend on. total, batch: pictures of a
    generator. A batch that a kill cut off is drawn again as a whole, since pictures may depend on which are
    drawn together. Raises SdgError as `begin` does.
    """
    file = out / "measures.jsonl"
    with begin(out, out / "settings.json", settings, resume=resume, work=[file]):
        with journal(file):  # cuts off half a line
            pass
        rows: dict[str, list[Row]] = {name: [] for name in generators}
        for row in jsonl.read_objects(file) if file.stat().st_size else ():
            rows[row["generator"]].append(row)
        for name, known in rows.items():
            if len(known) < total:
                rows[name] = known[: len(known) - len(known) % batch]
        jsonl.write_objects(file, [row for known in rows.values() for row in known])
        with journal(file, batch=1) as append:
            yield MeasureJournal(out / "pictures", rows, append)


class MeasureJournal:
    """The measures of each generator, in the order of its pictures."""

    def __init__(
        self, pictures: Path, rows: Mapping[str, Sequence[Row]], append: Callable[[Row], None]
    ) -> None:
        self._pictures, self._append = pictures, append
        self._number = {name: number for number, name in enumerate(rows)}
        self.rows: dict[str, list[Measures]] = {
            name: [{key: value for key, value in row.items() if key not in _PLACE} for row in known]
            for name, known in rows.items()
        }

    def add(self, generator: str, rows: Sequence[Measures], shown: Mapping[int, Image.Image]) -> None:
        """One batch: its measures, and pictures of the grid by their place in it."""
        for place, picture in shown.items():
            save_image(picture, self._picture(generator, place))
        for row in rows:
            self._append({"generator": generator, "picture": len(self.rows[generator]), **row})
            self.rows[generator].append(row)

    def shown(self, generator: str, count: int) -> list[Image.Image]:
        """The first `count` pictures of the grid."""
        return [load_image(self._picture(generator, place)) for place in range(count)]

    def _picture(self, generator: str, place: int) -> Path:
        return self._pictures / f"{self._number[generator]}-{place}.png"  # a name may be no file's name
