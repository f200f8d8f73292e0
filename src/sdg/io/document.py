"""Files that are one JSON document: read whole, written in pieces as the records stream by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

from sdg.errors import SdgError
from sdg.io.files import read_text
from sdg.io.jsonl import DECODER, dump_object
from sdg.records import Path


def load_document(path: Path) -> Any:
    """The JSON value a file holds; raises SdgError where the file is missing, empty or no JSON."""
    text = read_text(path)
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise SdgError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise SdgError(f"{path} is JSON nested too deeply to be read.") from None
    except ValueError as error:
        raise SdgError(f"{path} is not JSON: {error}") from None


class ListWriter:
    """Writes the elements of a JSON list one by one, with a line for each."""

    def __init__(self, file: BinaryIO) -> None:
        self.count = 0
        self._file = file

    def add(self, value: Mapping[str, Any]) -> None:
        """Write one more element; raises SdgError where JSON cannot hold it."""
        self.count += 1
        try:
            line = dump_object(value)
        except ValueError as error:
            raise SdgError(f"Element {self.count} of {self._file.name}: {error}") from None
        self._file.write((b"\n" if self.count == 1 else b",\n") + line[:-1])
