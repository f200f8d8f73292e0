"""Misalignments: the reading of hand-made scenes, and changes that mean what they say."""

from collections import Counter

import numpy as np
import pytest

from sdg.testbed.injection import MISALIGNMENTS, sample
from sdg.testbed.injection.misalignments import CHANGES
from sdg.testbed.injection.reading import misalignments
from sdg.testbed.world.boxes import to_defect_box, widened
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.prompts import parse_prompt
from sdg.testbed.world.scene import Scene, Thing, Writing


def read(prompt, *things, writing=None):
    """Subtype -> boxes that the reading of a scene gives."""
    scene = Scene(tuple(things), "grey", writing=writing)
    found = {}
    for defect in misalignments(parse_prompt(prompt), scene):
        found.setdefault(defect.subtype, []).append(defect.box)
    return found


def square(colour, x, y, radius=20, shape="square"):
    return Thing(shape, colour, x, y, radius)


# A square of radius 20 reaches 17.2 from its centre, so that at 40, 40 it covers the pixels 23 … 56.
BOX_40_40 = (23, 23, 57, 57)
BOX_90_40 = (73, 23, 107, 57)
BOX_90_90 = (73, 73, 107, 107)
WHOLE = (0, 0, 128, 128)


@pytest.mark.parametrize(
    ("prompt", "things", "expected"),
    [
        ("a red square", [square("red", 40, 40)], {}),
        ("a red square", [], {"missing object": [WHOLE]}),
        ("a red square", [square("blue", 40, 40)], {"wrong colour": [BOX_40_40]}),
        (
            "a red circle",
            [square("red", 40, 40)],
            {"wrong shape": [BOX_40_40]},
        ),
        (
            "a red circle",
            [square("blue", 40, 40)],
            {"missing object": [WHOLE], "extra object": [BOX_40_40]},
        ),
        (
            "a red square",
            [square("red", 40, 40), square("red", 90, 90)],
            {"wrong count": [(23, 23, 107, 107)]},
        ),
        (
            "three red squares",
            [square("red", 40, 40), square("red", 90, 40)],
            {"wrong count": [(23, 23, 107, 57)]},
        ),
        ("three red squares", [], {"missing object": [WHOLE]}),
        (
            "two red squares",
            [square("red", 40, 40), square("blue", 90, 90)],
            {"wrong colour": [BOX_90_90]},
        ),
        (
            "three red squares",
            [square("red", 40, 40), square("blue", 90, 40)],
            {"wrong colour": [BOX_90_40], "wrong count": [(23, 23, 107, 57)]},
        ),
        (
            "a red square",
            [square("red", 40, 40), square("blue", 90, 90)],
            {"extra object": [BOX_90_90]},
        ),
        # The blue square could stand in for either: sameness of shape comes first.
        (
            "a red square and a blue circle",
            [square("blue", 40, 40)],
            {"wrong colour": [BOX_40_40], "missing object": [WHOLE]},
        ),
        # A kind that another group asks for is that group's, not a wrong colour.
        (
            "a red square and a blue square",
            [square("blue", 40, 40), square("blue", 90, 90)],
            {"missing object": [WHOLE], "wrong count": [(23, 23, 107, 107)]},
        ),
    ],
)
def test_a_scene_is_read_by_the_conventions(prompt, things, expected):
    assert read(prompt, *things) == expected


@pytest.mark.parametrize(
    ("prompt", "box"),
    [
        ("a red square left of a blue circle", (0, 0, 23, 128)),
        ("a red square right of a blue circle", (57, 0, 128, 128)),
        ("a red square above a blue circle", (0, 0, 128, 23)),
        ("a red square below a blue circle", (0, 57, 128, 128)),
        ("a blue circle left of a red square", (57, 0, 128, 128)),
        ("a blue circle above a red square", (0, 57, 128, 128)),
    ],
)
def test_a_missing_object_s_box_is_the_region_its_relation_implies(prompt, box):
    prompt = prompt.replace("blue circle", "blue square")
    assert read(prompt, square("blue", 40, 40)) == {"missing object": [box]}


def test_a_region_too_thin_to_be_seen_is_widened():
    found = read("a red square left of a blue square", square("blue", 20, 40))
    assert found == {"missing object": [(0, 0, 12, 128)]}
    assert widened((125, 3, 128, 9), 128) == (116, 0, 128, 12)


@pytest.mark.parametrize(
    ("dx", "dy", "holds"), [(-50, 0, True), (-30, 40, True), (-20, 50, False), (50, 0, False)]
)
def test_a_relation_holds_within_60_degrees_and_its_box_holds_both(dx, dy, holds):
    found = read(
        "a red square left of a blue square", square("red", 64 + dx, 40 + dy, 15), square("blue", 64, 40, 15)
    )
    assert ("wrong relation" not in found) == holds
    if not holds:
        ((x0, y0, x1, y1),) = found["wrong relation"]
        assert x0 <= min(64, 64 + dx)
        assert x1 >= max(64, 64 + dx)
        assert y0 <= min(40, 40 + dy)
        assert y1 >= max(40, 40 + dy)


def test_words_and_sizes_of_level_rich_are_read():
    small = square("red", 40, 40, 10)
    assert read("a large red square", small).keys() == {"wrong size"}
    assert read("a small red square", small) == {}
    prompt = 'a red square with the word "TEA"'
    assert read(prompt, square("red", 40, 40), writing=Writing("TEA", 64, 116, 13)) == {}
    assert read(prompt, square("red", 40, 40))["wrong text"] == [WHOLE]
    ((x0, y0, x1, y1),) = read(prompt, square("red", 40, 40), writing=Writing("SUN", 64, 116, 13))[
        "wrong text"
    ]
    assert x0 > 32
    assert x1 < 96
    assert y0 > 104
    assert y1 < 128


@pytest.mark.parametrize("subtype", MISALIGNMENTS["rich"])
def test_each_change_is_read_as_what_it_is_called(subtype):
    rng = np.random.default_rng(MISALIGNMENTS["rich"].index(subtype))
    level = "core" if subtype in MISALIGNMENTS["core"] else "rich"
    meant = accidents = 0
    for _ in range(200):
        request, _, scene = sample_scene(rng, level)
        assert misalignments(request, scene) == []
        changed = CHANGES[subtype](rng, request, scene, level)
        if changed is not None:
            names = [defect.subtype for defect in misalignments(request, changed)]
            meant += names == [subtype]
            accidents += names != [subtype]
    # Accidents (recoloured into another group's kind) happen; sample() draws again.
    assert meant > 10
    assert accidents < 0.35 * meant


def pixel_boxes(drawn):
    """Tight box of each object, from the map of pixels alone."""
    boxes = []
    for index in range(len(drawn.objects)):
        rows, columns = np.nonzero(drawn.object_map == index)
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return boxes


def union_box(boxes, size):
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return to_defect_box((int(min(x0)), int(min(y0)), int(max(x1)), int(max(y1))), size)


@pytest.mark.parametrize("size", [96, 128])
def test_boxes_of_injected_misalignments_follow_from_the_pixels_of_the_objects(size):
    rng = np.random.default_rng(size)
    seen = Counter()
    for _ in range(120):
        drawn = sample(rng, size=size, kind="misalignment")
        boxes = pixel_boxes(drawn)
        kinds = [(o.colour, o.shape) for o in drawn.objects]
        asked = {(g.colour, g.shape): g.count for g in drawn.request.groups}
        for defect in drawn.diagnosis.defects:
            seen[defect.subtype] += 1
            singles = [to_defect_box(tuple(map(int, box)), size) for box in boxes]
            if defect.subtype in ("extra object", "wrong colour", "wrong shape"):
                (index,) = [i for i, box in enumerate(singles) if box == defect.box]
                colour, shape = kinds[index]
                assert kinds[index] not in asked
                if defect.subtype == "wrong colour":
                    assert any(s == shape and kinds.count((c, s)) < asked[c, s] for c, s in asked)
                if defect.subtype == "wrong shape":
                    assert any(c == colour and kinds.count((c, s)) < asked[c, s] for c, s in asked)
            elif defect.subtype == "wrong count":
                groups = [[b for b, k in zip(boxes, kinds, strict=True) if k == kind] for kind in asked]
                assert defect.box in [union_box(group, size) for group in groups if group]
            elif defect.subtype == "wrong relation":
                pair = [b for b, k in zip(boxes, kinds, strict=True) if k in asked]
                assert defect.box == union_box(pair, size)
            elif defect.subtype == "missing object":
                assert any(k not in kinds for k in asked)
                if drawn.request.relation is None:
                    assert defect.box == (0, 0, 1000, 1000)
                else:
                    assert (
                        sum(
                            (
                                defect.box[0] == 0,
                                defect.box[1] == 0,
                                defect.box[2] == 1000,
                                defect.box[3] == 1000,
                            )
                        )
                        == 3
                    )
    assert set(seen) == set(MISALIGNMENTS["core"])
    assert min(seen.values()) >= 8


def test_an_injected_relation_is_wrong_beyond_doubt():
    rng = np.random.default_rng(8)
    opposite = checked = 0
    axis = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
    while checked < 20:
        drawn = sample(rng, kind="misalignment")
        if "wrong relation" not in [d.subtype for d in drawn.diagnosis.defects]:
            continue
        kinds = [(g.colour, g.shape) for g in drawn.request.groups]
        (a,) = [o.box for o in drawn.objects if (o.colour, o.shape) == kinds[0]]
        (b,) = [o.box for o in drawn.objects if (o.colour, o.shape) == kinds[1]]
        way = np.array([a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]], float)
        along = way @ axis[drawn.request.relation] / np.linalg.norm(way)
        assert along <= 0
        opposite += along < -0.7
        checked += 1
    assert opposite > 8
