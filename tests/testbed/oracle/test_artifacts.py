"""Artifacts as the oracle sees them: damage drawn by hand, named, boxed and put on the right object."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from sdg import DefectType
from sdg.geometry import iou
from sdg.testbed.oracle import diagnose
from sdg.testbed.world.renderer import (
    background_picture,
    draw_shadow,
    draw_thing,
    render,
    render_float,
    signed_distance,
    to_uint8,
)
from sdg.testbed.world.scene import COLOURS, Scene, Thing

STAR = Thing("star", "blue", 64, 64, 26)


def scene(*things, **more):
    return Scene(tuple(things), "white", **more)


def subtypes(diagnosis):
    return [defect.subtype for defect in diagnosis.defects]


def overlap(defect, box):
    return float(iou([defect.box], [box])[0, 0])


def disc(x, y, radius, soft=1.0):
    """Window (128, 128, 1): 1 inside a disc, a slope of `soft` pixels at its edge."""
    axis = np.arange(128, dtype=np.float32) + 0.5
    distance = np.hypot(axis[None] - x, axis[:, None] - y) - radius
    return np.clip(0.5 - distance / soft, 0, 1)[..., None]


def bitten(picture, rng):
    return picture + disc(84, 57, 12) * (background_picture("white", 128) - picture)


def speckled(picture, rng):
    noise = rng.normal(128, 70, (64, 64, 3)).repeat(2, 0).repeat(2, 1)
    return picture + disc(52, 74, 12) * (noise - picture)


def ghosted(picture, rng):
    doubled = background_picture("white", 128).copy()
    draw_thing(doubled, replace(STAR, x=84, y=84))
    ghost = picture + 0.42 * (doubled - picture)
    rows, columns, distance = signed_distance(STAR, 128)
    ghost[rows, columns] = np.where((distance < 0.7)[..., None], picture[rows, columns], ghost[rows, columns])
    return ghost


def stained(picture, rng):
    rows, columns, distance = signed_distance(STAR, 128, pad=40)
    outside = np.ones((128, 128, 1), bool)
    outside[rows, columns] = (distance > 0.5)[..., None]
    window = 0.75 * disc(44, 40, 12, soft=14) * outside
    return picture + window * (np.array(COLOURS["blue"], np.float32) - picture)


def tinted(picture, rng):
    rows, columns, distance = signed_distance(STAR, 128)
    inside = np.zeros((128, 128, 1), bool)
    inside[rows, columns] = (distance < -0.5)[..., None]
    window = 0.8 * disc(64, 80, 12, soft=6) * inside
    return picture + window * (np.array(COLOURS["yellow"], np.float32) - picture)


def smeared(picture, rng):
    out = picture.copy()
    for row in range(54, 70):
        reach = int(rng.integers(8, 24))
        for step in range(reach):
            share = 0.8 * (1 - step / reach)
            out[row, 78 + step] = share * picture[row, 74] + (1 - share) * picture[row, 78 + step]
    return out


def torn(picture, rng):
    out = picture.copy()
    paper = background_picture("white", 128)
    for x in range(44, 84, 3):
        for y in range(75, 95, 3):
            rows, columns = slice(y, y + 3), slice(x, x + 3)
            own = np.abs(picture[rows, columns] - paper[rows, columns]).max() > 60
            if own and rng.random() < 0.4:
                out[rows, columns] = paper[rows, columns]
    return out


DAMAGED = {
    "missing chunk": bitten,
    "noise texture": speckled,
    "ghost copy": ghosted,
    "colour bleeding": stained,
    "smear": smeared,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_each_kind_of_damage_is_found_named_and_boxed(name):
    drawn = render_float(scene(STAR))
    picture = to_uint8(np.asarray(DAMAGED[name](drawn, np.random.default_rng(0)), np.float32))
    changed = np.abs(picture.astype(int) - to_uint8(drawn).astype(int)).max(axis=2) > 6
    assert changed.sum() >= 60
    rows, columns = np.nonzero(changed)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 0.128
    found = diagnose(picture, "A blue star")
    assert subtypes(found) == [name]
    assert found.defects[0].type == DefectType.ARTIFACT
    assert overlap(found.defects[0], box) > 0.5


def test_a_foreign_colour_inside_an_object_is_named():
    picture = to_uint8(np.asarray(tinted(render_float(scene(STAR)), None), np.float32))
    found = diagnose(picture, "A blue star")
    assert subtypes(found) == ["colour bleeding"]
    assert "blue star" in found.defects[0].reason


def test_a_torn_outline_is_an_artifact_of_its_edge():
    picture = to_uint8(np.asarray(torn(render_float(scene(STAR)), np.random.default_rng(1)), np.float32))
    assert set(subtypes(diagnose(picture, "A blue star"))) <= {"broken edge", "warp", "missing chunk"}
    assert not diagnose(picture, "A blue star").is_clean


def test_a_shadow_towards_the_light_is_wrong():
    things = (Thing("square", "red", 40, 60, 18), Thing("circle", "blue", 92, 60, 18))
    assert diagnose(render(scene(*things, shadows=True)), "A red square and a blue circle").is_clean
    picture = background_picture("white", 128).copy()
    draw_shadow(picture, things[0])
    draw_shadow(picture, things[1], dx=-8, dy=-5)
    for item in things:
        draw_thing(picture, item)
    found = diagnose(to_uint8(picture), "A red square and a blue circle")
    assert subtypes(found) == ["wrong shadow"]
    assert overlap(found.defects[0], (530, 260, 910, 640)) > 0.6


def blob(rng, colour="red"):
    """A shapeless patch of one colour on white, soft at its edge."""
    field = ndimage.gaussian_filter(rng.normal(0, 1, (128, 128)), 7)
    field += 0.9 * field.std() * disc(64, 64, 20, soft=30)[..., 0] * 3
    labels, _ = ndimage.label(field > np.quantile(field, 0.93))
    largest = labels == np.bincount(labels[labels > 0]).argmax()
    alpha = ndimage.gaussian_filter(largest.astype(np.float32), 0.8)[..., None]
    paper = background_picture("white", 128)
    return to_uint8(paper + alpha * (np.array(COLOURS[colour], np.float32) - paper))


def test_a_shapeless_patch_is_an_artifact_and_stands_for_the_object_of_its_colour():
    rng = np.random.default_rng(3)
    for _ in range(12):
        found = diagnose(blob(rng), "A red star")
        assert not found.is_clean
        assert found.of_type("artifact")
        assert "missing object" not in subtypes(found)
