"""A response that was stored with how it came to be: one line of a file of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sdg.defects import Diagnosis, Status
from sdg.errors import quoted
from sdg.response import cut_off, parse_response

ENDS: Final = (None, "stop", "length")
"""What servers call the end of an answer: by itself, or at the token limit. Any other end leaves none."""


def read_stored(value: Mapping[str, Any], require_think: bool = True) -> Diagnosis:
    """The diagnosis of a stored response, as its line says how it came to be.

    `failed`: `response` is null, `status` is "failed", there is an `error` or a `refusal`, or `finish_reason`
    is neither "stop" nor "length". `truncated`: `status` is "truncated" or `finish_reason` is "length", which
    the text need not show. Where `status` is "unparseable", a response that reads as clean stays so.
    Raises ValueError, in one sentence, where the line holds no response.
    """
    response, status, finish = (value.get(key) for key in ("response", "status", "finish_reason"))
    failed = bool(status == Status.FAILED.value or value.get("error") or value.get("refusal"))
    failed = failed or finish not in ENDS
    if not failed and "response" not in value:
        raise ValueError("'response' is missing; where the detector failed it is null.")
    if not isinstance(response, str | None):
        raise ValueError(f"'response' is the detector's raw text, not {quoted(response)}.")
    if failed or response is None:
        return Diagnosis(status=Status.FAILED, raw=response or "")
    diagnosis = parse_response(response, require_think=require_think)
    if response and (status == Status.TRUNCATED.value or finish == "length"):
        return cut_off(diagnosis)
    if status == Status.UNPARSEABLE.value and not diagnosis.defects:
        return replace(diagnosis, status=Status.UNPARSEABLE, repairs=())
    return diagnosis
