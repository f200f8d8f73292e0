"""`sdg diagnose`: what it prints where, what it writes, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import sdg
from sdg import Defect, Diagnosis
from sdg.cli import main
from sdg.errors import SdgError
from sdg.io.jsonl import read_objects
from sdg.runs.merge import merge

FOUND = Diagnosis((Defect((10, 20, 300, 400), "artifact", "the cup melts", 60),), "a cup")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stored = []
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (40, 40), "green").save(tmp_path / name)
        stored.append({"filepath": name, "caption": f"of {name}", "response": sdg.render_response(FOUND)})
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in stored))
    stored[1] = {"filepath": "b.png", "caption": "of b.png", "response": None, "error": "It was late."}
    (tmp_path / "stored.jsonl").write_text("\n".join(json.dumps(row) for row in stored))
    return tmp_path


def diagnose(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdg", "diagnose", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_single_image_is_printed_as_json_and_nothing_else(folder: Path) -> None:
    done = diagnose(folder, "a.png", "--prompt", "a cup", "--detector", "replay:stored.jsonl")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "filepath": "a.png",
        "caption": "a cup",
        "status": "ok",
        "defects": [
            {
                "box_2d": [10, 20, 300, 400],
                "label": "artifact",
                "description": "the cup melts",
                "importance": 60,
            }
        ],
        "reasoning": "a cup",
    }
    assert done.stderr == ""


def test_a_single_image_without_an_answer_is_an_error_in_one_sentence(folder: Path) -> None:
    done = diagnose(folder, "b.png", "--prompt", "a cup", "--detector", "replay:stored.jsonl")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "sdg: b.png could not be diagnosed: It was late.\n"


def test_answers_that_cannot_be_read_are_told_of_and_are_not_clean(folder: Path) -> None:
    rows = [{"filepath": n, "caption": "a cup", "response": "It looks great."} for n in ("a.png", "b.png")]
    (folder / "prose.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["--prompt", "a cup", "--detector", "replay:prose.jsonl"]
    one = diagnose(folder, "a.png", *command)
    printed = json.loads(one.stdout)
    assert (printed["status"], printed["defects"]) == ("unparseable", None)
    assert printed["response"] == "It looks great."
    assert "1 of 1 answers could not be read" in one.stderr
    two = diagnose(folder, "a.png", "b.png", *command, "--out", "out.jsonl")
    assert "2 of 2 answers could not be read (status unparseable)" in two.stderr


@pytest.mark.parametrize("name", ["in.jsonl", "a.png", "out.jsonl"])
def test_a_page_takes_the_place_of_a_page_alone(folder: Path, name: str) -> None:
    (folder / "page.html").write_text("<!DOCTYPE html>earlier")
    command = ["in.jsonl", "--detector", "replay:stored.jsonl", "--out", "out.jsonl", "--html"]
    inputs = {file: file.read_bytes() for file in folder.iterdir()}
    refused = diagnose(folder, *command, name)
    assert refused.returncode == 1
    assert f"sdg: {name} exists and is no page; name another file for the page." in refused.stderr
    assert all(file.read_bytes() == content for file, content in inputs.items())
    if name == "out.jsonl":  # which was written before the page
        assert len(list(read_objects(folder / name))) == 3
    else:
        assert not (folder / "out.jsonl").exists()
    again = diagnose(folder, *command, "page.html", "--resume")
    assert "Report: page.html" in again.stderr
    assert "earlier" not in (folder / "page.html").read_text()


def test_a_bulk_run_writes_its_output_and_overlays_and_tells_of_failures(folder: Path) -> None:
    arguments = ["in.jsonl", "--detector", "replay:stored.jsonl", "--out", "out.jsonl", "--overlays", "drawn"]
    done = diagnose(folder, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "3 images in out.jsonl, 3 of them asked for now." in done.stderr
    assert "2 overlays in drawn." in done.stderr
    assert "sdg: 1 of 3 images got no answer" in done.stderr
    assert "b.png: It was late." in done.stderr
    assert "Traceback" not in done.stderr
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert sorted(path.name for path in (folder / "drawn").iterdir()) == ["a.png", "c.png"]

    refused = diagnose(folder, *arguments)
    assert refused.returncode == 1
    assert "out.jsonl exists already; go on with --resume" in refused.stderr

    whole = (folder / "in.jsonl").read_text()
    (folder / "stored.jsonl").write_text(whole)
    resumed = diagnose(folder, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "3 images in out.jsonl, 1 of them asked for now." in resumed.stderr
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [(row["filepath"], row["status"]) for row in rows] == [
        ("a.png", "ok"),
        ("b.png", "ok"),
        ("c.png", "ok"),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Missing argument"),
        (["a.png", "b.png", "--prompt", "x"], "These are 2 images; name the file to write with --out."),
        (["a.png", "--prompt", "x", "--prompts", "in.jsonl"], "Give --prompt or --prompts, not both."),
        (["a.png", "--prompt", "x", "--resume"], "--resume needs the --out"),
        (["a.png", "--prompt", "x", "--batch-size", "0"], "'--batch-size'"),
    ],
)
def test_wrong_usage_ends_with_2(folder: Path, arguments: list[str], sentence: str) -> None:
    done = diagnose(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.png"], "sdg: a.png has no prompt; give it with --prompt, or a file of them with --prompts.\n"),
        (
            ["z.png", "--prompt", "x"],
            "sdg: z.png does not exist; give images, folders of images, JSON Lines or Parquet files.",
        ),
        (
            ["a.png", "--prompt", "x", "--detector", "relay:x"],
            "sdg: 'relay:x' is no detector; did you mean 'replay'?",
        ),
        (
            ["a.png", "--prompt", "x", "--detector", "replay:stored.jsonl", "--device", "cpu"],
            "sdg: The replay detector has no option 'device'",
        ),
    ],
)
def test_a_bad_argument_is_one_sentence(folder: Path, arguments: list[str], sentence: str) -> None:
    done = diagnose(folder, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


def test_a_run_that_is_interrupted_says_how_to_go_on(folder: Path) -> None:
    code = (
        "import sdg.detectors.bulk as bulk\n"
        "from sdg.cli import main\n"
        "def interrupted(*given, **named): raise KeyboardInterrupt\n"
        "bulk.run = interrupted\n"
        "main(['diagnose', 'in.jsonl', '--detector', 'replay:stored.jsonl', '--out', 'out.jsonl'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "go on with --resume --out out.jsonl." in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_an_example(folder: Path) -> None:
    done = diagnose(folder, "--help")
    assert done.returncode == 0
    assert 'sdg diagnose cat.png --prompt "a cat on a red chair"' in done.stdout


def test_shards_of_parquet_are_merged_into_what_one_run_writes(folder: Path) -> None:
    pictures = [(folder / name).read_bytes() for name in ("a.png", "b.png", "c.png")]
    names = ["a.png", "b.png", "c.png"]
    table = pa.table({"image": pictures, "filepath": names, "caption": [f"of {name}" for name in names]})
    pq.write_table(table, folder / "in.parquet", row_group_size=2)
    command = ["in.parquet", "--detector", "replay:stored.jsonl", "--html", "page.html", "--out"]
    whole = diagnose(folder, *command, "whole.jsonl", "--overlays", "drawn")
    assert "1 of 3 images got no answer" in whole.stderr
    assert sorted(path.name for path in (folder / "drawn").iterdir()) == ["a.png", "c.png"]
    assert (folder / "page.html").read_text().count("data:image/") == 3
    for part in ("1/2", "2/2"):
        done = diagnose(folder, *command, "found", "--shard", part)
        assert done.returncode == (1 if part == "1/2" else 0)
    parts = [f"found/part-0000{number}-of-00002.parquet" for number in (1, 2)]
    assert [pq.read_metadata(folder / part).num_rows for part in parts] == [2, 1]
    with pytest.raises(SdgError, match="2 is missing"):
        merge([folder / parts[0]], folder / "merged.jsonl")
    merged = merge([folder / part for part in parts], folder / "merged.jsonl")
    assert (merged.lines, merged.failed) == (3, 1)
    assert (folder / "merged.jsonl").read_text() == (folder / "whole.jsonl").read_text()
    for pattern, code in (("i*.parquet", 0), ("no*.parquet", 1)):
        out = str(folder / f"by-{code}.jsonl")
        arguments = [*(str(folder / part) for part in parts), "--out", out]
        with pytest.raises(SystemExit) as stopped:
            main(["data", "merge", *arguments, "--inputs", str(folder / pattern)])
        assert stopped.value.code == code, pattern


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b"])
def test_a_shard_is_a_part_of_the_whole(folder: Path, text: str) -> None:
    done = diagnose(folder, "in.jsonl", "--out", "out", "--shard", text)
    assert (done.returncode, "is not K/N with K from 1 to N" in done.stderr) == (2, True)
