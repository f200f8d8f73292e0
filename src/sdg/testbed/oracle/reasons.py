"""One sentence a defect: 8–25 words that name what is seen, where, and what the prompt wants instead.

A wording is chosen by the content alone, so that the same picture is always described in the same words.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from sdg.testbed.oracle.judgement import Cast, Contradiction
from sdg.testbed.oracle.perception import Perception, Seen, SeenArtifact
from sdg.testbed.oracle.pixels import SIDE
from sdg.testbed.world.boxes import Box
from sdg.testbed.world.prompts import (
    RELATION_WORDS,
    counted,
    direction,
    noun,
    number,
    place,
    side,
    with_article,
)
from sdg.testbed.world.scene import OPPOSITE, Request

REASONS: Final[dict[str, tuple[str, ...]]] = {
    "missing object": (
        "The caption asks for {wanted}, but nothing of this colour and shape can be seen.",
        "There should be {wanted} in the picture, but no {noun} was drawn anywhere.",
        "No {noun} can be seen in the whole picture, while the caption asks for {wanted}.",
    ),
    "missing object beside": (
        "There should be {wanted} {relation} the {anchor}, but nothing of the kind was drawn there.",
        "The caption asks for {wanted} {relation} the {anchor}, but this part of the picture has none.",
        "No {noun} can be seen {relation} the {anchor}, where the caption asks for {wanted}.",
    ),
    "wrong count": (
        "The picture shows {found}, while the caption asks for {wanted}, {difference}.",
        "There should be {wanted}, but {found} can be seen in the picture, {difference}.",
        "The caption asks for {asked_number} {plural}, but the picture has {found_number}, {difference}.",
    ),
    "wrong colour": (
        "The {shape} {place} is {seen_colour}, while the caption asks for the colour {colour}.",
        "The caption asks for {wanted}, but this {shape} {place} was drawn in {seen_colour}.",
        "The {seen} {place} has the wrong colour: it should be {colour}, not {seen_colour}.",
    ),
    "wrong shape": (
        "The {colour} object {place} is a {seen_shape}, while the caption asks for a {shape}.",
        "The caption asks for {wanted}, but the {colour} object {place} was drawn as a {seen_shape}.",
        "The {seen} {place} has the wrong shape: it should be a {shape}, not a {seen_shape}.",
    ),
    "extra object": (
        "There is {a_seen} {place}, while the caption names no such object.",
        "The {seen} {place} was drawn although nothing in the caption calls for it.",
        "The caption names no {seen}, but one was drawn {place}.",
    ),
    "wrong relation": (
        "The {first} lies {actual} the {second}, but the caption asks for it to be {relation} it.",
        "The caption puts the {first} {relation} the {second}, but it was drawn {actual} it.",
        "The {first} should be {relation} the {second}, but it is {actual} it in the picture.",
    ),
    "wrong size": (
        "The {seen} {place} is {shown_size}, while the caption asks for a {asked_size} one.",
        "The caption asks for a {asked_size} {seen}, but the one {place} was drawn {shown_size}.",
    ),
    "wrong text": (
        "The caption asks for the word {asked_word}, but the picture shows the word {shown_word}.",
        "The word in the picture is {shown_word}, while the caption asks for {asked_word}.",
    ),
    "no text": ("The caption asks for the word {asked_word}, but no word was written in the picture.",),
    "wrong background": (
        "The background is {background}, while the caption asks for {asked_background} in the whole picture.",
        "The whole background was drawn in {background}, but the caption asks for {asked_background}.",
    ),
    "smear": (
        "The {side} of the {object} {place} is smeared into a blurred {colour} streak.",
        "A {colour} streak runs from the {side} of the {object} {place} and fades out.",
        "The {object} {place} is dragged out at its {side}, where its outline melts.",
    ),
    "missing chunk": (
        "A piece of the {object} {place} is missing at its {side}, where the background shows.",
        "The {object} {place} has an uneven gap at its {side}, like a bitten piece.",
        "Part of the {side} of the {object} {place} is gone, and the background shows through.",
    ),
    "noise texture": (
        "Coarse coloured dots cover the {side} of the {object} {place} like noise.",
        "The {side} of the {object} {place} has a noisy texture instead of smooth {colour}.",
        "A patch of random noise covers the {side} of the {object} {place}.",
    ),
    "noise texture on background": (
        "A patch of coarse coloured noise covers the smooth {background} background {place}.",
        "The {background} background {place} is covered with random coloured dots.",
    ),
    "ghost copy": (
        "A pale see-through copy of the {object} {place} sticks out at its {side}.",
        "The {object} {place} has a faint double at its {side}, as if drawn twice.",
        "Behind the {side} of the {object} {place} a faint second copy can be seen.",
    ),
    "warp": (
        "The outline of the {object} {place} is bent at its {side}, like a wave.",
        "The {object} {place} is warped at its {side} and no clean {shape}.",
        "The {side} of the {object} {place} ripples and is twisted out of shape.",
    ),
    "broken edge": (
        "The edge of the {object} {place} is torn into pieces at its {side}.",
        "The {object} {place} has a jagged outline at its {side} instead of a clean edge.",
        "Small teeth and loose pixels break the outline of the {object} {place} at its {side}.",
    ),
    "colour bleeding": (
        "A soft {colour} stain leaks from the {side} of the {object} {place} into the background.",
        "The background at the {side} of the {object} {place} is stained with {colour}.",
        "The {colour} of the {object} {place} bleeds over its outline at its {side}.",
    ),
    "colour bleeding inwards": (
        "The {side} of the {object} {place} is stained {foreign} instead of {colour}.",
        "A {foreign} stain bleeds into the {side} of the {object} {place}.",
        "Another colour, {foreign}, leaks into the {side} of the {object} {place}.",
    ),
    "stain inwards": (
        "The {side} of the {object} {place} has a stain of another colour instead of {colour}.",
        "A stain of the wrong colour covers the {side} of the {object} {place}.",
    ),
    "malformed object": (
        "The {colour} object {place} is out of shape: its outline is no regular shape at all.",
        "The {colour} object {place} was drawn as an uneven patch instead of a clean shape.",
        "A {colour} object {place} has no clear outline, so nobody can name its shape.",
    ),
    "stray mark": (
        "A stray mark {place} breaks the smooth {background} background, where nothing should be drawn.",
        "An uneven patch {place} stains the {background} background, which should be plain.",
    ),
    "garbled letters": (
        "The letters of the word {place} are garbled and turned, so nobody can read it.",
        "The text {place} is broken: its letters are mixed up instead of clear.",
    ),
    "wrong shadow": (
        "The shadow of the {object} {place} falls to its {side}, towards the light.",
        "The {object} {place} throws its shadow to the wrong side, where the light comes from.",
    ),
}
"""Subtype -> wordings; slots in braces are names, places and numbers."""


def reason_contradiction(request: Request, view: Perception, parts: Cast, item: Contradiction) -> str:
    """Say what is seen against what was asked for."""
    key, slots = item.subtype, _slots(request, view, parts, item)
    if key == "missing object" and "anchor" in slots:
        key = "missing object beside"
    elif key == "wrong text" and view.word is None:
        key = "no text"
    return _fill(key, slots, item.box)


def reason_artifact(view: Perception, item: SeenArtifact) -> str:
    """Say which part of which object is wrong, and how it looks."""
    key, slots = item.subtype, {"background": view.background, "place": place_of(item.box)}
    if item.target >= 0:
        body = view.seen[item.target]
        slots |= {
            "object": noun_of(body),
            "shape": body.shape or "shape",
            "colour": body.colour,
            "place": place_of(body.box),
            "side": side_of(body, item.box),
        }
        if key == "colour bleeding" and item.colour is not None:
            key, slots["foreign"] = "colour bleeding inwards" if item.colour else "stain inwards", item.colour
    elif key == "noise texture":
        key = "noise texture on background"
    return _fill(key, slots, item.box)


def anchor_of(request: Request, view: Perception, parts: Cast, group: int) -> tuple[str, str] | None:
    """What tells where a missing group belongs: ("green cross", "left of"); None where nothing does."""
    others = parts.players(1 - group) if request.relation is not None else ()
    if not others or request.relation is None:
        return None
    relation = request.relation if group == 0 else OPPOSITE[request.relation]
    return noun_of(view.seen[others[0]]), RELATION_WORDS[relation]


def _slots(request: Request, view: Perception, parts: Cast, item: Contradiction) -> dict[str, str]:
    """Names, places and numbers for the braces of a wording."""
    slots = {
        "background": view.background,
        "asked_background": request.background or "",
        "asked_word": (request.word or "").upper(),
        "shown_word": view.word.text if view.word else "",
    }
    if item.subtype == "wrong relation":
        assert request.relation is not None
        first, second = (view.seen[parts.players(number)[0]] for number in (0, 1))
        return slots | {
            "first": noun_of(first),
            "second": noun_of(second),
            "relation": RELATION_WORDS[request.relation],
            "actual": direction(first.box, second.box),
        }
    if len(item.things) == 1:
        thing = view.seen[item.things[0]]
        slots |= {
            "seen": noun_of(thing),
            "a_seen": with_article(noun_of(thing)),
            "seen_colour": thing.colour,
            "seen_shape": thing.shape or "object",
            "place": place_of(thing.box),
        }
    if item.group is None:
        return slots
    group = request.groups[item.group]
    many, off = len(item.things), len(item.things) - group.count
    slots |= {
        "wanted": counted(group),
        "noun": noun(group.colour, group.shape, group.count),
        "colour": group.colour,
        "shape": group.shape,
        "plural": noun(group.colour, group.shape, 2),
        "asked_size": group.size or "",
        "shown_size": "large" if group.size == "small" else "small",
        "found": f"{number(many)} {noun(group.colour, group.shape, many)}",
        "found_number": number(many),
        "asked_number": number(group.count),
        "difference": f"{number(abs(off))} too {'many' if off > 0 else 'few'}",
    }
    anchor = anchor_of(request, view, parts, item.group) if item.subtype == "missing object" else None
    if anchor is not None:
        slots["anchor"], slots["relation"] = anchor
    return slots


def _fill(key: str, slots: dict[str, str], box: Box) -> str:
    wordings = REASONS[key]
    chosen = crc32(repr((key, sorted(slots.items()), box)).encode()) % len(wordings)
    return wordings[chosen].format_map(slots)


def noun_of(item: Seen) -> str:
    """ "red ring"; "red object" where its shape cannot be told."""
    return f"{item.colour} {item.shape or 'object'}"


def place_of(box: Box) -> str:
    """Where in the picture the middle of a box lies: "at the top left", "in the middle"."""
    return place((box[0] + box[2]) / (2 * SIDE), (box[1] + box[3]) / (2 * SIDE))


def side_of(body: Seen, box: Box) -> str:
    """On which side of an object the middle of a box lies: "upper left side", or "middle"."""
    dx, dy = (box[0] + box[2]) / 2 - body.x, (box[1] + box[3]) / 2 - body.y
    return side(dx / body.radius, dy / body.radius)
