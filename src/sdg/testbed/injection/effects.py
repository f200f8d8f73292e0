"""The artifacts of level core, one function each: new pixels for a region around an object.

An effect proposes; `artifacts` clips the proposal to what visibly changed and refuses what is too faint, too
large or too small. Lengths below are in scene units where a name ends in nothing, in pixels after `scale`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import cos, pi, sin
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdg.testbed.world.renderer import Floats, background_picture, grid, signed_distance, thing_layer, unit
from sdg.testbed.world.scene import CANVAS, COLOURS, Scene, Thing


@dataclass(frozen=True)
class Canvas:
    """What an effect works on: the picture so far and the scene it shows."""

    picture: NDArray[np.uint8]  # (size, size, 3)
    scene: Scene
    owner: NDArray[np.int8]  # (size, size), index of the object a pixel belongs to or −1

    @property
    def size(self) -> int:
        return int(self.picture.shape[0])

    @property
    def scale(self) -> float:
        """Pixels a scene unit."""
        return self.size / CANVAS

    @cached_property
    def floats(self) -> Floats:
        return self.picture.astype(np.float32)


@dataclass(frozen=True)
class Proposal:
    """New pixels (h, w, 3) in 0..255 for a region, and the foreign colour in it, if there is one."""

    rows: slice
    columns: slice
    pixels: Floats
    colour: str | None = None


Effect = Callable[[np.random.Generator, Canvas, int], Proposal | None]


def smear(rng: np.random.Generator, canvas: Canvas, target: int) -> Proposal | None:
    """Drag what lies at a point of the outline along a direction, lane by lane, fading out."""
    px, py, outward = outline_point(rng, canvas, target)
    px, py = px - 3 * canvas.scale * cos(outward), py - 3 * canvas.scale * sin(outward)
    heading = outward + rng.uniform(-0.7, 0.7)
    dx, dy = cos(heading), sin(heading)
    length, half_width = rng.uniform(17, 27) * canvas.scale, rng.uniform(6.5, 11) * canvas.scale
    # The streak runs from 0.4 lengths before the point to one length behind it.
    ahead, reach_x = 0.3 * length, 0.7 * length * abs(dx) + half_width * abs(dy) + 1
    reach_y = 0.7 * length * abs(dy) + half_width * abs(dx) + 1
    rows, columns, x, y = grid(canvas.size, px + ahead * dx, py + ahead * dy, reach_x, reach_y)
    along, across = x * np.float32(dx) + y * np.float32(dy) + np.float32(ahead), y * dx - x * dy
    # Lanes about 1.5 px wide end at different lengths, as bristles or melted pixels would.
    lane = ((across + half_width) / (1.5 * canvas.scale)).astype(np.intp).clip(0, 31)
    reach = (length * rng.uniform(0.55, 1.0, 32)).astype(np.float32)[lane]
    edge = unit((half_width - np.abs(across)) / 2 + np.float32(0.5))
    window: Floats = edge * unit((along + 0.4 * length) / 4) * unit((reach - along) / 4 + 0.5)
    total: Floats = np.zeros((*window.shape, 3), np.float32)
    steps = np.linspace(0, 1, 7).tolist()
    here_x, here_y = x + (px + ahead * dx), y + (py + ahead * dy)
    for step in steps:
        total += np.float32(1.3 - step) * _nearest(
            canvas, here_x - reach * (dx * step), here_y - reach * (dy * step)
        )
    total /= np.float32(sum(1.3 - step for step in steps))
    old = canvas.floats[rows, columns]
    return Proposal(rows, columns, old + window[..., None] * (total - old))


def missing_chunk(rng: np.random.Generator, canvas: Canvas, target: int) -> Proposal | None:
    """Bite a ragged piece out of an object and show the background there."""
    thing = canvas.scene.things[target]
    px, py, outward = outline_point(rng, canvas, target)
    radius = thing.radius * canvas.scale * float(rng.uniform(0.4, 0.68))
    px, py = px - 0.35 * radius * cos(outward), py - 0.35 * radius * sin(outward)
    rows, columns, x, y = grid(canvas.size, px, py, 1.5 * radius, 1.5 * radius)
    window = _blob(rng, x, y, radius, feather=1.5, wobble=0.22)[..., None]
    layer_rows, layer_columns, _, coverage = thing_layer(thing, canvas.size)
    full = np.zeros((canvas.size, canvas.size, 1), np.float32)
    full[layer_rows, layer_columns] = coverage
    old = canvas.floats[rows, columns]
    behind = background_picture(canvas.scene.background, canvas.size)[rows, columns]
    return Proposal(rows, columns, old + window * full[rows, columns] * (behind - old))


def noise_texture(rng: np.random.Generator, canvas: Canvas, target: int) -> Proposal | None:
    """Cover a blotch with coarse coloured speckle; target −1 puts it on plain background."""
    if target < 0:
        radius = float(rng.uniform(9, 14)) * canvas.scale
        px, py = rng.uniform(1.2 * radius, canvas.size - 1.2 * radius, 2).tolist()
    else:
        thing = canvas.scene.things[target]
        radius = thing.radius * canvas.scale * float(rng.uniform(0.42, 0.7))
        px, py, outward = outline_point(rng, canvas, target)
        inwards = radius * float(rng.uniform(-0.1, 0.6))
        px, py = px - inwards * cos(outward), py - inwards * sin(outward)
    rows, columns, x, y = grid(canvas.size, px, py, 1.45 * radius, 1.45 * radius)
    height, width = y.size, x.size
    cell = max(1, round(float(rng.uniform(1.4, 2.6)) * canvas.scale))
    coarse = (-(-height // cell), -(-width // cell))
    strength = float(rng.uniform(45, 75))
    speckle = rng.normal(0, strength, (*coarse, 3)) + rng.normal(0, 0.6 * strength, (*coarse, 1))
    texture = speckle.astype(np.float32).repeat(cell, 0).repeat(cell, 1)[:height, :width]
    old = canvas.floats[rows, columns]
    window = _blob(rng, x, y, radius, feather=3.0)[..., None]
    return Proposal(rows, columns, old + window * (texture + 0.25 * (128 - old)))


def ghost_copy(rng: np.random.Generator, canvas: Canvas, target: int) -> Proposal | None:
    """Show the object once more beside itself, translucent and behind everything."""
    thing = canvas.scene.things[target]
    heading, shift = rng.uniform(0, 2 * pi), float(rng.uniform(0.5, 1.1)) * thing.radius
    x, y = thing.x + shift * cos(heading), thing.y + shift * sin(heading)
    if not (6 < x < CANVAS - 6 and 6 < y < CANVAS - 6):
        return None
    ghost = Thing(thing.shape, thing.colour, x, y, thing.radius, thing.angle)
    rows, columns, colour, coverage = thing_layer(ghost, canvas.size)
    old = canvas.floats[rows, columns]
    free = (canvas.owner[rows, columns] < 0)[..., None]
    opacity = np.float32(rng.uniform(0.35, 0.5))
    return Proposal(rows, columns, old + opacity * coverage * free * (colour - old))


def warp(rng: np.random.Generator, canvas: Canvas, target: int) -> Proposal | None:
    """Bend part of an object: a ripple across the outline, or a twist around a point of it."""
    thing = canvas.scene.things[target]
    px, py, outward = outline_point(rng, canvas, target)
    radius = thing.radius * canvas.scale * float(rng.uniform(0.85, 1.2))
    rows, columns, x, y = grid(canvas.size, px, py, radius, radius)
    fade = unit(1 - (x * x + y * y) / np.float32(radius * radius))
    if thing.shape != "circle" and rng.random() < 0.4:
        turn = np.float32(rng.choice([-1, 1]) * rng.uniform(0.9, 1.5)) * fade * fade
        c, s = np.cos(turn), np.sin(turn)
        from_x, from_y = c * x - s * y, s * x + c * y
    else:
        heading = outward + rng.uniform(-0.4, 0.4)
        dx, dy = cos(heading), sin(heading)
        waves = 2 * pi / (rng.uniform(8, 14) * canvas.scale)
        wave = np.sin((y * dx - x * dy) * waves + rng.uniform(0, 2 * pi))
        push = np.float32(rng.uniform(3.2, 6.0) * canvas.scale) * np.sqrt(fade) * wave
        from_x, from_y = x + dx * push, y + dy * push
    return Proposal(rows, columns, _bilinear(canvas, from_x + px, from_y + py))


def broken_edge(rng: np.random.Generator, canvas: Canvas, target: int) -> Proposal | None:
    """Tear a stretch of the outline into teeth: slivers of the object outside, nicks of background inside."""
    thing = canvas.scene.things[target]
    px, py, _ = outline_point(rng, canvas, target)
    pad = 7.0 * canvas.scale
    rows, columns, colour, coverage = thing_layer(thing, canvas.size, pad)
    distance = signed_distance(thing, canvas.size, pad)[2]
    height, width = distance.shape
    cell = max(1, round(float(rng.uniform(1.8, 3.2)) * canvas.scale))
    coarse = rng.uniform(-1, 1, (-(-height // cell), -(-width // cell))).astype(np.float32)
    teeth = np.sign(coarse) * np.abs(coarse) ** np.float32(0.5)
    teeth = teeth.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    x = (np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - px))[None, :]
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - py))[:, None]
    reach = thing.radius * canvas.scale * float(rng.uniform(0.75, 1.05))
    fade = unit(np.float32(1.6) * (1 - np.hypot(x, y) / np.float32(reach)))
    depth = float(rng.uniform(4.0, 6.0)) * canvas.scale
    torn = unit(np.float32(0.5) - distance - teeth * fade * np.float32(depth))
    gain = torn[..., None] - coverage
    old = canvas.floats[rows, columns]
    behind = background_picture(canvas.scene.background, canvas.size)[rows, columns]
    own = (canvas.owner[rows, columns] < 0) | (canvas.owner[rows, columns] == target)
    new = old + np.maximum(gain, 0) * (colour - old) + np.maximum(-gain, 0) * (behind - old)
    return Proposal(rows, columns, np.where(own[..., None], new, old))


def colour_bleeding(rng: np.random.Generator, canvas: Canvas, target: int) -> Proposal | None:
    """Let the object's colour stain the background beside it, or another colour seep into the object."""
    thing = canvas.scene.things[target]
    px, py, _ = outline_point(rng, canvas, target)
    outwards = rng.random() < 0.5
    factor = rng.uniform(0.65, 1.0) if outwards else rng.uniform(0.6, 0.85)
    radius = thing.radius * canvas.scale * float(factor)
    rows, columns, x, y = grid(canvas.size, px, py, 1.45 * radius, 1.45 * radius)
    window = _blob(rng, x, y, 0.8 * radius, feather=0.7 * radius)
    owner = canvas.owner[rows, columns]
    if outwards:
        name, inside = thing.colour, owner < 0
    else:
        others = [t.colour for t in canvas.scene.things if t.colour != thing.colour]
        if not others or rng.random() < 0.4:
            others = [name for name in COLOURS if name != thing.colour]
        name, inside = others[int(rng.integers(len(others)))], owner == target
    old = canvas.floats[rows, columns]
    opacity = np.float32(rng.uniform(0.65, 0.85))
    stain = np.array(COLOURS[name], np.float32) - old
    amount = (opacity * window * inside)[..., None]
    return Proposal(rows, columns, old + amount * stain, None if outwards else name)


def outline_point(rng: np.random.Generator, canvas: Canvas, target: int) -> tuple[float, float, float]:
    """A point (x, y) in pixels on the outline of an object, and the direction to it from the centre."""
    thing = canvas.scene.things[target]
    cx, cy, radius = thing.x * canvas.scale, thing.y * canvas.scale, thing.radius * canvas.scale
    angle = rng.uniform(0, 2 * pi)
    distances = np.arange(1.25 * radius, 0, -0.5)
    xs, ys = cx + distances * cos(angle), cy + distances * sin(angle)
    columns = xs.astype(np.intp).clip(0, canvas.size - 1)
    rows = ys.astype(np.intp).clip(0, canvas.size - 1)
    first = int((canvas.owner[rows, columns] == target).argmax())
    return float(xs[first]), float(ys[first]), angle


def _blob(
    rng: np.random.Generator, x: Floats, y: Floats, radius: float, feather: float, wobble: float = 0.16
) -> Floats:
    """Window: 1 inside a round shape with an uneven outline, falling to 0 over `feather` pixels."""
    angle = np.arctan2(y, x)
    outline = np.ones_like(angle)
    for waves, share in ((2, 0.8), (3, 0.6), (5, 0.45), (7, 0.3)):
        height, phase = float(rng.uniform(0.4, 1)) * share * wobble, rng.uniform(0, 2 * pi)
        outline += np.float32(height) * np.sin(np.float32(waves) * angle + np.float32(phase))
    distance = np.hypot(x, y) - np.float32(radius) * outline
    window: Floats = unit(np.float32(0.5) - distance / np.float32(feather))
    return window


def _nearest(canvas: Canvas, x: Floats, y: Floats) -> Floats:
    """Picture at points (x, y); points outside take the nearest pixel."""
    last = canvas.size - 1
    columns = np.minimum(np.maximum(x, 0), last).astype(np.intp)
    rows = np.minimum(np.maximum(y, 0), last).astype(np.intp)
    return _pixels(canvas, rows, columns)


def _bilinear(canvas: Canvas, x: Floats, y: Floats) -> Floats:
    """Picture between pixel centres, which are at halves; points outside take the nearest pixel."""
    last = canvas.size - 1
    x = np.minimum(np.maximum(x - np.float32(0.5), 0), last).astype(np.float32)
    y = np.minimum(np.maximum(y - np.float32(0.5), 0), last).astype(np.float32)
    columns, rows = x.astype(np.int32), y.astype(np.int32)
    right, down = (x - columns).astype(np.float32)[..., None], (y - rows).astype(np.float32)[..., None]
    next_columns, next_rows = np.minimum(columns + 1, last), np.minimum(rows + 1, last)
    top = _pixels(canvas, rows, columns)
    top += right * (_pixels(canvas, rows, next_columns) - top)
    bottom = _pixels(canvas, next_rows, columns)
    bottom += right * (_pixels(canvas, next_rows, next_columns) - bottom)
    mixed: Floats = top + down * (bottom - top)
    return mixed


def _pixels(canvas: Canvas, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> Floats:
    return canvas.floats.reshape(-1, 3).take(rows * canvas.size + columns, axis=0)


CORE_EFFECTS: Final[dict[str, Effect]] = {
    "smear": smear,
    "missing chunk": missing_chunk,
    "noise texture": noise_texture,
    "ghost copy": ghost_copy,
    "warp": warp,
    "broken edge": broken_edge,
    "colour bleeding": colour_bleeding,
}
