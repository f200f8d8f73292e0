"""Batches: one line a picture, nothing lost and nothing done twice, one bad picture costs itself alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from fakes import BOX, Brightness, Halver, items
from PIL import Image

from sdg.defects import DROPPED_ITEM, Diagnosis, Status
from sdg.detectors.replay import ReplayDetector
from sdg.errors import SdgError
from sdg.refinement import EditResult
from sdg.refinement.batch import OUTPUT, Plan, is_output, refine_all
from sdg.refinement.sources import CHUNK, FATAL_ERRORS, read_sources
from sdg.reporting.refinement import read_refinements
from sdg.runs.inputs import Item

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
    shown = {item.name: item for item in read_refinements(tmp_path / "out" / OUTPUT, [source])}
    assert np.array_equal(np.asarray(Image.open(shown["a.png"].before)), np.full((32, 32, 3), 80))
    assert Image.open(shown["a.png"].after).getpixel((16, 16)) == (10, 10, 10)
    assert shown["a.png"].rounds == 3


def test_a_detector_of_stored_answers_is_refused_before_an_edit_is_paid_for(
    source: Path, tmp_path: Path
) -> None:
    stored = tmp_path / "in.jsonl"
    stored.write_text('{"filepath": "a.png", "response": "[]"}\n')
    with pytest.raises(
        SdgError, match="it cannot diagnose an edit; name one that looks at pictures, or take"
    ):
        run(source, tmp_path / "out", detector=ReplayDetector(stored))
    assert not (tmp_path / "out").exists()


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
    script = str(Path(__file__).parents[1] / "helpers" / "fakes.py")
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


def test_a_resumed_run_asks_the_detector_in_the_batches_of_an_undisturbed_one(tmp_path: Path) -> None:
    class Recording(Brightness):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[tuple[list[str], list[int]]] = []

        def stream(self, pairs, wanted=None):
            if wanted is not None:  # a first look; edits are judged without
                self.asked.append(([Path(image).name for image, _ in pairs], sorted(wanted)))
            yield from super().stream(pairs, wanted)

    def stop(row, left):
        if left == CHUNK + 1:
            raise KeyboardInterrupt

    source = pictures(tmp_path / "in", *[FINE] * (CHUNK + 4))
    (source / "01.png").write_bytes(b"no picture")
    names = [f"{number:02}.png" for number in range(CHUNK + 4)]
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", on_result=stop)
    again = Recording()
    run(source, tmp_path / "out", detector=again, resume=True)
    assert again.asked == [(names[:CHUNK], list(range(3, CHUNK))), (names[CHUNK:], list(range(4)))]


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
    assert editor.edits == 3  # two halvings of g.png, and j.png, which is refused again
    assert [row["id"] for row in summary.failed] == ["h.png", "i.png", "j.png"]


def test_an_editor_that_dies_after_the_first_round_is_said_and_asked_again(tmp_path: Path) -> None:
    class Dies(Halver):
        """Keeps dark pictures as they are, and has one edit for each of two pictures."""

        def _one(self, request) -> EditResult:
            level = request.picture.getpixel((16, 16))[0]
            if self.edits == 2 or level == 40:
                return EditResult(None, "The server answered 503.")
            self.edits += 1
            return EditResult(Image.new("RGB", SIZE, (40,) * 3 if level == 80 else (7,) * 3))

    source = tmp_path / "in"
    source.mkdir()
    for name, level in {"a": 80, "b": 7}.items():
        Image.new("RGB", SIZE, (level,) * 3).save(source / f"{name}.png")
    summary, _ = run(source, tmp_path / "out", Dies())
    assert summary.outcomes == {"improved": 1, "failed": 1}
    gained, lost = lines(tmp_path / "out")
    assert gained["stopped"] == lost["error"] == "The server answered 503."
    first, second = read_refinements(tmp_path / "out" / OUTPUT, [source])
    assert first.error == second.error == "The server answered 503."
    summary, editor = run(source, tmp_path / "out", resume=True)
    assert (summary.outcomes, editor.edits) == ({"improved": 1, "clean": 1}, 3)


def test_a_run_of_other_settings_or_pictures_is_refused(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    with pytest.raises(SdgError, match=r"plan\.rounds was 3 and is 2 now"):
        run(source, tmp_path / "out", plan=Plan("halver", rounds=2), resume=True)
    (source / "a.png").unlink()
    with pytest.raises(SdgError, match="1 pictures that are not given now"):
        run(source, tmp_path / "out", resume=True)


def test_an_api_edits_several_pictures_at_once_and_the_file_is_in_their_order(source, tmp_path) -> None:
    class Pairwise(Halver):
        meeting = threading.Barrier(2, timeout=60)

        def edit(self, requests):
            self.meeting.wait()  # one picture after the other would wait here in vain
            return super().edit(requests)

    for name in "bcf":
        (source / f"{name}.png").unlink()
    Image.new("RGB", SIZE, (60, 60, 60)).save(source / "e.png")
    Image.new("RGB", SIZE, (90, 90, 90)).save(source / "f.png")
    seen: list[int] = []
    run(source, tmp_path / "api", Pairwise(concurrency=2), on_result=lambda _, left: seen.append(left))
    run(source, tmp_path / "local", Halver())
    assert seen == [3, 2, 1, 0]
    assert (tmp_path / "api" / OUTPUT).read_bytes() == (tmp_path / "local" / OUTPUT).read_bytes()


def test_a_pipeline_edits_one_picture_at_a_time_in_the_callers_thread(source, tmp_path) -> None:
    threads = set()

    class Local(Halver):
        def edit(self, requests):
            threads.add(threading.current_thread())
            return super().edit(requests)

    run(source, tmp_path / "out", Local())
    assert threads == {threading.current_thread()}


def test_a_fault_of_ours_in_a_thread_is_raised(source: Path, tmp_path: Path) -> None:
    class Broken(Halver):
        def edit(self, requests):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(source, tmp_path / "out", Broken(concurrency=2))


def pictures(folder: Path, *colours: tuple[int, int, int]) -> Path:
    folder.mkdir()
    for number, colour in enumerate(colours):
        Image.new("RGB", SIZE, colour).save(folder / f"{number:02}.png")
    return folder


FINE, REFUSED, UNANSWERED, CLEAN = (40, 40, 40), (40, 90, 0), (255, 255, 255), (0, 0, 0)


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(
    ("colour", "sentence"),
    [
        (REFUSED, r"^8 pictures in a row could not be edited, the last because: Refused\. .*--resume"),
        (
            UNANSWERED,
            r"^8 pictures in a row could not be diagnosed, the last because: .*Too bright.*--resume",
        ),
    ],
)
def test_an_editor_or_detector_that_is_down_ends_the_run_and_what_was_done_is_kept(
    tmp_path: Path, concurrency: int, colour: tuple, sentence: str
) -> None:
    source = pictures(tmp_path / "in", FINE, *[colour] * 3 * FATAL_ERRORS)
    rows = []
    with pytest.raises(SdgError, match=sentence):
        run(
            source,
            tmp_path / "out",
            Halver(concurrency=concurrency),
            on_result=lambda row, _: rows.append(row),
        )
    # With two at a time the one that works may end among the others, and they are counted anew.
    assert len(rows) == FATAL_ERRORS + 1 if concurrency == 1 else len(rows) <= 2 * FATAL_ERRORS

    class Back(Halver):
        def _one(self, request):
            return EditResult(Image.new("RGB", request.picture.size))

    for file in source.iterdir():
        if colour == UNANSWERED:
            Image.new("RGB", SIZE, FINE).save(file)
    again: list[dict] = []
    summary, _ = run(
        source, tmp_path / "out", Back(), resume=True, on_result=lambda row, _: again.append(row)
    )
    assert summary.failed == ()
    assert summary.pictures == 3 * FATAL_ERRORS + 1
    assert len(again) == summary.pictures - sum(row["status"] == "improved" for row in rows)


def test_clean_and_unreadable_pictures_say_nothing_about_an_editor_that_is_down(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", *[REFUSED, CLEAN] * FATAL_ERRORS, REFUSED)
    (source / "05.png").write_bytes(b"no picture")
    with pytest.raises(SdgError, match="could not be edited"):
        run(source, tmp_path / "out")


def test_failures_between_successes_end_no_run(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", *[REFUSED, UNANSWERED, FINE] * (FATAL_ERRORS + 1))
    summary, _ = run(source, tmp_path / "out")
    assert len(summary.failed) == 2 * (FATAL_ERRORS + 1)


def test_pictures_that_always_fail_do_not_bar_the_way_of_a_resumed_run(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", *[REFUSED] * (FATAL_ERRORS + 1), *[FINE] * 3)
    with pytest.raises(SdgError, match="in a row"):
        run(source, tmp_path / "out")
    summary, _ = run(source, tmp_path / "out", resume=True)
    assert summary.outcomes == {"failed": FATAL_ERRORS + 1, "improved": 3}


def test_a_detector_that_dies_while_edits_are_judged_ends_the_run(tmp_path: Path) -> None:
    class Dazzling(Halver):
        def _one(self, request):
            return EditResult(Image.new("RGB", request.picture.size, UNANSWERED))

    source = pictures(tmp_path / "in", *[FINE] * (FATAL_ERRORS + 1))
    with pytest.raises(SdgError, match="could not be diagnosed, the last because: No edit of the round"):
        run(source, tmp_path / "out", Dazzling())


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


def test_lost_items_are_not_forgotten_in_the_file(tmp_path: Path) -> None:
    class Lossy(Brightness):
        def _answer(self, image):
            return Diagnosis(repairs=(DROPPED_ITEM,), status=Status.REPAIRED)

    run(pictures(tmp_path / "in", (80, 80, 80)), tmp_path / "out", detector=Lossy())
    (shown,) = read_refinements(tmp_path / "out" / OUTPUT, [tmp_path / "in"])
    assert shown.status == "failed"
    assert shown.found_before is not None
    assert not shown.found_before.is_clean


def test_the_way_to_an_input_is_right_where_out_lies_behind_a_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "far" / "away")
    run(source, tmp_path / "runs" / "out")
    for item in read_refinements(tmp_path / "runs" / "out" / OUTPUT, [source]):
        assert Path(item.before).samefile(source / item.name)


def test_what_a_run_wrote_is_told_from_its_inputs(tmp_path: Path) -> None:
    for name in ("pictures/0123456789abcdef.png", "requests/0123456789abcdef/marked.png"):
        assert is_output(tmp_path / "out" / name, tmp_path / "out")
        assert is_output(tmp_path / "in" / ".." / "out" / name, tmp_path / "out")
        assert not is_output(tmp_path / name, tmp_path / "out")
    for name in ("pictures/a.png", "0123456789abcdef.png", "pictures/more/0123456789abcdef.png"):
        assert not is_output(tmp_path / "out" / name, tmp_path / "out")


def test_a_stored_answer_that_may_be_of_two_of_many_pictures_is_of_none(
    tmp_path: Path,
) -> None:
    stored = tmp_path / "in.jsonl"
    names = [f"{number:02}.png" for number in range(CHUNK)]
    stored.write_text(
        "".join(json.dumps({"filepath": name, "caption": "a cup", "response": "[]"}) + "\n" for name in names)
    )
    for folder in ("a", "b"):
        pictures(tmp_path / folder, *[(9, 9, 9)] * CHUNK)
    files = [tmp_path / folder / name for folder in ("a", "b") for name in names]
    both = [Item(str(file), "a cup", file) for file in files]
    errors = [one.error for chunk in read_sources(both, ReplayDetector(stored)) for one in chunk]
    assert len(errors) == 2 * CHUNK
    assert all("More than one image here may be" in error for error in errors)
    assert not any(one.error for chunk in read_sources(both[:CHUNK], ReplayDetector(stored)) for one in chunk)
