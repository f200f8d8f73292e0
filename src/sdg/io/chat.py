"""One chat completion from a server, asked as patiently as `sdg.io.http` does."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sdg.images import png_bytes
from sdg.io.http import PatientServer, Refused, TryAgain, Unanswered

__all__ = ["Answer", "ChatServer", "Refused", "Unanswered", "as_data_url", "read_answer"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of a response, its reasoning put back in front, and whether the token limit cut it off."""

    text: str
    cut_off: bool


class ChatServer(PatientServer):
    """A client of `POST {base_url}/chat/completions`; the settings are those of `PatientServer`."""

    def __init__(
        self, base_url: str, key: str, *, timeout: float, attempts: int, first_pause: float = 1.0
    ) -> None:
        url = base_url.rstrip("/") + "/chat/completions"
        super().__init__(url, key, timeout=timeout, attempts=attempts, first_pause=first_pause)

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """The answer to one request; raises Refused, or Unanswered after the last attempt."""
        content = json.dumps(body).encode("ascii")  # a prompt with half a surrogate pair stays sendable
        return await self.post(read_answer, content=content, headers={"Content-Type": "application/json"})


def read_answer(content: bytes) -> Answer:
    """The answer in a chat completion; raises TryAgain where there is none, Refused where none will come.

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
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise TryAgain("The server's answer is no whole chat completion") from None
    if finish == "content_filter" or (not text and message.get("refusal")):
        raise Refused("The server's content filter refused to answer.")
    cut = finish == "length"
    if reasoning and "<think>" not in text:
        closing = "</think>\n" if text or not cut else ""
        text = f"<think>{reasoning}{closing}{text}"
    if not text.strip() and not cut:
        raise TryAgain("The server's answer is empty")
    return Answer(text, cut)


def as_data_url(image: Image.Image) -> str:
    """An image as the text of a PNG, which loses nothing."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode("ascii")
