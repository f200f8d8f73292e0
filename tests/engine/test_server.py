"""The embedded detector behind a real vLLM: the answers of `hf:`, and a server that is killed loses none."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from vllm_server import VllmServer, responses

from sdg import load_detector
from sdg.detectors import Pair, StreamingDetector
from sdg.detectors.openai import OpenAIDetector
from sdg.prompting import PromptProfile
from sdg.runs.journal import partial_of
from sdg.testbed.models.packaged import DETECTOR

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def pairs(pictures: Path) -> list[Pair]:
    rows = map(json.loads, pictures.read_text().splitlines())
    return [(pictures.parent / row["filepath"], row["caption"]) for row in rows]


def asked(what: str, detector: StreamingDetector, pairs: list[Pair]) -> list[str]:
    """The raw answers, after one that warms up; prints how many come a second."""
    detector.diagnose(pairs[:1])
    start = time.monotonic()
    found = detector.diagnose(pairs)
    print(f"\n{what}: {len(pairs) / (time.monotonic() - start):.2f} pictures/s")
    return [diagnosis.raw for diagnosis in found]


@pytest.fixture(scope="module")
def expected(pairs: list[Pair]) -> list[str]:
    """The answers of the weights loaded in this process."""
    return asked("hf: in fp32", load_detector(str(DETECTOR), dtype="float32", device="cpu"), pairs)


def test_answers_are_those_of_the_weights_loaded_here(
    server: VllmServer, pairs: list[Pair], expected: list[str]
) -> None:
    detector = load_detector(server.uri, profile=DETECTOR, concurrency=16)
    assert asked("openai: by vLLM in fp32", detector, pairs) == expected
    assert len(set(expected)) > 30


def begin(pictures: Path, out: Path, detector: str, *options: str) -> subprocess.Popen[bytes]:
    """`sdg diagnose` of the pictures, one at a time, in a process of its own."""
    words = [sys.executable, "-m", "sdg", "diagnose", str(pictures), "--out", str(out)]
    words += ["--detector", detector, "--profile", str(DETECTOR), "--concurrency", "1"]
    return subprocess.Popen([*words, *options])


def test_a_server_killed_in_mid_run_loses_no_answer_and_is_asked_for_the_rest(
    server: VllmServer, pictures: Path, expected: list[str], tmp_path: Path
) -> None:
    out, uri = tmp_path / "found.jsonl", server.uri.replace("#", "?attempts=2#")
    run = begin(pictures, out, uri)
    partial = partial_of(out)
    while not (partial.exists() and partial.read_text().count("\n") > 2):
        assert run.poll() is None, "the run ended before the server could be killed"
        time.sleep(0.05)
    server.kill()
    assert run.wait() == 1
    before = responses(out)
    assert 2 < len(before) < 40

    server.start()
    assert begin(pictures, out, uri, "--resume").wait() == 0
    after = responses(out)
    assert len(after) == 40
    assert list(after.values()) == expected
    assert before.items() <= after.items()


def test_a_grammar_holds_the_answer_and_leaves_a_trained_detectors_as_it_is(
    server: VllmServer, pairs: list[Pair], expected: list[str]
) -> None:
    detector = load_detector(server.uri, profile=DETECTOR, structured=True)
    assert [found.raw for found in detector.diagnose(pairs[:10])] == expected[:10]

    profile = PromptProfile.load(DETECTOR)
    alone = replace(profile, answer=replace(profile.answer, think=False))
    url, model = server.uri.removeprefix("openai:").split("#")
    for found in OpenAIDetector(url, model, alone, structured=True).diagnose(pairs[:10]):
        assert found.raw.startswith("<answer>\n["), "where this detector would think first"
        assert found.status in ("ok", "truncated"), found.raw


def test_roll_outs_by_a_server_read_the_tokens_and_pictures_of_the_trainer(
    server: VllmServer,
    python: str,
    surroundings: dict[str, str],
    pictures: Path,
    expected: list[str],
    tmp_path: Path,
) -> None:
    script = str(Path(__file__).parent / "ask_server.py")
    words = [python, script, server.root, str(pictures), str(tmp_path / "answers.json")]
    subprocess.run(words, env=surroundings, check=True)
    assert json.loads((tmp_path / "answers.json").read_text()) == expected
