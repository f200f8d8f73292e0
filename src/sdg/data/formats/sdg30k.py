"""The released SDG-30K files: annotations (the truth, read strictly) and predictions (read leniently).

Annotations: `filepath`, `caption`, `ann_translated_bboxes`, `ann_response`. Predictions: `filepath` (or
`filename`), `caption`, `response`, the detector's raw text. Other keys are kept as metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, get_args

from sdg.defects import Defect, Diagnosis, Status
from sdg.io import jsonl
from sdg.io.predictions import read_stored
from sdg.records import (
    LABELS,
    STORED,
    Faults,
    Path,
    Record,
    diagnosis_extras,
    from_diagnosis_extras,
    from_extras,
    optional_text,
    raise_all,
    text_of,
    to_extras,
)
from sdg.response import cut_off, parse_response, render_response
from sdg.response.grammar import TAG, think_content

BoxOrder = Literal["xyxy", "yxyx"]
"""Order of the four coordinates in a file. SDG's is xyxy; some models answer yxyx."""

_ANNOTATION_KEYS: Final = frozenset({"filepath", "caption", "ann_translated_bboxes", "ann_response", STORED})
_PREDICTION_KEYS: Final = frozenset({"filepath", "filename", "caption", "response"})
_TROUBLE: Final = frozenset({"error", "refusal", "finish_reason"})
"""Keys that may say that there is no answer, or a part of one: metadata must not be taken for them."""


def read_annotations(path: Path, box_order: BoxOrder = "xyxy") -> Iterator[Record]:
    """Stream the records of an annotation file; `box_order` is the order the file's boxes are in.

    Strict: raises SdgError with file, line and reason for a bad box, an unknown label, an importance
    outside 1..100, a missing key. A box labelled `both` becomes one defect of each type. The reasoning is
    the think block of `ann_response`, where there is one. `ann_translated_bboxes` null means not annotated.
    """
    _check_order(box_order)
    return jsonl.read_records(path, partial(from_annotation, box_order=box_order))


def read_predictions(path: Path, box_order: BoxOrder = "xyxy") -> Iterator[Record]:
    """Stream the records of a prediction file, each response parsed leniently (see `parse_response`).

    Which lines give a Diagnosis with status `failed`, `truncated` or `unparseable`, `read_stored` says.
    Raises SdgError with file, line and reason where a line is no prediction.
    """
    _check_order(box_order)
    return jsonl.read_records(path, partial(from_prediction, box_order=box_order))


def write_annotations(path: Path, records: Iterable[Record]) -> int:
    """Write an annotation file (boxes in xyxy); returns the number of records. Raises SdgError."""
    return jsonl.write_with(path, records, to_annotation)


def write_predictions(path: Path, records: Iterable[Record]) -> int:
    """Write a prediction file; returns the number of records. Raises SdgError.

    A record's raw response is written where it still says what its diagnosis says; otherwise the diagnosis
    is rendered, which loses subtypes and how it was read. Our own JSONL (`native`) loses nothing.
    """
    return jsonl.write_with(path, records, to_prediction)


def from_annotation(value: Mapping[str, Any], box_order: BoxOrder = "xyxy") -> Record:
    """Record of one annotation object; raises ValueError (Faults for several at once)."""
    try:
        filepath, caption = text_of(value, "filepath"), text_of(value, "caption")
        diagnosis = _annotated(value, box_order)
        return Record(filepath, caption, diagnosis, **from_extras(value, known=_ANNOTATION_KEYS))
    except ValueError:
        raise_all(
            [
                lambda: text_of(value, "filepath"),
                lambda: text_of(value, "caption"),
                lambda: _annotated(value, box_order),
                lambda: from_extras(value, known=_ANNOTATION_KEYS),
            ]
        )
        raise


def _annotated(value: Mapping[str, Any], box_order: BoxOrder) -> Diagnosis | None:
    if "ann_translated_bboxes" not in value:
        raise ValueError("'ann_translated_bboxes' is missing; a clean image has an empty list there.")
    items, response = value["ann_translated_bboxes"], value.get("ann_response")
    stored = from_diagnosis_extras(value[STORED]) if STORED in value else {}
    if isinstance(response, str):
        stored["reasoning"] = _reasoning(response)
    if items is None:
        return Diagnosis(**stored) if STORED in value else None
    return Diagnosis(read_defects(items, box_order), **stored)


def to_annotation(record: Record) -> dict[str, Any]:
    """The annotation object of one record; the inverse of `from_annotation`."""
    diagnosis = record.diagnosis
    value: dict[str, Any] = {
        "filepath": record.filepath,
        "caption": record.prompt,
        "ann_translated_bboxes": None,
    }
    if diagnosis is not None:
        stored = diagnosis_extras(diagnosis)
        if diagnosis.is_informative:  # otherwise an empty list would read as a clean image
            value["ann_translated_bboxes"] = write_defects(diagnosis.defects)
        if diagnosis.is_informative and diagnosis.reasoning:
            value["ann_response"] = render_response(diagnosis)
        elif diagnosis.reasoning:
            stored["reasoning"] = diagnosis.reasoning
        if stored:
            value[STORED] = stored
    return value | to_extras(record, taken=_ANNOTATION_KEYS)


def from_prediction(value: Mapping[str, Any], box_order: BoxOrder = "xyxy") -> Record:
    """Record of one prediction object; raises ValueError with the reason in one sentence."""
    filepath = text_of(value, "filepath" if "filepath" in value else "filename")
    caption = text_of(value, "caption", default="")
    known = _PREDICTION_KEYS
    if value.get("status") in (Status.FAILED.value, Status.TRUNCATED.value):
        known |= {"status"}
    diagnosis = _reorder(read_stored(value), box_order)
    return Record(filepath, caption, diagnosis, **from_extras(value, known=known))


def to_prediction(record: Record) -> dict[str, Any]:
    """The prediction object of one record; raises ValueError where it has no diagnosis."""
    diagnosis = record.diagnosis
    if diagnosis is None:
        raise ValueError(f"{record.filepath} has no diagnosis, so there is no prediction to write.")
    value: dict[str, Any] = {"filepath": record.filepath, "caption": record.prompt}
    taken = _PREDICTION_KEYS | {"status"}
    if diagnosis.status is Status.FAILED:
        value |= {"response": diagnosis.raw or None, "status": "failed"}
    elif _only_told_cut_off(diagnosis):
        value |= {"response": diagnosis.raw, "status": Status.TRUNCATED.value}
        taken |= _TROUBLE
    else:
        value["response"] = _response(diagnosis)
        taken |= _TROUBLE
    return value | to_extras(record, taken=taken)


def read_defects(items: object, box_order: BoxOrder = "xyxy") -> tuple[Defect, ...]:
    """Defects of a list of `{"box_2d", "label", "description", "importance"}` objects, strictly.

    A missing description or importance stays unknown; `desc` is an alias; `subtype` is ours.
    Raises Faults, each of which names the defect, counted from 1.
    """
    if not isinstance(items, list):
        raise ValueError(f"The defects are a JSON list, not {items!r}.")
    defects: list[Defect] = []
    faults: list[str] = []
    for number, item in enumerate(items, start=1):
        try:
            box = tuple(item["box_2d"])
            if box_order == "yxyx":
                y0, x0, y1, x1 = box
                box = (x0, y0, x1, y1)
            reason = item["description"] if "description" in item else item.get("desc", "")
            importance, subtype = item.get("importance"), item.get("subtype")
            if subtype is not None:
                optional_text(item, "subtype")
            for kind in LABELS[item["label"]]:
                defects.append(Defect(box, kind, reason, importance, subtype))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append(f"Defect {number}: {_fault(item, error)}")
    if faults:
        raise Faults(faults)
    return tuple(defects)


def write_defects(defects: Iterable[Defect]) -> list[dict[str, Any]]:
    """The list `read_defects` reads; keys of unknown values are left out."""
    return [_item(defect) for defect in defects]


def _item(defect: Defect) -> dict[str, Any]:
    item: dict[str, Any] = {"box_2d": list(defect.box), "label": defect.type.value}
    item["description"] = defect.reason
    if defect.importance is not None:
        item["importance"] = defect.importance
    if defect.subtype is not None:
        item["subtype"] = defect.subtype
    return item


def _fault(item: object, error: Exception) -> str:
    """Why one item could not be read; looked into only once it has failed, to keep reading fast."""
    if not isinstance(item, dict):
        return f"A defect is a JSON object, not {item!r}."
    for key in ("box_2d", "label"):
        if key not in item:
            return f"{key!r} is missing."
    box, label = item["box_2d"], item["label"]
    if not isinstance(box, list) or len(box) != 4:
        return f"A box is four integers [x0, y0, x1, y1], not {box!r}."
    if not isinstance(label, str) or label not in LABELS:
        return f"The label is 'artifact', 'misalignment' or 'both', not {label!r}."
    return str(error)


def _reasoning(response: str) -> str:
    """The think block of a stored response, without parsing its answer where the block is plain to see."""
    if response.startswith("<think>"):
        block, closing, rest = response[len("<think>") :].partition("</think>")
        if closing and "think>" not in rest and not ("<" in block and TAG.search(block)):
            return think_content(block)
    return parse_response(response).reasoning


def _response(diagnosis: Diagnosis) -> str:
    """The raw response, or the diagnosis rendered where it has none or was changed since."""
    if parse_response(diagnosis.raw) == diagnosis:
        return diagnosis.raw
    return render_response(diagnosis)


def _only_told_cut_off(diagnosis: Diagnosis) -> bool:
    # Cut off as the detector told, in a way that the response's text does not show.
    if diagnosis.status is not Status.TRUNCATED or not diagnosis.raw:
        return False
    read = parse_response(diagnosis.raw)
    return read.status is not Status.TRUNCATED and cut_off(read) == diagnosis


def _reorder(diagnosis: Diagnosis, box_order: BoxOrder) -> Diagnosis:
    """Boxes put into xyxy; parsing orders each axis' pair, so exchanging the axes afterwards is exact."""
    if box_order == "xyxy":
        return diagnosis
    swapped = [replace(d, box=(d.box[1], d.box[0], d.box[3], d.box[2])) for d in diagnosis.defects]
    return replace(diagnosis, defects=tuple(swapped))


def _check_order(box_order: str) -> None:
    if box_order not in get_args(BoxOrder):
        raise ValueError(f"The box order is 'xyxy' or 'yxyx', not {box_order!r}.")
