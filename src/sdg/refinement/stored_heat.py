"""Heat maps that a model wrote: what the editor of mode `heatmap` gets in place of boxes (SDG §5.2.2)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from sdg.defects import DefectType, Diagnosis
from sdg.detectors.heatmap import Heat, HeatFolder
from sdg.errors import SdgError
from sdg.refinement.loop import HeatSource
from sdg.runs.inputs import Item


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
