"""What a comparison has measured so far: on disk batch by batch, so that one that was stopped goes on.

In its folder: settings.json, measures.jsonl (one line a picture), pictures/ (those of the grid).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sdg.alignment.monitors import Measures
from sdg.errors import SdgError
from sdg.images import load_image, save_image
from sdg.io.files import read_text, write_text
from sdg.runs.log import refuse_changes


class MeasureJournal:
    """The measures of each generator, in the order of its pictures.

    generators: their names. settings: JSON of whatever the measures depend on. A batch that a kill cut off
    is drawn again as a whole, since pictures may depend on which are drawn together.
    """

    def __init__(
        self,
        out: Path,
        generators: Iterable[str],
        settings: Mapping[str, Any],
        *,
        total: int,
        batch: int,
        resume: bool,
    ) -> None:
        """total, batch: pictures of a generator. Raises SdgError where `resume` meets other settings."""
        self._file, self._pictures = out / "measures.jsonl", out / "pictures"
        self.rows: dict[str, list[Measures]] = {name: [] for name in generators}
        self._number = {name: number for number, name in enumerate(self.rows)}
        description = out / "settings.json"
        if not resume and self._file.is_file() and self._file.stat().st_size:
            raise SdgError(f"{out} holds a comparison; go on with --resume, or name another folder.")
        if resume and description.is_file():
            try:
                before = json.loads(read_text(description))
            except (ValueError, RecursionError):
                raise SdgError(f"{description} is damaged; name another folder.") from None
            refuse_changes(before, settings, free=())
            self._read(total, batch)
        write_text(description, json.dumps(settings, indent=1) + "\n")
        write_text(self._file, "".join(self._lines(name, 0, rows) for name, rows in self.rows.items()))

    def add(self, generator: str, rows: Sequence[Measures], shown: Mapping[int, Image.Image]) -> None:
        """One batch: its measures, and pictures of the grid by their place in it."""
        for place, picture in shown.items():
            save_image(picture, self._picture(generator, place))
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(self._lines(generator, len(self.rows[generator]), rows))
        self.rows[generator] += rows

    def shown(self, generator: str, count: int) -> list[Image.Image]:
        """The first `count` pictures of the grid."""
        return [load_image(self._picture(generator, place)) for place in range(count)]

    def _picture(self, generator: str, place: int) -> Path:
        return self._pictures / f"{self._number[generator]}-{place}.png"  # a name may be no file's name

    def _lines(self, generator: str, start: int, rows: Sequence[Measures]) -> str:
        return "".join(
            json.dumps({"generator": generator, "picture": picture, **row}) + "\n"
            for picture, row in enumerate(rows, start)
        )

    def _read(self, total: int, batch: int) -> None:
        for text in self._file.read_text(encoding="utf-8").splitlines() if self._file.exists() else ():
            try:
                row = json.loads(text)
            except ValueError:  # cut off
                break
            self.rows[row.pop("generator")].append(row)
            del row["picture"]
        for name, rows in self.rows.items():
            if len(rows) < total:
                self.rows[name] = rows[: len(rows) - len(rows) % batch]
