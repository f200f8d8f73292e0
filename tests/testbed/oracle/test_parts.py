"""The oracle's parts: pixels, fits, the assignment, the words, and what its code may know."""

import ast
import doctest
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_check import check

import sdg.testbed.oracle
from sdg.geometry import iou
from sdg.testbed.importance import SEMANTIC
from sdg.testbed.injection import ARTIFACTS, MISALIGNMENTS, sample
from sdg.testbed.injection import vocabulary as injected_words
from sdg.testbed.oracle import diagnose, vocabulary
from sdg.testbed.oracle.finding import find_objects
from sdg.testbed.oracle.judgement import cast
from sdg.testbed.oracle.outline import fit_outline, outline_points
from sdg.testbed.oracle.perception import Seen
from sdg.testbed.oracle.pixels import COLOUR_NAMES, as_picture, classify, look
from sdg.testbed.world.boxes import to_defect_box, widened
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.prompts import WORDS, phrase, sample_request
from sdg.testbed.world.renderer import render, render_float, thing_layer
from sdg.testbed.world.scene import BACKGROUNDS, COLOURS, SHAPES, Group, Scene, Thing

FOLDER = Path(sdg.testbed.oracle.__file__).parent
CONVENTIONS = Path(__file__).parents[3] / "docs" / "background" / "testbed-conventions.md"


def test_the_oracle_reports_what_the_conventions_name_and_nothing_else():
    own, shared = {}, set()
    section = ""
    for line in CONVENTIONS.read_text().splitlines():
        section = line if line.startswith("## ") else section
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `"):
            continue
        name = cells[0].split("`")[1]
        if "only generated" in section:
            own[name] = (cells[1], float(cells[4]))
        else:
            shared.add(name)
    assert shared == {*MISALIGNMENTS["rich"], *ARTIFACTS["rich"]}
    assert shared | set(own) == set(SEMANTIC)
    assert {name: SEMANTIC[name] for name in own} == {name: weight for name, (_, weight) in own.items()}
    assert {name: type for name, (type, _) in own.items()} == {
        "wrong background": "misalignment",
        "malformed object": "artifact",
        "stray mark": "artifact",
    }


def test_a_background_is_wrong_only_where_the_prompt_names_another():
    ring = Thing("ring", "red", 64.0, 64.0, 20.0)
    for shown in BACKGROUNDS:
        picture = render(Scene((ring,), shown))
        assert diagnose(picture, "A red ring").is_clean
        for asked in BACKGROUNDS:
            found = diagnose(picture, f"A red ring on a {asked} background").defects
            if asked == shown:
                assert found == ()
            else:
                (defect,) = found
                assert (defect.subtype, str(defect.type)) == ("wrong background", "misalignment")
                assert defect.box == (0, 0, 1000, 1000)


def test_a_stray_mark_has_the_box_of_its_pixels_and_half_an_object_is_no_missing_one():
    ring = Thing("ring", "red", 32.0, 32.0, 18.0)
    picture = render(Scene((ring,), "white")).copy()
    picture[90:96, 80:100] = (90, 90, 90)
    (mark,) = diagnose(picture, "A red ring").defects
    assert (mark.subtype, str(mark.type)) == ("stray mark", "artifact")
    assert iou([mark.box], [(625, 680, 782, 774)])[0, 0] > 0.7  # 12 pixels high at least
    rng = np.random.default_rng(0)
    blob = np.hypot(*(np.mgrid[:128, :128] - 90)) < 14 + 9 * np.sin(
        5 * np.arctan2(*(np.mgrid[:128, :128] - 90)) + rng.uniform()
    )
    picture = render(Scene((ring,), "white")).copy()
    picture[blob] = COLOURS["blue"]
    found = diagnose(picture, "A red ring and a blue square").defects
    assert [defect.subtype for defect in found] == ["malformed object"]
    rows, columns = np.nonzero(blob)
    around = [1000 * v / 128 for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    assert iou([found[0].box], [tuple(map(round, around))])[0, 0] > 0.8


def test_the_oracle_shares_no_code_with_injection_and_no_weights():
    names = []
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names += [f"{node.module}.{alias.name}" for alias in node.names]
    assert len(names) > 50
    for name in names:
        if name.startswith("sdg.testbed."):
            assert name.split(".")[2] in {"oracle", "world", "importance"}
        assert name.split(".")[0] not in {"torch", "transformers", "diffusers"}


def test_the_example_in_the_docstring_runs():
    result = doctest.testmod(sdg.testbed.oracle)
    assert (result.attempted, result.failed) == (5, 0)


def test_importing_the_oracle_loads_neither_torch_nor_injection():
    code = (
        "import sys, sdg.testbed.oracle; print([m for m in sys.modules if 'torch' in m or 'injection' in m])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@pytest.mark.parametrize("name", list(COLOURS))
def test_a_colour_keeps_its_name_under_every_shading(name):
    shades = np.array(COLOURS[name], np.float32) * np.linspace(0.75, 1.2, 20, dtype=np.float32)[:, None]
    assert {COLOUR_NAMES[i] for i in classify(np.clip(shades, 0, 255))} == {name}


def test_backgrounds_and_greys_have_no_colour():
    values = [[v, v, v] for v in range(0, 256, 15)] + [list(rgb) for rgb in BACKGROUNDS.values()]
    assert set(classify(np.array(values, np.float32)).tolist()) == {-1}


@pytest.mark.parametrize("name", list(BACKGROUNDS))
def test_the_background_is_known_and_a_small_tint_is_taken_along(name):
    drawn = Scene((Thing("circle", "green", 50, 70, 22),), name)
    tint = np.array([5, -6, 4], np.float32)
    for shift in (0, tint):
        pixels = look(np.clip(render_float(drawn) + shift, 0, 255))
        assert pixels.background == name
        corner = np.abs(pixels.backdrop - pixels.picture)[:20, :20]
        assert corner.max() < 2


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(SHAPES),
    st.floats(40, 88),
    st.floats(40, 88),
    st.floats(9, 30),
    st.floats(-2.5, 2.5),
    st.floats(-2.5, 2.5),
    st.floats(0.88, 1.14),
)
def test_an_outline_is_followed_home_from_a_start_nearby(shape, x, y, radius, dx, dy, factor):
    thing = Thing(shape, "red", x, y, radius)
    alpha = np.zeros((128, 128), np.float32)
    rows, columns, _, coverage = thing_layer(thing, 128)
    alpha[rows, columns] = coverage[..., 0]
    start = replace(thing, x=x + dx, y=y + dy, radius=radius * factor)
    fitted = fit_outline(outline_points(alpha), start)
    assert abs(fitted.x - x) < 0.5
    assert abs(fitted.y - y) < 0.6
    assert abs(fitted.radius - radius) < 0.9


@pytest.mark.parametrize("level", ["core", "rich"])
def test_every_object_of_a_scene_is_found_and_no_other(level):
    rng = np.random.default_rng(12)
    for _ in range(40):
        _, _, drawn = sample_scene(rng, level)
        found = [item.thing for item in find_objects(look(as_picture(render(drawn))), {})]
        kinds = sorted((t.colour, t.shape) for t in found)
        assert kinds == sorted((t.colour, t.shape) for t in drawn.things)
        for thing in drawn.things:
            nearest = min(found, key=lambda t, thing=thing: np.hypot(t.x - thing.x, t.y - thing.y))
            assert np.hypot(nearest.x - thing.x, nearest.y - thing.y) < 1
            assert abs(nearest.radius - thing.radius) < 1.5


def test_touching_objects_of_one_colour_are_told_apart():
    drawn = Scene((Thing("circle", "red", 45, 64, 18), Thing("square", "red", 78, 64, 18)), "white")
    found = find_objects(look(as_picture(render(drawn))), {})
    assert sorted(item.thing.shape for item in found) == ["circle", "square"]


def thing(colour, shape):
    return Seen(colour, shape, (0, 0, 20, 20), 10, 10, 10)


KINDS = st.tuples(st.sampled_from(["red", "blue", "green"]), st.sampled_from(["star", "ring", "cross"]))


@given(
    st.lists(st.tuples(st.integers(1, 3), KINDS), min_size=1, max_size=3, unique_by=lambda g: g[1]),
    st.lists(KINDS, max_size=5),
)
def test_as_many_objects_as_possible_play_a_part(groups, kinds):
    groups = [Group(count, *kind) for count, kind in groups]
    seen = [thing(*kind) for kind in kinds]
    parts = cast(groups, seen)
    for number, group in enumerate(groups):
        assert all(
            (seen[i].colour, seen[i].shape) == (group.colour, group.shape) for i in parts.members[number]
        )
        assert all(seen[i].shape == group.shape != group.colour for i in parts.recoloured[number])
        assert all(seen[i].colour == group.colour for i in parts.reshaped[number])
        stand_ins = len(parts.recoloured[number]) + len(parts.reshaped[number])
        assert stand_ins <= max(0, group.count - len(parts.members[number]))
    # Brute force: no other choice leaves fewer objects without a part.
    left = [k for k in kinds if k not in [(g.colour, g.shape) for g in groups]]
    places = [g for n, g in enumerate(groups) for _ in range(group_gap(g, kinds))]
    most = 0
    for chosen in itertools.permutations([*places, *[None] * len(left)], len(left)) if len(left) < 5 else []:
        most = max(
            most,
            sum(
                p is not None and (p.colour == k[0] or p.shape == k[1])
                for p, k in zip(chosen, left, strict=True)
            ),
        )
    if len(left) < 5:
        assert len(left) - len(parts.extra) == most


def group_gap(group, kinds):
    return max(0, group.count - sum(kind == (group.colour, group.shape) for kind in kinds))


def test_a_blob_joins_the_short_group_of_its_colour_and_is_never_extra():
    parts = cast(
        [Group(1, "red", "star")],
        [Seen("red", None, (0, 0, 9, 9), 4, 4, 4), Seen("blue", None, (0, 0, 9, 9), 4, 4, 4)],
    )
    assert parts.members == ((0,),)
    assert parts.extra == ()


@given(st.integers(0, 127), st.integers(1, 128), st.integers(0, 127), st.integers(1, 128))
def test_boxes_hold_their_pixels_and_are_at_least_twelve_pixels_wide(x0, width, y0, height):
    box = x0, y0, min(128, x0 + width), min(128, y0 + height)
    out = np.array(to_defect_box(widened(box, 128), 128)) * 0.128
    assert (out[:2] <= box[:2]).all()
    assert (out[2:] >= np.array(box[2:]) - 1e-9).all()
    assert (out[2:] - out[:2] >= 12 - 1e-9).all()
    assert (out >= 0).all()
    assert (out <= 128).all()


def spoken(text):
    return set("".join(c if c.isalpha() or c == "-" else " " for c in text).split())


def test_reasons_are_short_concrete_and_in_a_closed_vocabulary():
    allowed = spoken(" ".join(vocabulary())) | set(COLOURS) | set(SHAPES) | set(BACKGROUNDS)
    allowed |= {f"{s}es" if s.endswith("s") else f"{s}s" for s in SHAPES} | {w.upper() for w in WORDS}
    rng = np.random.default_rng(2)
    seen = set()
    for level in ("core", "rich"):
        for _ in range(80):
            drawn = sample(rng, level, kind="both")
            prompt = phrase(sample_request(rng, level), rng) if rng.random() < 0.3 else drawn.prompt
            found = diagnose(drawn.picture, prompt)
            for defect in found.defects:
                seen.add(defect.subtype)
                assert 8 <= len(defect.reason.split()) <= 25, defect.reason
                assert "{" not in defect.reason
                assert defect.reason[0].isupper()
                assert defect.reason.endswith(".")
                assert 5 <= defect.importance <= 97
                assert spoken(defect.reason) <= allowed, spoken(defect.reason) - allowed
            assert spoken(found.reasoning) <= allowed, spoken(found.reasoning) - allowed
            steps = [line.split(":")[0] for line in found.reasoning.splitlines() if line.startswith("Step")]
            assert steps == ["Step 1", "Step 2", "Step 3"]
            boxes = [line for line in found.reasoning.splitlines() if line.startswith("Box ")]
            assert len(boxes) == len(found.defects)
            wrong = [line.split(": ")[0] for line in found.reasoning.split("\nStep 3")[0].splitlines()[2:]]
            assert wrong == [d.type.value.capitalize() for d in found.defects] or wrong == [
                "Everything fits."
            ]
    assert len(seen) >= 14


def test_almost_every_word_is_one_that_injected_reasons_use_too():
    words = {w for w in spoken(" ".join(vocabulary())) if w.islower()}
    known = {w.lower() for w in injected_words()}
    assert len(words - known) <= 45, sorted(words - known)


@pytest.mark.parametrize("level", ["core", "rich"])
def test_injected_defects_are_found(level):
    rng = np.random.default_rng(31)
    result = check((s.picture, s.prompt, s.diagnosis) for s in (sample(rng, level) for _ in range(120)))
    scores = result.evaluation.to_dict()
    least = 0.9 if level == "core" else 0.8
    assert scores["artifact"]["BoxF1@0.1"] >= least
    assert scores["misalignment"]["BoxF1@0.1"] >= least
    assert result.called_clean >= 0.95 * result.clean
    assert "| wrong colour |" in result.table()
