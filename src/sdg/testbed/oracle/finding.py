"""Find the objects of a picture: patches of one colour, split where two touch, joined where one is broken.

What is found is a list of things that could be rendered again; what is not explained stays for the residuals.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from sdg.testbed.oracle.fitting import SOLID, Fit, crispness, fit_patch, grown, opacity_of, window
from sdg.testbed.oracle.pixels import COLOUR_NAMES, SIDE, Bools, Pixels, nearest_colour
from sdg.testbed.world.boxes import Box, mask_box
from sdg.testbed.world.renderer import signed_distance
from sdg.testbed.world.scene import Thing

_LEAST_AREA: Final = 48
"""Solid pixels an object has at least: the smallest star of level rich has about 75."""
_CORE: Final = 0.2
"""Share of a patch that has all four neighbours in it; the mixed colours along an edge have less."""
_POOR: Final = 0.3
"""Mismatch from which joining with, or splitting off, other patches is tried."""
_SECOND: Final = 0.3
"""Mismatch a second object in the same patch may have: a smear is no object, however large."""
_FAINT: Final = 0.66
"""Median opacity under which a patch is a ghost and no object."""
_DENSE: Final = 0.76
"""The same for a patch of no clear shape: it may be a stain."""
_STAINED: Final = 0.14
"""Mismatch from which the densest pixels are tried alone."""
_DENSE_SOLID: Final = 0.84
_SHARPER: Final = 0.7
_SECOND_DENSE: Final = 0.84
"""Median opacity of a second object in the same patch."""
_OFF_COLOUR: Final = 30.0
"""RGB distance of a patch's median from its palette colour, under any shading, from which it is suspect."""
_SECOND_AREA: Final = 0.3
"""Least area of a second object in the same patch, as a share of the first's."""
_CRISP: Final = 0.55
"""Least drop in opacity across a second object's outline: a stain fades out."""
_COVERED: Final = 0.5
"""Share of a patch inside another object's outline from which it is a flaw of that object."""
_WHOLE: Final = slice(0, SIDE)


@dataclass(frozen=True, slots=True)
class Found:
    """An object: the best shape, its mismatch, that of the best other shape, and the patch's box."""

    thing: Thing
    mismatch: float
    runner_up: float
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Pixels of one colour that hang together: how many, their median opacity, and how true the colour is."""

    colour: int
    mask: Bools
    box: Box
    area: int
    density: float
    off_colour: bool


def find_objects(pixels: Pixels, asked: Mapping[str, Collection[str]]) -> list[Found]:
    """All objects of a picture, largest first. asked: colour -> shapes the prompt asks for in it."""
    patches = _patches(pixels)
    found: list[Found] = []
    taken = np.zeros((SIDE, SIDE), bool)
    while patches:
        patch = patches.pop(0)
        if patch.area < _LEAST_AREA or np.count_nonzero(patch.mask & taken) > _COVERED * patch.area:
            continue
        if patch.off_colour and np.any(grown(patch.mask, 3) & taken):
            continue  # a translucent copy in front of a background can pass for a paler colour
        shapes = asked.get(COLOUR_NAMES[patch.colour], ())
        patch, fit = _best_fit(pixels, patch, patches, shapes)
        if patch.density < (_DENSE if fit.mismatch > _POOR else _FAINT):
            continue
        inside = footprint(fit.thing)
        found.append(Found(fit.thing, fit.mismatch, fit.runner_up, patch.box))
        taken |= inside
        second = _second(pixels, patch, inside, shapes)
        if second is not None:
            patches.insert(0, second)
    return found


def _best_fit(
    pixels: Pixels, patch: Patch, patches: list[Patch], shapes: Collection[str]
) -> tuple[Patch, Fit]:
    """The best fit to a patch, its densest pixels, or it and another patch (then taken off the list)."""
    colour = patch.colour
    fit = fit_patch(window(pixels, colour, patch.mask), colour, shapes)
    if fit.mismatch > _STAINED:
        dense = fit_patch(window(pixels, colour, patch.mask, solid=_DENSE_SOLID), colour, shapes)
        if dense.mismatch < _SHARPER * fit.mismatch:
            opaque = opacity_of(pixels, colour, _WHOLE, _WHOLE) > _DENSE_SOLID
            patch, fit = _patch(pixels, colour, patch.mask & opaque), dense
    if fit.mismatch > _POOR:
        near = grown(patch.mask, 6)
        for index, other in enumerate(patches):
            if other.colour != colour or not np.any(near & other.mask):
                continue
            union = patch.mask | other.mask
            joint = fit_patch(window(pixels, colour, union), colour, shapes)
            if joint.mismatch < _SHARPER * fit.mismatch:
                del patches[index]
                return _patch(pixels, colour, union), joint
    return patch, fit


def _second(pixels: Pixels, patch: Patch, inside: Bools, shapes: Collection[str]) -> Patch | None:
    """What a patch has outside the object found in it, if that is another object and no smear or stain."""
    outside = patch.mask & ~grown(inside, 2)
    least = max(1.5 * _LEAST_AREA, _SECOND_AREA * np.count_nonzero(inside))
    if np.count_nonzero(outside) < least:
        return None
    labels, count = ndimage.label(outside)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    largest = int(sizes.argmax())
    if sizes[largest] < least:
        return None
    # Grown back by what was shaved off, so that a touching neighbour keeps its own edge.
    rest = _patch(pixels, patch.colour, grown(labels == largest, 2) & patch.mask & ~inside)
    if rest.density < _SECOND_DENSE:
        return None
    view = window(pixels, patch.colour, rest.mask, ignore=inside)
    fit = fit_patch(view, patch.colour, shapes)
    whole = fit.mismatch < _SECOND and crispness(view, fit.thing) > _CRISP
    return rest if whole else None


def footprint(thing: Thing) -> Bools:
    """(128, 128) bool: pixels whose centres lie inside a thing's outline."""
    out = np.zeros((SIDE, SIDE), bool)
    rows, columns, distance = signed_distance(thing, SIDE, pad=1.0)
    out[rows, columns] = distance < 0
    return out


def shrunk(mask: Bools) -> Bools:
    """The pixels of a mask whose four neighbours are in it too; the picture's border is outside."""
    return ~grown(~np.pad(mask, 1))[1:-1, 1:-1]


def _patches(pixels: Pixels) -> list[Patch]:
    """Connected patches of each colour, opaque enough to be objects; true colours first, then by area."""
    patches = []
    present = np.bincount(pixels.colour[pixels.colour >= 0], minlength=len(COLOUR_NAMES))
    for colour in np.nonzero(present >= _LEAST_AREA)[0].tolist():
        mask = pixels.colour == colour
        mask &= opacity_of(pixels, colour, _WHOLE, _WHOLE) > SOLID
        # Objects keep five pixels apart, so what a gap of two pixels parts is one object.
        labels, count = ndimage.label(grown(mask))
        labels[~mask] = 0
        core = shrunk(mask)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        cores = np.bincount(labels[core], minlength=count + 1)
        for number in range(1, count + 1):
            if sizes[number] >= _LEAST_AREA // 3 and cores[number] >= _CORE * sizes[number]:
                patches.append(_patch(pixels, colour, labels == number))
    return sorted(patches, key=lambda patch: (patch.off_colour, -patch.area))


def _patch(pixels: Pixels, colour: int, mask: Bools) -> Patch:
    box = mask_box(mask)
    if box is None:
        return Patch(colour, mask, (0, 0, 0, 0), 0, 0.0, True)
    rows, columns = slice(box[1], box[3]), slice(box[0], box[2])
    inside = mask[rows, columns]
    density = float(np.median(opacity_of(pixels, colour, rows, columns)[inside]))
    typical = np.median(pixels.picture[rows, columns][inside], axis=0, keepdims=True)
    off_colour = bool(nearest_colour(typical)[1][0] > _OFF_COLOUR)
    return Patch(colour, mask, box, int(np.count_nonzero(inside)), density, off_colour)
