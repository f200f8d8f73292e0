"""Coordinate jitter: boxes that differ a little each time a detector is trained on them (SDG §4.1, App. D.3).

Annotators do not agree to the pixel, and a detector shown the same numbers each epoch learns them by heart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sdg.defects import BOX_SCALE, Diagnosis


def jitter(diagnosis: Diagnosis, rng: np.random.Generator, amount: float = 10) -> Diagnosis:
    """The diagnosis with every coordinate of every box moved by its own offset from U(−amount, amount).

    Coordinates are rounded and clamped to 0..1000; where two would meet or cross, they are moved as far as
    they can be while x0 < x1 and y0 < y1 hold. Reasons, importance, reasoning and order stay as they are.
    The same generator state gives the same boxes. Raises ValueError for a negative or infinite amount.
    """
    if not 0 <= amount < np.inf:
        raise ValueError(f"The amount of jitter is a number of at least 0, not {amount}.")
    if not diagnosis.defects:
        return diagnosis
    boxes = np.array([defect.box for defect in diagnosis.defects])
    moved = _moved(boxes, rng.uniform(-amount, amount, boxes.shape))
    defects = tuple(
        replace(defect, box=tuple(box)) for defect, box in zip(diagnosis.defects, moved.tolist(), strict=True)
    )
    return replace(diagnosis, defects=defects)


def _moved(boxes: NDArray[np.int_], offsets: NDArray[np.float64]) -> NDArray[np.int_]:
    """Boxes (N, 4) moved by offsets (N, 4); each keeps an area."""
    moved = np.clip(np.rint(boxes + offsets), 0, BOX_SCALE).astype(int)
    low, high = moved[:, :2], moved[:, 2:]
    # Crossed or met: both go to the middle between them, one apart, so that neither leaves its own range.
    middle = np.clip((low + high) // 2, 0, BOX_SCALE - 1)
    crossed = low >= high
    return np.hstack([np.where(crossed, middle, low), np.where(crossed, middle + 1, high)])
