"""RichHF-18K: people's heat maps from its TFRecord files, as "has this picture a defect of that type?".

The files hold no pictures: `uid` is that of Pick-a-Pic v1, the stem of the example's `filename`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.bench.tfrecord import Feature, read_examples, stored_array
from sdg.defects import DefectType
from sdg.errors import SdgError
from sdg.records import Path

THRESHOLDS: Final = (0.10, 0.33)
"""A type is present where its map's maximum exceeds the threshold (SDG Table 3)."""
_MAPS: Final = {DefectType.ARTIFACT: "artifact_map", DefectType.MISALIGNMENT: "misalignment_map"}


@dataclass(frozen=True)
class RichExample:
    """One annotated picture; maximum: highest heat of each type's map, from 0 to 1."""

    uid: str
    maximum: Mapping[DefectType, float]

    def has(self, kind: DefectType, threshold: float) -> bool:
        """Whether the picture has a defect of a type, by the people's heat."""
        return self.maximum[kind] > threshold


def read_richhf(paths: Iterable[Path]) -> Iterator[RichExample]:
    """The examples of TFRecord files, in order.

    Raises SdgError, naming file and record, where one is damaged or lacks a part, or a picture comes twice.
    """
    seen: set[str] = set()
    for path in paths:
        for number, features in enumerate(read_examples(path), 1):
            try:
                example = _example(features)
            except ValueError as error:
                raise SdgError(f"{path}, record {number}: {error}.") from None
            if example.uid in seen:
                raise SdgError(f"{path}, record {number}: the picture {example.uid} has been there before.")
            seen.add(example.uid)
            yield example


def heat(feature: Feature) -> NDArray[Any]:
    """A map's values, from 0 to 1; 8-bit maps are divided by 255. Raises ValueError for anything else."""
    values = stored_array(feature)
    if not values.size:
        raise ValueError("a heat map is empty")
    if values.dtype.kind in "iu":
        values = values / 255
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError("heat lies between 0 and 1, or between 0 and 255 in integers")
    return values


def _example(features: Mapping[str, Feature]) -> RichExample:
    maximum = {kind: float(heat(_part(features, name)).max()) for kind, name in _MAPS.items()}
    return RichExample(PurePosixPath(_text(features, "filename")).stem, maximum)


def _part(features: Mapping[str, Feature], name: str) -> Feature:
    if name not in features:
        raise ValueError(f"{name!r} is missing")
    return features[name]


def _text(features: Mapping[str, Feature], name: str) -> str:
    value = _part(features, name)
    if (
        not isinstance(value, list)
        or len(value) != 1
        or not (text := value[0].decode("utf-8", "replace").strip())
    ):
        raise ValueError(f"{name!r} is one text")
    return text
