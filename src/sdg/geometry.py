"""Boxes as arrays: IoU, DIoU, and which cells of a grid a box covers.

Every function takes boxes as (N, 4) integers or floats, xyxy, 0–1000 on each axis, and works on all of them
at once; no boxes at all, `[]`, is as good as any.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdg.defects import BOX_SCALE

RasterMode = Literal["touch", "truncate"]


def as_boxes(boxes: ArrayLike) -> NDArray[np.number]:
    """Boxes as an (N, 4) array of int64 or float64; raises ValueError for any other shape."""
    array = np.asarray(boxes)
    if array.size == 0:
        return np.zeros((0, 4), np.int64)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"Boxes are an array of shape (N, 4), not {array.shape}.")
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64, copy=False)


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every box of a with every box of b: (N, 4), (M, 4) -> (N, M).

    0 where both boxes are without area.
    """
    return _iou(as_boxes(a)[:, None], as_boxes(b)[None, :])


def diou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Distance-IoU of every box of a with every box of b: (N, 4), (M, 4) -> (N, M), from −1 to 1.

    IoU minus the squared distance of the centres over the squared diagonal of the enclosing box (SDG §4.1).
    """
    return _diou(as_boxes(a)[:, None], as_boxes(b)[None, :])


def paired_iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """IoU of a[i] with b[i]: (N, 4), (N, 4) -> (N,); leading axes broadcast, (…, 4) -> (…)."""
    return _iou(_last_four(a), _last_four(b))


def paired_diou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """DIoU of a[i] with b[i]: (N, 4), (N, 4) -> (N,); leading axes broadcast, (…, 4) -> (…)."""
    return _diou(_last_four(a), _last_four(b))


def rasterize(boxes: ArrayLike, grid: tuple[int, int], mode: RasterMode = "touch") -> NDArray[np.bool_]:
    """Cells of a grid (rows H, columns W) that each box covers: (N, 4) ints -> bool (N, H, W).

    "touch": every cell the box touches, columns floor(x0·W/1000) up to, not including, ceil(x1·W/1000), rows
    likewise, so that no box vanishes. "truncate": both ends rounded down, as in the authors' code; a box
    thinner than a cell may cover none. Integer arithmetic throughout, so that no edge is rounded away.
    """
    height, width = (int(n) for n in grid)
    if height < 1 or width < 1:
        raise ValueError(f"A grid has at least one row and one column, not {grid}.")
    cells = touched_pixels(boxes, (width, height), mode)
    columns = _between(cells[:, 0], cells[:, 2], width)
    rows = _between(cells[:, 1], cells[:, 3], height)
    return rows[:, :, None] & columns[:, None, :]


def touched_pixels(boxes: ArrayLike, size: tuple[int, int], mode: RasterMode = "touch") -> NDArray[np.int64]:
    """The pixels of a picture of (width, height) that boxes touch, as boxes of pixels: (N, 4) ints -> (N, 4).

    x0, y0, x1, y1: the first column and row inside, and the first ones outside. Never empty, but for the mode
    "truncate"; see `rasterize`.
    """
    array = as_boxes(boxes)
    if array.dtype.kind == "f":
        raise ValueError("Boxes to rasterise are integers from 0 to 1000; round them first.")
    if mode not in ("touch", "truncate"):
        raise ValueError(f"A box is rasterised by 'touch' or 'truncate', not {mode!r}.")
    low, high = array[:, :2] * size, array[:, 2:] * size
    end = high if mode == "truncate" else high + BOX_SCALE - 1  # rounds up
    return np.concatenate([low, end], axis=1) // BOX_SCALE


def _between(first: NDArray, end: NDArray, length: int) -> NDArray[np.bool_]:
    position = np.arange(length)
    return (position >= first[:, None]) & (position < end[:, None])


def _last_four(boxes: ArrayLike) -> NDArray[np.number]:
    array = np.asarray(boxes)
    if array.ndim < 2:
        return as_boxes(array)
    if array.shape[-1] != 4:
        raise ValueError(f"Boxes are an array of shape (…, 4), not {array.shape}.")
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64, copy=False)


def _iou(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """IoU over the last axis, broadcasting the others."""
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = _area(a) + _area(b) - intersection
    return np.divide(intersection, union, out=np.zeros(union.shape), where=union > 0)


def _diou(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """DIoU over the last axis, broadcasting the others."""
    # Twice the centres keeps integers integers; the factor of four comes back in the denominator.
    gap = (a[..., :2] + a[..., 2:]) - (b[..., :2] + b[..., 2:])
    span = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
    distance = (gap**2).sum(-1)
    diagonal = 4 * (span**2).sum(-1)
    return _iou(a, b) - np.divide(distance, diagonal, out=np.zeros(diagonal.shape), where=diagonal > 0)


def _area(boxes: NDArray) -> NDArray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
