"""All defects of one side of an evaluation as arrays, one entry a defect, read once from the objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.defects import BOX_SCALE, Defect, DefectType

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


class Gathering:
    """Columns that grow image by image, from defects or, quicker, from the items of a JSON value."""

    def __init__(self) -> None:
        self._boxes: list[int] = []
        self._kinds: list[int] = []
        self._importance: list[int | None] = []
        self._ends: list[int] = []

    def add(self, defects: Iterable[Defect]) -> None:
        """Go on with an image that has these defects."""
        for defect in defects:
            self._boxes += defect.box
            self._kinds.append(_LABELS[defect.type.value])
            self._importance.append(defect.importance)
        self._ends.append(len(self._kinds))

    def add_plain(self, items: object) -> bool:
        """Go on with an image whose JSON value is a list of plain items; False, and nothing done, otherwise.

        Plain: every reader of ours makes just the one defect of it that it says, and mends nothing.
        """
        if type(items) is not list:
            return False
        before = len(self._kinds)
        boxes, kinds, importances = self._boxes, self._kinds, self._importance
        try:
            for item in items:
                box, importance = item["box_2d"], item.get("importance")
                x0, y0, x1, y1 = box
                full = len(item) == 4 and "importance" in item and "description" in item
                if not (
                    type(x0) is type(y0) is type(x1) is type(y1) is int
                    and 0 <= x0 < x1 <= BOX_SCALE
                    and 0 <= y0 < y1 <= BOX_SCALE
                    and (importance is None or (type(importance) is int and 1 <= importance <= 100))
                    and type(item.get("description", "")) is str
                    and (full or item.keys() <= _NAMED)
                ):
                    break
                kinds.append(_LABELS[item["label"]])
                boxes += box
                importances.append(importance)
            else:
                self._ends.append(len(kinds))
                return True
        except (AttributeError, KeyError, TypeError, ValueError):
            pass
        self._cut(before)
        return False

    def drop(self) -> None:
        """Take the last image back."""
        self._ends.pop()
        self._cut(self._ends[-1] if self._ends else 0)

    def _cut(self, count: int) -> None:
        del self._kinds[count:], self._boxes[4 * count :], self._importance[count:]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._ends)

    def columns(self) -> Columns:
        """All of them, without the defects themselves."""
        ends = np.array(self._ends, np.intp)
        return Columns(
            np.array(self._boxes, np.int64).reshape(-1, 4),
            np.array(self._kinds, np.intp),
            np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0)),
            np.array(self._importance, np.float64),
            (),
        )


_LABELS: Final[dict[Any, int]] = {kind.value: at for at, kind in enumerate(TYPES)}
_NAMED: Final = frozenset({"box_2d", "label", "description", "importance"})
