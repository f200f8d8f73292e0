import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdg.data.duplicates import alike, fingerprint


def picture(seed, size=(160, 120)):
    """Coarse coloured noise, enlarged: a picture with structure at the scale that is compared."""
    levels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


def as_jpeg(image, quality=80):
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality)
    return Image.open(file).convert("RGB")


def test_pictures_saved_again_or_scaled_are_alike_and_others_are_not():
    first, second = picture(1), picture(2)
    seen = [first, second, as_jpeg(first), picture(3), first.resize((97, 73)), second.copy(), picture(4)]
    assert alike([fingerprint(one) for one in seen]) == [[0, 2, 4], [1, 5]]


def plain(where, colour="red"):
    image = Image.new("RGB", (128, 128), (236, 232, 220))
    ImageDraw.Draw(image).ellipse((where, 40, where + 30, 70), fill=colour)
    return image


def test_shapes_on_plain_ground_are_told_apart():
    seen = [
        plain(20),
        plain(60),
        plain(20, "blue"),
        as_jpeg(plain(60), 85),
        Image.new("RGB", (128, 128), "white"),
    ]
    assert alike([fingerprint(one) for one in seen]) == [[1, 3]]


def test_a_small_defect_makes_another_picture():
    broken = picture(1)
    ImageDraw.Draw(broken).rectangle((40, 40, 60, 56), fill=(0, 0, 0))
    assert alike([fingerprint(picture(1)), fingerprint(broken)]) == []


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures_have_no_pairs(count):
    assert alike([fingerprint(picture(0))] * count) == []


def test_many_pictures_are_compared_in_parts(monkeypatch):
    monkeypatch.setattr("sdg.data.duplicates._ROWS", 3)
    prints = [fingerprint(picture(seed)) for seed in (0, 1, 2, 3, 0, 4, 1, 0)]
    assert alike(prints) == [[0, 4, 7], [1, 6]]
