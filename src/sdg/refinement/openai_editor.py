"""`openai:BASE_URL#MODEL`: an images-edit API (GPT-Image style), with retries and limits.

What is sent: the picture, beside it its copy with red frames or its two heat maps, the mask with what is to
be edited transparent, and the instruction. What comes back is a picture in the response itself; addresses
are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from PIL import Image

from sdg.errors import SdgError
from sdg.images import load_image_bytes, png_bytes
from sdg.io.http import PatientServer, Refused, TryAgain, Unanswered, is_address
from sdg.refinement.base import EditResult
from sdg.refinement.canvas import Canvas
from sdg.refinement.request import EditRequest

CONCURRENCY: Final = 2
TIMEOUT: Final = 300.0
ATTEMPTS: Final = 5
PER_MINUTE: Final = 20.0
QUALITIES: Final = ("high", "medium", "low", "auto")
SIZES: Final = ((1024, 1024), (1536, 1024), (1024, 1536))
"""(width, height) of the pictures that the API gives."""
KEY_NAME: Final = "OPENAI_API_KEY"


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
        self._concurrency, self._interval = concurrency, 60 / per_minute
        self._next, self._clock = 0.0, threading.Lock()
        self._places = threading.BoundedSemaphore(concurrency)
        # A client belongs to the event loop it is used in, so that each call makes its own.
        self._server = partial(
            PatientServer,
            base_url.rstrip("/") + "/images/edits",
            os.environ.get(key_name, ""),
            timeout=timeout,
            attempts=attempts,
            first_pause=first_pause,
        )
        self._server()  # says at once what is wrong with the key

    @property
    def concurrency(self) -> int:
        """How many calls of `edit` at once the server is to see."""
        return self._concurrency

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One result for each request, in their order; a request that fails never raises."""
        results: list[EditResult | None] = [None] * len(requests)
        raised: list[BaseException] = []

        def work() -> None:
            try:
                asyncio.run(self._edit_all(requests, results))
            except BaseException as error:  # handed to the caller's thread
                raised.append(error)

        # A thread of its own, because the caller may be inside of an event loop already (a notebook).
        thread = threading.Thread(target=work, name="sdg-images-edit", daemon=True)
        thread.start()
        thread.join()
        if raised:
            raise raised[0]
        assert None not in results, "every request ends with a result"
        return [result for result in results if result is not None]

    async def _edit_all(self, requests: Sequence[EditRequest], results: list[EditResult | None]) -> None:
        waiting = iter(range(len(requests)))
        unanswered, last = 0, ""

        async def edit_in_turn(server: PatientServer) -> None:
            nonlocal unanswered, last
            for index in waiting:
                if unanswered >= 2 * self._concurrency + 2:
                    results[index] = EditResult(
                        None, f"Not asked, as {unanswered} requests in a row got no answer: {last}"
                    )
                    continue
                while not self._places.acquire(blocking=False):  # another thread's requests
                    await asyncio.sleep(0.05)
                try:
                    await self._turn()
                    results[index] = EditResult(await self._one(server, requests[index]))
                    unanswered = 0
                except Refused as error:
                    results[index], unanswered = EditResult(None, str(error)), 0
                except Unanswered as error:
                    unanswered, last = unanswered + 1, str(error)
                    results[index] = EditResult(None, last)
                finally:
                    self._places.release()

        async with self._server() as server:
            await asyncio.gather(*(edit_in_turn(server) for _ in range(self._concurrency)))

    async def _turn(self) -> None:
        """Wait until the rate limit lets another request start."""
        with self._clock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
        await asyncio.sleep(start - now)

    async def _one(self, server: PatientServer, request: EditRequest) -> Image.Image:
        canvas = Canvas.holding(request.picture.size, SIZES)
        width, height = canvas.size
        data = {
            "model": self._model,
            "prompt": request.instruction,
            "n": "1",
            "size": f"{width}x{height}",
            "quality": self._quality,
        }
        edited = await server.post(read_picture, files=_files(request, canvas), data=data)
        try:
            return canvas.taken_from(edited)
        except ValueError as error:
            raise Refused(str(error)) from None


def read_picture(content: bytes) -> Image.Image:
    """The picture in a response; raises TryAgain where none is whole, Refused where it is no picture."""
    try:
        answer = json.loads(content)
        (edited,) = answer["data"]  # one was asked for
        data = base64.b64decode(edited["b64_json"], validate=True)
        failed = any(part.get("error") not in (None, False, "") for part in (answer, edited))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, binascii.Error):
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
