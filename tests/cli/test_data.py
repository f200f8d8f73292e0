import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from PIL import Image

from sdg.cli import main
from sdg.cli.data import data

ITEM = {"box_2d": [10, 20, 30, 40], "label": "artifact", "description": "Six fingers.", "importance": 45}
LINE = {"filepath": "a.png", "caption": "a cat", "ann_translated_bboxes": [ITEM]}


@pytest.fixture
def sdg(capfd, monkeypatch, tmp_path):
    """Run `sdg …` in a folder of its own; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        try:
            main([*map(str, args)])
            code = 0
        except SystemExit as exit:
            code = exit.code or 0
        return code, *capfd.readouterr()

    return run


def write_lines(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


@pytest.fixture
def annotations(tmp_path):
    """Forty images of ten prompts by four generators."""
    lines = [
        LINE
        | {"filepath": f"{generator}/{number}.png", "caption": f"prompt {number}", "generator": generator}
        for number in range(10)
        for generator in ("FLUX.2-dev", "Z-Image-Turbo", "LongCat-Image", "SANA-1.5-1.6B")
    ]
    write_lines(tmp_path / "ann.jsonl", *lines)
    return lines


@pytest.mark.parametrize("command", ["validate", "stats", "split", "convert", "enrich", "audit", "agreement"])
def test_every_command_has_help_with_an_example(command):
    result = CliRunner().invoke(data, [command, "--help"])
    assert result.exit_code == 0
    assert f"sdg data {command}" in result.output


BAD_INPUTS = {
    "missing file": (None, "ann.jsonl does not exist; check the path."),
    "empty file": ([], "ann.jsonl is empty; one JSON object a line is needed."),
    "a folder": ("folder", "ann.jsonl is not"),
    "malformed line 17 of 40": (
        [LINE] * 16 + ["{"] + [LINE] * 23,
        "ann.jsonl, line 17: This is not JSON: Expecting property name enclosed in double quotes "
        "at character 2.",
    ),
    "a box outside": (
        [LINE | {"ann_translated_bboxes": [ITEM | {"box_2d": [0, 0, 1001, 5]}]}],
        "ann.jsonl, line 1: Defect 1: A box needs 0 <= x0 < x1 <= 1000 and 0 <= y0 < y1 <= 1000, "
        "not [0, 0, 1001, 5].",
    ),
    "unknown label": (
        [LINE, LINE | {"ann_translated_bboxes": [ITEM, ITEM | {"label": "blur"}]}],
        "ann.jsonl, line 2: Defect 2: The label is 'artifact', 'misalignment' or 'both', not 'blur'.",
    ),
    "importance 0": (
        [LINE | {"ann_translated_bboxes": [ITEM | {"importance": 0}]}],
        "ann.jsonl, line 1: Defect 1: An importance is an integer from 1 to 100, not 0.",
    ),
    "importance 101": (
        [LINE | {"ann_translated_bboxes": [ITEM | {"importance": 101}]}],
        "ann.jsonl, line 1: Defect 1: An importance is an integer from 1 to 100, not 101.",
    ),
}


@pytest.mark.parametrize("content", BAD_INPUTS.values(), ids=BAD_INPUTS)
@pytest.mark.parametrize(
    "command",
    [
        ("stats", "ann.jsonl", "--format", "sdg30k"),
        ("convert", "ann.jsonl", "out.jsonl", "--from", "sdg30k", "--to", "sdg"),
        ("agreement", "ann.jsonl", "--format", "sdg30k"),
    ],
    ids=lambda command: command[0],
)
def test_bad_input_is_one_sentence_and_exit_code_1(sdg, tmp_path, command, content):
    lines, message = content
    if lines == "folder":
        (tmp_path / "ann.jsonl").mkdir()
        message = "ann.jsonl is a folder, but a file is needed here."
    elif lines is not None:
        write_lines(tmp_path / "ann.jsonl", *lines)
    code, out, err = sdg("data", *command)
    assert (code, out, err) == (1, "", f"sdg: {message}\n")
    assert not (tmp_path / "out.jsonl").exists()


def test_validate_lists_every_fault_on_stdout_and_fails(sdg, tmp_path):
    bad = LINE | {"ann_translated_bboxes": [ITEM | {"importance": 0}, ITEM | {"label": "blur"}]}
    write_lines(tmp_path / "a.jsonl", LINE, "x", bad)
    write_lines(tmp_path / "b.jsonl", LINE)
    code, out, err = sdg("data", "validate", "a.jsonl", "b.jsonl")
    assert code == 1
    assert out.splitlines() == [
        "a.jsonl, line 2: This is not JSON: Expecting value at character 1.",
        "a.jsonl, line 3: Defect 1: An importance is an integer from 1 to 100, not 0.",
        "a.jsonl, line 3: Defect 2: The label is 'artifact', 'misalignment' or 'both', not 'blur'.",
    ]
    assert "a.jsonl: 1 record (0 clean, 0 unannotated); 1 defect; 3 faults in 2 places" in err
    assert "b.jsonl: 1 record (0 clean, 0 unannotated); 1 defect; no faults" in err


def test_validate_of_a_sound_file_succeeds_in_silence(sdg, annotations):
    code, out, err = sdg("data", "validate", "ann.jsonl")
    assert (code, out) == (0, "")
    assert "40 records" in err


def test_validate_reads_the_images_of_a_folder(sdg, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    write_lines(tmp_path / "a.jsonl", LINE, LINE | {"filepath": "none.png"})
    code, out, err = sdg("data", "validate", "a.jsonl", "--images", "images")
    assert code == 1
    assert out.startswith("a.jsonl, line 2: ")
    assert "none.png" in out
    assert "1 image read" in err


def test_stats_prints_the_three_panels_by_generator(sdg, annotations):
    code, out, err = sdg("data", "stats", "ann.jsonl")
    assert (code, err) == (0, "")
    for text in ("Defects per image", "Images by what they hold", "Importance", "SANA-1.5-1.6B", "41–50"):
        assert text in out


def test_stats_as_json_goes_to_a_file_or_alone_to_stdout(sdg, tmp_path, annotations):
    assert sdg("data", "stats", "ann.jsonl", "--json", "out.json")[0] == 0
    code, out, _ = sdg("data", "stats", "ann.jsonl", "--json", "-")
    document = json.loads(out)
    assert code == 0
    assert document == json.loads((tmp_path / "out.json").read_text())
    assert document["overall"]["defects_per_image"] == {"artifact": 1.0, "misalignment": 0.0}
    assert document["generators"]["FLUX.2-dev"]["images"] == 10


def test_stats_draws_a_plot(sdg, tmp_path, annotations):
    pytest.importorskip("matplotlib")
    assert sdg("data", "stats", "ann.jsonl", "--plot", "out/figure3.png")[0] == 0
    with Image.open(tmp_path / "out" / "figure3.png") as image:
        assert image.width > image.height


def test_split_writes_one_file_a_part(sdg, tmp_path, annotations):
    code, out, err = sdg(
        "data", "split", "ann.jsonl", "--out", "splits", "--part", "train=8", "--part", "test=2"
    )
    assert code == 0
    assert "8 (80.0 %)" in out
    assert err == "Wrote splits/train.jsonl\nWrote splits/test.jsonl\n"
    parts = {
        name: [json.loads(line) for line in (tmp_path / "splits" / f"{name}.jsonl").open()]
        for name in ("train", "test")
    }
    assert {name: len(lines) for name, lines in parts.items()} == {"train": 32, "test": 8}
    assert parts["test"][0] in [line | {"split": "test"} for line in annotations]
    assert sdg("data", "validate", "splits/train.jsonl", "splits/test.jsonl")[0] == 0


@pytest.mark.parametrize("part", ["train", "train=x", "=="])
def test_a_part_without_a_share_is_wrong_usage(sdg, annotations, part):
    code, _, err = sdg("data", "split", "ann.jsonl", "--out", "splits", "--part", part)
    assert code == 2
    assert "is not NAME=SHARE, such as test=0.04." in err


def test_a_part_that_is_given_twice_is_wrong_usage(sdg, tmp_path, annotations):
    parts = ("--part", "train=8", "--part", "test=2", "--part", "train=1")
    code, _, err = sdg("data", "split", "ann.jsonl", "--out", "splits", *parts)
    assert code == 2
    assert "A split is given twice; give each once." in err
    assert not (tmp_path / "splits").exists()


def test_convert_goes_there_and_back(sdg, tmp_path, annotations):
    steps = [
        ("ann.jsonl", "a.jsonl", "--to", "sdg"),
        ("a.jsonl", "b.json", "--to", "coco", "--size", "1024x512"),
        ("b.json", "c.json", "--to", "label-studio"),
        ("c.json", "d.jsonl", "--to", "sdg30k"),
    ]
    for step in steps:
        code, out, err = sdg("data", "convert", *step)
        assert (code, out, err) == (0, "", f"Wrote 40 to {step[1]}\n")
    back = [json.loads(line) for line in (tmp_path / "d.jsonl").open()]
    assert back == [line | {"width": 1024, "height": 512} for line in annotations]


def test_convert_puts_images_into_a_dataset_folder_and_back(sdg, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    write_lines(tmp_path / "a.jsonl", LINE)
    assert sdg("data", "convert", "a.jsonl", "hf", "--to", "hf", "--images", "images")[0] == 0
    code, _, err = sdg("data", "convert", "hf", "b.jsonl", "--to", "sdg30k", "--restore-images", "back")
    assert (code, err) == (0, "Wrote 1 to b.jsonl\nPut 1 images into back\n")
    assert json.loads((tmp_path / "b.jsonl").read_text()) == LINE
    assert (tmp_path / "back" / "a.png").is_file()


def test_convert_turns_boxes_only_on_request(sdg, tmp_path):
    write_lines(tmp_path / "a.jsonl", LINE)
    sdg("data", "convert", "a.jsonl", "b.jsonl", "--to", "sdg30k", "--box-order", "yxyx")
    assert json.loads((tmp_path / "b.jsonl").read_text())["ann_translated_bboxes"][0]["box_2d"] == [
        20,
        10,
        40,
        30,
    ]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--to", "coco"), 1, "The size of FLUX.2-dev/0.png in pixels is not known; give the folder"),
        (("--to", "coco", "--size", "1024"), 2, "'1024' is not WIDTHxHEIGHT, such as 1024x1024."),
        (("--to", "coco", "--images", "none"), 2, "'none' does not exist"),
        (("--to", "hf"), 1, "A Hugging Face folder holds the images too; give the folder they are in."),
        (("--to", "sdg", "--blind"), 1, "The format 'sdg' is not blind, only label-studio can be; leave"),
        (("--to", "sdg30k", "--size", "8x8"), 2, "--size is for coco and label-studio; leave it out for"),
        (("--to", "sdg", "--restore-images", "back"), 2, "--restore-images is for a source that is hf"),
        (("--to", "yaml"), 2, "'yaml' is not one of"),
        ((), 2, "Missing option '--to'"),
    ],
)
def test_convert_says_what_it_needs(sdg, tmp_path, annotations, args, code, message):
    exit_code, _, err = sdg("data", "convert", "ann.jsonl", "out", *args)
    assert exit_code == code
    assert message in err
    assert not (tmp_path / "out").exists()


def test_agreement_of_two_files(sdg, tmp_path):
    write_lines(tmp_path / "a.jsonl", LINE, LINE | {"filepath": "b.png"})
    write_lines(tmp_path / "b.jsonl", LINE | {"ann_translated_bboxes": []})
    code, out, err = sdg(
        "data", "agreement", "a.jsonl", "b.jsonl", "--json", "out.json", "--per-image", "images.jsonl"
    )
    assert code == 0
    assert "Second against first" in out
    assert "DetTypeF1" in out
    assert err == "Numbers: out.json\n1 images have no two annotations and are left out.\n"
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["second_against_first"]["metrics"]["artifact"]["BoxRe@0.1"] == 0
    assert document["skipped"] == ["b.png"]
    [row] = map(json.loads, (tmp_path / "images.jsonl").open())
    assert row["artifact"] == {"boxes": [1, 0], "BoxF1@0.1": 0, "BoxF1@0.5": 0}


def test_agreement_of_the_annotators_in_one_file(sdg, tmp_path):
    write_lines(tmp_path / "a.jsonl", LINE | {"annotator": "x"}, LINE | {"annotator": "y"})
    code, out, _ = sdg("data", "agreement", "a.jsonl", "--json", "-")
    assert code == 0
    document = json.loads(out)
    assert document["pairs"] == 1
    assert document["first_against_second"]["metrics"]["artifact"]["BoxF1@0.5"] == 1


def test_agreement_without_a_pair_is_an_error(sdg, annotations):
    code, _, err = sdg("data", "agreement", "ann.jsonl")
    assert (code, err) == (
        1,
        "sdg: No image has annotations by two annotators, so there is no agreement to measure.\n",
    )


def test_agreement_of_three_files_is_wrong_usage(sdg, annotations):
    assert sdg("data", "agreement", *["ann.jsonl"] * 3)[0] == 2


def test_the_commands_load_no_torch(tmp_path):
    write_lines(tmp_path / "a.jsonl", LINE)
    code = (
        "import sys; from sdg.cli import cli\n"
        "cli.main(['data', 'stats', sys.argv[1]], standalone_mode=False)\n"
        "assert not {'torch', 'matplotlib', 'supervision', 'datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.jsonl")], check=True, capture_output=True)


def test_convert_gives_faulty_annotations_back_and_writes_the_others(sdg, tmp_path):
    def annotation(importance, person):
        box = {"x": 10, "y": 20, "width": 20, "height": 20}
        return {
            "completed_by": person,
            "result": [
                {"id": "r", "from_name": "label", "value": box | {"rectanglelabels": ["artifact"]}},
                {"id": "r", "from_name": "importance", "value": {"number": importance}},
            ],
        }

    tasks = [
        {"id": 7, "data": {"image": "a.png"}, "annotations": [annotation(55.5, 3)]},
        {"id": 8, "data": {"image": "b.png"}, "annotations": [annotation(55, 3)]},
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    code, out, err = sdg("data", "convert", "export.json", "ann.jsonl", "--to", "sdg30k")
    lines = [json.loads(line) for line in (tmp_path / "ann.jsonl").read_text().splitlines()]
    assert lines[0]["ann_translated_bboxes"] is None
    assert lines[1]["ann_translated_bboxes"][0]["importance"] == 55
    assert (code, out) == (1, "")
    assert "task 7: Annotation 1 by 3: Region 1: An importance is an integer from 1 to 100, not 55.5." in err
    assert "these go back to their annotators, and all others are written." in err


def test_audit_prints_tables_and_writes_numbers_and_a_page(sdg, tmp_path, annotations):
    for line in annotations:
        (tmp_path / line["filepath"]).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / line["filepath"])
    code, out, _ = sdg("data", "audit", "ann.jsonl", "--images", ".", "--html", "a.html", "--json", "a.json")
    assert code == 0
    assert "Pictures that are alike: 40 (groups: 1)." in out
    found = json.loads((tmp_path / "a.json").read_text())
    assert len(found["duplicates"][0]) == 40
    kinds = {one["kind"] for one in found["findings"]}
    assert kinds == {"duplicates", "figure 3", "reasons", "importance"}
    assert "Pictures that are alike" in (tmp_path / "a.html").read_text()


def test_audit_finds_prompts_in_two_files_of_one_name(sdg, tmp_path, annotations):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "ann.jsonl").write_bytes((tmp_path / "ann.jsonl").read_bytes())
    code, out, _ = sdg("data", "audit", "train/ann.jsonl", "test/ann.jsonl")
    assert code == 0
    assert re.search(
        r"Prompts in several splits: \d+ \(\d+ in test/ann and train/ann\)", " ".join(out.split())
    )


@pytest.mark.parametrize(
    "command",
    [
        ("stats", "ann.jsonl", "--json", "ann.jsonl"),
        ("stats", "ann.jsonl", "--plot", "./ann.jsonl"),
        ("audit", "ann.jsonl", "--json", "ann.jsonl"),
        ("convert", "ann.jsonl", "ann.jsonl", "--to", "predictions"),
        ("agreement", "other.jsonl", "ann.jsonl", "--per-image", "ann.jsonl"),
        ("agreement", "other.jsonl", "ann.jsonl", "--json", "ann.jsonl"),
    ],
    ids=lambda command: " ".join(command[:1] + command[-2:-1]),
)
def test_no_output_takes_the_place_of_an_input(sdg, tmp_path, annotations, command):
    before = (tmp_path / "ann.jsonl").read_bytes()
    (tmp_path / "other.jsonl").write_bytes(before)
    code, out, err = sdg("data", *command)
    assert (code, out) == (1, "")
    assert err.endswith("ann.jsonl is an input, and would be replaced; name another output.\n")
    assert (tmp_path / "ann.jsonl").read_bytes() == before


def test_convert_replaces_data_and_nothing_else(sdg, tmp_path, annotations):
    (tmp_path / "cat.png").write_bytes(b"\x89PNG")
    assert sdg("data", "convert", "ann.jsonl", "cat.png", "--to", "sdg") == (
        1,
        "",
        "sdg: cat.png exists and holds no data of ours; name another file for the data.\n",
    )
    assert (tmp_path / "cat.png").read_bytes() == b"\x89PNG"
    for _ in range(2):
        assert sdg("data", "convert", "ann.jsonl", "a.json", "--to", "label-studio")[0] == 0
