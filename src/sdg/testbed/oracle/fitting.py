"""Fit a shape to a patch of one colour: start from the template bank, follow the outline, compare areas.

The measure throughout is the mismatch: pixels that differ between patch and shape, over the larger.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdg.testbed.oracle.outline import GRID, Start, best_starts, fit_outline, outline_points
from sdg.testbed.oracle.pixels import COLOUR_NAMES, SIDE, Bools, Floats, Pixels
from sdg.testbed.world.boxes import mask_box
from sdg.testbed.world.renderer import signed_distance
from sdg.testbed.world.scene import COLOURS, Thing

N = TypeVar("N", np.bool_, np.float32)
SOLID: Final = 0.56
"""Opacity from which a pixel belongs to an object; a ghost copy has at most 0.5."""

_FOREIGN_WEIGHT: Final = np.float32(0.35)
"""Say of a pixel of a foreign colour: it may hide the object, or lie beside it."""
_CONTENDERS: Final = 3
_CONTENDER_MARGIN: Final = 0.16
_MANY_CONTENDERS: Final = 9
_DAMAGED: Final = 0.2
"""Mismatch from which more starts are tried."""
_STRAIGHT: Final = 0.03
"""Mismatch below which no turned shape is tried."""
_TURNS: Final = (-13.0, 13.0)
_TURN_GAIN: Final = 0.62
"""A turned shape has to bring the mismatch down to this share of the upright one's."""
_ASKED_BONUS: Final = 0.85
"""Factor on the mismatch of a shape the prompt asks for in this colour: benefit of the doubt."""
_POSE_UNCLEAR: Final = 0.25
_TURNABLE: Final = {"square": 2.96, "triangle": 1.63, "star": 1.32, "cross": 2.15}
"""Shapes that look different when turned, and their area at radius 1."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The best shape for a patch: the thing, its mismatch (0 perfect), and that of the best other shape."""

    thing: Thing
    mismatch: float
    runner_up: float


@dataclass(frozen=True, slots=True)
class Window:
    """A square crop around a patch. x0, y0: its corner in the picture; opacity, weight: (h, w) float32."""

    x0: int
    y0: int
    opacity: Floats
    weight: Floats
    evidence: Floats
    centre: tuple[float, float]
    half: float
    solid: float


def opacity_of(pixels: Pixels, colour: int, rows: slice, columns: slice) -> Floats:
    """How much of each pixel one palette colour covers, 0..1, other colours counting as none, (h, w)."""
    backdrop = pixels.backdrop[rows, columns]
    towards = np.array(COLOURS[COLOUR_NAMES[colour]], np.float32) - backdrop
    difference = pixels.picture[rows, columns] - backdrop
    length = np.einsum("hwc,hwc->hw", towards, towards)
    alpha = np.einsum("hwc,hwc->hw", difference, towards) / length
    beside = difference - alpha[..., None] * towards
    mixed = np.einsum("hwc,hwc->hw", beside, beside) < np.float32(52.0**2)
    alpha = np.where(mixed | (pixels.colour[rows, columns] == colour), alpha, np.float32(0))
    return np.clip(alpha, 0, 1)


def window(
    pixels: Pixels, colour: int, mask: Bools, *, solid: float = SOLID, ignore: Bools | None = None
) -> Window:
    """The surroundings of a patch (a mask of the whole picture), with evidence for `colour` alone.

    solid: opacity from which a pixel is the object's. ignore: pixels already explained by another object;
    they speak neither for nor against.
    """
    box = mask_box(mask)
    assert box is not None, "a patch has pixels"
    x0, y0, x1, y1 = box
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    half = max(x1 - x0, y1 - y0) / 2 * 1.35 + 1.0
    left, right = max(0, int(centre[0] - half)), min(SIDE, int(np.ceil(centre[0] + half)))
    top, bottom = max(0, int(centre[1] - half)), min(SIDE, int(np.ceil(centre[1] + half)))
    area = slice(top, bottom), slice(left, right)
    opacity = opacity_of(pixels, colour, *area)
    # The patch itself, and its soft edge: other patches of this colour are other objects.
    opacity = np.where(grown(mask)[area], opacity, np.float32(0))
    foreign = (pixels.colour[area] >= 0) & (opacity < solid)
    weight = np.where(foreign, _FOREIGN_WEIGHT, np.float32(1))
    if ignore is not None:
        weight = np.where(ignore[area], np.float32(0), weight)
        opacity = np.where(ignore[area], np.float32(0), opacity)
    evidence = (opacity > solid).astype(np.float32)
    return Window(left, top, opacity, weight, evidence, centre, half, solid)


def grown(values: NDArray[N], times: int = 1) -> NDArray[N]:
    """A mask and its neighbours in the four directions, or the largest of these values, `times` over."""
    for _ in range(times):
        out = values.copy()
        np.maximum(out[1:], values[:-1], out=out[1:])
        np.maximum(out[:-1], values[1:], out=out[:-1])
        np.maximum(out[:, 1:], values[:, :-1], out=out[:, 1:])
        np.maximum(out[:, :-1], values[:, 1:], out=out[:, :-1])
        values = out
    return values


def fit_patch(view: Window, colour: int, asked: Collection[str] = ()) -> Fit:
    """The shape, place, size and, if need be, angle that explain a patch best.

    asked: shapes the prompt asks for in this colour; they win a draw.
    """
    evidence, weight = _sampled(view)
    # The half-coverage line is drawn where a pixel is solid.
    points = outline_points(view.opacity * np.float32(0.5 / view.solid))
    points += np.array([view.x0, view.y0], np.float32)
    ranked = _ranked(view, points, colour, best_starts(evidence, weight), asked)
    if ranked[0][0] > _DAMAGED:
        # The best start of a bitten shape may be a small one inside it: try several sizes of each.
        more = _ranked(view, points, colour, best_starts(evidence, weight, sizes=4), asked, _MANY_CONTENDERS)
        ranked = _by_merit(ranked + more, asked)
    if ranked[0][0] > _STRAIGHT:
        ranked = _turned(view, points, ranked, asked)
    best, thing = ranked[0]
    return Fit(
        thing, best, min((value for value, other in ranked if other.shape != thing.shape), default=1.0)
    )


def _ranked(
    view: Window,
    points: Floats,
    colour: int,
    starts: Sequence[Start],
    asked: Collection[str],
    contenders: int = _CONTENDERS,
) -> list[tuple[float, Thing]]:
    """Mismatch and thing for the most promising starts, fitted to the outline, best first."""
    limit = starts[0].mismatch + _CONTENDER_MARGIN
    ranked = []
    for place, start in enumerate(starts):
        if start.mismatch > limit or (place >= contenders and start.shape not in asked):
            continue
        x, y = view.centre[0] + start.x * view.half, view.centre[1] + start.y * view.half
        guess = Thing(start.shape, COLOUR_NAMES[colour], x, y, start.radius * view.half)
        thing = fit_outline(points, guess)
        ranked.append((mismatch(view, thing), thing))
    return _by_merit(ranked, asked)


def _by_merit(ranked: list[tuple[float, Thing]], asked: Collection[str]) -> list[tuple[float, Thing]]:
    return sorted(ranked, key=lambda pair: pair[0] * (_ASKED_BONUS if pair[1].shape in asked else 1.0))


def mismatch(view: Window, thing: Thing) -> float:
    """Share of pixels on which a patch and a thing differ: 0 for a perfect fit, 1 and more for none."""
    height, width = view.evidence.shape
    inside = np.zeros((height, width), np.float32)
    rows, columns, distance = signed_distance(thing, SIDE, pad=1.0)
    top, left = max(rows.start, view.y0), max(columns.start, view.x0)
    bottom = min(rows.stop, view.y0 + height)
    right = min(columns.stop, view.x0 + width)
    outside = float(np.count_nonzero(distance < 0))
    if bottom > top and right > left:
        part = (
            distance[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] < 0
        )
        inside[top - view.y0 : bottom - view.y0, left - view.x0 : right - view.x0] = part
        outside -= float(np.count_nonzero(part))
    wrong = float(np.sum(view.weight * np.abs(view.evidence - inside))) + outside
    size = max(float(np.sum(view.weight * view.evidence)), float(np.sum(inside)) + outside, 1.0)
    return wrong / size


def crispness(view: Window, thing: Thing) -> float:
    """Drop in mean opacity from just inside a thing's outline to just outside: 1 for a sharp edge."""
    rows, columns, distance = signed_distance(thing, SIDE, pad=4.0)
    top, left = max(rows.start, view.y0), max(columns.start, view.x0)
    bottom = min(rows.stop, view.y0 + view.opacity.shape[0])
    right = min(columns.stop, view.x0 + view.opacity.shape[1])
    if bottom <= top or right <= left:
        return 0.0
    distance = distance[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]
    part = slice(top - view.y0, bottom - view.y0), slice(left - view.x0, right - view.x0)
    known = view.weight[part] > 0
    inside = view.opacity[part][(distance > -3.5) & (distance < -1.5) & known]
    outside = view.opacity[part][(distance > 1.5) & (distance < 3.5) & known]
    if not len(inside) or not len(outside):
        return 0.0
    return float(inside.mean() - outside.mean())


def _turned(
    view: Window, points: Floats, ranked: list[tuple[float, Thing]], asked: Collection[str]
) -> list[tuple[float, Thing]]:
    """The ranking with turned versions of its shapes added where they fit far better than upright ones."""
    best_upright, best = ranked[0]
    turned = []
    best_of: dict[str, Thing] = {}
    for _, thing in ranked:
        best_of.setdefault(thing.shape, thing)
    tried = [thing for thing in list(best_of.values())[:2] if thing.shape in _TURNABLE]
    if best_upright > _POSE_UNCLEAR:
        # Turned halfway to its next pose a shape matches its upright self no better than a disc.
        known = {thing.shape for thing in tried}
        mass = float(np.sum(view.evidence))
        tried += [
            replace(best, shape=shape, radius=float(np.sqrt(mass / area)))
            for shape, area in _TURNABLE.items()
            if shape not in known
        ]
    for thing in tried:
        for angle in _TURNS if best_upright > _POSE_UNCLEAR else (0.0,):
            candidate = fit_outline(points, replace(thing, angle=angle), turn=True)
            if abs(candidate.angle) > 24.0:
                continue
            value = mismatch(view, candidate)
            if value < _TURN_GAIN * best_upright:
                turned.append((value, candidate))
    return _by_merit(ranked + turned, asked)


def _sampled(view: Window) -> tuple[Floats, Floats]:
    """Evidence and weight of a window on the bank's grid, (GRID, GRID) each; outside the picture unknown."""
    cells = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    x = np.floor(view.centre[0] + cells * view.half).astype(np.intp) - view.x0
    y = np.floor(view.centre[1] + cells * view.half).astype(np.intp) - view.y0
    height, width = view.evidence.shape
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None]
    picked = np.ix_(np.clip(y, 0, height - 1), np.clip(x, 0, width - 1))
    # Objects are drawn whole: beyond the picture's edge counts against a shape a little.
    weight = np.where(inside, view.weight[picked], np.float32(0.5))
    return np.where(inside, view.evidence[picked], np.float32(0)), weight
