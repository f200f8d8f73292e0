"""A run on a local Ray cluster: what one process finds, whatever dies on the way."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import light
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdg.detectors import load_detector, on_ray
from sdg.detectors.bulk import run
from sdg.detectors.on_ray import MANIFEST, _Worker, run_on_ray
from sdg.errors import SdgError
from sdg.io import jsonl
from sdg.runs.inputs import gather
from sdg.runs.merge import merge

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.ray]
URI = "python:light.bright"


def content(level: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """2,000 pictures in two files, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("inputs")
    files = []
    for number in (0, 1):
        rows = range(1000)
        pictures = [content((7 * row + number) % 256) for row in rows]
        if number:
            pictures[321] = b"no picture"
        names = [f"{number}-{row}.png" for row in rows]
        table = pa.table({"image": pictures, "filepath": names, "caption": ["a cup"] * 1000})
        files.append(folder / f"{number}.parquet")
        pq.write_table(table, files[-1], row_group_size=100)
    return files


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the detector where the test does."""
    here = str(Path(light.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))


def test_it_finds_what_one_process_finds_though_a_worker_is_killed(
    inputs: list[Path], tmp_path: Path
) -> None:
    alone = tmp_path / "alone.jsonl"
    run(load_detector(URI), gather(inputs, embedded=True), alone)
    killed: list[int] = []

    def kill(done: object, number: int, total: int) -> None:
        if not killed:
            for line in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    if b"ray::_Worker" in line.read_bytes():
                        killed.append(int(line.parent.name))
                        os.kill(killed[0], signal.SIGKILL)
                        return
                except OSError:
                    continue

    done = run_on_ray(URI, inputs, tmp_path / "found", workers=2, block=250, on_block=kill)
    assert killed
    assert (done.images, done.failed) == (2000, 1)
    parts = sorted((tmp_path / "found").glob("part-*.parquet"))
    assert len(parts) == 8
    merge(parts, tmp_path / "merged.jsonl", [item.key for item in gather(inputs, embedded=True)])
    assert list(jsonl.read_objects(tmp_path / "merged.jsonl")) == list(jsonl.read_objects(alone))

    again = run_on_ray(URI, inputs, tmp_path / "found", workers=1, block=250, resume=True)
    assert (again.images, again.diagnosed, again.failed) == (2000, 1, 1)  # only what failed is asked again
    with pytest.raises(SdgError, match="begun with other settings: block was 250"):
        run_on_ray(URI, inputs, tmp_path / "found", block=500, resume=True)
    manifest = json.loads((tmp_path / "found" / MANIFEST).read_text())
    assert manifest["inputs"] == {str(file): 1000 for file in inputs}


def test_a_server_may_come_back_elsewhere_and_be_asked_in_another_way(
    inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_ray", "_workers"):
        monkeypatch.setattr(on_ray, name, lambda *given: None)
    monkeypatch.setattr(on_ray, "_connected", lambda address: SimpleNamespace(shutdown=lambda: None))
    monkeypatch.setattr(on_ray, "_all", lambda *given: "all")

    def asked(uri: str, concurrency: int, **options: Any) -> Any:
        options = {"concurrency": concurrency, **options}
        return run_on_ray(uri, inputs, tmp_path / "found", options=options, resume=True)

    assert asked("openai:http://node1:8000/v1#sdg", 64) == "all"
    # Settings are compared once a block is there.
    (tmp_path / "found/part-00001-of-00032.parquet").write_bytes(b"a block")
    assert asked("openai:http://node2:8000/v1?timeout=9#sdg", 32) == "all"
    with pytest.raises(SdgError, match=r"begun with other settings: detector\.uri was"):
        asked("openai:http://node2:8000/v1#other", 32)
    with pytest.raises(SdgError, match=r"begun with other settings: detector\.temperature was null"):
        asked("openai:http://node2:8000/v1#sdg", 32, temperature=1.0)


def test_a_worker_reads_relative_names_where_the_run_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # and back to where the tests run in the end
    for here, expected in ((tmp_path / "home", tmp_path / "home"), (tmp_path / "gone", tmp_path)):
        (tmp_path / "home").mkdir(exist_ok=True)
        os.chdir(tmp_path)
        _Worker(URI, {}, tmp_path / "found", {}, here)
        assert Path.cwd() == expected


def test_a_driver_that_is_killed_is_gone_on_with(inputs: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sdg", "diagnose", str(inputs[0]), "--out", str(tmp_path / "found")]
    command += ["--detector", URI, "--ray", "local", "--resume"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE)
    threading.Timer(20, first.kill).start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and first.poll() is None:
        if list((tmp_path / "found").glob("part-*")):
            first.kill()
        time.sleep(0.05)
    first.wait()
    time.sleep(2)  # its workers end by themselves
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "1,000 images in" in second.stderr
    parts = sorted((tmp_path / "found").glob("part-*.parquet"))
    assert [pq.read_metadata(part).num_rows for part in parts] == [100] * 10  # enough for several workers


def test_what_concerns_every_block_is_one_sentence(inputs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SdgError, match="nowhere"):
        run_on_ray("python:light.nowhere", inputs[:1], tmp_path / "found", workers=1)
    with pytest.raises(SdgError, match="is no Parquet file"):
        run_on_ray(URI, [Path("a.jsonl")], tmp_path / "other")


def test_what_a_workers_own_code_raises_is_said_and_is_no_death(inputs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SdgError, match=r"^A worker failed \(ZeroDivisionError: no light at all\)"):
        run_on_ray("python:light.Broken", inputs[:1], tmp_path / "found", workers=1)


def test_an_empty_part_has_no_rows(inputs: list[Path], tmp_path: Path) -> None:
    few, none = tmp_path / "few.parquet", tmp_path / "none.parquet"
    pq.write_table(pq.read_table(inputs[0]).slice(0, 3), few)
    pq.write_table(pq.read_table(inputs[0]).slice(0, 0), none)
    done = run_on_ray(URI, [none, few], tmp_path / "found", workers=1)
    assert (done.images, done.failed) == (3, 0)
    assert [part.name for part in (tmp_path / "found").glob("part-*.parquet")] == [
        "part-00001-of-00001.parquet"
    ]
    with pytest.raises(SdgError, match="There are no images to diagnose"):
        run_on_ray(URI, [none], tmp_path / "nothing", workers=1)
    assert not (tmp_path / "nothing").exists()
