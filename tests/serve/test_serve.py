"""`sdg serve`: what its paths answer, whom it refuses, and what many callers and hostile ones do to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from served import RedDetector, encoded, found, get, item, plain, post, served

from sdg import Diagnosis, load_detector
from sdg.cli import cli, main
from sdg.detectors.base import FunctionDetector
from sdg.detectors.consensus import ConsensusDetector
from sdg.detectors.union import UnionDetector
from sdg.errors import SdgError
from sdg.prompting import PromptProfile
from sdg.scorers import FunctionScorer
from sdg.serve import app, bounds, server
from sdg.serve.openapi import describe


def red_of(pictures: list[Image.Image], prompts: list[str]) -> list[float | None]:
    return [float(picture.getpixel((0, 0))[0]) or None for picture in pictures]


def test_diagnose_says_what_the_detector_says_and_null_where_nothing_is_known() -> None:
    bad = {"image": "no base64!", "prompt": ""}
    with served(RedDetector()) as url:
        sent = [item(60, "two cats"), bad, item(0), item(255), item(254), item(253)]
        status, answer, _ = post(f"{url}/v1/diagnose", {"items": sent})
    assert status == 200
    defects, unread, clean, refused, dead, unclear = answer["items"]
    assert defects == {
        "status": "ok",
        "defects": [one.to_dict() for one in found(60, "two cats").defects],
        "error": None,
    }
    assert clean == {"status": "ok", "defects": [], "error": None}
    assert unread == {"status": "failed", "defects": None, "error": "The picture is no base64."}
    assert refused == {"status": "failed", "defects": None, "error": "This picture is too red."}
    assert dead == {"status": "failed", "defects": None, "error": "RuntimeError: the model fell over"}
    assert unclear["status"] == "unparseable"
    assert unclear["defects"] is None
    assert unclear["error"]


def test_reward_is_the_scorers_sum_with_counts_severity_and_maps() -> None:
    scorers = [FunctionScorer(red_of), FunctionScorer(lambda pictures, prompts: [0.5] * len(pictures))]
    with served(RedDetector(), scorers) as url:
        sent = {"items": [item(60), item(0), item(255)], "grid": [2, 4]}
        status, answer, _ = post(f"{url}/v1/reward", sent)
    assert status == 200
    two, clean, refused = answer["items"]
    assert (two["reward"], two["defects"], two["error"]) == (60.5, 2, None)
    assert two["severity"] == pytest.approx(1.1)
    assert two["maps"] == {
        "artifact": [[0.6, 0.6, 0, 0], [0.6, 0.6, 0, 0]],
        "misalignment": [[0, 0, 0.5, 0.5], [0, 0, 0, 0]],
    }
    assert (clean["reward"], clean["defects"], clean["error"]) == (None, 0, "a scorer gave no score")
    assert clean["maps"]["artifact"] == [[0, 0, 0, 0], [0, 0, 0, 0]]
    assert refused == {
        "reward": 255.5,
        "defects": None,
        "severity": None,
        "maps": None,
        "error": "This picture is too red.",
    }


@pytest.mark.parametrize(("options", "device"), [([], "cuda"), (["--device", "cpu"], "cpu")])
def test_scorers_take_a_gpu_or_the_device_that_is_named(
    options: list[str], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(uri: str, device: str) -> None:
        raise SdgError(f"{uri} is loaded on {device}.")

    monkeypatch.setattr("sdg.scorers.load_scorer", load)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    command = ["serve", "--detector", "testbed", "--port", "0"]
    done = CliRunner().invoke(cli, [*command, "--scorer", "clip:a/b", *options])
    assert str(done.exception) == f"clip:a/b is loaded on {device}."
    assert CliRunner().invoke(cli, [*command, "--device", "cpu"]).exit_code == 2


def test_reward_without_scorers_is_minus_the_severity() -> None:
    with served(RedDetector()) as url:
        _, answer, _ = post(f"{url}/v1/reward", {"items": [item(60), item(0), item(255)]})
        assert [one["reward"] for one in answer["items"]] == pytest.approx([-1.1, 0, None])
        assert {one["maps"] for one in answer["items"]} == {None}
        for grid in ([0, 4], [4], [257, 1], "ab", [True, 2]):
            assert post(f"{url}/v1/reward", {"items": [item(1)], "grid": grid})[0] == 400
        many = {"items": [item(1)] * 64, "grid": [256, 256]}
        assert post(f"{url}/v1/reward", many)[0] == 413


def test_guard_sees_a_reward_that_rises_while_defects_grow() -> None:
    prompts = [f"prompt {number}" for number in range(24)]
    clean = [item(0 if number % 3 else 9, prompt) for number, prompt in enumerate(prompts)]
    worse = [item(60, prompt) for prompt in prompts]
    low, high = [0.1 + number / 100 for number in range(24)], [0.9 + number / 90 for number in range(24)]
    with served(RedDetector(), most=100) as url:

        def ask(sent: list[Any], rewards: list[float] | None, *history: Any) -> Any:
            body = {"items": sent, "rewards": rewards, "history": list(history)}
            status, answer, _ = post(f"{url}/v1/guard", body)
            assert status == 200, answer
            return answer

        first = ask(clean, low)
        assert (first["hacking"], first["worse"], first["rose"]) == (None, None, None)
        assert first["means"]["defects"] == pytest.approx(8 / 24)
        assert first["means"]["clean"] == pytest.approx(16 / 24)
        bad = ask(worse, high, first["pictures"])
        assert (bad["worse"], bad["rose"], bad["hacking"]) == (True, True, True)
        assert bad["means"]["defects"] == 2
        assert ask(clean, high, first["pictures"])["hacking"] is False
        assert ask(worse, low, first["pictures"])["hacking"] is False
        failed = ask([item(255, prompt) for prompt in prompts], high, first["pictures"])
        assert (failed["hacking"], failed["known"], failed["means"]["defects"]) == (None, 0, None)
        for wrong in ({"rewards": [1]}, {"history": [[{}]]}, {"history": "x"}, {"rewards": ["a"] * 24}):
            assert post(f"{url}/v1/guard", {"items": clean, **wrong})[0] == 400


def test_our_own_door_gives_the_answers_of_the_detector_itself(tmp_path: Path) -> None:
    pairs = [(plain(red), prompt) for red, prompt in ((60, "a {caption}"), (0, ""), (9, "zwei\nKäuze"))]
    direct = [found(picture.getpixel((0, 0))[0], prompt) for picture, prompt in pairs]
    bare = RedDetector()
    bare.profile = PromptProfile(template="{caption}")  # as the embedded detector's, which fits any text
    with served(bare) as url:
        door = load_detector(f"openai:{url}/v1#red?profile=default&attempts=1")
        assert door.diagnose(pairs) == direct
    with served(RedDetector()) as url:
        for profile in ("default", str(RedDetector.profile.save(tmp_path))):
            door = load_detector(f"openai:{url}/v1#red?profile={profile}&attempts=1")
            assert door.diagnose(pairs) == direct
            refused, unclear = door.diagnose([(plain(255), "x"), (plain(253), "x")])
            assert "too red" in refused.error
            assert not unclear.is_informative
        assert json.loads(get(f"{url}/v1/models")[1])["data"][0]["id"] == "red"


def test_a_consensus_can_be_asked_as_a_model() -> None:
    consensus = ConsensusDetector(RedDetector(), 4)
    pair = (plain(60), "a cat")
    with served(consensus) as url:
        (answer,) = load_detector(f"openai:{url}/v1#red?profile=default&attempts=1").diagnose([pair])
    assert answer.defects == consensus.diagnose([pair])[0].defects
    assert len(answer.defects) == 2


def test_a_union_is_asked_in_the_wording_of_its_part(tmp_path: Path) -> None:
    silent = FunctionDetector("silent", lambda picture, prompt: Diagnosis())
    pair = (plain(60), "a cat")
    with served(UnionDetector([silent, RedDetector()])) as url:
        for profile in ("default", str(RedDetector.profile.save(tmp_path))):
            door = load_detector(f"openai:{url}/v1#red?profile={profile}&attempts=1")
            assert door.diagnose([pair])[0].defects == found(60, "a cat").defects  # which name their prompt


def chat(text: str, url: str | None = None, **options: Any) -> dict[str, Any]:
    picture = url or f"data:image/png;base64,{encoded(plain(60))}"
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": text}]
    return {"model": "red", "messages": [{"role": "user", "content": content}], **options}


def test_a_plain_caption_is_the_prompt_and_what_is_no_question_is_refused() -> None:
    with served(RedDetector()) as url:
        path = f"{url}/v1/chat/completions"
        status, answer, _ = post(path, chat("three owls"))
        assert status == 200
        assert "three owls" in answer["choices"][0]["message"]["content"]
        for wrong in (
            chat("x" * 3000),
            chat("x", "http://elsewhere/cat.png"),
            chat("x", temperature=0.7),
            chat("x", n=2),
            chat("x", stream=True),
            {"messages": [{"role": "user", "content": "no picture"}]},
            {"messages": [5]},
            {},
        ):
            assert post(path, wrong)[0] == 400, wrong
        status, answer, _ = post(path, chat("x", "data:image/png;base64,AAAA"))
        assert status == 422
        assert answer["error"]["message"]


@pytest.mark.parametrize(
    "profile", [PromptProfile(), PromptProfile(template="{{of {caption}}}", doubled_braces=True)]
)
@pytest.mark.parametrize("caption", ["", "a cat", "{caption} {{}}", "a\nb <image>", "x" * 5000])
def test_a_caption_is_found_in_its_template(profile: PromptProfile, caption: str) -> None:
    text = profile.render(caption)[-1]["content"][1]["text"]
    assert profile.caption_in(text) == caption
    assert profile.caption_in(text + "!") is None
    assert profile.caption_in(text[1:]) is None
    twice = PromptProfile(template="<image>{c} and {c}.", placeholder="{c}")
    assert twice.caption_in(f"{caption} and {caption}.") == caption
    assert twice.caption_in(f"{caption} and {caption}x.") is None


def test_callers_that_wait_are_answered_in_batches() -> None:
    detector = RedDetector(batch_size=8)
    detector.may_end.clear()
    with served(detector, most=64) as url, ThreadPoolExecutor(17) as callers:
        ask: Callable[[int], Any] = lambda red: post(f"{url}/v1/diagnose", {"items": [item(red)]})  # noqa: E731
        first = callers.submit(ask, 1)
        assert detector.begun.wait(20)
        others = [callers.submit(ask, red) for red in range(2, 18)]
        while b"sdg_waiting_items 17.0" not in get(f"{url}/metrics")[1]:
            time.sleep(0.01)
        detector.may_end.set()
        answers = [one.result()[1]["items"][0]["defects"][0]["importance"] for one in (first, *others)]
        metrics = get(f"{url}/metrics")[1].decode()
    assert answers == list(range(1, 18))
    assert detector.batches == [1, 8, 8]
    assert 'sdg_requests_total{path="/v1/diagnose",status="200"} 17.0' in metrics
    assert 'sdg_items_total{status="ok"} 17.0' in metrics
    assert 'sdg_batch_pictures_sum{model="detector"} 17.0' in metrics


def test_a_full_line_says_when_to_come_back_and_those_who_left_are_left_out() -> None:
    detector = RedDetector(batch_size=2)
    detector.may_end.clear()
    with served(detector, most=3) as url, ThreadPoolExecutor(2) as callers:
        body = {"items": [item(1)] * 2}
        first = callers.submit(post, f"{url}/v1/diagnose", body)
        assert detector.begun.wait(20)
        status, answer, headers = post(f"{url}/v1/diagnose", body)
        assert (status, 1 <= int(headers["Retry-After"]) <= 60) == (429, True)
        assert "wait already" in answer["error"]["message"]
        content = json.dumps({"items": [item(7)]}).encode()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            client.sendall(_head("/v1/diagnose", len(content)) + content)
            while b"sdg_waiting_items 3.0" not in get(f"{url}/metrics")[1]:
                time.sleep(0.01)
        while b"sdg_waiting_items 2.0" not in get(f"{url}/metrics")[1]:
            time.sleep(0.01)
        detector.may_end.set()
        assert first.result()[0] == 200
        assert post(f"{url}/v1/diagnose", {"items": [item(3)]})[0] == 200
    assert detector.batches == [2, 1]


def _head(path: str, length: int, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", *more, "", ""]).encode()


@pytest.mark.parametrize(
    ("path", "key", "known"),
    [
        ("diagnose", "grid", "items, and no 'grid'"),
        ("reward", "gird", "items, grid, and no 'gird'"),
        ("guard", "reward", "items, rewards, history, and no 'reward'"),
    ],
)
def test_a_misspelt_key_is_refused(path: str, key: str, known: str) -> None:
    with served(RedDetector()) as url:
        status, answer, _ = post(f"{url}/v1/{path}", {"items": [item(1)], key: [2, 2]})
    assert status == 400
    assert answer["error"]["message"] == f"a request to this path has {known}"


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"not json", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"9" * 10_000, {}, 400),
        (b'{"items": 5}', {}, 400),
        (b'{"items": [{"image": 3, "prompt": ""}]}', {}, 400),
        (b'{"items": []}', {"Content-Type": "text/plain"}, 415),
        (b'{"items": []}', {"Host": "evil.example"}, 403),
        (json.dumps({"items": [{"image": "", "prompt": ""}] * 65}).encode(), {}, 413),
    ],
)
def test_what_is_no_request_is_refused_and_the_server_goes_on(
    content: bytes, headers: dict[str, str], status: int
) -> None:
    with served(RedDetector()) as url:
        for path in ("diagnose", "reward", "guard"):
            code, answer, _ = post(f"{url}/v1/{path}", content, **headers)
            assert code == status
            assert answer["error"]["message"]
        assert post(f"{url}/v1/diagnose", {"items": [item(2)]})[0] == 200


def test_who_has_no_token_is_refused_before_the_body_is_read() -> None:
    with served(RedDetector(), token="s3cret-ü") as url:
        asked = {"items": [item(2)]}
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            assert post(f"{url}/v1/diagnose", asked, **wrong)[0] == 401
            assert get(f"{url}/metrics", **wrong)[0] == 401
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            client.sendall(_head("/v1/diagnose", 50_000_000))
            assert client.recv(4096).startswith(b"HTTP/1.1 401")
        assert get(f"{url}/healthz")[0] == 200
    with served(RedDetector(), token="s3cret") as url:
        assert post(f"{url}/v1/diagnose", asked, Authorization="Bearer s3cret")[0] == 200


def test_sizes_and_times_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "SLOWEST", 0.3)
    monkeypatch.setattr(server, "HEADERS_WITHIN", 0.3)
    monkeypatch.setattr(bounds, "MOST_PIXELS", 100)
    monkeypatch.setattr(bounds, "MOST_BYTES", 100_000)
    with served(RedDetector()) as url:
        place = ("127.0.0.1", int(url.rpartition(":")[2]))

        def answer_to(*pieces: bytes) -> bytes:
            with socket.create_connection(place, timeout=20) as client:
                for piece in pieces:
                    client.sendall(piece)
                return client.recv(4096)

        assert answer_to(_head("/v1/diagnose", 99_999_999_999)).startswith(b"HTTP/1.1 413")
        assert answer_to(_head("/v1/diagnose", 5000), b'{"items"').startswith(b"HTTP/1.1 408")
        chunked = _head("/v1/diagnose", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        assert answer_to(chunked, b"1d4c0\r\n" + b" " * 120_000).startswith(b"HTTP/1.1 413")
        assert answer_to(b"POST /v1/diag") == b""  # headers that do not end: closed
        assert answer_to(b"rubbish\r\n\r\n").startswith(b"HTTP/1.1 400")
        huge = {"image": encoded(plain(5, (20, 20))), "prompt": ""}
        _, answer, _ = post(f"{url}/v1/diagnose", {"items": [huge, item(2)]})
        assert [one["status"] for one in answer["items"]] == ["failed", "ok"]
        assert "20×20" in answer["items"][0]["error"]


def test_the_description_has_every_path_and_the_page_asks_no_other_server() -> None:
    with served(RedDetector()) as url:
        described = json.loads(get(f"{url}/openapi.json")[1])
        page = get(f"{url}/docs")[1].decode()
        for path, methods in described["paths"].items():
            assert path in page
            if "get" in methods:
                assert get(url + path)[0] == 200
            else:
                assert post(url + path, {})[0] == 400
        assert get(f"{url}/nowhere")[0] == 404
    assert "http://" not in page
    assert "https://" not in page
    secured = describe("1", closed=True)["paths"]
    assert secured["/v1/diagnose"]["post"]["security"] == [{"token": []}]
    assert secured["/healthz"]["get"]["security"] == []


def test_a_detector_of_paths_and_an_open_address_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    stored = RedDetector()
    stored.stored = True
    with pytest.raises(SdgError, match="cannot be served"), served(stored):
        pass
    with pytest.raises(SdgError, match="--token-env"):
        server.listening("0.0.0.0", 0, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], "--detector"),
        (["serve", "--port", "9", "scorer", "ocr"], "behind scorer"),
        (["serve", "--detector", "ocr", "--token-env", "NOT_SET_AT_ALL"], "NOT_SET_AT_ALL"),
        (["serve", "detector", "ocr", "--host", "0.0.0.0"], "--token-env"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code in (1, 2)
    assert said in capsys.readouterr().err


def _started(port: int = 0) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "sdg", "serve", "detector", "python:light.bright", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stderr is not None
    said = process.stderr.readline()
    assert " at http://" in said, said
    return process, said.partition(" at ")[2].partition(";")[0]


def test_a_killed_server_can_be_started_again_and_one_that_is_stopped_answers_first() -> None:
    process, url = _started()
    try:
        port = int(url.rpartition(":")[2])
        assert post(f"{url}/v1/diagnose", {"items": [item(5)]})[0] == 200
        process.kill()
        process.wait()
        with pytest.raises(OSError):  # noqa: PT011 (whatever the system says)
            post(f"{url}/v1/diagnose", {"items": [item(5)]})
        process, again = _started(port)
        assert again == url
        assert post(f"{url}/v1/diagnose", {"items": [item(5)]})[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()


def test_whoever_is_being_answered_is_answered_before_the_end() -> None:
    detector = RedDetector()
    detector.may_end.clear()
    with ThreadPoolExecutor(1) as callers:
        with served(detector) as url:
            asked = callers.submit(post, f"{url}/v1/diagnose", {"items": [item(5)]})
            assert detector.begun.wait(20)
            threading.Timer(0.3, detector.may_end.set).start()
        assert asked.result()[0] == 200


@pytest.mark.slow
def test_the_embedded_detector_is_the_same_through_our_own_door() -> None:
    from sdg.testbed.injection.sample import sample
    from sdg.testbed.models.packaged import DETECTOR, packaged

    rng = np.random.default_rng(7)
    drawn = [sample(rng) for _ in range(3)]
    pairs = [(Image.fromarray(one.picture), one.prompt) for one in drawn]
    embedded = load_detector("testbed?batch_size=1")
    direct = embedded.diagnose(pairs)
    with served(embedded) as url:
        for profile in ("default", str(packaged(DETECTOR))):
            door = load_detector(f"openai:{url}/v1#testbed", profile=profile, attempts=1)
            assert door.diagnose(pairs) == direct
    assert any(one.defects for one in direct)
