"""UnifiedReward-2.0 behind an OpenAI-compatible server: R = (0.8·alignment + 0.1·coherence + 0.1·style)/5.

The model answers with three lines, "Alignment Score (1-5): …" and so on (SDG §5, App. D). An answer that
cannot be read is missing, never 0.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from PIL import Image

from sdg.errors import SdgError, quoted
from sdg.io.chat import ChatServer, Refused, Unanswered, as_data_url
from sdg.io.http import is_address

WEIGHTS: Final = {"Alignment": 0.8, "Coherence": 0.1, "Style": 0.1}
QUESTION: Final = """Please judge a picture that a text-to-image model made for this caption:
{prompt}

Give three scores, each from 1 (very poor) to 5 (excellent), decimals allowed:
- Alignment: how well the picture shows what the caption asks for;
- Coherence: how free it is of distortions, artifacts and impossible structure;
- Style: how pleasing it looks, whatever the caption.

Answer with these three lines only:
Alignment Score (1-5): X
Coherence Score (1-5): Y
Style Score (1-5): Z"""

# Blanks and marks such as "- **" around the name, the range and the number; "4/5" is 4.
_LINE: Final = (
    r"^[ \t>*_#-]*+{name} Score[ \t*_]*+(?:\(1-5\))?[ \t*_]*+:[ \t*_]*+"
    r"([0-9]+(?:\.[0-9]+)?)(?:[ \t]*+/[ \t]*+5)?[ \t*_.]*+\r?$"
)
_THOUGHT: Final = re.compile(r"<think>.*", re.DOTALL)

_LOG = logging.getLogger("sdg.alignment")
_ATTEMPTS: Final = 6
_REFUSES_ALL: Final = frozenset({401, 403, 404})  # true of every picture


def read_scores(answer: str) -> float | None:
    """The weighted score in 0.2..1 of an answer; None unless all three are there and within 1–5.

    Each stands on a line of its own, once: a score inside a sentence or an error's text is a mention. What
    a think block holds is none, and all that follows `<think>` where it is never closed.
    """
    said = _THOUGHT.sub("", answer.rpartition("</think>")[2])
    total = 0.0
    for name, weight in WEIGHTS.items():
        found = re.findall(_LINE.format(name=name), said, re.IGNORECASE | re.MULTILINE)
        if not found or len(set(found)) > 1 or not 1 <= float(found[0]) <= 5:
            return None
        total += weight * float(found[0])
    return total / 5


class UnifiedReward:
    """Asks a served model for the score of each picture, many at a time and as patiently as detectors do."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        timeout: float = 120,
        parallel: int = 16,
        attempts: int = _ATTEMPTS,
        first_pause: float = 1.0,
    ) -> None:
        """base_url: up to and with /v1; the key is OPENAI_API_KEY, if set; the rest as in `PatientServer`."""
        if not is_address(base_url):
            raise SdgError(f"{quoted(base_url)} is no server's address; write http://HOST:PORT/v1.")
        if timeout <= 0 or parallel < 1:
            raise SdgError("A scorer's timeout is above 0 and parallel at least 1.")
        self.base_url, self.model, self.parallel = base_url, model, parallel
        key = os.environ.get("OPENAI_API_KEY", "")
        # A client belongs to the event loop it is used in, so that each call makes its own.
        self._server = partial(
            ChatServer, base_url, key, timeout=timeout, attempts=attempts, first_pause=first_pause
        )
        self._server()  # says at once what is wrong with the key

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """Scores at temperature 0; None where the server kept failing or answered unreadably."""
        # A thread of its own, because the caller may be inside of an event loop already (a notebook).
        with ThreadPoolExecutor(1, thread_name_prefix="sdg-unified-reward") as apart:
            return apart.submit(asyncio.run, self._score_all(pictures, prompts)).result()

    async def _score_all(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        free = asyncio.Semaphore(self.parallel)
        try:
            async with self._server() as server, asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._score_one(server, picture, prompt, free))
                    for picture, prompt in zip(pictures, prompts, strict=True)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _score_one(
        self, server: ChatServer, picture: Image.Image, prompt: str, free: asyncio.Semaphore
    ) -> float | None:
        async with free:
            try:
                answer = await server.ask(await asyncio.to_thread(self._body, picture, prompt))
            except Unanswered as error:
                _LOG.warning("A picture has no base reward: %s", error)
                return None
            except Refused as error:
                if error.status in _REFUSES_ALL:
                    raise SdgError(
                        f"{self.base_url} refuses model {self.model} (HTTP {error.status}); "
                        "check the address, the model's name and OPENAI_API_KEY."
                    ) from None
                _LOG.warning("A picture has no base reward: %s", error)
                return None
        score = None if answer.cut_off else read_scores(answer.text)  # its last figure may lack a digit
        if score is None:
            _LOG.warning("No scores could be read from the answer %r.", answer.text[-200:])
        return score

    def _body(self, picture: Image.Image, prompt: str) -> dict[str, Any]:
        content = [
            {"type": "image_url", "image_url": {"url": as_data_url(picture.convert("RGB"))}},
            {"type": "text", "text": QUESTION.format(prompt=prompt)},
        ]
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": 256,
        }
