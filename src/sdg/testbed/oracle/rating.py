"""How much a defect matters: criteria and weights of docs/background/testbed-conventions.md.

importance = round(100 · (0.30·prominence + 0.35·semantic + 0.20·area + 0.15·main)), within 5..97.
"""

from __future__ import annotations

from math import dist, sqrt
from typing import Final

from sdg.testbed.conventions import (
    IMPORTANCE_RANGE,
    IMPORTANCE_WEIGHTS,
    LARGE_AREA,
    SEMANTIC,
    STRONG_CHANGE,
    STRONG_COLOUR,
)
from sdg.testbed.oracle.judgement import Cast, Contradiction
from sdg.testbed.oracle.perception import Seen, SeenArtifact
from sdg.testbed.oracle.pixels import SIDE, Box
from sdg.testbed.world.scene import COLOURS, Request

_PROMINENT: Final = {"missing object": 1.0, "wrong relation": 1.0, "wrong text": 1.0}
_OTHERWISE: Final = 0.7


def rate_contradiction(request: Request, seen: tuple[Seen, ...], item: Contradiction) -> int:
    """Importance of a misalignment, 5..97."""
    prominence = _PROMINENT.get(item.subtype, _OTHERWISE)
    area = _extent(item.box)
    main = {"extra object": 0.3, "wrong text": 0.5, "wrong background": 0.0, "wrong relation": 1.0}.get(
        item.subtype, 1.0 if item.group == 0 else 0.5
    )
    if item.group is not None:
        group = request.groups[item.group]
        if item.subtype == "wrong colour":
            shown = COLOURS[seen[item.things[0]].colour]
            prominence = min(1.0, dist(shown, COLOURS[group.colour]) / STRONG_COLOUR)
        elif item.subtype == "wrong count":
            prominence = min(1.0, abs(len(item.things) - group.count) / group.count)
        elif item.subtype == "missing object":
            area = sqrt(group.count / sum(g.count for g in request.groups))
    return _weigh(prominence, SEMANTIC[item.subtype], area, main)


def rate_artifact(parts: Cast, item: SeenArtifact) -> int:
    """Importance of an artifact, 5..97."""
    if item.subtype == "garbled letters":
        main = 0.5
    elif item.target < 0:
        main = 0.0
    else:
        groups = [n for n in range(len(parts.members)) if item.target in parts.players(n)]
        main = 0.3 if not groups else 1.0 if groups[0] == 0 else 0.5
    return _weigh(min(1.0, item.change / STRONG_CHANGE), SEMANTIC[item.subtype], _extent(item.box), main)


def _extent(box: Box) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return min(1.0, sqrt(area / (LARGE_AREA * SIDE * SIDE)))


def _weigh(prominence: float, meaning: float, area: float, main: float) -> int:
    w_prominence, w_meaning, w_area, w_main = IMPORTANCE_WEIGHTS
    score = w_prominence * prominence + w_meaning * meaning + w_area * area + w_main * main
    low, high = IMPORTANCE_RANGE
    return max(low, min(high, round(100 * score)))
