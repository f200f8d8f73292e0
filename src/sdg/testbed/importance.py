"""How much a defect matters, from 5 to 97: the rubric's four criteria with fixed weights (SDG §3.1).

    importance = 100 · (0.30·prominence + 0.35·semantic + 0.20·area + 0.15·main)

docs/background/testbed-conventions.md says what each criterion is; the tiers follow from the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import dist, sqrt
from typing import Final

from sdg.testbed.world.boxes import Box, area
from sdg.testbed.world.scene import COLOURS, Request

_WEIGHTS: Final = (0.30, 0.35, 0.20, 0.15)
"""Of prominence, meaning, area and main subject: importance in hundreds is their weighted sum (SDG §3.1)."""
_RANGE: Final = (5, 97)
_STRONG_CHANGE: Final = 110.0
"""Mean change of pixels, of 255, that nobody overlooks."""
_STRONG_COLOUR: Final = 250.0
"""Distance in RGB of colours that nobody confuses."""
_LARGE_AREA: Final = 0.2
"""Share of the picture that counts as large."""

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
"""How far a defect changes what the picture means."""


def misalignment_importance(
    request: Request, subtype: str, group: int | None, colours: Sequence[str], box: Box, size: int
) -> int:
    """Importance of a misalignment. group: of the request, None for none; colours: of the objects concerned.

    box: its pixels, of a picture with `size` pixels a side.
    """
    prominence = 1.0 if subtype in ("missing object", "wrong relation", "wrong text") else 0.7
    extent = _extent(box, size)
    main = {"extra object": 0.3, "wrong text": 0.5, "wrong background": 0.0, "wrong relation": 1.0}.get(
        subtype, 1.0 if group == 0 else 0.5
    )
    if group is not None:
        asked = request.groups[group]
        if subtype == "wrong colour":
            prominence = min(1.0, dist(COLOURS[colours[0]], COLOURS[asked.colour]) / _STRONG_COLOUR)
        elif subtype == "wrong count":
            prominence = min(1.0, abs(len(colours) - asked.count) / asked.count)
        elif subtype == "missing object":
            extent = sqrt(asked.count / sum(g.count for g in request.groups))
    return _weigh(prominence, subtype, extent, main)


def artifact_importance(subtype: str, group: int | None, change: float, box: Box, size: int) -> int:
    """Importance of an artifact. group: of the object it is on, −1 for one nobody asked for, None for none.

    change: mean difference of its pixels, 0..255; box, size: as above.
    """
    main = 0.0 if group is None else 0.3 if group < 0 else 1.0 if group == 0 else 0.5
    if subtype == "garbled letters":
        main = 0.5
    return _weigh(min(1.0, change / _STRONG_CHANGE), subtype, _extent(box, size), main)


def _extent(box: Box, size: int) -> float:
    return min(1.0, sqrt(area(box) / (_LARGE_AREA * size * size)))


def _weigh(prominence: float, subtype: str, extent: float, main: float) -> int:
    a, b, c, d = _WEIGHTS
    score = a * prominence + b * SEMANTIC[subtype] + c * extent + d * main
    low, high = _RANGE
    return max(low, min(high, round(100 * score)))
