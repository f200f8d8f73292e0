"""What a teacher's answer has to be before any of it is kept (SDG App. B).

Boxes, labels and their number are as given; what it wrote is English, long enough, and gives nothing away.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sdg.defects import Defect, DefectType, Diagnosis, Status, importance_tier
from sdg.errors import quoted
from sdg.prompting.teaching import Question
from sdg.prompting.wording import step_lines
from sdg.response import format_fault, parse_response
from sdg.response import grammar as g

MOST_TRACE_WORDS: Final = 1000
ENOUGH_WORDS: Final = 12
"""Words that say reliably which language they are."""

_HARMLESS: Final = frozenset(
    {
        g.CODE_FENCE,
        g.OUTSIDE_TEXT,
        g.TAG_SPELLING,
        g.MISSING_ANSWER,
        g.UNCLOSED_ANSWER,
        g.LOOSE_JSON,
        g.WRAPPED_LIST,
        g.MISSING_LIST,
        g.KEY_ALIAS,
        g.NUMBER_AS_TEXT,
        g.ROUNDED_BOX,
        g.LABEL_SPELLING,
        g.STRAY_TAG,
    }
)
"""Repairs of the packing alone. Boxes are compared once they are read, and written as they were given."""

_ANNOTATION: Final = re.compile(
    r"\b(?:annotat\w+|ground[- ]truth|box_2d|bbox(?:es)?|json"
    r"|(?:given|provided|supplied|listed|marked|labell?ed|known)\s+"
    r"(?:as\s+an?\s+(?:artifact|misalignment)|bounding\s+box(?:es)?|box(?:es)?|defects?|labels?|notes?"
    r"|reasons?|descriptions?|list|regions?)"
    r"|(?:the|short|human)\s+notes?\s+(?:says?|mentions?|states?|reads?)|as\s+(?:given|listed|provided|marked))\b",
    re.IGNORECASE,
)
_COORDINATES: Final = re.compile(
    r"\bcoordinates?\b|\b[xy][0-3]?\s*[=:]\s*\d|\b[xy][0-3]\b|[\[(]\s*\d+(?:\.\d+)?(?:\s*,\s*\d+(?:\.\d+)?)+\s*[\])]"
    r"|\b\d{2,4}\s*(?:,\s+|[;×–]\s*)\d{2,4}\b|\b\d+\s*(?:px|pixels?)\b"
    r"|\b\d+(?:\.\d+)?\s*%\s*(?:from|across|down|of the (?:way|width|height))\b",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"(?<![\d.,])\d{3,4}(?![\d]|[.,]\d)")
_STEP: Final = re.compile(r"^[#*\s]*step\s*[1-3]\W*", re.IGNORECASE)
_NONE: Final = re.compile(r"\b(?:no|none|nothing|empty)\b", re.IGNORECASE)
_TYPE: Final = re.compile(r"\b(artifact|misalignment)\b", re.IGNORECASE)

IsEnglish = Callable[[str], bool]


class Unacceptable(Exception):
    """Why an answer is not kept, in a sentence for the teacher; kind: the same in a word or two, to count."""

    def __init__(self, kind: str, fault: str) -> None:
        super().__init__(fault)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Written:
    """What a teacher wrote, None for each job that was not its; reasons and importances one a defect."""

    reasons: tuple[str, ...] | None = None
    reasoning: str | None = None
    importances: tuple[int, ...] | None = None


def english_check() -> IsEnglish:
    """What tells whether a text is English."""
    import py3langid  # late: it reads its model

    return lambda text: py3langid.classify(text)[0] == "en"


def accepted(
    answer: str,
    given: Diagnosis,
    caption: str,
    question: Question,
    is_english: IsEnglish,
    *,
    cut_off: bool = False,
) -> Written:
    """What an answer brings; raises Unacceptable for its first fault.

    given: the defects as they were shown to the teacher. cut_off: whether the server says it ended early.
    """
    jobs = question.jobs
    text = _last_think(answer)
    found = parse_response(text, require_think="think" in jobs)
    if cut_off or found.status is Status.TRUNCATED:
        raise Unacceptable("cut off", "It was cut off before its end; write less.")
    strange = set(found.repairs) - _HARMLESS
    if found.status is Status.UNPARSEABLE or (strange and strange != {g.MISSING_THINK}):
        reason = format_fault(text, **question.profile.answer.gate()) or ", ".join(sorted(strange))
        raise Unacceptable("unreadable", reason or "No list of defects could be read.")
    _require_same(found.defects, given.defects)
    reasons = reasoning = importances = None
    if "reasons" in jobs:
        reasons = tuple(" ".join(defect.reason.split()) for defect in found.defects)
        _check_reasons(reasons, given, caption, question.words, is_english)
    if "importance" in jobs:
        importances = tuple(_importances(found.defects, text))
    if "think" in jobs:
        reasoning = found.reasoning.strip()
        _check_trace(reasoning, given, caption, is_english)
    return Written(reasons, reasoning, importances)


def _last_think(answer: str) -> str:
    """An answer from its last think block on: a model that thinks by itself has a block of its own before."""
    start = answer.rfind("<think>")
    return answer[start:] if start > 0 else answer


def _require_same(found: Sequence[Defect], given: Sequence[Defect]) -> None:
    if len(found) != len(given):
        raise Unacceptable("count", f"Defects in the answer: {len(found)}; given: {len(given)}.")
    for number, (one, wanted) in enumerate(zip(found, given, strict=True), start=1):
        if one.box != wanted.box:
            raise Unacceptable(
                "box", f"Defect {number} has the box {list(one.box)}, and {list(wanted.box)} was given."
            )
        if one.type is not wanted.type:
            raise Unacceptable(
                "label", f"Defect {number} is labelled {one.type}, and {wanted.type} was given."
            )


def _check_reasons(
    reasons: Sequence[str], given: Diagnosis, caption: str, words: tuple[int, int], is_english: IsEnglish
) -> None:
    least, most = words
    for number, reason in enumerate(reasons, start=1):
        name = f"The description of defect {number}"
        count = len(reason.split())
        if not least <= count <= most:
            raise Unacceptable("length", f"{name} has {count} words; write {least} to {most}.")
        _check_text(name, reason, given, caption, is_english)
        if reason in reasons[: number - 1]:
            raise Unacceptable("repeated", f"{name} is the same sentence as another; say what is wrong here.")


def _importances(defects: Sequence[Defect], text: str) -> Iterator[int]:
    tiers = _tiers(text)
    for number, defect in enumerate(defects, start=1):
        if defect.importance is None:
            raise Unacceptable("importance", f"Defect {number} has no importance from 1 to 100.")
        named = tiers[number - 1] if len(tiers) == len(defects) else None
        tier = importance_tier(defect.importance)
        if isinstance(named, str) and named.strip().lower() != tier:
            raise Unacceptable(
                "tier",
                f"Defect {number} has importance {defect.importance}, which is {tier}, not {quoted(named)}.",
            )
        yield defect.importance


def _tiers(text: str) -> list[object]:
    """The tier that each item names, None where it names none; nothing where the list is no plain JSON."""
    inside = text.rpartition("<answer>")[2].partition("</answer>")[0]
    try:
        items = json.loads(inside)
        return [item.get("tier") for item in items]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []


def _check_trace(trace: str, given: Diagnosis, caption: str, is_english: IsEnglish) -> None:
    steps = step_lines(trace)
    if tuple(steps) != (1, 2, 3):
        raise Unacceptable(
            "steps", "The think block needs step 1, step 2 and step 3, each under its heading."
        )
    if len(trace.split()) > MOST_TRACE_WORDS:
        raise Unacceptable("length", f"The think block has more than {MOST_TRACE_WORDS} words; write less.")
    for number, lines in steps.items():
        text = "\n".join([_STEP.sub("", lines[0]), *lines[1:]]).strip()
        if not text:
            raise Unacceptable("steps", f"Step {number} of the think block is empty.")
        _check_text(f"Step {number} of the think block", text, given, caption, is_english)
    boxes = steps[3][1:]
    if not given.defects:
        if len(boxes) > 1 or not _NONE.search("\n".join(steps[3])):
            raise Unacceptable("steps", "The picture has no defect; step 3 says only: No box.")
        return
    if len(boxes) != len(given.defects):
        raise Unacceptable(
            "steps",
            f"Lines below the heading of step 3: {len(boxes)}; boxes: {len(given.defects)}. "
            "Write one line a box and nothing else.",
        )
    for number, (line, defect) in enumerate(zip(boxes, given.defects, strict=True), start=1):
        named = {DefectType(word.lower()) for word in _TYPE.findall(line)}
        if len(named) == 1 and defect.type not in named:
            raise Unacceptable("steps", f"Line {number} of step 3 names another type than {defect.type}.")


def _check_text(name: str, text: str, given: Diagnosis, caption: str, is_english: IsEnglish) -> None:
    """What holds for everything a teacher writes. What the caption says itself may be repeated."""
    own = text.replace(caption, " ") if caption else text
    if (named := _outside(_ANNOTATION, own, caption)) is not None:
        raise Unacceptable("annotation", f"{name} says {quoted(named)}; write as if nothing had been given.")
    places = {str(coordinate) for defect in given.defects for coordinate in defect.box}
    for number in _NUMBER.findall(own):
        if number in places and number not in caption:
            raise Unacceptable("coordinates", f"{name} holds the coordinate {number}; say it in words.")
    if (named := _outside(_COORDINATES, own, caption)) is not None:
        raise Unacceptable("coordinates", f"{name} holds coordinates ({quoted(named)}); say it in words.")
    foreign = [c for c in own if c.isalpha() and not unicodedata.name(c, "").startswith("LATIN")]
    foreign = [c for c in foreign if c not in caption]
    letters = sum(c.isalpha() for c in own)
    if 10 * len(foreign) > letters or (len(own.split()) >= ENOUGH_WORDS and not is_english(own)):
        raise Unacceptable("language", f"{name} is not in English.")


def _outside(pattern: re.Pattern[str], text: str, caption: str) -> str | None:
    """The first match in a text that the caption does not hold as well."""
    low = caption.lower()
    return next((found[0] for found in pattern.finditer(text) if found[0].lower() not in low), None)
