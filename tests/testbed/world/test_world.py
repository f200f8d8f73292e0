"""The testbed's prompts, layouts and renderer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.testbed.world.layout import fulfils, sample_scene
from sdg.testbed.world.prompts import parse_prompt, phrase, sample_request, split_of
from sdg.testbed.world.renderer import DISTANCE, object_map, render
from sdg.testbed.world.scene import COLOURS, OPPOSITE, SHAPES, Scene, Thing

LEVELS = st.sampled_from(["core", "rich"])
SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, LEVELS)
def test_a_prompt_is_read_back_as_what_was_asked_for(seed, level):
    rng = np.random.default_rng(seed)
    request = sample_request(rng, level)
    for _ in range(4):
        assert parse_prompt(phrase(request, rng)) == request


def test_core_asks_for_one_to_four_objects_and_never_for_sizes_or_words():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        request = sample_request(rng)
        assert 1 <= sum(group.count for group in request.groups) <= 4
        assert request.word is None
        assert all(group.size is None for group in request.groups)


def test_an_unknown_prompt_is_an_error_that_quotes_it():
    with pytest.raises(ValueError, match="ballerina"):
        parse_prompt("a ballerina on a skateboard")


def test_wording_and_order_of_a_list_do_not_change_the_split():
    a, b = (
        parse_prompt("a red star and two blue rings"),
        parse_prompt("An image of two blue rings and a red star"),
    )
    assert a.key == b.key
    assert split_of(a) == split_of(b)


def test_splits_hold_about_a_tenth_each_of_what_is_held_out():
    rng = np.random.default_rng(1)
    splits = [split_of(sample_request(rng)) for _ in range(5000)]
    assert 0.05 < splits.count("test") / 5000 < 0.15
    assert 0.05 < splits.count("validation") / 5000 < 0.15


@given(SEEDS, LEVELS)
def test_a_scene_fulfils_its_request_with_room_between_objects(seed, level):
    request, _, scene = sample_scene(np.random.default_rng(seed), level)
    assert [(t.colour, t.shape) for t in scene.things] == [
        (g.colour, g.shape) for g in request.groups for _ in range(g.count)
    ]
    assert request.background in (None, scene.background)
    for i, a in enumerate(scene.things):
        assert min(a.x, a.y) > a.radius
        assert max(a.x, a.y) + a.radius < 128
        for b in scene.things[:i]:
            assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius
    if request.relation:
        first, second = scene.things
        assert fulfils(first, second, request.relation)
        assert fulfils(second, first, OPPOSITE[request.relation])


@given(SEEDS, LEVELS, st.sampled_from([96, 128]))
def test_the_same_seed_gives_the_same_bytes(seed, level, size):
    one = render(sample_scene(np.random.default_rng(seed), level)[2], size)
    two = render(sample_scene(np.random.default_rng(seed), level)[2], size)
    assert one.shape == (size, size, 3)
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_stays_inside_its_bounds_and_fills_most_of_their_width(shape):
    scene = Scene((Thing(shape, "red", 64, 64, 30),), "white")
    rows, columns = np.nonzero(object_map(scene, 128) == 0)
    assert rows.min() >= 33
    assert rows.max() <= 94
    assert columns.min() >= 33
    assert columns.max() <= 94
    assert columns.max() - columns.min() > 48


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_is_negative_inside_and_changes_by_at_most_one_a_pixel(shape):
    y, x = np.mgrid[-40:41, -40:41].astype(np.float32)
    distance = DISTANCE[shape](x, y, 30.0)
    assert np.abs(np.diff(distance, axis=0)).max() <= 1.0001
    assert np.abs(np.diff(distance, axis=1)).max() <= 1.0001
    assert distance.dtype == np.float32


@pytest.mark.parametrize("colour", COLOURS)
def test_an_object_has_its_colour(colour):
    picture = render(Scene((Thing("circle", colour, 64, 64, 30),), "grey"))
    middle = picture[60:68, 60:68].reshape(-1, 3).mean(0)
    assert np.abs(middle - np.array(COLOURS[colour])).max() < 12


def test_nothing_is_drawn_away_from_the_objects():
    scene = Scene((Thing("ring", "cyan", 40, 40, 20),), "cream")
    empty = render(Scene((), "cream"))
    changed = np.any(render(scene) != empty, axis=-1)
    assert not changed[64:].any()
    assert not changed[40, 40]  # the hole of the ring
