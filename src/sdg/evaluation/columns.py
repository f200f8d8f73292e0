"""All defects of one side of an evaluation as arrays, one entry a defect, read once from the objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdg.data.gathering import Packed
from sdg.defects import Defect, DefectType

TYPES: Final = tuple(DefectType)
"""Order of the defect types along every type axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """N defects of D images: where, what, why and how much, and the image each is on."""

    boxes: NDArray[np.int64]  # (N, 4) xyxy, 0–1000
    kind: NDArray[np.intp]  # (N,) index into TYPES
    image: NDArray[np.intp]  # (N,) ascending, 0 to D−1
    importance: NDArray[np.float64]  # (N,) 1–100, NaN where unknown
    defects: tuple[Defect, ...]  # (N,) for reasons and subtypes; () where nobody asks for those

    @property
    def block(self) -> NDArray[np.intp]:
        """(N,) one number for each image and type: the defects that may be matched with one another."""
        return self.image * len(TYPES) + self.kind

    def reason(self, index: int) -> str:
        """Why of one defect, without blanks around it."""
        return self.defects[index].reason.strip()


def columns(images: Sequence[Sequence[Defect]]) -> Columns:
    """Columns of the defects of each image, in order."""
    defects = tuple(chain.from_iterable(images))
    count = len(defects)
    boxes = np.fromiter(chain.from_iterable([d.box for d in defects]), np.int64, 4 * count)
    misalignment = DefectType.MISALIGNMENT
    assert TYPES.index(misalignment) == 1
    return Columns(
        boxes.reshape(count, 4),
        np.fromiter([d.type is misalignment for d in defects], np.intp, count),
        np.repeat(np.arange(len(images)), [len(image) for image in images]),
        np.array([d.importance for d in defects], np.float64),  # None becomes NaN
        defects,
    )


def unpacked(parts: Sequence[Packed]) -> Columns:
    """Columns of what was gathered in parts, one after the other, without the defects themselves."""
    sizes = np.concatenate([np.diff(np.array(part.ends, np.intp), prepend=0) for part in parts])
    importance = np.concatenate([np.array(part.importance, np.float64) for part in parts])
    importance[importance == 0] = np.nan
    return Columns(
        np.concatenate([np.array(part.boxes, np.int64) for part in parts]).reshape(-1, 4),
        np.concatenate([np.array(part.kinds, np.intp) for part in parts]),
        np.repeat(np.arange(len(sizes)), sizes),
        importance,
        (),
    )
