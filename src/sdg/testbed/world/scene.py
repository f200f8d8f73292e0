"""What the testbed's pictures are made of: shapes, colours, backgrounds, and a Scene that holds them.

Lengths are in units of a 128-pixel canvas whatever the size a scene is rendered at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

CANVAS: Final = 128.0
"""Side of the canvas in scene units."""

SHAPES: Final = ("circle", "square", "triangle", "star", "ring", "cross")

# sRGB. Hues at least 20 degrees apart, so that a colour is a fact about pixels and not a matter of taste.
COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (214, 45, 48),
    "orange": (242, 133, 28),
    "yellow": (246, 212, 44),
    "green": (52, 164, 72),
    "cyan": (36, 190, 200),
    "blue": (44, 92, 214),
    "purple": (132, 62, 184),
    "pink": (240, 116, 178),
}

# Backgrounds have next to no saturation; objects have a lot.
BACKGROUNDS: Final[dict[str, tuple[int, int, int]]] = {
    "white": (246, 246, 244),
    "cream": (236, 228, 206),
    "grey": (156, 160, 164),
    "black": (30, 31, 36),
}

Relation = Literal["left", "right", "above", "below"]
RELATIONS: Final[tuple[Relation, ...]] = ("left", "right", "above", "below")
OPPOSITE: Final[dict[Relation, Relation]] = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
}

Level = Literal["core", "rich"]
Size = Literal["small", "large"]


@dataclass(frozen=True, slots=True)
class Group:
    """What a prompt asks for in one noun phrase: "three blue stars"."""

    count: int
    colour: str
    shape: str
    size: Size | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a prompt asks for; `relation` is where the first group lies as seen from the second.

    background None: the prompt does not name one. word: text to be written in the picture (level rich).
    """

    groups: tuple[Group, ...]
    relation: Relation | None = None
    background: str | None = None
    word: str | None = None

    @property
    def key(self) -> str:
        """Canonical text of the content, the same for every phrasing; splits are made on it."""
        groups = [f"{g.count} {g.size or ''} {g.colour} {g.shape}" for g in self.groups]
        if self.relation is None:
            groups.sort()
        return "|".join([*groups, self.relation or "", self.background or "", self.word or ""])


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: centre (x, y) and radius in scene units, angle in degrees, group it belongs to."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    group: int = -1


@dataclass(frozen=True, slots=True)
class Writing:
    """A short word in the picture: centre and height in scene units (level rich)."""

    word: str
    x: float
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything the renderer needs, and nothing else."""

    things: tuple[Thing, ...]
    background: str
    shadows: bool = False
    writing: Writing | None = None
