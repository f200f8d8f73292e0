"""An alignment run in a report: learning curves from log.jsonl, and its pictures with boxes and maps.

Also a comparison that `sdg align compare` wrote: its table and its grid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, Final

from sdg.errors import SdgError
from sdg.reporting.thumbnails import Shown, show
from sdg.runs.log import read_log

# Of training, where logged: `kl` only is where the recipe has that term.
_WATCHED: Final = ("reward", "defects", "loss", "reward_std", "approx_kl", "kl", "clip_fraction")
_MOST_PICTURES: Final = 6
_WIDTH: Final = 1400  # of figures, whose maps and captions must stay legible
WIDTH: Final = 300
HEIGHT: Final = 110


@dataclass(frozen=True, slots=True)
class AlignmentRun:
    """A section on one run or comparison.

    lines: of log.jsonl. figures: (caption, file), in order. comparison: as in comparison.json, or None.
    """

    kind: ClassVar[str] = "alignment"

    lines: Sequence[Mapping[str, Any]]
    figures: Sequence[tuple[str, Path]] = ()
    comparison: Mapping[str, Any] | None = None
    title: str = "Alignment"
    note: str = ""

    def curves(self) -> Iterator[tuple[str, list[Curve]]]:
        """(heading, charts): what the monitor measured on held-out prompts, then training."""
        for heading, kind in (("Held-out prompts", "monitor"), ("Training", "train")):
            charts = list(_curves([line for line in self.lines if line.get("kind") == kind], kind))
            if charts:
                yield heading, charts

    def pictures(self) -> Iterator[tuple[str, Shown]]:
        """At most six figures, the first and the last among them."""
        last, count = len(self.figures) - 1, min(len(self.figures), _MOST_PICTURES)
        for at in sorted({round(i * last / max(count - 1, 1)) for i in range(count)}):
            caption, file = self.figures[at]
            yield caption, show(file, _WIDTH)

    def table(self) -> tuple[list[str], list[list[str]]] | None:
        """Columns and rows: mean [95 % interval] (change against base), with fewer columns than rows.

        Measures are the columns, or the generators where there are more measures than generators.
        """
        if self.comparison is None:
            return None
        cells = self.comparison["cells"]
        measures = list(next(iter(cells.values())))
        if len(measures) > len(cells):
            rows = [[measure, *(_cell(row[measure]) for row in cells.values())] for measure in measures]
            return ["measure", *cells], rows
        rows = [[name, *(_cell(row[measure]) for measure in measures)] for name, row in cells.items()]
        return ["generator", *measures], rows


def read_run(folder: str | os.PathLike[str]) -> AlignmentRun:
    """The run in a folder that `sdg align` wrote: log.jsonl, pictures/, comparison.json, grid.png.

    A last line of the log that a kill cut off is left out. Raises SdgError where the folder holds none of
    these or one is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SdgError(f"{folder} is not a folder; give one that `sdg align` wrote.")
    lines = read_log(folder)
    figures = [(_epoch(file), file) for file in sorted((folder / "pictures").glob("epoch-*.png"))]
    comparison = _comparison(folder / "comparison.json")
    if (folder / "grid.png").is_file():
        figures.append(("Base and aligned generators, same prompts and noise", folder / "grid.png"))
    if not any(line.get("kind") in ("train", "monitor") for line in lines) and comparison is None:
        raise SdgError(f"{folder} holds no alignment run: there is no log.jsonl of one, no comparison.json.")
    return AlignmentRun(lines, figures, comparison, title=f"Alignment: {folder.name}")


def _comparison(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not document["cells"]:
            raise ValueError("no generators")
        AlignmentRun((), comparison=document).table()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
        raise SdgError(f"{path} is damaged; compare again with `sdg align compare`.") from None
    return document


def _curves(lines: Sequence[Mapping[str, Any]], kind: str) -> Iterator[Curve]:
    names: Iterable[str] = _WATCHED
    if kind == "monitor":
        names = dict.fromkeys(
            name for line in lines for name in line if name not in ("kind", "step", "epoch")
        )
    for name in names:
        points = [(line.get("epoch"), _value(line.get(name))) for line in lines]
        chart = curve(name, [(epoch, value) for epoch, value in points if isinstance(epoch, int)])
        if chart is not None:
            yield chart


def _value(value: object) -> float | None:
    """A number, the mean of a list of them, None for anything else."""
    if isinstance(value, list):
        known = [item for item in value if isinstance(item, int | float)]
        return sum(known) / len(known) if known else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _epoch(file: Path) -> str:
    digits = file.stem.rpartition("-")[2]
    return f"Epoch {int(digits)}" if digits.isdecimal() else file.stem


def _cell(cell: Mapping[str, Any]) -> str:
    if cell["mean"] is None:
        return "–"
    text = number(cell["mean"])
    if cell["interval"]:
        text += f" [{number(cell['interval'][0])}, {number(cell['interval'][1])}]"
    return text + (f" ({100 * cell['change']:+.1f} %)".replace("-", "−") if cell["change"] else "")


@dataclass(frozen=True, slots=True)
class Curve:
    """A chart: dots and the line through them in a WIDTH × HEIGHT drawing, and the numbers in words."""

    name: str
    line: str  # an SVG path
    dots: tuple[tuple[float, float, str], ...]  # x, y, what it says
    low: str
    high: str
    first: str
    last: str
    span: tuple[int, int]  # first and last epoch


def curve(name: str, points: Sequence[tuple[int, float | None]]) -> Curve | None:
    """The chart of (epoch, value) pairs in order of epochs; None where fewer than one value is known."""
    known = [(epoch, value) for epoch, value in points if value is not None and isfinite(value)]
    if not known:
        return None
    low, high = min(value for _, value in known), max(value for _, value in known)
    start, end = known[0][0], known[-1][0]
    spread = (high - low) or 1.0

    def place(epoch: int, value: float) -> tuple[float, float]:
        across = (epoch - start) / (end - start) if end > start else 0.5
        up = (value - low) / spread if high > low else 0.5
        return round(8 + across * (WIDTH - 16), 1), round(HEIGHT - 8 - up * (HEIGHT - 16), 1)

    places = [place(epoch, value) for epoch, value in known]
    dots = tuple(
        (x, y, f"epoch {epoch}: {number(value)}")
        for (x, y), (epoch, value) in zip(places, known, strict=True)
    )
    line = "M" + "L".join(f"{x} {y}" for x, y in places)
    ends = number(known[0][1]), number(known[-1][1])
    return Curve(name, line, dots, number(low), number(high), *ends, (start, end))


def number(value: float) -> str:
    """Three significant digits, with a real minus sign."""
    text = f"{value:.3g}" if value else "0"
    return text.replace("-", "−")
