"""The words reasons and traces are made of, beside the names of the world: sides of an object, and few more.

The vocabulary is closed, so that a tokenizer with one token a word can be small.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sdg.testbed.world.prompts import NUMBER_WORDS, PLACES, RELATION_WORDS, SIDES


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
            *(name for row in (*PLACES, *SIDES) for name in row),
            "a an and with the word on background small large",
        ]
    )
)
"""Every word that stands between the names of the world where no template has it."""
