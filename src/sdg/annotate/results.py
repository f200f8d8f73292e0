"""What a person entered, as Label Studio holds it: read strictly, and every fault named for that person.

Label Studio accepts empty annotations, regions without a label, an importance of 999 and boxes outside of
the picture. Nothing of that becomes a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sdg.data.formats.label_studio import read_regions
from sdg.defects import Defect, Diagnosis
from sdg.errors import Faults, quoted, reasons

VERDICT: Final = "verdict"
COMMENT: Final = "comment"
ACCEPT: Final = "accept"
FIX: Final = "fix"
REJECT: Final = "reject"
SMALLEST: Final = 3
"""Least side of a box in thousandths of the picture: a slip of the mouse is smaller, a defect never."""
LONGEST: Final = 2000
"""Characters of a reason or a comment at most."""
MOST: Final = 100
"""Defects of a picture at most."""

_CONTROLS: Final = frozenset({"label", "reason", "importance", "subtype"})


@dataclass(frozen=True, slots=True)
class Review:
    """What a reviewer says of an annotation: accept, fix (then what they drew holds) or reject, and why."""

    verdict: str
    comment: str


def read_annotation(results: object) -> Diagnosis:
    """The defects that were drawn, an empty set for the no-problem tag alone.

    Raises ValueError (Faults for several), in words for whoever drew them.
    """
    drawn = _drawn(results)
    labelled = {
        str(one.get("id"))
        for one in drawn
        if isinstance(one.get("value"), dict) and "rectanglelabels" in one["value"]
    }
    faults = []
    for one in drawn:
        if _control(one) not in _CONTROLS:
            faults.append(
                f"Something was entered that the page does not ask for: {quoted(one.get('from_name'))}."
            )
        elif str(one.get("id")) not in labelled:
            faults.append("A box has no label; say whether it is an artifact or a misalignment.")
    try:
        defects = read_regions(drawn)
    except ValueError as error:
        raise Faults(list(dict.fromkeys([*faults, *reasons(error)]))) from None
    if defects is None:
        faults.append("No box is drawn; a picture without defects gets one box with the tag 'no problem'.")
    elif len(defects) > MOST:
        faults.append(f"There are {len(defects)} boxes; {MOST} are the most.")
    seen = set()
    for number, defect in enumerate(defects or (), start=1):
        x0, y0, x1, y1 = defect.box
        if min(x1 - x0, y1 - y0) < SMALLEST:
            faults.append(f"Region {number} is too small to be a defect; draw its box again or delete it.")
        if not defect.reason.strip():
            faults.append(f"Region {number} has no reason; say which part it is and what is wrong with it.")
        elif len(defect.reason) > LONGEST:
            faults.append(f"The reason of region {number} is longer than {LONGEST:,} characters.")
        if defect.importance is None:
            faults.append(f"Region {number} has no importance; give a whole number from 1 to 100.")
        if (defect.box, defect.type) in seen:
            faults.append(f"Region {number} is the same box as another; delete one of them.")
        seen.add((defect.box, defect.type))
    if faults:
        raise Faults(list(dict.fromkeys(faults)))
    return Diagnosis(defects or ())


def read_review(results: object, shown: Diagnosis) -> tuple[Review, Diagnosis]:
    """A reviewer's verdict on `shown`, and the defects that hold then; raises as `read_annotation`."""
    given = _drawn(results)
    verdicts = _entries(given, VERDICT, "choices")
    comment = "\n".join(_entries(given, COMMENT, "text")).strip()
    if len(verdicts) != 1 or verdicts[0] not in (ACCEPT, FIX, REJECT):
        raise ValueError(f"The review has no verdict; choose {ACCEPT}, {FIX} or {REJECT}.")
    if len(comment) > LONGEST:
        raise ValueError(f"The comment is longer than {LONGEST:,} characters.")
    review = Review(verdicts[0], comment)
    if review.verdict == REJECT:
        if not comment:
            raise ValueError(f"The verdict is {REJECT}, but no comment says why; the annotator needs it.")
        return review, shown
    drawn = read_annotation([one for one in given if _control(one) not in (VERDICT, COMMENT)])
    changed = drawn.to_dict() != shown.to_dict()
    if review.verdict == ACCEPT and changed:
        raise ValueError(f"The verdict is {ACCEPT}, but the defects were changed; choose {FIX}, or undo it.")
    if review.verdict == FIX and not changed:
        raise ValueError(f"The verdict is {FIX}, but nothing was changed; change it, or choose {ACCEPT}.")
    return review, drawn


def salvaged(results: object) -> Diagnosis:
    """As much of an annotation with faults as can be drawn again, for whoever is to mend it.

    A region that cannot be read is left out, an importance out of range is left open.
    """
    regions: dict[str, list[Any]] = {}
    for one in results if isinstance(results, list) else ():
        if isinstance(one, dict) and _control(one) in _CONTROLS:
            regions.setdefault(str(one.get("id")), []).append(one)
    defects: list[Defect] = []
    for group in list(regions.values())[:MOST]:
        for tried in (group, [one for one in group if _control(one) != "importance"]):
            try:
                defects += read_regions(tried) or ()
                break
            except ValueError:
                continue
    return Diagnosis(tuple(defects))


def _control(result: Mapping[str, Any]) -> str:
    return str(result.get("from_name"))


def _drawn(results: object) -> list[dict[str, Any]]:
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        raise ValueError("An annotation is a list of results.")
    return results


def _entries(results: Sequence[Mapping[str, Any]], control: str, key: str) -> list[str]:
    """All that was entered into a control of the whole picture."""
    found: list[str] = []
    for value in (one.get("value") for one in results if _control(one) == control):
        entries = value.get(key) if isinstance(value, dict) else None
        if isinstance(entries, str):
            entries = [entries]
        if not isinstance(entries, list) or not all(isinstance(one, str) for one in entries):
            raise ValueError(f"{quoted(value)} is no entry of {control!r}.")
        found += entries
    return found
