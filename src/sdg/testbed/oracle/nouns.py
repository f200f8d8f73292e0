"""Names for what is seen: objects, counts, places in the picture and sides of an object, in plain English."""

from __future__ import annotations

from collections.abc import Sequence
from math import atan2, hypot, pi
from typing import Final

from sdg.testbed.conventions import CENTRE, EDGE, NUMBER_WORDS, RELATION_WORDS
from sdg.testbed.oracle.flaws import Box
from sdg.testbed.oracle.perception import Seen
from sdg.testbed.oracle.pixels import SIDE
from sdg.testbed.world.scene import Group, Request

# Clockwise from the right, as angles grow where y points down.
_SIDES: Final = (
    "right side",
    "lower right side",
    "lower side",
    "lower left side",
    "left side",
    "upper left side",
    "upper side",
    "upper right side",
)


def number(count: int) -> str:
    """3 -> "three"; "many" beyond eight."""
    return NUMBER_WORDS.get(count, "many")


def plural(shape: str) -> str:
    """ "cross" -> "crosses"."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def kind(colour: str, shape: str, count: int) -> str:
    """ "red star" for one, "red stars" for any other count."""
    return f"{colour} {shape if count == 1 else plural(shape)}"


def with_article(words: str) -> str:
    """ "orange ring" -> "an orange ring"."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def counted(group: Group) -> str:
    """What a group asks for: "three small blue stars", "an orange ring"."""
    words = kind(group.colour, group.shape, group.count)
    words = f"{group.size} {words}" if group.size else words
    return with_article(words) if group.count == 1 else f"{number(group.count)} {words}"


def listed(items: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def asked_words(request: Request) -> str:
    """Everything a prompt asks for, in the same words however the prompt says it."""
    groups = [counted(group) for group in request.groups]
    words = listed(groups)
    if request.relation is not None:
        words = f"{groups[0]} {RELATION_WORDS[request.relation]} {groups[1]}"
    if request.word is not None:
        words = f"{words} with the word {request.word.upper()}"
    if request.background is not None:
        words = f"{words} on {with_article(request.background)} background"
    return words


def noun_of(item: Seen) -> str:
    """ "red ring"; "red object" where its shape cannot be told."""
    return f"{item.colour} {item.shape or 'object'}"


def place_of(box: Box) -> str:
    """Where in the picture the middle of a box lies: "at the top left", "in the middle"."""
    x, y = (box[0] + box[2]) / (2 * SIDE), (box[1] + box[3]) / (2 * SIDE)
    column = "left" if x < EDGE else "right" if x > 1 - EDGE else ""
    row = "top" if y < EDGE else "bottom" if y > 1 - EDGE else ""
    if row:
        return f"at the {row} {column}".rstrip()
    return f"on the {column}" if column else "in the middle"


def side_of(body: Seen, box: Box) -> str:
    """On which side of an object the middle of a box lies: "upper left side", or "middle"."""
    dx, dy = (box[0] + box[2]) / 2 - body.x, (box[1] + box[3]) / 2 - body.y
    if hypot(dx, dy) < CENTRE * body.radius:
        return "middle"
    return _SIDES[round(atan2(dy, dx) / (pi / 4)) % 8]


def direction(first: Box, second: Box) -> str:
    """Where the first box lies as seen from the second: "left of", "above"."""
    dx, dy = first[0] + first[2] - second[0] - second[2], first[1] + first[3] - second[1] - second[3]
    if abs(dx) >= abs(dy):
        return RELATION_WORDS["left" if dx < 0 else "right"]
    return RELATION_WORDS["above" if dy < 0 else "below"]
