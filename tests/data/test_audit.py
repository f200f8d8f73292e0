from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdg import Defect, Diagnosis
from sdg.data.audit import audit, split_names
from sdg.errors import SdgError
from sdg.records import Record


def record(number, defects=(), *, annotator=None, prompt=None, split=None, generator="g"):
    prompt = prompt or f"prompt {number}"
    return Record(f"{number}.png", prompt, Diagnosis(tuple(defects)), generator, split, annotator)


def defect(number, kind="artifact", importance=50, box=None):
    box = box or (10 * (number % 50), 100, 10 * (number % 50) + 200, 300)
    return Defect(box, kind, f"The part number {number} of it is broken.", importance)


def usual(count=200):
    """Records that look like SDG-30K's in every number."""
    rng = np.random.default_rng(0)
    records = []
    for at in range(count):
        kinds = (
            []
            if at % 100 < 25
            else ["artifact"]
            if at % 100 < 71
            else ["misalignment"]
            if at % 100 < 76
            else None
        )
        kinds = ["artifact", "artifact", "misalignment", "misalignment"] if kinds is None else kinds
        wide = [(100 * n, 200, 100 * n + 90, 500) for n in range(4)]
        defects = [
            defect(10 * at + n, kind, int(rng.integers(31, 81)), wide[n]) for n, kind in enumerate(kinds)
        ]
        records.append(record(at, defects, annotator=f"person {at % 4}"))
    return records


def kinds(found):
    return [(one.kind, one.text) for one in found.findings]


def test_a_data_set_like_the_papers_has_no_findings():
    found = audit([("train", usual())])
    assert kinds(found) == []
    assert found.records == 200
    assert found.tables[0].title == "Findings"
    assert "Nothing stands out." in str(found.tables[0])


def test_prompts_in_several_splits_leak_however_they_are_written():
    train = [record(1, prompt="A red  Cat"), record(2, prompt="a dog")]
    test = [record(3, prompt="a red cat"), record(4, prompt="a dog", split="train")]
    found = audit([("train", train), ("test", test)])
    [leak] = [one for one in found.findings if one.kind == "leak"]
    assert leak.text == "Prompts in several splits: 1 (1 in test and train)."
    assert leak.where == ("A red  Cat",)


def test_images_without_a_prompt_share_none():
    found = audit([("train", [record(1, prompt="\t")]), ("test", [record(2, prompt=" ")])])
    assert [one for one in found.findings if one.kind == "leak"] == []


def test_an_image_that_a_split_lists_again_is_a_duplicate_unless_another_annotated_it():
    rows = [record(1), record(2, annotator="x"), record(2, annotator="y"), record(3, annotator="x")]
    assert [one for one in audit([("train", rows)]).findings if one.kind == "duplicates"] == []
    found = audit([("train", [*rows, *rows, rows[0]])])
    [twice] = [one for one in found.findings if one.kind == "duplicates"]
    assert twice.text == ("Rows that repeat an image and annotator of their split: 5 (images: 3).")
    assert twice.where == ("1.png", "2.png", "3.png")
    assert found.records == 9


def test_files_that_are_one_split_by_their_records_are_named():
    files = [("a", [record(1, split="train")]), ("b", [record(2, split="train")]), ("c", [record(3)])]
    [one] = [one for one in audit(files).findings if one.kind == "splits"]
    assert one.text == "2 files are looked at as one split, 'train', which their records name."
    assert one.where == ("a", "b")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("train.jsonl", "x/test.jsonl"), ["train", "test"]),
        (("train/a.jsonl", "test/a.jsonl", "b.jsonl"), ["train/a", "test/a", "b"]),
        (("a.jsonl", "x/a.jsonl"), ["a", "x/a"]),
        (("x/t/a.jsonl", "y/t/a.jsonl", "z/a.jsonl"), ["x/t/a.jsonl", "y/t/a.jsonl", "z/a"]),
        (("t/a.jsonl", "t/a.parquet"), ["t/a.jsonl", "t/a.parquet"]),
    ],
)
def test_each_file_is_a_split_of_its_own_whatever_it_is_called(paths, names):
    assert split_names([Path(path) for path in paths]) == names


def test_pictures_that_are_alike_are_found_and_those_across_splits_are_leaks(tmp_path):
    def draw(number, seed):
        levels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(levels).resize((64, 64)).save(tmp_path / f"{number}.png")

    for number, seed in enumerate((0, 1, 0, 2, 1, 3)):
        draw(number, seed)
    (tmp_path / "6.png").write_bytes(b"no picture")
    found = audit(
        [("train", [record(number) for number in (0, 1, 2, 6)]), ("test", [record(n) for n in (3, 4, 5)])],
        images=tmp_path,
    )
    assert found.duplicates == (
        (("0.png", "train"), ("2.png", "train")),
        (("1.png", "train"), ("4.png", "test")),
    )
    texts = {one.kind: one.text for one in found.findings}
    assert texts["leak"] == "Pictures that are alike in several splits: 2 (groups: 1)."
    assert texts["duplicates"] == "Pictures that are alike: 4 (groups: 2)."
    assert texts["pictures"].startswith("Pictures that cannot be read: 1; the first:")
    assert (found.read, [path for path, _ in found.unreadable]) == (6, ["6.png"])
    with pytest.raises(SdgError, match="leaves the folder"):
        audit([("train", [record("../x")])], images=tmp_path)


def test_an_annotator_unlike_the_rest_is_named_with_what_differs():
    records = usual()
    strange = [
        record(1000 + at, [defect(5000 + at, importance=95)] * 1, annotator="person 9") for at in range(30)
    ]
    found = audit([("train", records + strange)])
    texts = [text for kind, text in kinds(found) if kind == "annotators"]
    assert any(text.startswith("person 9 has 95.0 importance, and all others 5") for text in texts)
    assert all(text.startswith("person 9") for text in texts)
    assert "95.0*" in str(next(table for table in found.tables if table.columns[0] == "annotator"))


def test_few_images_of_an_annotator_prove_nothing():
    found = audit([("train", [*usual(), *(record(900 + n, annotator="new") for n in range(9))])])
    assert [kind for kind, _ in kinds(found) if kind == "annotators"] == []


def test_reasons_that_repeat_importance_that_is_inflated_and_boxes_that_say_nothing_are_named():
    whole = Defect((0, 0, 1000, 1000), "artifact", "Bad  quality.", 95)
    tiny = Defect((5, 5, 20, 20), "artifact", "bad quality.", 95)
    twice = [defect(1, importance=95), defect(1, importance=95, box=(11, 100, 211, 300))]
    found = audit([("train", [record(n, [whole, tiny, *twice]) for n in range(20)])])
    texts = [text for kind, text in kinds(found) if kind != "figure 3"]
    assert texts == [
        "Boxes that hold the whole picture: 20.",
        "Boxes below 20 × 20: 20.",
        "Images with a defect marked twice (one type, IoU from 0.9): 20.",
        "100.0% of the reasons stand elsewhere word for word.",
        "100.0% of the importances are above 80; in SDG-30K few are.",
        "0.0% of the importances are 31 to 80; in SDG-30K most are.",
        "100.0% of the importances are 95: rated by habit?",
    ]
    repeated = next(one for one in found.findings if one.kind == "reasons")
    assert repeated.where == ("40 ×: bad quality.", "40 ×: the part number 1 of it is broken.")


def test_a_generator_far_from_figure_3_is_named():
    records = [record(n, [defect(n, "misalignment")] * 1, generator="odd") for n in range(20)]
    texts = [text for kind, text in kinds(audit([("train", records)])) if kind == "figure 3"]
    assert "100.0% of the images are misalignment only; SDG-30K has 5.4%." in texts
    assert "odd has 0.00 artifacts an image; SDG-30K has 0.35 to 3.22." in texts
    assert "odd has more misalignments than artifacts; no generator of SDG-30K does." in texts


def test_images_of_which_nothing_is_known_count_as_records_alone():
    unknown = [Record("a.png", "a"), Record("b.png", "b", Diagnosis(status="failed"))]
    found = audit([("train", unknown)])
    assert (found.records, found.statistics.overall.images, kinds(found)) == (2, 0, [])
    assert found.to_dict()["records"] == 2
