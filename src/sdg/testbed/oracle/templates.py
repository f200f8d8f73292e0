"""A bank of small masks of every shape at many places and sizes: where a fit starts, found in one product.

The bank lives on a GRID × GRID window around a component, so one bank serves every size.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdg.testbed.world.renderer import DISTANCE
from sdg.testbed.world.scene import SHAPES

Floats = NDArray[np.float32]

GRID: Final = 20
_RADII: Final = (0.38, 0.43, 0.49, 0.55, 0.62, 0.70, 0.79, 0.89, 1.0)
_SHIFTS: Final = (-0.36, -0.24, -0.12, 0.0, 0.12, 0.24, 0.36)


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
