"""The misalignments of any scene against its request, by docs/background/testbed-conventions.md.

Injection keeps a changed scene only if this reading finds the defects it meant and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sdg.testbed.world.boxes import Box, thing_box, union, widened
from sdg.testbed.world.layout import RADII, SIZE_FACTOR
from sdg.testbed.world.renderer import writing_coverage
from sdg.testbed.world.scene import Relation, Request, Scene, Thing

RELATION_COSINE = 0.5
"""A relation holds where the direction between the centres is within 60 degrees of the one asked for."""


@dataclass(frozen=True, slots=True)
class Misalignment:
    """One contradiction: its subtype, pixel box, group of the request (None: none) and objects concerned."""

    subtype: str
    box: Box
    group: int | None
    things: tuple[int, ...] = ()


@dataclass(slots=True)
class _Cast:
    """Which objects play which group's part."""

    members: list[list[int]]
    recoloured: list[list[int]]
    reshaped: list[list[int]]
    extra: list[int] = field(default_factory=list)

    def players(self, group: int) -> list[int]:
        return sorted(self.members[group] + self.recoloured[group] + self.reshaped[group])


def misalignments(request: Request, scene: Scene, size: int = 128) -> list[Misalignment]:
    """The misalignments of a scene, in no particular order."""
    cast = _cast(request, scene.things)
    boxes = [thing_box(thing, size) for thing in scene.things]
    found: list[Misalignment] = []
    for number, group in enumerate(request.groups):
        players = cast.players(number)
        if not players:
            box = widened(_missing_region(request, number, cast, boxes, size), size)
            found.append(Misalignment("missing object", box, number))
        elif len(players) != group.count:
            found.append(_misalignment("wrong count", number, players, boxes))
        for subtype, standins in (("wrong colour", cast.recoloured), ("wrong shape", cast.reshaped)):
            found += [_misalignment(subtype, number, [i], boxes) for i in standins[number]]
        found += [
            _misalignment("wrong size", number, [i], boxes)
            for i in cast.members[number]
            if group.size is not None and not _has_size(scene.things[i], group.size, request)
        ]
    found += [_misalignment("extra object", None, [i], boxes) for i in cast.extra]
    if request.relation is not None:
        first, second = cast.players(0), cast.players(1)
        if first and second and not _related(boxes, first, second, request.relation):
            found.append(_misalignment("wrong relation", None, first + second, boxes))
    if request.word is not None and (scene.writing is None or scene.writing.word != request.word.upper()):
        found.append(Misalignment("wrong text", widened(_ink_box(scene, size), size), None))
    return found


def _misalignment(
    subtype: str, group: int | None, things: Sequence[int], boxes: Sequence[Box]
) -> Misalignment:
    # Objects are at least 2·7.9 units across, so that a box of theirs is never too thin.
    return Misalignment(subtype, union(boxes[i] for i in things), group, tuple(things))


def _cast(request: Request, things: Sequence[Thing]) -> _Cast:
    groups = request.groups
    cast = _Cast([[] for _ in groups], [[] for _ in groups], [[] for _ in groups])
    left: list[int] = []
    for i, thing in enumerate(things):
        for number, group in enumerate(groups):
            if (thing.colour, thing.shape) == (group.colour, group.shape):
                cast.members[number].append(i)
                break
        else:
            left.append(i)
    for attribute, standins in (("shape", cast.recoloured), ("colour", cast.reshaped)):
        for i in tuple(left):
            for number, group in enumerate(groups):
                short = len(cast.players(number)) < group.count
                if short and getattr(things[i], attribute) == getattr(group, attribute):
                    standins[number].append(i)
                    left.remove(i)
                    break
    cast.extra = left
    return cast


def _missing_region(request: Request, group: int, cast: _Cast, boxes: Sequence[Box], size: int) -> Box:
    """Where an object that is not there belongs: beside the one it is related to, or anywhere."""
    others = cast.players(1 - group) if request.relation is not None else []
    if not others:
        return 0, 0, size, size
    x0, y0, x1, y1 = union(boxes[i] for i in others)
    before = request.relation in ("left", "above")
    if group == 1:
        before = not before
    if request.relation in ("left", "right"):
        return (0, 0, max(x0, 1), size) if before else (min(x1, size - 1), 0, size, size)
    return (0, 0, size, max(y0, 1)) if before else (0, min(y1, size - 1), size, size)


def _related(boxes: Sequence[Box], first: Sequence[int], second: Sequence[int], relation: Relation) -> bool:
    return any(
        relation_cosine(boxes[i], boxes[j], relation) >= RELATION_COSINE for i in first for j in second
    )


def relation_cosine(first: Box, second: Box, relation: Relation) -> float:
    """Cosine between the asked direction and the one from the second box's centre to the first's."""
    dx = first[0] + first[2] - second[0] - second[2]
    dy = first[1] + first[3] - second[1] - second[3]
    along = {"left": -dx, "right": dx, "above": -dy, "below": dy}[relation]
    return along / max(float(np.hypot(dx, dy)), 1e-9)


def size_limit(request: Request) -> float:
    """Radius between small and large objects, scene units."""
    low, high = RADII[min(sum(group.count for group in request.groups), 6)]
    return (SIZE_FACTOR["small"] * high + SIZE_FACTOR["large"] * low) / 2


def _has_size(thing: Thing, wanted: str, request: Request) -> bool:
    limit = size_limit(request)
    return thing.radius <= limit if wanted == "small" else thing.radius >= limit


def _ink_box(scene: Scene, size: int) -> Box:
    if scene.writing is None:
        return 0, 0, size, size
    rows, columns = np.nonzero(writing_coverage(scene.writing, size) > 0.5)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
