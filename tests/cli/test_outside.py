"""No path of a data file has a command read what lies outside of the images' folder, unless it may."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sdg.cli import main
from sdg.io.paths import real_path

OPENED: list[str] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.link", "os.symlink", "shutil.copyfile") and not isinstance(arguments[0], int):
        OPENED.append(os.fsdecode(arguments[0]))  # type: ignore[arg-type]


sys.addaudithook(_note)

Run = Callable[..., tuple[int, str, str]]
WAYS = (
    "{here}/secret/b.png",
    "../secret/b.png",
    "link.png",
    "linked/b.png",
    "x/../../secret/b.png",
    "../IMAGES/b.png",
)
COMMANDS = {
    "diagnose": "diagnose images/rows.jsonl --detector replay:rows.jsonl --out f.jsonl --overlays drawn",
    "diagnose --images": "diagnose rows.jsonl --images images --detector replay:rows.jsonl --out f.jsonl",
    "refine": "refine images/rows.jsonl --detector replay:rows.jsonl --editor python:json.dumps --out n",
    "report": "report --diagnoses rows.jsonl --images images --out page.html",
    "report: before": "report --refinements before --images images --out page.html",
    "report: after": "report --refinements after --images images --out page.html",
    "study": "study make --a a=images/rows.jsonl --b b=images/good.jsonl --out study",
    "study: before": "study make --a a=before --b b=images/good.jsonl --images images --out study",
    "study: after": "study make --a a=images/good.jsonl --b b=after --images images --out study",
    "hf": "data convert rows.jsonl set --to hf --images images",
    "coco": "data convert rows.jsonl coco.json --to coco --images images",
    "validate": "data validate rows.jsonl --images images",
    "label-studio": "data convert truth.jsonl f.jsonl --to label-studio --images images",
    "audit": "data audit truth.jsonl --images images --html page.html",
    "enrich": "data enrich truth.jsonl --images images --teacher testbed --dry-run --out f.jsonl",
    "annotate page": "annotate page images/rows.jsonl --out page.html",
    "table2": "bench table2 --truth truth.jsonl --images images --detector b=replay:rows.jsonl --out n",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `sdg …` in a folder with images/, secret/ and IMAGES/; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for number, folder in enumerate(("images", "secret", "IMAGES")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 30), (90 * number, 7, 7)).save(
            tmp_path / folder / f"{'b' if number else 'a'}.png"
        )
    (tmp_path / "images" / "x").mkdir()
    (tmp_path / "images" / "link.png").symlink_to("../secret/b.png")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "secret")

    def call(command: str, *more: str) -> tuple[int, str, str]:
        OPENED.clear()
        try:
            main([*command.split(), *more])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return call


def name(folder: Path, path: str) -> None:
    """Data files of every kind that name this path, a good one before it."""
    rows = [{"filepath": one, "caption": "a cup", "response": "[]"} for one in ("a.png", path)]
    truth = [{"filepath": row["filepath"], "caption": "a cup", "ann_translated_bboxes": []} for row in rows]
    (folder / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth))
    for place in (folder, folder / "images"):
        (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    good = {"filepath": "a.png", "caption": "a cup"}
    (folder / "images" / "good.jsonl").write_text(json.dumps(good))
    place = path if path.startswith("/") else f"../images/{path}"
    for key, other in (("before", "after"), ("after", "before")):
        (folder / key).mkdir()
        row = {"id": "a.png", "prompt": "a cup", key: place, other: None, "status": "clean"}
        if key == "after":
            row["before"] = "../images/a.png"
        (folder / key / "refinements.jsonl").write_text(json.dumps(row))


def read_outside(folder: Path) -> list[str]:
    """What was opened in, linked to or copied from secret/ and IMAGES/."""
    secret = {real_path(folder / one) for one in ("secret", "IMAGES")}
    return [one for one in OPENED if real_path(one).parent in secret]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_leaves_the_folder_is_refused_in_a_sentence_and_not_read(
    run: Run, tmp_path: Path, command: str, way: str
) -> None:
    name(tmp_path, way.format(here=tmp_path))
    code, out, err = run(COMMANDS[command])
    assert code == 1, err
    said = [line for line in f"{out}{err}".splitlines() if "leaves the folder" in line]
    assert len(said) == 1, f"{out}{err}"
    assert "--allow-outside" in said[0]
    assert read_outside(tmp_path) == []
    assert not {"set", "coco.json", "page.html", "study", "f.jsonl", "n"} & {
        one.name for one in tmp_path.iterdir()
    }


@pytest.mark.parametrize(
    "command", [name for name in COMMANDS if name not in ("refine", "study", "diagnose --images", "table2")]
)
def test_allow_outside_reads_it(run: Run, tmp_path: Path, command: str) -> None:
    name(tmp_path, "../secret/b.png")
    code, _, err = run(COMMANDS[command], "--allow-outside")
    assert code == 0, err
    assert read_outside(tmp_path)


def test_an_evaluation_says_so_in_place_of_the_picture(run: Run, tmp_path: Path) -> None:
    truth = {"box_2d": [1, 2, 300, 400], "label": "artifact", "description": "the cup melts"}
    for file, response in (("truth.jsonl", json.dumps([truth])), ("found.jsonl", "[]")):
        row = {"filepath": "link.png", "caption": "a cup", "response": response}
        (tmp_path / file).write_text(json.dumps(row))
    command = (
        "evaluate --truth truth.jsonl --predictions found.jsonl --bootstrap 0 --images images --html p.html"
    )
    assert run(command)[0] == 0
    assert "leaves the folder" in (tmp_path / "p.html").read_text(encoding="utf-8")
    assert read_outside(tmp_path) == []
    assert run(command, "--allow-outside")[0] == 0
    assert read_outside(tmp_path)


def test_a_data_set_never_holds_a_file_of_the_system(run: Run, tmp_path: Path) -> None:
    links = Path("/etc/passwd").stat().st_nlink
    name(tmp_path, "/etc/passwd")
    code, _, err = run(COMMANDS["hf"])
    assert (code, err.count("\n")) == (1, 1)
    assert "/etc/passwd leaves the folder images;" in err
    assert not (tmp_path / "set").exists()
    assert Path("/etc/passwd").stat().st_nlink == links
    assert "/etc/passwd" not in OPENED


@pytest.mark.parametrize("what", [what for what, words in COMMANDS.items() if "--images" in words])
def test_a_folder_of_pictures_that_is_not_there_ends_a_command_before_anything_is_asked(
    run: Run, tmp_path: Path, what: str
) -> None:
    before = sorted(tmp_path.iterdir())
    code, out, err = run(COMMANDS[what].replace("--images images", "--images nowhere"))
    assert code in (1, 2)
    assert out == ""
    assert ("nowhere is not a folder" if what.startswith("report") else "'nowhere' does not exist") in err
    assert sorted(tmp_path.iterdir()) == before


def test_pictures_of_a_data_set_are_copies(run: Run, tmp_path: Path) -> None:
    name(tmp_path, "../secret/b.png")
    assert run(COMMANDS["hf"], "--allow-outside")[0] == 0
    written = sorted((tmp_path / "set" / "train").glob("*.png"))
    assert [file.read_bytes() for file in written] == [
        (tmp_path / name).read_bytes() for name in ("images/a.png", "secret/b.png")
    ]
    assert {file.stat().st_nlink for file in written} == {1}
    assert not any(file.is_symlink() for file in written)


@pytest.mark.parametrize("given", ["images", "{here}/images"])
def test_what_diagnose_wrote_is_read_back_with_its_folder(run: Run, tmp_path: Path, given: str) -> None:
    given = given.format(here=tmp_path)
    (tmp_path / "images" / "link.png").unlink()
    (tmp_path / "images" / "linked").unlink()
    (tmp_path / "stored.jsonl").write_text(
        json.dumps({"filepath": "a.png", "caption": "a cup", "response": "[]"})
    )
    (tmp_path / "elsewhere").mkdir()
    found = "elsewhere/found.jsonl"
    code, _, err = run(f"diagnose {given} --prompt cup --detector replay:stored.jsonl --out {found}")
    assert code == 0, err
    images = given if given.startswith("/") else "."
    for command in (
        f"report --diagnoses {found} --images {images} --out page.html",
        f"data validate {found} --images {images}",
        f"data convert {found} set --to hf --images {images}",
        f"diagnose {found} --images {images} --detector replay:{found} --out again.jsonl --overlays drawn",
    ):
        code, out, err = run(command)
        assert code == 0, f"{command}: {out}{err}"
    assert (tmp_path / "set" / "train" / "00000001.png").read_bytes() == (
        tmp_path / "images" / "a.png"
    ).read_bytes()
