"""The pictures that a run works on, read and diagnosed chunk by chunk, and how many errors end it.

Also heat maps of them that a model wrote, which mode `heatmap` takes in place of boxes (SDG §5.2.2).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from sdg.defects import DefectType, Diagnosis, Status
from sdg.detectors.base import StreamingDetector
from sdg.detectors.heatmap import Heat, HeatFolder
from sdg.errors import SdgError
from sdg.images import load_image
from sdg.refinement.loop import HeatSource
from sdg.runs.inputs import Item
from sdg.runs.journal import Key

CHUNK: Final = 16
"""Pictures whose first diagnosis is asked for together."""
FATAL_ERRORS: Final = 8
"""So many pictures in a row without a diagnosis, or without an edit, end a run: the server is down."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input picture; error: why it cannot be read (picture is None) or got no diagnosis."""

    item: Item
    picture: Image.Image | None
    found: Diagnosis
    error: str = ""


def read_sources(
    items: Sequence[Item], detector: StreamingDetector, wanted: Collection[Key] | None = None
) -> Iterator[list[Source]]:
    """Read and diagnose the items whose keys are wanted, by default all, out of CHUNK at a time, in order.

    Chunks are of all items, so that a detector's batches are those of a run that was never stopped; one of
    stored answers is asked about all items at once.
    Raises SdgError for what concerns every picture, such as memory too small for the detector's batch.
    """
    known: dict[int, Diagnosis] = {}
    if detector.stored:
        places = [place for place, item in enumerate(items) if wanted is None or item.key in wanted]
        known = dict(detector.stream([(item.file, item.prompt) for item in items], places))
    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        places = [place for place, item in enumerate(chunk) if wanted is None or item.key in wanted]
        read = {place: _read(chunk[place]) for place in places}
        fit = frozenset(place for place, (picture, _) in read.items() if picture is not None)
        pairs = [(item.file, item.prompt) for item in chunk]
        if detector.stored:
            diagnoses = {place: known[start + place] for place in fit}
        else:
            diagnoses = dict(detector.stream(pairs, fit)) if fit else {}
        unread = Diagnosis(status=Status.FAILED)
        yield [_source(chunk[place], *read[place], diagnoses.get(place, unread)) for place in places]


def _read(item: Item) -> tuple[Image.Image | None, str]:
    try:
        return load_image(item.file), ""
    except SdgError as error:
        return None, str(error)


def _source(item: Item, picture: Image.Image | None, error: str, diagnosis: Diagnosis) -> Source:
    if picture is not None and diagnosis.status is Status.FAILED:
        error = f"The input could not be diagnosed: {diagnosis.error}"
    return Source(item, picture, diagnosis, error)


class StoredHeat:
    """The maps of a run's pictures, in a folder laid out as for the detector `heatmap:FOLDER`.

    They are of the inputs: an edited picture has none, so a run with them has one round.
    Raises SdgError where there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str], items: Iterable[Item]) -> None:
        if not Path(folder).is_dir():
            raise SdgError(f"{folder} is no folder; name the one with the heat maps.")
        self._maps = HeatFolder(Path(folder), [os.fspath(item.file) for item in items])

    def of(self, item: Item) -> HeatSource:
        """The source of an item's maps; it raises SdgError where one is missing or no heat map."""

        def read(picture: Image.Image, prompt: str, found: Diagnosis) -> tuple[Heat, Heat]:
            maps = self._maps.maps(os.fspath(item.file))
            return maps[DefectType.ARTIFACT], maps[DefectType.MISALIGNMENT]

        return read
