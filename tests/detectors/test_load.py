"""Detector URIs: what is understood, what is refused and in which words, and what is not imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sdg
from sdg.detectors import StreamingDetector
from sdg.errors import SdgError
from sdg.io.uri import DetectorUri, parse_uri


@pytest.mark.parametrize(
    ("uri", "scheme", "place", "options"),
    [
        ("testbed", "testbed", "", {}),
        ("testbed?batch_size=4", "testbed", "", {"batch_size": "4"}),
        ("hf:P1n3/sdg-detector-sft", "hf", "P1n3/sdg-detector-sft", {}),
        ("hf:a/b?dtype=float32&device=cuda:1", "hf", "a/b", {"dtype": "float32", "device": "cuda:1"}),
        ("openai:http://h:8000/v1#org/m", "openai", "http://h:8000/v1#org/m", {}),
        ("openai:http://h/v1?attempts=2#m", "openai", "http://h/v1#m", {"attempts": "2"}),
        ("openai:http://h/v1#m:7b?attempts=2", "openai", "http://h/v1#m:7b", {"attempts": "2"}),
        ("heatmap:maps?threshold=0.1", "heatmap", "maps", {"threshold": "0.1"}),
        ("replay:a b/out.jsonl", "replay", "a b/out.jsonl", {}),
    ],
)
def test_a_uri_is_taken_apart(uri: str, scheme: str, place: str, options: dict[str, str]) -> None:
    assert parse_uri(uri) == DetectorUri(scheme, place, options)


def test_a_folder_needs_no_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "grpo?x=1").mkdir()
    (tmp_path / "testbed").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_uri(str(tmp_path)) == DetectorUri("hf", str(tmp_path), {})
    assert parse_uri(f"{tmp_path}?device=cpu") == DetectorUri("hf", str(tmp_path), {"device": "cpu"})
    assert parse_uri("grpo?x=1") == DetectorUri("hf", "grpo?x=1", {})
    assert parse_uri("testbed").scheme == "testbed"


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("", "'' is no detector; detectors are testbed, hf:ORG/NAME"),
        ("opanai:http://h/v1#m", "did you mean 'openai'"),
        ("heatmaps:x", "did you mean 'heatmap'"),
        ("out/grpo", "out/grpo is no folder"),
        ("http://localhost/v1", "http://localhost/v1 is no folder"),
        ("replay:", "does not say which one"),
        ("replay:none.jsonl", "none.jsonl does not exist"),
        ("heatmap:none", "none is no folder"),
        ("openai:http://h/v1", "Write openai:BASE_URL#MODEL"),
        ("openai:h/v1#m", "'h/v1' is no address of a server"),
        ("openai:http://h/v1#m?attempt=3", "no option 'attempt'; did you mean 'attempts'"),
        ("openai:http://h/v1#m?attempts=0", "attempts is a whole number from 1, not '0'"),
        ("openai:http://h/v1#m?timeout=nan", "timeout is a number of seconds above 0, not 'nan'"),
        ("openai:http://h/v1#m?profile=none.toml", "none.toml does not exist"),
        ("heatmap:.?threshold=1.5", "threshold is a number from 0 to below 1, not '1.5'"),
        ("heatmap:.?batch_size=3", "The heatmap detector has no option 'batch_size'"),
        ("hf:a/b?dtype=int8", "dtype is one of auto, float32, bfloat16, float16, not 'int8'"),
    ],
)
def test_a_bad_uri_is_one_sentence(
    uri: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SdgError) as caught:
        sdg.load_detector(uri)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_by_name_count_before_those_of_the_uri(tmp_path: Path) -> None:
    loaded = sdg.load_detector(f"heatmap:{tmp_path}?threshold=0.5&min_area=0.1", threshold=0.1, min_area=None)
    assert loaded.identity["threshold"] == 0.1
    assert loaded.identity["min_area"] == 0.1


def test_a_build_without_the_testbeds_weights_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sdg.testbed.models.packaged.DETECTOR", tmp_path / "detector")
    with pytest.raises(SdgError, match="This build holds no weights of the testbed's detector"):
        sdg.load_detector()


def test_a_server_asked_in_our_wording_says_so_once_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "release.toml").write_text('template = "Judge {caption}."\n')
    code = (
        "import sdg\n"
        "for profile in ('release.toml', 'default', None, None):\n"
        "    print(sdg.load_detector('openai:http://127.0.0.1:9/v1#base-vlm', profile=profile).identity)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr.splitlines() == [
        "base-vlm is asked in our own wording, as no profile is named; right for a model trained on none, "
        "wrong for a trained detector. Name profile=FILE, or profile=default to confirm."
    ]
    released, *ours = done.stdout.splitlines()
    assert len(set(ours)) == 1
    assert released not in ours


def test_what_needs_no_torch_loads_none() -> None:
    code = (
        "import sys, sdg, sdg.detectors, sdg.cli.diagnose, sdg.detectors.bulk, sdg.runs.inputs\n"
        "sdg.load_detector('openai:http://127.0.0.1:9/v1#m')\n"
        "sdg.load_detector('heatmap:.')\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_loaded_detector_streams(tmp_path: Path) -> None:
    assert isinstance(sdg.load_detector(f"heatmap:{tmp_path}"), StreamingDetector)
