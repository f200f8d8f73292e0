"""Line charts as SVG paths: one measure over the epochs of a run, drawn by the page in its own colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

WIDTH: Final = 300
HEIGHT: Final = 110


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
