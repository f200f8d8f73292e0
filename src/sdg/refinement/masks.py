"""Masks of an edit: where a picture may change, with soft edges, and how much of it then did.

A mask is a (H, W) float array from 0 (untouched) to 1 (the editor's pixel); no torch anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdg.defects import Defect
from sdg.geometry import touched_pixels

Mask = NDArray[np.float64]


def box_mask(defects: Sequence[Defect], size: tuple[int, int], feather: int) -> Mask:
    """1 on every pixel a box touches, falling linearly to 0 over `feather` pixels around it.

    size: (width, height) in pixels. A pixel `feather` + 1 or further from every box is exactly 0; where
    boxes meet, the larger value holds. No defects give a mask of zeros.
    Raises ValueError for a feather below 0.
    """
    if feather < 0:
        raise ValueError(f"A feather is a width of 0 pixels or more, not {feather}.")
    width, height = size
    mask = np.zeros((height, width))
    for defect in defects:
        mask = np.maximum(mask, np.clip(1 - _distances(defect, size) / (feather + 1), 0, 1))
    return mask


def strength_map(
    defects: Sequence[Defect], size: tuple[int, int], strengths: Sequence[float], reaches: Sequence[int]
) -> Mask:
    """How strongly each pixel is to be edited: (H, W), 0 to 1.

    Every pixel a defect's box touches has that defect's strength, and so has what lies within half of its
    reach, in pixels, around the box; over the other half the strength falls linearly to 0. Where defects
    meet, the largest holds. No defects give zeros.
    size: (width, height) in pixels. Raises ValueError for a reach below 0 and for mismatched counts.
    """
    width, height = size
    mask = np.zeros((height, width))
    for defect, strength, reach in zip(defects, strengths, reaches, strict=True):
        if reach < 0:
            raise ValueError(f"A reach is 0 pixels or more, not {reach}.")
        fallen = (_distances(defect, size) - reach / 2) / (reach / 2 + 1)
        mask = np.maximum(mask, strength * np.clip(1 - fallen, 0, 1))
    return mask


def heat_mask(heat: NDArray[np.floating], size: tuple[int, int]) -> Mask:
    """A heat map as a mask: (h, w) -> (H, W), scaled bilinearly and clipped to 0–1.

    size: (width, height) in pixels. Raises ValueError for what is no map of finite numbers.
    """
    heat = np.asarray(heat, np.float32)
    if heat.ndim != 2 or not np.isfinite(heat).all():
        raise ValueError("A heat map holds finite numbers in the shape (h, w).")
    picture = Image.fromarray(np.clip(heat, 0, 1), mode="F").resize(size, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(picture, np.float64), 0, 1)


def as_picture(mask: Mask) -> Image.Image:
    """A mask as a grey picture of 8 bits: 0 is black, 1 white."""
    return Image.fromarray((255 * mask).round().astype(np.uint8))


def composite(before: Image.Image, edited: Image.Image, mask: Mask) -> Image.Image:
    """`edited` where the mask is 1, `before` where it is 0, bit for bit, and a mixture in between; RGB.

    An edit of another size is scaled to that of `before`. Raises ValueError where the mask has another.
    """
    if mask.shape != (before.height, before.width):
        raise ValueError(f"The mask is {mask.shape} and the picture {(before.height, before.width)}.")
    if edited.size != before.size:
        edited = edited.convert("RGB").resize(before.size, Image.Resampling.LANCZOS)
    old = np.asarray(before.convert("RGB"), np.float64)
    new = np.asarray(edited.convert("RGB"), np.float64)
    mixed = old + (new - old) * mask[..., None]
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def changed_share(before: Image.Image, after: Image.Image) -> float:
    """Share of pixels, 0 to 1, that differ in any channel; raises ValueError for pictures of two sizes."""
    if before.size != after.size:
        raise ValueError(f"Pictures of {before.size} and {after.size} pixels cannot be compared.")
    old, new = np.asarray(before.convert("RGB")), np.asarray(after.convert("RGB"))
    return float((old != new).any(axis=-1).mean())


def _distances(defect: Defect, size: tuple[int, int]) -> NDArray[np.float64]:
    """(H, W), how many pixels each one is away from those that a defect's box touches."""
    ((x0, y0, x1, y1),) = touched_pixels([defect.box], size).tolist()
    dx, dy = _distance(size[0], x0, x1), _distance(size[1], y0, y1)
    return np.hypot(dy[:, None], dx[None, :])


def _distance(length: int, start: int, stop: int) -> NDArray[np.float64]:
    """Of each pixel of an axis, how far it is from the pixels start to stop − 1; 0 inside."""
    place = np.arange(length, dtype=np.float64)
    return np.maximum(np.maximum(start - place, place - (stop - 1)), 0)
