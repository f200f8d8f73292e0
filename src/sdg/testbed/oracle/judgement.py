"""What a picture says against its prompt, by docs/background/testbed-conventions.md.

Objects are given to the groups asked for by a minimal cost assignment, one column a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from sdg.testbed.oracle.perception import Perception, Seen
from sdg.testbed.oracle.pixels import SIDE
from sdg.testbed.world.boxes import Box, union
from sdg.testbed.world.layout import RADII, SIZE_FACTOR
from sdg.testbed.world.scene import BACKGROUNDS, OPPOSITE, Group, Relation, Request

WHOLE: Final[Box] = (0, 0, SIDE, SIDE)

# Costs of letting an object play a part, far enough apart that one step outweighs any number of lower ones.
_EXACT, _BLOB, _RECOLOURED, _RESHAPED, _EXTRA = 0.0, 1.0, 40.0, 45.0, 10_000.0
_RELATION_COSINE: Final = 0.5
"""A relation holds where the direction between two centres is within 60 degrees of the one asked for."""
_BACKGROUND_SUPPORT: Final = 0.4
"""Share of pixels a background must have to be called the wrong one."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One misalignment: subtype, pixel box, the group it is about (None: none), and the objects concerned."""

    subtype: str
    box: Box
    group: int | None = None
    things: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Cast:
    """Which objects (indices) play which group's part, and how; the rest is extra."""

    members: tuple[tuple[int, ...], ...]
    recoloured: tuple[tuple[int, ...], ...]
    reshaped: tuple[tuple[int, ...], ...]
    extra: tuple[int, ...]

    def players(self, group: int) -> tuple[int, ...]:
        """Members and stand-ins of a group."""
        return tuple(sorted(self.members[group] + self.recoloured[group] + self.reshaped[group]))


def contradictions(request: Request, view: Perception) -> tuple[Cast, list[Contradiction]]:
    """The misalignments of a picture as seen, and who plays which part."""
    seen = view.seen
    parts = cast(request.groups, seen)
    out: list[Contradiction] = []
    for number, group in enumerate(request.groups):
        players = parts.players(number)
        if not players:
            out.append(Contradiction("missing object", _missing_region(request, number, parts, seen), number))
        elif len(players) != group.count:
            out.append(Contradiction("wrong count", _union(seen, players), number, players))
        out += [Contradiction("wrong colour", seen[i].box, number, (i,)) for i in parts.recoloured[number]]
        out += [Contradiction("wrong shape", seen[i].box, number, (i,)) for i in parts.reshaped[number]]
        out += [
            Contradiction("wrong size", seen[i].box, number, (i,))
            for i in parts.members[number]
            if group.size is not None and seen[i].shape is not None and _wrong_size(seen[i], group, request)
        ]
    out += [Contradiction("extra object", seen[i].box, None, (i,)) for i in parts.extra]
    if request.relation is not None:
        first, second = parts.players(0), parts.players(1)
        if first and second and not _related(seen, first, second, request.relation):
            out.append(Contradiction("wrong relation", _union(seen, first + second), None, first + second))
    if request.word is not None and (view.word is None or view.word.text != request.word.upper()):
        out.append(Contradiction("wrong text", view.word.box if view.word else WHOLE))
    if _wrong_background(request, view):
        out.append(Contradiction("wrong background", WHOLE))
    return parts, out


def cast(groups: Sequence[Group], seen: Sequence[Seen]) -> Cast:
    """Give objects to groups: exact ones first, then blobs of a colour, other colours, other shapes."""
    members: list[list[int]] = [[] for _ in groups]
    recoloured: list[list[int]] = [[] for _ in groups]
    reshaped: list[list[int]] = [[] for _ in groups]
    left: list[int] = []
    for index, item in enumerate(seen):
        exact = [n for n, g in enumerate(groups) if (g.colour, g.shape) == (item.colour, item.shape)]
        (members[exact[0]] if exact else left).append(index)
    places = [n for n, group in enumerate(groups) for _ in range(group.count - len(members[n]))]
    extra = set(left)
    if left and places:
        costs = np.array([[_cost(groups[n], seen[i]) for n in places] for i in left])
        for row, column in zip(*linear_sum_assignment(costs), strict=True):
            cost, index, number = costs[row, column], left[row], places[column]
            if cost < _EXTRA:
                part = {_BLOB: members, _RECOLOURED: recoloured, _RESHAPED: reshaped}[float(cost)]
                part[number].append(index)
                extra.discard(index)
    # A blob that nobody asked for is wrong to look at, and judged there.
    return Cast(
        tuple(tuple(sorted(m)) for m in members),
        tuple(map(tuple, recoloured)),
        tuple(map(tuple, reshaped)),
        tuple(i for i in sorted(extra) if seen[i].shape is not None),
    )


def _cost(group: Group, item: Seen) -> float:
    if item.shape is None:
        return _BLOB if item.colour == group.colour else _EXTRA
    if item.shape == group.shape:
        return _RECOLOURED
    return _RESHAPED if item.colour == group.colour else _EXTRA


def _missing_region(request: Request, number: int, parts: Cast, seen: Sequence[Seen]) -> Box:
    """Where an object that is not there belongs: beside the one it is related to, or anywhere."""
    others = parts.players(1 - number) if request.relation is not None else ()
    if not others:
        return WHOLE
    assert request.relation is not None
    x0, y0, x1, y1 = _union(seen, others)
    where = request.relation if number == 0 else OPPOSITE[request.relation]
    region: dict[Relation, Box] = {
        "left": (0, 0, max(x0, 1), SIDE),
        "right": (min(x1, SIDE - 1), 0, SIDE, SIDE),
        "above": (0, 0, SIDE, max(y0, 1)),
        "below": (0, min(y1, SIDE - 1), SIDE, SIDE),
    }
    return region[where]


def _related(seen: Sequence[Seen], first: Sequence[int], second: Sequence[int], relation: Relation) -> bool:
    return any(
        relation_cosine(seen[i].box, seen[j].box, relation) >= _RELATION_COSINE for i in first for j in second
    )


def relation_cosine(first: Box, second: Box, relation: Relation) -> float:
    """Cosine between the asked direction and the one from the second box's centre to the first's."""
    dx = (first[0] + first[2] - second[0] - second[2]) / 2
    dy = (first[1] + first[3] - second[1] - second[3]) / 2
    along = {"left": -dx, "right": dx, "above": -dy, "below": dy}[relation]
    return along / max(hypot(dx, dy), 1e-9)


def _wrong_size(item: Seen, group: Group, request: Request) -> bool:
    low, high = RADII[min(sum(g.count for g in request.groups), 6)]
    limit = (SIZE_FACTOR["small"] * high + SIZE_FACTOR["large"] * low) / 2
    return item.radius > limit if group.size == "small" else item.radius < limit


def _wrong_background(request: Request, view: Perception) -> bool:
    """Whether another of the four backgrounds was drawn, beyond doubt."""
    if request.background is None or view.background == request.background:
        return False
    return view.support >= _BACKGROUND_SUPPORT and view.background in BACKGROUNDS


def _union(seen: Sequence[Seen], indices: Sequence[int]) -> Box:
    return union(seen[i].box for i in indices)
