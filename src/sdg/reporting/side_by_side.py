"""Two diagnoses of the same pictures side by side: what both found, in one colour, and what only one did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Final

from sdg.defects import UNKNOWN_IMPORTANCE, Defect, Diagnosis
from sdg.geometry import diou
from sdg.matching import same_defects
from sdg.reporting.gallery import Box, boxes_of, verdict_of
from sdg.reporting.thumbnails import Shown, Source, default_side, prepared, show

SAME: Final = 0.1
"""IoU from which two boxes of a type are one defect: the lenient one of SDG-Eval."""
_COLOURS: Final = 6  # of pairs, as report.css has them: pair-1, pair-2, …


@dataclass(frozen=True, slots=True)
class Twice:
    """One picture and both diagnoses of it; None is not known."""

    name: str
    prompt: str
    first: Diagnosis | None
    second: Diagnosis | None
    picture: Source | None = None


@dataclass(frozen=True, slots=True)
class PairRow:
    """A defect that both found, or one of them; who: in words. Its number on both pictures is its place."""

    type: str
    colour: str
    importance: int
    who: str
    reason: str


@dataclass(frozen=True, slots=True)
class TwiceCard:
    """What one card shows; boxes, verdicts: of the first and of the second."""

    name: str
    prompt: str
    shown: Shown
    boxes: tuple[tuple[Box, ...], tuple[Box, ...]]
    verdicts: tuple[str, str]
    rows: tuple[PairRow, ...]
    agrees: bool


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A section of pictures that two detectors looked at; first, second: what they are called."""

    kind: ClassVar[str] = "comparison"

    items: Sequence[Twice]
    first: str
    second: str
    title: str = "Side by side"
    note: str = ""

    def cards(self, side: int | None = None) -> Iterator[TwiceCard]:
        """The cards in order, made as they are written."""
        side = side or default_side(2 * len(self.items))
        return prepared(partial(_card, names=(self.first, self.second), side=side), self.items)

    @property
    def summary(self) -> tuple[tuple[str, str], ...]:
        """(number, what it counts)."""
        pairs, only = 0, [0, 0]
        for item in self.items:
            both = paired(item.first, item.second)
            pairs += len(both)
            only[0] += len(_defects(item.first)) - len(both)
            only[1] += len(_defects(item.second)) - len(both)
        agreeing = sum(agree(item.first, item.second) for item in self.items)
        return (
            (f"{len(self.items):,}", "picture" if len(self.items) == 1 else "pictures"),
            (f"{agreeing:,}", "where they agree"),
            (f"{pairs:,}", "found by both"),
            (f"{only[0]:,}", f"by {self.first} alone"),
            (f"{only[1]:,}", f"by {self.second} alone"),
        )


def paired(first: Diagnosis | None, second: Diagnosis | None) -> list[tuple[int, int]]:
    """Places of the defects that are the same: the optimal pairs of equal type whose IoU is at least SAME."""
    return same_defects(_defects(first), _defects(second), SAME, diou)


def agree(first: Diagnosis | None, second: Diagnosis | None) -> bool:
    """Whether both are known and each defect of one is one of the other."""
    if first is None or second is None or not (first.is_informative and second.is_informative):
        return False
    return len(paired(first, second)) == len(first.defects) == len(second.defects)


def _defects(diagnosis: Diagnosis | None) -> tuple[Defect, ...]:
    return () if diagnosis is None else diagnosis.defects


def _card(item: Twice, names: tuple[str, str], side: int) -> TwiceCard:
    shown = show(item.picture, side)
    sides = _defects(item.first), _defects(item.second)
    pairs = paired(item.first, item.second)
    rows: list[PairRow] = []
    numbers: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for at, (i, j) in enumerate(pairs):
        numbers[0][i] = numbers[1][j] = at
        a, b = sides[0][i], sides[1][j]
        who = f"both: {_weight(a)} and {_weight(b)}"
        rows.append(
            _row(a, f"pair-{at % _COLOURS + 1}", who, f"{names[0]}: {_reason(a)}\n{names[1]}: {_reason(b)}")
        )
    for which, defects in enumerate(sides):
        for place, defect in enumerate(defects):
            if place not in numbers[which]:
                numbers[which][place] = len(rows)
                rows.append(
                    _row(defect, "alone", f"{names[which]} alone: {_weight(defect)}", _reason(defect))
                )
    boxes = tuple(
        tuple(
            replace(
                box,
                number=numbers[which][box.number - 1] + 1,
                type=rows[numbers[which][box.number - 1]].colour,
            )
            for box in boxes_of(defects, shown)
        )
        for which, defects in enumerate(sides)
    )
    return TwiceCard(
        item.name,
        item.prompt,
        shown,
        (boxes[0], boxes[1]),
        (verdict_of(item.first), verdict_of(item.second)),
        tuple(rows),
        agree(item.first, item.second),
    )


def _row(defect: Defect, colour: str, who: str, reason: str) -> PairRow:
    weight = UNKNOWN_IMPORTANCE if defect.importance is None else defect.importance
    return PairRow(defect.type.value, colour, weight, who, reason)


def _weight(defect: Defect) -> str:
    return "not rated" if defect.importance is None else str(defect.importance)


def _reason(defect: Defect) -> str:
    return defect.reason or "no reason given"
