"""A detector and an editor that go by the brightness of pictures; run as a script, a batch that dies."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from sdg import Defect, Diagnosis, Status
from sdg.detectors.base import StreamingDetector, failed
from sdg.images import Pair, Source, rgb_picture
from sdg.refinement import EditRequest, EditResult
from sdg.refinement.batch import Plan, refine_all
from sdg.runs.inputs import Item

BOX = (250, 250, 750, 750)


class Brightness(StreamingDetector):
    """One defect, as important as the middle pixel is bright; black is clean, 255 gets no answer.

    It breaks when it is asked by two threads at once, as detectors may.
    """

    def __init__(self) -> None:
        self._free = threading.Lock()

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {"detector": "brightness"}

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Diagnosis]]:
        assert self._free.acquire(blocking=False), "asked while it is answering"
        try:
            for index in range(len(pairs)) if wanted is None else sorted(wanted):
                yield index, self._answer(pairs[index][0])
        finally:
            self._free.release()

    def _answer(self, image: Source) -> Diagnosis:
        shown = rgb_picture(image)
        red = shown.getpixel((shown.width // 2, shown.height // 2))[0]
        if red == 255:
            return failed("Too bright to look at.")
        found = (Defect(BOX, "artifact", "too bright", min(100, red)),) if red else ()
        return Diagnosis(found, status=Status.OK)


class Halver:
    """Halves the brightness; green pictures are refused. dies_after: edits until the process is gone."""

    def __init__(self, dies_after: int | None = None, concurrency: int = 1) -> None:
        self.edits, self.dies_after, self.concurrency = 0, dies_after, concurrency

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [self._one(request) for request in requests]

    def _one(self, request: EditRequest) -> EditResult:
        if self.edits == self.dies_after:
            os._exit(9)
        self.edits += 1
        red, green, _ = request.picture.getpixel((16, 16))
        if green > red:
            return EditResult(None, "Refused.")
        return EditResult(Image.new("RGB", request.picture.size, (red // 2,) * 3))


def items(folder: Path) -> list[Item]:
    """The PNG files of a folder."""
    return [Item(file.name, "a cup", file) for file in sorted(folder.glob("*.png"))]


if __name__ == "__main__":
    source, out, dies_after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    refine_all(
        items(source), out, detector=Brightness(), editor=Halver(dies_after), plan=Plan("halver"), resume=True
    )
