"""What the found objects do not explain: the picture against its own reconstruction, as separate regions.

Reconstruction, tolerance and regions are generic; what a region means is decided in `flaws`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from sdg.testbed.oracle.finding import Found
from sdg.testbed.oracle.fitting import grown
from sdg.testbed.oracle.pixels import COLOUR_NAMES, SIDE, Bools, Floats, Pixels, largest_channel
from sdg.testbed.oracle.writing import Word
from sdg.testbed.world.boxes import Box, mask_box, union
from sdg.testbed.world.renderer import draw_shadow, signed_distance, thing_layer

_SHIFT_LIMIT: Final = 26.0
"""How far an object's colour may be off as a whole, in channel values."""
_SEED: Final = 17.0
"""Excess a region has somewhere, in channel values (plus three times the noise)."""
_LOW: Final = 7.0
"""Excess a region has everywhere, in channel values (plus twice the noise)."""
_SHADOWED: Final = 0.55
"""Share of an object's shadow, if it threw one, that is as dark as that; one such object settles it."""
_MARGIN: Final = 3
_VISIBLE: Final = 14.0
"""How far beside a region, and from which difference on, pixels still belong to it."""
_JOIN: Final = 2
"""Half the gap in pixels across which two regions are one."""
_LEAST_MASS: Final = 120.0
"""Least sum of a region's excess over its pixels; regions of one flaw are yet to be united."""
_LEAST_SEEDS: Final = 3
_HALO: Final = 0.2
"""Tolerated share of the contrast nearby."""
_HALO_LIMIT: Final = 36.0
_UNEVEN: Final = 6.0
"""Tolerance for uneven shading inside objects, in channel values."""


@dataclass(frozen=True, slots=True)
class Residual:
    """A picture against its reconstruction, all (128, 128): excess over the tolerance, owner and depth.

    reconstruction: (128, 128, 3). owner: index of the object at a pixel, −1 for none. depth: signed distance
    to that object's outline or, outside, to the nearest one's, in pixels, at most 24; nearest: its index.
    shadows: whether the objects throw shadows.
    """

    reconstruction: Floats
    excess: Floats
    owner: np.ndarray
    nearest: np.ndarray
    depth: Floats
    shadows: bool


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels that differ: a mask of the picture, its tight pixel box (x0, y0, x1, y1), and how much they do.

    seeds: number of pixels with strong excess; mass: sum of the excess over all pixels.
    """

    mask: Bools
    box: Box
    seeds: int
    mass: float


def residual(pixels: Pixels, found: Sequence[Found], word: Word | None = None) -> Residual:
    """Render the found objects onto the fitted backdrop and see where the picture differs too much."""
    canvas, shadows = _floor(pixels, found)
    owner = np.full((SIDE, SIDE), -1, np.int8)
    nearest = np.full((SIDE, SIDE), -1, np.int8)
    depth = np.full((SIDE, SIDE), 24.0, np.float32)
    for index, item in enumerate(found):
        rows, columns, colour, coverage = thing_layer(item.thing, SIDE)
        inner = (coverage[..., 0] >= 1) & (
            pixels.colour[rows, columns] == COLOUR_NAMES.index(item.thing.colour)
        )
        if np.count_nonzero(inner) >= 20:
            shift = np.median((pixels.picture[rows, columns] - colour)[inner], axis=0)
            colour = colour + np.clip(shift, -_SHIFT_LIMIT, _SHIFT_LIMIT)
        region = canvas[rows, columns]
        region += (colour - region) * coverage
        rows, columns, distance = signed_distance(item.thing, SIDE, pad=24.0)
        here = depth[rows, columns]
        closer = distance < here
        here[closer] = distance[closer]
        nearest[rows, columns][closer] = index
        owner[rows, columns][distance < 0] = index
    excess = _excess(pixels.picture, canvas, owner >= 0)
    if word is not None:  # read and judged on its own
        x0, y0, x1, y1 = word.box
        excess[max(0, y0 - 3) : y1 + 3, max(0, x0 - 3) : x1 + 3] = 0
    return Residual(canvas, excess, owner, nearest, depth, shadows)


def _floor(pixels: Pixels, found: Sequence[Found]) -> tuple[Floats, bool]:
    """The backdrop, with every object's shadow where the picture has shadows (level rich)."""
    plain = pixels.backdrop.astype(np.float32, copy=True)
    if not found or pixels.background == "black":  # no shadow can be seen on black
        return plain, False
    shaded = plain.copy()
    shadows = False
    for item in found:
        before = shaded.copy()
        draw_shadow(shaded, item.thing)
        expected = before[..., 1] - shaded[..., 1]
        area = (expected > 8) & (pixels.colour < 0)
        if np.count_nonzero(area) < 20:
            continue
        darker = (before - pixels.picture)[area]
        ratio = darker[:, 1] / expected[area]
        grey = np.abs(darker[:, 0] - darker[:, 2]) < 25  # a stain is coloured
        shadows |= bool(np.mean((ratio > 0.5) & (ratio < 1.5) & grey) > _SHADOWED)
    return (shaded if shadows else plain), shadows


def _excess(picture: Floats, canvas: Floats, inside: Bools) -> Floats:
    """How far each pixel lies outside what the reconstruction allows around it, (128, 128).

    Allowed is any value of the 3 × 3 neighbourhood, give or take a share of the contrast within three pixels
    (autoencoders leave halos along outlines) and, inside objects, a little uneven shading.
    """
    low, high = canvas.copy(), canvas.copy()
    for out, pick in ((low, np.minimum), (high, np.maximum)):
        pick(out[1:], canvas[:-1], out=out[1:])
        pick(out[:-1], canvas[1:], out=out[:-1])
        rows = out.copy()
        pick(out[:, 1:], rows[:, :-1], out=out[:, 1:])
        pick(out[:, :-1], rows[:, 1:], out=out[:, :-1])
    beyond = largest_channel(np.maximum(np.maximum(picture - high, low - picture), 0))
    contrast = grown(largest_channel(high - low), 2)
    tolerance = np.minimum(_HALO * contrast, _HALO_LIMIT) + _UNEVEN * inside
    return np.maximum(beyond - tolerance, 0)


def regions(residue: Residual, noise: float) -> list[Region]:
    """Connected regions of excess with a strong core, the one with most excess first."""
    low = residue.excess > _LOW + 2 * noise
    seeds = residue.excess > _SEED + 3 * noise
    if not seeds.any():
        return []
    labels, count = ndimage.label(grown(low, _JOIN))
    labels[~low] = 0
    flat = labels.ravel()
    seeded = np.bincount(flat[seeds.ravel()], minlength=count + 1)
    mass = np.bincount(flat, weights=residue.excess.ravel(), minlength=count + 1)
    out = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if seeded[number] < _LEAST_SEEDS or mass[number] < _LEAST_MASS:
            continue
        rows, columns = place
        box = columns.start, rows.start, columns.stop, rows.stop
        out.append(Region(labels == number, box, int(seeded[number]), float(mass[number])))
    return sorted(out, key=lambda region: -region.mass)


def united(first: Region, second: Region) -> Region:
    """Both regions as one."""
    box = union((first.box, second.box))
    return Region(first.mask | second.mask, box, first.seeds + second.seeds, first.mass + second.mass)


def gap(first: Region, second: Region) -> int:
    """Pixels between the boxes of two regions, 0 where they meet."""
    a, b = first.box, second.box
    return max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3], 0)


def full_box(pixels: Pixels, residue: Residual, region: Region) -> Box:
    """Tight box of a region and of what differs right beside it, which the tolerance along outlines hides."""
    x0, y0, x1, y1 = region.box
    rows = slice(max(0, y0 - _MARGIN), min(SIDE, y1 + _MARGIN))
    columns = slice(max(0, x0 - _MARGIN), min(SIDE, x1 + _MARGIN))
    difference = largest_channel(
        np.abs(pixels.picture[rows, columns] - residue.reconstruction[rows, columns])
    )
    mask = region.mask[rows, columns]
    mask = mask | (grown(mask, _MARGIN) & (difference > _VISIBLE + 3 * pixels.noise))
    box = mask_box(mask)
    assert box is not None, "a region has pixels"
    left, top = columns.start, rows.start
    return left + box[0], top + box[1], left + box[2], top + box[3]
