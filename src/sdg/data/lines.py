"""Two files of lines for several processes: where to cut them, and lines read no further than scoring needs.

Lines are read so where they are as released; of any other the functions here give None: `line_reader` reads
those, and says what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final

import orjson

from sdg.defects import Status
from sdg.io.jsonl import spans
from sdg.records import ESCAPE, NAMES, STORED, Path
from sdg.response.parsing import plain_response


def cuts(one: Path, other: Path, parts: int) -> list[tuple[range, range]] | None:
    """The bytes of each part in both files; None where these have not as many lines, or fewer than `parts`.

    Whether paths pair up is for the reader to see. Raises SdgError where a file cannot be read.
    """
    (lines, found), (others, other_found) = (spans(path, parts) for path in (one, other))
    return list(zip(found, other_found, strict=True)) if lines == others >= parts else None


Plain = tuple[str, Any]
"""A path, and the JSON value of the defects, which is not looked at yet."""

_ANNOTATION_KEYS: Final = frozenset({"filepath", "caption", "ann_translated_bboxes", "ann_response"})
_PREDICTION_KEYS: Final = frozenset({"filepath", "caption", "response"})
_WHOLE: Final = (None, Status.OK.value, Status.REPAIRED.value)
_NAMING: Final = (str, int, type(None))
_TELLING: Final = frozenset({STORED, ESCAPE, "filename", "error", "refusal", "finish_reason"})


def plain_annotation(line: bytes) -> Plain | None:
    """Of a line of annotations that is made of what the release has, and of metadata without structure."""
    value = _object(line)
    if value is None or type(value.get("caption")) is not str or not _is_plain(value, _ANNOTATION_KEYS):
        return None
    return value["filepath"], value.get("ann_translated_bboxes")


def plain_prediction(line: bytes) -> Plain | None:
    """Of a line of predictions whose response needs no repair and was not cut off."""
    value = _object(line)
    if value is None or not _is_plain(value, _PREDICTION_KEYS) or value.get("status") not in _WHOLE:
        return None
    response, caption = value.get("response"), value.get("caption")
    if type(response) is not str or (caption is not None and type(caption) is not str):
        return None
    found = plain_response(response)
    return None if found is None else (value["filepath"], found[1])


def _object(line: bytes) -> dict[str, Any] | None:
    """The object of a line, which has a path."""
    try:
        value = orjson.loads(line)
    except ValueError:
        return None
    return value if type(value) is dict and type(value.get("filepath")) is str and value["filepath"] else None


def _is_plain(value: Mapping[str, Any], known: Set[str]) -> bool:
    """Whether all else in a line is metadata that no reader takes for something else, or refuses."""
    if value.keys() <= known:
        return True
    others = value.keys() - known
    return not others & _TELLING and all(
        (kind := type(value[key])) in _NAMING or (kind not in (dict, list) and key not in NAMES)
        for key in others
    )
