"""The servers that these tests start are imported by name, here and from the rooms they stand in for."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / room) for room in ("detectors", "refinement"))]
