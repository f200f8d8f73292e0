"""Read the word written along the bottom of a picture (level rich), by matching renderings of known words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from sdg.testbed.oracle.finding import Found
from sdg.testbed.oracle.pixels import SIDE, Floats, Pixels
from sdg.testbed.prompts import WORDS
from sdg.testbed.renderer import writing_coverage
from sdg.testbed.world import Writing

_TOP: Final = 104
"""First row of the strip that words are written in."""
_LEAST_INK: Final = 25
_LEGIBLE: Final = 0.8
"""Least correlation of the ink with a rendered word for the word to be legible."""
_HEIGHT: Final = 13.5
"""Height at which words are rendered to learn how large their ink is."""


@dataclass(frozen=True, slots=True)
class Word:
    """A written word: its text in capitals, the tight pixel box of its ink, and how garbled it is.

    garbled: None where it is legible, else the mean change of its pixels, 0..255.
    """

    text: str
    box: tuple[int, int, int, int]
    garbled: float | None = None


def read_word(pixels: Pixels, found: Sequence[Found], asked: str | None) -> Word | None:
    """The word in a picture whose prompt asks for `asked`; None without ink, or where none was asked for.

    A word that cannot be read counts as the one asked for, garbled.
    """
    if asked is None:
        return None
    ink = _ink(pixels)
    box = _box(ink > 0.5)
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


def _box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@lru_cache(maxsize=32)
def _extent(word: str) -> tuple[float, float, float, float]:
    """Width and height of a word's ink at _HEIGHT, and its ink's centre as seen from the writing's."""
    box = _box(writing_coverage(Writing(word, SIDE / 2, SIDE / 2, _HEIGHT), SIDE) > 0.5)
    assert box is not None, "every word has ink"
    x0, y0, x1, y1 = box
    return x1 - x0, y1 - y0, (x0 + x1 - SIDE) / 2, (y0 + y1 - SIDE) / 2


def _match(ink: Floats, box: tuple[int, int, int, int], word: str) -> float:
    """Correlation, 0..1, of the ink with a word rendered at the ink's place and size."""
    width, height, off_x, off_y = _extent(word)
    scale = (box[3] - box[1]) / height
    if not 0.6 < (box[2] - box[0]) / (width * scale) < 1.6:
        return 0.0
    x = (box[0] + box[2]) / 2 - off_x * scale
    y = (box[1] + box[3]) / 2 - off_y * scale
    best = 0.0
    for size in (scale, (box[2] - box[0]) / width):
        template = writing_coverage(Writing(word, x, y, _HEIGHT * size), SIDE)
        norm = float(np.sqrt(np.sum(ink**2) * np.sum(template**2)))
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                moved = np.roll(template, (down, across), (0, 1))
                best = max(best, float(np.sum(ink * moved)) / max(norm, 1e-6))
    return best
