"""`openai:BASE_URL#MODEL`: any OpenAI-compatible server, asked concurrently, with retries and deadlines.

Every image ends with an answer or with the sentence why there is none; nothing unanswered reads as clean.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from sdg.defects import Diagnosis
from sdg.detectors.base import Stream, StreamingDetector, failed
from sdg.errors import SdgError, quoted
from sdg.images import Pair
from sdg.io.asking import Ask, asked_over
from sdg.io.chat import ChatClient
from sdg.io.http import Breaker, Refused, Unanswered, is_address
from sdg.prompting import PromptProfile
from sdg.prompting.chat import completion_body
from sdg.response import cut_off, parse_response
from sdg.response.gate import structural_tag

CONCURRENCY: Final = 8
TIMEOUT: Final = 300.0
ATTEMPTS: Final = 6
KEY_NAME: Final = "OPENAI_API_KEY"
REST: Final = 60.0
"""Seconds for which a server that answers nothing is left alone."""


class OpenAIDetector(StreamingDetector):
    """Asks a server's chat completions, several images at a time, in lossless PNG.

    concurrency: images at a time; by default CONCURRENCY in `stream`, and over `connected` all there are.
    timeout: seconds that one attempt may take from first to last byte. attempts: how often an image is
    asked for in all, with growing pauses, where the server is busy, broken, late or gone. Once
    2·concurrency + 8 images in a row got no answer, in one call or several, none is asked for REST seconds
    from the last: a server that hangs costs a run its deadlines once, not again in every batch.
    Pictures are brought within the profile's limits before they are sent, as for weights loaded here.
    key_name: the environment variable that holds the API key, if the server wants one.
    structured: hold the answer block to its grammar, as vLLM from 0.12 can; for models that were not trained
    on the format, whose thinking stays free. A server that cannot refuses, or answers as without.
    """

    profile: PromptProfile

    def __init__(
        self,
        base_url: str,
        model: str,
        profile: PromptProfile,
        *,
        concurrency: int | None = None,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        first_pause: float = 1.0,
        key_name: str = KEY_NAME,
        structured: bool = False,
    ) -> None:
        if not is_address(base_url):
            raise SdgError(
                f"{quoted(base_url)} is no address of a server; write openai:http://localhost:8000/v1#MODEL."
            )
        key = os.environ.get(key_name, "")
        if not key and key_name != KEY_NAME:
            raise SdgError(f"The environment variable {key_name} is not set; put the API key into it.")
        self._grammar = json.dumps(structural_tag(**profile.answer.rendering())) if structured else None
        self._model, self.profile, self.at_once = model, profile, concurrency
        self._concurrency = self.batch_size = concurrency or CONCURRENCY
        self._breaker = Breaker(2 * self._concurrency + 8, "images", REST)
        self._client = ChatClient(base_url, key, timeout=timeout, attempts=attempts, first_pause=first_pause)

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        # Without the address: a server may come back elsewhere, its answers are the model's.
        identity = {"detector": "openai", "model": self._model, "profile": self.profile.digest[:12]}
        return identity | ({"structured": "true"} if self._grammar else {})

    def stream(self, pairs: Sequence[Pair], wanted: Collection[int] | None = None) -> Stream:
        indices = range(len(pairs)) if wanted is None else sorted(wanted)
        return self._client.each(
            indices, lambda client, index: self._diagnosis(client, pairs[index], index), self._concurrency
        )

    def connected(self) -> AbstractAsyncContextManager[Ask[Diagnosis]]:
        return asked_over(self._client.connected(), self._diagnosis)

    def stop(self) -> bool:
        return self._client.stop()

    async def _diagnosis(self, client: ChatClient, pair: Pair, index: int) -> Diagnosis:
        """The diagnosis of one pair, failed where the server is to blame or is left alone."""
        if reason := self._breaker.reason:
            return failed(reason)
        try:
            body = await asyncio.to_thread(completion_body, self.profile, self._model, *pair, index)
            if self._grammar is not None:
                body["structured_outputs"] = {"structural_tag": self._grammar}
            answer = await client.ask(body)
        except SdgError as error:  # of the pair: nothing was sent
            return failed(str(error))
        except Unanswered as error:
            self._breaker.failed(str(error))
            return failed(str(error))
        except Refused as error:
            self._breaker.answered()
            return failed(str(error))
        self._breaker.answered()
        diagnosis = parse_response(answer.text, require_think=self.profile.answer.think)
        return cut_off(diagnosis) if answer.cut_off else diagnosis
