"""Where, what and how much of the defects of many images, gathered image by image without an object for each.

Without numpy, so that a process can begin to read before that is loaded; `sdg.evaluation.columns` makes
arrays of it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sdg.defects import BOX_SCALE, Defect, DefectType


@dataclass(frozen=True, slots=True)
class Packed:
    """N defects of D images, as small as they go between processes."""

    boxes: array[int]  # 4 N, xyxy, 0–1000
    kinds: array[int]  # N, places in DefectType
    importance: array[int]  # N, 1–100, 0 where unknown
    ends: array[int]  # D, defects up to and with those of each image


class Gathering:
    """Grows image by image, from defects or, quicker, from the items of a JSON value."""

    def __init__(self) -> None:
        self._boxes: list[int] = []
        self._kinds: list[int] = []
        self._importance: list[int] = []
        self._ends: list[int] = []

    def add(self, defects: Iterable[Defect]) -> None:
        """Go on with an image that has these defects."""
        for defect in defects:
            self._boxes += defect.box
            self._kinds.append(_LABELS[defect.type.value])
            self._importance.append(defect.importance or 0)
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
                importances.append(importance or 0)
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

    def packed(self) -> Packed:
        """All of them so far."""
        return Packed(
            array("h", self._boxes),
            array("b", self._kinds),
            array("b", self._importance),
            array("q", self._ends),
        )


_LABELS: Final[dict[Any, int]] = {kind.value: at for at, kind in enumerate(DefectType)}
_NAMED: Final = frozenset({"box_2d", "label", "description", "importance"})
