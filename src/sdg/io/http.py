"""One HTTP request to a server that may be slow, busy or broken: deadlines, retries, honest errors."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from sdg.errors import SdgError

T = TypeVar("T")

LONGEST_PAUSE: Final = 60.0
LONGEST_RETRY_AFTER: Final = 600.0
_BUSY: Final = frozenset({408, 409, 425, 429})  # and every 5xx: asking again may help
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Refused(Exception):
    """The server will not answer this request, however often it is asked; status: HTTP's, if it gave one."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class Unanswered(Exception):
    """No answer after every attempt; the reason is the last attempt's."""


class TryAgain(Exception):
    """One attempt failed; `after`: how many seconds the server asks to be left alone."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


def is_address(url: str) -> bool:
    """Whether a client can be made of it: http or https, a host, a port that is one, no odd letters."""
    if not (url.isascii() and url.isprintable() and " " not in url and len(url) < 2048):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port out of range, an open bracket
        return False


class PatientServer:
    """A client of one address, open within `async with`.

    timeout: seconds for one attempt, from first to last byte. attempts: in all. first_pause: seconds,
    doubled after each attempt up to a minute, drawn between half of it and all of it, so that many clients
    do not come back at once. `Retry-After` counts where it is longer (up to ten minutes).
    """

    def __init__(
        self, url: str, key: str, *, timeout: float, attempts: int, first_pause: float = 1.0
    ) -> None:
        if not key.isascii() or not key.isprintable():
            raise SdgError("The API key holds what no header can: letters beyond ASCII, or a line's end.")
        self._url = url
        self._key, self._timeout, self._attempts, self._first_pause = key, timeout, attempts, first_pause
        self._client: Any = None

    async def __aenter__(self) -> Self:
        try:
            import httpx2
        except ImportError:
            raise SdgError(
                "Asking a server needs httpx2: pip install 'structured-defect-grounding[api]'."
            ) from None
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
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

    async def post(self, read: Callable[[bytes], T], **request: Any) -> T:
        """What `read` makes of the response's content; it raises TryAgain or Refused where that is no answer.

        request: the arguments of the client's `post` beside the address. Raises Refused, or Unanswered
        after the last attempt.
        """
        pause = self._first_pause
        for attempt in range(1, self._attempts + 1):
            try:
                return await self._attempt(read, request)
            except TryAgain as error:
                if attempt == self._attempts:
                    raise Unanswered(f"{error} ({attempt} attempts).") from None
                wait = min(pause, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
                await asyncio.sleep(max(wait, min(error.after, LONGEST_RETRY_AFTER)))
                pause *= 2
        raise AssertionError("there is at least one attempt")

    async def _attempt(self, read: Callable[[bytes], T], request: dict[str, Any]) -> T:
        import httpx2

        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.post(self._url, **request)
        except TimeoutError:
            raise TryAgain(f"The server gave no whole answer within {self._timeout:g} s") from None
        except httpx2.RequestError as error:
            what = str(error) or type(error).__name__
            raise TryAgain(f"The connection to the server failed: {self._clean(what)}") from None
        status = response.status_code
        if status == 200:
            return read(response.content)
        reason = f"The server answered {status}: {self._clean(_message(response.content))}"
        if status in _BUSY or status >= 500:
            raise TryAgain(reason, _retry_after(response.headers.get("Retry-After")))
        raise Refused(f"{reason}.", status)

    def _clean(self, text: str) -> str:
        """A server's words, cut short, in one line and without the API key, which some servers repeat."""
        text = " ".join(text.split()).rstrip(".")
        if self._key:
            text = text.replace(self._key, "[key]")
        return text if len(text) <= 200 else text[:200] + "…"


def _message(content: bytes) -> str:
    """What an error response says."""
    try:
        error = json.loads(content)
        if isinstance(error, dict):
            error = error.get("error") or error.get("detail") or error  # OpenAI's key, FastAPI's key
        if isinstance(error, dict):
            error = error.get("message", error)
        return str(error)
    except (ValueError, RecursionError):
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
