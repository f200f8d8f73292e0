"""Chat completions of an OpenAI-compatible server, with the deadlines and retries of `sdg.io.http`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sdg.errors import SdgError, quoted, shortened
from sdg.images import png_bytes
from sdg.io.http import HttpClient, Refused, TryAgain, Unanswered, is_address
from sdg.io.predictions import ENDS

__all__ = ["Answer", "ChatClient", "as_data_url", "read_answer", "require_served"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of a response, its reasoning put back in front, and whether the token limit cut it off."""

    text: str
    cut_off: bool


class ChatClient(HttpClient):
    """A client of `POST {base_url}/chat/completions`; the settings are those of `HttpClient`."""

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

    An answer is the text of the one choice, by the assistant, that ended by itself or at the token limit.
    An error anywhere beside it, a refusal, a call of a tool or another end make it none, whatever the text.
    Servers that know about thinking hand out the think block apart from the content; it is put back, with
    its tags, so that the response is what the model wrote.
    """
    try:
        completion = json.loads(content)
        (choice,) = completion["choices"]
        message, finish = choice["message"], choice.get("finish_reason")
        text = message.get("content") or ""
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        errors = [part.get("error") for part in (completion, choice, message)]
        errors.append(completion.get("object") == "error")
        refusal, called = message.get("refusal"), message.get("tool_calls") or message.get("function_call")
        if not isinstance(text, str) or not isinstance(reasoning, str):
            raise TypeError
        if message.get("role") not in (None, "assistant"):
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise TryAgain("The server's answer is no whole chat completion") from None
    if finish == "content_filter" or refusal:
        raise Refused("The server's content filter refused to answer.")
    if called or finish in ("tool_calls", "function_call"):
        raise Refused("The server's answer is a call of a tool, and none was offered.")
    if any(error not in (None, False, "") for error in errors):
        raise TryAgain("The server's answer is an error")
    if finish not in ENDS:
        raise TryAgain("The server's answer ended neither by itself nor at the token limit")
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


def require_served(base_url: str, key: str, model: str, timeout: float = 10.0) -> int | None:
    """Ask a server once whether it has a model; returns how many tokens that reads, where it says so.

    Raises SdgError where it is not there within `timeout` seconds, and where it lists other models alone.
    """
    if not is_address(base_url):
        raise SdgError(f"{quoted(base_url)} is no address of a server; write http://HOST:PORT/v1.")
    client = HttpClient(base_url.rstrip("/"), key, timeout=timeout, attempts=1)
    try:
        known = client.once("GET", "/models", _models)
    except Unanswered as error:
        raise SdgError(f"{base_url}: {error}") from None
    except Refused as error:
        if error.status in (401, 403):
            raise SdgError(f"{base_url}: {error}") from None
        return None  # a server without a list
    if model not in known:
        raise SdgError(f"{base_url} serves {shortened(', '.join(known), 200) or 'nothing'}, not {model}.")
    return known[model]


def _models(content: bytes) -> dict[str, int | None]:
    """Name -> `max_model_len`, which vLLM tells; raises Refused for another answer."""
    try:
        return {
            str(each["id"])[:200]: each.get("max_model_len")
            if type(each.get("max_model_len")) is int
            else None
            for each in json.loads(content)["data"][:1000]
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Refused("The server's answer is no list of models.") from None
