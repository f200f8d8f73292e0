"""What a region of unexplained pixels is: a smear, a bite, speckle, … with the object it is on.

A few plain measurements of a region, then a decision list; docs/background/oracle.md explains both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sdg.testbed.oracle.finding import Found
from sdg.testbed.oracle.fitting import opacity_of
from sdg.testbed.oracle.pixels import COLOUR_NAMES, Pixels, largest_channel
from sdg.testbed.oracle.residuals import Region, Residual, full_box, gap, regions, united
from sdg.testbed.world.boxes import Box

_LEAST_SEEDS: Final = 12
_LEAST_MASS: Final = 700.0
"""Least number of strong pixels, and least sum of excess, of a flaw that anybody would see."""
_FAINT: Final = 24.0
_FAINT_STRAY: Final = 28.0
"""Least mean change of a flaw on an object, and of one on the background (autoencoders tint plain areas)."""
_NEAR: Final = 6.0
"""Distance in pixels from an outline within which a region is on that object."""
_PLAIN: Final = 40.0
_SHADED: Final = 85.0
"""Contrast up to which a pixel shows background; in a shadow it may have more."""
_SMALL: Final = 60
"""Pixels up to which a region joins a larger one beside it whatever either looks like."""
_JOIN_GAP: Final = 6
"""Gap in pixels across which regions on one object are one flaw."""
_APART: Final = {"ghost copy": 12, "wrong shadow": 64}
"""The same where the parts lie on both sides of the object."""
_TORN: Final = ("warp", "broken edge")


@dataclass(frozen=True, slots=True)
class Measures:
    """Measurements of a region; shares are of its pixels, 0..1.

    target: index of the object it is on, −1 for none. inside: share within that object's outline; bare:
    share inside that shows background; foreign: share inside in another colour; own: share outside in the
    object's colour. speckle: mean step between neighbouring pixels of the difference over how much it varies.
    solid, spread: mean and standard deviation of the opacity of the own pixels outside. change: mean of the
    largest channel difference. hue: the colour most of
    it shows, −1 for none. grey: share outside objects that is only darker or lighter.
    """

    target: int
    area: int
    inside: float
    bare: float
    foreign: float
    own: float
    speckle: float
    solid: float
    spread: float
    change: float
    hue: int
    grey: float


@dataclass(frozen=True, slots=True)
class Flaw:
    """An artifact: subtype, region, pixel box, the object it is on (−1: none), mean change.

    foreign: the colour that seeped into the object ("": none of the palette), None where none did.
    """

    subtype: str
    region: Region
    box: Box
    target: int
    change: float
    foreign: str | None = None


def find_flaws(pixels: Pixels, found: Sequence[Found], residue: Residual) -> list[Flaw]:
    """All artifacts of a picture, the strongest first."""
    groups: list[tuple[Region, Measures, str]] = []
    for region in regions(residue, pixels.noise):
        measures = measure(pixels, found, residue, region)
        name = subtype(measures, residue.shadows)
        for place, (other, its, known) in enumerate(groups):
            if its.target == measures.target and _belong(region, name, other, known):
                both = united(region, other)
                combined = measure(pixels, found, residue, both)
                groups[place] = both, combined, subtype(combined, residue.shadows)
                break
        else:
            groups.append((region, measures, name))
    return [
        _flaw(region, full_box(pixels, residue, region), measures, name)
        for region, measures, name in groups
        if _is_visible(region, measures)
    ]


def _is_visible(region: Region, measures: Measures) -> bool:
    """Whether anybody would see a region: strong enough, and no line that a fit a little off leaves."""
    x0, y0, x1, y1 = region.box
    return (
        region.seeds >= _LEAST_SEEDS
        and region.mass >= _LEAST_MASS
        and measures.change >= (_FAINT if measures.target >= 0 else _FAINT_STRAY)
        and min(x1 - x0, y1 - y0) > 2
    )


def _belong(region: Region, name: str, other: Region, known: str) -> bool:
    """Whether two regions on one object are one flaw."""
    apart = gap(region, other)
    if name == known and name in _APART:
        return apart <= _APART[name]
    small = int(np.count_nonzero(region.mask)) < _SMALL
    alike = name == known or (name in _TORN and known in _TORN)
    return apart <= _JOIN_GAP and (small or alike)


def _flaw(region: Region, box: Box, measures: Measures, name: str) -> Flaw:
    inwards = name == "colour bleeding" and measures.inside > 0.5
    foreign = (COLOUR_NAMES[measures.hue] if measures.hue >= 0 else "") if inwards else None
    return Flaw(name, region, box, measures.target, measures.change, foreign)


def subtype(m: Measures, shadows: bool = False) -> str:
    """The decision list: the artifact whose looks a region has."""
    if m.speckle > 0.44 and m.bare < 0.06 and m.own < 0.3:
        return "noise texture"
    if m.target < 0:
        return "stray mark"
    if shadows and m.grey > 0.75:
        return "wrong shadow"
    if m.bare > 0.55 and m.own < 0.12:
        return "missing chunk"
    if m.own > 0.7 and m.spread < 0.11 and m.inside < 0.25:
        return "ghost copy"
    if m.bare < 0.1 and (m.inside > 0.8 or m.foreign > 0.35):
        return "colour bleeding"
    if m.own > 0.3 and m.bare < 0.08 and m.solid < 0.6:
        return "colour bleeding" if m.speckle < 0.265 and m.inside < 0.2 else "smear"
    # A torn edge swaps object and background; bending also shifts the shading inside.
    shifted = m.speckle + 1.5 * (m.inside - m.bare) > 0.46
    return "warp" if shifted or m.area > 180 else "broken edge"


def measure(pixels: Pixels, found: Sequence[Found], residue: Residual, region: Region) -> Measures:
    """Measure one region."""
    x0, y0, x1, y1 = region.box
    rows, columns = slice(y0, y1), slice(x0, x1)
    mask = region.mask[rows, columns]
    area = int(np.count_nonzero(mask))
    difference = pixels.picture[rows, columns] - residue.reconstruction[rows, columns]
    change = float(largest_channel(np.abs(difference))[mask].mean())
    speckle = _speckle(difference, mask)
    shown = pixels.colour[rows, columns]
    counts = np.bincount(shown[mask & (shown >= 0)], minlength=len(COLOUR_NAMES))
    hue = int(counts.argmax()) if counts.any() else -1
    depth, owner = residue.depth[rows, columns], residue.owner[rows, columns]
    largest, least = largest_channel(difference), -largest_channel(-difference)
    grey = (largest - least < 0.35 * np.maximum(largest, -least) + 6) & (shown < 0)
    near = residue.nearest[rows, columns][mask & (depth < _NEAR)]
    if len(near) < 0.03 * area or not len(near):
        return Measures(-1, area, 0, 0, 0, 0, speckle, 0, 0, change, hue, 0)
    target = int(np.bincount(near).argmax())
    colour = COLOUR_NAMES.index(found[target].thing.colour)
    opacity = opacity_of(pixels, colour, rows, columns)
    inside = mask & (owner == target)
    plain = _SHADED if residue.shadows else _PLAIN
    bare = inside & (opacity < 0.35) & (shown < 0) & (pixels.contrast[rows, columns] < plain)
    foreign = inside & ~bare & (shown != colour)
    own = mask & (owner < 0) & (opacity > 0.15)
    values = opacity[own]
    if foreign.any():
        counts = np.bincount(shown[foreign & (shown >= 0)], minlength=len(COLOUR_NAMES))
        hue = int(counts.argmax()) if counts.any() else -1
    return Measures(
        target,
        area,
        inside=np.count_nonzero(inside) / area,
        bare=np.count_nonzero(bare) / area,
        foreign=np.count_nonzero(foreign) / area,
        own=len(values) / area,
        speckle=speckle,
        solid=float(values.mean()) if len(values) else 0.0,
        spread=float(values.std()) if len(values) else 0.0,
        change=change,
        hue=hue,
        grey=np.count_nonzero(grey & mask & (owner < 0)) / area,
    )


def _speckle(difference: np.ndarray, mask: np.ndarray) -> float:
    """Mean step between neighbours of a difference (h, w, 3) within a mask, over how much it varies."""
    values = difference[mask]
    size = float(np.abs(values).sum(axis=1).mean()) / 2
    # Speckle strays far about its mean, which need not be the colour it covers; even tints hardly stray.
    size = max(size, float(np.abs(values - values.mean(axis=0)).sum(axis=1).mean()))
    down = np.abs(np.diff(difference, axis=0)).sum(axis=2)[mask[1:] & mask[:-1]]
    across = np.abs(np.diff(difference, axis=1)).sum(axis=2)[mask[:, 1:] & mask[:, :-1]]
    steps = np.concatenate([down, across])
    return float(steps.mean()) / max(size, 1.0) if len(steps) else 0.0
