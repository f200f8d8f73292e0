"""The gallery: one card a picture, with boxes, reasons, and what the page's filters go by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from sdg.defects import BOX_SCALE, Defect, DefectType, Diagnosis, Status, Tier
from sdg.io.paths import data_path
from sdg.records import Record
from sdg.reporting.thumbnails import Shown, Source, default_side, prepared, show

UNKNOWN_TIER: Final = "not rated"
TAG: Final = 48, 44  # of a box's number, in units of the drawing

_VERDICTS: Final = {
    Status.FAILED: "no answer",
    Status.UNPARSEABLE: "answer could not be read",
    Status.TRUNCATED: "answer cut off",
    Status.REPAIRED: "answer repaired",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of a gallery: its name, its prompt, and what was found; diagnosis None is not annotated."""

    name: str
    prompt: str
    diagnosis: Diagnosis | None = None
    generator: str | None = None
    picture: Source | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A defect's rectangle on a drawing 1000 units wide, and where its number stands."""

    number: int
    type: str
    x: float
    y: float
    width: float
    height: float
    label: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Card:
    """An entry with its picture: what one card of the page shows."""

    entry: Entry
    shown: Shown
    boxes: tuple[Box, ...]
    tiers: tuple[str, ...]  # one a defect
    state: str
    verdict: str

    @property
    def defects(self) -> tuple[Defect, ...]:
        """The defects, in their order."""
        return () if self.entry.diagnosis is None else self.entry.diagnosis.defects


@dataclass(frozen=True, slots=True)
class Gallery:
    """A section of cards. note: one sentence shown under the title."""

    kind: ClassVar[str] = "gallery"

    entries: Sequence[Entry]
    title: str = "Pictures"
    note: str = ""

    def cards(self, side: int | None = None) -> Iterator[Card]:
        """The cards in order, each picture's longer side at most `side` pixels, made as they are written."""
        side = side or default_side(len(self.entries))
        return prepared(partial(make_card, side=side), self.entries)

    @property
    def summary(self) -> tuple[tuple[str, str], ...]:
        """(number, what it counts), for the line above the cards."""
        known = [e.diagnosis for e in self.entries if e.diagnosis and e.diagnosis.is_informative]
        found = Counter(defect.type for diagnosis in known for defect in diagnosis.defects)
        facts = [(len(self.entries), "picture", "pictures")]
        facts += [(sum(diagnosis.is_clean for diagnosis in known), "clean", "clean")]
        facts += [(found[kind], kind.value, f"{kind.value}s") for kind in DefectType]
        if unknown := len(self.entries) - len(known):
            facts.append((unknown, "without a diagnosis", "without a diagnosis"))
        return tuple((f"{count:,}", one if count == 1 else many) for count, one, many in facts)

    @property
    def filters(self) -> tuple[tuple[str, str, tuple[tuple[str, int], ...]], ...]:
        """(key, label, (value, pictures that have it)) of each filter that would tell pictures apart."""
        states = Counter(_state(entry.diagnosis) for entry in self.entries)
        generators = Counter(entry.generator for entry in self.entries if entry.generator)
        kinds: Counter[str] = Counter()
        tiers: Counter[str] = Counter()
        for entry in self.entries:
            defects = entry.diagnosis.defects if entry.diagnosis else ()
            kinds.update({defect.type.value for defect in defects})
            tiers.update({tier_name(defect) for defect in defects})
        ordered = [
            ("type", "Type", [kind.value for kind in DefectType], kinds),
            ("tier", "Importance", [*(tier.value for tier in Tier), UNKNOWN_TIER], tiers),
            ("generator", "Generator", sorted(generators), generators),
            ("status", "Status", sorted(states), states),
        ]
        return tuple(
            (key, label, tuple((value, counts[value]) for value in values if counts[value]))
            for key, label, values, counts in ordered
            if counts and not (key == "generator" and len(counts) < 2)
        )


def entries_of(
    records: Iterable[Record], images: Path | Mapping[str, Path] | None, *, allow_outside: bool = False
) -> list[Entry]:
    """An entry for each record; images: the folder that their paths are relative to, None for no pictures.

    Where the files have other names than the records say, images is the file of each record's path.

    Raises SdgError where a path leads out of that folder and is not allowed to (allow_outside).
    """

    def picture(path: str) -> Path | None:
        if isinstance(images, Mapping):
            return images[path]
        return None if images is None else data_path(path, images, allow_outside=allow_outside)

    return [Entry(r.filepath, r.prompt, r.diagnosis, r.generator, picture(r.filepath)) for r in records]


def make_card(entry: Entry, side: int) -> Card:
    """The card of one entry; reads its picture."""
    shown = show(entry.picture, side)
    defects = entry.diagnosis.defects if entry.diagnosis else ()
    return Card(
        entry,
        shown,
        boxes_of(defects, shown),
        tuple(map(tier_name, defects)),
        _state(entry.diagnosis),
        verdict_of(entry.diagnosis),
    )


def boxes_of(defects: Sequence[Defect], shown: Shown) -> tuple[Box, ...]:
    """The boxes on the drawing over a picture, large ones first, so that small ones stay on top."""
    across, down = (length / BOX_SCALE for length in shown.frame)
    boxes = []
    for number, defect in enumerate(defects, 1):
        x0, y0, x1, y1 = defect.box
        # A number inside a small box would hide what it is about, so it stands on top of it.
        left = min(x0 * across, 1000 - TAG[0])
        top = y0 * down - TAG[1] if y0 * down >= TAG[1] else 0.0
        boxes.append(
            Box(
                number,
                defect.type.value,
                round(x0 * across, 1),
                round(y0 * down, 1),
                round((x1 - x0) * across, 1),
                round((y1 - y0) * down, 1),
                (round(left, 1), round(top, 1)),
            )
        )
    return tuple(sorted(boxes, key=lambda box: -box.width * box.height))


def tier_name(defect: Defect) -> str:
    """The tier in words."""
    return UNKNOWN_TIER if defect.tier is None else defect.tier.value


def _state(diagnosis: Diagnosis | None) -> str:
    """What the status filter goes by: a status, or "clean" and "defects" for an answer without trouble."""
    if diagnosis is None:
        return "not annotated"
    if diagnosis.status is not Status.OK:
        return diagnosis.status.value
    return "defects" if diagnosis.defects else "clean"


def verdict_of(diagnosis: Diagnosis | None) -> str:
    """How many defects there are and how the answer was read, in a few words."""
    if diagnosis is None:
        return "not annotated"
    words = [_VERDICTS[diagnosis.status]] if diagnosis.status in _VERDICTS else []
    count = len(diagnosis.defects)
    if count:
        words.insert(0, f"{count} defect{'' if count == 1 else 's'}")
    elif diagnosis.is_clean:
        words.insert(0, "no defects")
    return " · ".join(words)
