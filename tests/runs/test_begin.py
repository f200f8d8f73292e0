"""How runs begin: one of two goes on, work is never overwritten, and a refusal names what differs."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import processes
import pytest

from sdg.errors import SdgError
from sdg.runs.begin import begin, leaves, lock_of, require_free


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_run_holds_its_settings_and_leaves_no_lock(tmp_path: Path) -> None:
    out, manifest = tmp_path / "deep" / "run", tmp_path / "deep" / "run" / "manifest.json"
    with begin(out, manifest, {"seed": 1}, notes={"host": "here"}) as begun:
        assert not begun
        assert names(out) == ["manifest.json", "manifest.lock"]
    assert names(out) == ["manifest.json"]
    written = json.loads(manifest.read_text())
    assert (written["seed"], written["host"]) == (1, "here")
    assert "version" in written


def test_what_a_run_made_is_gone_on_with_only_where_that_is_asked_for(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    with begin(tmp_path, manifest, {"seed": 1}):
        pass
    with begin(tmp_path, manifest, {"seed": 2}) as begun:  # nothing was made yet, so nothing is lost
        assert not begun
        (tmp_path / "result").write_text("work")
    for check in (lambda: begin(tmp_path, manifest, {"seed": 2}).__enter__(), lambda: require(tmp_path)):
        with pytest.raises(SdgError, match="exists already; go on with --resume"):
            check()
    with begin(tmp_path, manifest, {"seed": 2}, resume=True) as begun:
        assert begun
    assert names(tmp_path) == ["manifest.json", "result"]


def require(folder: Path) -> None:
    require_free(folder, folder / "manifest.json", resume=False)


def test_only_work_that_is_named_is_in_the_way(tmp_path: Path) -> None:
    manifest, work = tmp_path / "manifest.json", [tmp_path / "rows", tmp_path / "folder"]
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "rows").touch()
    (tmp_path / "folder").mkdir()
    with begin(tmp_path, manifest, {}, work=work) as begun:
        assert not begun
        (tmp_path / "folder" / "one").touch()
    with pytest.raises(SdgError, match="exists already"), begin(tmp_path, manifest, {}, work=work):
        pass
    manifest.unlink()
    with pytest.raises(SdgError, match=r"no manifest\.json, so it cannot"), begin(tmp_path, manifest, {}):
        pass


def test_other_settings_are_refused_by_their_names(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    settings = {"recipe": {"a": 1, "list": [1, 2], "free": {"x": 1}}, "seed": 0}
    with begin(tmp_path, manifest, settings, notes={"host": "one"}):
        (tmp_path / "result").touch()
    before = manifest.read_bytes()
    other = {"recipe": {"a": 2, "list": [1, 3], "free": {"x": 9}}, "seed": 0}
    options = {"notes": {"host": "two"}, "resume": True, "free": ["recipe.free"]}
    with pytest.raises(SdgError) as refused, begin(tmp_path, manifest, other, **options):
        pass
    assert str(refused.value) == (
        f"{tmp_path} was begun with other settings: recipe.a was 1 and is 2 now, recipe.list.1 was 2 and is "
        "3 now; use those, or name another output."
    )
    many = {"recipe": {f"k{n}": "x" * 500 for n in range(9)}, "seed": 0}
    with pytest.raises(SdgError) as refused, begin(tmp_path, manifest, many, resume=True):
        pass
    assert "more)" in str(refused.value)
    assert len(str(refused.value)) < 500
    manifest.write_text("[" * 100_000)
    with pytest.raises(SdgError, match="is damaged"), begin(tmp_path, manifest, settings, resume=True):
        pass
    manifest.write_bytes(before)
    with begin(tmp_path, manifest, settings, resume=True) as begun:
        assert begun


def test_leaves_are_named_by_their_places() -> None:
    assert dict(leaves({"a": [1, {"b": None}], "c": {}})) == {"a.0": 1, "a.1.b": None}


def test_a_place_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SdgError, match="file is a file; name a folder"):
        begin(tmp_path / "file", tmp_path / "file" / "manifest.json", {}).__enter__()
    with pytest.raises(SdgError, match="cannot be written: Not a directory"):
        begin(tmp_path / "file" / "x", tmp_path / "file" / "x" / "manifest.json", {}).__enter__()


def test_of_two_runs_that_start_at_one_moment_exactly_one_goes_on(tmp_path: Path) -> None:
    """Twenty times; whoever loses says so in one sentence and changes no byte of the other's folder."""
    context = multiprocessing.get_context("fork")
    for turn in range(20):
        out = tmp_path / str(turn) / "run"
        gate, lost = context.Barrier(2), context.Event()

        def run(me: int, out: Path = out, gate: Any = gate, lost: Any = lost) -> None:
            gate.wait(60)
            try:
                with begin(out, out / "manifest.json", {"me": me}):
                    before = contents(out)
                    assert lost.wait(60)
                    assert contents(out) == before
                    (out / "result").write_text(str(me))
            except SdgError as error:
                lost.set()
                sys.exit(str(error))

        said = [tmp_path / f"{turn}-{me}.stderr" for me in range(2)]
        both = [processes.fork(partial(run, me), stderr=said[me]) for me in range(2)]
        for process in both:
            process.join(120)
        codes = [process.exitcode for process in both]
        assert sorted(codes) == [0, 1], [file.read_text() for file in said]
        winner, loser = codes.index(0), codes.index(1)
        assert names(out) == ["manifest.json", "result"]
        assert json.loads((out / "manifest.json").read_text())["me"] == winner
        assert (out / "result").read_text() == str(winner)
        assert said[loser].read_text().count("\n") == 1
        assert "is being written by another process" in said[loser].read_text()


def test_a_lock_goes_with_its_process_and_is_not_inherited_by_workers(tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
from pathlib import Path
from sdg.runs.begin import begin
out = Path(sys.argv[1])
with begin(out, out / "manifest.json", {}):
    ready, began = os.pipe()
    if os.fork() == 0:
        os.write(began, b"x")
        time.sleep(30)  # a worker that has not noticed yet
        os._exit(0)
    os.read(ready, 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert lock_of(tmp_path / "manifest.json").exists()
    with begin(tmp_path, tmp_path / "manifest.json", {}):
        pass
    assert names(tmp_path) == ["manifest.json"]


def test_a_run_is_held_in_its_own_process_too(tmp_path: Path) -> None:
    with (
        begin(tmp_path, tmp_path / "manifest.json", {}),
        pytest.raises(SdgError, match="another process"),
        begin(tmp_path, tmp_path / "manifest.json", {}, resume=True),
    ):
        pass
