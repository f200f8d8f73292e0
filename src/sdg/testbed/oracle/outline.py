"""Fit a shape to points of an outline: iteratively reweighted least squares on signed distances.

Distances are smooth and reach far, so a start a few pixels off converges, and the weights let go of what is
smeared, bitten off or torn.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdg.testbed.renderer import DISTANCE
from sdg.testbed.world import Thing

Floats = NDArray[np.float32]

_SCALES: Final = (4.0, 2.5, 1.6, 1.1, 0.8, 0.8)
"""Distance in pixels at which a point loses three quarters of its weight, step by step."""
_STEP: Final = np.float32(0.25)
_OFFSETS: Final = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)], np.float32) * _STEP


def outline_points(alpha: Floats, most: int = 160) -> Floats:
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
    x, y, radius, angle = start.x, start.y, start.radius, np.radians(start.angle)
    unknowns = 4 if turn else 3
    for scale in _SCALES:
        px, py = points[:, 0] - np.float32(x), points[:, 1] - np.float32(y)
        if angle:
            cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            px, py = cos * px + sin * py, cos * py - sin * px
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
        step = -np.linalg.solve(normal, weighted @ d)
        limit = 0.35 * radius
        step = np.clip(step, -limit, limit)
        dx, dy = float(step[0]), float(step[1])
        if angle:
            cos, sin = np.cos(angle), np.sin(angle)
            dx, dy = cos * dx - sin * dy, sin * dx + cos * dy
        x, y = x + dx, y + dy
        radius = float(np.clip(radius + step[2], start.radius / 1.6, start.radius * 1.6))
        if turn:
            angle = float(np.clip(angle + step[3] / radius, -np.pi / 4, np.pi / 4))
    x = float(np.clip(x, start.x - start.radius, start.x + start.radius))
    y = float(np.clip(y, start.y - start.radius, start.y + start.radius))
    return Thing(start.shape, start.colour, x, y, radius, float(np.degrees(angle)), start.group)
