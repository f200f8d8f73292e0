"""Boxes of pixels and how they become boxes of a Defect: never thinner than a detector can be asked to see.

A pixel box is (x0, y0, x1, y1), ints, the last column and row not included.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdg.defects import BOX_SCALE
from sdg.testbed.world.renderer import signed_distance
from sdg.testbed.world.scene import CANVAS, Thing

Box = tuple[int, int, int, int]

LEAST_SIDE: Final = 12
"""Least side of a defect's box in pixels of a 128-pixel picture."""


def mask_box(mask: NDArray[np.bool_], left: int = 0, top: int = 0) -> Box | None:
    """Tight box of a mask (h, w) whose first pixel lies at (left, top); None where it is empty."""
    columns, rows = np.logical_or.reduce(mask, axis=0), np.logical_or.reduce(mask, axis=1)
    if not columns.any():
        return None
    x0, y0 = int(columns.argmax()), int(rows.argmax())
    x1, y1 = len(columns) - int(columns[::-1].argmax()), len(rows) - int(rows[::-1].argmax())
    return left + x0, top + y0, left + x1, top + y1


def thing_box(thing: Thing, size: int) -> Box:
    """Tight box of the pixels whose centres lie inside an object's outline."""
    rows, columns, distance = signed_distance(thing, size)
    box = mask_box(distance < 0, columns.start, rows.start)
    assert box is not None, "every object is larger than a pixel"
    return box


def union(boxes: Iterable[Box]) -> Box:
    """The box that holds all of them."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def widened(box: Box, size: int) -> Box:
    """The box with no side under LEAST_SIDE: grown evenly, and pushed back inside the picture."""
    least = int(np.ceil(LEAST_SIDE * size / CANVAS))
    x0, x1 = _widen(box[0], box[2], least, size)
    y0, y1 = _widen(box[1], box[3], least, size)
    return x0, y0, x1, y1


def _widen(low: int, high: int, least: int, size: int) -> tuple[int, int]:
    if high - low >= least:
        return low, high
    low = min(max(0, low - (least - (high - low)) // 2), size - least)
    return low, low + least


def to_defect_box(box: Box, size: int) -> Box:
    """Pixel box to 0–1000, rounded outwards."""
    x0, y0, x1, y1 = box
    return (
        x0 * BOX_SCALE // size,
        y0 * BOX_SCALE // size,
        -(-x1 * BOX_SCALE // size),
        -(-y1 * BOX_SCALE // size),
    )


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (area(a) + area(b) - both)


def area(box: Box) -> int:
    """Pixels in a box."""
    return (box[2] - box[0]) * (box[3] - box[1])
