"""Detectors by their URIs: what is loaded, what is refused and in which words, and what is not imported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

import sdg
from sdg.defects import Defect, Diagnosis
from sdg.detectors import Pair, StreamingDetector, answers_by_path, names_server
from sdg.detectors.base import FunctionDetector, failed
from sdg.detectors.bulk import run
from sdg.errors import SdgError
from sdg.io import jsonl
from sdg.io.asking import Ask, asked_over
from sdg.io.predictions import read_prediction
from sdg.prompting import PromptProfile
from sdg.prompting.profile import AnswerParts
from sdg.runs.inputs import Item


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
        (
            "testbed?batch_sise=3",
            "The testbed detector has no option 'batch_sise'; did you mean 'batch_size'",
        ),
        ("python:os.nothing", "names no function"),
        ("python:operator.is_", "returned bool, not a Diagnosis"),
        ("python:builtins.dict?a=1", "makes what has `stream`, but dict"),
        ("python:sdg.testbed.entry.detector?device=cuda:77", "There is no device 'cuda:77' here"),
        ("hf:a/b?dtype=int8", "dtype is one of auto, float32, bfloat16, float16, not 'int8'"),
    ],
)
def test_a_bad_uri_is_one_sentence(
    uri: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SdgError) as caught:
        sdg.load_detector(uri).diagnose([(Image.new("RGB", (8, 8)), "a cup")])
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
        "wrong for a trained detector. Name profile=FILE or profile=release, or profile=default to confirm."
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


def test_a_uri_names_a_server_where_nothing_is_loaded_here(tmp_path: Path) -> None:
    assert names_server("openai:http://localhost:1/v1#m?concurrency=2")
    assert names_server("union:openai:http://localhost:1/v1#m | openai:http://localhost:2/v1#m")
    (tmp_path / "openai:x").mkdir()
    for uri in (
        "testbed",
        "hf:openai/m",
        str(tmp_path / "openai:x"),
        "union:ocr|openai:http://localhost:1/v1#m",
    ):
        assert not names_server(uri)


def test_a_uri_names_stored_answers_and_a_folder_of_that_name_does_not() -> None:
    assert answers_by_path("replay:answers.jsonl")
    assert answers_by_path("union:ocr | heatmap:maps")
    assert not answers_by_path("replay")
    assert not answers_by_path("union:ocr|runs/replay")


def test_every_loaded_detector_streams(tmp_path: Path) -> None:
    assert isinstance(sdg.load_detector(f"heatmap:{tmp_path}"), StreamingDetector)


def judge(picture: Image.Image, prompt: str, importance: int = 7) -> Diagnosis:
    """Finds one artifact in everything but what is clean."""
    if prompt == "?":
        raise ValueError("nothing is asked\nfor")
    defects = () if prompt == "clean" else (Defect((0, 0, 500, 1000), "artifact", picture.mode, importance),)
    return Diagnosis(defects, status="failed" if prompt == "late" else "ok")


class Maker(FunctionDetector):
    """A detector made by its class, as `python:` may name one."""

    def __init__(self, importance: int = 1) -> None:
        super().__init__("maker", partial(judge, importance=importance))


def test_a_function_is_a_detector(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    detector = sdg.load_detector(f"python:{__name__}.judge?importance=45")
    assert detector.identity == {"detector": "python", "function": f"python:{__name__}.judge?importance=45"}
    pairs = [(tmp_path / "a.png", prompt) for prompt in ("a cup", "clean", "?", "late")]
    pairs.append((tmp_path / "b.png", "a cup"))
    found = dict(detector.stream(pairs))
    assert found[0].defects == (Defect((0, 0, 500, 1000), "artifact", "RGB", 45),)
    assert sdg.parse_response(found[0].raw) == found[0]  # as files of predictions need it
    assert found[1].is_clean
    assert [found[place].status for place in (2, 3, 4)] == ["failed"] * 3
    assert "ValueError: nothing is asked at " in found[2].error
    assert "b.png does not exist" in found[4].error
    assert list(dict(detector.stream(pairs, {1}))) == [1]


def test_a_class_makes_a_detector_of_its_options() -> None:
    picture = Image.new("RGB", (8, 8))
    for detector, importance in (
        (sdg.load_detector(f"python:{__name__}.Maker?importance=3"), 3),
        (sdg.load_detector(f"python:{__name__}.Maker", importance=4), 4),
    ):
        assert detector.diagnose([(picture, "a cup")])[0].defects[0].importance == importance
    with pytest.raises(SdgError, match="unexpected keyword argument 'device'"):
        sdg.load_detector(f"python:{__name__}.Maker", device="cpu")


class Bare:
    """No `StreamingDetector`, and its diagnoses have no text."""

    def stream(self, pairs: Sequence[Pair], wanted: object = None) -> Iterator[tuple[int, Any]]:
        """What `judge` says; of "cut" an answer that says nothing, of "lost" none."""
        said = {"cut": Diagnosis(status="truncated"), "lost": failed("It was late.")}
        for index, (_, prompt) in enumerate(pairs):
            yield index, said.get(prompt) or judge(Image.new("RGB", (8, 8)), prompt)


class Silent(Bare):
    """Streams what is no diagnosis."""

    def stream(self, pairs: Sequence[Pair], wanted: object = None) -> Iterator[tuple[int, Any]]:
        """None of each picture."""
        yield from ((index, None) for index in range(len(pairs)))


def test_what_a_class_found_is_in_the_file_whatever_its_detector_lacks(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    uri = f"python:{__name__}.Bare"
    detector = sdg.load_detector(uri)
    assert isinstance(detector, StreamingDetector)
    assert detector.identity == {"detector": "python", "function": uri}
    items = [Item("a.png", prompt, tmp_path / "a.png") for prompt in ("a cup", "clean", "lost", "cut")]
    run(detector, items, tmp_path / "out.jsonl")
    rows = list(jsonl.read_objects(tmp_path / "out.jsonl"))
    read = [read_prediction(row).diagnosis for row in rows]
    assert read[:2] == detector.diagnose([(item.file, item.prompt) for item in items[:2]])
    assert [row["status"] for row in rows[2:]] == ["failed", "truncated"]
    assert not rows[3]["response"]  # which is no clean picture
    with pytest.raises(SdgError, match="returned NoneType, not a Diagnosis"):
        sdg.load_detector(f"python:{__name__}.Silent").diagnose([(tmp_path / "a.png", "a cup")])


class Whole(Bare):
    """A detector that has all of its own."""

    identity: ClassVar = {"detector": "whole"}
    stored, batch_size, at_once = True, 4, 2
    profile = PromptProfile(answer=AnswerParts(think=False))

    def stream(self, pairs: Sequence[Pair], wanted: object = None) -> Iterator[tuple[int, Any]]:
        """An answer in the profile's format, to every picture."""
        for index in range(len(pairs)):
            yield index, self.answer()

    def answer(self) -> Diagnosis:
        """An answer without a think block, with a blank at its end."""
        raw = sdg.render_response(judge(Image.new("RGB", (8, 8)), ""), think=False) + " "
        return sdg.parse_response(raw, require_think=False)

    def batches(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """One of all."""
        return [[*range(len(pairs))]]

    def stop(self) -> bool:
        """Always."""
        return True

    def connected(self) -> AbstractAsyncContextManager[Ask[Diagnosis]]:
        """Connections to nothing."""

        async def ask(connections: None, pair: Pair, index: int) -> Diagnosis:
            return Diagnosis(judge(Image.new("RGB", (8, 8)), pair[1]).defects)

        return asked_over(nullcontext(), ask)


def test_what_a_class_says_of_its_detector_stays() -> None:
    detector, whole = sdg.load_detector(f"python:{__name__}.Whole"), Whole()
    assert (detector.identity, detector.stored, detector.batch_size) == ({"detector": "whole"}, True, 4)
    assert (detector.at_once, detector.profile) == (2, whole.profile)
    pair = (Image.new("RGB", (8, 8)), "a cup")
    assert detector.batches([pair] * 3) == [[0, 1, 2]]
    assert detector.stop()
    (found,) = detector.diagnose([pair])
    assert (found, found.raw) == (whole.answer(), whole.answer().raw)

    async def asked() -> Diagnosis:
        opened = detector.connected()
        assert opened is not None
        async with opened as ask:
            return await ask(pair, 0)

    assert sdg.parse_response(asyncio.run(asked()).raw).defects == whole.answer().defects
