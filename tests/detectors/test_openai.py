"""Asking a server: what comes back as an answer, what as a failure, and how patiently it is asked."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bad_server import CLEAN, Reply, Server, completion, error, tagged
from PIL import Image

import sdg
from sdg import Defect, Diagnosis
from sdg.detectors.base import StreamingDetector
from sdg.detectors.openai import REST, OpenAIDetector
from sdg.errors import SdgError
from sdg.prompting import AnswerParts, Generation, ImageLimits, PromptProfile

FOUND = Diagnosis((Defect((10, 20, 300, 400), "artifact", "the cup melts", 60),), "a cup")


def detector(server: Server, profile: PromptProfile | None = None, **options: Any) -> StreamingDetector:
    settings = {"timeout": 2.0, "attempts": 3, "first_pause": 0.01} | options
    return OpenAIDetector(server.url, "toy", profile or PromptProfile(), **settings)


def outcomes(behave: Callable[[int, int], Reply], count: int = 1, **options: Any) -> list[Any]:
    with Server(behave) as server:
        pairs = [(tagged(index), f"prompt {index}") for index in range(count)]
        found = dict(detector(server, **options).stream(pairs))
    return [found[index] for index in range(count)]


def test_answers_come_back_in_the_order_of_the_images_however_late_each_is() -> None:
    def behave(index: int, attempt: int) -> Reply:
        reply = completion(sdg.render_response(dataclasses.replace(FOUND, reasoning=f"picture {index}")))
        reply.delay = 0.02 * ((7 * index) % 5)
        return reply

    with Server(behave) as server:
        pairs = [(tagged(index), f"prompt {index}") for index in range(20)]
        found = detector(server, concurrency=5).diagnose(pairs)
    assert [d.reasoning for d in found] == [f"picture {index}" for index in range(20)]
    assert all(d.defects == FOUND.defects and d.status == "ok" for d in found)
    assert 2 <= server.busiest <= 5


def test_the_request_holds_the_profile_and_the_very_pixels() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    profile = PromptProfile(
        system="Look.",
        template="Caption: {caption}!",
        image=ImageLimits(max_pixels=5000),
        generation=Generation(max_new_tokens=77),
    )
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        detector(server, profile).diagnose([(image, "a {cat}")])
    (body,) = server.bodies
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Look."}
    picture, text = user["content"]
    assert text == {"type": "text", "text": "Caption: a {cat}!"}
    sent = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(sent))), np.asarray(image))
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("toy", 0, 77)
    assert "seed" not in body


def test_a_sampling_profile_sends_its_temperature_and_seed() -> None:
    profile = PromptProfile(generation=Generation(temperature=0.7, top_p=0.85, seed=5))
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        detector(server, profile).diagnose([(tagged(0), "a")])
    assert server.bodies[0].items() >= {"temperature": 0.7, "top_p": 0.85, "seed": 5}.items()


def test_pictures_above_the_limit_are_sent_smaller() -> None:
    profile = PromptProfile(image=ImageLimits(max_pixels=5000))
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        detector(server, profile).diagnose([(Image.new("RGB", (400, 200)), "a")])
    url = server.bodies[0]["messages"][-1]["content"][0]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert sent.size == (100, 50)


CHOICE = json.loads(completion(CLEAN).content)["choices"][0]


def body(**parts: Any) -> Reply:
    """A chat completion with other parts."""
    return Reply(json.dumps({"choices": [CHOICE]} | parts).encode())


MISDEEDS = {
    "500": error(500, "boom"),
    "503": error(503),
    "429": error(429, "slow down"),
    "half JSON": Reply(b'{"choices": [{"message": {"content": "<think>'),
    "half of the bytes": Reply(completion(CLEAN).content[:60], claimed=len(completion(CLEAN).content)),
    "no choices": Reply(b'{"choices": []}'),
    "an error with status 200": Reply(b'{"error": {"message": "overloaded"}}'),
    "a list": Reply(b"[]"),
    "nothing": Reply(b""),
    "no content": completion(None),
    "empty content": completion(""),
    "blank content": completion(" \n "),
    "content of another kind": completion([{"type": "text"}]),  # type: ignore[arg-type]
    "two choices": body(choices=[CHOICE, CHOICE]),
    "choices of another kind": body(choices={"0": CHOICE}),
    "an error beside the answer": body(error={"message": "overloaded"}),
    "an error in words": body(error="overloaded"),
    "an empty error": body(error={}),
    "an error for an object": body(object="error"),
    "an error in the choice": body(choices=[CHOICE | {"error": {"code": 502}}]),
    "an error in the message": completion(CLEAN, error="overloaded"),
    "ended by an error": completion(CLEAN, "error"),
    "aborted": completion(CLEAN, "abort"),
    "ended somehow": completion(CLEAN, ""),
    "ended by another kind": completion(CLEAN, {"type": "stop"}),  # type: ignore[arg-type]
    "the server's own words": completion(CLEAN, role="system"),
    "two bodies": Reply(completion(CLEAN).content + b"\n" + completion(CLEAN).content),
    "a stream": Reply(b"data: " + completion(CLEAN).content + b"\n\ndata: [DONE]\n"),
    "a page": Reply(b"<html><body>502 Bad Gateway []</body></html>"),
    "hang-up": Reply(b"", hang_up=True),
    "time-out": Reply(b"", delay=0.9),
    "a byte now and then": Reply(completion(CLEAN).content, drip=0.1),
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_a_server_that_keeps_misbehaving_gives_failed_and_never_clean(misdeed: str) -> None:
    (outcome,) = outcomes(lambda index, attempt: MISDEEDS[misdeed], timeout=0.6, attempts=2)
    assert outcome.status == "failed"
    assert not outcome.is_clean
    assert not outcome.is_informative
    assert outcome.error.endswith("(2 attempts).")


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_a_server_that_misbehaves_once_is_asked_again(misdeed: str) -> None:
    with Server(lambda i, attempt: MISDEEDS[misdeed] if attempt == 1 else completion(CLEAN)) as server:
        (found,) = detector(server, timeout=0.6).diagnose([(tagged(0), "a")])
    assert found.is_clean
    assert server.asked[0] == 2


def test_every_image_of_a_mixed_run_ends_with_a_status() -> None:
    kinds = list(MISDEEDS.values())

    def behave(index: int, attempt: int) -> Reply:
        return kinds[index // 2] if index % 2 else completion(CLEAN)

    found = outcomes(behave, 2 * len(kinds), timeout=0.6, attempts=2, concurrency=16)
    assert [o.status.value for o in found] == ["ok", "failed"] * len(kinds)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 307])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    with Server(lambda index, attempt: error(status, "not like that")) as server:
        ((_, outcome),) = detector(server).stream([(tagged(3), "a")])
    assert outcome.status == "failed"
    assert outcome.error == f"The server answered {status}: not like that."
    assert server.asked[3] == 1


def test_a_content_filter_is_a_failure() -> None:
    filtered = [
        completion("", "content_filter"),
        completion(CLEAN, "content_filter"),
        completion(None, refusal="I cannot help with that."),
        completion(CLEAN, refusal="I cannot help with that."),
    ]
    for reply in filtered:
        with Server(lambda index, attempt, reply=reply: reply) as server:
            ((_, outcome),) = detector(server).stream([(tagged(0), "a")])
        assert (outcome.status, "filter" in outcome.error) == ("failed", True)
        assert server.asked[0] == 1


@pytest.mark.parametrize(
    "reply",
    [
        completion(CLEAN, "tool_calls"),
        completion(CLEAN, "function_call"),
        completion(CLEAN, tool_calls=[{"id": "1"}]),
        completion(CLEAN, function_call={"name": "look"}),
    ],
)
def test_a_call_of_a_tool_is_a_failure(reply: Reply) -> None:
    (outcome,) = outcomes(lambda index, attempt: reply)
    assert (outcome.status, "call of a tool" in outcome.error) == ("failed", True)


def test_what_servers_add_to_a_whole_answer_does_not_matter() -> None:
    more = completion(CLEAN, refusal=None, tool_calls=[], function_call=None, audio=None, error=None)
    for reply in (more, completion(CLEAN, None), body(error=None, usage={"completion_tokens": 9})):
        (outcome,) = outcomes(lambda index, attempt, reply=reply: reply)
        assert outcome.is_clean


def test_an_empty_list_in_the_reasoning_alone_is_not_clean() -> None:
    for reasoning in ("[]", "<answer>[]</answer>", "Fine.</think><answer>[]</answer>", "</think>[]<think>"):
        for text in (None, "", " "):
            (outcome,) = outcomes(
                lambda index, attempt, text=text, why=reasoning: completion(text, reasoning_content=why)
            )
            assert outcome.status == "unparseable", reasoning


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(as_date: bool, pauses: list[float]) -> None:
    from email.utils import formatdate

    def behave(index: int, attempt: int) -> Reply:
        after = formatdate(time.time() + 300, usegmt=True) if as_date else "90"
        return error(429, Retry_After=after) if attempt == 1 else completion(CLEAN)

    with Server(behave) as server:
        detector(server, timeout=5.0).diagnose([(tagged(0), "a")])
    assert 200 < max(pauses) <= 300 if as_date else max(pauses) == 90


def test_pauses_grow_and_stay_within_their_bounds(pauses: list[float]) -> None:
    outcomes(lambda index, attempt: error(500), attempts=9, first_pause=1.0)
    waited = [pause for pause in pauses if pause > 0]
    assert len(waited) == 8
    for pause, most in zip(waited, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert most / 2 <= pause <= most


def test_a_server_that_is_not_there_fails_every_image_without_asking_for_each_in_vain() -> None:
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        url = server.url
    gone = OpenAIDetector(url, "toy", PromptProfile(), attempts=1, concurrency=2, timeout=1.0)
    found = dict(gone.stream([(tagged(index), "a") for index in range(40)]))
    assert len(found) == 40
    assert all(o.status == "failed" for o in found.values())
    not_asked = [o for o in found.values() if o.error.startswith("Not asked")]
    assert 40 - 2 * 2 - 8 - 2 <= len(not_asked) <= 40 - 2 * 2 - 8
    # Nor are those of the next calls, until it has rested.
    [again] = dict(gone.stream([(tagged(0), "a")])).values()
    assert again.error.startswith("Not asked")


def test_a_server_that_came_back_is_asked_again_after_its_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    up = False
    clock = [0.0]
    monkeypatch.setattr("sdg.io.http.time", SimpleNamespace(monotonic=lambda: clock[0]))
    with Server(lambda index, attempt: completion(CLEAN) if up else error(503)) as server:
        one = detector(server, attempts=1, concurrency=2)
        pairs = [(tagged(index), "a") for index in range(20)]
        assert all(found.status == "failed" for found in one.diagnose(pairs))
        asked = sum(server.asked.values())
        assert 12 <= asked < 20
        up = True
        clock[0] += REST
        assert all(found.is_clean for found in one.diagnose(pairs))
        assert sum(server.asked.values()) == asked + 20


def test_images_that_cannot_be_read_are_failed_and_the_others_are_not(tmp_path: Any) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    tagged(1).save(tmp_path / "whole.png")
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        pairs = [(tmp_path / "broken.png", "a"), (tmp_path / "whole.png", "b"), (tmp_path / "no.png", "c")]
        found = dict(detector(server).stream(pairs))
    assert [found[index].status.value for index in range(3)] == ["failed", "ok", "failed"]
    assert "broken.png" in found[0].error
    assert "does not exist" in found[2].error
    assert sum(server.asked.values()) == 1


@pytest.mark.parametrize("prompt", [None, 3, "half a \ud800 pair"])
def test_an_odd_prompt_costs_only_its_own_image(prompt: Any) -> None:
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        found = detector(server).diagnose([(tagged(0), prompt), (tagged(1), "a")])
    assert found[0].status == ("ok" if isinstance(prompt, str) else "failed")
    assert found[1].is_clean


def test_a_cut_off_answer_is_truncated_even_if_it_looks_whole() -> None:
    whole = sdg.render_response(FOUND)
    (outcome,) = outcomes(lambda index, attempt: completion(whole, "length"))
    assert outcome.status == "truncated"
    assert outcome.defects == FOUND.defects
    (clean,) = outcomes(lambda index, attempt: completion(CLEAN, "length"))
    assert not clean.is_clean
    (thought,) = outcomes(lambda index, attempt: completion("<think>\nI see", "length"))
    assert (thought.status, thought.is_clean) == ("truncated", False)
    (silent,) = outcomes(
        lambda index, attempt: completion("", "length")
    )  # all of it went into hidden thoughts
    assert (silent.status, silent.is_clean) == ("truncated", False)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_a_think_block_that_the_server_took_out_is_put_back(key: str) -> None:
    text = sdg.render_response(FOUND)
    think, _, answer = text.removeprefix("<think>").partition("</think>")
    (outcome,) = outcomes(lambda index, attempt: completion(answer.lstrip(), **{key: think}))
    assert outcome == FOUND
    (cut,) = outcomes(lambda index, attempt: completion(None, "length", **{key: "\nI see a"}))
    assert cut.status == "truncated"
    assert cut.raw == "<think>\nI see a"


def test_thinking_of_a_server_does_not_double_the_think_block_of_the_answer() -> None:
    text = sdg.render_response(FOUND)
    (outcome,) = outcomes(lambda index, attempt: completion(text, reasoning_content="Let me look."))
    assert outcome.raw == text


def test_a_profile_without_thinking_takes_a_bare_answer_for_whole() -> None:
    profile = PromptProfile(answer=AnswerParts(think=False))
    (outcome,) = outcomes(lambda index, attempt: completion("<answer>[]</answer>"), profile=profile)
    assert outcome.status == "ok"


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with (
        Server(lambda i, attempt: error(401, "Bad key sk-very-secret.")) as server,
        caplog.at_level(logging.DEBUG),
    ):
        asked = sdg.load_detector(f"openai:{server.url}?key=MY_KEY#toy")
        ((_, outcome),) = asked.stream([(tagged(0), "a")])
        asked.diagnose([(tagged(0), "a")])
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert outcome.error == "The server answered 401: Bad key [key]."
    assert "sk-very-secret" not in caplog.text + str(dict(asked.identity)) + repr(asked)


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        detector(server).diagnose([(tagged(0), "a")])
    assert "Authorization" not in server.headers[0]


def test_a_named_key_that_is_not_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(SdgError, match="environment variable NO_SUCH_KEY is not set"):
        sdg.load_detector("openai:http://127.0.0.1:9/v1#m?key=NO_SUCH_KEY")


@pytest.mark.parametrize("host", ["localhost:99999", "localhost:abc", "[::1", "", "localhost:0"])
def test_an_address_that_is_none_is_said_at_once(host: str) -> None:
    with pytest.raises(SdgError, match="is no address of a server"):
        OpenAIDetector(f"http://{host}/v1", "m", PromptProfile())


def test_a_key_that_fits_no_header_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("schlüssel", "two\nlines"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(SdgError, match="API key holds what no header can"):
            OpenAIDetector("http://localhost:9/v1", "m", PromptProfile())


def test_one_opened_file_in_many_pairs_is_read_once(tmp_path: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    with Server(lambda index, attempt: completion(CLEAN)) as server, Image.open(tmp_path / "a.png") as image:
        found = detector(server, concurrency=8).diagnose([(image, "a")] * 16)
    assert [one.status for one in found] == ["ok"] * 16


def test_threads_share_a_detector() -> None:
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        shared = detector(server, concurrency=4)
        with ThreadPoolExecutor(4) as threads:
            pairs = [(tagged(index), "a") for index in range(8)]
            found = list(threads.map(shared.diagnose, [pairs] * 8))
    assert all(one.status == "ok" for several in found for one in several)


def test_a_picture_in_memory_that_cannot_be_read_fails_alone(tmp_path: Any) -> None:
    Image.new("RGB", (90, 90), "red").save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    closed = Image.open(tmp_path / "a.png")
    closed.close()
    bad = [Image.open(tmp_path / "cut.png"), closed, Image.new("RGB", (0, 0))]
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        found = detector(server).diagnose([(image, "a") for image in [*bad, tagged(3)]])
    assert [one.status for one in found] == ["failed"] * 3 + ["ok"]


def test_it_works_inside_of_a_running_event_loop() -> None:
    async def notebook() -> list[Diagnosis]:
        with Server(lambda index, attempt: completion(CLEAN)) as server:
            return detector(server).diagnose([(tagged(0), "a")])

    assert asyncio.run(notebook())[0].is_clean


def test_leaving_the_stream_stops_the_asking() -> None:
    left = threading.Event()

    def behave(index: int, attempt: int) -> Reply:
        if index:  # so the stream is left while others are out
            left.wait(60)
        return completion(CLEAN)

    with Server(behave) as server:
        stream = detector(server, concurrency=2).stream([(tagged(index), "a") for index in range(100)])
        next(stream)
        stream.close()
        left.set()
        time.sleep(0.3)  # for what would be asked nevertheless
        assert sum(server.asked.values()) <= 1 + 2


def test_no_pairs_ask_nothing() -> None:
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        assert detector(server).diagnose([]) == []
    assert not server.asked


def test_failures_in_between_do_not_stop_a_run() -> None:
    def behave(index: int, attempt: int) -> Reply:
        return error(500) if index % 3 else completion(CLEAN)

    found = outcomes(behave, 45, attempts=1, concurrency=1)
    assert [o.status == "failed" for o in found] == [bool(index % 3) for index in range(45)]
    assert not any(o.error.startswith("Not asked") for o in found)


def test_refusals_in_between_are_answers_and_do_not_stop_a_run_either() -> None:
    found = outcomes(lambda index, attempt: error(500 if index % 3 else 400), 45, attempts=1, concurrency=1)
    assert all(o.status == "failed" for o in found)
    assert not any(o.error.startswith("Not asked") for o in found)


def test_a_server_on_this_machine_is_not_sought_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    (outcome,) = outcomes(lambda index, attempt: completion(CLEAN), attempts=1)
    assert outcome.is_clean


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"error": {"message": "too long", "code": 3}}', "too long"),
        (b'{"error": "too long"}', "too long"),
        (b'{"detail": "too long"}', "too long"),
        (b'{"message": "too\\nlong."}', "too long"),
        (b"<html>too long</html>", "<html>too long</html>"),
        (b"", "nothing"),
        (b"x" * 900, "x" * 200 + "…"),
        (b"[" * 100_000, "[" * 200 + "…"),
    ],
)
def test_the_servers_own_words_are_in_the_error(content: bytes, words: str) -> None:
    (outcome,) = outcomes(lambda index, attempt: Reply(content, 400))
    assert outcome.error == f"The server answered 400: {words}."


def test_a_grammar_is_sent_where_it_is_asked_for_and_nowhere_else() -> None:
    pair = [(tagged(0), "a")]
    with Server(lambda index, attempt: completion(CLEAN)) as server:
        plain = sdg.load_detector(f"openai:{server.url}#toy", profile="default")
        held = sdg.load_detector(f"openai:{server.url}?structured=true#toy", profile="default")
        assert [one.diagnose(pair)[0].status for one in (plain, held)] == ["ok", "ok"]
    without, with_it = server.bodies
    tag = json.loads(with_it.pop("structured_outputs")["structural_tag"])
    assert tag["format"]["tags"][0]["begin"] == "<answer>\n"
    assert without == with_it
    assert plain.identity != held.identity
    with pytest.raises(SdgError, match="structured is true or false, not 'maybe'"):
        sdg.load_detector(f"openai:{server.url}?structured=maybe#toy")


def test_a_server_without_grammars_says_so_for_each_picture() -> None:
    with Server(lambda index, attempt: error(400, "structured_outputs is not supported")) as server:
        [found] = sdg.load_detector(f"openai:{server.url}?structured=true#toy", profile="default").stream(
            [(tagged(0), "a")]
        )
    assert "structured_outputs is not supported" in found[1].error
