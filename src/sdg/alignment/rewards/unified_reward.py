"""UnifiedReward-2.0 behind an OpenAI-compatible server: R = (0.8·alignment + 0.1·coherence + 0.1·style)/5.

The model answers with three lines, "Alignment Score (1-5): …" and so on (SDG §5, App. D). An answer that
cannot be read is missing, never 0.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Final

from PIL import Image

from sdg.errors import SdgError

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

_LOG = logging.getLogger("sdg.alignment")
_ATTEMPTS: Final = 3


def read_scores(answer: str) -> float | None:
    """The weighted score in 0.2..1 of an answer; None unless all three are there and within 1–5."""
    total = 0.0
    for name, weight in WEIGHTS.items():
        found = re.findall(rf"{name} Score\**\s*(?:\(1-5\))?\**\s*:\s*\**\s*(\d+(?:\.\d+)?)", answer, re.I)
        if not found or len(set(found)) > 1 or not 1 <= float(found[0]) <= 5:
            return None
        total += weight * float(found[0])
    return total / 5


class UnifiedReward:
    """Asks a served model for the score of each picture, many at a time."""

    def __init__(self, base_url: str, model: str, *, timeout: float = 120, parallel: int = 16) -> None:
        """base_url: up to and with /v1; timeout: seconds a request. The key is OPENAI_API_KEY, if set."""
        if not base_url.startswith(("http://", "https://")):
            raise SdgError(f"{base_url!r} is no server's address; write http://HOST:PORT/v1.")
        if timeout <= 0 or parallel < 1:
            raise SdgError("A scorer's timeout is above 0 and parallel at least 1.")
        self.url, self.model = base_url.rstrip("/") + "/chat/completions", model
        self.timeout, self.parallel = timeout, parallel

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """Scores at temperature 0; None where the server failed thrice or answered unreadably."""
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(self._score_one, pictures, prompts))

    def _score_one(self, picture: Image.Image, prompt: str) -> float | None:
        buffer = BytesIO()
        picture.convert("RGB").save(buffer, format="PNG")
        image = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        content = [
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "text", "text": QUESTION.format(prompt=prompt)},
        ]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": 256,
        }
        answer = self._ask(json.dumps(body).encode())
        score = None if answer is None else read_scores(answer)
        if answer is not None and score is None:
            _LOG.warning("No scores could be read from the answer %r.", answer[:200])
        return score

    def _ask(self, body: bytes) -> str | None:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        reason = ""
        for _ in range(_ATTEMPTS):
            request = urllib.request.Request(self.url, body, headers)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    text = json.load(response)["choices"][0]["message"]["content"]
                return text if isinstance(text, str) else None
            except urllib.error.HTTPError as error:
                if error.code in (401, 403, 404):  # true of every picture, and of the next attempt
                    raise SdgError(
                        f"{self.url} refuses model {self.model} (HTTP {error.code}); "
                        "check the address, the model's name and OPENAI_API_KEY."
                    ) from None
                reason = f"HTTP {error.code}"
            except (OSError, ValueError, LookupError, TypeError) as error:  # no connection, or no such answer
                reason = str(error) or type(error).__name__
        _LOG.warning("%s gave no answer in %d attempts: %s.", self.url, _ATTEMPTS, reason)
        return None
