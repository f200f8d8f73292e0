"""Words for what a request asks for, always the same ones, whatever its prompt's phrasing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sdg.testbed.world.prompts import NUMBERS
from sdg.testbed.world.scene import Group, Relation, Request

RELATION_WORDS: Final[dict[Relation, str]] = {
    "left": "left of",
    "right": "right of",
    "above": "above",
    "below": "below",
}
NUMBER_WORDS: Final = {number: word for word, number in NUMBERS.items()} | {7: "seven", 8: "eight"}


def number(count: int) -> str:
    """3 -> "three"; "many" beyond eight."""
    return NUMBER_WORDS.get(count, "many")


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
    """Everything a request asks for."""
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
