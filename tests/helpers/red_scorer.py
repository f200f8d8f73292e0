"""Scorers that a test serves: how red a picture is, and ones that fail in every way a model may."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

import sdg


def red(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
    """Red of the first pixel plus the length of the prompt; None for black."""
    values = [
        (picture.getpixel((0, 0))[0], len(prompt)) for picture, prompt in zip(pictures, prompts, strict=True)
    ]
    return [value + length if value else None for value, length in values]


def picky(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """As `red`, but one black picture spoils its batch."""
    values = [picture.getpixel((0, 0))[0] for picture in pictures]
    if 0 in values:
        raise RuntimeError("CUDA out of memory")
    return [float(value) for value in values]


def not_a_number(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """NaN and infinity in turn."""
    return [float("nan") if at % 2 else float("inf") for at in range(len(pictures))]


def too_few(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """One score, however many pictures."""
    return [1.0]


def words(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
    """What is no number."""
    return ["good"] * len(pictures)


def no_defects(picture: Image.Image, prompt: str) -> sdg.Diagnosis:
    """A detector that finds every picture clean."""
    return sdg.Diagnosis()
