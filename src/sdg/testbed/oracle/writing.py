"""Read the word written along the bottom of a picture (level rich), by matching renderings of known words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from sdg.testbed.oracle.finding import Found
from sdg.testbed.oracle.pixels import SIDE, Floats, Pixels
from sdg.testbed.world.boxes import Box, mask_box
from sdg.testbed.world.prompts import WORDS
from sdg.testbed.world.renderer import writing_coverage
from sdg.testbed.world.scene import Writing

_TOP: Final = 104
"""First row of the strip that words are written in."""
_LEAST_INK: Final = 25
_LEGIBLE: Final = 0.84
"""Least correlation of the ink with a rendered word for the word to be legible."""
_HEIGHTS: Final = tuple(float(h) for h in np.arange(11.5, 15.6, 0.25))
_FRACTIONS: Final = (0.0, 0.25, 0.5, 0.75)
"""Heights, and fractions of a pixel, at which words are rendered to compare."""


@dataclass(frozen=True, slots=True)
class Word:
    """A written word: its text in capitals, the tight pixel box of its ink, and how garbled it is.

    garbled: None where it is legible, else the mean change of its pixels, 0..255.
    """

    text: str
    box: Box
    garbled: float | None = None


def read_word(pixels: Pixels, found: Sequence[Found], asked: str | None) -> Word | None:
    """The word in a picture whose prompt asks for `asked`; None without ink, or where none was asked for.

    A word that cannot be read counts as the one asked for, garbled.
    """
    if asked is None:
        return None
    ink = _ink(pixels)
    box = mask_box(ink > 0.5)
    if box is None or np.count_nonzero(ink > 0.5) < _LEAST_INK:
        return None
    scores = {word: _match(ink, box, word) for word in {*(w.upper() for w in WORDS), asked.upper()}}
    best = max(sorted(scores), key=lambda word: scores[word])
    if scores[best] >= _LEGIBLE:
        return Word(best, box)
    area = slice(box[1], box[3]), slice(box[0], box[2])
    return Word(asked.upper(), box, float(np.median(pixels.contrast[area][ink[area] > 0.5])) * 0.6)


def _ink(pixels: Pixels) -> Floats:
    """How much of each pixel ink covers, 0..1, nothing above the strip, (128, 128)."""
    colour = np.array((235, 235, 232) if pixels.background == "black" else (28, 28, 32), np.float32)
    strip = slice(_TOP, SIDE)
    towards = colour - pixels.backdrop[strip]
    difference = pixels.picture[strip] - pixels.backdrop[strip]
    alpha = np.einsum("hwc,hwc->hw", difference, towards) / np.einsum("hwc,hwc->hw", towards, towards)
    beside = np.abs(difference - alpha[..., None] * towards).max(axis=2)
    out = np.zeros((SIDE, SIDE), np.float32)
    out[strip] = np.where((beside < 30) & (pixels.colour[strip] < 0), np.clip(alpha, 0, 1), 0)
    return out


@lru_cache(maxsize=32)
def _templates(word: str) -> tuple[tuple[Floats, int, int], ...]:
    """Renderings of a word at several heights and fractions of a pixel, each with its ink's width and height.

    Glyphs snap to the pixel grid, so that the width grows in jumps; scaling one rendering would not do.
    """
    out = []
    for height in _HEIGHTS:
        for fraction in _FRACTIONS:
            ink = writing_coverage(Writing(word, SIDE / 2 + fraction, SIDE / 2, height), SIDE)
            box = mask_box(ink > 0.5)
            assert box is not None, "every word has ink"
            x0, y0, x1, y1 = box
            # A margin of two pixels, of which the match may use one.
            out.append((ink[y0 - 2 : y1 + 2, x0 - 2 : x1 + 2], x1 - x0, y1 - y0))
    return tuple(out)


def _match(ink: Floats, box: Box, word: str) -> float:
    """Correlation, 0..1, of the ink with the best rendering of a word at its place."""
    x0, y0, x1, y1 = box
    padded = np.pad(ink, 4)[y0 + 1 : y1 + 7, x0 + 1 : x1 + 7]  # the box and three pixels around it
    norm = float(np.sqrt(np.sum(ink**2)))
    best = 0.0
    for template, width, height in _templates(word):
        if abs(width - (x1 - x0)) > 2 or abs(height - (y1 - y0)) > 2:
            continue
        for down in (0, 1, 2):
            for across in (0, 1, 2):
                part = padded[down : down + template.shape[0], across : across + template.shape[1]]
                own = template[: part.shape[0], : part.shape[1]]
                product = float(np.sum(part * own)) / max(norm * float(np.sqrt(np.sum(own**2))), 1e-6)
                best = max(best, product)
    return best
