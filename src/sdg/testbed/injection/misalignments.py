"""Changes to a scene that contradict its request, one function a subtype; pixels are left to the renderer.

What the changed scene then lacks or shows is read by `reading`, which also rejects accidents: a red star
recoloured into the blue star that was asked for as well is no wrong colour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from sdg.testbed.injection.reading import relation_cosine, size_limit
from sdg.testbed.world.boxes import thing_box
from sdg.testbed.world.layout import MARGIN, RADII, SIZE_FACTOR, fulfils, has_room, place
from sdg.testbed.world.prompts import WORDS
from sdg.testbed.world.scene import CANVAS, COLOURS, OPPOSITE, RELATIONS, SHAPES, Level, Request, Scene, Thing

Change = Callable[[np.random.Generator, Request, Scene, Level], Scene | None]

_WRITING_STRIP: Final = 22.0  # objects keep off the words along the bottom


def change_relation(rng: np.random.Generator, request: Request, scene: Scene, level: Level) -> Scene | None:
    """Place the related objects anew, on the opposite side or at a right angle to it."""
    if request.relation is None:
        return None
    opposite = OPPOSITE[request.relation]
    if rng.random() < 0.65:
        relation = opposite
    else:
        across = [r for r in RELATIONS if r not in (request.relation, opposite)]
        relation = across[int(rng.integers(2))]
    changed = place(replace(request, relation=relation, background=scene.background), rng, level)
    first, second = (thing_box(thing, 128) for thing in changed.things)
    return changed if relation_cosine(first, second, request.relation) <= 0 else None


def remove_group(rng: np.random.Generator, request: Request, scene: Scene, level: Level) -> Scene | None:
    """Leave out everything one noun phrase asks for; seldom where that is several objects."""
    weights = np.array([1.0 if group.count == 1 else 0.25 for group in request.groups])
    if len(weights) == 1 and rng.random() > 0.5 * weights[0]:
        return None  # an empty picture teaches little
    group = int(rng.choice(len(weights), p=weights / weights.sum()))
    return replace(scene, things=tuple(t for t in scene.things if t.group != group))


def change_count(rng: np.random.Generator, request: Request, scene: Scene, level: Level) -> Scene | None:
    """Draw one or two objects too many or too few of one group, but at least one."""
    group = int(rng.integers(len(request.groups)))
    asked = request.groups[group].count
    step = int(rng.choice([-2, -1, 1, 2], p=[0.12, 0.4, 0.4, 0.08]))
    if asked + step < 1:
        step = -step
    if step < 0:
        own = [i for i, thing in enumerate(scene.things) if thing.group == group]
        if len(own) <= -step:
            return None
        gone = set(rng.choice(own, -step, replace=False).tolist())
        return replace(scene, things=tuple(t for i, t in enumerate(scene.things) if i not in gone))
    changed: Scene | None = scene
    for _ in range(step):
        if changed is not None:
            wanted = request.groups[group]
            changed = _add(rng, request, changed, level, wanted.colour, wanted.shape, group)
    return changed


def add_object(rng: np.random.Generator, request: Request, scene: Scene, level: Level) -> Scene | None:
    """Add an object of a kind nobody asked for."""
    colour, shape = _other(rng, tuple(COLOURS)), _other(rng, SHAPES)
    return _add(rng, request, scene, level, colour, shape, group=-1)


def change_colour(rng: np.random.Generator, request: Request, scene: Scene, level: Level) -> Scene | None:
    """Give one asked-for object another colour."""
    return _alter(rng, scene, lambda t: replace(t, colour=_other(rng, tuple(COLOURS), t.colour)))


def change_shape(rng: np.random.Generator, request: Request, scene: Scene, level: Level) -> Scene | None:
    """Give one asked-for object another shape."""
    return _alter(rng, scene, lambda t: replace(t, shape=_other(rng, SHAPES, t.shape)))


def change_size(rng: np.random.Generator, request: Request, scene: Scene, level: Level) -> Scene | None:
    """Make a small object large, or a large one small (level rich)."""
    sized = [i for i, t in enumerate(scene.things) if t.group >= 0 and request.groups[t.group].size]
    if not sized:
        return None
    index = sized[int(rng.integers(len(sized)))]
    thing = scene.things[index]
    limit = size_limit(request)
    if request.groups[thing.group].size == "small":
        radius = float(rng.uniform(1.12, 1.45)) * limit
    else:
        radius = max(8.0, float(rng.uniform(0.62, 0.88)) * limit)
    changed = replace(thing, radius=radius)
    others = [t for i, t in enumerate(scene.things) if i != index]
    if not _inside(changed, request) or not has_room(changed, others):
        return None
    return replace(scene, things=tuple(changed if i == index else t for i, t in enumerate(scene.things)))


def change_text(rng: np.random.Generator, request: Request, scene: Scene, level: Level) -> Scene | None:
    """Write another word (level rich)."""
    if request.word is None or scene.writing is None:
        return None
    word = _other(rng, WORDS, request.word).upper()
    return replace(scene, writing=replace(scene.writing, word=word))


CHANGES: Final[dict[str, Change]] = {
    "wrong relation": change_relation,  # first: it places the objects anew
    "missing object": remove_group,
    "wrong count": change_count,
    "wrong colour": change_colour,
    "wrong shape": change_shape,
    "extra object": add_object,
    "wrong size": change_size,
    "wrong text": change_text,
}
"""Subtype -> the change that makes it, in the order in which several are made to one scene."""


def _alter(rng: np.random.Generator, scene: Scene, alter: Callable[[Thing], Thing]) -> Scene | None:
    own = [i for i, thing in enumerate(scene.things) if thing.group >= 0]
    if not own:
        return None
    index = own[int(rng.integers(len(own)))]
    things = list(scene.things)
    things[index] = alter(things[index])
    others = things[:index] + things[index + 1 :]
    # Squares reach further than other shapes of the same radius.
    return replace(scene, things=tuple(things)) if has_room(things[index], others) else None


def _add(
    rng: np.random.Generator,
    request: Request,
    scene: Scene,
    level: Level,
    colour: str,
    shape: str,
    group: int,
) -> Scene | None:
    """Put one more object where there is room; one more of a related group keeps the relation."""
    low, high = RADII[min(len(scene.things) + 1, 6)]
    size = request.groups[group].size if group >= 0 else None
    factor = SIZE_FACTOR[size] if size else 1.0
    for _ in range(25):
        radius = float(rng.uniform(low, high)) * factor
        x, y = rng.uniform(radius + MARGIN, CANVAS - radius - MARGIN, 2).tolist()
        angle = float(rng.uniform(-20, 20)) if level == "rich" else 0.0
        thing = Thing(shape, colour, x, y, radius, angle, group)
        if (
            _inside(thing, request)
            and has_room(thing, scene.things)
            and _keeps_relation(thing, request, scene)
        ):
            return replace(scene, things=(*scene.things, thing))
    return None


def _inside(thing: Thing, request: Request) -> bool:
    reach = thing.radius + MARGIN
    floor = CANVAS - (_WRITING_STRIP if request.word else 0.0)
    return reach <= thing.x <= CANVAS - reach and reach <= thing.y <= floor - reach


def _keeps_relation(thing: Thing, request: Request, scene: Scene) -> bool:
    """Whether, with a further member of a related group, all pairs have the relation or none nearly does."""
    if request.relation is None or thing.group < 0:
        return True
    things = (*scene.things, thing)
    pairs = [(a, b) for a in things if a.group == 0 for b in things if b.group == 1]
    opposite = OPPOSITE[request.relation]
    return all(fulfils(a, b, request.relation) for a, b in pairs) or all(
        fulfils(a, b, opposite) for a, b in pairs
    )


def _other(rng: np.random.Generator, names: tuple[str, ...], but: str | None = None) -> str:
    left = [name for name in names if name != but]
    return left[int(rng.integers(len(left)))]
