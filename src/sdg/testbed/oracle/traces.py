"""The three-step think trace: what the caption asks for, what is seen and wrong, and where each box lies.

Terse, always in the same words, without coordinates (SDG §3.3, App. B).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sdg.testbed.oracle.judgement import Cast, Contradiction
from sdg.testbed.oracle.perception import Perception, SeenArtifact
from sdg.testbed.oracle.reasons import REASONS, anchor_of, noun_of, place_of, side_of
from sdg.testbed.world.prompts import asked, direction, noun, number, plural
from sdg.testbed.world.scene import Request

PHRASES: Final = (
    "Step 1: The caption asks for Step 2: Seen from left to right: nothing the word object objects malformed",
    "Everything fits. Misalignment: Artifact: no instead of not asked for large small on the background",
    "Step 3: No box. Box (misalignment): (artifact): the whole picture the area the pair the text",
    "smear missing chunk noise texture ghost copy warp broken edge colour bleeding garbled letters",
    "wrong shadow stray mark one two three four five six seven eight many too few left right of above below",
    "a an and with at the top bottom in middle side upper lower",
)
"""Everything a trace says, and a reason holds in its braces, apart from the names of the world."""


def vocabulary() -> tuple[str, ...]:
    """Texts that hold every word the oracle can say, apart from names of colours, shapes and backgrounds."""
    return (*(text for texts in REASONS.values() for text in texts), *PHRASES)


def trace(
    request: Request, view: Perception, parts: Cast, wrong: Sequence[Contradiction | SeenArtifact]
) -> str:
    """The think text for the defects in their order, without coordinates (SDG §3.3, App. B)."""
    order = sorted(view.seen, key=lambda item: (item.box[0] + item.box[2], item.box[1] + item.box[3]))
    seen = [noun_of(item) if item.shape else f"malformed {noun_of(item)}" for item in order]
    if view.word is not None:
        seen.append(f"the word {view.word.text}")
    lines = [
        f"Step 1: The caption asks for {asked(request)}.",
        f"Step 2: Seen from left to right: {', '.join(seen) or 'nothing'}.",
    ]
    if not wrong:
        return "\n".join([lines[0], f"{lines[1]} Everything fits.", "Step 3: No box."])
    boxes = []
    for count, item in enumerate(wrong, start=1):
        if isinstance(item, Contradiction):
            lines.append(f"Misalignment: {_short(request, view, item)}.")
            boxes.append(f"Box {count} (misalignment): {_region(request, view, parts, item)}.")
        else:
            lines.append(f"Artifact: {_short_flaw(view, item)}.")
            boxes.append(f"Box {count} (artifact): {_spot(view, item)}.")
    return "\n".join([*lines, "Step 3:", *boxes])


def _short(request: Request, view: Perception, item: Contradiction) -> str:
    if item.subtype == "wrong relation":
        first, second = view.seen[item.things[0]], view.seen[item.things[-1]]
        return f"{noun_of(first)} {direction(first.box, second.box)} {noun_of(second)}"
    if item.subtype == "wrong text":
        shown = f"the word {view.word.text}" if view.word else "no word"
        return f"{shown} instead of {(request.word or '').upper()}"
    if item.subtype == "wrong background":
        return f"{view.background} background instead of {request.background}"
    if item.subtype == "extra object":
        return f"{noun_of(view.seen[item.things[0]])} not asked for"
    assert item.group is not None
    group = request.groups[item.group]
    if item.subtype == "missing object":
        return f"no {noun(group.colour, group.shape, group.count)}"
    if item.subtype == "wrong count":
        many = len(item.things)
        return f"{number(many)} {noun(group.colour, group.shape, many)} instead of {number(group.count)}"
    thing = view.seen[item.things[0]]
    if item.subtype == "wrong size":
        return f"{'large' if group.size == 'small' else 'small'} {noun_of(thing)} instead of {group.size}"
    return f"{noun_of(thing)} instead of {group.colour if item.subtype == 'wrong colour' else group.shape}"


def _short_flaw(view: Perception, item: SeenArtifact) -> str:
    if item.subtype == "garbled letters":
        return item.subtype
    if item.target < 0:
        return f"{item.subtype} on the background"
    body = noun_of(view.seen[item.target])
    return f"malformed {body}" if item.subtype == "malformed object" else f"{item.subtype} on the {body}"


def _region(request: Request, view: Perception, parts: Cast, item: Contradiction) -> str:
    if item.subtype in ("wrong text", "wrong background"):
        return "the text" if item.subtype == "wrong text" and view.word else "the whole picture"
    if item.subtype == "wrong relation":
        return "the pair"
    if item.subtype == "missing object":
        assert item.group is not None
        anchor = anchor_of(request, view, parts, item.group)
        return "the whole picture" if anchor is None else f"the area {anchor[1]} the {anchor[0]}"
    thing = view.seen[item.things[0]]
    if item.subtype == "wrong count" and len(item.things) > 1:
        shape = plural(thing.shape) if thing.shape else "objects"
        return f"the {thing.colour} {shape}"
    return f"the {noun_of(thing)} {place_of(thing.box)}"


def _spot(view: Perception, item: SeenArtifact) -> str:
    if item.target < 0:
        what = "the text" if item.subtype == "garbled letters" else "the background"
        return f"{what} {place_of(item.box)}"
    body = view.seen[item.target]
    where = f"the {noun_of(body)} {place_of(body.box)}"
    return where if item.subtype == "malformed object" else f"the {side_of(body, item.box)} of {where}"
