"""Whole runs of `sdg refine`, with a real pipeline and with an API: what they leave, also after a kill."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from edit_api import Api, halved
from kills import kill_and_resume
from PIL import Image
from servers import detector, pictures, refine, rows


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FluxPipeline of toy size, saved."""
    import toy

    folder = tmp_path_factory.mktemp("flux")
    toy.flux_pipeline().save_pretrained(folder)
    return folder


def assert_same(killed: Path, whole: Path, grey_levels: int) -> None:
    """Two runs left the same files, their pictures at most so many grey levels apart."""
    names = [sorted(file.name for file in (out / "pictures").iterdir()) for out in (killed, whole)]
    assert names[0] == names[1]
    for name in names[0]:
        one, other = (np.asarray(Image.open(out / "pictures" / name), int) for out in (killed, whole))
        np.testing.assert_allclose(one, other, atol=grey_levels)
    for one, other in zip(rows(killed), rows(whole), strict=True):
        assert one.pop("pixels_changed") == pytest.approx(other.pop("pixels_changed"), abs=0.01)
        assert one == other


def killed_after(folder: Path, lines: int, *arguments: str) -> None:
    """Start a run and end it by SIGKILL once so many lines of its journal are on disk."""
    journal, stderr = folder / "killed" / "refinements.jsonl.partial", folder / "killed.stderr"
    run = processes.start("refine", "in.jsonl", *arguments, folder=folder, stderr=stderr)
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert run.exitcode is None, stderr.read_text()
        time.sleep(0.01)
    run.kill()
    run.join()
    assert run.exitcode == -signal.SIGKILL
    assert not (folder / "killed" / "refinements.jsonl").exists()


@pytest.mark.slow
def test_a_whole_run_with_a_real_pipeline(tmp_path: Path, flux: Path) -> None:
    pictures(tmp_path, a=250, b=0, c=240)
    (tmp_path / "c.png").write_bytes(b"no picture")
    with detector() as server:
        arguments = (
            *(
                "--detector",
                f"openai:{server.url}#d?attempts=1&profile=default",
                "--editor",
                f"testbed:{flux}",
            ),
            *("--steps", "2", "--rounds", "2", "--candidates", "2", "--out", "out", "--html", "out.html"),
        )
        first = refine(tmp_path, *arguments)
        assert first.returncode == 1
        assert first.stderr.splitlines()[-1].startswith(
            "sdg: 1 of 3 images failed (--resume tries them again); the first, c.png: "
        )
        found = {row["id"]: row for row in rows(tmp_path / "out")}
        assert found["b.png"]["status"] == "already clean"
        assert [attempt["round"] for attempt in found["a.png"]["attempts"]] == [1, 1, 2, 2]
        assert all(isinstance(attempt["severity"], int) for attempt in found["a.png"]["attempts"])

        again = refine(tmp_path, *arguments)
        assert again.returncode == 1
        assert "refinements.jsonl exists already; go on with --resume" in again.stderr
        Image.new("RGB", (26, 18), (240, 240, 240)).save(tmp_path / "c.png")
        resumed = refine(tmp_path, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count(" left)") == 1  # c.png alone
    assert (resumed.stdout, first.stdout) == ("", "")
    ends = {row["id"]: row for row in rows(tmp_path / "out")}
    assert list(ends) == ["a.png", "b.png", "c.png"]
    assert ends["a.png"] == found["a.png"]
    page = (tmp_path / "out.html").read_text()
    assert all(name in page for name in ends)
    assert page.count("data:image/webp") == 5  # b.png has no other side
    report = processes.run(
        "report", "--refinements", "out", "--images", ".", "--out", "again.html", folder=tmp_path
    )
    assert report.returncode == 0, report.stderr
    assert (tmp_path / "again.html").read_text().count("data:image/webp") == 5
    for name in ("a.png", "c.png"):  # an untrained pipeline paints grey, which is less bright
        assert ends[name]["status"] == "improved"
        after = Image.open(tmp_path / "out" / ends[name]["after"])
        assert after.size == Image.open(tmp_path / name).size
        before, ended = (ends[name][key]["defects"][0] for key in ("diagnosis_before", "diagnosis_after"))
        assert ended["importance"] < before["importance"]


@pytest.mark.slow
@pytest.mark.kill
def test_killed_at_any_moment_it_ends_as_an_undisturbed_run(tmp_path: Path, flux: Path) -> None:
    source = pictures(tmp_path, a=250, b=0, c=240, d=245, e=2)
    with detector() as server:
        arguments: tuple[Any, ...] = (
            *("--detector", f"openai:{server.url}#d?attempts=1&profile=default"),
            *("--editor", f"testbed:{flux}", "--steps", "2", "--rounds", "2", "--out"),
        )
        kill_and_resume(
            "refine",
            lambda out: ["refine", source, *arguments, out],
            tmp_path,
            partial(assert_same, grey_levels=1),  # a pipeline's, painted anew
        )


@pytest.mark.slow
def test_a_run_with_an_api_is_killed_twice_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    pictures(tmp_path, **{f"p{number:02}": 90 + number for number in range(8)})
    with detector() as server, Api(otherwise=halved, delay=0.1) as api:
        arguments = (
            *("--detector", f"openai:{server.url}#d?attempts=1&profile=default"),
            *("--editor", f"openai:{api.url}#painter?per_minute=60000", "--rounds", "2", "--out"),
        )
        whole = refine(tmp_path, *arguments, "whole")
        assert whole.returncode == 0, whole.stderr
        assert (len(api.asked), api.busiest) == (16, 2)
        killed_after(tmp_path, 2, *arguments, "killed")
        killed_after(tmp_path, 5, *arguments, "killed", "--resume")
        done = len((tmp_path / "killed" / "refinements.jsonl.partial").read_text().splitlines())
        asked = len(api.asked)
        resumed = refine(tmp_path, *arguments, "killed", "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert resumed.stderr.count(" left)") == 8 - done
        assert len(api.asked) - asked <= 2 * (8 - done) + 2  # what a dead process had sent may still arrive
    assert_same(tmp_path / "killed", tmp_path / "whole", grey_levels=0)


def test_a_run_that_is_interrupted_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    pictures(tmp_path, a=90, b=90, c=90)
    with detector() as server, Api(otherwise=halved, delay=3600) as api:
        arguments = (
            *("--detector", f"openai:{server.url}#d?attempts=1&profile=default"),
            *("--editor", f"openai:{api.url}#painter?per_minute=60000", "--out", "out"),
        )
        stderr = tmp_path / "stderr"
        interrupted = processes.start("refine", "in.jsonl", *arguments, folder=tmp_path, stderr=stderr)
        while len(api.asked) < 2:
            assert interrupted.exitcode is None
            time.sleep(0.01)
        os.kill(interrupted.pid, signal.SIGINT)
        interrupted.join(120)
        assert interrupted.exitcode == 1
        said = stderr.read_text()
    assert "Stopped. What is done so far is kept; go on with --resume --out out." in said
    assert "Traceback" not in said
