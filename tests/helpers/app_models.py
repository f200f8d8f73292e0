"""Detectors and an editor for tests of the app: quick, and sure of what they find."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence

from everything import HOSTILE
from PIL import Image

from sdg.defects import Defect, Diagnosis
from sdg.detectors.base import StreamingDetector
from sdg.images import Pair
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


class Sampling(StreamingDetector):
    """Of sampled answers all find the first defect, every second one the next, every fourth a ghost."""

    def __init__(self, temperature: str = "0") -> None:
        self._samples = float(temperature) > 0

    @property
    def identity(self) -> dict[str, str | int | float]:
        return {"detector": "sampling"}

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Diagnosis]]:
        ghost = Defect((10, 800, 200, 990), "artifact", "A ghost.", 40)
        for index in range(len(pairs)) if wanted is None else wanted:
            left = 1 + (index % 2 == 0) + (index % 4 == 0) if self._samples else 1
            yield index, Diagnosis((*FOUND, ghost)[:left])


def edit(request: EditRequest) -> Image.Image:
    """Paints everything in one colour: what shows outside of a mask would be seen."""
    return Image.new("RGB", request.picture.size, REPAIRED)


def _middle(defect: Defect) -> tuple[int, int]:
    x0, y0, x1, y1 = defect.box
    return (x0 + x1) // 2, (y0 + y1) // 2
