"""Every word a target or a caption of the testbed can hold: small and closed, for a word-level tokenizer.

Numbers and punctuation are not in it; neither are the delimiters and keys of the response format.
"""

from __future__ import annotations

from itertools import chain

from sdg.testbed.injection.artifacts import EFFECTS
from sdg.testbed.injection.lexicon import LEXICON, words_of
from sdg.testbed.injection.thinking import PHRASES
from sdg.testbed.injection.wording import ARTIFACT_REASONS, MISALIGNMENT_REASONS
from sdg.testbed.world.prompts import WORDS
from sdg.testbed.world.scene import BACKGROUNDS, COLOURS, SHAPES
from sdg.testbed.world.words import plural

_CAPTIONS = (
    "to the left of right of left above over below under placed sitting one with the word on background",
    "a an picture image of drawing",
)


def vocabulary() -> tuple[str, ...]:
    """The words of reasons, think traces and captions of both levels, sorted; capitals make another word."""
    world = {*COLOURS, *SHAPES, *BACKGROUNDS, *map(plural, SHAPES), *(word.upper() for word in WORDS)}
    templates = chain.from_iterable((*MISALIGNMENT_REASONS.values(), *ARTIFACT_REASONS.values()))
    subtypes = words_of(EFFECTS)  # the traces name artifacts by their subtype
    captions = words_of(_CAPTIONS) | LEXICON | {"many", "too", "few"}  # "one too many"
    # A caption may begin with any of its words.
    openings = {word.capitalize() for word in ("a", "an", "on", "one", "two", "three", "four", "five", "six")}
    return tuple(sorted(world | words_of(templates) | subtypes | words_of(PHRASES) | captions | openings))
