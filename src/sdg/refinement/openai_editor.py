"""`openai:BASE_URL#MODEL`: an images-edit API (GPT-Image style), with retries and limits.

What is sent: the picture, beside it its copy with red frames or its two heat maps, the mask with what is to
be edited transparent, and the instruction. What comes back is a picture in the response itself; addresses
are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from sdg.errors import SdgError
from sdg.images import load_image_bytes, png_bytes
from sdg.io.http import Breaker, HttpClient, Refused, TryAgain, Unanswered, is_address
from sdg.refinement.canvas import Canvas
from sdg.refinement.request import EditRequest, EditResult

CONCURRENCY: Final = 2
TIMEOUT: Final = 300.0
ATTEMPTS: Final = 5
PER_MINUTE: Final = 20.0
QUALITIES: Final = ("high", "medium", "low", "auto")
SIZES: Final = ((1024, 1024), (1536, 1024), (1024, 1536))
"""(width, height) of the pictures that the API gives."""
KEY_NAME: Final = "OPENAI_API_KEY"
MOST_BYTES: Final = 1 << 26
"""Of a response: a picture of the largest size, as PNG in base64, takes a tenth of it."""


class OpenAIEditor:
    """Sends each request to `POST {base_url}/images/edits` and reads the edited picture.

    quality: what the API is asked for, "high" as in the paper. The size is that of `SIZES` in which the
    picture fills most; what it leaves is padded, kept by the mask, and cut off again.
    concurrency: requests at a time and per_minute: requests started a minute, at most, over all threads
    that call `edit`; retries apart. timeout: seconds one attempt may take. attempts: in all, with growing
    pauses, where the server is busy, broken, late or gone. Once 2·concurrency + 2 requests of a call in a
    row got no answer, the rest of the call is not sent.
    key_name: the environment variable that holds the API key.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        quality: str = "high",
        concurrency: int = CONCURRENCY,
        per_minute: float = PER_MINUTE,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        first_pause: float = 1.0,
        key_name: str = KEY_NAME,
    ) -> None:
        if not is_address(base_url) or not model:
            raise SdgError(
                "Write openai:BASE_URL#MODEL, such as openai:https://api.openai.com/v1#gpt-image-1.5."
            )
        self._model, self._quality = model, quality
        self.concurrency, self._interval = concurrency, 60 / per_minute
        self._next, self._clock = 0.0, threading.Lock()
        self._places = threading.BoundedSemaphore(concurrency)
        self._client = HttpClient(
            base_url.rstrip("/") + "/images/edits",
            os.environ.get(key_name, ""),
            timeout=timeout,
            attempts=attempts,
            first_pause=first_pause,
            most_bytes=MOST_BYTES,
        )

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One result for each request, in their order; a request that fails never raises."""
        breaker = Breaker(2 * self.concurrency + 2, "requests")

        async def edit_one(client: HttpClient, index: int) -> EditResult:
            if reason := breaker.reason:
                return EditResult(None, reason)
            while not self._places.acquire(blocking=False):  # another thread's requests
                await asyncio.sleep(0.05)
            try:
                await self._turn()
                result = EditResult(await self._one(client, requests[index]))
            except Refused as error:
                result = EditResult(None, str(error))
            except Unanswered as error:
                breaker.failed(str(error))
                return EditResult(None, str(error))
            finally:
                self._places.release()
            breaker.answered()
            return result

        results = dict(self._client.each(range(len(requests)), edit_one, self.concurrency))
        return [results[index] for index in range(len(requests))]

    async def _turn(self) -> None:
        """Wait until the rate limit lets another request start."""
        with self._clock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
        await asyncio.sleep(start - now)

    async def _one(self, client: HttpClient, request: EditRequest) -> Image.Image:
        canvas = Canvas.holding(request.picture.size, SIZES)
        width, height = canvas.size
        data = {
            "model": self._model,
            "prompt": request.instruction,
            "n": "1",
            "size": f"{width}x{height}",
            "quality": self._quality,
        }
        edited = await client.post(read_picture, files=_files(request, canvas), data=data)
        try:
            return canvas.taken_from(edited)
        except ValueError as error:
            raise Refused(str(error)) from None


def read_picture(content: bytes) -> Image.Image:
    """The picture in a response; raises TryAgain where none is whole, Refused where it is no picture."""
    try:
        answer = json.loads(content)
        (edited,) = answer["data"]  # one was asked for
        if edited.get("url") and not edited.get("b64_json"):  # however often, and each one costs
            raise Refused(
                "The server gave an address in place of the picture, and addresses are not followed; "
                "name a model that answers with b64_json."
            )
        data = base64.b64decode(edited["b64_json"], validate=True)
        failed = any(part.get("error") not in (None, False, "") for part in (answer, edited))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise TryAgain("The server's answer holds no picture") from None
    if failed:
        raise TryAgain("The server's answer is an error")
    try:
        return load_image_bytes(data, "the edited picture")
    except SdgError as error:
        raise Refused(str(error)) from None


def _files(request: EditRequest, canvas: Canvas) -> list[tuple[str, tuple[str, bytes, str]]]:
    """The pictures of a request as form fields, all of the canvas's size."""
    files = [
        ("image[]", (name, png_bytes(canvas.with_picture(picture)), "image/png"))
        for name, picture in request.shown
    ]
    # With heat maps beside it, the editor sees where to work: a mask would say more than they do.
    editable = np.ones(request.mask.shape, bool) if request.heat else request.mask > 0
    mask = canvas.mask(editable)
    if mask.getchannel("A").getbbox() is not None:  # something is to be kept
        files.append(("mask", ("mask.png", png_bytes(mask), "image/png")))
    return files
