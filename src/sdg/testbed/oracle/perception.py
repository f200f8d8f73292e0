"""Everything seen in a picture, before the prompt is held against it: background, objects, word, flaws.

Objects whose shape cannot be told are kept as malformed ones: something of that colour is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from sdg.testbed.oracle.finding import Found, find_objects, footprint
from sdg.testbed.oracle.flaws import Flaw, find_flaws
from sdg.testbed.oracle.pixels import COLOUR_NAMES, Floats, Pixels, look
from sdg.testbed.oracle.residuals import residual
from sdg.testbed.oracle.writing import Word, read_word
from sdg.testbed.world.boxes import Box, area, mask_box, union
from sdg.testbed.world.scene import Request

_HOPELESS: Final = 0.42
_UNCLEAR: Final = 0.26
"""Mismatch from which an object is malformed: in any case, and where another shape fits nearly as well."""
_RIVAL: Final = 0.8
_TINY: Final = 10.0
_TINY_MISMATCH: Final = 0.18
"""Radius under which, and mismatch from which, an object is malformed: level core draws none so small."""
_DEFORMING: Final = ("warp", "broken edge", "missing chunk", "stray mark")
_RUINED: Final = 0.5
"""Area of its deforming flaws, as a share of its own, from which an object is malformed."""
_BLOB_AREA: Final = 110
_BLOB_HUE: Final = 0.5
"""Least area, and least share in one colour, of stray pixels that are a blob rather than a mark."""
_TANGLED: Final = 0.25
"""The same for two malformed objects, which then make one tangle."""
_SWALLOWED: Final = 0.5
"""Share of an artifact's box inside a malformed object from which it is part of what is wrong there."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One object: its colour, its shape (None: malformed), tight pixel box, centre (x, y) and radius."""

    colour: str
    shape: str | None
    box: Box
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class SeenArtifact:
    """One flaw of the picture: subtype, pixel box, the object it is on (index into `seen`, −1 for none).

    change: mean difference over its pixels, 0..255. colour: what seeped into the object ("": no colour of
    the palette), None where nothing did.
    """

    subtype: str
    box: Box
    target: int
    change: float
    colour: str | None = None


@dataclass(frozen=True, slots=True)
class Perception:
    """A picture as seen: its background and the share of pixels that show it, objects, artifacts, word."""

    background: str
    support: float
    seen: tuple[Seen, ...]
    artifacts: tuple[SeenArtifact, ...]
    word: Word | None = None


def perceive(picture: Floats, request: Request) -> Perception:
    """See what a (128, 128, 3) float32 picture shows. The request only settles what the pixels leave open."""
    pixels = look(picture)
    found = find_objects(pixels, _asked(request))
    word = read_word(pixels, found, request.word)
    flaws = find_flaws(pixels, found, residual(pixels, found, word))
    ruined = [_is_malformed(item, [f for f in flaws if f.target == i]) for i, item in enumerate(found)]
    seen = [_seen(item, hopeless) for item, hopeless in zip(found, ruined, strict=True)]
    artifacts = [
        SeenArtifact("malformed object", item.box, index, _change(flaws, index))
        for index, item in enumerate(found)
        if ruined[index]
    ]
    artifacts += [_artifact(pixels, flaw, seen) for flaw in flaws]
    if word is not None and word.garbled is not None:
        artifacts.append(SeenArtifact("garbled letters", word.box, -1, word.garbled))
    return Perception(pixels.background, pixels.support, tuple(seen), tuple(_distinct(artifacts)), word)


def _is_malformed(item: Found, flaws: Sequence[Flaw]) -> bool:
    """Whether an object has no shape that anybody would name.

    Either no shape fits, or two fit equally badly, or it is too small for its fit to mean much, or most of
    what would be the object is not as it should be.
    """
    if item.mismatch > _HOPELESS or (item.mismatch > _UNCLEAR and item.mismatch > _RIVAL * item.runner_up):
        return True
    if item.thing.radius < _TINY and item.mismatch > _TINY_MISMATCH:
        return True
    area = int(np.count_nonzero(footprint(item.thing)))
    wrong = sum(int(np.count_nonzero(flaw.region.mask)) for flaw in flaws if flaw.subtype in _DEFORMING)
    return item.mismatch > _TINY_MISMATCH and wrong > _RUINED * area


def _change(flaws: Sequence[Flaw], target: int) -> float:
    return max((flaw.change for flaw in flaws if flaw.target == target), default=60.0)


def _distinct(artifacts: Sequence[SeenArtifact]) -> list[SeenArtifact]:
    """Artifacts without those that lie mostly inside another: malformed objects first, then larger boxes."""
    kept: list[SeenArtifact] = []
    for item in sorted(artifacts, key=lambda a: (a.subtype != "malformed object", -area(a.box))):
        for place, other in enumerate(kept):
            if other.subtype != "malformed object":
                continue
            if _share(item.box, other.box) >= _SWALLOWED:
                break
            tangled = item.subtype == "malformed object" and _share(item.box, other.box) >= _TANGLED
            # What is bent around a malformed object belongs to it.
            if tangled or (item.subtype == "warp" and _share(other.box, item.box) >= _SWALLOWED):
                kept[place] = replace(other, box=union((item.box, other.box)))
                break
        else:
            kept.append(item)
    return kept


def _asked(request: Request) -> Mapping[str, Sequence[str]]:
    shapes: dict[str, list[str]] = {}
    for group in request.groups:
        shapes.setdefault(group.colour, []).append(group.shape)
    return shapes


def _seen(item: Found, malformed: bool) -> Seen:
    thing = item.thing
    box = mask_box(footprint(thing))
    if malformed or box is None:
        return Seen(thing.colour, None, item.box, *_centre(item.box), thing.radius)
    return Seen(thing.colour, thing.shape, box, thing.x, thing.y, thing.radius)


def _artifact(pixels: Pixels, flaw: Flaw, seen: list[Seen]) -> SeenArtifact:
    """A flaw as an artifact; a blob large enough to be meant as an object is seen as a malformed one."""
    if flaw.subtype != "stray mark":
        return SeenArtifact(flaw.subtype, flaw.box, flaw.target, flaw.change, flaw.foreign)
    area = np.count_nonzero(flaw.region.mask)
    shown = pixels.colour[flaw.region.mask]
    counts = np.bincount(shown[shown >= 0], minlength=len(COLOUR_NAMES))
    if area < _BLOB_AREA or counts.max() < _BLOB_HUE * area:
        return SeenArtifact(flaw.subtype, flaw.box, -1, flaw.change)
    colour = COLOUR_NAMES[int(counts.argmax())]
    seen.append(Seen(colour, None, flaw.box, *_centre(flaw.box), float(np.sqrt(area / np.pi))))
    return SeenArtifact("malformed object", flaw.box, len(seen) - 1, flaw.change)


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _share(box: Box, body: Box) -> float:
    """Share of a box that lies in another."""
    width = min(box[2], body[2]) - max(box[0], body[0])
    height = min(box[3], body[3]) - max(box[1], body[1])
    return max(width, 0) * max(height, 0) / area(box)
