"""Several processes answer what one answers; one that dies is one sentence, and what it said is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import light
import pytest
from PIL import Image

from sdg.detectors import load_detector
from sdg.detectors.bulk import run
from sdg.detectors.jobs import JobsDetector, _placed
from sdg.errors import SdgError
from sdg.io import jsonl
from sdg.runs.inputs import Item


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    made = []
    for number in range(9):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (number * 20,) * 3).save(path)
        made.append(Item(path.name, "a cup", path))
    return made


@pytest.fixture
def workers() -> Iterator[list[JobsDetector]]:
    made: list[JobsDetector] = []
    yield made
    for one in made:
        one.close()


def test_they_answer_what_one_process_answers_and_go_on_with_its_run(
    items: list[Item], workers: list[JobsDetector], tmp_path: Path
) -> None:
    uri = "python:light.bright"
    jobs = JobsDetector(uri, 2)
    workers.append(jobs)
    alone = load_detector(uri)
    assert dict(jobs.identity) == dict(alone.identity)
    run(alone, items, tmp_path / "one.jsonl")
    run(jobs, items, tmp_path / "two.jsonl")
    assert list(jsonl.read_objects(tmp_path / "two.jsonl")) == list(
        jsonl.read_objects(tmp_path / "one.jsonl")
    )
    found = list(jobs.stream([(item.file, item.prompt) for item in items], {1, 2, 8}))
    assert sorted(place for place, _ in found) == [1, 2, 8]


def test_stored_answers_are_known_to_be_some(workers: list[JobsDetector], tmp_path: Path) -> None:
    (tmp_path / "stored.jsonl").write_text('{"filepath": "1.png", "caption": "", "response": "[]"}')
    workers.append(JobsDetector(f"replay:{tmp_path / 'stored.jsonl'}", 1))
    assert workers[0].stored


def test_a_process_that_dies_ends_the_run_in_one_sentence(
    items: list[Item], workers: list[JobsDetector]
) -> None:
    jobs = JobsDetector("python:light.bright", 2)
    workers.append(jobs)
    os.kill(jobs._workers[0][0].pid, signal.SIGKILL)
    with pytest.raises(SdgError, match=r"ended \(exit code -9\).*fewer --jobs"):
        list(jobs.stream([(item.file, item.prompt) for item in items]))


def test_what_the_detector_refuses_is_said_by_the_parent() -> None:
    with pytest.raises(SdgError, match="nowhere"):
        JobsDetector("python:light.nowhere", 2)


def test_what_all_processes_refuse_is_said_once(items: list[Item], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SdgError, match="raise --concurrency instead"):
        JobsDetector("openai:http://localhost:1/v1?profile=default#x", 3)
    assert "Traceback" not in capfd.readouterr().err


def test_a_process_gets_a_gpu_of_its_own_where_its_detector_takes_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    two = SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 2))
    monkeypatch.setitem(sys.modules, "torch", two)
    for uri in ("testbed", "hf:a/b", "hf:a/b?device=auto", str(tmp_path), f"{tmp_path}?batch_size=2"):
        assert _placed(uri, {}, 3) == {"device": "cuda:1"}, uri
    assert _placed("hf:a/b", {"device": "auto", "profile": "release"}, 2) == {
        "device": "cuda:0",
        "profile": "release",
    }
    assert _placed("hf:a/b?device=auto", {"device": "cpu"}, 1) == {"device": "cpu"}
    for uri in (
        "python:light.bright",
        "ocr",
        "union:ocr|testbed",
        "replay:in.jsonl",
        "hf:a/b?device=cpu",
        "testbed?device=cpu",
    ):
        assert _placed(uri, {}, 3) == {}, uri


def test_the_processes_end_with_the_one_that_began_them(tmp_path: Path) -> None:
    script = (
        "import os, signal\n"
        "from sdg.detectors.jobs import JobsDetector\n"
        "if __name__ == '__main__':\n"
        "    jobs = JobsDetector('python:light.bright', 2)\n"
        "    print(*(process.pid for process, _ in jobs._workers), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "begin.py").write_text(script)
    place = str(Path(light.__file__).parent)
    done = subprocess.run(
        [sys.executable, tmp_path / "begin.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([place, os.environ.get("PYTHONPATH", "")])},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    for _ in range(100):
        if not any(_runs(pid) for pid in pids):
            break
        time.sleep(0.1)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
