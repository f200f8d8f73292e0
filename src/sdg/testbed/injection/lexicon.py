"""The words reasons and traces are made of: names of objects, places in the picture, sides of an object.

The vocabulary is closed, so that a tokenizer with one token a word can be small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import hypot
from typing import Final

from sdg.testbed.conventions import CENTRE, EDGE, NUMBER_WORDS, RELATION_WORDS
from sdg.testbed.world.scene import Group, Request

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


def number(count: int) -> str:
    """3 -> "three", up to eight."""
    return NUMBER_WORDS[count]


def plural(shape: str) -> str:
    """ "cross" -> "crosses"."""
    return shape + ("es" if shape.endswith("s") else "s")


def noun(colour: str, shape: str, count: int = 1) -> str:
    """ "red ring", or "red rings" for another count than one."""
    return f"{colour} {shape if count == 1 else plural(shape)}"


def with_article(words: str) -> str:
    """ "orange ring" -> "an orange ring"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def counted(group: Group) -> str:
    """ "three small blue stars", "an orange ring"."""
    words = noun(group.colour, group.shape, group.count)
    if group.size:
        words = f"{group.size} {words}"
    return with_article(words) if group.count == 1 else f"{number(group.count)} {words}"


def listed(items: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" and {items[-1]}"


def asked(request: Request) -> str:
    """Everything a request asks for, always in the same words whatever the caption's phrasing."""
    groups = [counted(group) for group in request.groups]
    if request.relation is not None:
        words = f"{groups[0]} {RELATION_WORDS[request.relation]} {groups[1]}"
    else:
        words = listed(groups)
    if request.word is not None:
        words += f" with the word {request.word.upper()}"
    if request.background is not None:
        words += f" on {with_article(request.background)} background"
    return words


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
