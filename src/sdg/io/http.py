"""HTTP requests to a server that may be slow, busy or broken: deadlines, retries, back-off, clear errors."""

from __future__ import annotations

import asyncio
import json
import math
import random
import threading
import time
import zlib
from asyncio import FIRST_EXCEPTION
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import groupby
from queue import SimpleQueue
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from sdg.errors import SdgError, first_line, installed, shortened

R = TypeVar("R")
T = TypeVar("T")

LONGEST_PAUSE: Final = 60.0
LONGEST_RETRY_AFTER: Final = 600.0
WAITING: Final = 64
"""Results that are not taken yet, beside those being asked for, at most."""
SHARING: Final = 16
"""Requests at a time that share connections, all of which are looked through at each request."""
GRACE: Final = 2.0
"""Seconds that a stopped run waits for the answers that it has asked for."""
MOST_OF_AN_ERROR: Final = 1 << 16
"""Bytes of an error response that are read; what follows is left."""
PIECE: Final = 12
"""Characters of an API key in a row that are taken out of a server's words."""
_NOT_ASKED: Final = "Not asked, as "
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


@dataclass(slots=True, eq=False)
class _Call:
    """A use of `each`: `ending` asks for nothing more, `broken_off` does not wait for answers either."""

    ending: bool = False
    broken_off: bool = False


class Breaker:
    """Says when a server has left so many requests in a row without an answer that it is asked no more.

    limit: so many in a row; what: what they are, for the sentence. rest: seconds after the last of them until
    it is asked again, so that a server that hangs costs a run its deadlines once and not in every batch.
    """

    def __init__(self, limit: int, what: str, rest: float = math.inf) -> None:
        self._limit, self._what, self._rest = limit, what, rest
        self._failures, self._last, self._again_at = 0, "", 0.0

    @property
    def reason(self) -> str:
        """Why nothing is asked now, in one sentence; "" where requests may be sent."""
        if self._failures < self._limit or time.monotonic() >= self._again_at:
            return ""
        return f"{_NOT_ASKED}{self._failures} {self._what} in a row got no answer: {self._last}"

    def answered(self) -> None:
        """Count a request that the server did answer, were it with a refusal."""
        self._failures = 0

    def failed(self, reason: str) -> None:
        """Count a request that got no answer after all its attempts."""
        self._failures, self._last = self._failures + 1, reason
        self._again_at = time.monotonic() + self._rest


def is_unsent(reason: str) -> bool:
    """Whether a reason is a breaker's: nothing was sent. A server's own words stand behind others."""
    return reason.startswith(_NOT_ASKED)


def longest_wait(timeout: float, attempts: int) -> float:
    """Seconds after which a request is answered or given up, whatever `Retry-After` the server sends."""
    return attempts * timeout + (attempts - 1) * LONGEST_RETRY_AFTER


def is_address(url: str) -> bool:
    """Whether a client can be made of it: http or https, a host, a port that is one, no odd letters."""
    if not (url.isascii() and url.isprintable() and " " not in url and len(url) < 2048):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port out of range, an open bracket
        return False


class HttpClient:
    """A client of one address; requests are made by the copy of it that `connected` or `each` gives.

    timeout: seconds for one attempt, from first to last byte. attempts: in all. first_pause: seconds,
    doubled after each attempt up to a minute, drawn between half of it and all of it, so that many clients
    do not come back at once. `Retry-After` counts where it is longer (up to ten minutes).
    most_bytes: of a response's content, as sent and as unpacked; a longer one is left unread and no answer.
    Raises SdgError for a key that no header can hold.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float,
        attempts: int,
        first_pause: float = 1.0,
        most_bytes: int = 1 << 22,
    ) -> None:
        if not key.isascii() or not key.isprintable():
            raise SdgError("The API key holds what no header can: letters beyond ASCII, or a line's end.")
        self._url = url
        self._key, self._timeout, self._attempts, self._first_pause = key, timeout, attempts, first_pause
        self._most_bytes = most_bytes
        self._connections: Any = None
        self._calls: list[_Call] = []

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Self]:
        """A copy of this client with connections of its own, which belong to the running event loop.

        Raises SdgError where the environment names a proxy or certificates that cannot be used.
        """
        with installed("Asking a server needs httpx2", "api"):
            import httpx2
        try:
            connections = httpx2.AsyncClient(
                headers={"Accept-Encoding": "identity"}
                | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # kept, they would grow for ever
                timeout=None,  # each attempt has its own deadline; these would only bound its parts
                limits=httpx2.Limits(max_connections=None),
                # A proxy in the environment is for the world outside.
                trust_env=urlsplit(self._url).hostname not in _LOCAL,
            )
        except (httpx2.InvalidURL, ImportError, OSError, ValueError) as error:  # SOCKS needs a package
            raise SdgError(
                f"The environment's proxy or certificates cannot be used ({first_line(error).rstrip('.')}); "
                "correct HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or SSL_CERT_FILE."
            ) from error
        client = copy(self)
        async with connections:
            client._connections = connections
            yield client

    def each(
        self, tasks: Sequence[T], work: Callable[[Self, T], Awaitable[R]], at_once: int
    ) -> Iterator[tuple[T, R]]:
        """Each task with the result of `work`, which gets a connected client; `at_once`, as they finish.

        What `work` raises is raised here. Once the iterator is closed nothing more is asked; see also `stop`.
        """
        results: SimpleQueue[tuple[T, R] | BaseException | None] = SimpleQueue()
        call = _Call()
        waiting = iter(tasks)

        async def take(client: Self) -> None:
            for task in waiting:
                while results.qsize() >= WAITING and not call.broken_off:
                    await asyncio.sleep(0.01)  # whoever takes the results is slower than the server
                if call.ending:
                    return
                results.put((task, await work(client, task)))

        async def all_tasks() -> None:
            loop = asyncio.get_running_loop()  # what fails while connections are torn down concerns nobody
            loop.set_exception_handler(
                lambda _, context: call.broken_off or loop.default_exception_handler(context)
            )
            together = min(at_once, len(tasks))
            async with AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(self.connected()) for _ in range(0, together, SHARING)
                ]
                workers = {asyncio.ensure_future(take(clients[n // SHARING])) for n in range(together)}
                left, grace = workers, GRACE
                try:
                    while left and not call.broken_off and grace > 0:
                        done, left = await asyncio.wait(left, timeout=0.2, return_when=FIRST_EXCEPTION)
                        grace -= 0.2 if call.ending else 0
                        for worker in done:
                            worker.result()
                finally:
                    for worker in workers:
                        worker.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)

        def run() -> None:
            try:
                asyncio.run(all_tasks())
                results.put(None)
            except BaseException as error:  # handed to the caller's thread, which raises it
                results.put(error)

        # A thread of its own, because the caller may be inside of an event loop already (a notebook).
        thread = threading.Thread(target=run, name="sdg-http", daemon=True)
        self._calls.append(call)
        thread.start()
        try:
            while (result := results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            call.broken_off = True
            self._calls.remove(call)
            thread.join()

    def once(self, method: str, path: str, read: Callable[[bytes], T], **request: Any) -> T:
        """`request` by itself, over a connection of its own, for callers outside of any event loop."""

        async def ask(client: Self, _: None) -> T:
            return await client.request(method, path, read, **request)

        ((_, answer),) = self.each([None], ask, 1)
        return answer

    def stop(self) -> bool:
        """Let every `each` ask for nothing more and end; what is asked for has GRACE seconds to be answered.

        Returns whether there is any. May be called from a signal's handler.
        """
        for call in self._calls:
            call.ending = True
        return bool(self._calls)

    async def post(self, read: Callable[[bytes], T], **request: Any) -> T:
        """What a POST to the client's address gives; see `request`."""
        return await self.request("POST", "", read, **request)

    async def request(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        *,
        attempts: int | None = None,
        **request: Any,
    ) -> T:
        """The response's content, read by `read`, which raises TryAgain or Refused where it is no answer.

        path: what follows the client's address. attempts: in all, by default the client's; 1 for what must
        not be done twice. request: the other arguments of the client's `stream`. Raises Refused, or
        Unanswered after the last attempt.
        """
        pause, most = self._first_pause, attempts or self._attempts
        for attempt in range(1, most + 1):
            try:
                return await self._attempt(method, self._url + path, read, request)
            except TryAgain as error:
                if attempt == most:
                    raise Unanswered(f"{error} ({attempt} attempts).") from None
                wait = min(pause, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
                await asyncio.sleep(max(wait, min(error.after, LONGEST_RETRY_AFTER)))
                pause *= 2
        raise AssertionError("there is at least one attempt")

    async def _attempt(self, method: str, url: str, read: Callable[[bytes], T], request: dict[str, Any]) -> T:
        import httpx2

        try:
            async with (
                asyncio.timeout(self._timeout),
                self._connections.stream(method, url, **request) as response,
            ):
                status = response.status_code
                good = 200 <= status < 300
                content = await self._content(response, good)
        except TimeoutError:
            raise TryAgain(f"The server gave no whole answer within {self._timeout:g} s") from None
        except (httpx2.RequestError, zlib.error) as error:
            what = str(error) or type(error).__name__
            raise TryAgain(f"The connection to the server failed: {self._clean(what)}") from None
        if good:
            return read(content)
        reason = f"The server answered {status}: {self._clean(_message(content))}"
        if status in _BUSY or status >= 500:
            raise TryAgain(reason, _retry_after(response.headers.get("Retry-After")))
        raise Refused(f"{reason}.", status)

    async def _content(self, response: Any, whole: bool) -> bytes:
        """What a response holds, unpacked: all of it, or as much of an error as is read."""
        most = self._most_bytes if whole else MOST_OF_AN_ERROR
        packing = response.headers.get("Content-Encoding", "").strip().lower() or "identity"
        if packing not in ("identity", "gzip", "x-gzip", "deflate"):
            raise TryAgain("The server's answer is packed in a way that was not asked for")
        # httpx2 would unpack whatever a chunk holds, a thousand times its size, before anyone can look.
        unpacker = None if packing == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
        content, taken = bytearray(), 0
        async for chunk in response.aiter_raw():
            taken += len(chunk)
            content += chunk if unpacker is None else unpacker.decompress(chunk, most + 1 - len(content))
            if taken > most or len(content) > most:
                if whole:
                    raise Refused(f"The server's answer is larger than {most:,} bytes.")
                return bytes(content[:most])
        if unpacker is not None and not unpacker.eof and whole:
            raise TryAgain("The server's answer is cut short")
        return bytes(content)

    def _clean(self, text: str) -> str:
        """A server's words, cut short, in one line and without the API key, which some servers repeat.

        Nor with a piece of the key: it is taken out before anything is cut, and after what hides in a text.
        """
        text = " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split()).rstrip(".")
        return shortened(_without(text, " ".join(self._key.split())), 201)


def _without(text: str, key: str) -> str:
    """The text with "[key]" where the key stood, or PIECE of its characters or more in a row."""
    if not key:
        return text
    text = text.replace(key, "[key]")
    hidden = bytearray(len(text))
    for start in range(len(key) - PIECE + 1):
        piece, at = key[start : start + PIECE], -1
        while (at := text.find(piece, at + 1)) >= 0:
            hidden[at : at + PIECE] = b"\1" * PIECE
    return "".join(
        "[key]" if hides else "".join(text[at] for at in run)
        for hides, run in groupby(range(len(text)), hidden.__getitem__)
    )


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
        return content.decode("utf-8", "replace") or "nothing"


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks to wait, given as a number or a date; 0 if there is none."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except Exception:  # the reader of dates raises many types, such as for the year 99999999999
            return 0.0
    return seconds if seconds > 0 else 0.0  # NaN is none either
