import json

import pytest
from PIL import Image

from sdg.data.formats import coco, hf, write_records
from sdg.data.validation import validate
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.records import Fault, Record

ITEM = {"box_2d": [10, 20, 30, 40], "label": "artifact", "description": "Six fingers.", "importance": 45}
LINE = {"filepath": "a.png", "caption": "a cat", "ann_translated_bboxes": [ITEM]}


def faults_of(path, **options):
    found: list[Fault] = []
    summary = validate(path, found.append, **options)
    assert summary.faults == len(found)
    return summary, [(fault.place, fault.reason) for fault in found]


def test_every_fault_of_every_line_is_found(tmp_path):
    path = tmp_path / "ann.jsonl"
    lines = [
        json.dumps(LINE),
        "not json",
        "",
        json.dumps(
            LINE
            | {"filepath": 3, "generator": []}
            | {"ann_translated_bboxes": [ITEM | {"importance": 0}, ITEM, ITEM | {"label": "blur"}]}
        ),
        json.dumps(LINE | {"filepath": "b.png", "ann_translated_bboxes": []}),
        json.dumps(LINE | {"filepath": "c.png", "ann_translated_bboxes": None}),
        json.dumps(LINE),
    ]
    path.write_text("\n".join(lines))
    summary, found = faults_of(path)
    assert found == [
        ("line 2", "This is not JSON: Expecting value at character 1."),
        ("line 4", "'filepath' is text, not 3."),
        ("line 4", "Defect 1: An importance is an integer from 1 to 100, not 0."),
        ("line 4", "Defect 3: The label is 'artifact', 'misalignment' or 'both', not 'blur'."),
        ("line 4", "'generator' is text, not []."),
        ("line 7", "a.png is listed a second time."),
    ]
    assert (summary.records, summary.clean, summary.unannotated, summary.defects) == (4, 1, 1, 2)
    assert (summary.faulty_parts, summary.faults) == (3, 6)


def test_several_annotators_may_list_one_image(tmp_path):
    path = tmp_path / "ann.jsonl"
    path.write_text("\n".join(json.dumps(LINE | {"annotator": name}) for name in ("a", "b", "a")))
    _, found = faults_of(path)
    assert found == [("line 3", "a.png is listed a second time by a.")]


def test_images_are_read_whole_and_once(tmp_path):
    path = tmp_path / "ann.jsonl"
    names = [("a.png", "x"), ("a.png", "y"), ("none.png", "x"), ("cut.png", "x"), ("text.png", "x")]
    path.write_text("\n".join(json.dumps(LINE | {"filepath": f, "annotator": a}) for f, a in names))
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:-1000])
    (tmp_path / "text.png").write_text("no image")
    summary, found = faults_of(path, images=tmp_path)
    assert [place for place, _ in found] == ["line 3", "line 4", "line 5"]
    assert all(name in reason for (_, reason), name in zip(found, ["none", "cut", "text"], strict=True))
    assert summary.images == 1
    assert faults_of(path)[1] == []  # without the folder, images are not looked at


def test_predictions_are_counted_by_how_they_were_read(tmp_path):
    path = tmp_path / "pred.jsonl"
    responses = ["<think></think><answer>[]</answer>", "<answer>[]</answer>", "hello", None]
    path.write_text(
        "\n".join(json.dumps({"filepath": str(i), "response": r}) for i, r in enumerate(responses))
    )
    summary, found = faults_of(path)
    assert found == []
    assert summary.statuses == {"ok": 1, "repaired": 1, "unparseable": 1, "failed": 1}
    assert "1 failed; 1 repaired; 1 unparseable; no faults" in str(summary)


def test_places_of_other_formats_are_images_and_splits(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    record = Record("a.png", "", Diagnosis((Defect((0, 0, 9, 9), "artifact"),)), split="test")
    hf.write(tmp_path / "hf", [record, record], images=tmp_path)
    assert faults_of(tmp_path / "hf")[1] == [("test line 2", "a.png is listed a second time.")]
    coco.write(tmp_path / "coco.json", [record, record], size=(8, 8))
    assert faults_of(tmp_path / "coco.json")[1] == [("image 2", "a.png is listed a second time.")]


def test_our_own_format_names_every_fault_too(tmp_path):
    path = tmp_path / "sdg.jsonl"
    write_records(path, [Record("a.png", "")], "sdg")
    with path.open("a") as file:
        file.write('{"filepath": "b.png", "extra": 1, "split": 0.5, "metadata": 3}\n')
    _, found = faults_of(path, format="sdg")
    assert [reason.split(";")[0] for _, reason in found] == [
        "A record has no key 'extra'",
        "'prompt' is missing.",
        "'split' is text, not 0.5.",
        "'metadata' is a JSON object, not 3.",
    ]


def test_a_file_that_cannot_be_read_at_all_is_an_error(tmp_path):
    with pytest.raises(SdgError, match="does not exist"):
        faults_of(tmp_path / "none.jsonl")


def test_a_fault_in_the_first_line_hides_no_other(tmp_path):
    fine = '{"filepath": "a.png", "prompt": "a", "diagnosis": null}'
    (tmp_path / "a.jsonl").write_text("{\n" + fine + '\n{"filepath": 3, "prompt": "b"}\n')
    found = faults_of(tmp_path / "a.jsonl")
    assert len(found) == 2
    (tmp_path / "b.jsonl").write_text("{\n[]\n")
    with pytest.raises(SdgError, match="line 1"):
        faults_of(tmp_path / "b.jsonl")


def test_rows_without_a_prompt_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [LINE, LINE | {"filepath": "b.png", "caption": " "}, LINE | {"filepath": "c.png", "caption": ""}]
    path.write_text("\n".join(map(json.dumps, rows)))
    summary, found = faults_of(path)
    assert (summary.unprompted, found) == (2, [])
    assert "; 2 records without a prompt; no faults" in str(summary)
