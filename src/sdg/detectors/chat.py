"""One chat completion from a server that may be slow, busy or broken: deadlines, retries, honest errors."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image

from sdg.errors import SdgError

LONGEST_PAUSE: Final = 60.0
LONGEST_RETRY_AFTER: Final = 600.0
_BUSY: Final = frozenset({408, 409, 425, 429})  # and every 5xx: asking again may help
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Refused(Exception):
    """The server will not answer this request, however often it is asked."""


class Unanswered(Exception):
    """No answer after every attempt; the reason is the last attempt's."""


class _TryAgain(Exception):
    """One attempt failed; `after`: how many seconds the server asks to be left alone."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of a response, its reasoning put back in front, and whether the token limit cut it off."""

    text: str
    cut_off: bool


class ChatServer:
    """A client of `POST {base_url}/chat/completions`, open within `async with`.

    timeout: seconds for one attempt, from first to last byte. attempts: in all. first_pause: seconds,
    doubled after each attempt up to a minute, drawn between half of it and all of it, so that many clients
    do not come back at once. `Retry-After` counts where it is longer (up to ten minutes).
    """

    def __init__(
        self, base_url: str, key: str, *, timeout: float, attempts: int, first_pause: float = 1.0
    ) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._key, self._timeout, self._attempts, self._first_pause = key, timeout, attempts, first_pause
        self._client: Any = None

    async def __aenter__(self) -> ChatServer:
        try:
            import httpx2
        except ImportError:
            raise SdgError(
                "Asking a server needs httpx2: pip install 'structured-defect-grounding[api]'."
            ) from None
        self._client = httpx2.AsyncClient(
            headers={"Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            timeout=None,  # each attempt has its own deadline; these would only bound its parts
            limits=httpx2.Limits(max_connections=None),
            # A proxy in the environment is for the world outside.
            trust_env=urlsplit(self._url).hostname not in _LOCAL,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """The answer to one request; raises Refused, or Unanswered after the last attempt."""
        content = json.dumps(body).encode("ascii")  # a prompt with half a surrogate pair stays sendable
        pause = self._first_pause
        for attempt in range(1, self._attempts + 1):
            try:
                return await self._attempt(content)
            except _TryAgain as error:
                if attempt == self._attempts:
                    raise Unanswered(f"{error} ({attempt} attempts).") from None
                wait = min(pause, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
                await asyncio.sleep(max(wait, min(error.after, LONGEST_RETRY_AFTER)))
                pause *= 2
        raise AssertionError("there is at least one attempt")

    async def _attempt(self, content: bytes) -> Answer:
        import httpx2

        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.post(self._url, content=content)
        except TimeoutError:
            raise _TryAgain(f"The server gave no whole answer within {self._timeout:g} s") from None
        except httpx2.RequestError as error:
            what = str(error) or type(error).__name__
            raise _TryAgain(f"The connection to the server failed: {self._clean(what)}") from None
        status = response.status_code
        if status == 200:
            return read_answer(response.content)
        reason = f"The server answered {status}: {self._clean(_message(response.content))}"
        if status in _BUSY or status >= 500:
            raise _TryAgain(reason, _retry_after(response.headers.get("Retry-After")))
        raise Refused(f"{reason}.")

    def _clean(self, text: str) -> str:
        """A server's words, cut short, in one line and without the API key, which some servers repeat."""
        text = " ".join(text.split()).rstrip(".")
        if self._key:
            text = text.replace(self._key, "[key]")
        return text if len(text) <= 200 else text[:200] + "…"


def read_answer(content: bytes) -> Answer:
    """The answer in a chat completion; raises _TryAgain where there is none, Refused where none will come.

    Servers that know about thinking hand out the think block apart from the content; it is put back, with
    its tags, so that the response is what the model wrote.
    """
    try:
        choice = json.loads(content)["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = message.get("content") or ""
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        if not isinstance(text, str) or not isinstance(reasoning, str):
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _TryAgain("The server's answer is no whole chat completion") from None
    if finish == "content_filter" or (not text and message.get("refusal")):
        raise Refused("The server's content filter refused to answer.")
    cut = finish == "length"
    if reasoning and "<think>" not in text:
        closing = "</think>\n" if text or not cut else ""
        text = f"<think>{reasoning}{closing}{text}"
    if not text.strip() and not cut:
        raise _TryAgain("The server's answer is empty")
    return Answer(text, cut)


def as_data_url(image: Image.Image) -> str:
    """An image as the text of a PNG, which loses nothing."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _message(content: bytes) -> str:
    """What an error response says."""
    try:
        error = json.loads(content)
        if isinstance(error, dict):
            error = error.get("error") or error.get("detail") or error  # OpenAI's key, FastAPI's key
        if isinstance(error, dict):
            error = error.get("message", error)
        return str(error)
    except ValueError:
        return content[:400].decode("utf-8", "replace") or "nothing"


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks to wait, given as a number or a date; 0 if there is none."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
