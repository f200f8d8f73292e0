"""One line of a file of predictions, both ways: an image's path and prompt, and what the detector answered.

`{"filepath", "caption", "response", "status", "error"}`: the layout of the released predictions, to which
`status` and `error` were added. `response` is the raw text, null where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sdg.defects import Diagnosis, Status
from sdg.errors import quoted
from sdg.records import Record, from_extras, optional_text, text_of, to_extras
from sdg.response import cut_off, parse_response, render_response
from sdg.response.strict import BoxOrder

ENDS: Final = (None, "stop", "length")
"""What servers call the end of an answer: by itself, or at the token limit. Any other end leaves none."""

_KEYS: Final = frozenset({"filepath", "filename", "caption", "response"})
_TROUBLE: Final = frozenset({"error", "refusal", "finish_reason"})
"""Keys that may say that there is no answer, or a part of one: metadata must not be taken for them."""


def read_prediction(
    value: Mapping[str, Any], *, box_order: BoxOrder = "xyxy", require_think: bool = True
) -> Record:
    """The record of a line, its response parsed leniently; other keys are metadata.

    `failed`: `response` is null, `status` is "failed", there is an `error` or a `refusal`, or `finish_reason`
    is neither "stop" nor "length". `truncated`: `status` is "truncated" or `finish_reason` is "length", which
    the text need not show. Where `status` is "unparseable", a response that reads as clean stays so.
    box_order: that of the responses' boxes. require_think: as for `parse_response`.
    Raises ValueError, in one sentence, where the line is no prediction.
    """
    filepath = text_of(value, "filename" if "filename" in value and "filepath" not in value else "filepath")
    caption = optional_text(value, "caption") or ""
    response, status, finish = (value.get(key) for key in ("response", "status", "finish_reason"))
    known = _KEYS | {"status"} if status in _STATUSES else _KEYS
    failed = _says_failed(value)
    if not failed and "response" not in value:
        raise ValueError("'response' is missing; where the detector failed it is null.")
    if not isinstance(response, str | None):
        raise ValueError(f"'response' is the detector's raw text, not {quoted(response)}.")
    if failed or response is None:
        error = value.get("error")
        if isinstance(error, str):
            known |= {"error"}
        diagnosis = Diagnosis(
            status=Status.FAILED, raw=response or "", error=error if isinstance(error, str) else ""
        )
    else:
        told = Status.TRUNCATED if finish == "length" else status
        diagnosis = _reorder(_read(response, told, require_think), box_order)
    return Record(filepath, caption, diagnosis, **from_extras(value, known=known))


def has_answer(value: Mapping[str, Any]) -> bool:
    """Whether a line says that the detector answered; of one that does not, the diagnosis is `failed`."""
    return value.get("response") is not None and not _says_failed(value)


def _says_failed(value: Mapping[str, Any]) -> bool:
    told = value.get("status") == Status.FAILED.value or value.get("error") or value.get("refusal")
    return bool(told) or value.get("finish_reason") not in ENDS


def write_prediction(record: Record, response: str | None = None) -> dict[str, Any]:
    """The line of a record; the inverse of `read_prediction`.

    response: the detector's raw text, by default that of the diagnosis where it still says what the diagnosis
    says; else the diagnosis is rendered, which loses subtypes and how it was read.
    Raises ValueError where there is no diagnosis, or one that no response says.
    """
    diagnosis = record.diagnosis
    if diagnosis is None:
        raise ValueError(f"{record.filepath} has no diagnosis, so there is no prediction to write.")
    taken = _KEYS | {"status"}
    said = {"error": diagnosis.error} if diagnosis.error else {}
    if diagnosis.status is Status.FAILED:
        taken |= {"error"}
        response = diagnosis.raw or None
    else:
        taken |= _TROUBLE
        if response is None:
            same = reads_as(diagnosis.raw, diagnosis)
            response = diagnosis.raw if same else render_response(diagnosis)
    line = {"filepath": record.filepath, "caption": record.prompt, "response": response}
    return line | {"status": diagnosis.status.value} | said | to_extras(record, taken=taken)


def reads_as(response: str, diagnosis: Diagnosis, *, require_think: bool = True) -> bool:
    """Whether a response that is stored with a diagnosis' status is read as this diagnosis."""
    return _read(response, diagnosis.status, require_think) == diagnosis


_STATUSES: Final = tuple(status.value for status in Status)


def _read(response: str, status: object, require_think: bool = True) -> Diagnosis:
    """The diagnosis of a response with the status that it was stored with."""
    diagnosis = parse_response(response, require_think=require_think)
    if response and status == Status.TRUNCATED:
        return cut_off(diagnosis)
    if status == Status.UNPARSEABLE and not diagnosis.defects:
        return replace(diagnosis, status=Status.UNPARSEABLE, repairs=())
    return diagnosis


def _reorder(diagnosis: Diagnosis, box_order: BoxOrder) -> Diagnosis:
    """Boxes put into xyxy; parsing orders each axis' pair, so exchanging the axes afterwards is exact."""
    if box_order == "xyxy":
        return diagnosis
    swapped = [replace(d, box=(d.box[1], d.box[0], d.box[3], d.box[2])) for d in diagnosis.defects]
    return replace(diagnosis, defects=tuple(swapped))
