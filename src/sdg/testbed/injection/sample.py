"""One picture with known defects: request, scene, pixels, diagnosis, and dense truth for vision models.

Everything is drawn from one random generator, so that a seed gives the same sample on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdg.defects import Defect, DefectType, Diagnosis
from sdg.testbed.importance import artifact_importance, misalignment_importance
from sdg.testbed.injection.artifacts import MAX_OVERLAP, Artifact, damage
from sdg.testbed.injection.misalignments import CHANGES
from sdg.testbed.injection.reading import Misalignment, misalignments
from sdg.testbed.injection.thinking import trace
from sdg.testbed.injection.wording import artifact_reason, misalignment_reason
from sdg.testbed.world.boxes import Box, overlap, thing_box, to_defect_box
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.prompts import Split
from sdg.testbed.world.renderer import object_map, render
from sdg.testbed.world.scene import Level, Request, Scene

T = TypeVar("T")
Kind = Literal["clean", "artifact", "misalignment", "both"]

KIND_SHARES: Final[dict[Kind, float]] = {
    "clean": 0.25,
    "artifact": 0.41,
    "misalignment": 0.11,
    "both": 0.23,
}
"""Shares of pictures. SDG-30K has 25.1, 46.3, 5.4 and 23.2 % (SDG §3.3, Fig. 3). Ours has more pictures with
misalignments alone and fewer with artifacts alone: that is where a small model learns to see them."""

ARTIFACT_COUNTS: Final = {
    "artifact": ((1, 2, 3, 4), (0.5, 0.28, 0.15, 0.07)),
    "both": ((1, 2, 3), (0.6, 0.28, 0.12)),
}
MISALIGNMENT_COUNTS: Final = {"misalignment": ((1, 2), (0.75, 0.25)), "both": ((1, 2), (0.8, 0.2))}
MAX_DEFECTS: Final = 4

_CORE_WEIGHTS: Final = {
    "wrong relation": 4.0,  # only where the prompt asks for one
    "missing object": 1.3,
    "wrong count": 2.2,
    "wrong colour": 1.1,
    "wrong shape": 1.1,
    "extra object": 1.1,
}
_RICH_WEIGHTS: Final = _CORE_WEIGHTS | {"wrong size": 1.5, "wrong text": 1.5}


@dataclass(frozen=True, slots=True)
class SeenObject:
    """One object as drawn: its kind and tight pixel box (x0, y0, x1, y1), without the last column and row."""

    shape: str
    colour: str
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A picture with a known diagnosis, for a picture of `size` pixels a side.

    picture: (size, size, 3) uint8; its artifacts changed it where `artifact_mask` (size, size) is True and
    nowhere else. scene: as drawn, misalignments included. object_map: (size, size) int8, index into `objects`
    of the object that owns each pixel (undamaged), −1 for background.
    """

    request: Request
    prompt: str
    scene: Scene
    picture: NDArray[np.uint8]
    diagnosis: Diagnosis
    objects: tuple[SeenObject, ...]
    object_map: NDArray[np.int8]
    artifact_mask: NDArray[np.bool_]


def sample(
    rng: np.random.Generator,
    level: Level = "core",
    split: Split | None = None,
    size: int = 128,
    kind: Kind | None = None,
) -> Sample:
    """Draw a picture with its defects: of the prompts of one split, or of one kind, where these are named.

    Raises ValueError where `size` is under 64: defects would be too small to see.
    """
    if size < 64:
        raise ValueError(f"A testbed picture has at least 64 pixels a side, not {size}.")
    if kind is None:
        kind = _choose(rng, tuple(KIND_SHARES), tuple(KIND_SHARES.values()))
    wrong = _choose(rng, *MISALIGNMENT_COUNTS[kind]) if kind in MISALIGNMENT_COUNTS else 0
    damaged = _choose(rng, *ARTIFACT_COUNTS[kind]) if kind in ARTIFACT_COUNTS else 0
    damaged = min(damaged, MAX_DEFECTS - wrong)
    while True:
        drawn = _draw(rng, level, split, size, wrong, damaged)
        if drawn is not None:
            return drawn


def _draw(
    rng: np.random.Generator, level: Level, split: Split | None, size: int, wrong: int, damaged: int
) -> Sample | None:
    request, prompt, scene = sample_scene(rng, level, split)
    contradictions: list[Misalignment] = []
    if wrong:
        changed = _misalign(rng, request, scene, level, size, wrong)
        if changed is None:
            return None
        scene, contradictions = changed
    picture, owner = render(scene, size), object_map(scene, size)
    mask = np.zeros((size, size), bool)
    flaws: tuple[Artifact, ...] = ()
    if damaged:
        result = damage(rng, picture, scene, owner, damaged, level)
        if result is None:
            return None
        picture, flaws, mask = result.picture, result.artifacts, result.mask
    boxes = [thing_box(thing, size) for thing in scene.things]
    diagnosis = _diagnose(rng, request, scene, boxes, size, contradictions, flaws)
    objects = tuple(SeenObject(t.shape, t.colour, b) for t, b in zip(scene.things, boxes, strict=True))
    return Sample(request, prompt, scene, picture, diagnosis, objects, owner, mask)


def _misalign(
    rng: np.random.Generator, request: Request, scene: Scene, level: Level, size: int, count: int
) -> tuple[Scene, list[Misalignment]] | None:
    """Change the scene so that it has exactly `count` misalignments of different subtypes."""
    weights = _CORE_WEIGHTS if level == "core" else _RICH_WEIGHTS
    names = [name for name in weights if name != "wrong relation" or request.relation is not None]
    for _ in range(6):
        shares = np.array([weights[name] for name in names])
        picked = rng.choice(len(names), count, replace=False, p=shares / shares.sum())
        wanted = [name for name in CHANGES if name in {names[int(i)] for i in picked}]
        changed: Scene | None = scene
        for name in wanted:
            if changed is not None:
                changed = CHANGES[name](rng, request, changed, level)
        if changed is None:
            continue
        found = misalignments(request, changed, size)
        if sorted(f.subtype for f in found) == sorted(wanted) and _is_plain(request, found):
            return changed, found
    return None


def _is_plain(request: Request, found: list[Misalignment]) -> bool:
    """Whether they can be told apart: no two about one group or relation, and no near-equal boxes."""
    asked = [f for f in found if f.subtype != "extra object"]
    if request.relation is not None and len(asked) > 1:
        return False
    groups = [f.group for f in asked if f.group is not None]
    apart = all(overlap(a.box, b.box) < MAX_OVERLAP for i, a in enumerate(found) for b in found[:i])
    return apart and len(set(groups)) == len(groups)


def _diagnose(
    rng: np.random.Generator,
    request: Request,
    scene: Scene,
    boxes: list[Box],
    size: int,
    contradictions: list[Misalignment],
    flaws: tuple[Artifact, ...],
) -> Diagnosis:
    found: list[Misalignment | Artifact] = [
        *sorted(contradictions, key=_left_to_right),
        *sorted(flaws, key=_left_to_right),
    ]
    defects = []
    # Four long reasons would not fit into the target's 250 tokens.
    shortest = {3: 2, 4: 1}.get(len(found))
    for defect in found:
        if isinstance(defect, Misalignment):
            type = DefectType.MISALIGNMENT
            reason = misalignment_reason(rng, request, scene, boxes, size, defect, shortest)
            colours = [scene.things[thing].colour for thing in defect.things]
            importance = misalignment_importance(
                request, defect.subtype, defect.group, colours, defect.box, size
            )
        else:
            type = DefectType.ARTIFACT
            reason = artifact_reason(rng, scene, boxes, size, defect, shortest)
            group = scene.things[defect.target].group if defect.target >= 0 else None
            importance = artifact_importance(defect.subtype, group, defect.change, defect.box, size)
        defects.append(Defect(to_defect_box(defect.box, size), type, reason, importance, defect.subtype))
    return Diagnosis(tuple(defects), trace(request, scene, boxes, size, found))


def _left_to_right(defect: Misalignment | Artifact) -> tuple[int, int]:
    x0, y0, x1, y1 = defect.box
    return x0 + x1, y0 + y1


def _choose(rng: np.random.Generator, values: Sequence[T], shares: Sequence[float]) -> T:
    point = rng.random() * sum(shares)
    for value, share in zip(values, shares, strict=True):
        point -= share
        if point < 0:
            return value
    return values[-1]
