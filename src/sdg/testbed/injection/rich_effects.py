"""The artifacts of level rich: letters that are none, and shadows that fall towards the light."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from sdg.testbed.injection.effects import Canvas, Effect, Proposal
from sdg.testbed.world.boxes import mask_box
from sdg.testbed.world.renderer import (
    background_picture,
    draw_shadow,
    draw_thing,
    draw_writing,
    writing_coverage,
)


def garbled_letters(rng: np.random.Generator, canvas: Canvas, target: int) -> Proposal | None:
    """Flip, turn and slice up the letters of the written word."""
    writing = canvas.scene.writing
    if writing is None:
        return None
    ink = writing_coverage(writing, canvas.size)
    box = mask_box(ink > 0.02)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    old = canvas.floats[y0:y1, x0:x1]
    word = ink[y0:y1, x0:x1]
    edges = np.linspace(0, x1 - x0, len(writing.word) + 1).round().astype(int)
    garbled = word.copy()
    for left, right in pairwise(edges.tolist()):
        letter = word[:, left:right]
        move = int(rng.integers(4))
        if move == 0:
            letter = letter[::-1]
        elif move == 1:
            letter = letter[::-1, ::-1]
        elif move == 2:
            letter = np.roll(letter, letter.shape[0] // 3, axis=0)
        else:
            letter = np.maximum(
                letter[:, ::-1] * np.float32(0.9), np.roll(letter, letter.shape[0] // 2, axis=0)
            )
        garbled[:, left:right] = letter
    # The ink's colour is that of the most covered pixel; without its word the strip shows the background.
    row, column = np.unravel_index(int(word.argmax()), word.shape)
    paper = background_picture(canvas.scene.background, canvas.size)[y0:y1, x0:x1]
    pixels = paper + (old[row, column] - paper) * garbled[..., None]
    return Proposal(slice(y0, y1), slice(x0, x1), pixels)


def wrong_shadow(rng: np.random.Generator, canvas: Canvas, target: int) -> Proposal | None:
    """Let one object's shadow fall up or to the left, where the light comes from."""
    if not canvas.scene.shadows:
        return None
    scene, thing = canvas.scene, canvas.scene.things[target]
    dx, dy = [(-8.0, -4.0), (-4.0, -8.0), (-9.0, 3.0), (3.0, -9.0)][int(rng.integers(4))]
    pixels = background_picture(scene.background, canvas.size).copy()
    for index, other in enumerate(scene.things):
        if index != target:
            draw_shadow(pixels, other)
    draw_shadow(pixels, thing, dx, dy, depth=0.45)
    for other in scene.things:
        draw_thing(pixels, other)
    if scene.writing is not None:
        draw_writing(pixels, scene.writing, scene.background)
    # Only this object's surroundings: other artifacts lie elsewhere and stay.
    reach = thing.radius + 16
    low_x, high_x = (int(max(0, min(128, thing.x + way * reach)) * canvas.scale) for way in (-1, 1))
    low_y, high_y = (int(max(0, min(128, thing.y + way * reach)) * canvas.scale) for way in (-1, 1))
    rows, columns = slice(low_y, high_y), slice(low_x, high_x)
    free = (canvas.owner[rows, columns] < 0)[..., None]
    new = np.where(free, pixels[rows, columns], canvas.floats[rows, columns])
    return Proposal(rows, columns, new)


RICH_EFFECTS: Final[dict[str, Effect]] = {
    "garbled letters": garbled_letters,
    "wrong shadow": wrong_shadow,
}
