"""A Record is one image of a data set: where it lies, its prompt, and what is known of its defects.

Also what all file formats share about records: the faults a reader finds (it stops at the first, `sdg data
validate` lists them all), and the extra keys for what a foreign format has no place for. `generator`, `split`
and `annotator` keep their names; metadata keys stand beside them, and one that would be taken for something
else goes into the object `_metadata`. How a diagnosis came to be, which truth seldom needs, goes into the
object `_diagnosis`. So every format's round trip is exact.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Self

from sdg.defects import Defect, Diagnosis, require_keys
from sdg.errors import SdgError, quoted, raise_all


@dataclass(frozen=True, slots=True)
class Record:
    """One image with its prompt and, where known, its diagnosis.

    filepath: the image's path as the data set writes it, relative to the data set's folder; also the key
    that joins truth and predictions. generator, split and annotator are names, None where not known.
    metadata: JSON values no other field holds, kept through round trips.
    Raises ValueError, in one sentence, for a path or a name that is empty or no text.
    """

    filepath: str
    prompt: str
    diagnosis: Diagnosis | None = None
    generator: str | None = None
    split: str | None = None
    annotator: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.filepath, str) or not self.filepath:
            raise ValueError(f"A record needs the path of its image as text, not {quoted(self.filepath)}.")
        if not isinstance(self.prompt, str):
            raise ValueError(f"A record's prompt is text, not {quoted(self.prompt)}.")
        for name in (self.generator, self.split, self.annotator):
            if name is not None and (not isinstance(name, str) or not name):
                raise ValueError(f"A generator, split or annotator is a name or None, not {quoted(name)}.")

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON values, under its own name; what is not known is left out."""
        value: dict[str, Any] = {"filepath": self.filepath, "prompt": self.prompt}
        value |= {name: getattr(self, name) for name in NAMES if getattr(self, name) is not None}
        if self.diagnosis is not None:
            value["diagnosis"] = self.diagnosis.to_dict()
        if self.metadata:
            value["metadata"] = dict(self.metadata)
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; raises ValueError in one sentence (Faults for several at once)."""
        if not isinstance(value, Mapping):
            raise ValueError(f"A record is a JSON object, not {quoted(value)}.")
        readers: dict[str, Callable[[], Any]] = {
            "filepath": lambda: text_of(value, "filepath"),
            "prompt": lambda: text_of(value, "prompt"),
            "diagnosis": lambda: _diagnosis(value.get("diagnosis")),
            **{name: partial(as_name, name, value.get(name)) for name in NAMES},
            "metadata": lambda: _metadata(value),
        }
        try:
            require_keys(value, readers.keys(), "record")
            return cls(**{name: read() for name, read in readers.items()})
        except ValueError:
            raise_all([lambda: require_keys(value, readers.keys(), "record"), *readers.values()])
            raise


Path = str | os.PathLike[str]
Part = tuple[str, Callable[[], Iterable[Record]]]
"""Where in the file ("line 17"), and what makes its records or raises ValueError with the reason."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: the file, the place in it ("line 17", "" for the whole file) and the reason."""

    path: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, {self.place}: {self.reason}" if self.place else self.reason


def read_parts(path: Path, parts: Iterable[Part]) -> Iterator[Record]:
    """The records of all parts; raises SdgError with file, place and reason at the first fault."""
    for place, make in parts:
        try:
            records = make()
        except ValueError as error:
            raise SdgError(str(Fault(str(path), place, str(error)))) from None
        yield from records


NAMES: Final = ("generator", "split", "annotator")
ESCAPE: Final = "_metadata"
STORED: Final = "_diagnosis"
"""Key under which formats keep what `diagnosis_extras` gives."""


def to_extras(record: Record, taken: Container[str]) -> dict[str, Any]:
    """Keys for what the format does not hold; `taken` are the format's own keys."""
    extras: dict[str, Any] = {name: text for name in NAMES if (text := getattr(record, name)) is not None}
    escaped = {}
    for key, value in record.metadata.items():
        if key in taken or key in NAMES or key == ESCAPE:
            escaped[key] = value
        else:
            extras[key] = value
    if escaped:
        extras[ESCAPE] = escaped
    return extras


def from_extras(value: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """Keyword arguments of Record from the keys of an object that its format does not know.

    Raises ValueError where a generator, split or annotator is not text.
    """
    fields: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for key in value:
        if key in known:
            continue
        if key in NAMES:
            fields[key] = as_name(key, value[key])
        elif key != ESCAPE:
            metadata[key] = value[key]
    if ESCAPE in value:
        if not isinstance(value[ESCAPE], Mapping):
            raise ValueError(f"{ESCAPE!r} is a JSON object, not {quoted(value[ESCAPE])}.")
        metadata |= value[ESCAPE]
    if metadata:
        fields["metadata"] = metadata
    return fields


def as_name(field: str, value: object) -> str | None:
    """Text, or None for nothing and for ""; a number, as annotator ids often are, becomes its text."""
    if isinstance(value, str) or value is None:
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{field!r} is text, not {quoted(value)}.")


def as_integer(value: object) -> object:
    """An integer that another tool wrote as 45.0 or "45"; anything else as it is, for Defect to refuse."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value


def diagnosis_extras(diagnosis: Diagnosis) -> dict[str, Any]:
    """What `Diagnosis.to_dict` gives beside the defects, which formats write in ways of their own."""
    return {key: value for key, value in diagnosis.to_dict().items() if key != "defects"}


def with_extras(defects: Iterable[Defect], extras: object) -> Diagnosis:
    """The diagnosis of these defects, the rest as `diagnosis_extras` gave it; raises ValueError."""
    if not isinstance(extras, Mapping) or "defects" in extras:
        raise ValueError(f"A stored diagnosis is an object without defects, not {quoted(extras)}.")
    return replace(Diagnosis.from_dict({**extras, "defects": []}), defects=tuple(defects))


def _diagnosis(value: Any) -> Diagnosis | None:
    return None if value is None else Diagnosis.from_dict(value)


def _metadata(value: Mapping[str, Any]) -> dict[str, Any]:
    metadata = value.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ValueError(f"'metadata' is a JSON object, not {quoted(metadata)}.")
    return metadata


def text_of(value: Mapping[str, Any], key: str, *, default: str | None = None) -> str:
    """Text under a key; raises ValueError where it is missing (without a default) or not text."""
    text = value.get(key, default)
    if type(text) is str:
        return text
    if key not in value:
        raise ValueError(f"{key!r} is missing.")
    raise ValueError(f"{key!r} is text, not {quoted(text)}.")


def optional_text(value: Mapping[str, Any], key: str) -> str | None:
    """Text under a key, or None where it is missing or null; raises ValueError where it is not text."""
    text = value.get(key)
    if isinstance(text, str | None):
        return text
    raise ValueError(f"{key!r} is text, not {quoted(text)}.")
