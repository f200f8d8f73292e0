"""Refinement in a report: each picture before and after under one slider, with what was found in both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sdg.defects import Diagnosis
from sdg.errors import quoted
from sdg.io import jsonl
from sdg.io.paths import data_path
from sdg.reporting.gallery import Box, boxes_of, tier_name
from sdg.reporting.thumbnails import Shown, Source, default_side, prepared, show
from sdg.response.strict import read_diagnosis


@dataclass(frozen=True, slots=True)
class Refinement:
    """One picture's refinement; after is None where nothing was kept but the input.

    rounds: edits made. pixels_changed: share of all pixels, 0 to 1, None where unknown. status: in words.
    """

    name: str
    prompt: str
    before: Source | None
    after: Source | None
    found_before: Diagnosis | None = None
    found_after: Diagnosis | None = None
    rounds: int | None = None
    pixels_changed: float | None = None
    status: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a slider: a picture, its boxes, and the defects as (Defect, tier)."""

    shown: Shown
    boxes: tuple[Box, ...]
    found: Diagnosis | None

    @property
    def defects(self) -> list[tuple[Any, str]]:
        """The defects with their tiers in words."""
        return [(defect, tier_name(defect)) for defect in self.found.defects] if self.found else []


@dataclass(frozen=True, slots=True)
class Refinements:
    """A section of sliders. note: one sentence shown under the title."""

    kind: ClassVar[str] = "refinement"

    items: Sequence[Refinement]
    title: str = "Refinement"
    note: str = ""

    def pairs(self, side: int | None = None) -> Iterator[tuple[Refinement, Side, Side | None]]:
        """Each refinement with its two sides; made while they are written."""
        side = side or default_side(2 * len(self.items))
        return prepared(partial(_pair, side=side), self.items)

    @property
    def summary(self) -> tuple[tuple[str, str], ...]:
        """(number, what it counts), over the pictures whose defects are known before and after."""
        facts = [(f"{len(self.items):,}", "picture" if len(self.items) == 1 else "pictures")]
        known = [
            (item.found_before, item.found_after)
            for item in self.items
            if item.found_before is not None
            and item.found_after is not None
            and item.found_before.is_informative
            and item.found_after.is_informative
        ]
        if known:
            before, after = (sum(len(pair[at].defects) for pair in known) / len(known) for at in (0, 1))
            facts.append((f"{before:.2f} → {after:.2f}", "defects a picture"))
        changed = [item.pixels_changed for item in self.items if item.pixels_changed is not None]
        if changed:
            facts.append((f"{100 * sum(changed) / len(changed):.1f} %", "of pixels changed"))
        return tuple(facts)


def read_refinements(
    path: str | os.PathLike[str], images: Iterable[Path] = (), *, allow_outside: bool = False
) -> list[Refinement]:
    """The lines that `sdg refine` wrote; pictures are named relative to the file's folder.

    images: further folders they may lie in, such as that of the inputs; allow_outside: they may lie anywhere.
    Raises SdgError where a picture lies elsewhere, and with file, line and reason where a line is no
    refinement.
    """
    locate = partial(data_path, allow_outside=allow_outside)
    return list(
        jsonl.read_with(path, partial(_refinement, folders=(Path(path).parent, *images), locate=locate))
    )


def _pair(item: Refinement, side: int) -> tuple[Refinement, Side, Side | None]:
    before = _side(item.before, item.found_before, side)
    return item, before, None if item.after is None else _side(item.after, item.found_after, side)


def _side(source: Source | None, found: Diagnosis | None, side: int) -> Side:
    shown = show(source, side)
    return Side(shown, boxes_of(found.defects if found else (), shown), found)


def _refinement(value: Mapping[str, Any], folders: Sequence[Path], locate: Callable[..., Path]) -> Refinement:
    def text(key: str, default: str | None = "") -> str:
        found = value.get(key, default)
        if not isinstance(found, str):
            raise ValueError(f"{key!r} is missing or no text.")
        return found

    def picture(key: str) -> Path | None:
        return locate(text(key, None), *folders) if value.get(key) is not None else None

    rounds, changed = value.get("rounds"), value.get("pixels_changed")
    if not isinstance(rounds, int | list | None):
        raise ValueError(f"'rounds' is a number or a list of rounds, not {rounds!r}.")
    if not (changed is None or (isinstance(changed, int | float) and 0 <= changed <= 1)):
        raise ValueError(f"'pixels_changed' is a share from 0 to 1, not {quoted(changed)}.")
    return Refinement(
        text("id", None),
        text("prompt"),
        picture("before"),
        picture("after"),
        _diagnosis(value.get("diagnosis_before")),
        _diagnosis(value.get("diagnosis_after")),
        len(rounds) if isinstance(rounds, list) else rounds,
        changed,
        text("status"),
        ("" if value.get("error") is None else text("error")) or text("stopped"),
    )


def _diagnosis(value: Any) -> Diagnosis | None:
    return None if value is None else read_diagnosis(value)
