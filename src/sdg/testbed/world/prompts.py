"""The prompt grammar both ways: sample a Request, say it in English, and read English back; and plain words.

`parse_prompt(phrase(request, rng)) == request` for every request the grammar makes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import hypot
from typing import Final, Literal
from zlib import crc32

import numpy as np

from sdg.testbed.world.boxes import Box
from sdg.testbed.world.scene import (
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    Group,
    Level,
    Relation,
    Request,
    Size,
)

Split = Literal["train", "validation", "test"]

NUMBERS: Final = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
RELATION_WORDS: Final[dict[Relation, str]] = {
    "left": "left of",
    "right": "right of",
    "above": "above",
    "below": "below",
}
NUMBER_WORDS: Final = {number: word for word, number in NUMBERS.items()} | {7: "seven", 8: "eight"}
SIDES: Final = (
    ("upper left side", "upper side", "upper right side"),
    ("left side", "middle", "right side"),
    ("lower left side", "lower side", "lower right side"),
)
PLACES: Final = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
WORDS: Final = ("sun", "tea", "yes", "hello", "jazz", "open", "moon", "cake")
"""Words that level `rich` writes into pictures."""

_RELATION_PHRASES: Final[dict[Relation, tuple[str, ...]]] = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_PHRASE_RELATION: Final = {p: r for r, phrases in _RELATION_PHRASES.items() for p in phrases}
_PLURALS: Final = {"cross": "crosses"} | {shape: shape + "s" for shape in SHAPES if shape != "cross"}

# Content of a core prompt -> share. Counts and relations are what small generators get wrong.
_CORE_KINDS: Final = {"one": 0.14, "counted": 0.2, "related": 0.36, "pair": 0.16, "three": 0.14}


def split_of(request: Request) -> Split:
    """Split of a prompt's content: the same content is never in two splits, whatever its wording."""
    bucket = crc32(request.key.encode()) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def sample_request(rng: np.random.Generator, level: Level = "core") -> Request:
    """Draw what to ask for: 1–4 objects (`core`), up to 6 with sizes and words (`rich`)."""
    kind = str(rng.choice(list(_CORE_KINDS), p=list(_CORE_KINDS.values())))
    most = 4 if level == "core" else 6
    counts = {
        "one": [1],
        "counted": [int(rng.integers(2, most + 1))],
        "related": [1, 1],
        "pair": [int(rng.integers(1, most)), 1],
        "three": [1, 1, 1 if level == "core" else int(rng.integers(1, most - 1))],
    }[kind]
    rng.shuffle(counts)
    kinds = rng.choice(len(COLOURS) * len(SHAPES), size=len(counts), replace=False)
    names = list(COLOURS)
    groups = tuple(
        Group(count, names[int(k) // len(SHAPES)], SHAPES[int(k) % len(SHAPES)], _sample_size(rng, level))
        for count, k in zip(counts, kinds, strict=True)
    )
    relation = RELATIONS[int(rng.integers(4))] if kind == "related" else None
    background = str(rng.choice(list(BACKGROUNDS))) if rng.random() < 0.5 else None
    word = str(rng.choice(WORDS)) if level == "rich" and rng.random() < 0.4 else None
    return Request(groups, relation, background, word)


def _sample_size(rng: np.random.Generator, level: Level) -> Size | None:
    if level == "core" or rng.random() < 0.5:
        return None
    return "small" if rng.random() < 0.5 else "large"


def phrase(request: Request, rng: np.random.Generator) -> str:
    """Say a request in English, in one of several wordings."""
    groups = [_noun_phrase(group, rng) for group in request.groups]
    if request.relation is not None:
        link = str(rng.choice(_RELATION_PHRASES[request.relation]))
        verb = str(rng.choice(["", "", "placed ", "sitting "]))
        what = f"{groups[0]} {verb}{link} {groups[1]}"
    elif len(groups) == 1:
        what = groups[0]
    else:
        comma = "," if rng.random() < 0.5 and len(groups) > 2 else ""
        what = ", ".join(groups[:-1]) + f"{comma} and {groups[-1]}"
    if request.word is not None:
        what += f' with the word "{request.word.upper()}"'
    opening = str(rng.choice(["", "", "a picture of ", "an image of ", "a drawing of "]))
    if request.background is None:
        text = opening + what
    else:
        background = f"{with_article(request.background)} background"
        if opening == "" and rng.random() < 0.4:
            text = f"on {background}, {what}"
        else:
            text = f"{opening}{what} on {background}"
    return text[0].upper() + text[1:]


def _noun_phrase(group: Group, rng: np.random.Generator) -> str:
    adjectives = f"{group.size} {group.colour}" if group.size else group.colour
    if group.count > 1:
        return f"{number(group.count)} {adjectives} {plural(group.shape)}"
    words = f"{adjectives} {group.shape}"
    return with_article(words) if rng.random() < 0.9 else f"one {words}"


_SINGULAR = {plural: shape for shape, plural in _PLURALS.items()} | {shape: shape for shape in SHAPES}
_GROUP = re.compile(
    rf"\b(a|an|{'|'.join(NUMBERS)}) (?:(small|large) )?({'|'.join(COLOURS)}) ({'|'.join(_SINGULAR)})\b"
)
_RELATION = re.compile("|".join(rf"\b{p}\b" for p in sorted(_PHRASE_RELATION, key=len, reverse=True)))
_BACKGROUND = re.compile(rf"\bon an? ({'|'.join(BACKGROUNDS)}) background\b")
_WORD = re.compile(r'\bwith the word "([a-z]+)"')


def parse_prompt(prompt: str) -> Request:
    """Read a prompt of this grammar back; ValueError where it names nothing the testbed knows."""
    text = " ".join(prompt.lower().split())
    groups = tuple(
        Group(NUMBERS.get(number, 1), colour, _SINGULAR[shape], size or None)
        for number, size, colour, shape in _GROUP.findall(text)
    )
    if not groups:
        raise ValueError(f"The testbed cannot read the prompt {prompt!r}: it names no coloured shape.")
    relation = _RELATION.search(text)
    background = _BACKGROUND.search(text)
    word = _WORD.search(text)
    return Request(
        groups,
        _PHRASE_RELATION[relation.group()] if relation and len(groups) == 2 else None,
        background.group(1) if background else None,
        word.group(1) if word else None,
    )


def prompt_vocabulary() -> list[str]:
    """Every word and mark a prompt can hold, lower-cased, in a fixed order."""
    words = [*COLOURS, *SHAPES, *_PLURALS.values(), *BACKGROUNDS, *NUMBERS, *WORDS]
    words += [word for phrases in _RELATION_PHRASES.values() for text in phrases for word in text.split()]
    function_words = (
        "a an picture image drawing of on background and with the word placed sitting small large"
    )
    words += function_words.split(" ")
    return list(dict.fromkeys([*words, ",", '"']))


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


_EDGE: Final = 0.36
"""Share of the picture on each side that is not its middle."""
_CENTRE: Final = 0.2
"""Distance from an object's centre, in radii, that is its middle."""


def place(x: float, y: float) -> str:
    """Where a point lies in a picture of side 1, for a sentence: "at the top left", "in the middle"."""
    column, row = ((at >= _EDGE) + (at > 1 - _EDGE) for at in (x, y))
    return PLACES[row][column]


def side(dx: float, dy: float) -> str:
    """Which side of an object an offset from its centre, in radii, points to: "upper left side"."""
    length = hypot(dx, dy)
    if length < _CENTRE:
        return SIDES[1][1]
    # Eight directions: an axis counts from 22.5 degrees off the other one.
    column = 1 + (dx > 0.38 * length) - (dx < -0.38 * length)
    row = 1 + (dy > 0.38 * length) - (dy < -0.38 * length)
    return SIDES[row][column]


def direction(first: Box, second: Box) -> str:
    """Where the first box lies as seen from the second: "left of", "above"."""
    dx, dy = first[0] + first[2] - second[0] - second[2], first[1] + first[3] - second[1] - second[3]
    if abs(dx) >= abs(dy):
        return RELATION_WORDS["left" if dx < 0 else "right"]
    return RELATION_WORDS["above" if dy < 0 else "below"]


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
