"""Parquet files as rows of objects, and the pictures inside of them; read with pyarrow, part by part.

A file of inputs has `caption` (or `prompt`) and either `image`, the pictures themselves (bytes, or a struct
of `bytes` and `path` as Hugging Face datasets have it), or `filepath`. A file of predictions has the columns
of `PREDICTION_COLUMNS`.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sdg.errors import SdgError, first_line, path_end
from sdg.images import StoredImage
from sdg.io.files import atomic_writer

if TYPE_CHECKING:
    import pyarrow

PREDICTION_COLUMNS: Final = ("filepath", "caption", "response", "status", "error", "defects")
"""All text but `defects`: a list of structs of box (4 integers, 0–1000, xyxy), type, reason, importance and
subtype, null where nothing is known. It says what `response` says, for whoever queries the file."""
PROMPT_COLUMNS: Final = ("caption", "prompt")
_ROWS: Final = 4096  # in memory at a time, without pictures
_KEPT: Final = 2  # row groups of pictures in memory, of each file


def rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and values of each row, without pictures; an `error` of null is left out, and so is
    `defects` beside a `response`.

    Raises SdgError where the file cannot be read or holds no rows.
    """
    number = 0
    with _opened(path) as file:
        names = [field.name for field in file.schema_arrow if not _holds_pictures(field)]
        for batch in file.iter_batches(_ROWS, columns=names):
            for value in batch.to_pylist():
                number += 1
                if value.get("error", "") is None:
                    del value["error"]
                if "response" in value:
                    value.pop("defects", None)
                yield number, value
    if not number:
        raise SdgError(f"{path_end(str(path), 160)} is empty; it holds no rows.")


def row_count(path: str | os.PathLike[str]) -> int:
    """The number of rows, from the file's footer; raises SdgError where it cannot be read."""
    with _opened(path) as file:
        count: int = file.metadata.num_rows
        return count


def prompts(path: str | os.PathLike[str]) -> list[str | None]:
    """The prompt of each row, from the column `caption` or `prompt`; None where there is none."""
    with _opened(path) as file:
        name = next((name for name in PROMPT_COLUMNS if name in file.schema_arrow.names), None)
        if name is None:
            return [None] * file.metadata.num_rows
        values: list[str | None] = file.read([name]).column(0).to_pylist()
        if not all(isinstance(value, str | None) for value in values):
            raise SdgError(f"The column {name} of {path_end(str(path), 160)} holds no text.")
        return values


def stored_images(path: str | os.PathLike[str]) -> list[StoredImage]:
    """The pictures in the column `image`, none of them read yet; [] where the file has no such column.

    Each is called as its row's `filepath` says, or by the file and the row's number, from 0.
    """
    with _opened(path) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
        if "image" not in schema.names or not _holds_pictures(schema.field("image")):
            return []
        names = [f"{Path(path).name}#{row}" for row in range(count)]
        if "filepath" in schema.names:
            given = file.read(["filepath"]).column(0).to_pylist()
            names = [
                one if isinstance(one, str) and one else name for one, name in zip(given, names, strict=True)
            ]
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    groups = _RowGroups(Path(path))
    places = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    return [_Picture(name, groups, *place) for name, place in zip(names, places, strict=True)]


def write_predictions(path: str | os.PathLike[str], lines: Iterable[Mapping[str, Any]]) -> int:
    """Write lines of predictions as Parquet, whole or not at all; returns how many.

    Half surrogates, which Parquet's text cannot hold, become question marks. Raises SdgError where the file
    cannot be written.
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
    schema = pa.schema([(name, text) for name in PREDICTION_COLUMNS[:-1]] + [("defects", pa.list_(defect))])

    def row(line: Mapping[str, Any]) -> dict[str, Any]:
        diagnosis = read_prediction(line).diagnosis
        known = diagnosis.known_defects() if diagnosis is not None else None
        return {**{name: line.get(name) for name in PREDICTION_COLUMNS[:-1]}, "defects": known}

    written, source = 0, iter(lines)
    with atomic_writer(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while chunk := [_whole(row(line)) for line in islice(source, _ROWS)]:
            writer.write_table(pa.Table.from_pylist(chunk, schema))
            written += len(chunk)
    return written


class _RowGroups:
    """The pictures of a file by row group, of which the newest few are in memory; for any thread."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._known: OrderedDict[int, pyarrow.ChunkedArray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self._path}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def value(self, group: int, row: int) -> Any:
        with self._lock:
            if group not in self._known:
                with _opened(self._path) as file:
                    self._known[group] = file.read_row_group(group, columns=["image"]).column(0)
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(group)
            return self._known[group][row].as_py()


class _Picture(StoredImage):
    """A picture of a row group."""

    def __init__(self, name: str, groups: _RowGroups, group: int, row: int) -> None:
        self.name, self._groups, self._group, self._row = name, groups, group, row

    def content(self) -> bytes:
        value = self._groups.value(self._group, self._row)
        value = value.get("bytes") if isinstance(value, dict) else value
        if not value:
            raise SdgError(f"{self.name} has no picture in its row.")
        return bytes(value)


def _holds_pictures(field: pyarrow.Field) -> bool:
    pa = _pyarrow()
    types = [field.type] if not pa.types.is_struct(field.type) else [inner.type for inner in field.type]
    return any(pa.types.is_binary(one) or pa.types.is_large_binary(one) for one in types)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    pa = _pyarrow()
    import pyarrow.parquet as pq

    name = path_end(os.fspath(path), 160)
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise SdgError(f"{name} does not exist; check the path.") from None
    except (pa.lib.ArrowException, OSError) as error:
        raise SdgError(f"{name} cannot be read as Parquet ({first_line(error)}).") from None


def _whole(value: Any) -> Any:
    """Text without half surrogates."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {key: _whole(item) for key, item in value.items()} if isinstance(value, dict) else value


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise SdgError(
            "Parquet files need pyarrow: pip install 'structured-defect-grounding[parquet]'."
        ) from None
    return pyarrow
