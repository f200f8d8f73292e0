"""Where things go: a Scene that fulfils a Request, drawn at random with room between the objects."""

from __future__ import annotations

from collections.abc import Iterable
from math import hypot
from typing import Final

import numpy as np

from sdg.testbed.world.prompts import Split, phrase, sample_request, split_of
from sdg.testbed.world.scene import BACKGROUNDS, CANVAS, Level, Relation, Request, Scene, Thing, Writing

GAP: Final = 5.0
"""Least distance between two objects' outlines, scene units."""
MARGIN: Final = 4.0
"""Least distance of an object from the picture's edge, scene units."""
RELATION_GAP: Final = 8.0
"""Least distance of two related objects' outlines along the relation's axis, scene units."""

RADII: Final = {
    1: (20.0, 32.0),
    2: (16.0, 25.0),
    3: (14.5, 21.0),
    4: (13.5, 18.0),
    5: (12.0, 15.5),
    6: (11.0, 14.0),
}
"""Objects in the scene -> range of radii: always large enough to tell their shape."""
_REACH: Final = {"square": 1.22, "cross": 1.04}
"""How far a shape reaches from its centre, in radii (1 for the others): corners count."""
SIZE_FACTOR: Final = {"small": 0.72, "large": 1.22}
"""Radius of a small or large object against one of plain size."""


def sample_scene(
    rng: np.random.Generator, level: Level = "core", split: Split | None = None
) -> tuple[Request, str, Scene]:
    """Draw a request (of one split, if named), its wording, and a scene that fulfils it."""
    while True:
        request = sample_request(rng, level)
        if split is None or split_of(request) == split:
            return request, phrase(request, rng), place(request, rng, level)


def place(request: Request, rng: np.random.Generator, level: Level = "core") -> Scene:
    """A scene that fulfils the request, defects none."""
    background = request.background or str(rng.choice(list(BACKGROUNDS)))
    total = sum(group.count for group in request.groups)
    low, high = RADII[min(total, 6)]
    while True:
        things = _try_place(request, rng, level, low, high)
        if things is not None:
            break
        high = max(low, high * 0.97)  # crowded draws get smaller objects, so that this always ends
    writing = _place_writing(request, things, rng) if request.word else None
    return Scene(things, background, shadows=level == "rich", writing=writing)


def _try_place(
    request: Request, rng: np.random.Generator, level: Level, low: float, high: float
) -> tuple[Thing, ...] | None:
    things: list[Thing] = []
    # A word is written along the bottom; objects keep off that strip.
    floor = CANVAS - (22.0 if request.word else 0.0)
    for number, group in enumerate(request.groups):
        for _ in range(group.count):
            factor = SIZE_FACTOR[group.size] if group.size else 1.0
            for _attempt in range(40):
                radius = float(rng.uniform(low, high)) * factor
                reach = radius + MARGIN
                x = float(rng.uniform(reach, CANVAS - reach))
                y = float(rng.uniform(reach, floor - reach))
                angle = float(rng.uniform(-20, 20)) if level == "rich" else 0.0
                thing = Thing(group.shape, group.colour, x, y, radius, angle, number)
                apart = has_room(thing, things)
                related = (
                    request.relation is None or not things or fulfils(things[0], thing, request.relation)
                )
                if apart and related:
                    things.append(thing)
                    break
            else:
                return None
    return tuple(things)


def has_room(thing: Thing, things: Iterable[Thing]) -> bool:
    """Whether an object keeps its distance from all of `things`."""
    reach = _reach(thing) + GAP
    return all(hypot(thing.x - t.x, thing.y - t.y) >= reach + _reach(t) for t in things)


def _reach(thing: Thing) -> float:
    return thing.radius * _REACH.get(thing.shape, 1.0)


def fulfils(first: Thing, second: Thing, relation: Relation) -> bool:
    """Whether `first` lies `relation` of `second` beyond doubt: apart along the axis, mostly along it."""
    dx, dy = first.x - second.x, first.y - second.y
    along, across = (dx, dy) if relation in ("left", "right") else (dy, dx)
    if relation in ("left", "above"):
        along = -along
    # Circumscribed squares are apart by RELATION_GAP, and the direction is within 40 degrees of the axis.
    return along >= first.radius + second.radius + RELATION_GAP and along >= 1.2 * abs(across)


def _place_writing(request: Request, things: tuple[Thing, ...], rng: np.random.Generator) -> Writing:
    assert request.word is not None
    height = float(rng.uniform(12, 15))
    return Writing(request.word.upper(), CANVAS / 2 + float(rng.uniform(-14, 14)), CANVAS - 12.0, height)
