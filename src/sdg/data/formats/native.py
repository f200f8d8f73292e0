"""Our own JSONL: `Record.to_dict()` a line, which holds all of a record under the names the code uses.

`{"filepath", "prompt", "generator", "split", "annotator", "diagnosis", "metadata"}`; a value that is not
known is left out. A diagnosis is `{"defects", "reasoning", "status", "raw", "repairs"}` and a defect is
`{"box", "type", "reason", "importance", "subtype"}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sdg.io import jsonl
from sdg.records import Path, Record


def read(path: Path) -> Iterator[Record]:
    """Stream the records of a file; raises SdgError with file, line and reason at the first fault."""
    return jsonl.read_records(path, Record.from_dict)


def write(path: Path, records: Iterable[Record]) -> int:
    """Write records, one a line; returns how many. Raises SdgError where the file cannot be written."""
    return jsonl.write_with(path, records, Record.to_dict)
