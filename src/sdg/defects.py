"""The one representation: a Diagnosis is a set of Defects, each where, what, why and how much.

Every other module takes a Diagnosis in, gives one out, or scores one against another (SDG §3.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Integral
from typing import Final

BOX_SCALE: Final = 1000
"""Boxes are integers from 0 to BOX_SCALE on each axis, whatever the image's size."""


class DefectType(StrEnum):
    """What a defect is: wrong to look at whatever the prompt, or contradicting the prompt."""

    ARTIFACT = "artifact"
    MISALIGNMENT = "misalignment"


class Status(StrEnum):
    """How a Diagnosis came to be; an empty set of defects means a clean image only when `OK`."""

    OK = "ok"
    REPAIRED = "repaired"  # readable after lenient handling
    TRUNCATED = "truncated"  # the answer was cut off; complete items are kept
    UNPARSEABLE = "unparseable"  # a response came, no answer could be read from it
    FAILED = "failed"  # no response came: time-out, server error


class Tier(StrEnum):
    """Importance tiers of the rubric (SDG §3.1), from worst to least."""

    CRITICAL = "critical"  # 90–100
    MAJOR = "major"  # 70–89
    MODERATE = "moderate"  # 40–69
    MINOR = "minor"  # 15–39
    NEGLIGIBLE = "negligible"  # 1–14


TIER_FLOORS: Final = {
    Tier.CRITICAL: 90,
    Tier.MAJOR: 70,
    Tier.MODERATE: 40,
    Tier.MINOR: 15,
    Tier.NEGLIGIBLE: 1,
}
"""Lowest importance of each tier."""

SUBTYPES: Final[dict[DefectType, tuple[str, ...]]] = {
    DefectType.MISALIGNMENT: (
        "missing object",
        "extra object",
        "wrong attribute",
        "wrong relation",
        "wrong action",
        "wrong style",
    ),
    DefectType.ARTIFACT: ("anatomy", "geometry", "texture", "edges", "garbled text", "lighting"),
}
"""The paper's taxonomy (SDG App. A.2). A data set may use finer names, such as "wrong colour"."""

UNKNOWN_IMPORTANCE: Final = 50
"""Stands in where an importance is asked for and a detector gives none: the middle of the scale."""

DROPPED_ITEM: Final = "dropped-item"
"""The repair that loses content: an item of the answer was left out because it could not be read."""


def importance_tier(importance: int) -> Tier:
    """Tier of an importance from 1 to 100."""
    return next(tier for tier, floor in TIER_FLOORS.items() if importance >= floor)


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: where (`box`), what (`type`), why (`reason`) and how much it matters (`importance`).

    box: `(x0, y0, x1, y1)`, ints 0–1000 on each axis, top-left then bottom-right, x0 < x1 and y0 < y1.
    reason may be "" and importance None: a prompt profile need not ask for them.
    subtype is for analysis only ("missing object"); it is not on the wire and not part of equality.
    Raises ValueError, in one sentence, for anything outside these domains.
    """

    box: tuple[int, int, int, int]
    type: DefectType
    reason: str = ""
    importance: int | None = None
    subtype: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self._is_exact():
            return
        box = tuple(self.box)
        if len(box) != 4 or not all(isinstance(c, Integral) and not isinstance(c, bool) for c in box):
            raise ValueError(f"A box is four integers [x0, y0, x1, y1], not {self.box!r}.")
        x0, y0, x1, y1 = (int(c) for c in box)
        if not (0 <= x0 < x1 <= BOX_SCALE and 0 <= y0 < y1 <= BOX_SCALE):
            raise ValueError(
                f"A box needs 0 <= x0 < x1 <= {BOX_SCALE} and 0 <= y0 < y1 <= {BOX_SCALE}, not {list(box)}."
            )
        object.__setattr__(self, "box", (x0, y0, x1, y1))
        try:
            object.__setattr__(self, "type", DefectType(self.type))
        except ValueError:
            raise ValueError(f"A defect's type is 'artifact' or 'misalignment', not {self.type!r}.") from None
        if not isinstance(self.reason, str):
            raise ValueError(f"A reason is text, not {self.reason!r}.")
        if self.importance is not None:
            importance = self.importance
            integral = isinstance(importance, Integral) and not isinstance(importance, bool)
            if not integral or not 1 <= importance <= 100:
                raise ValueError(f"An importance is an integer from 1 to 100, not {importance!r}.")
            object.__setattr__(self, "importance", int(importance))

    def _is_exact(self) -> bool:
        """Whether all is valid and of the exact types: quicker than the full check, which data sets feel."""
        box, importance = self.box, self.importance
        if type(box) is not tuple or len(box) != 4:
            return False
        x0, y0, x1, y1 = box
        return (
            type(x0) is type(y0) is type(x1) is type(y1) is int
            and 0 <= x0 < x1 <= BOX_SCALE
            and 0 <= y0 < y1 <= BOX_SCALE
            and type(self.type) is DefectType
            and type(self.reason) is str
            and (importance is None or (type(importance) is int and 1 <= importance <= 100))
        )

    @property
    def tier(self) -> Tier | None:
        """Tier of the importance; None where there is no importance."""
        return None if self.importance is None else importance_tier(self.importance)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with one image: a set of defects, the reasoning before them, and how it was read.

    An empty `defects` with status `ok` means a clean image; `failed` and `unparseable` mean nothing is
    known, and carry no defects. `raw` (the response) and `repairs` (what the reader had to mend, one
    name for each time) are kept for reports and are not part of equality.
    """

    defects: tuple[Defect, ...] = ()
    reasoning: str = ""
    status: Status = Status.OK
    raw: str = field(default="", compare=False, repr=False)
    repairs: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if type(self.defects) is not tuple:
            object.__setattr__(self, "defects", tuple(self.defects))
        defects = self.defects
        for defect in defects:
            if not isinstance(defect, Defect):
                raise ValueError("A diagnosis holds Defect objects only.")
        if type(self.status) is not Status:
            try:
                object.__setattr__(self, "status", Status(self.status))
            except ValueError:
                known = ", ".join(Status)
                raise ValueError(f"A diagnosis's status is one of {known}, not {self.status!r}.") from None
        if defects and self.status in (Status.FAILED, Status.UNPARSEABLE):
            raise ValueError(f"A diagnosis with status {self.status.value!r} knows no defects.")
        if type(self.repairs) is not tuple:
            object.__setattr__(self, "repairs", tuple(self.repairs))

    def of_type(self, type: DefectType | str) -> tuple[Defect, ...]:
        """The defects of one type, in order."""
        return tuple(defect for defect in self.defects if defect.type == type)

    @property
    def is_clean(self) -> bool:
        """Whether the image is known to have no defect."""
        return not self.defects and self.is_informative

    @property
    def is_informative(self) -> bool:
        """Whether this says anything about the image, so that it may be used as a reward.

        False for `failed` and `unparseable`, and for an answer whose items were all lost on the way
        (cut off, or dropped as unreadable): the detector saw something, and nobody knows what.
        """
        if self.status in (Status.FAILED, Status.UNPARSEABLE):
            return False
        return bool(self.defects) or not self._lost

    @property
    def is_whole(self) -> bool:
        """Whether this is all that the detector said, so that what it does not name it did not see."""
        return self.is_informative and not self._lost

    @property
    def _lost(self) -> bool:
        return self.status is Status.TRUNCATED or DROPPED_ITEM in self.repairs
