"""How much a defect matters, from 5 to 97: the rubric's four criteria with fixed weights (SDG §3.1).

    importance = 100 · (0.30·prominence + 0.35·semantic + 0.20·area + 0.15·main)

docs/background/testbed-conventions.md says what each criterion is; the tiers follow from the number.
"""

from __future__ import annotations

from math import dist, sqrt
from typing import Final

from sdg.testbed.injection.artifacts import Artifact
from sdg.testbed.injection.boxes import Box, area
from sdg.testbed.injection.reading import Misalignment
from sdg.testbed.world.scene import COLOURS, Request, Scene

SEMANTIC: Final = {
    "missing object": 1.0,
    "wrong relation": 0.8,
    "wrong shape": 0.75,
    "wrong colour": 0.7,
    "wrong count": 0.7,
    "wrong text": 0.7,
    "extra object": 0.6,
    "wrong size": 0.5,
    "missing chunk": 0.7,
    "ghost copy": 0.6,
    "warp": 0.55,
    "smear": 0.5,
    "garbled letters": 0.5,
    "noise texture": 0.45,
    "broken edge": 0.4,
    "colour bleeding": 0.35,
    "wrong shadow": 0.3,
}
"""How far a defect of a subtype changes what the picture means."""

_STRONG_CHANGE: Final = 110.0  # mean change of pixels, of 255, that nobody overlooks
_STRONG_COLOUR: Final = 250.0  # distance in RGB of colours that nobody confuses
_LARGE_AREA: Final = 0.2  # share of the picture that counts as large


def misalignment_importance(request: Request, scene: Scene, size: int, found: Misalignment) -> int:
    """Importance of a misalignment of a scene drawn at `size` pixels."""
    group = None if found.group is None else request.groups[found.group]
    prominence, extent = 0.7, _extent(found.box, size)
    if found.subtype in ("missing object", "wrong relation", "wrong text"):
        prominence = 1.0
    elif found.subtype == "wrong colour":
        assert group is not None
        shown = scene.things[found.things[0]].colour
        prominence = min(1.0, dist(COLOURS[shown], COLOURS[group.colour]) / _STRONG_COLOUR)
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
    prominence = min(1.0, found.change / _STRONG_CHANGE)
    return _weigh(prominence, SEMANTIC[found.subtype], _extent(found.box, size), main)


def _extent(box: Box, size: int) -> float:
    return min(1.0, sqrt(area(box) / (_LARGE_AREA * size * size)))


def _weigh(prominence: float, semantic: float, extent: float, main: float) -> int:
    score = 0.30 * prominence + 0.35 * semantic + 0.20 * extent + 0.15 * main
    return max(5, min(97, round(100 * score)))
