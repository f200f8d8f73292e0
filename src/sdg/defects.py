"""The one representation: a Diagnosis is a set of Defects, each where, what, why and how much.

Every other module takes a Diagnosis in, gives one out, or scores one against another (SDG §3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Integral
from typing import Any, Final, Self

from sdg.errors import Faults, quoted

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
"""Stands in for an importance that is not known: the middle of the scale. In the reward map alone such a
defect weighs 1 (`sdg.alignment.reward_map`)."""

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

    Example: `Defect((10, 20, 30, 40), "artifact", "six fingers", 45).to_dict()` is `{"box": [10, 20, 30, 40],
    "type": "artifact", "reason": "six fingers", "importance": 45}`.
    """

    box: tuple[int, int, int, int]
    type: DefectType
    reason: str = ""
    importance: int | None = None
    subtype: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self._is_exact():
            return
        box = tuple(self.box) if isinstance(self.box, Iterable) else ()
        if len(box) != 4 or not all(isinstance(c, Integral) and not isinstance(c, bool) for c in box):
            raise ValueError(f"A box is four integers [x0, y0, x1, y1], not {quoted(self.box)}.")
        x0, y0, x1, y1 = (int(c) for c in box)
        if not (0 <= x0 < x1 <= BOX_SCALE and 0 <= y0 < y1 <= BOX_SCALE):
            raise ValueError(
                f"A box needs 0 <= x0 < x1 <= {BOX_SCALE} and 0 <= y0 < y1 <= {BOX_SCALE}, not {list(box)}."
            )
        object.__setattr__(self, "box", (x0, y0, x1, y1))
        try:
            object.__setattr__(self, "type", DefectType(self.type))
        except ValueError:
            raise ValueError(
                f"A defect's type is 'artifact' or 'misalignment', not {quoted(self.type)}."
            ) from None
        if not isinstance(self.reason, str):
            raise ValueError(f"A reason is text, not {quoted(self.reason)}.")
        if not isinstance(self.subtype, str | None):
            raise ValueError(f"'subtype' is text, not {quoted(self.subtype)}.")
        if self.importance is not None:
            importance = self.importance
            integral = isinstance(importance, Integral) and not isinstance(importance, bool)
            if not integral or not 1 <= importance <= 100:
                raise ValueError(f"An importance is an integer from 1 to 100, not {quoted(importance)}.")
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
            and (self.subtype is None or type(self.subtype) is str)
        )

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON values, under its own name; importance and subtype only where known."""
        value: dict[str, Any] = {"box": list(self.box), "type": self.type.value, "reason": self.reason}
        if self.importance is not None:
            value["importance"] = self.importance
        if self.subtype is not None:
            value["subtype"] = self.subtype
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; raises ValueError, in one sentence, for an unknown key or a bad value."""
        if not isinstance(value, Mapping):
            raise ValueError(f"A defect is a JSON object, not {quoted(value)}.")
        require_keys(value, _DEFECT_KEYS, "defect")
        box: Any = value.get("box")
        kind: Any = value.get("type")
        return cls(
            box=box,
            type=_TYPES.get(kind, kind) if isinstance(kind, str) else kind,
            reason=value.get("reason", ""),
            importance=value.get("importance"),
            subtype=value.get("subtype"),
        )

    @property
    def tier(self) -> Tier | None:
        """Tier of the importance; None where there is no importance."""
        return None if self.importance is None else importance_tier(self.importance)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with one image: a set of defects, the reasoning before them, and how it was read.

    An empty `defects` with status `ok` means a clean image; `failed` and `unparseable` mean nothing is
    known, and carry no defects. `raw` (the response), `repairs` (what the reader had to mend, one name for
    each time) and `error` (why it failed, one sentence) are kept for reports and are not part of equality.
    """

    defects: tuple[Defect, ...] = ()
    reasoning: str = ""
    status: Status = Status.OK
    raw: str = field(default="", compare=False, repr=False)
    repairs: tuple[str, ...] = field(default=(), compare=False)
    error: str = field(default="", compare=False)

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
                raise ValueError(
                    f"A diagnosis's status is one of {known}, not {quoted(self.status)}."
                ) from None
        if defects and self.status in (Status.FAILED, Status.UNPARSEABLE):
            raise ValueError(f"A diagnosis with status {self.status.value!r} knows no defects.")
        if type(self.repairs) is not tuple:
            object.__setattr__(self, "repairs", tuple(self.repairs))
        if not (
            isinstance(self.reasoning, str) and isinstance(self.raw, str) and isinstance(self.error, str)
        ):
            raise ValueError("A diagnosis's reasoning, raw response and error are text.")
        if self.error and self.status is not Status.FAILED:
            raise ValueError(f"A diagnosis with status {self.status.value!r} has no error.")

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON values; `defects` is a list of dicts, and what is empty or ok is left out.

        `Diagnosis.from_dict(diagnosis.to_dict())` is the diagnosis again, with all that equality leaves out.
        """
        value: dict[str, Any] = {"defects": [defect.to_dict() for defect in self.defects]}
        if self.reasoning:
            value["reasoning"] = self.reasoning
        if self.status is not Status.OK:
            value["status"] = self.status.value
        if self.raw:
            value["raw"] = self.raw
        if self.repairs:
            value["repairs"] = list(self.repairs)
        if self.error:
            value["error"] = self.error
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises ValueError, in one sentence, for an unknown key or a bad value; of several bad defects
        `Faults`, each of which names the defect, counted from 1.
        """
        if not isinstance(value, Mapping) or "defects" not in value:
            raise ValueError(f"A diagnosis is an object with a list of 'defects', not {quoted(value)}.")
        require_keys(value, _DIAGNOSIS_KEYS, "diagnosis")
        for key in ("reasoning", "status", "raw", "error"):
            if not isinstance(value.get(key, ""), str):
                raise ValueError(f"{key!r} is text, not {quoted(value[key])}.")
        repairs = value.get("repairs", [])
        if not isinstance(repairs, list | tuple) or not all(isinstance(name, str) for name in repairs):
            raise ValueError(f"Repairs are a list of names, not {quoted(repairs)}.")
        return cls(
            defects=_defects(value["defects"]),
            reasoning=value.get("reasoning", ""),
            status=value.get("status", Status.OK),
            raw=value.get("raw", ""),
            repairs=tuple(repairs),
            error=value.get("error", ""),
        )

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

    def known_defects(self) -> list[dict[str, Any]] | None:
        """The defects as JSON values, [] for a clean image; None where nothing is known about it."""
        return [defect.to_dict() for defect in self.defects] if self.is_informative else None

    @property
    def is_whole(self) -> bool:
        """Whether this is all that the detector said, so that what it does not name it did not see."""
        return self.is_informative and not self._lost

    @property
    def _lost(self) -> bool:
        return self.status is Status.TRUNCATED or DROPPED_ITEM in self.repairs


_TYPES: Final[Mapping[str, Any]] = {kind.value: kind for kind in DefectType}
_DEFECT_KEYS: Final = frozenset({"box", "type", "reason", "importance", "subtype"})
_DIAGNOSIS_KEYS: Final = frozenset({"defects", "reasoning", "status", "raw", "repairs", "error"})


def _defects(values: object) -> tuple[Defect, ...]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"The defects are a JSON list, not {quoted(values)}.")
    defects: list[Defect] = []
    faults: list[str] = []
    for number, value in enumerate(values, start=1):
        try:
            defects.append(Defect.from_dict(value))
        except ValueError as error:
            faults.append(f"Defect {number}: {error}")
    if faults:
        raise Faults(faults)
    return tuple(defects)


def require_keys(value: Mapping[str, Any], known: Set[str], what: str) -> None:
    """Raise ValueError for the first key that is not `known`; what: "record", say."""
    if not value.keys() <= known:
        unknown = next(key for key in value if key not in known)
        raise ValueError(
            f"A {what} has no key {quoted(unknown)}; anything else belongs into a record's 'metadata'."
        )
