"""A canvas: a size that an API knows, with a picture of another shape in its middle and padding around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PADDING: Final = (128, 128, 128)
_SAME_SHAPE: Final = 0.02
"""How far the shape of what comes back may be from the canvas's: servers round sizes."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """size: (width, height). inside: where the picture lies, (left, top, right, bottom), in pixels.

    original: the picture's own (width, height); it is scaled to fill its place.
    """

    size: tuple[int, int]
    inside: tuple[int, int, int, int]
    original: tuple[int, int]

    @classmethod
    def holding(cls, picture: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> Self:
        """The canvas, of the sizes given, that a picture of (width, height) fills most of."""
        width, height = picture

        def scale(size: tuple[int, int]) -> float:
            return min(size[0] / width, size[1] / height)

        def filled(size: tuple[int, int]) -> float:
            return scale(size) ** 2 * width * height / (size[0] * size[1])

        size = max(sizes, key=filled)
        inner = [max(1, round(side * scale(size))) for side in picture]
        left, top = ((whole - part) // 2 for whole, part in zip(size, inner, strict=True))
        return cls(size, (left, top, left + inner[0], top + inner[1]), picture)

    def with_picture(self, picture: Image.Image) -> Image.Image:
        """The picture in its place, RGB, on grey padding; on black where it is grey itself, as heat is."""
        whole = Image.new("RGB", self.size, "black" if picture.mode == "L" else PADDING)
        whole.paste(_scaled(picture.convert("RGB"), self._inner, Image.Resampling.LANCZOS), self.inside[:2])
        return whole

    def mask(self, editable: NDArray[np.bool_]) -> Image.Image:
        """RGBA, transparent where the picture is to be edited, as the API has its masks; padding is kept.

        editable: (H, W) of the picture. Black throughout: colours would only make the file large.
        """
        alpha = Image.new("L", self.size, 255)
        kept = Image.fromarray(np.where(editable, 0, 255).astype(np.uint8))
        alpha.paste(_scaled(kept, self._inner, Image.Resampling.NEAREST), self.inside[:2])
        whole = Image.new("RGBA", self.size)
        whole.putalpha(alpha)
        return whole

    def taken_from(self, edited: Image.Image) -> Image.Image:
        """The picture's place in an edited canvas, of whatever scale, at the picture's own size.

        Raises ValueError where the canvas came back in another shape: its pixels then lie elsewhere.
        """
        across, down = edited.width / self.size[0], edited.height / self.size[1]
        if abs(across / down - 1) > _SAME_SHAPE:
            raise ValueError(
                f"The server gave a picture of {edited.width} × {edited.height} pixels "
                f"where one of {self.size[0]} × {self.size[1]} was asked for."
            )
        left, top, right, bottom = self.inside
        place = (left * across, top * down, right * across, bottom * down)
        return edited.convert("RGB").resize(self.original, Image.Resampling.LANCZOS, box=place)

    @property
    def _inner(self) -> tuple[int, int]:
        left, top, right, bottom = self.inside
        return right - left, bottom - top


def _scaled(image: Image.Image, size: tuple[int, int], filter: Image.Resampling) -> Image.Image:
    return image if image.size == size else image.resize(size, filter)
