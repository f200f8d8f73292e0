"""`remote:http://localhost:PORT`: a scorer that `sdg serve scorer` serves from an environment of its own.

Whatever goes wrong with a request leaves its pictures without a score and is logged; it is never a score.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Final

from PIL import Image

from sdg.errors import SdgError, quoted
from sdg.images import png_bytes, rgb_picture
from sdg.io.http import Breaker, HttpClient, Refused, TryAgain, Unanswered, is_address

BATCH: Final = 16
TIMEOUT: Final = 120.0
ATTEMPTS: Final = 3
REST: Final = 60.0
"""Seconds for which a server that left requests without an answer is not asked."""
_PIXELS: Final = 8 * 2**20
"""Pixels of a request, unless one picture has more: as PNG in base64 they take 32 MiB at most."""
_REFUSES_ALL: Final = frozenset({401, 403, 404})  # true of every picture

_LOG = logging.getLogger("sdg.scorers")


class RemoteScorer:
    """Sends pictures as PNG, some at a time, and takes one number for each; None for anything else.

    batch: pictures a request, at most. timeout: seconds that one attempt may take. Once two requests in a
    row got no answer, none is sent for REST seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        batch: int = BATCH,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        first_pause: float = 1.0,
    ) -> None:
        if not is_address(url):
            raise SdgError(f"{quoted(url)} is no server's address; write remote:http://localhost:9101.")
        self.url, self._batch = url.rstrip("/"), batch
        self._breaker = Breaker(2, "requests", REST)
        self._client = HttpClient(
            self.url + "/v1/score", "", timeout=timeout, attempts=attempts, first_pause=first_pause
        )

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """Scores in order; None where the server gave none, or none that is a number.

        Raises SdgError where it refuses every request.
        """
        pairs = list(zip(pictures, prompts, strict=True))
        parts = list(_parts([picture.width * picture.height for picture in pictures], self._batch))

        async def ask(client: HttpClient, part: range) -> list[float | None]:
            return await self._ask(client, [pairs[index] for index in part])

        scores: list[float | None] = [None] * len(pairs)
        for part, found in self._client.each(parts, ask, 2):  # the next is packed while one is scored
            scores[part.start : part.stop] = found
        return scores

    async def _ask(self, client: HttpClient, pairs: Sequence[tuple[Image.Image, str]]) -> list[float | None]:
        nothing: list[float | None] = [None] * len(pairs)
        if reason := self._breaker.reason:
            _LOG.warning("%d pictures have no score. %s", len(pairs), reason)
            return nothing
        content = await asyncio.to_thread(_packed, pairs)
        try:
            scores = await client.post(
                lambda answer: _scores(answer, len(pairs)),
                content=content,
                headers={"Content-Type": "application/json"},
            )
        except Unanswered as error:
            self._breaker.failed(str(error))
            _LOG.warning("%d pictures have no score: %s", len(pairs), error)
            return nothing
        except Refused as error:
            self._breaker.answered()
            if error.status in _REFUSES_ALL:
                raise SdgError(
                    f"{self.url} is no scorer that answers here: {error} Start one with `sdg serve scorer`."
                ) from None
            _LOG.warning("%d pictures have no score: %s", len(pairs), error)
            return nothing
        self._breaker.answered()
        if missing := scores.count(None):
            _LOG.warning("%s gave no score for %d of %d pictures.", self.url, missing, len(pairs))
        return scores


def _parts(pixels: Sequence[int], most: int) -> Iterator[range]:
    """Places of the pictures of each request, in order."""
    start, total = 0, 0
    for index, count in enumerate(pixels):
        if index > start and (index - start >= most or total + count > _PIXELS):
            yield range(start, index)
            start, total = index, 0
        total += count
    if start < len(pixels):
        yield range(start, len(pixels))


def _packed(pairs: Sequence[tuple[Image.Image, str]]) -> bytes:
    items = [
        {"image": base64.b64encode(png_bytes(rgb_picture(picture))).decode("ascii"), "prompt": prompt}
        for picture, prompt in pairs
    ]
    return json.dumps({"items": items}).encode("ascii")


def _scores(answer: bytes, count: int) -> list[float | None]:
    """The scores of an answer; raises TryAgain where it is none, Refused where they are not as many."""
    try:
        scores = json.loads(answer)["scores"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise TryAgain("The server's answer holds no scores") from None
    if not isinstance(scores, list) or len(scores) != count:
        given = len(scores) if isinstance(scores, list) else "no list"
        raise Refused(f"The server gave {given} for {count} pictures, so none can be told whose it is.")
    return [_number(score) for score in scores]


def _number(score: object) -> float | None:
    if type(score) not in (int, float):  # a Boolean is none, and neither is a text that says one
        return None
    try:
        value = float(score)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return value if math.isfinite(value) else None
