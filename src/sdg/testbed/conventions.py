"""The numbers of docs/background/testbed-conventions.md, which injection and the oracle share."""

from __future__ import annotations

from typing import Final

LEAST_SIDE: Final = 12
"""Least side of a defect's box in pixels of a 128-pixel picture."""

IMPORTANCE_WEIGHTS: Final = (0.30, 0.35, 0.20, 0.15)
"""Of prominence, meaning, area and main subject: importance in hundreds is their weighted sum (SDG §3.1)."""
IMPORTANCE_RANGE: Final = (5, 97)
STRONG_CHANGE: Final = 110.0
"""Mean change of pixels, of 255, that nobody overlooks."""
STRONG_COLOUR: Final = 250.0
"""Distance in RGB of colours that nobody confuses."""
LARGE_AREA: Final = 0.2
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

EDGE: Final = 0.36
"""Share of the picture on each side that is not its middle."""
CENTRE: Final = 0.2
"""Distance from an object's centre, in radii, that is its middle."""
