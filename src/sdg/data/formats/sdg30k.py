"""Annotations as SDG-30K is released: the truth, read strictly. Predictions: `sdg.io.predictions`.

Keys: `filepath`, `caption`, `ann_translated_bboxes`, `ann_response`. Others are kept as metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from sdg.defects import Diagnosis
from sdg.errors import raise_all
from sdg.io import jsonl
from sdg.records import STORED, Path, Record, diagnosis_extras, from_extras, text_of, to_extras, with_extras
from sdg.response import parse_response, render_response
from sdg.response.grammar import TAG
from sdg.response.strict import BoxOrder, read_defects, think_content, write_defects

_ANNOTATION_KEYS: Final = frozenset({"filepath", "caption", "ann_translated_bboxes", "ann_response", STORED})


def read_annotations(path: Path) -> Iterator[Record]:
    """Stream the records of an annotation file; raises SdgError with file, line and reason at a fault."""
    return jsonl.read_records(path, from_annotation)


def write_annotations(path: Path, records: Iterable[Record]) -> int:
    """Write an annotation file (boxes in xyxy); returns the number of records. Raises SdgError."""
    return jsonl.write_with(path, records, to_annotation)


def from_annotation(value: Mapping[str, Any], box_order: BoxOrder = "xyxy", reasoning: bool = True) -> Record:
    """Record of one annotation object, its boxes in this order.

    Strict: raises ValueError (Faults for several at once) for a bad box, an unknown label, an importance
    outside 1..100, a missing key. A box labelled `both` becomes one defect of each type.
    `ann_translated_bboxes` null means not annotated. reasoning: whether that is wanted, the think block of
    `ann_response`, which takes a while to find.
    """
    try:
        diagnosis = _annotated(value, box_order, reasoning)
        texts = text_of(value, "filepath"), text_of(value, "caption")
        return Record(*texts, diagnosis, **from_extras(value, known=_ANNOTATION_KEYS))
    except ValueError:
        raise_all(
            [
                lambda: text_of(value, "filepath"),
                lambda: text_of(value, "caption"),
                lambda: _annotated(value, box_order, reasoning),
                lambda: from_extras(value, known=_ANNOTATION_KEYS),
            ]
        )
        raise


def _annotated(value: Mapping[str, Any], box_order: BoxOrder, wanted: bool) -> Diagnosis | None:
    if "ann_translated_bboxes" not in value:
        raise ValueError("'ann_translated_bboxes' is missing; a clean image has an empty list there.")
    items, response = value["ann_translated_bboxes"], value.get("ann_response")
    if items is None and STORED not in value:
        return None
    reasoning = _reasoning(response) if wanted and isinstance(response, str) else ""
    defects = () if items is None else read_defects(items, box_order)
    if STORED not in value:
        return Diagnosis(defects, reasoning)
    found = with_extras(defects, value[STORED])
    if items is None and found.is_informative:  # nothing says that the image is clean
        return None
    return replace(found, reasoning=reasoning) if reasoning else found


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
            if stored.pop("reasoning", ""):
                value["ann_response"] = render_response(diagnosis)
        if stored:
            value[STORED] = stored
    return value | to_extras(record, taken=_ANNOTATION_KEYS)


def _reasoning(response: str) -> str:
    """The think block of a stored response, without parsing its answer where the block is plain to see."""
    if response.startswith("<think>"):
        block, closing, rest = response[len("<think>") :].partition("</think>")
        if closing and "think>" not in rest and not ("<" in block and TAG.search(block)):
            return think_content(block)
    return parse_response(response).reasoning
