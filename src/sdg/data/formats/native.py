"""Our own JSONL: one Record a line, all of it, under the names the code uses.

`{"filepath", "prompt", "generator", "split", "annotator", "diagnosis", "metadata"}`; a value that is not
known is left out. A diagnosis is `{"defects", "reasoning", "status", "raw", "repairs"}` and a defect is
`{"box", "type", "reason", "importance", "subtype"}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from sdg.defects import Defect, DefectType, Diagnosis
from sdg.io import jsonl
from sdg.records import (
    NAMES,
    Faults,
    Path,
    Record,
    as_name,
    diagnosis_extras,
    from_diagnosis_extras,
    optional_text,
    raise_all,
    text_of,
)

_RECORD_KEYS: Final = ("filepath", "prompt", *NAMES, "diagnosis", "metadata")
_DEFECT_KEYS: Final = ("box", "type", "reason", "importance", "subtype")
_TYPES: Final = {kind.value: kind for kind in DefectType}


def read(path: Path) -> Iterator[Record]:
    """Stream the records of a file; raises SdgError with file, line and reason at the first fault."""
    return jsonl.read_records(path, from_object)


def write(path: Path, records: Iterable[Record]) -> int:
    """Write records, one a line; returns how many. Raises SdgError where the file cannot be written."""
    return jsonl.write_with(path, records, to_object)


def from_object(value: Mapping[str, Any]) -> Record:
    """The Record that `to_object` made an object of; raises ValueError (Faults for several at once)."""
    try:
        return _record(value)
    except ValueError:
        raise_all(
            [
                lambda: _known(value, _RECORD_KEYS, "record"),
                lambda: text_of(value, "filepath"),
                lambda: text_of(value, "prompt"),
                *(partial(as_name, name, value.get(name)) for name in NAMES),
                lambda: _metadata(value),
                lambda: _diagnosis(value.get("diagnosis")),
            ]
        )
        raise


def to_object(record: Record) -> dict[str, Any]:
    """Every field of a record as JSON values; defaults are left out."""
    value: dict[str, Any] = {"filepath": record.filepath, "prompt": record.prompt}
    for name in NAMES:
        if getattr(record, name) is not None:
            value[name] = getattr(record, name)
    if record.diagnosis is not None:
        value["diagnosis"] = to_diagnosis_object(record.diagnosis)
    if record.metadata:
        value["metadata"] = dict(record.metadata)
    return value


def to_diagnosis_object(diagnosis: Diagnosis) -> dict[str, Any]:
    """Every field of a diagnosis as JSON values; defaults are left out."""
    value: dict[str, Any] = {"defects": to_defect_objects(diagnosis.defects)}
    if diagnosis.reasoning:
        value["reasoning"] = diagnosis.reasoning
    return value | diagnosis_extras(diagnosis)


def to_defect_objects(defects: Iterable[Defect]) -> list[dict[str, Any]]:
    """Defects as JSON objects; values that are not known are left out."""
    objects = []
    for defect in defects:
        value: dict[str, Any] = {
            "box": list(defect.box),
            "type": defect.type.value,
            "reason": defect.reason,
            "importance": defect.importance,
            "subtype": defect.subtype,
        }
        objects.append({key: item for key, item in value.items() if item is not None})
    return objects


def from_defect_objects(values: object) -> tuple[Defect, ...]:
    """The inverse of `to_defect_objects`; raises Faults, each of which names the defect, counted from 1."""
    if not isinstance(values, list):
        raise ValueError(f"The defects are a JSON list, not {values!r}.")
    defects: list[Defect] = []
    faults: list[str] = []
    for number, value in enumerate(values, start=1):
        try:
            defects.append(_defect(value))
        except ValueError as error:
            faults.append(f"Defect {number}: {error}")
    if faults:
        raise Faults(faults)
    return tuple(defects)


def _record(value: Mapping[str, Any]) -> Record:
    _known(value, _RECORD_KEYS, "record")
    return Record(
        text_of(value, "filepath"),
        text_of(value, "prompt"),
        _diagnosis(value.get("diagnosis")),
        as_name("generator", value.get("generator")),
        as_name("split", value.get("split")),
        as_name("annotator", value.get("annotator")),
        _metadata(value),
    )


def _metadata(value: Mapping[str, Any]) -> dict[str, Any]:
    metadata = value.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ValueError(f"'metadata' is a JSON object, not {metadata!r}.")
    return metadata


def _diagnosis(value: object) -> Diagnosis | None:
    if value is None:
        return None
    if not isinstance(value, dict) or "defects" not in value:
        raise ValueError("'diagnosis' is an object with a list of 'defects', or null.")
    extras = {key: value[key] for key in value if key != "defects"}
    return Diagnosis(from_defect_objects(value["defects"]), **from_diagnosis_extras(extras))


def _defect(value: object) -> Defect:
    if not isinstance(value, dict):
        raise ValueError(f"A defect is a JSON object, not {value!r}.")
    _known(value, _DEFECT_KEYS, "defect")
    box, kind = value.get("box"), value.get("type")
    if not isinstance(box, list):
        raise ValueError(f"A box is four integers [x0, y0, x1, y1], not {box!r}.")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(f"A defect's type is 'artifact' or 'misalignment', not {kind!r}.")
    subtype = optional_text(value, "subtype")
    return Defect(tuple(box), _TYPES[kind], value.get("reason", ""), value.get("importance"), subtype)


def _known(value: Mapping[str, Any], keys: tuple[str, ...], what: str) -> None:
    for key in value:
        if key not in keys:
            raise ValueError(
                f"A {what} has no key {key!r}; anything else belongs into a record's 'metadata'."
            )
