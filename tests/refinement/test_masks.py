"""Masks reach no further than they say, and what they leave out survives an edit bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdg import Defect
from sdg.refinement.masks import box_mask, changed_share, composite, heat_mask, strength_map


def noise(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_feather_falls_linearly_beside_the_box() -> None:
    mask = box_mask([Defect((400, 0, 600, 1000), "artifact")], (10, 2), feather=3)
    assert mask[0].tolist() == [0, 0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25, 0]


def test_a_box_thinner_than_a_pixel_still_has_a_mask() -> None:
    assert box_mask([Defect((500, 500, 501, 501), "artifact")], (8, 8), feather=0).sum() == 1


def test_strength_falls_from_each_box_by_its_own_reach_and_the_larger_holds() -> None:
    strong, weak = Defect((0, 0, 80, 1000), "artifact"), Defect((590, 0, 660, 1000), "misalignment")
    strengths = strength_map([strong, weak], (12, 1), [0.8, 0.4], [2, 4])
    expected = [0.8, 0.8, 0.4, 0.4 / 3, 0.8 / 3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.8 / 3, 0.4 / 3]
    assert strengths[0].tolist() == pytest.approx(expected)
    assert strength_map([], (3, 2), [], []).tolist() == [[0, 0, 0]] * 2
    with pytest.raises(ValueError, match="0 pixels or more"):
        strength_map([strong], (10, 1), [0.8], [-1])
    with pytest.raises(ValueError, match="shorter"):
        strength_map([strong, weak], (10, 1), [0.8], [1, 3])


boxes = st.tuples(*[st.integers(0, 999)] * 2, *[st.integers(1, 1000)] * 2).filter(
    lambda box: box[0] < box[2] and box[1] < box[3]
)


@settings(max_examples=50, deadline=None)
@given(st.lists(boxes, max_size=4), st.integers(0, 6))
def test_pixels_outside_of_the_mask_are_untouched(corners: list, feather: int) -> None:
    before, edited = noise(37, 23, seed=1), noise(37, 23, seed=2)
    mask = box_mask([Defect(box, "artifact") for box in corners], before.size, feather)
    after = composite(before, edited, mask)
    old, new, got = (np.asarray(picture) for picture in (before, edited, after))
    assert (got[mask == 0] == old[mask == 0]).all()
    assert (got[mask == 1] == new[mask == 1]).all()
    assert changed_share(before, after) <= (mask > 0).mean()
    for x0, y0, x1, y1 in corners:  # brute force: what lies further away than the feather is not this box's
        for y, x in ((0, 0), (22, 36), (11, 18)):
            inside = x0 * 37 < (x + 1) * 1000 and x * 1000 < x1 * 37
            inside &= y0 * 23 < (y + 1) * 1000 and y * 1000 < y1 * 23
            assert not inside or mask[y, x] == 1


def test_the_share_of_changed_pixels_counts_a_pixel_once() -> None:
    before = Image.new("RGB", (4, 5))
    after = before.copy()
    after.putpixel((1, 1), (9, 9, 9))
    after.putpixel((3, 4), (0, 1, 0))
    assert changed_share(before, after) == pytest.approx(2 / 20)


def test_an_edit_of_another_size_is_scaled_to_the_picture() -> None:
    before = noise(16, 8, seed=1)
    assert composite(before, noise(64, 32, seed=2), np.zeros((8, 16))).tobytes() == before.tobytes()


def test_a_heat_map_is_scaled_and_clipped() -> None:
    heat = np.zeros((4, 8))
    heat[0, 0], heat[3, 7] = 1.5, 0.5
    mask = heat_mask(heat, (8, 4))
    assert (mask[0, 0], mask[3, 7], mask.sum()) == (1, 0.5, 1.5)
    assert heat_mask(heat, (16, 8)).shape == (8, 16)
    for wrong in (np.zeros((2, 4, 8)), np.full((4, 8), np.nan)):
        with pytest.raises(ValueError, match="finite numbers"):
            heat_mask(wrong, (8, 4))
