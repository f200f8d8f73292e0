"""The embedded detector: packaged weights that say so when they are asked about another world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from PIL import Image

from sdg.detectors.hf import TransformersDetector
from sdg.testbed.world.prompts import parse_prompt


class EmbeddedDetector(TransformersDetector):
    """A `TransformersDetector` of the testbed's weights; a picture or prompt of another world is `failed`.

    It would answer such a pair as confidently as any, and most often find it clean.
    """

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {**super().identity, "detector": "testbed"}

    def refusal(self, picture: Image.Image, prompt: str) -> str:
        return ood_reason(picture, prompt)


LEAST_BACKGROUND: Final = 0.5
"""Least share of a picture that has its most common colour. Renders, injected and generated pictures have at
least 0.64 (of 1,200); photographs and paintings mostly less."""
_SIDE: Final = 64
_TOLERANCE: Final = 20  # channel values around the colour


def ood_reason(picture: Image.Image, prompt: str) -> str:
    """Why the embedded models cannot judge this picture, in one sentence; "" where they can.

    A plain background is all that is asked of the picture: one that went wrong badly is of this world too.
    """
    try:
        parse_prompt(prompt)
    except ValueError:
        what = "this prompt names none of them"
    else:
        if background_share(picture) >= LEAST_BACKGROUND:
            return ""
        what = "this picture has no plain background"
    return (
        f"The embedded detector knows only the testbed's coloured shapes, and {what}; "
        "name another detector, such as hf:FOLDER or openai:URL#MODEL."
    )


def background_share(picture: Image.Image) -> float:
    """Share of the pixels, 64 × 64 of them, that are close to the most common colour."""
    small = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small).reshape(-1, 3).astype(int)
    bins = (pixels // 16) @ (256, 16, 1)
    most = np.bincount(bins).argmax()
    colour = pixels[bins == most].mean(axis=0)
    return float((np.abs(pixels - colour).max(axis=1) <= _TOLERANCE).mean())
