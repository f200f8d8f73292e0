"""UnifiedReward-2.0 behind an OpenAI-compatible server: R = (0.8·alignment + 0.1·coherence + 0.1·style)/5.

The model answers with three lines, "Alignment Score (1-5): …" and so on (SDG §5, App. D). An answer that
cannot be read is missing, never 0. How it is asked is a prompt profile: ours, the release's, or a file's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from PIL import Image

from sdg.errors import SdgError, quoted
from sdg.images import Pair
from sdg.io.asking import Ask, asked_over
from sdg.io.chat import ChatClient
from sdg.io.http import Refused, Unanswered, is_address
from sdg.prompting import Generation, ImageLimits, PromptProfile
from sdg.prompting.chat import completion_body

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

OWN: Final = PromptProfile(
    name="unified-reward",
    system="",
    template=QUESTION,
    placeholder="{prompt}",
    image=ImageLimits(),
    generation=Generation(max_new_tokens=256),
)
"""Our own wording, for pictures of any size."""

# Blanks and marks such as "- **" around the name, the range and the number; "4/5" is 4.
_LINE: Final = (
    r"^[ \t>*_#-]*+{name} Score[ \t*_]*+(?:\(1-5\))?[ \t*_]*+:[ \t*_]*+"
    r"([0-9]+(?:\.[0-9]+)?)(?:[ \t]*+/[ \t]*+5)?[ \t*_.]*+\r?$"
)
_THOUGHT: Final = re.compile(r"<think>.*", re.DOTALL)

_LOG = logging.getLogger("sdg.alignment")
PARALLEL: Final = 16
TIMEOUT: Final = 120.0
ATTEMPTS: Final = 6
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
    """Asks a served model for the score of each picture, many at a time, with retries and deadlines."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        profile: PromptProfile | None = None,
        timeout: float = TIMEOUT,
        parallel: int | None = None,
        attempts: int = ATTEMPTS,
        first_pause: float = 1.0,
    ) -> None:
        """base_url: up to and with /v1; the key is OPENAI_API_KEY, if set; profile: by default `OWN`.

        parallel: pictures at a time; by default PARALLEL in `score`, and over `connected` all there are. The
        rest is as in `HttpClient`.
        """
        if not is_address(base_url):
            raise SdgError(f"{quoted(base_url)} is no server's address; write http://HOST:PORT/v1.")
        if timeout <= 0 or (parallel is not None and parallel < 1):
            raise SdgError("A scorer's timeout is above 0 and parallel at least 1.")
        self.base_url, self.model, self.at_once = base_url, model, parallel
        self.profile = profile or OWN
        key = os.environ.get("OPENAI_API_KEY", "")
        self._client = ChatClient(base_url, key, timeout=timeout, attempts=attempts, first_pause=first_pause)

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """One score a picture; None where the server kept failing or answered unreadably."""
        pairs = list(zip(pictures, prompts, strict=True))
        scores = dict(
            self._client.each(
                range(len(pairs)),
                lambda client, index: self._score_one(client, pairs[index], index),
                self.at_once or PARALLEL,
            )
        )
        return [scores[index] for index in range(len(pairs))]

    def connected(self) -> AbstractAsyncContextManager[Ask[float | None]]:
        """Connections over which single pictures are scored: the score of ((picture, prompt), index)."""
        return asked_over(self._client.connected(), self._score_one)

    async def _score_one(self, client: ChatClient, pair: Pair, index: int) -> float | None:
        try:
            body = await asyncio.to_thread(completion_body, self.profile, self.model, *pair, index)
            answer = await client.ask(body)
        except (Unanswered, Refused) as error:
            if isinstance(error, Refused) and error.status in _REFUSES_ALL:
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
