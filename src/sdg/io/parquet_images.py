"""The pictures inside of Parquet files, read when they are asked for; a few row groups at a time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sdg.errors import SdgError
from sdg.images import StoredImage
from sdg.io.parquet import holds_pictures, is_bytes, opened

if TYPE_CHECKING:
    import pyarrow

_KEPT: Final = 2  # row groups of pictures in memory, of each file


def stored_images(path: str | os.PathLike[str]) -> list[StoredImage]:
    """The pictures in the column `image`, none of them read yet; [] where the file has no such column.

    Each is called as its row's `filepath` says, or by the file and the row's number, from 0.
    """
    with opened(path) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
        place = schema.get_field_index("image")  # -1 also where two columns are so called
        if place < 0 or not holds_pictures(schema.field(place)):
            return []
        own = Path(path).name
        names = [f"{own}#{row}" for row in range(count)]
        if "filepath" in schema.names:
            given = file.read(["filepath"]).column(0).to_pylist()
            names = [
                one if isinstance(one, str) and one else name for one, name in zip(given, names, strict=True)
            ]
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    groups = _RowGroups(Path(path))
    places = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    return [_Picture(name, groups, *place) for name, place in zip(names, places, strict=True)]


class _RowGroups:
    """The pictures of a file by row group, of which the newest few are in memory; for any thread."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._known: OrderedDict[int, pyarrow.ChunkedArray | None] = OrderedDict()

    def __reduce__(self) -> tuple[type[_RowGroups], tuple[Path]]:
        return _RowGroups, (self._path,)

    def value(self, group: int, row: int) -> bytes | None:
        with self._lock:
            if group not in self._known:
                with opened(self._path) as file:
                    self._known[group] = _bytes(file.read_row_group(group, columns=["image"]).column(0))
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(group)
            column = self._known[group]
            value: bytes | None = None if column is None else column[row].as_py()
            return value


def _bytes(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray | None:
    """The pictures of a column, of structs their member `bytes`; None where that holds something else."""
    names = [column.type.field(at).name for at in range(column.type.num_fields)]
    if "bytes" in names:
        column = column.flatten()[names.index("bytes")]
    return column if is_bytes(column.type) else None


class _Picture(StoredImage):
    """A picture of a row group."""

    def __init__(self, name: str, groups: _RowGroups, group: int, row: int) -> None:
        self.name, self._groups, self._group, self._row = name, groups, group, row

    def content(self) -> bytes:
        value = self._groups.value(self._group, self._row)
        if not value:
            raise SdgError(f"{self.name} has no picture in its row.")
        return value
