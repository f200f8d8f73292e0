"""The oracle's verdicts: worked scenes for every subtype, invariances, and pictures that are none."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from sdg import DefectType
from sdg.geometry import iou
from sdg.testbed.oracle import diagnose, diagnose_all
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.renderer import (
    render,
    render_float,
    signed_distance,
    to_uint8,
)
from sdg.testbed.world.scene import Scene, Thing, Writing

RING = Thing("ring", "red", 32, 64, 20)
CROSS = Thing("cross", "green", 96, 64, 20)
STAR = Thing("star", "blue", 64, 64, 26)
PAIR = "A red ring to the left of a green cross"


def scene(*things, background="white", **more):
    return Scene(tuple(things), background, **more)


def subtypes(diagnosis):
    return [defect.subtype for defect in diagnosis.defects]


def box_of(thing):
    """Box of a thing's pixels, 0–1000, counted on a full grid of pixel centres."""
    rows, columns, distance = signed_distance(thing, 128)
    down, across = np.nonzero(distance < 0)
    box = across.min() + columns.start, down.min() + rows.start, across.max() + columns.start + 1, 0
    box = (*box[:3], down.max() + rows.start + 1)
    return [np.floor(v / 0.128) if i < 2 else np.ceil(v / 0.128) for i, v in enumerate(box)]


def overlap(defect, box):
    return float(iou([defect.box], [box])[0, 0])


@pytest.mark.parametrize("level", ["core", "rich"])
def test_a_scene_that_fulfils_its_prompt_is_clean(level):
    rng = np.random.default_rng(5)
    for _ in range(60):
        _, prompt, drawn = sample_scene(rng, level)
        found = diagnose(render(drawn), prompt)
        assert found.is_clean, (prompt, subtypes(found))


def test_blur_noise_and_a_tint_are_no_defects():
    rng = np.random.default_rng(6)
    clean = 0
    for _ in range(60):
        _, prompt, drawn = sample_scene(rng)
        picture = ndimage.gaussian_filter(render_float(drawn), (0.6, 0.6, 0)) + rng.normal(
            0, 3, (128, 128, 3)
        )
        picture += ndimage.zoom(rng.normal(0, 4, (6, 6, 3)), (128 / 6, 128 / 6, 1), order=1)
        clean += diagnose(to_uint8(picture.astype(np.float32)), prompt).is_clean
    assert clean >= 57


MISALIGNED = [
    ("missing object", scene(CROSS), PAIR, (0, 0, 593, 1000)),
    ("missing object", scene(RING), PAIR, (406, 0, 1000, 1000)),
    ("missing object", scene(RING), "A red ring and a green cross", (0, 0, 1000, 1000)),
    ("extra object", scene(RING, CROSS), "A red ring", box_of(CROSS)),
    ("wrong colour", scene(RING, replace(CROSS, colour="blue")), PAIR, box_of(CROSS)),
    ("wrong shape", scene(RING, replace(CROSS, shape="star")), PAIR, box_of(replace(CROSS, shape="star"))),
    ("wrong relation", scene(replace(RING, x=96), replace(CROSS, x=32)), PAIR, (90, 335, 900, 665)),
    ("wrong relation", scene(replace(RING, y=30), replace(CROSS, x=36, y=96)), PAIR, (90, 80, 444, 907)),
    ("wrong count", scene(RING, replace(RING, x=96)), "Three red rings", (90, 335, 910, 665)),
    ("wrong count", scene(RING, replace(RING, x=96)), "A red ring", (90, 335, 910, 665)),
    ("wrong size", scene(RING, CROSS), "A small red ring and a green cross", box_of(RING)),
    (
        "wrong background",
        scene(RING, background="grey"),
        "A red ring on a white background",
        (0, 0, 1000, 1000),
    ),
]


@pytest.mark.parametrize(("subtype", "drawn", "prompt", "box"), MISALIGNED)
def test_what_contradicts_the_prompt_is_found_where_it_is(subtype, drawn, prompt, box):
    found = diagnose(render(drawn), prompt)
    assert subtypes(found) == [subtype]
    assert found.defects[0].type == DefectType.MISALIGNMENT
    assert overlap(found.defects[0], box) > 0.9


def test_a_relation_holds_within_sixty_degrees_of_its_axis():
    def verdict(degrees):
        angle = np.radians(180 + degrees)
        ring = replace(RING, x=80 + 50 * np.cos(angle), y=64 + 50 * np.sin(angle), radius=13)
        return subtypes(diagnose(render(scene(ring, replace(CROSS, x=80, radius=13))), PAIR))

    assert verdict(0) == verdict(55) == verdict(-55) == []
    assert verdict(65) == verdict(-65) == verdict(90) == ["wrong relation"]


def test_a_stand_in_counts_but_is_wrong_itself():
    row = [Thing("star", "blue", x, 64, 16) for x in (24, 64, 104)]
    row[1] = replace(row[1], colour="red")
    assert subtypes(diagnose(render(scene(*row)), "Three blue stars")) == ["wrong colour"]


def test_the_written_word_is_read():
    written = scene(STAR, writing=Writing("MOON", 64, 116, 13))
    assert diagnose(render(written), 'A blue star with the word "MOON"').is_clean
    other = diagnose(render(written), 'A blue star with the word "CAKE"')
    assert subtypes(other) == ["wrong text"]
    assert "MOON" in other.defects[0].reason
    assert "CAKE" in other.defects[0].reason
    missing = diagnose(render(scene(STAR)), 'A blue star with the word "CAKE"')
    assert [(d.subtype, d.box) for d in missing.defects] == [("wrong text", (0, 0, 1000, 1000))]
    garbled = render(written)
    ink = (garbled[108:124, 30:98].min(axis=2) < 120).any(axis=0).nonzero()[0] + 30
    word = garbled[108:124, ink[0] : ink[-1] + 1]
    garbled[108:124, ink[0] : ink[-1] + 1] = word[::-1, ::-1]
    assert subtypes(diagnose(garbled, 'A blue star with the word "MOON"')) == ["garbled letters"]


def test_moving_a_scene_moves_the_boxes():
    def boxes(dx, dy):
        moved = [replace(t, x=t.x + dx, y=t.y + dy, radius=14) for t in (RING, CROSS)]
        return [np.array(d.box) for d in diagnose(render(scene(*moved)), "A blue star").defects]

    for dx, dy in ((-9, 13), (6.5, -20.25), (0.5, 0.5)):
        for before, after in zip(boxes(0, 0), boxes(dx, dy), strict=True):
            shift = np.array([dx, dy, dx, dy]) / 0.128
            # Missing: the whole picture stays; extra: the object's box moves, to the pixel.
            assert np.abs(after - before - (shift if tuple(before) != (0, 0, 1000, 1000) else 0)).max() <= 16


def test_the_size_and_type_of_the_image_do_not_matter():
    picture = render(scene(RING, replace(CROSS, colour="blue")))
    expected = diagnose(picture, PAIR)
    assert diagnose(Image.fromarray(picture), PAIR) == expected
    assert diagnose(picture.astype(np.float32) / 255, PAIR) == expected
    assert diagnose(Image.fromarray(picture).convert("RGBA"), PAIR) == expected
    for size in (96, 256):
        other = diagnose(render(scene(RING, replace(CROSS, colour="blue")), size), PAIR)
        assert subtypes(other) == subtypes(expected)
        assert overlap(other.defects[0], expected.defects[0].box) > 0.9


def test_the_most_important_defects_can_be_asked_for_alone():
    picture = render(scene(STAR, replace(CROSS, x=104, y=24, radius=14)))
    everything = diagnose(picture, "A red ring and a yellow circle")
    two = diagnose(picture, "A red ring and a yellow circle", most=2)
    assert len(everything.defects) > 2 == len(two.defects)
    least = min(d.importance for d in two.defects)
    assert all(d in two.defects or d.importance <= least for d in everything.defects)


def test_misalignments_come_first_each_type_from_left_to_right():
    rng = np.random.default_rng(8)
    for _ in range(20):
        picture = render(sample_scene(rng)[2])
        found = diagnose(picture, "Two red rings and a blue star").defects
        assert [d.type for d in found] == sorted((d.type for d in found), reverse=True)
        for first, second in itertools.pairwise(found):
            # To the pixel: boxes are rounded outwards.
            if first.type == second.type:
                assert first.box[0] + first.box[2] <= second.box[0] + second.box[2] + 16


ANY_PICTURE = st.one_of(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)),
        elements=st.floats(width=32),
    ),
)


@settings(deadline=None, max_examples=60)
@given(ANY_PICTURE, st.sampled_from([PAIR, 'Six small red stars with the word "TEA"', "Four pink circles"]))
def test_no_picture_makes_it_fail(picture, prompt):
    found = diagnose(picture, prompt)
    assert found.status == "ok"
    for defect in found.defects:
        assert defect.box[2] - defect.box[0] >= 93  # 12 of 128 pixels, rounded
        assert defect.box[3] - defect.box[1] >= 93


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_no_scene_torn_apart_makes_it_fail(seed):
    rng = np.random.default_rng(seed)
    picture = render(sample_scene(rng, "rich")[2])
    for _ in range(int(rng.integers(1, 5))):  # move blocks about: objects split, doubled and cut off
        height, width = rng.integers(4, 90, 2)
        (y, x), (v, u) = rng.integers(0, [129 - height, 129 - width], (2, 2))
        picture[y : y + height, x : x + width] = picture[v : v + height, u : u + width].copy()
    diagnose(picture, "Two red rings and a blue star").is_clean  # noqa: B018 (it must not raise)


@pytest.mark.parametrize("value", [0, 30, 128, 255])
def test_an_empty_picture_lacks_everything_asked_for(value):
    found = diagnose(np.full((128, 128, 3), value, np.uint8), "Two red rings and a blue star")
    assert subtypes(found).count("missing object") == 2


def test_pure_noise_is_not_clean():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    assert diagnose(noise, "A red ring").of_type("artifact")


def test_a_prompt_of_another_world_and_an_array_that_is_no_picture_are_refused():
    with pytest.raises(ValueError, match="ballerina"):
        diagnose(render(scene(RING)), "A ballerina on a skateboard")
    for array in (np.zeros((4, 4, 2), np.uint8), np.zeros((3,), np.uint8), np.zeros((8, 8, 3), np.int64)):
        with pytest.raises(ValueError, match="picture"):
            diagnose(array, "A red ring")


def test_many_pictures_are_diagnosed_in_order_whatever_the_number_of_processes():
    rng = np.random.default_rng(4)
    cases = [(render(sample_scene(rng)[2]), sample_scene(rng)[1]) for _ in range(70)]
    expected = [diagnose(*case) for case in cases]
    assert list(diagnose_all(iter(cases), workers=1)) == expected
    assert list(diagnose_all(iter(cases), workers=2)) == expected
    assert list(diagnose_all([])) == []
