"""Draw a Scene: anti-aliased, lightly shaded shapes, the same bytes for the same scene on every run.

Each shape is a signed distance function (negative inside), so that edges, rims and shadows come from one
number a pixel and any size renders alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sdg.testbed.world.scene import BACKGROUNDS, CANVAS, COLOURS, Scene, Thing, Writing

Floats = NDArray[np.float32]


def _circle(x: Floats, y: Floats, r: float) -> Floats:
    return np.hypot(x, y) - np.float32(r)


def _box(x: Floats, y: Floats, half_w: float, half_h: float) -> Floats:
    return np.maximum(np.abs(x) - np.float32(half_w), np.abs(y) - np.float32(half_h))


def _square(x: Floats, y: Floats, r: float) -> Floats:
    return _box(x, y, 0.86 * r, 0.86 * r)


def _cross(x: Floats, y: Floats, r: float) -> Floats:
    return np.minimum(_box(x, y, 0.98 * r, 0.33 * r), _box(x, y, 0.33 * r, 0.98 * r))


def _ring(x: Floats, y: Floats, r: float) -> Floats:
    return np.abs(np.hypot(x, y) - np.float32(0.73 * r)) - np.float32(0.25 * r)


def _triangle(x: Floats, y: Floats, r: float) -> Floats:
    # Equilateral, point up; its centroid a little below the middle of its bounding box.
    y = y - np.float32(0.2 * r)
    slope = np.float32(3**0.5 / 2)
    return np.maximum(np.abs(x) * slope - y * np.float32(0.5), y) - np.float32(0.56 * r)


def _star_normal() -> tuple[np.float32, np.float32]:
    # Outward normal of the edge from a tip at (1, 0) to a notch at 36 degrees, 0.45 from the centre.
    dx, dy = 0.45 * np.cos(np.pi / 5) - 1, 0.45 * np.sin(np.pi / 5)
    length = np.hypot(dx, dy)
    return np.float32(dy / length), np.float32(-dx / length)


_STAR_NORMAL: Final = _star_normal()


def _star(x: Floats, y: Floats, r: float) -> Floats:
    # Fold the plane into one half point of the five, then the distance to that point's edge.
    angle = np.arctan2(np.abs(x), -y)
    sector, half = np.float32(0.4 * np.pi), np.float32(0.2 * np.pi)
    angle = np.abs(np.mod(angle + half, sector) - half)
    distance = np.hypot(x, y)
    nx, ny = _STAR_NORMAL
    outward = (distance * np.cos(angle) - np.float32(r)) * nx + distance * np.sin(angle) * ny
    return outward.astype(np.float32, copy=False)


DISTANCE: Final[dict[str, Callable[[Floats, Floats, float], Floats]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}
"""Shape -> signed distance of points (x, y), relative to the centre, for a given radius."""

_LIGHT: Final = (-0.55, -0.835)
"""Direction towards the light: up and to the left."""


def render(scene: Scene, size: int = 128) -> NDArray[np.uint8]:
    """Picture of a scene: (size, size, 3) uint8 sRGB."""
    return to_uint8(render_float(scene, size))


def unit(values: NDArray[np.floating]) -> Floats:
    """Values clipped to 0..1; on small arrays twice as fast as np.clip."""
    clipped: Floats = np.minimum(np.maximum(values, 0), 1)
    return clipped


def to_uint8(picture: Floats) -> NDArray[np.uint8]:
    """Float picture in 0..255 to bytes."""
    rounded = picture + np.float32(0.5)
    np.maximum(rounded, 0, out=rounded)
    np.minimum(rounded, 255, out=rounded)
    return rounded.astype(np.uint8)


def render_float(scene: Scene, size: int = 128) -> Floats:
    """Picture of a scene before rounding: (size, size, 3) float32 in 0..255."""
    picture = background_picture(scene.background, size).copy()
    if scene.shadows:
        for thing in scene.things:
            draw_shadow(picture, thing)
    for thing in scene.things:
        draw_thing(picture, thing)
    if scene.writing is not None:
        draw_writing(picture, scene.writing, scene.background)
    return picture


@lru_cache(maxsize=32)
def background_picture(name: str, size: int) -> Floats:
    """Plain background, a little lighter at the top: (size, size, 3) float32. Not to be written to."""
    fall = np.linspace(1.03, 0.97, size, dtype=np.float32)[:, None, None]
    column = np.minimum(np.array(BACKGROUNDS[name], np.float32) * fall, np.float32(255))
    return np.broadcast_to(column, (size, size, 3))


def patch(thing: Thing, size: int, pad: float = 2.0) -> tuple[slice, slice, Floats, Floats]:
    """Rows and columns that hold a thing, and its own coordinates (x, y) of their pixel centres.

    x and y broadcast to (h, w): (1, w) and (h, 1) where the thing is not turned.
    """
    scale = size / CANVAS
    reach = thing.radius * scale * (1.42 if thing.angle else 1.02) + pad
    rows, columns, x, y = grid(size, thing.x * scale, thing.y * scale, reach, reach)
    if thing.angle:
        cos, sin = np.float32(np.cos(np.radians(thing.angle))), np.float32(np.sin(np.radians(thing.angle)))
        x, y = cos * x + sin * y, cos * y - sin * x
    return rows, columns, x, y


def grid(
    size: int, px: float, py: float, reach_x: float, reach_y: float
) -> tuple[slice, slice, Floats, Floats]:
    """Rows and columns around (px, py), and their centres relative to it: x (1, w), y (h, 1), in pixels."""
    x0, x1 = max(0, int(px - reach_x)), min(size, int(px + reach_x) + 1)
    y0, y1 = max(0, int(py - reach_y)), min(size, int(py + reach_y) + 1)
    x = (np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - px))[None, :]
    y = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - py))[:, None]
    return slice(y0, y1), slice(x0, x1), x, y


def signed_distance(thing: Thing, size: int, pad: float = 2.0) -> tuple[slice, slice, Floats]:
    """Rows, columns, and the signed distance of their pixel centres from the outline, in pixels."""
    rows, columns, x, y = patch(thing, size, pad)
    return rows, columns, DISTANCE[thing.shape](x, y, thing.radius * size / CANVAS)


def thing_layer(thing: Thing, size: int, pad: float = 2.0) -> tuple[slice, slice, Floats, Floats]:
    """Rows, columns, colour (h, w, 3) and coverage (h, w, 1) of one object and `pad` pixels around it."""
    rows, columns, x, y = patch(thing, size, pad)
    radius = thing.radius * size / CANVAS
    distance = DISTANCE[thing.shape](x, y, radius)
    coverage = unit(np.float32(0.5) - distance)[..., None]
    light = (x * np.float32(_LIGHT[0]) + y * np.float32(_LIGHT[1])) * np.float32(0.16 / radius)
    rim = unit(np.float32(1) + distance / np.float32(0.14 * radius)) * np.float32(-0.2)
    colour = np.array(COLOURS[thing.colour], np.float32) * (np.float32(1.02) + light + rim)[..., None]
    return rows, columns, np.minimum(np.maximum(colour, 0), 255), coverage


def draw_thing(picture: Floats, thing: Thing) -> None:
    """Draw one object onto a float picture, in place."""
    rows, columns, colour, coverage = thing_layer(thing, picture.shape[0])
    region = picture[rows, columns]
    region += (colour - region) * coverage


def draw_shadow(picture: Floats, thing: Thing, dx: float = 3.0, dy: float = 5.0, depth: float = 0.3) -> None:
    """Soft shadow of one object, offset by (dx, dy) scene units (level rich), in place."""
    size = picture.shape[0]
    soft = 5.0 * size / CANVAS
    moved = Thing(thing.shape, thing.colour, thing.x + dx, thing.y + dy, thing.radius, thing.angle)
    rows, columns, distance = signed_distance(moved, size, pad=soft)
    shade = unit(np.float32(0.5) - distance / np.float32(soft)) * np.float32(depth)
    picture[rows, columns] *= 1 - shade[..., None]


def draw_writing(picture: Floats, writing: Writing, background: str) -> None:
    """Write a word in the colour that reads best on the background (level rich), in place."""
    size = picture.shape[0]
    ink = np.array((235, 235, 232) if background == "black" else (28, 28, 32), np.float32)
    coverage = writing_coverage(writing, size)[..., None]
    picture += (ink - picture) * coverage


def writing_coverage(writing: Writing, size: int) -> Floats:
    """How much of each pixel a word's ink covers: (size, size) float32 in 0..1."""
    scale = size / CANVAS
    canvas = Image.new("L", (size, size))
    font = ImageFont.load_default(size=writing.height * scale)
    place = (writing.x * scale, writing.y * scale)
    ImageDraw.Draw(canvas).text(place, writing.word, fill=255, font=font, anchor="mm")
    return np.asarray(canvas, np.float32) / np.float32(255)


def object_map(scene: Scene, size: int = 128) -> NDArray[np.int8]:
    """Index of the object that owns each pixel, −1 for background: (size, size) int8."""
    owner = np.full((size, size), -1, np.int8)
    for index, thing in enumerate(scene.things):
        rows, columns, distance = signed_distance(thing, size)
        owner[rows, columns][distance < 0] = index
    return owner
