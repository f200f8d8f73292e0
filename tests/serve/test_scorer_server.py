"""`sdg serve scorer` and the `remote:` scorer that asks it, also across two environments."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import red_scorer
import second_environment
from PIL import Image

from sdg.scorers import FunctionScorer, load_scorer
from sdg.serve import bounds as limits
from sdg.serve import scorer as serving_limits
from sdg.serve.scorer import ScorerServer


@contextmanager
def serving(function: Callable[..., Any]) -> Iterator[ScorerServer]:
    with ScorerServer(FunctionScorer(function), 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def plain(red: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, (red, 1, 2))


def encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def post(server: ScorerServer, content: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        server.address + "/v1/score", content, {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def items(*pairs: tuple[str, str]) -> bytes:
    return json.dumps({"items": [{"image": image, "prompt": prompt} for image, prompt in pairs]}).encode()


def test_scores_come_back_in_order_and_null_for_what_has_none() -> None:
    with serving(red_scorer.red) as server:
        status, answer = post(
            server,
            items((encoded(plain(5)), "ab"), ("no base64!", ""), (encoded(plain(0)), ""), ("AAAA", "x")),
        )
        assert (status, answer) == (200, {"scores": [7, None, None, None]})
        found = load_scorer(f"remote:{server.address}?batch=2").score(
            [plain(red) for red in (1, 0, 3, 4, 5)], ["", "x", "y", "", "z"]
        )
    assert found == [1, None, 4, 4, 6]


def test_a_picture_that_spoils_its_batch_costs_itself_alone() -> None:
    with serving(red_scorer.picky) as server:
        scorer = load_scorer(f"remote:{server.address}")
        assert scorer.score([plain(3), plain(0), plain(4)], ["", "", ""]) == [3, None, 4]


@pytest.mark.parametrize("function", [red_scorer.not_a_number, red_scorer.too_few])
def test_what_is_no_score_is_null(function: Callable[..., Any]) -> None:
    with serving(function) as server:
        found = load_scorer(f"remote:{server.address}").score([plain(3), plain(4)], ["", ""])
    assert found == ([None, None] if function is red_scorer.not_a_number else [1.0, 1.0])


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"not json", {}, 400, "a request is"),
        (b'{"items": [{"image": 3, "prompt": ""}]}', {}, 400, "a request is"),
        (b"[" * 100_000, {}, 400, "a request is"),
        (b'{"items": []}', {"Content-Type": "text/plain"}, 415, "application/json"),
        (b'{"items": []}', {"Host": "evil.example"}, 403, "localhost only"),
        (items(*[("", "")] * (limits.MOST_ITEMS + 1)), {}, 413, "64 items at most"),
    ],
)
def test_what_is_no_request_is_refused(
    content: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    with serving(red_scorer.red) as server:
        found, answer = post(server, content, **headers)
        assert found == status
        assert said in answer["error"]
        assert post(server, items((encoded(plain(2)), ""))) == (200, {"scores": [2]})  # and goes on


def test_sizes_are_bounded_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(red_scorer.red) as server:
        with socket.create_connection(("127.0.0.1", server.server_port)) as client:
            client.sendall(
                b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 99999999999\r\n\r\n"
            )
            assert client.recv(4096).startswith(b"HTTP/1.1 413")
        monkeypatch.setattr(limits, "MOST_PIXELS", 10)
        assert post(server, items((encoded(plain(2)), ""))) == (200, {"scores": [None]})


def test_a_client_that_resets_its_connection_is_not_told_of(capfd: pytest.CaptureFixture[str]) -> None:
    reset = struct.pack("ii", 1, 0)  # lingers for 0 seconds
    with serving(red_scorer.red) as server:
        server.daemon_threads = False  # so that closing it waits for what they print
        for begun in (b"POST /v1", b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: "):
            with socket.create_connection(("127.0.0.1", server.server_port)) as client:
                client.sendall(begun)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        assert post(server, items((encoded(plain(2)), ""))) == (200, {"scores": [2]})
    assert capfd.readouterr().err == ""


def test_more_requests_than_may_wait_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(pictures: list[Image.Image], prompts: list[str]) -> list[float]:
        begun.set()
        assert may_end.wait(20)
        return [1.0] * len(pictures)

    monkeypatch.setattr(serving_limits, "MOST_WAITING", 1)
    with serving(slow) as server:
        answers: list[tuple[int, Any]] = []
        first = threading.Thread(target=lambda: answers.append(post(server, items((encoded(plain(1)), "")))))
        first.start()
        assert begun.wait(20)
        status, answer = post(server, items((encoded(plain(1)), "")))
        may_end.set()
        first.join()
    assert (status, answers) == (429, [(200, {"scores": [1.0]})])
    assert "wait already" in answer["error"]


@pytest.mark.slow
def test_the_contract_holds_between_two_environments(second_python: Path) -> None:
    with second_environment.serving(second_python, "red_scorer.red") as (uri, process):
        scorer = load_scorer(f"{uri}?attempts=1&timeout=20")
        assert scorer.score([plain(9, (512, 512)), plain(0)], ["a", ""]) == [10, None]
        process.kill()
        process.wait()
        assert scorer.score([plain(9)], ["a"]) == [None]  # died: left out, and the run goes on
