"""Several processes refine one set of pictures: the same files as one, each picture once, no row lost."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import processes
import pytest
from PIL import Image
from servers import pictures, rows

from sdg import Defect, Diagnosis
from sdg.cli import main
from sdg.refinement import EditRequest
from sdg.runs.journal import collect_parts, part_of, parts_of
from sdg.runs.processes import ALONE, Processes

LEVELS = {"a": 250, "b": 40, "c": 200, "d": 90, "e": 130}


def darker(request: EditRequest) -> Image.Image:
    """An editor that says on stderr what it was asked."""
    print(f"edited {request.prompt}", file=sys.stderr)
    return request.picture.point(lambda value: value // 2)


def bright(picture: Image.Image, prompt: str) -> Diagnosis:
    """A detector that finds one defect, as important as the middle of the picture is bright."""
    level = max(picture.getpixel((20, 20)))
    found = (Defect((300, 300, 700, 700), "artifact", "too bright", max(1, level * 100 // 255)),)
    return Diagnosis(found if level else (), "a look")


def command(folder: Path, out: str, *more: str) -> list[str]:
    return [
        "refine", str(folder / "in.jsonl"), "--detector", f"python:{__name__}.bright", "--editor",
        f"python:{__name__}.darker", "--rounds", "2", "--out", str(folder / out), *more,
    ]  # fmt: skip


def alone(words: Sequence[str]) -> tuple[int, str]:
    """Exit code and stderr of one process."""
    done = processes.run(*words)
    return done.returncode, done.stderr


def together(words: Sequence[str]) -> tuple[int, str]:
    """Exit code and stderr of two processes."""
    with tempfile.TemporaryDirectory() as place:
        stderr = Path(place) / "stderr"
        process = processes.torchrun(lambda: main(list(words)), stderr=stderr)
        process.join()
        return process.exitcode or 0, stderr.read_text()


def test_two_processes_leave_what_one_leaves(tmp_path: Path) -> None:
    pictures(tmp_path, **LEVELS)
    code, said = together(command(tmp_path, "two"))
    assert code == 0, said
    assert said.count("(0 left)") == 2  # each had a share
    assert said.count("(2 left)") == said.count("5 images: ") == 1
    assert alone(command(tmp_path, "one"))[0] == 0
    assert rows(tmp_path / "two") == rows(tmp_path / "one")
    names = [
        sorted(str(file.relative_to(tmp_path / out)) for file in (tmp_path / out).rglob("*"))
        for out in ("one", "two")
    ]
    assert names[0] == names[1]  # no journal and no lock is left
    for name in (tmp_path / "one" / "pictures").iterdir():
        assert Image.open(name).tobytes() == Image.open(tmp_path / "two" / "pictures" / name.name).tobytes()


def test_what_several_processes_had_done_is_kept_by_any_number(tmp_path: Path) -> None:
    pictures(tmp_path, **LEVELS)
    assert alone(command(tmp_path, "out"))[0] == 0
    output = tmp_path / "out" / "refinements.jsonl"
    whole = output.read_text()
    lines = whole.splitlines(keepends=True)
    partial = output.with_name("refinements.jsonl.partial")
    for resume in (alone, together):
        # As a kill leaves three processes: the main one had nothing yet, the last was writing.
        output.unlink()
        part_of(partial, 1).write_text(lines[1])
        part_of(partial, 2).write_text(lines[2] + lines[4] + lines[0][:30])
        assert "exists already; go on with --resume" in alone(command(tmp_path, "out"))[1]
        code, said = resume(command(tmp_path, "out", "--resume"))
        assert code == 0, said
        assert output.read_text() == whole
        assert parts_of(partial) == []
        assert [said.count(f"edited of {name}") > 0 for name in "abcde"] == [True, False, False, True, False]


def test_several_processes_refuse_in_a_sentence_and_change_nothing(tmp_path: Path) -> None:
    pictures(tmp_path, **LEVELS)
    assert alone(command(tmp_path, "out"))[0] == 0
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    code, said = together(command(tmp_path, "out"))
    assert code != 0
    # torchrun may end one before it has said so, too.
    assert "sdg: " in said
    assert "exists already; go on with --resume" in said
    assert before == {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_all_of_the_work_once(count: int) -> None:
    work = list(range(10))
    shares = [Processes(rank, count).share(work) for rank in range(count)]
    assert sorted(piece for share in shares for piece in share) == work
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert ALONE.share(work) == work


def test_whole_lines_of_parts_are_collected_and_cut_ones_left(tmp_path: Path) -> None:
    path = tmp_path / "a[1].jsonl"  # a name with letters that mean something to a pattern
    path.write_text('{"n": 0}\n')
    part_of(path, 1).write_text('{"n": 1}\n{"n"')
    part_of(path, 12).write_text('{"n": 2}\n')
    (tmp_path / "a1.jsonl-3").write_text('{"n": 3}\n')
    collect_parts(path)
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [0, 1, 2]
    assert parts_of(path) == [path]
    assert (tmp_path / "a1.jsonl-3").exists()
