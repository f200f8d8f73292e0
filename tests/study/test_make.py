"""Studies: what is paired, what the key holds, and that a page says nothing of whose picture is which."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import Brightness, Halver, items
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdg.errors import SdgError
from sdg.refinement.batch import Plan, refine_all
from sdg.runs.begin import hold
from sdg.study.make import (
    KEY,
    PAGE,
    Match,
    blind,
    draw,
    make_study,
    match,
    questions,
    read_key,
    read_results,
    same_pixels,
    write_key,
)

NAMES = ("ours-7731", "theirs-8842")


def listed(folder: Path, **colours: tuple[int, int, int]) -> Path:
    """A JSON Lines file of plain pictures in a folder of their own."""
    folder.mkdir()
    lines = []
    for name, colour in colours.items():
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.png")
        lines.append(json.dumps({"filepath": f"{name}.png", "caption": f"prompt of {name}"}))
    (folder / "list.jsonl").write_text("\n".join(lines))
    return folder / "list.jsonl"


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Results for a to e and for c to f; those for c are the same picture."""
    red, blue = (200, 0, 0), (0, 0, 200)
    a = listed(tmp_path / NAMES[0], a=red, b=red, c=red, d=red, e=red)
    return a, listed(tmp_path / NAMES[1], c=red, d=blue, e=blue, f=blue)


def test_what_refine_wrote_is_read_and_a_kept_input_is_its_own_result(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, colour in {"edited": (80, 80, 80), "clean": (0, 0, 0), "refused": (40, 90, 0)}.items():
        Image.new("RGB", (32, 32), colour).save(source / f"{name}.png")
    refine_all(
        items(source), tmp_path / "out", detector=Brightness(), editor=Halver(), plan=Plan("halver", rounds=1)
    )
    found = {filepath: picture for (filepath, _), picture in read_results(tmp_path / "out", source).items()}
    assert found["refused.png"] is None
    assert Image.open(found["edited.png"]).getpixel((16, 16)) == (40, 40, 40)
    assert found["clean.png"].samefile(source / "clean.png")


def test_only_the_same_path_with_the_same_prompt_is_a_pair_and_failures_are_none() -> None:
    a = {("a", "cat"): Path("1"), ("b", "cat"): Path("2"), ("c", "cat"): None, ("d", "cat"): Path("3")}
    b = {("a", "cat"): Path("4"), ("b", "dog"): Path("5"), ("c", "cat"): Path("6"), ("d", "cat"): Path("7")}
    found, unmatched, failed = match(a, b)
    assert found == [Match("a", "cat", Path("1"), Path("4")), Match("d", "cat", Path("3"), Path("7"))]
    assert (unmatched, failed) == (2, 1)


def test_pictures_are_the_same_by_their_pixels_and_not_by_their_files(tmp_path: Path) -> None:
    picture = Image.new("RGB", (20, 10), (9, 9, 9))
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "a.bmp")
    picture.resize((10, 20)).save(tmp_path / "turned.png")
    picture.putpixel((3, 3), (9, 9, 10))
    picture.save(tmp_path / "b.png")
    assert same_pixels(tmp_path / "a.png", tmp_path / "a.bmp")
    assert not same_pixels(tmp_path / "a.png", tmp_path / "b.png")
    assert not same_pixels(tmp_path / "a.png", tmp_path / "turned.png")


def test_a_draw_keeps_the_order_and_depends_on_the_seed_alone() -> None:
    matches = [Match(f"{n:03}", "", Path("a"), Path("b")) for n in range(100)]
    drawn = draw(matches, 10, 3)
    assert len(drawn) == 10
    assert drawn == sorted(drawn, key=lambda one: one.filepath)
    assert drawn == draw(matches, 10, 3)
    assert drawn != draw(matches, 10, 4)
    assert draw(matches, 500, 0) == draw(matches, None, 0) == matches


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5, unique=True))
def test_ids_are_all_different_and_without_the_salt_tell_nothing(keys) -> None:
    matches = [Match(*key, Path("a"), Path("b")) for key in keys]
    key, other = (blind(matches, [False] * len(keys), NAMES, salt) for salt in (b"one", b"other"))
    ids = [text for pair in key.pairs for text in (pair.id, pair.a, pair.b)]
    assert len({key.study, *ids}) == 3 * len(keys) + 1
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)
    assert not set(ids) & {text for pair in other.pairs for text in (pair.id, pair.a, pair.b)}
    assert key == blind(matches, [False] * len(keys), NAMES, b"one")


@settings(deadline=None)
@given(st.text(), st.text(), st.booleans())
def test_a_key_is_read_as_it_was_written(tmp_path_factory, filepath, prompt, identical) -> None:
    key = blind([Match(filepath, prompt, Path("a"), Path("b"))], [identical], NAMES, b"salt")
    path = tmp_path_factory.getbasetemp() / "study-key.json"
    write_key(path, key)
    assert read_key(path) == key


@pytest.mark.parametrize("text", ["[]", "{}", '{"study": "s", "a": "a", "b": "b", "pairs": [{"id": 1}]}'])
def test_what_is_no_key_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / KEY).write_text(text)
    with pytest.raises(SdgError, match=r"key\.json is no key; give the folder that `sdg study make` wrote\."):
        read_key(tmp_path / KEY)


def test_the_page_holds_the_pairs_and_nothing_of_the_systems(two, tmp_path: Path) -> None:
    told: list[int] = []
    made = make_study(*two, tmp_path / "study", names=NAMES, seed=7, on_pair=told.append)
    assert told == [1, 2]
    assert (len(made.key.pairs), len(made.key.shown), made.unmatched, made.failed) == (3, 2, 3, 0)
    assert [pair.filepath for pair in made.key.pairs if pair.identical] == ["c.png"]
    assert read_key(tmp_path / "study" / KEY) == made.key
    page = made.page.read_text(encoding="utf-8")
    assert made.page == tmp_path / "study" / PAGE
    for pair in made.key.shown:
        assert page.count(pair.id) == page.count(pair.a) == page.count(pair.b) == 1
        assert pair.prompt in page
        assert pair.filepath not in page
    assert "prompt of c" not in page
    assert not any(name in page for name in (*NAMES, str(tmp_path), KEY))
    assert 'data-seed="7"' in page
    assert not re.search(r"(src|href)=\"(?!data:image/)", page)


def test_what_comes_first_in_the_page_does_not_depend_on_the_system(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(40)]
    a = listed(tmp_path / "a", **dict.fromkeys(names, (200, 0, 0)))
    b = listed(tmp_path / "b", **dict.fromkeys(names, (0, 0, 200)))
    made = make_study(a, b, tmp_path / "study")
    page = made.page.read_text(encoding="utf-8")
    first = sum(page.index(pair.a) < page.index(pair.b) for pair in made.key.pairs)
    assert 5 < first < 35  # 20 on average; outside by chance once in a million
    order = sorted(made.key.pairs, key=lambda pair: page.index(pair.id))
    assert order == sorted(order, key=lambda pair: pair.id)


def test_pictures_are_scaled_down_to_the_side_that_is_asked_for(two, tmp_path: Path) -> None:
    page = make_study(*two, tmp_path / "study", side=20).page.read_text(encoding="utf-8")
    assert page.count('width="20" height="15"') == 4


def test_a_limit_is_drawn_from_all_pairs_identical_ones_among_them(two, tmp_path: Path) -> None:
    kept = [make_study(*two, tmp_path / f"{seed}", limit=2, seed=seed).key.pairs for seed in range(8)]
    assert {len(pairs) for pairs in kept} == {2}
    assert any(pair.identical for pairs in kept for pair in pairs)


def test_of_two_that_write_one_study_the_second_is_refused(two, tmp_path: Path) -> None:
    out = tmp_path / "study"
    with hold(out, out / KEY), pytest.raises(SdgError, match="is being written by another process"):
        make_study(*two, out)
    assert list(out.iterdir()) == []


def test_a_study_is_never_written_over_another(two, tmp_path: Path) -> None:
    make_study(*two, tmp_path / "study")
    before = (tmp_path / "study" / KEY).read_bytes()
    with pytest.raises(SdgError, match=r"key\.json is there already, .* give another --out\."):
        make_study(*two, tmp_path / "study")
    assert (tmp_path / "study" / KEY).read_bytes() == before


def test_what_cannot_be_a_study_is_one_sentence_and_leaves_nothing(two, tmp_path: Path) -> None:
    a, b = two
    other = listed(tmp_path / "other", z=(1, 2, 3))
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice.jsonl").write_text('{"filepath": "a", "caption": ""}\n' * 2)
    (tmp_path / "note.txt").write_text("no results")
    out = tmp_path / "study"

    def refused(first: Path, second: Path, why: str) -> None:
        with pytest.raises(SdgError, match=why):
            make_study(first, second, out)
        assert not (out / KEY).exists()
        assert not (out / PAGE).exists()

    refused(a, other, "share no result; give results of the same paths and prompts")
    refused(a, a, "5 pairs of .* are all identical, so there is nothing to rate")
    refused(tmp_path / "empty", b, r"empty holds no refinements\.jsonl")
    refused(tmp_path / "note.txt", b, r"neither a folder of `sdg refine` nor a \.jsonl file")
    refused(tmp_path / "gone.jsonl", b, "does not exist")
    (b.parent / "d.png").write_bytes(b"no picture")
    refused(a, b, r"d\.png is not an image")


def test_one_input_twice_is_refused(two, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = {"id": "a.png", "prompt": "", "before": "a.png", "after": None, "status": "clean"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "refinements.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    with pytest.raises(
        SdgError, match=r"a\.png is there 2 times with the same prompt; give every result once"
    ):
        make_study(tmp_path / "out", two[1], tmp_path / "study")


def test_questions_are_the_pairs_that_are_shown() -> None:
    matches = [Match(name, name, Path(f"{name}1"), Path(f"{name}2")) for name in "xyz"]
    key = blind(matches, [False, True, False], NAMES, b"salt")
    asked = questions(key, matches)
    assert [(one.id, one.prompt) for one in asked] == [(p.id, p.filepath) for p in key.shown]
    assert asked[1].pictures == ((key.pairs[2].a, Path("z1")), (key.pairs[2].b, Path("z2")))
    assert replace(key, pairs=key.shown).shown == key.shown
