"""`openai:BASE_URL#MODEL`: an images-edit API (GPT-Image style), asked patiently and within bounds.

What is sent: the picture, its copy with red frames where there is one, the mask with what is to be edited
transparent, and the instruction. What comes back is a picture in the response itself; addresses are not
followed.
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
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from sdg.detectors.patience import PatientServer, Refused, TryAgain, Unanswered
from sdg.errors import SdgError
from sdg.images import load_image_bytes, png_bytes
from sdg.refinement.editors import EditResult
from sdg.refinement.request import EditRequest

CONCURRENCY: Final = 2
TIMEOUT: Final = 300.0
ATTEMPTS: Final = 5
PER_MINUTE: Final = 20.0
KEY_NAME: Final = "OPENAI_API_KEY"


class OpenAIEditor:
    """Sends each request to `POST {base_url}/images/edits` and reads the edited picture.

    timeout: seconds one attempt may take. attempts: in all, with growing pauses, where the server is busy,
    broken, late or gone. per_minute: requests started a minute at most, retries apart. Once
    2·concurrency + 2 requests in a row got no answer, the rest of the call is not sent.
    key_name: the environment variable that holds the API key.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        concurrency: int = CONCURRENCY,
        per_minute: float = PER_MINUTE,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        first_pause: float = 1.0,
        key_name: str = KEY_NAME,
    ) -> None:
        if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).hostname or not model:
            raise SdgError(
                "Write openai:BASE_URL#MODEL, such as openai:https://api.openai.com/v1#gpt-image-1."
            )
        self._model, self._concurrency, self._interval = model, concurrency, 60 / per_minute
        self._next = 0.0
        self._server = PatientServer(
            base_url.rstrip("/") + "/images/edits",
            os.environ.get(key_name, ""),
            timeout=timeout,
            attempts=attempts,
            first_pause=first_pause,
        )

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

        async def edit_in_turn() -> None:
            nonlocal unanswered, last
            for index in waiting:
                if unanswered >= 2 * self._concurrency + 2:
                    results[index] = EditResult(
                        None, f"Not asked, as {unanswered} requests in a row got no answer: {last}"
                    )
                    continue
                try:
                    await self._turn()
                    results[index] = EditResult(await self._one(requests[index]))
                    unanswered = 0
                except Refused as error:
                    results[index], unanswered = EditResult(None, str(error)), 0
                except Unanswered as error:
                    unanswered, last = unanswered + 1, str(error)
                    results[index] = EditResult(None, last)

        async with self._server:
            await asyncio.gather(*(edit_in_turn() for _ in range(self._concurrency)))

    async def _turn(self) -> None:
        """Wait until the rate limit lets another request start."""
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + self._interval
        await asyncio.sleep(start - now)

    async def _one(self, request: EditRequest) -> Image.Image:
        pictures = [("picture.png", request.picture)]
        if request.marked.tobytes() != request.picture.tobytes():
            pictures.append(("marked.png", request.marked))
        files = [("image[]", (name, png_bytes(picture), "image/png")) for name, picture in pictures]
        if (request.mask < 1).any():
            files.append(("mask", ("mask.png", png_bytes(_transparent(request)), "image/png")))
        edited = await self._server.post(
            read_picture, files=files, data={"model": self._model, "prompt": request.instruction, "n": "1"}
        )
        return edited.resize(request.picture.size, Image.Resampling.LANCZOS)


def read_picture(content: bytes) -> Image.Image:
    """The picture in a response; raises TryAgain where none is whole, Refused where it is no picture."""
    try:
        encoded = json.loads(content)["data"][0]["b64_json"]
        data = base64.b64decode(encoded, validate=True)
    except (ValueError, LookupError, TypeError, binascii.Error):
        raise TryAgain("The server's answer holds no picture") from None
    try:
        return load_image_bytes(data, "the edited picture")
    except SdgError as error:
        raise Refused(str(error)) from None


def _transparent(request: EditRequest) -> Image.Image:
    """The picture with what is to be edited transparent, as the API has its masks."""
    alpha = np.where(request.mask > 0, 0, 255).astype(np.uint8)
    masked: Any = request.picture.convert("RGB").copy()
    masked.putalpha(Image.fromarray(alpha))
    return masked
