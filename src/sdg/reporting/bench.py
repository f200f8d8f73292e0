"""Tables that `sdg bench` wrote, as a section of a report."""

from __future__ import annotations

import os
from typing import Any

from sdg.errors import SdgError
from sdg.io.document import load_document
from sdg.reporting.summary import Tables
from sdg.tables import Table


def read_bench(path: str | os.PathLike[str]) -> Tables:
    """What a file of `sdg bench` holds; raises SdgError where it is none."""
    document: Any = load_document(path)
    try:
        tables = []
        for one in document["tables"]:
            columns, rows = tuple(one["columns"]), tuple(map(tuple, one["rows"]))
            texts = (one["title"], *columns, *(cell for row in rows for cell in row))
            if not columns or any(len(row) != len(columns) for row in rows):
                raise TypeError
            if not all(type(text) is str for text in texts):
                raise TypeError
            tables.append(Table(one["title"], columns, rows, frozenset(map(int, one["published"]))))
        title, remarks = document["title"], list(document["notes"])
        if not document["bench"] or not all(type(text) is str for text in (title, *remarks)):
            raise TypeError
    except (LookupError, TypeError, ValueError):
        raise SdgError(
            f"{os.fspath(path)} holds no table; give a .json file that `sdg bench` wrote."
        ) from None
    return Tables(title, tables, remarks=remarks)
