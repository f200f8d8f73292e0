"""How much a defect matters: criteria and weights of docs/background/testbed-conventions.md.

importance = round(100 · (0.30·prominence + 0.35·semantic + 0.20·area + 0.15·main)), within 5..97.
"""

from __future__ import annotations

from math import dist, sqrt
from typing import Final

from sdg.testbed.oracle.flaws import Box
from sdg.testbed.oracle.judgement import Cast, Contradiction
from sdg.testbed.oracle.perception import Artifact, Seen
from sdg.testbed.oracle.pixels import SIDE
from sdg.testbed.world.scene import COLOURS, Request

SEMANTIC: Final = {
    # misalignments
    "missing object": 1.0,
    "wrong relation": 0.8,
    "wrong shape": 0.75,
    "wrong colour": 0.7,
    "wrong count": 0.7,
    "wrong text": 0.7,
    "extra object": 0.6,
    "wrong size": 0.5,
    "wrong background": 0.5,
    # artifacts
    "malformed object": 0.8,
    "missing chunk": 0.7,
    "ghost copy": 0.6,
    "warp": 0.55,
    "smear": 0.5,
    "garbled letters": 0.5,
    "noise texture": 0.45,
    "broken edge": 0.4,
    "colour bleeding": 0.35,
    "wrong shadow": 0.3,
    "stray mark": 0.3,
}
"""How far a defect changes what the picture means; three of these only occur in generated pictures."""
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
            prominence = min(1.0, dist(shown, COLOURS[group.colour]) / 250)
        elif item.subtype == "wrong count":
            prominence = min(1.0, abs(len(item.things) - group.count) / group.count)
        elif item.subtype == "missing object":
            area = sqrt(group.count / sum(g.count for g in request.groups))
    return _weigh(prominence, SEMANTIC[item.subtype], area, main)


def rate_artifact(parts: Cast, item: Artifact) -> int:
    """Importance of an artifact, 5..97."""
    if item.subtype == "garbled letters":
        main = 0.5
    elif item.target < 0:
        main = 0.0
    else:
        groups = [n for n in range(len(parts.members)) if item.target in parts.players(n)]
        main = 0.3 if not groups else 1.0 if groups[0] == 0 else 0.5
    return _weigh(min(1.0, item.change / 110), SEMANTIC[item.subtype], _extent(item.box), main)


def _extent(box: Box) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return min(1.0, sqrt(area / (0.2 * SIDE * SIDE)))


def _weigh(prominence: float, meaning: float, area: float, main: float) -> int:
    score = 0.30 * prominence + 0.35 * meaning + 0.20 * area + 0.15 * main
    return max(5, min(97, round(100 * score)))
