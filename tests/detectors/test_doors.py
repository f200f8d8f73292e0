"""The same weights through three doors: a folder, a server that serves it, and the responses it stored."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toy_qwen3vl as toy
from PIL import Image

import sdg
from sdg.detectors.bulk import run
from sdg.prompting import PROFILE_FILE
from sdg.runs.inputs import Item
from sdg.testbed.injection import sample
from sdg.testbed.models.packaged import DETECTOR

STARTS_WITHIN = 180.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve`, which loads the folder that a request names."""
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log"
    command = [str(Path(sys.executable).parent / "transformers"), "serve"]
    options = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        limit = time.monotonic() + STARTS_WITHIN
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_a_folder_a_server_and_a_replay_give_the_same_diagnoses(
    taught: Path, tmp_path: Path, url: str
) -> None:
    items = []
    for index, prompt in enumerate(toy.PROMPTS):
        toy.picture(index).save(tmp_path / f"{index}.png")
        items.append(Item(f"{index}.png", prompt, tmp_path / f"{index}.png"))
    pairs = [(item.file, item.prompt) for item in items]

    # One at a time, as the server does it: padding can tip a tie.
    here = sdg.load_detector(f"hf:{taught}?dtype=float32&device=cpu&batch_size=1")
    expected = here.diagnose(pairs)
    assert expected == [toy.truth(index) for index in range(6)]

    run(here, items, tmp_path / "out.jsonl")
    assert sdg.load_detector(f"replay:{tmp_path / 'out.jsonl'}").diagnose(pairs) == expected

    profile = taught / PROFILE_FILE
    there = sdg.load_detector(f"openai:{url}?profile={profile}&concurrency=2&timeout=120#{taught}")
    assert there.diagnose(pairs) == expected

    # The same with an answer that is cut off in its middle.
    short = tmp_path / "short.toml"
    short.write_text(profile.read_text().replace("max_new_tokens = 96", "max_new_tokens = 25"))
    cut_there = sdg.load_detector(f"openai:{url}?profile={short}#{taught}").diagnose(pairs)
    cut_here = sdg.load_detector(f"hf:{taught}?batch_size=1&device=cpu", profile=short).diagnose(pairs)
    assert "truncated" in {diagnosis.status.value for diagnosis in cut_here}
    assert cut_there == cut_here

    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["filepath"] for row in rows] == [item.filepath for item in items]


@pytest.mark.slow
def test_the_embedded_weights_give_the_same_diagnoses_through_every_door(tmp_path: Path, url: str) -> None:
    rng = np.random.default_rng(3)
    items = []
    for index in range(2):
        drawn = sample(rng, split="test", kind="both")
        Image.fromarray(drawn.picture).save(tmp_path / f"{index}.png")
        items.append(Item(f"{index}.png", drawn.prompt, tmp_path / f"{index}.png"))
    pairs = [(item.file, item.prompt) for item in items]
    here = sdg.load_detector(f"hf:{DETECTOR}?dtype=float32&device=cpu&batch_size=1")
    expected = here.diagnose(pairs)
    assert all(diagnosis.defects for diagnosis in expected)
    assert sdg.load_detector("testbed?batch_size=1").diagnose(pairs) == expected

    run(here, items, tmp_path / "out.jsonl")
    assert sdg.load_detector(f"replay:{tmp_path / 'out.jsonl'}").diagnose(pairs) == expected

    profile = DETECTOR / PROFILE_FILE
    there = sdg.load_detector(f"openai:{url}?profile={profile}&timeout=120#{DETECTOR}")
    assert there.diagnose(pairs) == expected
