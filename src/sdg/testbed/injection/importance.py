"""How much a defect matters, from 5 to 97: the rubric's four criteria with fixed weights (SDG §3.1).

    importance = 100 · (0.30·prominence + 0.35·semantic + 0.20·area + 0.15·main)

docs/background/testbed-conventions.md says what each criterion is; the tiers follow from the number.
"""

from __future__ import annotations

from math import dist, sqrt

from sdg.testbed.conventions import (
    IMPORTANCE_RANGE,
    IMPORTANCE_WEIGHTS,
    LARGE_AREA,
    SEMANTIC,
    STRONG_CHANGE,
    STRONG_COLOUR,
)
from sdg.testbed.injection.artifacts import Artifact
from sdg.testbed.injection.boxes import Box, area
from sdg.testbed.injection.reading import Misalignment
from sdg.testbed.world.scene import COLOURS, Request, Scene


def misalignment_importance(request: Request, scene: Scene, size: int, found: Misalignment) -> int:
    """Importance of a misalignment of a scene drawn at `size` pixels."""
    group = None if found.group is None else request.groups[found.group]
    prominence, extent = 0.7, _extent(found.box, size)
    if found.subtype in ("missing object", "wrong relation", "wrong text"):
        prominence = 1.0
    elif found.subtype == "wrong colour":
        assert group is not None
        shown = scene.things[found.things[0]].colour
        prominence = min(1.0, dist(COLOURS[shown], COLOURS[group.colour]) / STRONG_COLOUR)
    elif found.subtype == "wrong count":
        assert group is not None
        prominence = min(1.0, abs(len(found.things) - group.count) / group.count)
    if found.subtype == "missing object":
        assert group is not None
        extent = sqrt(group.count / sum(g.count for g in request.groups))
    if found.subtype == "extra object":
        main = 0.3
    elif found.subtype == "wrong text":
        main = 0.5
    else:
        main = 1.0 if found.subtype == "wrong relation" or found.group == 0 else 0.5
    return _weigh(prominence, SEMANTIC[found.subtype], extent, main)


def artifact_importance(scene: Scene, size: int, found: Artifact) -> int:
    """Importance of an artifact on a scene drawn at `size` pixels."""
    if found.subtype == "garbled letters":
        main = 0.5
    elif found.target < 0:
        main = 0.0
    else:
        group = scene.things[found.target].group
        main = 0.3 if group < 0 else 1.0 if group == 0 else 0.5
    prominence = min(1.0, found.change / STRONG_CHANGE)
    return _weigh(prominence, SEMANTIC[found.subtype], _extent(found.box, size), main)


def _extent(box: Box, size: int) -> float:
    return min(1.0, sqrt(area(box) / (LARGE_AREA * size * size)))


def _weigh(prominence: float, semantic: float, extent: float, main: float) -> int:
    a, b, c, d = IMPORTANCE_WEIGHTS
    score = a * prominence + b * semantic + c * extent + d * main
    low, high = IMPORTANCE_RANGE
    return max(low, min(high, round(100 * score)))
