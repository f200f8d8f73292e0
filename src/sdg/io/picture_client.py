"""Pictures and their prompts sent to a server as JSON, some at a time, and one result taken for each."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from PIL import Image

from sdg.errors import SdgError
from sdg.images import png_bytes, rgb_picture
from sdg.io.http import Breaker, HttpClient, Refused, Unanswered

R = TypeVar("R")
Pairs = Sequence[tuple[Image.Image, str]]
REST: Final = 60.0
"""Seconds for which a server that left requests without an answer is not asked."""
_PIXELS: Final = 8 * 2**20
"""Pixels of a request, unless one picture has more: as PNG in base64 they take 32 MiB at most."""
_REFUSES_ALL: Final = frozenset({401, 403, 404, 415})  # true of every picture


class PictureClient(Generic[R]):
    """Sends pictures as PNG; what gets no result gets `lost` of the reason, in one sentence.

    read: the results in an answer to so many pictures; raises TryAgain or Refused, see `HttpClient`.
    batch: pictures a request, at most. more: what a request holds beside its items. advice: what to do about
    an address that refuses all. Once two requests in a row got no answer, none is sent for REST seconds.
    """

    def __init__(
        self,
        url: str,
        key: str,
        read: Callable[[bytes, int], Sequence[R]],
        lost: Callable[[str], R],
        *,
        batch: int,
        timeout: float,
        attempts: int,
        advice: str,
        logger: logging.Logger,
        first_pause: float = 1.0,
        most_bytes: int = 1 << 22,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self._url, self._read, self._lost, self._batch = url, read, lost, batch
        self._advice, self._log, self._more = advice, logger, more or {}
        self._breaker = Breaker(2, "requests", REST)
        self._client = HttpClient(
            url, key, timeout=timeout, attempts=attempts, first_pause=first_pause, most_bytes=most_bytes
        )

    def ask(self, pairs: Pairs) -> list[R]:
        """A result for each pair, in order; raises SdgError where the server refuses every request."""

        async def ask(client: HttpClient, part: range) -> Sequence[R]:
            return await self._asked(client, pairs[part.start : part.stop])

        results: list[R] = [self._lost("")] * len(pairs)
        sizes = [picture.width * picture.height for picture, _ in pairs]
        for part, found in self._client.each(list(parts(sizes, self._batch)), ask, 2):  # packed meanwhile
            results[part.start : part.stop] = found
        return results

    async def ask_one(self, picture: Image.Image, prompt: str) -> R:
        """The result of one pair, for callers inside of an event loop."""
        async with self._client.connected() as client:
            return (await self._asked(client, [(picture, prompt)]))[0]

    async def _asked(self, client: HttpClient, pairs: Pairs) -> Sequence[R]:
        if reason := self._breaker.reason:
            return self._none(pairs, reason)
        content = await asyncio.to_thread(self._packed, pairs)
        try:
            found = await client.post(
                lambda answer: self._read(answer, len(pairs)),
                content=content,
                headers={"Content-Type": "application/json"},
            )
        except Unanswered as error:
            self._breaker.failed(str(error))
            return self._none(pairs, str(error))
        except Refused as error:
            self._breaker.answered()
            if error.status in _REFUSES_ALL:
                raise SdgError(f"{self._url} answers no such request here: {error} {self._advice}") from None
            return self._none(pairs, str(error))
        self._breaker.answered()
        return found

    def _none(self, pairs: Pairs, reason: str) -> list[R]:
        self._log.warning("%d pictures have no score: %s", len(pairs), reason)
        return [self._lost(reason)] * len(pairs)

    def _packed(self, pairs: Pairs) -> bytes:
        items = [
            {"image": base64.b64encode(png_bytes(rgb_picture(picture))).decode("ascii"), "prompt": prompt}
            for picture, prompt in pairs
        ]
        return json.dumps({"items": items, **self._more}).encode("ascii")


def parts(pixels: Sequence[int], most: int) -> Iterator[range]:
    """Places of the pictures of each request, in order."""
    start, total = 0, 0
    for index, count in enumerate(pixels):
        if index > start and (index - start >= most or total + count > _PIXELS):
            yield range(start, index)
            start, total = index, 0
        total += count
    if start < len(pixels):
        yield range(start, len(pixels))


def finite(value: object) -> float | None:
    """A number of a JSON document as a float, None for whatever is none: text, Boolean, NaN, too large."""
    if type(value) not in (int, float):  # a Boolean is none, and neither is a text that says one
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return number if number - number == 0 else None
