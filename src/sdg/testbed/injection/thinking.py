"""The three-step think trace: what the caption asks for, what is seen and wrong, and where each box lies.

Terse and always in the same words, without coordinates (SDG §3.3, App. B).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

from sdg.testbed.injection.artifacts import EFFECTS, Artifact
from sdg.testbed.injection.lexicon import LEXICON, words_of
from sdg.testbed.injection.reading import Misalignment
from sdg.testbed.injection.wording import (
    ARTIFACT_REASONS,
    MISALIGNMENT_REASONS,
    anchor_of,
    artifact_side,
    thing_place,
)
from sdg.testbed.world.boxes import Box
from sdg.testbed.world.prompts import WORDS, asked, direction, noun, number, place, plural
from sdg.testbed.world.scene import BACKGROUNDS, COLOURS, SHAPES, Request, Scene

Found = Misalignment | Artifact

PHRASES: Final = (
    "Step 1: The caption asks for ",
    "Step 2: Seen from left: ",
    "nothing the word",
    "Everything fits. Misalignment: Artifact: no instead of not asked for on large small",
    "Step 3: No box. Box",
    "whole picture area pair text background",
)
"""Everything a trace says apart from the lexicon and the names of the world."""


def trace(request: Request, scene: Scene, boxes: Sequence[Box], size: int, found: Sequence[Found]) -> str:
    """The think text for the defects in their order. boxes: pixel box of each object of the scene."""
    order = sorted(range(len(boxes)), key=lambda i: (boxes[i][0] + boxes[i][2], boxes[i][1] + boxes[i][3]))
    seen = [noun(scene.things[i].colour, scene.things[i].shape) for i in order]
    if scene.writing is not None:
        seen.append(f"the word {scene.writing.word}")
    lines = [
        f"Step 1: The caption asks for {asked(request)}.",
        f"Step 2: Seen from left: {', '.join(seen) or 'nothing'}.",
    ]
    if not found:
        return "\n".join([lines[0], f"{lines[1]} Everything fits.", "Step 3: No box."])
    places = []
    for defect in found:
        if isinstance(defect, Misalignment):
            lines.append(f"Misalignment: {_contradiction(request, scene, boxes, defect)}.")
            places.append(_region(request, scene, boxes, size, defect))
        else:
            lines.append(f"Artifact: {_flaw(scene, defect)}.")
            places.append(_spot(scene, boxes, size, defect))
    return "\n".join([*lines, "Step 3:", *(f"Box {n}: {where}." for n, where in enumerate(places, start=1))])


def _contradiction(request: Request, scene: Scene, boxes: Sequence[Box], found: Misalignment) -> str:
    if found.subtype == "wrong relation":
        first, second = found.things[0], found.things[-1]
        names = [noun(scene.things[i].colour, scene.things[i].shape) for i in (first, second)]
        return f"{names[0]} {direction(boxes[first], boxes[second])} {names[1]}"
    if found.subtype == "wrong text":
        assert request.word is not None
        assert scene.writing is not None
        return f"the word {scene.writing.word} instead of {request.word.upper()}"
    if found.subtype == "extra object":
        thing = scene.things[found.things[0]]
        return f"{noun(thing.colour, thing.shape)} not asked for"
    assert found.group is not None
    group = request.groups[found.group]
    if found.subtype == "missing object":
        return f"no {noun(group.colour, group.shape)}"
    if found.subtype == "wrong count":
        many = len(found.things)
        return f"{number(many)} {noun(group.colour, group.shape, many)} instead of {number(group.count)}"
    thing = scene.things[found.things[0]]
    if found.subtype == "wrong size":
        shown = "large" if group.size == "small" else "small"
        return f"{shown} {noun(thing.colour, thing.shape)} instead of {group.size}"
    wanted = group.colour if found.subtype == "wrong colour" else group.shape
    return f"{noun(thing.colour, thing.shape)} instead of {wanted}"


def _flaw(scene: Scene, found: Artifact) -> str:
    if found.subtype == "garbled letters":
        return found.subtype
    if found.target < 0:
        return f"{found.subtype} on background"
    thing = scene.things[found.target]
    return f"{found.subtype} on {noun(thing.colour, thing.shape)}"


def _region(request: Request, scene: Scene, boxes: Sequence[Box], size: int, found: Misalignment) -> str:
    if found.subtype == "wrong text":
        return "text"
    if found.subtype == "wrong relation":
        return "pair"
    if found.subtype == "missing object":
        assert found.group is not None
        anchor = anchor_of(request, scene, found.group)
        if anchor is None:
            return "whole picture"
        words, relation = anchor
        return f"area {relation} {words}"
    thing = scene.things[found.things[0]]
    if found.subtype == "wrong count":
        return noun(thing.colour, thing.shape, len(found.things))
    return f"{noun(thing.colour, thing.shape)} {_short(thing_place(boxes[found.things[0]], size))}"


def _spot(scene: Scene, boxes: Sequence[Box], size: int, found: Artifact) -> str:
    if found.target < 0:
        what = "text" if found.subtype == "garbled letters" else "background"
        return f"{what} {_short(place(found.centre[0] / size, found.centre[1] / size))}"
    thing = scene.things[found.target]
    where = _short(thing_place(boxes[found.target], size))
    side = artifact_side(scene, size, found).removesuffix(" side")
    return f"{noun(thing.colour, thing.shape)} {where}, {side}"


def _short(where: str) -> str:
    """ "at the top left" -> "top left"."""
    return where.split(" the ")[1]


_CAPTIONS = (
    "to the left of right of left above over below under placed sitting one with the word on background",
    "a an picture image of drawing",
)


def vocabulary() -> tuple[str, ...]:
    """The words of reasons, think traces and captions of both levels, sorted; capitals make another word."""
    world = {*COLOURS, *SHAPES, *BACKGROUNDS, *map(plural, SHAPES), *(word.upper() for word in WORDS)}
    templates = chain.from_iterable((*MISALIGNMENT_REASONS.values(), *ARTIFACT_REASONS.values()))
    subtypes = words_of(EFFECTS)  # the traces name artifacts by their subtype
    captions = words_of(_CAPTIONS) | LEXICON | {"many", "too", "few"}  # "one too many"
    # A caption may begin with any of its words.
    openings = {word.capitalize() for word in ("a", "an", "on", "one", "two", "three", "four", "five", "six")}
    return tuple(sorted(world | words_of(templates) | subtypes | words_of(PHRASES) | captions | openings))
