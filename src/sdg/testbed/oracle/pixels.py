"""What each pixel of any picture shows: which background, how far from it, and which of the eight colours.

Everything here is local in colour and knows nothing of shapes; tolerances follow the picture's own noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from sdg.testbed.world.renderer import background_picture
from sdg.testbed.world.scene import BACKGROUNDS, COLOURS

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

SIDE: Final = 128
"""Every picture is looked at with this many pixels a side, so that one pixel is one scene unit."""

COLOUR_NAMES: Final = tuple(COLOURS)
_PALETTE: Final = np.array(list(COLOURS.values()), np.float32)  # (8, 3)
_NORMS: Final = np.sum(_PALETTE**2, axis=1)  # (8,)

# Shading multiplies a colour: 1.02 ± 0.16 by the light; the dark rim takes 0.2 more, but is left to the fit.
_GAIN_LOW, _GAIN_HIGH = np.float32(0.72), np.float32(1.25)
_COLOUR_REACH: Final = 46.0
"""Largest RGB distance of a pixel from a shaded palette colour that still has that colour."""

_BACKGROUND_REACH: Final = 30.0
"""Largest channel difference from a background for a pixel to speak for it."""
_OFFSET_LIMIT: Final = 14.0
"""How far a background may be off its nominal colour, in channel values."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """A picture and what its pixels show.

    picture, backdrop: (128, 128, 3) float32 in 0..255, the backdrop as it would be without objects.
    background: name, and `support` the share of pixels that show it; noise: standard deviation of a
    background pixel; contrast: (128, 128) largest channel difference from the backdrop.
    colour: (128, 128) int8 index into COLOUR_NAMES, −1 where no colour shows.
    """

    picture: Floats
    backdrop: Floats
    background: str
    support: float
    noise: float
    contrast: Floats
    colour: NDArray[np.int8]


def largest_channel(values: Floats) -> Floats:
    """Largest of the three channels, (…, 3) -> (…); faster than a reduction over so short an axis."""
    return np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])


def foreground_threshold(noise: float) -> float:
    """Contrast from which a pixel is no longer background."""
    return 20.0 + 3.0 * noise


def as_picture(image: Image.Image | ArrayLike) -> Floats:
    """Any picture as (128, 128, 3) float32 in 0..255.

    Takes a PIL image of any mode, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, or of
    floats in 0..1. Raises ValueError for any other array.
    """
    if not isinstance(image, Image.Image):
        image = _array_to_image(np.asarray(image))
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size != (SIDE, SIDE):
        if 0 in image.size:
            raise ValueError("A picture needs at least one pixel.")
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def _array_to_image(values: NDArray[np.generic]) -> Image.Image:
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or 0 in values.shape:
        raise ValueError(f"A picture is an array (H, W, 3), not one of shape {values.shape}.")
    if values.dtype.kind == "f":
        values = (np.clip(np.nan_to_num(values.astype(np.float32)), 0, 1) * 255 + 0.5).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise ValueError(f"A picture is an array of uint8 or of floats in 0..1, not {values.dtype}.")
    values = np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values[..., :3]
    return Image.fromarray(np.ascontiguousarray(values), "RGB")


def look(picture: Floats) -> Pixels:
    """Say what every pixel of a (128, 128, 3) float32 picture shows."""
    background, backdrop, support = _find_background(picture)
    difference = largest_channel(np.abs(picture - backdrop))
    noise = _noise(picture, difference < _BACKGROUND_REACH)
    colour = np.full((SIDE, SIDE), -1, np.int8)
    foreground = difference > foreground_threshold(noise)
    colour[foreground] = classify(picture[foreground])
    return Pixels(picture, backdrop, background, support, noise, difference, colour)


def classify(values: Floats) -> NDArray[np.int8]:
    """Index of the palette colour that each of (N, 3) values shows under some shading, −1 for none."""
    best, distance = nearest_colour(values)
    return np.where(distance < _COLOUR_REACH, best, -1).astype(np.int8)


def nearest_colour(values: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Index of the palette colour nearest to each of (N, 3) values, however shaded, and its distance."""
    gain = np.clip(values @ (_PALETTE / _NORMS[:, None]).T, _GAIN_LOW, _GAIN_HIGH)  # (N, 8)
    shaded = np.minimum(gain[..., None] * _PALETTE, np.float32(255))  # (N, 8, 3)
    distance = np.sum((values[:, None] - shaded) ** 2, axis=2)
    best = distance.argmin(axis=1)
    return best, np.sqrt(distance[np.arange(len(best)), best])


def _find_background(picture: Floats) -> tuple[str, Floats, float]:
    """Name, fitted picture and share of the background that most pixels show."""
    sample = picture[::4, ::4]
    counts = {
        name: np.count_nonzero(
            largest_channel(np.abs(sample - background_picture(name, SIDE)[::4, ::4])) < _BACKGROUND_REACH
        )
        for name in BACKGROUNDS
    }
    name = max(counts, key=lambda name: counts[name])
    support = counts[name] * 16 / SIDE**2
    backdrop = background_picture(name, SIDE)
    return name, backdrop + _offset(picture, backdrop), support


def _offset(picture: Floats, backdrop: Floats) -> Floats:
    """Smooth deviation of the picture from its nominal background: a plane for each channel, (128, 128, 3).

    Generators and autoencoders miss a colour by a little everywhere; that is no defect.
    """
    step = 4
    rows, columns = np.mgrid[0:SIDE:step, 0:SIDE:step].reshape(2, -1)
    difference = (picture - backdrop)[::step, ::step].reshape(-1, 3)
    design = np.stack([np.ones(len(rows)), rows / SIDE - 0.5, columns / SIDE - 0.5], axis=1)
    reach = _BACKGROUND_REACH
    plane = np.zeros((3, 3))
    for _ in range(3):
        near = largest_channel(np.abs(difference - design @ plane)) < reach
        if np.count_nonzero(near) < 60:
            return np.zeros((1, 1, 3), np.float32)
        chosen = design[near]
        plane = np.linalg.solve(chosen.T @ chosen + 1e-3 * np.eye(3), chosen.T @ difference[near])
        reach *= 0.6  # stains and shadows near the background's colour drop out
    grid = (np.arange(SIDE, dtype=np.float32) / SIDE - 0.5)[:, None]
    offset, down, across = plane.astype(np.float32)
    surface = offset + grid[:, None] * down + grid[None] * across
    return np.clip(surface, -_OFFSET_LIMIT, _OFFSET_LIMIT)


def _noise(picture: Floats, near: Bools) -> float:
    """Standard deviation of pixel noise, from neighbouring background pixels; robust to edges."""
    pairs = near[::3, 1:] & near[::3, :-1]
    steps = np.abs(np.diff(picture[::3, :, 1], axis=1))[pairs]
    if len(steps) < 100:
        return 1.0
    # The median would be coarse for bytes; the 68 % quantile is one standard deviation.
    middle = int(0.68 * len(steps))
    return float(min(np.partition(steps, middle)[middle] / np.sqrt(2), 12.0))
