"""How a shape is brought to its place: a start from a bank of small masks, then a fit to an outline's points.

The bank lives on a GRID × GRID window around a component, so one bank serves every size, and one product
finds the start. The fit is by iteratively reweighted least squares on signed distances: these are smooth and
reach far, so a start a few pixels off converges, and the weights let go of what is smeared, bitten or torn.
"""

from __future__ import annotations

from functools import lru_cache
from math import cos as cosine
from math import degrees, pi, radians
from math import sin as sine
from typing import Final, NamedTuple

import numpy as np
from scipy.linalg.lapack import dposv

from sdg.testbed.world.renderer import DISTANCE, Floats
from sdg.testbed.world.scene import SHAPES, Thing

_SCALES: Final = (4.0, 2.5, 1.6, 1.1, 0.8, 0.8)
"""Distance in pixels at which a point loses three quarters of its weight, step by step."""
_STEP: Final = np.float32(0.25)
_OFFSETS: Final = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)], np.float32) * _STEP
GRID: Final = 20
_RADII: Final = (0.38, 0.43, 0.49, 0.55, 0.62, 0.70, 0.79, 0.89, 1.0)
_SHIFTS: Final = (-0.36, -0.24, -0.12, 0.0, 0.12, 0.24, 0.36)


def outline_points(alpha: Floats, most: int = 128) -> Floats:
    """Points (N, 2) as (x, y) where coverage crosses one half between neighbouring pixel centres.

    alpha: (h, w) coverage; coordinates count pixels of the array, so that a pixel's centre is at + 0.5.
    """
    inside = alpha > 0.5
    found = []
    for axis in (0, 1):
        first, second = (alpha[:-1], alpha[1:]) if axis == 0 else (alpha[:, :-1], alpha[:, 1:])
        before, after = (inside[:-1], inside[1:]) if axis == 0 else (inside[:, :-1], inside[:, 1:])
        rows, columns = np.nonzero(before != after)
        a, b = first[rows, columns], second[rows, columns]
        along = (np.float32(0.5) - a) / (b - a) + np.float32(0.5)
        across = np.float32(0.5)
        found.append(
            np.stack(
                [columns + across, rows + along] if axis == 0 else [columns + along, rows + across], axis=1
            )
        )
    points = np.concatenate(found).astype(np.float32)
    if len(points) > most:  # evenly thinned: enough for four unknowns
        points = points[np.linspace(0, len(points) - 1, most).astype(np.intp)]
    return points


def fit_outline(points: Floats, start: Thing, *, turn: bool = False) -> Thing:
    """The thing near `start` whose outline passes through most points; with `turn`, its angle is fitted too.

    points: (N, 2) in scene units. The centre moves by at most a radius, and the radius by a factor of 1.6.
    """
    if len(points) < 8:
        return start
    distance = DISTANCE[start.shape]
    x, y, radius, angle = start.x, start.y, start.radius, radians(start.angle)
    unknowns = 4 if turn else 3
    for scale in _SCALES:
        px, py = points[:, 0] - np.float32(x), points[:, 1] - np.float32(y)
        if angle:
            cos, sin = cosine(angle), sine(angle)
            px, py = np.float32(cos) * px + np.float32(sin) * py, np.float32(cos) * py - np.float32(sin) * px
        d, right, left, down, up = distance(
            px + _OFFSETS[:, :1], py + _OFFSETS[:, 1:], float(radius)
        )  # (5, N) at once
        gx, gy = (right - left) / (2 * _STEP), (down - up) / (2 * _STEP)
        weight = (scale**2 / (scale**2 + d**2)) ** 2
        # Euler's theorem: a distance of degree one in (x, y, r) has ∂d/∂r = (d − x·∂x d − y·∂y d)/r.
        rows = [-gx, -gy, (d - px * gx - py * gy) / np.float32(radius)]
        if turn:
            rows.append(
                (py * gx - px * gy) / np.float32(radius)
            )  # per radian times radius, to match in scale
        jacobian = np.stack(rows).astype(np.float64)
        weighted = jacobian * weight
        normal = weighted @ jacobian.T
        normal.flat[:: unknowns + 1] += 1e-3 * len(d) + 1e-6
        limit = 0.35 * radius
        # The bare LAPACK routine: for matrices this small, numpy's checks take longer than solving.
        solution = dposv(normal, weighted @ d)[1].tolist()
        dx, dy, grow, *spin = (min(max(-value, -limit), limit) for value in solution)
        if angle:
            dx, dy = cos * dx - sin * dy, sin * dx + cos * dy
        x, y = x + dx, y + dy
        radius = min(max(radius + grow, start.radius / 1.6), start.radius * 1.6)
        if turn:
            angle = min(max(angle + spin[0] / radius, -pi / 4), pi / 4)
    x = min(max(x, start.x - start.radius), start.x + start.radius)
    y = min(max(y, start.y - start.radius), start.y + start.radius)
    return Thing(start.shape, start.colour, x, y, radius, degrees(angle), start.group)


class Start(NamedTuple):
    """Where a fit may start: shape, centre and radius in half windows, share of cells that differ."""

    shape: str
    x: float
    y: float
    radius: float
    mismatch: float


@lru_cache(maxsize=1)
def _bank() -> tuple[Floats, Floats]:
    """Masks (6 · n, GRID²) of 0 and 1, and their (n, 3) centres and radii, the same for each shape."""
    axis = ((np.arange(GRID, dtype=np.float32) + 0.5) / GRID) * 2 - 1
    places = np.array([(x, y, r) for r in _RADII for y in _SHIFTS for x in _SHIFTS], np.float32)
    across = axis[None, None, :] - places[:, 0, None, None]
    down = axis[None, :, None] - places[:, 1, None, None]
    # Distances scale with the shape, so a template of radius r is the unit shape seen at 1/r.
    unit = places[:, 2, None, None]
    x, y = np.broadcast_arrays(across / unit, down / unit)
    masks = [DISTANCE[shape](x, y, 1.0) < 0 for shape in SHAPES]
    return np.concatenate(masks).reshape(len(SHAPES) * len(places), -1).astype(np.float32), places


def best_starts(evidence: Floats, weight: Floats, *, sizes: int = 1) -> list[Start]:
    """Best starts of each shape, best first, for (GRID, GRID) evidence in 0..1 and weights.

    sizes: how many of each shape, of different radii; one is enough unless much of the shape is missing.
    The mismatch is Σ w·|evidence − template| / Σ w·evidence: 0 is a perfect match, 1 as bad as no template.
    """
    masks, places = _bank()
    gain = (weight * (1 - 2 * evidence)).reshape(-1)
    mass = float(np.sum(weight * evidence))
    # einsum rather than BLAS, whose threads cost more than such a product where cores are busy.
    costs = np.einsum("ij,j->i", masks, gain).reshape(len(SHAPES), len(_RADII), -1)
    starts = []
    for shape, by_radius in zip(SHAPES, costs, strict=True):
        best = by_radius.argmin(axis=1)
        cost = by_radius[np.arange(len(_RADII)), best]
        for index in np.argsort(cost)[:sizes]:
            x, y, radius = places[index * by_radius.shape[1] + best[index]]
            mismatch = (float(cost[index]) + mass) / max(mass, 1e-6)
            starts.append(Start(shape, float(x), float(y), float(radius), mismatch))
    return sorted(starts, key=lambda start: start.mismatch)
