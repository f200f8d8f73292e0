"""Between the 0–1000 integer boxes of a Defect and the pixels or percentages of other tools; image sizes.

Written as floats, either gives back the same integers: a half step of the grid is far more than an error
of floating-point arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sdg.defects import BOX_SCALE
from sdg.errors import quoted
from sdg.images import image_size
from sdg.io.paths import data_path
from sdg.records import Path as AnyPath
from sdg.records import Record

Box = tuple[int, int, int, int]
Size = tuple[int, int]
"""(width, height) in pixels."""
_MOST: Final = 1_000_000_000  # pixels, or a box's numbers: beyond, the grid's numbers overflow


def known_size(record: Record) -> Size | None:
    """The `width` and `height` of a record's metadata."""
    return as_size(record.metadata.get("width"), record.metadata.get("height"))


def as_size(width: object, height: object) -> Size | None:
    """Both as a size in pixels; None where one is no number of pixels that a picture has."""
    if type(width) is int and type(height) is int and 0 < width <= _MOST and 0 < height <= _MOST:
        return width, height
    return None


def pixel_size(
    record: Record, images: AnyPath | None, default: Size | None, allow_outside: bool = False
) -> Size | None:
    """The size of a record's image: what it says itself, else what its file in `images` says, else `default`.

    Raises SdgError where the file cannot be read, or its path leads out of `images` and is not allowed to.
    """
    if (known := known_size(record)) is not None or images is None:
        return known or default
    return image_size(data_path(record.filepath, Path(images), allow_outside=allow_outside))


def to_scale(box: Sequence[int], scale: tuple[float, float]) -> tuple[float, float, float, float]:
    """A 0–1000 box `(x0, y0, x1, y1)` as `(x, y, width, height)` of an image `scale` = (wide, high)."""
    x0, y0, x1, y1 = box
    wide, high = scale
    return (
        x0 * wide / BOX_SCALE,
        y0 * high / BOX_SCALE,
        (x1 - x0) * wide / BOX_SCALE,
        (y1 - y0) * high / BOX_SCALE,
    )


def from_scale(box: object, scale: tuple[float, float]) -> Box:
    """The 0–1000 box nearest to `[x, y, width, height]` in an image `scale` = (wide, high).

    A box thinner than a step of the grid becomes one step wide.
    Raises ValueError where it is not four finite numbers, has no area or leaves the image.
    """
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_is_finite, box)):
        raise ValueError(f"A box is four numbers [x, y, width, height], not {quoted(box)}.")
    x, y, width, height = box
    if max(map(abs, box)) > _MOST:
        raise ValueError(
            f"The box {quoted(list(box))} leaves the image, which is {scale[0]:g} by {scale[1]:g}."
        )
    if not (width > 0 and height > 0):
        raise ValueError(f"A box needs a width and a height above 0, not {quoted(list(box))}.")
    (x0, x1), (y0, y1) = _interval(x, width, scale[0]), _interval(y, height, scale[1])
    if x0 < 0 or y0 < 0 or x1 > BOX_SCALE or y1 > BOX_SCALE:
        raise ValueError(
            f"The box {quoted(list(box))} leaves the image, which is {scale[0]:g} by {scale[1]:g}."
        )
    return x0, y0, x1, y1


def _interval(start: float, length: float, whole: float) -> tuple[int, int]:
    low, high = round(start * BOX_SCALE / whole), round((start + length) * BOX_SCALE / whole)
    if low == high:
        low, high = (low, high + 1) if high < BOX_SCALE else (low - 1, high)
    return low, high


def _is_finite(value: object) -> bool:
    # Compared, as an integer may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf
