import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.data.formats.boxes import from_scale, known_size, to_scale
from sdg.defects import Defect
from sdg.records import Record

sizes = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))


@given(st.from_type(Defect), sizes)
def test_pixels_give_back_every_integer_box(defect, size):
    assert from_scale(to_scale(defect.box, size), size) == defect.box


@given(st.from_type(Defect), sizes)
def test_single_precision_is_enough(defect, size):
    pixels = np.array(to_scale(defect.box, size), dtype=np.float32).tolist()
    assert from_scale(pixels, size) == defect.box


@given(st.from_type(Defect))
def test_two_decimals_of_a_percentage_are_enough(defect):
    percent = [round(value, 2) for value in to_scale(defect.box, (100, 100))]
    assert from_scale(percent, (100, 100)) == defect.box


def test_a_worked_example():
    assert to_scale((250, 500, 750, 1000), (1024, 512)) == (256.0, 256.0, 512.0, 256.0)
    assert from_scale([256, 256, 512, 256], (1024, 512)) == (250, 500, 750, 1000)


@pytest.mark.parametrize(
    ("pixels", "box"),
    [
        ([10, 10, 0.01, 500], (10, 10, 11, 510)),
        ([999.9, 10, 0.05, 500], (999, 10, 1000, 510)),
        ([-0.4, -0.4, 1000.8, 1000.8], (0, 0, 1000, 1000)),
    ],
)
def test_a_thin_box_is_one_step_wide_and_a_hair_outside_is_on_the_edge(pixels, box):
    assert from_scale(pixels, (1000, 1000)) == box


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        ([0, 0, 0, 5], "a width and a height above 0"),
        ([0, 0, 5, -5], "a width and a height above 0"),
        ([0, 0, 5], r"four numbers \[x, y, width, height\], not \[0, 0, 5\]"),
        ([0, 0, 5, "5"], "four numbers"),
        ([0, 0, 5, True], "four numbers"),
        ([0, 0, 5, float("nan")], "four numbers"),
        (None, "four numbers"),
        ([90, 0, 20, 5], "leaves the image, which is 100 by 50"),
        ([-2, 0, 20, 5], "leaves the image"),
        ([0, 0, 10**400, 5], "leaves the image, which is 100 by 50"),
        ([0, -(10**400), 20, 5], "leaves the image"),
        ([0, 0, float("inf"), 5], "four numbers"),
    ],
)
def test_what_is_no_box_in_the_image_is_refused(pixels, reason):
    with pytest.raises(ValueError, match=reason):
        from_scale(pixels, (100, 50))


@pytest.mark.parametrize("width", [10**400, 10**10, 0, -5, 5.0, True, "5", None])
def test_a_size_that_no_picture_has_is_not_known(width):
    assert known_size(Record("a.png", "", metadata={"width": width, "height": 5})) is None
    assert known_size(Record("a.png", "", metadata={"width": 5, "height": width})) is None
    assert known_size(Record("a.png", "", metadata={"width": 9, "height": 5})) == (9, 5)
