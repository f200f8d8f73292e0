"""The numbers of docs/background/testbed-conventions.md, which injection and the oracle share."""

from __future__ import annotations

from typing import Final

LEAST_SIDE: Final = 12
"""Least side of a defect's box in pixels of a 128-pixel picture."""

EDGE: Final = 0.36
"""Share of the picture on each side that is not its middle."""
CENTRE: Final = 0.2
"""Distance from an object's centre, in radii, that is its middle."""
