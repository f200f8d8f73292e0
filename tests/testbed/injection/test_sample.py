"""Whole samples: shares of pictures, dense truth, reproducibility."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from sdg import geometry
from sdg.testbed.injection import ARTIFACTS, KIND_SHARES, MISALIGNMENTS, sample
from sdg.testbed.world.prompts import parse_prompt, split_of
from sdg.testbed.world.renderer import render


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(21)
    return [sample(rng) for _ in range(700)]


def kind_of(item):
    types = {defect.type.value for defect in item.diagnosis.defects}
    return "clean" if not types else "both" if len(types) == 2 else types.pop()


def test_kinds_of_pictures_have_their_shares(drawn):
    counts = Counter(map(kind_of, drawn))
    for kind, share in KIND_SHARES.items():
        # Four standard errors of a share.
        assert abs(counts[kind] / len(drawn) - share) < 4 * (share * (1 - share) / len(drawn)) ** 0.5
    assert sum(KIND_SHARES.values()) == pytest.approx(1)
    assert KIND_SHARES["clean"] == pytest.approx(0.251, abs=0.01)


def test_a_picture_has_at_most_four_defects_and_artifacts_outnumber_misalignments(drawn):
    numbers = [len(item.diagnosis.defects) for item in drawn]
    assert max(numbers) == 4
    types = Counter(d.type.value for item in drawn for d in item.diagnosis.defects)
    assert 0.35 < types["misalignment"] / len(drawn) < types["artifact"] / len(drawn) < 3.22


def test_every_subtype_is_common(drawn):
    counts = Counter(d.subtype for item in drawn for d in item.diagnosis.defects)
    assert set(counts) == {*ARTIFACTS["core"], *MISALIGNMENTS["core"]}
    for names in (ARTIFACTS["core"], MISALIGNMENTS["core"]):
        total = sum(counts[name] for name in names)
        assert min(counts[name] for name in names) > 0.5 * total / len(names)


def test_the_picture_is_its_twin_but_for_the_mask_and_the_twin_is_the_scene(drawn):
    for item in drawn[:150]:
        assert item.picture.dtype == np.uint8
        changed = (item.picture != render(item.scene)).any(axis=-1)
        np.testing.assert_array_equal(changed, item.artifact_mask)
        covered = np.zeros((128, 128), bool)
        for defect in item.diagnosis.of_type("artifact"):
            x0, y0, x1, y1 = (np.array(defect.box) * 128 / 1000).round().astype(int)
            covered[y0:y1, x0:x1] = True
        assert not (item.artifact_mask & ~covered).any()


def test_the_object_map_and_the_boxes_agree(drawn):
    for item in drawn[:150]:
        assert item.object_map.max() == len(item.objects) - 1
        for index, thing in enumerate(item.objects):
            rows, columns = np.nonzero(item.object_map == index)
            assert thing.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("size", [64, 96, 128])
def test_no_box_is_under_12_units_a_side(size):
    rng = np.random.default_rng(size)
    for _ in range(80):
        for defect in sample(rng, "rich", size=size).diagnosis.defects:
            x0, y0, x1, y1 = defect.box
            assert min(x1 - x0, y1 - y0) >= 1000 * 12 / 128 - 1e-9


def test_boxes_of_one_type_are_no_near_duplicates(drawn):
    for item in drawn:
        for type in ("artifact", "misalignment"):
            boxes = [defect.box for defect in item.diagnosis.of_type(type)]
            for a, b in combinations(boxes, 2):
                # Pixel boxes stay under 0.5; rounding outwards moves it a little.
                assert geometry.iou([a], [b])[0, 0] < 0.53


def test_the_prompt_says_the_request_and_can_be_held_to_a_split():
    rng = np.random.default_rng(4)
    for split in ("train", "validation", "test"):
        for _ in range(10):
            item = sample(rng, split=split)
            assert parse_prompt(item.prompt) == item.request
            assert split_of(item.request) == split


def test_a_kind_can_be_asked_for():
    rng = np.random.default_rng(5)
    for kind in KIND_SHARES:
        assert {kind_of(sample(rng, kind=kind)) for _ in range(8)} == {kind}


@pytest.mark.parametrize("level", ["core", "rich"])
def test_the_same_seed_gives_the_same_sample(level):
    one, two = (sample(np.random.default_rng(99), level, size=96) for _ in range(2))
    assert one.picture.tobytes() == two.picture.tobytes()
    assert one.prompt == two.prompt
    assert one.diagnosis == two.diagnosis


def test_a_size_too_small_to_see_anything_is_refused():
    with pytest.raises(ValueError, match="at least 64"):
        sample(np.random.default_rng(0), size=32)
