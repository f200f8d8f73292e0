"""Two diagnoses of the same pictures: pairs as a brute force finds them, scores, files."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from app_models import FOUND
from everything import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import defects

from sdg.app.comparing import Compared, look_twice, read_two
from sdg.app.looking import rendered
from sdg.app.offer import Example
from sdg.data.formats.sdg30k import write_annotations
from sdg.defects import Defect, Diagnosis, Status
from sdg.errors import SdgError
from sdg.geometry import diou, iou
from sdg.io.jsonl import write_objects
from sdg.records import Record
from sdg.reporting import SideBySide, Twice
from sdg.reporting.side_by_side import SAME, agree, paired

FAILED = Diagnosis(status=Status.FAILED, error="It is off.")
few = st.lists(defects, max_size=4).map(lambda found: Diagnosis(tuple(found)))


@settings(max_examples=60)
@given(few, few)
def test_pairs_are_those_of_the_best_assignment(first: Diagnosis, second: Diagnosis) -> None:
    pairs = paired(first, second)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    a, b = first.defects, second.defects
    for i, j in pairs:
        assert a[i].type == b[j].type
        assert iou([a[i].box], [b[j].box])[0, 0] >= SAME
    # Per type: no assignment has a greater sum of DIoU than one that holds these pairs.
    for kind in ("artifact", "misalignment"):
        rows = [i for i, one in enumerate(a) if one.type == kind]
        columns = [j for j, one in enumerate(b) if one.type == kind]
        if not rows or not columns:
            continue
        short, long, turned = (rows, columns, False) if len(rows) <= len(columns) else (columns, rows, True)
        scores = diou([one.box for one in a], [one.box for one in b])
        sums = {
            tuple(zip(short, chosen, strict=True)): sum(
                scores[(j, i) if turned else (i, j)] for i, j in zip(short, chosen, strict=True)
            )
            for chosen in permutations(long, len(short))
        }
        best = max(sums.values())
        own = {(j, i) if turned else (i, j) for i, j in pairs if a[i].type == kind}
        assert any(own <= set(one) and total == pytest.approx(best) for one, total in sums.items())


def test_what_is_not_known_agrees_with_nothing() -> None:
    clean = Diagnosis()
    assert agree(clean, clean)
    assert agree(Diagnosis(FOUND), Diagnosis(FOUND[::-1]))
    assert not agree(Diagnosis(FOUND), Diagnosis(FOUND[:1]))
    assert not agree(FAILED, FAILED)
    assert not agree(clean, None)


def test_pairs_have_one_number_and_colour_on_both_sides() -> None:
    second = Diagnosis((Defect((10, 10, 90, 90), "artifact", "A ghost."), *FOUND[::-1]))
    (card,) = SideBySide((Twice("a", "a cat", Diagnosis(FOUND), second),), "one", "two").cards()
    left = {(box.number, box.type) for box in card.boxes[0]}
    right = {(box.number, box.type) for box in card.boxes[1]}
    assert left == {(1, "pair-1"), (2, "pair-2")}
    assert right == left | {(3, "alone")}
    assert [row.who for row in card.rows] == ["both: 72 and 72", "both: 35 and 35", "two alone: not rated"]
    assert not card.agrees


def test_scores_stand_where_truth_is_known_and_hostile_text_is_escaped() -> None:
    items = [Twice("a", HOSTILE, Diagnosis(FOUND), FAILED), Twice(HOSTILE, "a dog", Diagnosis(), None)]
    page = rendered(Compared("one", HOSTILE, items, [Diagnosis(FOUND), None]).sections())
    assert "On the 1 picture whose defects are known." in page
    assert "1.000" in page
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert len(Compared("one", "two", items, [None, None]).sections()) == 1


def test_a_comparison_ends_early_when_no_one_waits() -> None:
    examples = [Example(f"{number}.png", "a cat", Path("none.png")) for number in range(5)]
    found = look_twice(examples, ("one", "two"), lambda name, example: Diagnosis(), lambda done: done < 2)
    assert [item.name for item in found.items] == ["0.png", "1.png"]
    assert len(found.truth) == 2


def test_files_are_joined_by_path_and_prompt(tmp_path: Path) -> None:
    def write(name: str, paths: str) -> Path:
        file = tmp_path / name / "predictions.jsonl"
        rows = [{"filepath": f"data/{p}.png", "caption": p, "response": "<answer>[]</answer>"} for p in paths]
        write_objects(file, rows)
        return file

    first, second = write("one", "abc"), write("two", "cbd")
    examples = [Example(f"{name}.png", "", Path(f"/x/{name}.png")) for name in "bz"]
    found = read_two(first, second, None, examples)
    assert [(item.name, item.picture) for item in found.items] == [
        ("data/b.png", Path("/x/b.png")),
        ("data/c.png", None),
    ]
    assert (found.first, found.second) == ("predictions (1)", "predictions (2)")
    with pytest.raises(SdgError, match="share no picture"):
        read_two(first, write("three", "xyz"), None, ())


def test_a_picture_under_two_prompts_is_compared_by_prompt(tmp_path: Path) -> None:
    def write(name: str, answers: dict[str, str]) -> Path:
        file = tmp_path / f"{name}.jsonl"
        rows = [{"filepath": "a.png", "caption": one, "response": text} for one, text in answers.items()]
        write_objects(file, rows)
        return file

    cat, dog = "<answer>[]</answer>", "no answer"
    first, second = write("one", {"a cat": cat, "a dog": dog}), write("two", {"a dog": dog, "a cat": cat})
    true = tmp_path / "truth.jsonl"
    write_annotations(
        true, [Record("a.png", "a dog", Diagnosis(FOUND)), Record("a.png", "a cat", Diagnosis())]
    )
    found = read_two(first, second, true, ())
    assert [(item.prompt, item.first == item.second) for item in found.items] == [
        ("a cat", True),
        ("a dog", True),
    ]
    assert found.truth == [Diagnosis(), Diagnosis(FOUND)]


def test_of_two_pictures_with_one_name_that_of_the_prompt_is_shown_or_none(tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    rows = [{"filepath": "a.png", "caption": one, "response": ""} for one in ("a cat", "a dog", "a cow")]
    write_objects(file, rows)
    cat, dog = (Example("a.png", f"a {one}", tmp_path / one / "a.png") for one in ("cat", "dog"))
    found = read_two(file, file, None, (cat, dog))
    assert [item.picture for item in found.items] == [cat.picture, dog.picture, None]
