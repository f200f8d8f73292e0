"""Names for what is seen: objects, counts, places in the picture and sides of an object, in plain English."""

from __future__ import annotations

from math import atan2, hypot, pi
from typing import Final

from sdg.testbed.conventions import CENTRE, EDGE
from sdg.testbed.oracle.perception import Seen
from sdg.testbed.oracle.pixels import SIDE, Box
from sdg.testbed.world.prompts import RELATION_WORDS

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
