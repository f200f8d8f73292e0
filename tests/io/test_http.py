"""What a server may send: how much of it is read, which of its words are shown, how Ctrl-C ends a run."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
from bad_server import CLEAN, Reply, Server, completion, error, tagged
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg.errors import SdgError
from sdg.io.chat import Answer, ChatClient, as_data_url
from sdg.io.http import (
    LONGEST_RETRY_AFTER,
    Breaker,
    HttpClient,
    Refused,
    Unanswered,
    _retry_after,
    _without,
    is_unsent,
)

LIMIT = 1 << 22
KEY = "sk-proj-0123456789abcdefghijklmnopqrstuvwxyz"


def ask(reply: Reply, key: str = "", times: int = 1, attempts: int = 1) -> Answer:
    """The answer of a server that gives this reply to everything."""
    body = {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": as_data_url(tagged(0))}}]}
        ]
    }

    async def asked(url: str) -> Answer:
        client = ChatClient(url, key, timeout=20, attempts=attempts, first_pause=0.01)
        async with client.connected() as connected:
            for _ in range(times):
                answer = await connected.ask(body)
        return answer

    with Server(lambda index, attempt: reply) as server:
        try:
            return asyncio.run(asked(server.url))
        finally:
            ask.headers = server.headers  # type: ignore[attr-defined]


def packed(content: bytes, how: str) -> Reply:
    pack = gzip.compress if how == "gzip" else zlib.compress
    return Reply(pack(content), headers={"Content-Encoding": how})


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", "SOCKS"),
        ("HTTP_PROXY", "http://localhost:port", "Invalid port"),
        ("ALL_PROXY", "foo://me:secret@localhost", "Unknown scheme"),
        ("SSL_CERT_FILE", "/nowhere.pem", "No such file"),
    ],
)
def test_a_proxy_or_certificates_that_cannot_be_used_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    if reason == "SOCKS" and find_spec("socksio"):
        pytest.skip("with socksio a SOCKS proxy can be used")
    monkeypatch.setenv(variable, value)
    client = HttpClient("https://192.0.2.1/v1", "", timeout=1, attempts=1)
    with pytest.raises(SdgError, match=rf"^The environment's proxy or certificates .*{reason}") as raised:
        client.once("GET", "", bytes)
    assert str(raised.value).endswith("correct HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or SSL_CERT_FILE.")
    assert "secret" not in str(raised.value)


def test_an_answer_as_large_as_the_bound_is_read_and_a_larger_one_is_refused() -> None:
    whole = completion(CLEAN).content
    assert ask(Reply(whole.ljust(LIMIT))).text == CLEAN
    with pytest.raises(Refused, match=r"^The server's answer is larger than 4,194,304 bytes\.$"):
        ask(Reply(whole.ljust(LIMIT + 1)))


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_packed_answers_are_read_and_bombs_are_refused_in_little_memory(how: str) -> None:
    whole = completion(CLEAN).content
    assert ask(packed(whole, how)).text == CLEAN
    bomb = packed(whole + b" " * (1 << 28), how)
    assert len(bomb.content) < 1 << 20
    tracemalloc.start()
    with pytest.raises(Refused, match=r"larger than 4,194,304 bytes"):
        ask(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 26


@pytest.mark.parametrize("status", [400, 500])
def test_an_error_that_is_a_bomb_is_still_the_error(status: int) -> None:
    bomb = packed(b"too busy " * (1 << 22), "gzip")
    bomb.status = status
    with pytest.raises((Refused, Unanswered), match=rf"^The server answered {status}: too busy too busy"):
        ask(bomb)


def test_what_is_packed_otherwise_damaged_or_cut_is_no_answer() -> None:
    whole = completion(CLEAN).content
    for reply in (
        Reply(whole, headers={"Content-Encoding": "br"}),
        Reply(whole, headers={"Content-Encoding": "gzip, gzip"}),
        Reply(whole, headers={"Content-Encoding": "gzip"}),
        Reply(gzip.compress(whole)[:-6], headers={"Content-Encoding": "gzip"}),
    ):
        with pytest.raises(Unanswered):
            ask(reply)


def test_headers_without_end_are_no_answer() -> None:
    whole = completion(CLEAN).content
    for headers in ({"X-Long": "a" * (1 << 20)}, {f"X-{n}": "a" * 1000 for n in range(1000)}):
        with pytest.raises(Unanswered, match=r"^The connection to the server failed: ") as caught:
            ask(Reply(whole, headers=headers))
        assert len(str(caught.value)) < 300


def test_cookies_of_a_server_are_not_kept() -> None:
    ask(Reply(completion(CLEAN).content, headers={"Set-Cookie": "a=" + "b" * 3000}), times=2)
    assert len(ask.headers) == 2  # type: ignore[attr-defined]
    assert not any("Cookie" in headers for headers in ask.headers)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words",
    [
        f"Bad key {KEY}.",
        f"Bad key {KEY[:20]}… and {KEY[-14:]}",
        "x" * 190 + KEY,  # cut in the middle, were it cut first
        "x" * 395 + KEY,
        f"{KEY[:20]}\x00{KEY[20:]}",
        f"{KEY[:9]}\u202e{KEY[9:]}",
        f"{KEY[:22]}\n{KEY[22:]}",
    ],
)
def test_no_piece_of_the_key_is_in_an_error(words: str) -> None:
    for reply in (error(401, words), Reply(words.encode(), 401)):
        with pytest.raises(Refused) as caught:
            ask(reply, KEY)
        said = str(caught.value)
        assert not any(KEY[at : at + 12] in said for at in range(len(KEY) - 11))
        if not words.startswith("x" * 395):
            assert "[key]" in said


@given(st.text("abc", max_size=40), st.text("abc", min_size=1, max_size=16), st.text("abc", max_size=40))
def test_a_key_is_taken_out_wherever_it_stands(before: str, key: str, after: str) -> None:
    left = _without(before + key + after, key)
    assert key not in left
    assert not any(key[at : at + 12] in left for at in range(len(key) - 11))
    assert _without(before + after, "k" * 20) == before + after


def test_a_servers_words_hold_no_control_characters() -> None:
    with pytest.raises(Refused) as caught:
        ask(error(400, "a\x1b]0;owned\x07b\x9b31mc\u202ed\u2066e\u2028f"))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Mon, 01 Jan 2026 99:99:99 GMT",
        "Mon, 01 Jan 2026 00:00:00 +99999999999999",
        "Mon, 01 Jan 2026 00:00:00 -0000",
        "nan",
        "-nan",
        "inf",
        "-inf",
        "1e999",
        "-3",
        "9" * 5000,
        "1" * 50_000 + " Jan",
        "",
        "soon",
        "٣",
        "0x10",
        "1, 2",
        ",,:::;;;",
    ],
)
def test_any_retry_after_is_a_number_of_seconds(value: str) -> None:
    assert _retry_after(value) >= 0  # which NaN is not
    assert 0 <= min(_retry_after(value), LONGEST_RETRY_AFTER) <= LONGEST_RETRY_AFTER


@settings(max_examples=500)
@given(
    st.one_of(
        st.text(max_size=60),
        st.from_regex(r"(Mon, )?[0-9]{1,14} (Jan|Feb) -?[0-9]{1,14} [0-9:]{1,12} ?(GMT|[+-][0-9]{1,12})?"),
    )
)
def test_no_text_of_a_retry_after_is_an_error(value: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert _retry_after(value) >= 0


def test_a_retry_after_is_read() -> None:
    assert _retry_after(None) == 0
    assert _retry_after("2.5") == 2.5
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3500 < _retry_after(later) <= 3600


def test_an_odd_retry_after_costs_no_answer() -> None:
    with pytest.raises(Unanswered, match=r"^The server answered 503: no \(2 attempts\)\.$"):
        ask(error(503, Retry_After="Mon, 01 Jan 99999999999 00:00:00 GMT"), attempts=2)


@pytest.mark.parametrize("behaviour", ["hang", "drop", "busy", "large"])
@pytest.mark.parametrize(("signals", "apart"), [(1, 0.0), (2, 0.3), (3, 0.03)])
def test_ctrl_c_ends_the_asking_without_a_traceback_of_asyncio(
    tmp_path: Path, behaviour: str, signals: int, apart: float
) -> None:
    def behave(index: int, attempt: int) -> Reply:
        return {
            "hang": Reply(b"", delay=3),
            "drop": Reply(b"", delay=0.05, hang_up=True),
            "busy": error(503),
            "large": Reply(b" " * LIMIT * 2, drip=0.001),
        }[behaviour]

    for index in range(24):
        tagged(index).save(tmp_path / f"{index:02}.png")
    with Server(behave) as server:
        process = subprocess.Popen(
            [
                *(sys.executable, "-X", "dev", "-W", "ignore", "-m", "sdg", "diagnose", tmp_path),
                *("--prompt", "a", "--detector", f"openai:{server.url}#toy", "--out", tmp_path / "out.jsonl"),
            ],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            env=os.environ | {"NO_COLOR": "1", "PYTHONMALLOC": "pymalloc"},  # of -X dev, but its slow memory
        )
        while len(server.headers) < 8 and process.poll() is None:
            time.sleep(0.02)
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            time.sleep(apart)
        _, said = process.communicate(timeout=30)
    assert "never retrieved" not in said
    if process.returncode == -signal.SIGINT and signals > 2:
        return  # the last of many comes when Python is already shutting down, and ends it there
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "Aborted!" in said


def test_only_a_breaker_says_that_nothing_was_sent() -> None:
    breaker = Breaker(1, "images")
    breaker.failed("The server answers 503.")
    assert is_unsent(breaker.reason)
    # What a server says in the words of a breaker was asked all the same.
    assert not is_unsent(f"The server answers 400: {breaker.reason}")
    assert not is_unsent("")
