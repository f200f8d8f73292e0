"""Reasons of 8–25 words with concrete evidence: which object, where, what is seen and what was asked for.

Every subtype has several wordings; a slot in braces is filled from `lexicon`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sdg.testbed.injection.artifacts import Artifact
from sdg.testbed.injection.reading import Misalignment
from sdg.testbed.world.boxes import Box
from sdg.testbed.world.prompts import (
    RELATION_WORDS,
    counted,
    direction,
    listed,
    noun,
    number,
    place,
    plural,
    side,
    with_article,
)
from sdg.testbed.world.scene import CANVAS, OPPOSITE, Request, Scene

MISALIGNMENT_REASONS: Final[dict[str, tuple[str, ...]]] = {
    "missing object": (
        "The caption asks for {wanted}, but none can be seen anywhere in the picture.",
        "No {noun} can be found in the whole picture, although the caption asks for {wanted}.",
        "The picture lacks the {noun} from the caption; nothing of this colour and shape is drawn.",
        "There should be {wanted} according to the caption, yet no such thing was drawn.",
    ),
    "missing object beside": (
        "The caption puts {wanted} {relation} the {anchor}, but nothing of the kind is drawn there.",
        "No {noun} can be seen {relation} the {anchor}, although the caption asks for {wanted} there.",
        "There should be {wanted} {relation} the {anchor}, yet this part of the picture has none.",
        "The area {relation} the {anchor} lacks the {noun} that the caption asks for.",
    ),
    "wrong count": (
        "The picture has {found} instead of {asked_number}, {difference}.",
        "The caption asks for {wanted}, but the picture shows {found}, {difference}.",
        "There should be {wanted} according to the caption, yet {found} can be counted, {difference}.",
        "The number of {plural} is wrong: the picture has {found} instead of {asked_number}.",
        "Counting the {plural} gives {found_number}, but the caption asks for {asked_number}: {difference}.",
    ),
    "wrong colour": (
        "The {seen} {place} should be {colour}, because the caption asks for {wanted}.",
        "The caption asks for {wanted}, but the {shape} {place} is {seen_colour} instead of {colour}.",
        "This {shape} {place} was drawn in {seen_colour}, while the caption wants the colour {colour}.",
        "The {shape} {place} has the wrong colour: it is {seen_colour}, not {colour} as asked.",
    ),
    "wrong shape": (
        "The {seen} {place} should be a {colour} {shape}, because the caption asks for {wanted}.",
        "The caption asks for {wanted}, but the {colour} object {place} is a {seen_shape}, not a {shape}.",
        "This {colour} object {place} was drawn as a {seen_shape}, while the caption wants a {shape}.",
        "The {colour} object {place} has the wrong shape: it is a {seen_shape} instead of a {shape}.",
    ),
    "extra object": (
        "The caption names only {content}, not the {seen} {place}.",
        "Nothing in the caption calls for the {seen} that was drawn {place}.",
        "There is {a_seen} {place}, but the caption has no such object.",
        "An extra object, the {seen} {place}, was added although the caption does not name it.",
    ),
    "wrong relation": (
        "The caption puts the {first} {relation} the {second}, but it lies {actual} it.",
        "The {first} should be {relation} the {second}, yet it was drawn {actual} it.",
        "The {first} is {actual} the {second}, although the caption asks for it to be {relation} it.",
        "Their positions are wrong: the {first} lies {actual} the {second} instead of {relation} it.",
    ),
    "wrong size": (
        "The {seen} {place} was drawn {shown_size}, while the caption asks for a {asked_size} one.",
        "The caption asks for a {asked_size} {seen}, but the one {place} is {shown_size}.",
    ),
    "wrong text": (
        "The written word reads {shown_word}, while the caption asks for the word {asked_word}.",
        "The caption asks for the word {asked_word}, but the picture says {shown_word} instead.",
    ),
}

ARTIFACT_REASONS: Final[dict[str, tuple[str, ...]]] = {
    "smear": (
        "The {object} {place} is smeared at its {side} into a streak.",
        "The {side} of the {object} {place} is dragged out into a blurred {colour} streak.",
        "A blurred streak of {colour} runs from the {side} of the {object} {place} and fades out.",
        "The {object} {place} is smeared at its {side}, where the surface melts into lines.",
        "At its {side}, the {object} {place} loses its sharp outline and is smeared in one direction.",
    ),
    "missing chunk": (
        "The {object} {place} has a ragged hole at its {side}.",
        "A ragged piece is missing from the {side} of the {object} {place}.",
        "The {side} of the {object} {place} has a hole through which the {background} background shows.",
        "The {object} {place} looks bitten: a chunk of its {side} is gone.",
        "Part of the {object} {place} was not drawn, leaving a gap at its {side}.",
    ),
    "noise texture": (
        "Speckled noise hides the {side} of the {object} {place}.",
        "Coarse coloured noise covers the {side} of the {object} {place} like a broken texture.",
        "The {side} of the {object} {place} is covered with random coloured dots instead of smooth {colour}.",
        "Random coloured dots lie like dust over the {side} of the {object} {place}.",
        "The {object} {place} has a noisy texture at its {side}, where the surface should be smooth.",
    ),
    "noise texture on background": (
        "A patch of coarse coloured noise breaks the plain {background} background {place}.",
        "The {background} background has a blotch of random coloured dots {place} instead of being smooth.",
    ),
    "ghost copy": (
        "A pale double of the {object} {place} shows at its {side}.",
        "A faint second copy of the {object} {place} shows through beside its {side}.",
        "The {object} {place} appears twice: a pale copy of it sticks out at its {side}.",
        "A see-through {colour} shape repeats the {object} {place} at its {side}.",
        "Behind the {object} {place} there is a pale double of it, moved to its {side}.",
    ),
    "warp": (
        "The {object} {place} is bent and wavy at its {side}.",
        "The {side} of the {object} {place} is bent, so its outline is no true {shape}.",
        "The {object} {place} is twisted out of shape at its {side}.",
        "The outline of the {object} {place} ripples at its {side} instead of being clean.",
        "At its {side}, the {object} {place} is warped and no longer a regular {shape}.",
    ),
    "broken edge": (
        "The {object} {place} has a torn edge at its {side}.",
        "The outline of the {object} {place} is torn into small teeth at its {side}.",
        "The edge of the {object} {place} is jagged and broken at its {side}.",
        "At its {side}, the edge of the {object} {place} falls into pieces and loose pixels.",
        "The {side} of the {object} {place} has a frayed edge instead of a clean outline.",
    ),
    "colour bleeding": (
        "The {object} {place} bleeds {colour} over its outline.",
        "The {colour} of the {object} {place} leaks past its {side} into the {background} background.",
        "A soft {colour} stain spreads from the {side} of the {object} {place} into the background.",
        "At its {side}, the {object} {place} bleeds {colour} over its outline.",
        "The background beside the {side} of the {object} {place} is stained with its {colour}.",
    ),
    "colour bleeding inwards": (
        "A {foreign} stain seeps into the {side} of the {object} {place}.",
        "The {side} of the {object} {place} turns {foreign}, as if another colour had leaked in.",
        "Some {foreign} bleeds over the {side} of the {object} {place}, which should be all {colour}.",
    ),
    "garbled letters": (
        "The letters of the written word {place} are flipped and mixed up, so nobody can read it.",
        "The text {place} is garbled: its letters are turned and broken instead of clear.",
    ),
    "wrong shadow": (
        "The shadow of the {object} {place} falls towards the light, to its {side}.",
        "The {object} {place} has a shadow at its {side}, on the side the light comes from.",
    ),
}


def misalignment_reason(
    rng: np.random.Generator,
    request: Request,
    scene: Scene,
    boxes: list[Box],
    size: int,
    found: Misalignment,
    shortest: int | None = None,
) -> str:
    """Say what is seen and what was asked for, in one of the `shortest` wordings (all of them if None).

    boxes: pixel box of each object of the scene.
    """
    name, slots = found.subtype, _misalignment_slots(request, scene, boxes, size, found)
    if name == "missing object" and "anchor" in slots:
        name = "missing object beside"
    return _fill(rng, MISALIGNMENT_REASONS[name], slots, shortest)


def artifact_reason(
    rng: np.random.Generator,
    scene: Scene,
    boxes: list[Box],
    size: int,
    found: Artifact,
    shortest: int | None = None,
) -> str:
    """Say which part of which object is wrong and how it looks, in one of the `shortest` wordings."""
    name, slots = found.subtype, {"background": scene.background}
    if found.target < 0:
        slots["place"] = place(found.centre[0] / size, found.centre[1] / size)
        if name == "noise texture":
            name = "noise texture on background"
    else:
        thing = scene.things[found.target]
        slots |= {
            "object": noun(thing.colour, thing.shape),
            "shape": thing.shape,
            "colour": thing.colour,
            "place": thing_place(boxes[found.target], size),
            "side": artifact_side(scene, size, found),
        }
        if found.colour is not None:
            name, slots["foreign"] = "colour bleeding inwards", found.colour
    return _fill(rng, ARTIFACT_REASONS[name], slots, shortest)


def thing_place(box: Box, size: int) -> str:
    """Where an object lies in the picture."""
    return place((box[0] + box[2]) / (2 * size), (box[1] + box[3]) / (2 * size))


def artifact_side(scene: Scene, size: int, found: Artifact) -> str:
    """On which side of its object an artifact lies."""
    thing = scene.things[found.target]
    scale = size / CANVAS
    reach = thing.radius * scale
    return side((found.centre[0] - thing.x * scale) / reach, (found.centre[1] - thing.y * scale) / reach)


def anchor_of(request: Request, scene: Scene, group: int) -> tuple[str, str] | None:
    """What tells where a missing group belongs: ("green cross", "left of"); None where nothing does."""
    if request.relation is None:
        return None
    others = [thing for thing in scene.things if thing.group == 1 - group]
    if not others:
        return None
    relation = request.relation if group == 0 else OPPOSITE[request.relation]
    return noun(others[0].colour, others[0].shape, len(others)), RELATION_WORDS[relation]


def _misalignment_slots(
    request: Request, scene: Scene, boxes: list[Box], size: int, found: Misalignment
) -> dict[str, str]:
    slots: dict[str, str] = {"content": listed([counted(group) for group in request.groups])}
    if found.subtype == "wrong text":
        assert request.word is not None
        assert scene.writing is not None
        return slots | {"asked_word": request.word.upper(), "shown_word": scene.writing.word}
    if found.subtype == "wrong relation":
        assert request.relation is not None
        first, second = found.things[0], found.things[-1]
        return slots | {
            "first": noun(scene.things[first].colour, scene.things[first].shape),
            "second": noun(scene.things[second].colour, scene.things[second].shape),
            "relation": RELATION_WORDS[request.relation],
            "actual": direction(boxes[first], boxes[second]),
        }
    if len(found.things) == 1:
        thing = scene.things[found.things[0]]
        seen = noun(thing.colour, thing.shape)
        slots |= {
            "seen": seen,
            "a_seen": with_article(seen),
            "seen_colour": thing.colour,
            "seen_shape": thing.shape,
            "place": thing_place(boxes[found.things[0]], size),
        }
    if found.group is None:
        return slots
    group = request.groups[found.group]
    slots |= {
        "wanted": counted(group),
        "noun": noun(group.colour, group.shape, group.count),
        "colour": group.colour,
        "shape": group.shape,
        "plural": f"{group.colour} {plural(group.shape)}",
    }
    if group.size is not None:
        slots |= {"asked_size": group.size, "shown_size": "large" if group.size == "small" else "small"}
    if found.subtype == "wrong count":
        many, off = len(found.things), len(found.things) - group.count
        slots |= {
            "found": f"{number(many)} {noun(group.colour, group.shape, many)}",
            "found_number": number(many),
            "asked_number": number(group.count),
            "difference": f"{number(abs(off))} too {'many' if off > 0 else 'few'}",
        }
    anchor = anchor_of(request, scene, found.group) if found.subtype == "missing object" else None
    if anchor is not None:
        slots["anchor"], slots["relation"] = anchor
    return slots


def _fill(
    rng: np.random.Generator, templates: tuple[str, ...], slots: dict[str, str], shortest: int | None
) -> str:
    if shortest is None:
        return templates[int(rng.integers(len(templates)))].format_map(slots)
    filled = sorted((template.format_map(slots) for template in templates), key=lambda text: text.count(" "))
    return filled[int(rng.integers(shortest))]
