"""`openai:BASE_URL#MODEL`: any OpenAI-compatible server, asked concurrently, patiently and within bounds.

Every image ends with an answer or with the sentence why there is none; nothing unanswered reads as clean.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from sdg.detectors.base import Outcome, Pair, Source, StreamingDetector, failed
from sdg.errors import SdgError, quoted
from sdg.io.chat import ChatServer, Refused, Unanswered, as_data_url
from sdg.io.http import is_address
from sdg.prompting import PromptProfile
from sdg.prompting.chat import chat_turns, fitted_picture
from sdg.response import cut_off, parse_response

CONCURRENCY: Final = 8
TIMEOUT: Final = 300.0
ATTEMPTS: Final = 6
KEY_NAME: Final = "OPENAI_API_KEY"
REST: Final = 60.0
"""Seconds for which a server that answers nothing is left alone."""


class OpenAIDetector(StreamingDetector):
    """Asks a server's chat completions, several images at a time, in lossless PNG.

    timeout: seconds that one attempt may take from first to last byte. attempts: how often an image is
    asked for in all, with growing pauses, where the server is busy, broken, late or gone. Once
    2·concurrency + 8 images in a row got no answer, in one call or several, none is asked for REST seconds
    from the last: a server that hangs costs a run its patience once, not again in every batch.
    Pictures are brought within the profile's limits before they are sent, as for weights loaded here.
    key_name: the environment variable that holds the API key, if the server wants one.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        profile: PromptProfile,
        *,
        concurrency: int = CONCURRENCY,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        first_pause: float = 1.0,
        key_name: str = KEY_NAME,
    ) -> None:
        if not is_address(base_url):
            raise SdgError(
                f"{quoted(base_url)} is no address of a server; write openai:http://localhost:8000/v1#MODEL."
            )
        key = os.environ.get(key_name, "")
        if not key and key_name != KEY_NAME:
            raise SdgError(f"The environment variable {key_name} is not set; put the API key into it.")
        self._model, self._profile, self._concurrency = model, profile, concurrency
        self._unanswered, self._last, self._again_at = 0, "", 0.0
        # A client belongs to the event loop it is used in, so that each call makes its own.
        self._server = partial(
            ChatServer, base_url, key, timeout=timeout, attempts=attempts, first_pause=first_pause
        )
        self._server()  # says at once what is wrong with the key

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        # Without the address: a server may come back elsewhere, its answers are the model's.
        return {"detector": "openai", "model": self._model, "profile": self._profile.digest[:12]}

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        results: SimpleQueue[tuple[int, Outcome] | BaseException | None] = SimpleQueue()
        indices = list(range(len(pairs))) if wanted is None else sorted(wanted)
        stop = threading.Event()

        def work() -> None:
            try:
                asyncio.run(self._ask_all(pairs, indices, results, stop))
                results.put(None)
            except BaseException as error:  # handed to the caller's thread, which raises it
                results.put(error)

        # A thread of its own, because the caller may be inside of an event loop already (a notebook).
        thread = threading.Thread(target=work, name="sdg-openai", daemon=True)
        thread.start()
        try:
            while (result := results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            stop.set()
            thread.join()

    async def _ask_all(
        self,
        pairs: Sequence[Pair],
        indices: Sequence[int],
        results: SimpleQueue[Any],
        stop: threading.Event,
    ) -> None:
        waiting = iter(indices)

        async def ask_in_turn(server: ChatServer) -> None:
            for index in waiting:
                if self._unanswered >= 2 * self._concurrency + 8 and time.monotonic() < self._again_at:
                    in_a_row = f"{self._unanswered} images in a row got no answer"
                    outcome = failed(f"Not asked, as {in_a_row}: {self._last}")
                else:
                    try:
                        outcome = await self._ask(server, *pairs[index], index)
                        self._unanswered = 0 if not outcome.error else self._unanswered
                    except Unanswered as error:
                        self._unanswered, self._last = self._unanswered + 1, str(error)
                        self._again_at = time.monotonic() + REST
                        outcome = failed(self._last)
                results.put((index, outcome))

        async with self._server() as server:
            together = min(self._concurrency, len(indices))
            workers = [asyncio.ensure_future(ask_in_turn(server)) for _ in range(together)]
            try:
                done = asyncio.gather(*workers)
                while not done.done():
                    if stop.is_set():
                        return
                    await asyncio.wait([done], timeout=0.2)
                await done
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _ask(self, server: ChatServer, image: Source, prompt: str, index: int) -> Outcome:
        """The outcome of one pair; raises Unanswered where the server is to blame."""
        try:
            turns = await asyncio.to_thread(self._turns, image, prompt)
            answer = await server.ask(self._body(turns, index))
        except (SdgError, Refused) as error:
            return failed(str(error))
        diagnosis = parse_response(answer.text, require_think=self._profile.answer.think)
        return Outcome(cut_off(diagnosis) if answer.cut_off else diagnosis)

    def _turns(self, image: Source, prompt: str) -> list[dict[str, Any]]:
        url = as_data_url(fitted_picture(image, self._profile))
        return chat_turns(self._profile, prompt, {"type": "image_url", "image_url": {"url": url}})

    def _body(self, turns: list[dict[str, Any]], index: int) -> dict[str, Any]:
        generation = self._profile.generation
        body: dict[str, Any] = {"model": self._model, "messages": turns}
        body["max_completion_tokens"] = generation.max_new_tokens
        body["temperature"] = generation.temperature
        if generation.temperature > 0:  # a seed for each pair: one asked twice may get two answers
            body |= {"top_p": generation.top_p, "seed": generation.seed + index}
        return body
