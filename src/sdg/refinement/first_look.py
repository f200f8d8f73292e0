"""The first look at the pictures of a run: read and diagnosed, so many at a time, and when to give up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image

from sdg.defects import Diagnosis, Status
from sdg.detectors.base import Outcome, StreamingDetector
from sdg.detectors.bulk import Item
from sdg.errors import SdgError
from sdg.images import load_image

CHUNK: Final = 16
"""Pictures whose first diagnosis is asked for together."""
HOPELESS: Final = 8
"""So many pictures in a row without a diagnosis, or without an edit, end a run: the server is down."""


@dataclass(frozen=True, slots=True)
class Looked:
    """One picture as it was found; error: why it cannot be read (picture is None) or got no diagnosis."""

    item: Item
    picture: Image.Image | None
    found: Diagnosis
    error: str = ""


def look(items: Sequence[Item], detector: StreamingDetector) -> Iterator[list[Looked]]:
    """Read and diagnose the items, CHUNK at a time, in their order.

    Raises SdgError for what concerns every picture, such as memory too small for the detector's batch.
    """
    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        read = [_read(item) for item in chunk]
        fit = [place for place, (picture, _) in enumerate(read) if picture is not None]
        pairs = [(chunk[place].file, chunk[place].prompt) for place in fit]
        outcomes = {fit[index]: outcome for index, outcome in detector.stream(pairs)} if pairs else {}
        unread = Outcome(Diagnosis(status=Status.FAILED))
        yield [
            _looked(item, picture, error, outcomes.get(place, unread))
            for place, (item, (picture, error)) in enumerate(zip(chunk, read, strict=True))
        ]


def _read(item: Item) -> tuple[Image.Image | None, str]:
    try:
        return load_image(item.file), ""
    except SdgError as error:
        return None, str(error)


def _looked(item: Item, picture: Image.Image | None, error: str, outcome: Outcome) -> Looked:
    if picture is not None and outcome.diagnosis.status is Status.FAILED:
        error = f"The input could not be diagnosed: {outcome.error}"
    return Looked(item, picture, outcome.diagnosis, error)
