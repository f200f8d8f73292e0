"""`sdg demo`: the whole story on the embedded world, from pictures to a report, in a few minutes."""

from __future__ import annotations

from sdg.demo.settings import Settings
from sdg.demo.story import Ending, run_demo

__all__ = ["Ending", "Settings", "run_demo"]
