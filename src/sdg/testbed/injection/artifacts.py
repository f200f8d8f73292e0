"""Artifacts put onto a rendered picture one after the other, each with the mask of exactly what it changed.

A proposal of an effect is kept only where it visibly changes the picture, and refused as a whole when it is
too faint, too small, hides too much of an object, or touches the pixels of another artifact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdg.testbed.injection.effects import CORE_EFFECTS, Canvas, Effect
from sdg.testbed.injection.rich_effects import RICH_EFFECTS
from sdg.testbed.world.boxes import Box, mask_box, overlap, widened
from sdg.testbed.world.renderer import to_uint8
from sdg.testbed.world.scene import Level, Scene

CHANGE_THRESHOLD: Final = 6
"""Largest channel difference (of 255) that counts as no change; such pixels are put back as they were."""
MIN_MEAN_CHANGE: Final = 18.0
"""Least mean of the largest channel difference over the changed pixels."""
MIN_AREA: Final = 60.0
"""Least number of changed pixels of a picture of 128 px; other sizes in proportion to their area."""
MAX_HIDDEN: Final = 0.4
"""Share of an object's pixels that all artifacts together may change."""
MAX_MOVED: Final = 0.5
"""The same for artifacts that move the object's own pixels about."""
CHUNK_SHARE: Final = (0.14, 0.36)
MAX_OVERLAP: Final = 0.5
"""Two boxes of one type overlap by less than this IoU."""

_MOVING: Final = ("warp", "smear")  # an object's own colour, moved
_BACKGROUND_SHARE: Final = 0.1
_TRIES: Final = 8
_TRIES_OF_ONE: Final = 4

EFFECTS: Final[dict[str, Effect]] = CORE_EFFECTS | RICH_EFFECTS


@dataclass(frozen=True)
class Artifact:
    """One artifact: subtype, pixel box (widened), the object it is on (−1: none), mean change 0..255.

    centre: of the changed pixels, (x, y) in pixels; colour: a foreign colour that seeped in, if one did.
    """

    subtype: str
    box: Box
    target: int
    change: float
    centre: tuple[float, float]
    colour: str | None = None


@dataclass(frozen=True)
class Damaged:
    """A picture (size, size, 3) uint8 with artifacts, and the mask (size, size) of what they changed."""

    picture: NDArray[np.uint8]
    artifacts: tuple[Artifact, ...]
    mask: NDArray[np.bool_]


def damage(
    rng: np.random.Generator,
    twin: NDArray[np.uint8],
    scene: Scene,
    owner: NDArray[np.int8],
    count: int,
    level: Level = "core",
    subtype: str | None = None,
) -> Damaged | None:
    """Put `count` artifacts (of one subtype, if named) onto a picture; None where they found no room.

    twin: (size, size, 3) uint8, not changed. owner: (size, size), index of the object at each pixel or −1.
    """
    names = [subtype] if subtype else list(CORE_EFFECTS if level == "core" else EFFECTS)
    damaged = Damaged(twin, (), np.zeros(twin.shape[:2], bool))
    canvas = Canvas(twin, scene, owner)
    for _ in range(_TRIES * count):
        if len(damaged.artifacts) == count:
            return damaged
        name = names[int(rng.integers(len(names)))]
        for _ in range(_TRIES_OF_ONE):  # so that the hard ones are about as frequent as the others
            target = _choose_target(rng, scene, damaged.artifacts, name)
            attempt = _attempt(rng, name, target, canvas, damaged)
            if attempt is not None:
                damaged = attempt
                canvas = Canvas(damaged.picture, scene, owner)
                break
    return damaged if len(damaged.artifacts) == count else None


def _choose_target(rng: np.random.Generator, scene: Scene, artifacts: tuple[Artifact, ...], name: str) -> int:
    """An object, sooner one without an artifact yet; −1 (no object) at times for noise, and for letters."""
    things = len(scene.things)
    if name == "garbled letters" or not things:
        return -1
    if name == "noise texture" and rng.random() < _BACKGROUND_SHARE:
        return -1
    taken = {artifact.target for artifact in artifacts}
    weights = [0.3 if index in taken else 1.0 for index in range(things)]
    point = rng.random() * sum(weights)
    for index, weight in enumerate(weights[:-1]):
        point -= weight
        if point < 0:
            return index
    return things - 1


def _attempt(
    rng: np.random.Generator, name: str, target: int, canvas: Canvas, so_far: Damaged
) -> Damaged | None:
    """The picture with one more artifact, or None where the effect's proposal is refused."""
    if target < 0 and name not in ("noise texture", "garbled letters"):
        return None
    proposal = EFFECTS[name](rng, canvas, target)
    if proposal is None:
        return None
    rows, columns = proposal.rows, proposal.columns
    old, new = so_far.picture[rows, columns], to_uint8(proposal.pixels)
    difference = np.maximum(old, new) - np.minimum(old, new)
    largest = np.maximum(np.maximum(difference[..., 0], difference[..., 1]), difference[..., 2])
    changed = largest > CHANGE_THRESHOLD
    area = int(np.count_nonzero(changed))
    if area < MIN_AREA * canvas.scale**2 or (changed & so_far.mask[rows, columns]).any():
        return None
    change = float(largest[changed].mean())
    if change < MIN_MEAN_CHANGE or not _spares_objects(
        name, target, changed, so_far.mask, rows, columns, canvas
    ):
        return None
    tight = mask_box(changed, columns.start, rows.start)
    assert tight is not None
    box = widened(tight, canvas.size)
    if any(overlap(box, artifact.box) >= MAX_OVERLAP for artifact in so_far.artifacts):
        return None
    picture, mask = so_far.picture.copy(), so_far.mask.copy()
    picture[rows, columns] = np.where(changed[..., None], new, old)
    mask[rows, columns] |= changed
    row, column = np.nonzero(changed)
    centre = (columns.start + float(column.mean()) + 0.5, rows.start + float(row.mean()) + 0.5)
    artifact = Artifact(name, box, target, change, centre, proposal.colour)
    return Damaged(picture, (*so_far.artifacts, artifact), mask)


def _spares_objects(
    name: str,
    target: int,
    changed: NDArray[np.bool_],
    before: NDArray[np.bool_],
    rows: slice,
    columns: slice,
    canvas: Canvas,
) -> bool:
    """Whether every object can still be told: nothing the request is judged by may be lost."""
    hit = np.bincount(canvas.owner[rows, columns][changed] + 1, minlength=target + 2)
    lost = int(hit[target + 1]) if target >= 0 else 0
    if hit[1:].sum() != lost:
        return False  # it reaches into another object
    if not lost:
        return name != "missing chunk"
    pixels = canvas.owner == target
    total = int(np.count_nonzero(pixels))
    if name == "missing chunk" and not CHUNK_SHARE[0] <= lost / total <= CHUNK_SHARE[1]:
        return False
    most = MAX_MOVED if name in _MOVING else MAX_HIDDEN
    return lost + int(np.count_nonzero(before & pixels)) <= most * total
