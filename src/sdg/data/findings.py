"""What an audit looks for in a data set, one function a kind; each finding is a sentence with examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.data.splits import prompt_key
from sdg.data.statistics import KINDS, Statistics
from sdg.defects import BOX_SCALE, Defect
from sdg.errors import quoted
from sdg.geometry import iou
from sdg.records import Record
from sdg.tables import Table

FIGURE_3_KINDS: Final = dict(zip(KINDS, (0.251, 0.463, 0.054, 0.232), strict=True))
"""Share of SDG-30K's images of each kind (SDG Figure 3)."""
FIGURE_3_DEFECTS: Final = (0.35, 3.22)
"""Least and most defects an image, of a type by a generator, in SDG-30K (SDG Figure 3)."""
FIGURE_3_IMPORTANCE: Final = (31, 80)
"""The bins that most importances of SDG-30K lie in (SDG Figure 3: mostly 30–80)."""

FAR: Final = 0.15
"""A share this far from the paper's is named."""
MOST_CRITICAL: Final = 0.25
"""Share of importances above 80 from which on they are named inflated."""
MOST_SAME: Final = 0.25
"""Share of one single value among the importances from which on it is named."""
MOST_REPEATED: Final = 0.05
"""Share of defects whose reason stands elsewhere too, from which on it is named."""
SIGMAS: Final = 4.0
EFFECT: Final = 0.5
"""Standard errors, and standard deviations, by which the mean of an annotator who is named is off."""
ENOUGH: Final = 10
"""Images that an annotator or a generator must have to be compared."""
SAME_BOX: Final = 0.9
"""IoU from which on two boxes of one type on one image are one defect marked twice."""
WHOLE, TINY = 0.95, 0.0004
"""Shares of the picture's area: from the first on a box holds all of it, below the second nothing."""
MOST_SHOWN: Final = 12  # examples named for a finding

MEASURES: Final = ("defects an image", "importance", "side of a box", "words a reason")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at: what kind it is, one sentence, and the images (or texts) it is about."""

    kind: str
    text: str
    where: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"kind": self.kind, "text": self.text, "where": list(self.where)}


def shared_splits(sources: Mapping[str, Iterable[str]]) -> list[Finding]:
    """Splits that several files hold, as their records name them; sources: split -> names of its files."""
    found = []
    for split, files in sources.items():
        names = tuple(files)
        if len(names) > 1:
            text = (
                f"{len(names):,} files are looked at as one split, {quoted(split)}, which their records name."
            )
            found.append(Finding("splits", text, names[:MOST_SHOWN]))
    return found


def listed_twice(records: Sequence[tuple[str, Record]]) -> list[Finding]:
    """Images that a split lists again by the same annotator, or by nobody named; records: (split, record)."""
    counts = Counter((split, record.filepath, record.annotator) for split, record in records)
    paths = list(dict.fromkeys(path for (_, path, _), count in counts.items() if count > 1))
    if not paths:
        return []
    rows = sum(count - 1 for count in counts.values())
    text = f"Rows that repeat an image and annotator of their split: {rows:,} (images: {len(paths):,})."
    return [Finding("duplicates", text, _first(paths))]


def duplicates(groups: Sequence[Sequence[tuple[str, str]]]) -> list[Finding]:
    """Pictures that are alike; groups: (image, split) of each."""
    across = [group for group in groups if len({split for _, split in group}) > 1]
    found = []
    for kind, some, where in (("leak", across, " in several splits"), ("duplicates", groups, "")):
        if some:
            pictures = sum(map(len, some))
            text = f"Pictures that are alike{where}: {pictures:,} (groups: {len(some):,})."
            found.append(Finding(kind, text, _first([path for group in some for path, _ in group])))
    return found


def leaks(records: Sequence[tuple[str, Record]]) -> list[Finding]:
    """Prompts, however they are spaced or capitalised, that more than one split has; an empty one is none."""
    splits: defaultdict[int, dict[str, str]] = defaultdict(dict)
    prompts: dict[int, str] = {}
    for split, record in records:
        if not record.prompt.strip():
            continue
        key = prompt_key(record.prompt, 0)
        prompts.setdefault(key, record.prompt)
        splits[key].setdefault(split, record.filepath)
    leaking = {key: of for key, of in splits.items() if len(of) > 1}
    if not leaking:
        return []
    pairs = Counter(tuple(sorted(of)) for of in leaking.values())
    named = "; ".join(f"{count:,} in {' and '.join(names)}" for names, count in sorted(pairs.items()))
    examples = tuple(prompts[key] for key in list(leaking)[:MOST_SHOWN])
    return [Finding("leak", f"Prompts in several splits: {len(leaking):,} ({named}).", examples)]


def unlike_figure_3(counted: Statistics) -> list[Finding]:
    """Numbers far from those of SDG-30K."""
    said = []
    for kind, share in counted.overall.shares().items():
        theirs = FIGURE_3_KINDS[kind]
        if share is not None and abs(share - theirs) > FAR:
            said.append(f"{share:.1%} of the images are {kind}; SDG-30K has {theirs:.1%}.")
    low, high = FIGURE_3_DEFECTS
    for name, group in counted.generators.items():
        if group.images < ENOUGH:
            continue
        means = [group.defects_per_image(kind) or 0.0 for kind in ("artifact", "misalignment")]
        for kind, mean in zip(("artifacts", "misalignments"), means, strict=True):
            if not low <= mean <= high:
                said.append(f"{name} has {mean:.2f} {kind} an image; SDG-30K has {low} to {high}.")
        if means[0] < means[1]:
            said.append(f"{name} has more misalignments than artifacts; no generator of SDG-30K does.")
    return [Finding("figure 3", text) for text in said]


def odd_boxes(known: Sequence[Record], defects: Sequence[tuple[Record, Defect]]) -> list[Finding]:
    """Boxes that say nothing of where, and defects marked twice."""
    findings = []
    shares = [(record.filepath, area_share(defect)) for record, defect in defects]
    for text, low, high in (("that hold the whole picture", WHOLE, np.inf), ("below 20 × 20", 0.0, TINY)):
        paths = tuple(path for path, share in shares if low <= share < high)
        if paths:
            findings.append(Finding("boxes", f"Boxes {text}: {len(paths):,}.", _first(paths)))
    twice = tuple(record.filepath for record in known if _marked_twice(record))
    if twice:
        text = f"Images with a defect marked twice (one type, IoU from {SAME_BOX}): {len(twice):,}."
        findings.append(Finding("boxes", text, _first(twice)))
    return findings


def _marked_twice(record: Record) -> bool:
    assert record.diagnosis is not None
    for kind in ("artifact", "misalignment"):
        boxes = np.array([defect.box for defect in record.diagnosis.of_type(kind)])
        if len(boxes) > 1 and (np.triu(iou(boxes, boxes), 1) >= SAME_BOX).any():
            return True
    return False


def annotators(known: Sequence[Record]) -> tuple[Table, list[Finding]]:
    """The means of each annotator, and those that differ from everybody else's (Welch)."""
    names = sorted({record.annotator for record in known if record.annotator})
    by_name: dict[str, dict[str, list[float]]] = {name: {m: [] for m in MEASURES} for name in names}
    images = Counter(record.annotator for record in known if record.annotator)
    for record in known:
        if record.annotator and record.diagnosis is not None:
            values = by_name[record.annotator]
            values[MEASURES[0]].append(len(record.diagnosis.defects))
            for defect in record.diagnosis.defects:
                if defect.importance is not None:
                    values[MEASURES[1]].append(defect.importance)
                values[MEASURES[2]].append(area_share(defect) ** 0.5 * BOX_SCALE)
                if defect.reason:
                    values[MEASURES[3]].append(len(defect.reason.split()))
    findings = []
    odd: set[tuple[str, str]] = set()
    for name in names if len(names) > 1 else ():
        for measure in MEASURES:
            own = np.array(by_name[name][measure], float)
            rest = np.array([v for other in names if other != name for v in by_name[other][measure]], float)
            if images[name] >= ENOUGH and _differs(own, rest):
                odd.add((name, measure))
                text = f"{name} has {own.mean():.1f} {measure}, and all others {rest.mean():.1f}."
                findings.append(Finding("annotators", text))
    rows = tuple(
        (
            name,
            f"{images[name]:,}",
            *(_mean(by_name[name][m]) + ("*" if (name, m) in odd else "") for m in MEASURES),
        )
        for name in names
    )
    return Table("Annotators (* unlike the rest)", ("annotator", "images", *MEASURES), rows), findings


def _differs(own: NDArray[np.float64], rest: NDArray[np.float64]) -> bool:
    if min(len(own), len(rest)) < ENOUGH:
        return False
    difference = abs(own.mean() - rest.mean())
    error = (own.var(ddof=1) / len(own) + rest.var(ddof=1) / len(rest)) ** 0.5
    spread = rest.std(ddof=1)
    if np.isclose(own.mean(), rest.mean()):  # of all values the same
        return False
    return bool(difference > SIGMAS * error and difference > EFFECT * spread)


def repeated_reasons(defects: Sequence[tuple[Record, Defect]]) -> list[Finding]:
    """Reasons that stand in many places word for word."""
    counts = Counter(plain(defect.reason) for _, defect in defects if defect.reason)
    repeated = sum(count for count in counts.values() if count > 1)
    if repeated <= MOST_REPEATED * sum(counts.values()):
        return []
    common = tuple(f"{count} ×: {text}" for text, count in counts.most_common(MOST_SHOWN) if count > 1)
    share = repeated / sum(counts.values())
    return [Finding("reasons", f"{share:.1%} of the reasons stand elsewhere word for word.", common)]


def inflated_importance(defects: Sequence[tuple[Record, Defect]]) -> list[Finding]:
    """Importances that are too high, too far from SDG-30K's, or always the same."""
    values = np.array([d.importance for _, d in defects if d.importance is not None], int)
    if not len(values):
        return []
    low, high = FIGURE_3_IMPORTANCE
    said = []
    if (above := float(np.mean(values > high))) > MOST_CRITICAL:
        said.append(f"{above:.1%} of the importances are above {high}; in SDG-30K few are.")
    if (inside := float(np.mean((values >= low) & (values <= high)))) < 0.5:
        said.append(f"{inside:.1%} of the importances are {low} to {high}; in SDG-30K most are.")
    value, count = Counter(values.tolist()).most_common(1)[0]
    if count > MOST_SAME * len(values):
        said.append(f"{count / len(values):.1%} of the importances are {value}: rated by habit?")
    return [Finding("importance", text) for text in said]


def area_share(defect: Defect) -> float:
    """Share of the picture's area that a box covers."""
    x0, y0, x1, y1 = defect.box
    return (x1 - x0) * (y1 - y0) / BOX_SCALE**2


def _first(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))[:MOST_SHOWN]


def plain(text: str) -> str:
    """A text without regard to case and spacing."""
    return " ".join(text.casefold().split())


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f}" if len(values) else "–"
