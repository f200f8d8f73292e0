"""A canvas holds a picture of any shape without stretching it, and gives it back where it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from sdg.refinement.canvas import Canvas

SIZES = ((64, 64), (96, 64), (64, 96))
SIDES = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(SIDES)
def test_the_picture_fills_one_side_and_keeps_its_shape(picture: tuple[int, int]) -> None:
    canvas = Canvas.holding(picture, SIZES)
    left, top, right, bottom = canvas.inside
    assert 0 <= left < right <= canvas.size[0]
    assert 0 <= top < bottom <= canvas.size[1]
    assert right - left == canvas.size[0] or bottom - top == canvas.size[1]
    scale = min(whole / side for whole, side in zip(canvas.size, picture, strict=True))
    assert abs((right - left) - picture[0] * scale) <= max(0.5, 1 - picture[0] * scale)
    assert abs((bottom - top) - picture[1] * scale) <= max(0.5, 1 - picture[1] * scale)
    assert abs(left - (canvas.size[0] - right)) <= 1
    assert abs(top - (canvas.size[1] - bottom)) <= 1


@pytest.mark.parametrize(
    ("picture", "size"),
    [
        ((50, 50), (64, 64)),
        ((50, 49), (64, 64)),
        ((150, 100), (96, 64)),
        ((900, 100), (96, 64)),
        ((100, 150), (64, 96)),
        ((1, 300), (64, 96)),
    ],
)
def test_the_size_that_is_filled_most_is_chosen(picture: tuple[int, int], size: tuple[int, int]) -> None:
    assert Canvas.holding(picture, SIZES).size == size


@settings(max_examples=40)
@given(st.tuples(st.integers(16, 200), st.integers(16, 200)), st.integers(1, 3))
@example((16, 181), 2)
def test_a_picture_comes_back_from_its_canvas_at_any_scale(size: tuple[int, int], scale: int) -> None:
    width, height = size
    slope = np.linspace(0, 200, width)[None, :] + np.linspace(0, 50, height)[:, None]
    picture = Image.fromarray(np.repeat(slope[..., None], 3, axis=2).astype(np.uint8))
    canvas = Canvas.holding(size, SIZES)
    whole = canvas.with_picture(picture)
    assert whole.size == canvas.size
    back = canvas.taken_from(
        whole.resize((scale * whole.width, scale * whole.height), Image.Resampling.NEAREST)
    )
    assert back.size == size
    half_a_pixel = (200 / (width - 1) + 50 / (height - 1)) / 2  # what a resampled slope may be off by
    assert np.abs(np.asarray(back).astype(int) - np.asarray(picture))[2:-2, 2:-2].mean() < half_a_pixel + 4


def test_a_canvas_in_another_shape_is_refused() -> None:
    canvas = Canvas.holding((60, 40), SIZES)
    assert canvas.taken_from(Image.new("RGB", (192, 127))).size == (60, 40)
    with pytest.raises(ValueError, match="64 × 64 pixels where one of 96 × 64"):
        canvas.taken_from(Image.new("RGB", (64, 64)))
