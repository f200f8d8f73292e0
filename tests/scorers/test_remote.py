"""A remote scorer whose server hangs, dies, lies or talks nonsense: left out and counted, the run goes on."""

from __future__ import annotations

import json
import logging
import threading
import time

import pytest
from bad_server import Reply
from PIL import Image
from scoring_server import answering, cut

from sdg.alignment.rollout import Score, check_failures
from sdg.errors import SdgError
from sdg.io.picture_client import parts
from sdg.scorers import load_scorer
from sdg.scorers.remote import RemoteScorer

PICTURES = [Image.new("RGB", (8, 8), (red, 0, 0)) for red in range(4)]
PROMPTS = ["a", "b", "c", "d"]


def ask(url: str, **options: float) -> list[float | None]:
    settings = {"batch": 2, "timeout": 5.0, "attempts": 1, "first_pause": 0.01} | options
    return RemoteScorer(url, **settings).score(PICTURES, PROMPTS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"scores": [1, 2.5]}', [1, 2.5] * 2),
        (b'{"scores": [NaN, 2]}', [None, 2] * 2),
        (b'{"scores": [Infinity, -1e999]}', [None, None] * 2),
        (b'{"scores": ["1", true]}', [None, None] * 2),
        (b'{"scores": [null, ' + b"9" * 400 + b"]}", [None, None] * 2),
        (b'{"scores": [1]}', [None] * 4),
        (b'{"scores": [1, 2, 3]}', [None] * 4),
        (b'{"scores": {"0": 1}}', [None] * 4),
        (b'{"score": [1, 2]}', [None] * 4),
        (b"[" * 100_000, [None] * 4),
        (b"oops", [None] * 4),
    ],
)
def test_only_one_number_a_picture_is_a_score(content: bytes, found: list[float | None]) -> None:
    with answering(lambda items: content) as url:
        assert ask(url) == found


def test_a_refused_or_failing_batch_costs_its_own_pictures() -> None:
    def answer(items: list[dict]) -> bytes | int:
        return 413 if items[0]["prompt"] == "a" else b'{"scores": [1, 2]}'

    with answering(answer) as url:
        assert ask(url) == [None, None, 1, 2]
    failures = iter([503, 503])

    def busy(items: list[dict]) -> bytes | int:
        return next(failures, b'{"scores": [1, 2]}')

    with answering(busy) as url:
        assert ask(url, attempts=4) == [1, 2, 1, 2]  # asked again


def test_a_server_that_hangs_costs_its_deadlines_once(caplog: pytest.LogCaptureFixture) -> None:
    free, asked = threading.Event(), []

    def hang(items: list[dict]) -> bytes:
        asked.append(items)
        free.wait(20)
        return b"{}"

    with answering(hang) as url, caplog.at_level(logging.WARNING, "sdg.scorers"):
        scorer = RemoteScorer(url, batch=1, timeout=0.2, attempts=1)
        assert scorer.score(PICTURES, PROMPTS) == [None] * 4
        assert scorer.score(PICTURES, PROMPTS) == [None] * 4
        free.set()
    assert 2 <= len(asked) <= 3  # two at a time, and none after two without an answer
    assert "Not asked, as 2 requests in a row got no answer" in caplog.text


def test_a_server_that_dies_in_the_middle_of_an_answer_costs_the_pictures_of_that_request() -> None:
    whole = b'{"scores": [1, 2]}'

    def answer(items: list[dict]) -> bytes | Reply:
        return cut(whole) if items[0]["prompt"] == "a" else whole

    with answering(answer) as url:
        assert ask(url) == [None, None, 1, 2]
    deaths = iter([True, True])

    def reborn(items: list[dict]) -> bytes | Reply:
        return cut(whole) if next(deaths, False) else whole

    with answering(reborn) as url:
        assert ask(url, attempts=4) == [1, 2, 1, 2]  # asked again


def test_half_an_answer_is_no_answer_even_where_it_reads_as_one() -> None:
    content = b'{"scores": [1, 2]}'
    with answering(lambda items: Reply(content, claimed=2 * len(content))) as url:
        assert ask(url) == [None] * 4


def test_a_server_that_is_not_there_leaves_all_without_a_score() -> None:
    with answering(lambda items: b"") as url:
        pass
    assert ask(url) == [None] * 4


def test_a_request_that_is_none_costs_its_own_pictures_alone() -> None:
    with answering(lambda items: 400) as url:  # which another server may say of a single picture
        assert ask(url) == [None] * 4


def test_an_address_without_a_scorer_stops_with_a_sentence() -> None:
    for status in (404, 415):
        with answering(lambda items: status) as url, pytest.raises(SdgError, match="`sdg serve scorer`"):  # noqa: B023
            ask(url)
    with pytest.raises(SdgError, match="is no server's address"):
        load_scorer("remote:localhost")
    with pytest.raises(SdgError, match="has no option 'bach'; did you mean 'batch'"):
        load_scorer("remote:http://localhost:1?bach=2")


def test_a_run_stops_when_more_than_max_failed_have_no_score() -> None:
    def half(items: list[dict]) -> bytes:
        return b'{"scores": [NaN, 2]}'

    with answering(half) as url:
        scores = [Score(score, None) for score in ask(url)]
    check_failures(scores, 0.5, detector=False)
    with pytest.raises(SdgError, match="base reward gave nothing usable for 2 of 4 pictures"):
        check_failures(scores, 0.4, detector=False)


def test_requests_hold_a_bounded_number_of_pixels() -> None:
    pixels = [4 * 2**20, 4 * 2**20, 1, 9 * 2**20, 5, 5, 5]
    assert [list(part) for part in parts(pixels, 2)] == [[0, 1], [2], [3], [4, 5], [6]]
    assert list(parts([], 2)) == []


def test_order_holds_however_batches_end() -> None:
    def answer(items: list[dict]) -> bytes:
        time.sleep(0.1 if items[0]["prompt"] == "a" else 0)
        return json.dumps({"scores": [ord(item["prompt"]) for item in items]}).encode()

    with answering(answer) as url:
        assert ask(url) == [97, 98, 99, 100]
