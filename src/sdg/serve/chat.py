"""A detector as an OpenAI-compatible model: the chat completion that is asked for, and its answer."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from sdg.defects import Diagnosis, Status
from sdg.errors import quoted
from sdg.prompting import PromptProfile
from sdg.response import render_response
from sdg.serve.bounds import Refusal

FORM: Final = (
    '{"model": …, "messages": [{"role": "user", "content": [{"type": "image_url", …}, {"type": "text", …}]}]}'
)
LONGEST_CAPTION: Final = 2000
"""Characters of a text that is in no known wording and may yet be a caption; longer ones are instructions."""


def item_of(request: Mapping[str, Any], own: PromptProfile | None) -> dict[str, str]:
    """The picture and the prompt of a chat completion, as an item of `/v1/diagnose`.

    The picture is the one data URL of the last user turn. The prompt is what stands in the place of the
    caption where the turn's text is in the wording of the detector's own profile or of our default one;
    any other text is the prompt itself, if it is short. Raises Refusal for anything else, and for sampling
    that the detector would not do: it answers as its own settings say.
    """
    if request.get("stream") or request.get("n") not in (None, 1) or request.get("temperature"):
        raise Refusal(
            400, "answers are whole, one a request, at temperature 0; sampling is set by the server's URI"
        )
    image, text = _turn(request.get("messages"))
    profiles = [profile for profile in (own, PromptProfile()) if profile is not None]
    captions = [found for profile in profiles if (found := profile.caption_in(text)) is not None]
    if captions:  # a template that is the caption alone fits any text: the one that leaves less says more
        return {"image": image, "prompt": min(captions, key=len)}
    if len(text) > LONGEST_CAPTION:
        raise Refusal(
            400, "the text is in no wording that this server knows; send the picture's prompt alone"
        )
    return {"image": image, "prompt": text}


def _turn(messages: object) -> tuple[str, str]:
    """Base64 of the picture, and the text, of the one user turn."""
    try:
        assert isinstance(messages, list)
        (user,) = [message for message in messages if message["role"] == "user"]
        if any(message["role"] not in ("system", "developer", "user") for message in messages):
            raise ValueError
        parts = user["content"]
        (url,) = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        texts = [part["text"] for part in parts if part["type"] == "text"]
        if len(texts) + 1 != len(parts) or not all(isinstance(text, str) for text in texts):
            raise ValueError
        head, comma, image = url.partition(",")
        if not (head.startswith("data:") and head.endswith(";base64") and comma):
            raise Refusal(400, "the picture comes with the request, as a data: URL in base64")
    except (AssertionError, LookupError, TypeError, ValueError, AttributeError):
        raise Refusal(400, f"a request is {FORM}") from None
    return image, "".join(texts)


def completion(diagnosis: Diagnosis, model: object) -> dict[str, Any]:
    """A diagnosis as a chat completion, its text being the response; raises Refusal where there is none."""
    text = diagnosis.raw or (render_response(diagnosis) if diagnosis.is_informative else "")
    if diagnosis.status is Status.FAILED or not text:
        raise Refusal(422, diagnosis.error or "the detector's answer cannot be read")
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "length" if diagnosis.status is Status.TRUNCATED else "stop",
    }
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model if isinstance(model, str) else quoted(model),
        "choices": [choice],
    }


def models(name: str) -> dict[str, Any]:
    """The list of models: the one."""
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "sdg"}]}
