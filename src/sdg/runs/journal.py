"""What a long run writes beside its output, so that it can be killed at any moment and gone on with.

`OUT.run.json` says with which settings it was begun, `OUT.partial` collects rows in the order they come; of
several processes each has a part of its own, `OUT.partial-1` and so on.
"""

from __future__ import annotations

import glob
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Final

from sdg.errors import SdgError, path_end, quoted
from sdg.io import jsonl
from sdg.io.files import writing
from sdg.runs.begin import begin

BATCH: Final = 64
"""Rows of a run that are not synced to the disk, at most."""
Key = tuple[str, str]
"""What tells the images of a run apart: path and prompt."""
Row = dict[str, Any]


def partial_of(out: Path) -> Path:
    """Where the rows of an unfinished output are."""
    return out.with_name(out.name + ".partial")


def manifest_of(out: Path) -> Path:
    """Where the settings are that an output was begun with."""
    return out.with_name(out.name + ".run.json")


def part_of(path: Path, rank: int) -> Path:
    """The journal of one of several processes; the main one's, rank 0, is `path` itself."""
    return path.with_name(f"{path.name}-{rank}") if rank else path


def parts_of(path: Path) -> list[Path]:
    """The journals of all processes that are there, the main one's first."""
    others = path.parent.glob(f"{glob.escape(path.name)}-*")
    return [file for file in (path, *sorted(others)) if file.is_file()]


def collect_parts(path: Path) -> None:
    """Move the whole lines of every other process's journal into the main one's.

    A kill in between may leave lines twice, never none. Raises SdgError where the disk refuses.
    """
    with writing(path):
        for part in parts_of(path):
            if part != path:
                with part.open("rb") as source, path.open("ab") as file:
                    file.writelines(line for line in source if line.endswith(b"\n"))
                    file.flush()
                    os.fsync(file.fileno())
                part.unlink()


def begin_file(out: Path, settings: Mapping[str, Any], resume: bool) -> AbstractContextManager[bool]:
    """`begin` of a run that writes one file: OUT.run.json holds its settings, OUT.partial its rows."""
    return begin(out, manifest_of(out), settings, resume=resume, work=(out, *parts_of(partial_of(out))))


def require_once(keys: Sequence[Key], what: str) -> None:
    """Raise SdgError where something is there twice; what: "image", say."""
    (path, _), times = Counter(keys).most_common(1)[0]
    if times > 1:
        raise SdgError(f"{path} is there {times} times with the same prompt; give every {what} once.")


def earlier(
    out: Path, keyed: Callable[[Mapping[str, Any]], tuple[Key, Row]], keys: set[Key], what: str
) -> dict[Key, Row]:
    """The rows of an earlier run by key, those of its journal after those of its output.

    keyed: key and row of a line; it raises ValueError where the line is none of this command's. Raises
    SdgError for such a line, and where there are results for what is not among `keys`, by path or by prompt.
    """
    rows: dict[Key, Row] = {}
    for file in (out, partial_of(out)):
        if file.exists() and file.stat().st_size:
            rows |= dict(jsonl.read_with(file, keyed))
    if others := [key for key in rows if key not in keys]:
        prompts = dict(keys)
        path, prompt = others[0]
        if all(path in prompts for path, _ in others):
            then, now = quoted(prompt, 160), quoted(prompts[path], 160)
            raise SdgError(
                f"{out} holds results for {len(others):,} {what}s with other prompts than are given now; the "
                f"first, {path_end(path, 160)}, had {then} and has {now} now. Give the same prompts, or name "
                "another output."
            )
        raise SdgError(
            f"{out} holds results for {len(others):,} {what}s that are not given now; give the same {what}s, "
            "or name another output."
        )
    return rows


@contextmanager
def journal(
    path: Path, on_row: Callable[[Row], object] | None = None, *, batch: int = BATCH
) -> Iterator[Callable[[Row], None]]:
    """What appends a row to a journal, of which a line cut off by a crash is gone first.

    A row is written at once, and synced with those that wait with it: fewer than `batch` of them, so that
    with 1 each is on disk before the next. on_row: is told of each row once it is on disk, in the journal's
    thread. At the end, whatever it is, all rows are on disk. Raises SdgError where the disk refuses; what
    was written before is kept.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
        raw = path.open("ab", buffering=0)
    with raw:
        book = _Journal(raw, path, on_row or (lambda row: None), batch)
        try:
            yield book.append
        finally:
            book.close()


class _Journal:
    """Rows that wait together are one sync, in a thread of its own."""

    def __init__(self, file: FileIO, path: Path, on_row: Callable[[Row], object], batch: int) -> None:
        self._file, self._path, self._on_row, self._batch = file, path, on_row, batch
        self._waiting: list[Row] = []
        self._pending, self._closing = 0, False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._sync, name="sdg-journal", daemon=True)
        self._thread.start()

    def append(self, row: Row) -> None:
        """Write a row; returns once fewer than `batch` rows are not synced."""
        rest = memoryview(jsonl.dump_object(row))
        with self._changed:
            self._raise()
            with writing(self._path):
                while rest:
                    rest = rest[self._file.write(rest) :]
            self._waiting.append(row)
            self._pending += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._pending < self._batch or self._error)
            self._raise()

    def close(self) -> None:
        """Wait until everything is on disk; raises what went wrong."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _sync(self) -> None:
        while self._error is None:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                rows, self._waiting = self._waiting, []
            if not rows:
                return
            try:
                with writing(self._path):
                    os.fsync(self._file.fileno())
                for row in rows:
                    self._on_row(row)
            except BaseException as error:  # handed to whoever appends or closes
                self._error = error
            with self._changed:
                self._pending -= len(rows)
                self._changed.notify_all()
