"""How far the oracle can be trusted: its diagnoses against pictures whose defects are known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from time import process_time

from numpy.typing import ArrayLike
from PIL import Image

from sdg.defects import Defect, DefectType, Diagnosis
from sdg.evaluation import Evaluation, evaluate
from sdg.geometry import iou
from sdg.matching import match
from sdg.testbed.oracle.diagnosis import diagnose

FOUND = 0.1
"""Least IoU of a matched box for a defect to count as found (SDG-Eval's lower threshold)."""


@dataclass(frozen=True, slots=True)
class SubtypeScore:
    """One subtype: how many there are, how many were found at IoU 0.1 and 0.5, and as what.

    named: of those found, how many have the same subtype; overlap: median IoU of those
    found, None where none was; alarms: predictions of this subtype that answer no true defect.
    """

    subtype: str
    type: DefectType
    true: int
    found: int
    well_found: int
    named: int
    overlap: float | None
    alarms: int


@dataclass(frozen=True, slots=True)
class Check:
    """The oracle on pictures with known defects.

    clean, called_clean: pictures without defects, and how many of them were called clean. evaluation:
    SDG-Eval. subtypes: the score of each. milliseconds: processor time a picture.
    """

    pictures: int
    clean: int
    called_clean: int
    evaluation: Evaluation
    subtypes: tuple[SubtypeScore, ...]
    milliseconds: float

    def table(self) -> str:
        """The scores by subtype as a Markdown table."""
        rows = [
            "| subtype | true | found | IoU ≥ 0.5 | named right | median IoU | false alarms |",
            "|---|---|---|---|---|---|---|",
        ]
        for s in self.subtypes:
            overlap = "–" if s.overlap is None else f"{s.overlap:.2f}"
            found, well, named = (
                _share(part, whole)
                for part, whole in ((s.found, s.true), (s.well_found, s.true), (s.named, s.found))
            )
            rows.append(f"| {s.subtype} | {s.true} | {found} | {well} | {named} | {overlap} | {s.alarms} |")
        return "\n".join(rows)


def check(cases: Iterable[tuple[Image.Image | ArrayLike, str, Diagnosis]]) -> Check:
    """Diagnose pictures, given as (image, prompt, truth), and compare."""
    truth, predicted, spent = [], [], 0.0
    for image, prompt, known in cases:
        start = process_time()
        predicted.append(diagnose(image, prompt))
        spent += process_time() - start
        truth.append(known)
    clean = [guess.is_clean for known, guess in zip(truth, predicted, strict=True) if known.is_clean]
    return Check(
        len(truth),
        len(clean),
        sum(clean),
        evaluate(truth, predicted),
        _by_subtype(truth, predicted),
        1e3 * spent / max(1, len(truth)),
    )


def _by_subtype(truth: list[Diagnosis], predicted: list[Diagnosis]) -> tuple[SubtypeScore, ...]:
    true: Counter[str] = Counter()
    named: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    overlaps: defaultdict[str, list[float]] = defaultdict(list)
    types: dict[str, DefectType] = {}
    for known, guess in zip(truth, predicted, strict=True):
        for defect in (*known.defects, *guess.defects):
            types[_name(defect)] = defect.type
        true.update(map(_name, known.defects))
        answered = set()
        for row, column, overlap in _pairs(known, guess):
            answered.add(column)
            name = _name(known.defects[row])
            overlaps[name].append(overlap)
            named[name] += name == _name(guess.defects[column])
        alarms.update(_name(d) for i, d in enumerate(guess.defects) if i not in answered)
    return tuple(
        SubtypeScore(
            name,
            types[name],
            true[name],
            len(overlaps[name]),
            sum(overlap >= 0.5 for overlap in overlaps[name]),
            named[name],
            median(overlaps[name]) if overlaps[name] else None,
            alarms[name],
        )
        for name in sorted(types, key=lambda name: (types[name] != DefectType.MISALIGNMENT, name))
    )


def _pairs(known: Diagnosis, guess: Diagnosis) -> list[tuple[int, int, float]]:
    """Matched defects of one picture (index of the true one, of the predicted one, IoU) from IoU 0.1."""
    if not known.defects or not guess.defects:
        return []
    scores = iou([d.box for d in known.defects], [d.box for d in guess.defects])
    rows, columns = match(scores, [str(d.type) for d in known.defects], [str(d.type) for d in guess.defects])
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [
        (row, column, float(scores[row, column])) for row, column in pairs if scores[row, column] >= FOUND
    ]


def _name(defect: Defect) -> str:
    return defect.subtype or str(defect.type)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
