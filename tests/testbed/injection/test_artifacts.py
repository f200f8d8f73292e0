"""Artifacts: visible, inside their box and nowhere else, and never so large that they hide an object."""

import numpy as np
import pytest

from sdg.testbed.injection import ARTIFACTS
from sdg.testbed.injection.artifacts import damage
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.renderer import object_map, render
from sdg.testbed.world.scene import Scene

ALL = ARTIFACTS["rich"]


def draws(subtype, size, count=8):
    """Pictures with one artifact of a subtype: (scene, twin, owner, damaged)."""
    level = "core" if subtype in ARTIFACTS["core"] else "rich"
    rng = np.random.default_rng([size, ALL.index(subtype)])
    found = []
    for _ in range(40 * count):
        _, _, scene = sample_scene(rng, level)
        twin, owner = render(scene, size), object_map(scene, size)
        damaged = damage(rng, twin, scene, owner, 1, level, subtype)
        if damaged is not None:
            found.append((scene, twin, owner, damaged))
        if len(found) == count:
            return found
    raise AssertionError(f"{subtype} hardly ever finds room")


@pytest.mark.parametrize("size", [96, 128])
@pytest.mark.parametrize("subtype", ALL)
def test_the_picture_differs_from_its_twin_inside_the_box_and_nowhere_else(subtype, size):
    for _, twin, _, damaged in draws(subtype, size):
        (artifact,) = damaged.artifacts
        x0, y0, x1, y1 = artifact.box
        changed = (damaged.picture != twin).any(axis=-1)
        inside = np.zeros_like(changed)
        inside[y0:y1, x0:x1] = True
        assert artifact.subtype == subtype
        assert changed.any()
        assert not (changed & ~inside).any()
        np.testing.assert_array_equal(changed, damaged.mask)


@pytest.mark.parametrize("size", [96, 128])
@pytest.mark.parametrize("subtype", ALL)
def test_a_box_is_tight_unless_that_makes_it_thinner_than_12_units(subtype, size):
    least = 12 * size / 128
    for _, _, _, damaged in draws(subtype, size):
        x0, y0, x1, y1 = damaged.artifacts[0].box
        rows, columns = np.nonzero(damaged.mask)
        for low, high, first, last in (
            (x0, x1, columns.min(), columns.max()),
            (y0, y1, rows.min(), rows.max()),
        ):
            assert 0 <= low < high <= size
            assert high - low >= least
            assert (low, high) == (first, last + 1) or high - low == least


@pytest.mark.parametrize("subtype", ALL)
def test_an_artifact_can_be_seen(subtype):
    for _, twin, _, damaged in draws(subtype, 128):
        difference = np.abs(damaged.picture.astype(int) - twin).max(axis=-1)[damaged.mask]
        assert difference.min() > 6
        assert difference.mean() >= 18
        assert difference.mean() == pytest.approx(damaged.artifacts[0].change, abs=1e-3)
        assert difference.size >= 60


@pytest.mark.parametrize("subtype", ALL)
def test_no_object_is_hidden_and_no_other_object_touched(subtype):
    for scene, _, owner, damaged in draws(subtype, 128):
        for index in range(len(scene.things)):
            share = damaged.mask[owner == index].mean()
            if index == damaged.artifacts[0].target:
                assert share <= (0.5 if subtype in ("warp", "smear") else 0.4)
            else:
                assert share == 0


def test_a_missing_chunk_shows_the_background_and_leaves_most_of_the_object():
    for scene, _, owner, damaged in draws("missing chunk", 128):
        target = damaged.artifacts[0].target
        gone = damaged.mask & (owner == target)
        assert 0.14 <= gone.sum() / (owner == target).sum() <= 0.36
        empty = render(Scene((), scene.background)).astype(int)
        far_from_object = np.abs(damaged.picture.astype(int) - empty).max(axis=-1)
        assert np.median(far_from_object[gone]) < 12


def test_a_ghost_is_translucent_and_lies_behind_the_objects():
    for _, twin, owner, damaged in draws("ghost copy", 128):
        assert not damaged.mask[owner >= 0].any()
        # Each changed pixel lies at most half way from the background to some colour of the object.
        thing = owner == damaged.artifacts[0].target
        colour = np.median(twin[thing], axis=0)
        behind = twin[damaged.mask].mean(axis=0)
        ghost = damaged.picture[damaged.mask].mean(axis=0)
        assert np.linalg.norm(ghost - behind) < 0.6 * np.linalg.norm(colour - behind)


def test_several_artifacts_do_not_touch_the_same_pixels():
    rng = np.random.default_rng(3)
    for _ in range(15):
        _, _, scene = sample_scene(rng)
        twin = render(scene)
        damaged = damage(rng, twin, scene, object_map(scene), 3)
        if damaged is None:
            continue
        assert len(damaged.artifacts) == 3
        changed = (damaged.picture != twin).any(axis=-1)
        np.testing.assert_array_equal(changed, damaged.mask)
        covered = np.zeros_like(changed)
        for artifact in damaged.artifacts:
            x0, y0, x1, y1 = artifact.box
            covered[y0:y1, x0:x1] = True
        assert not (changed & ~covered).any()


def test_the_twin_is_left_as_it_was():
    _, twin, _, damaged = draws("smear", 128, count=1)[0]
    assert damaged.picture is not twin
    assert not np.shares_memory(damaged.picture, twin)


def test_an_empty_picture_can_only_have_noise():
    rng = np.random.default_rng(0)
    scene = Scene((), "grey")
    damaged = damage(rng, render(scene), scene, object_map(scene), 1)
    assert damaged is not None
    assert [a.subtype for a in damaged.artifacts] == ["noise texture"]
    assert damaged.artifacts[0].target == -1
