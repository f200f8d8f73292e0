"""Detectors and an editor for tests of the app: quick, and sure of what they find."""

from __future__ import annotations

import time

from everything import HOSTILE
from PIL import Image

from sdg.defects import Defect, Diagnosis
from sdg.refinement.request import EditRequest

REPAIRED = (90, 160, 90)
FOUND = (
    Defect((100, 200, 400, 500), "artifact", "The left shape is smeared.", 72),
    Defect((500, 500, 900, 900), "misalignment", HOSTILE, 35),
)


def find(picture: Image.Image, prompt: str) -> Diagnosis:
    """Always the same, where a picture is not repaired yet; takes a moment where the prompt says so."""
    if "slow" in prompt:
        time.sleep(1.5)
    if "fail" in prompt:
        raise RuntimeError("the server is on fire")
    left = tuple(
        defect
        for defect in FOUND
        if picture.getpixel(tuple(c * s // 1000 for c, s in zip(_middle(defect), picture.size, strict=True)))
        != REPAIRED
    )
    return Diagnosis(left, f"I looked. {HOSTILE}")


def other(picture: Image.Image, prompt: str) -> Diagnosis:
    """Agrees on the first defect, and sees another one."""
    return Diagnosis(
        (
            Defect((120, 210, 420, 520), "artifact", "Smear.", 60),
            Defect((10, 800, 200, 990), "artifact", "A ghost.", 40),
        )
    )


def edit(request: EditRequest) -> Image.Image:
    """Paints everything in one colour: what shows outside of a mask would be seen."""
    return Image.new("RGB", request.picture.size, REPAIRED)


def _middle(defect: Defect) -> tuple[int, int]:
    x0, y0, x1, y1 = defect.box
    return (x0 + x1) // 2, (y0 + y1) // 2
