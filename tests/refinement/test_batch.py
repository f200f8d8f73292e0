"""Batches: one line a picture, nothing lost and nothing done twice, one bad picture costs itself alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import BOX, Brightness, Halver, items
from PIL import Image

from sdg.detectors.bulk import Item
from sdg.errors import SdgError
from sdg.refinement import EditResult
from sdg.refinement.batch import HOPELESS, OUTPUT, Plan, refine_all, write_requests
from sdg.reporting.refinement import read_refinements

SIZE = (32, 32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, colour in {"a": 80, "b": 0, "c": 3, "d": 100, "e": 40, "f": 7}.items():
        Image.new("RGB", SIZE, (colour,) * 3).save(folder / f"{name}.png")
    return folder


def run(source: Path, out: Path, editor=None, **options):
    editor = editor or Halver()
    settings = {"detector": Brightness(), "editor": editor, "plan": Plan("halver"), **options}
    return refine_all(items(source), out, **settings), editor


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / OUTPUT).read_text().splitlines()]


def test_each_picture_has_a_line_that_the_report_reads(source: Path, tmp_path: Path) -> None:
    summary, _ = run(source, tmp_path / "out")
    assert summary.outcomes == {"already clean": 1, "clean": 2, "improved": 3}
    rows = {row["id"]: row for row in lines(tmp_path / "out")}
    assert list(rows) == [f"{name}.png" for name in "abcdef"]
    assert rows["b.png"]["after"] is None
    assert [attempt["severity"] for attempt in rows["a.png"]["attempts"]] == [40, 20, 10]
    assert rows["a.png"]["diagnosis_after"]["defects"][0]["importance"] == 10
    shown = {item.name: item for item in read_refinements(tmp_path / "out" / OUTPUT)}
    assert np.array_equal(np.asarray(Image.open(shown["a.png"].before)), np.full((32, 32, 3), 80))
    assert Image.open(shown["a.png"].after).getpixel((16, 16)) == (10, 10, 10)
    assert shown["a.png"].rounds == 3


def test_pixels_outside_of_the_boxes_are_untouched_and_the_rest_is_counted(source, tmp_path) -> None:
    run(source, tmp_path / "out")
    row = lines(tmp_path / "out")[0]
    after = np.asarray(Image.open(tmp_path / "out" / row["after"])).astype(int)
    x0, y0, x1, y1 = (value * 32 // 1000 for value in BOX)
    outside = np.ones((32, 32), bool)
    outside[y0 - 2 : y1 + 2, x0 - 2 : x1 + 2] = False  # with the soft edge
    assert (after[outside] == 80).all()
    assert row["pixels_changed"] == pytest.approx((after != 80).any(-1).mean())


def test_a_run_that_dies_goes_on_and_ends_as_an_undisturbed_one(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "whole")
    script = str(Path(__file__).with_name("fakes.py"))
    for _ in range(5):
        died = subprocess.run(
            [sys.executable, script, str(source), str(tmp_path / "killed"), "4"], timeout=120, check=False
        )
        if died.returncode == 0:
            break
        assert died.returncode == 9
        assert not (tmp_path / "killed" / OUTPUT).exists()
    assert died.returncode == 0
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    for row in lines(tmp_path / "whole"):
        if row["after"]:
            one, other = ((tmp_path / out / row["after"]).read_bytes() for out in ("whole", "killed"))
            assert one == other


def test_nothing_is_done_twice_and_failures_are_tried_again(source: Path, tmp_path: Path) -> None:
    (source / "g.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8), "gray").save(source / "h.png")
    Image.new("RGB", SIZE, "white").save(source / "i.png")
    Image.new("RGB", SIZE, (50, 90, 0)).save(source / "j.png")
    summary, _ = run(source, tmp_path / "out", Halver())
    errors = {row["id"]: row["error"] for row in summary.failed}
    assert list(errors) == ["g.png", "h.png", "i.png", "j.png"]
    assert "8 × 8" in errors["h.png"]
    assert "could not be diagnosed" in errors["i.png"]
    assert errors["j.png"] == "Refused."
    with pytest.raises(SdgError, match="resume"):
        run(source, tmp_path / "out")
    Image.new("RGB", SIZE, (3, 3, 3)).save(source / "g.png")
    summary, editor = run(source, tmp_path / "out", resume=True)
    assert summary.worked_on == 4
    assert editor.edits == 3  # two halvings of g.png, and j.png, which is refused again
    assert [row["id"] for row in summary.failed] == ["h.png", "i.png", "j.png"]


def test_a_run_of_other_settings_or_pictures_is_refused(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    with pytest.raises(SdgError, match=r"begun with .*rounds 3"):
        run(source, tmp_path / "out", plan=Plan("halver", rounds=2), resume=True)
    (source / "a.png").unlink()
    with pytest.raises(SdgError, match="1 pictures that are not given now"):
        run(source, tmp_path / "out", resume=True)


def test_an_editor_that_is_down_ends_the_run_and_what_was_done_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(HOPELESS + 3):
        colour = (40, 40, 40) if number == 0 else (40, 90, 0)
        Image.new("RGB", SIZE, colour).save(source / f"{number:02}.png")
    with pytest.raises(SdgError, match=r"8 pictures in a row could not be edited, .*Refused\. .*--resume"):
        run(source, tmp_path / "out")

    class Back(Halver):
        def _one(self, request):
            self.edits += 1
            return EditResult(Image.new("RGB", request.picture.size))

    summary, _ = run(source, tmp_path / "out", Back(), resume=True)
    assert summary.worked_on == HOPELESS + 2
    assert not summary.failed


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_done(source, tmp_path) -> None:
    (tmp_path / "out").write_text("a file")
    editor = Halver()
    with pytest.raises(SdgError, match="cannot be written"):
        run(source, tmp_path / "out", editor)
    assert editor.edits == 0


def test_names_of_pictures_choose_no_path(source: Path, tmp_path: Path) -> None:
    strange = [Item("../../../evil\n.png", "a cup", source / "a.png")]
    refine_all(strange, tmp_path / "x" / "out", detector=Brightness(), editor=Halver(), plan=Plan("halver"))
    written = {file.relative_to(tmp_path).parts[:2] for file in tmp_path.rglob("*.png")}
    assert {parts[0] for parts in written} == {"in", "x"}


def test_requests_are_built_and_nothing_is_sent(source: Path, tmp_path: Path) -> None:
    found = {
        item.filepath: request
        for item, request in write_requests(
            items(source), tmp_path, detector=Brightness(), plan=Plan("halver")
        )
    }
    assert found["b.png"] == "It is clean."
    assert sorted(file.name for file in found["a.png"].iterdir()) == [
        "instruction.txt",
        "marked.png",
        "mask.png",
        "picture.png",
    ]
    assert "too bright" in (found["a.png"] / "instruction.txt").read_text()
    mask = np.asarray(Image.open(found["a.png"] / "mask.png"))
    assert mask[16, 16] == 255
    assert mask[0, 0] == 0
