"""The words reasons and traces are made of: names of objects, places in the picture, sides of an object.

The vocabulary is closed, so that a tokenizer with one token a word can be small.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import hypot
from typing import Final

from sdg.testbed.conventions import CENTRE, EDGE
from sdg.testbed.world.prompts import NUMBER_WORDS, RELATION_WORDS

_PLACES: Final = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
_SIDES: Final = (
    ("upper left side", "upper side", "upper right side"),
    ("left side", "middle", "right side"),
    ("lower left side", "lower side", "lower right side"),
)


def place(x: float, y: float) -> str:
    """Where a point lies in a picture of side 1, for a sentence: "at the top left", "in the middle"."""
    return _PLACES[_third(y)][_third(x)]


def short_place(x: float, y: float) -> str:
    """The same without the preposition: "top left", "middle"."""
    return place(x, y).split(" the ")[1]


def side(dx: float, dy: float) -> str:
    """Which side of an object an offset from its centre, in radii, points to: "upper left side"."""
    length = hypot(dx, dy)
    if length < CENTRE:
        return _SIDES[1][1]
    # Eight directions: an axis counts from 22.5 degrees off the other one.
    column = 1 + (dx > 0.38 * length) - (dx < -0.38 * length)
    row = 1 + (dy > 0.38 * length) - (dy < -0.38 * length)
    return _SIDES[row][column]


def _third(position: float) -> int:
    return 0 if position < EDGE else 1 if position <= 1 - EDGE else 2


def words_of(texts: Iterable[str]) -> set[str]:
    """The words of texts, without punctuation and without template slots."""
    words: set[str] = set()
    for text in texts:
        parts = "".join(c if c.isalpha() or c in "-{}_" else " " for c in text).split()
        words.update(part for part in parts if "{" not in part)
    return words


LEXICON: Final = frozenset(
    words_of(
        [
            *NUMBER_WORDS.values(),
            *RELATION_WORDS.values(),
            *(name for row in (*_PLACES, *_SIDES) for name in row),
            "a an and with the word on background small large",
        ]
    )
)
"""Every word the functions above can put between the names of the world."""
