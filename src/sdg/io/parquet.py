"""Parquet files as rows of objects, without the pictures inside of them; read with pyarrow, part by part.

A file of inputs has `caption` (or `prompt`) and either `image`, the pictures themselves (bytes, or a struct
of `bytes` and `path` as Hugging Face datasets have it), or `filepath`. A file of predictions has the columns
of `PREDICTION_COLUMNS`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sdg.defects import Status
from sdg.errors import SdgError, first_line, installed, path_end
from sdg.io.files import atomic_writer
from sdg.records import ESCAPE, NAMES, Record, optional_text

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")

_TEXTS: Final = ("filepath", "caption", "response", "status", "error", *NAMES, ESCAPE)
PREDICTION_COLUMNS: Final = (*_TEXTS, "defects")
"""All text but `defects`: a list of structs of box (4 integers, 0–1000, xyxy), type, reason, importance and
subtype, null where nothing is known. It says what `response` says, for whoever queries the file. `_metadata`
is a JSON object of a line's other keys."""
PROMPT_COLUMNS: Final = ("caption", "prompt")
_NULLS: Final = frozenset({"filepath", "caption", "prompt", "response", "ann_translated_bboxes"})
"""Columns of which null says something, or is a fault that readers name; of others it stands for no value."""
_ROWS: Final = 4096  # in memory at a time, without pictures


def rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and values of each row, without pictures; `defects` beside a `response` is left out.

    So is null, as Arrow writes a key that a row or a struct lacks, but in columns where it says something.
    `_metadata` may be an object in JSON. Raises SdgError where the file cannot be read or holds no rows.
    """
    number = 0
    with opened(path) as file:
        names = [field.name for field in file.schema_arrow if not holds_pictures(field)]
        for batch in file.iter_batches(_ROWS, columns=names):
            for value in batch.to_pylist():
                number += 1
                if "response" in value:
                    value.pop("defects", None)
                known = ((key, _without_nulls(one)) for key, one in value.items())
                made = {key: one for key, one in known if one is not None or key in _NULLS}
                if isinstance(told := made.get(ESCAPE), str):
                    made[ESCAPE] = _object(told)
                yield number, made
    if not number:
        raise SdgError(f"{path_end(str(path), 160)} is empty; it holds no rows.")


def row_count(path: str | os.PathLike[str]) -> int:
    """The number of rows, from the file's footer; raises SdgError where it cannot be read."""
    with opened(path) as file:
        count: int = file.metadata.num_rows
        return count


def prompts(path: str | os.PathLike[str]) -> list[str | None]:
    """The prompt of each row, from the column `caption` or `prompt`; None where there is none."""
    with opened(path) as file:
        name = next((name for name in PROMPT_COLUMNS if name in file.schema_arrow.names), None)
        if name is None:
            return [None] * file.metadata.num_rows
        values: list[str | None] = file.read([name]).column(0).to_pylist()
        if not all(isinstance(value, str | None) for value in values):
            raise SdgError(f"The column {name} of {path_end(str(path), 160)} holds no text.")
        return values


def write_predictions(
    path: str | os.PathLike[str],
    values: Iterable[T],
    convert: Callable[[T], Mapping[str, Any]] = lambda value: value,  # type: ignore[assignment, return-value]
) -> int:
    """Write `convert(value)` of each value, a line of predictions, as Parquet, or no file; returns how many.

    The columns say how a line is read: its `status` is that of the diagnosis, as what else the line has to
    say of its end (`finish_reason`, `refusal`) lies in `_metadata`. Half surrogates, which Parquet's text
    cannot hold, become question marks. Raises SdgError where the file cannot be written, or a value is no
    line of predictions.
    """
    pa = _pyarrow()
    import pyarrow.parquet as pq

    from sdg.io.predictions import read_prediction

    text = pa.string()
    defect = pa.struct(
        [
            ("box", pa.list_(pa.int32())),
            ("type", text),
            ("reason", text),
            ("importance", pa.int32()),
            ("subtype", text),
        ]
    )
    schema = pa.schema([(name, text) for name in _TEXTS] + [("defects", pa.list_(defect))])

    def row(number: int, value: T) -> dict[str, Any]:
        try:
            line = convert(value)
            return _columns(line, read_prediction(line))
        except ValueError as error:
            raise SdgError(
                f"{path_end(os.fspath(path), 160)} holds predictions; record {number}: {error}"
            ) from None

    written, source = 0, enumerate(values, start=1)
    with atomic_writer(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while chunk := [_whole(row(*numbered)) for numbered in islice(source, _ROWS)]:
            writer.write_table(pa.Table.from_pylist(chunk, schema))
            written += len(chunk)
    return written


def _columns(line: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """The values of a row; raises ValueError for what a column cannot hold."""
    values = {name: optional_text(line, name) for name in ("response", "status", "error")}
    values |= {"filepath": record.filepath, "caption": record.prompt}
    values |= {name: getattr(record, name) for name in NAMES}
    if record.metadata:
        try:
            values[ESCAPE] = json.dumps(record.metadata, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"This cannot be written as JSON: {error}.") from None
    if (diagnosis := record.diagnosis) is None:
        return values
    # Whether a readable answer had to be mended is for the line to say: it depends on the profile.
    if not {values["status"], diagnosis.status} <= {Status.OK, Status.REPAIRED}:
        values["status"] = diagnosis.status.value
    return values | {"error": diagnosis.error or None, "defects": diagnosis.known_defects()}


def _object(text: str) -> Any:
    """The object that a column holds as JSON; any other text as it is, for the reader to refuse."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def holds_pictures(field: pyarrow.Field) -> bool:
    """Whether a column's values are bytes, or structs with some."""
    pa = _pyarrow()
    types = [field.type] if not pa.types.is_struct(field.type) else [inner.type for inner in field.type]
    return any(map(is_bytes, types))


def is_bytes(kind: pyarrow.DataType) -> bool:
    """Whether values of an Arrow type are bytes."""
    pa = _pyarrow()
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The file as pyarrow's ParquetFile; raises SdgError where it, or a value inside, cannot be read."""
    pa = _pyarrow()
    import pyarrow.parquet as pq

    name = path_end(os.fspath(path), 160)
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise SdgError(f"{name} does not exist; check the path.") from None
    except (pa.lib.ArrowException, OSError, ValueError, OverflowError) as error:  # or text that is no UTF-8
        raise SdgError(f"{name} cannot be read as Parquet ({first_line(error)}).") from None


def _without_nulls(value: Any) -> Any:
    """A value without its structs' members that are null; None for a struct that has no others."""
    if isinstance(value, dict):
        known = ((key, _without_nulls(one)) for key, one in value.items())
        return {key: one for key, one in known if one is not None} or None
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _whole(value: Any) -> Any:
    """Text without half surrogates."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {key: _whole(item) for key, item in value.items()} if isinstance(value, dict) else value


def _pyarrow() -> Any:
    with installed("Parquet files need pyarrow", "parquet"):
        import pyarrow
    return pyarrow
