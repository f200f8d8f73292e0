"""Prompt profiles: the words, pixel limits and sampling that a detector was trained with, and so needs.

A profile is a small TOML file that travels with its checkpoint; `PromptProfile()` is the default wording.
"""

from sdg.prompting.profile import (
    PROFILE_FILE,
    AnswerParts,
    Generation,
    ImageLimits,
    PromptProfile,
)
from sdg.prompting.wording import trim_reasoning

__all__ = [
    "PROFILE_FILE",
    "AnswerParts",
    "Generation",
    "ImageLimits",
    "PromptProfile",
    "trim_reasoning",
]
