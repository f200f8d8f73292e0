"""What a long run writes beside its output, so that it can be killed at any moment and gone on with.

`OUT.run.json` says with which settings it was begun, `OUT.partial` collects rows in the order they come.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sdg._version import __version__
from sdg.errors import SdgError
from sdg.io import jsonl
from sdg.io.files import read_text, write_text

Key = tuple[str, str]
"""What tells the images of a run apart: path and prompt."""
Row = dict[str, Any]


def partial_of(out: Path) -> Path:
    """Where the rows of an unfinished output are."""
    return out.with_name(out.name + ".partial")


def begin(out: Path, settings: Mapping[str, Mapping[str, Any]], resume: bool) -> None:
    """Check the manifest of a run, or write it where the run is a new one.

    settings: groups of settings that every row depends on, by the group's name. Raises SdgError where
    `out` exists and `resume` is not asked for, and where it was begun with other settings.
    """
    manifest = out.with_name(out.name + ".run.json")
    try:
        exists = out.exists() or partial_of(out).exists()
    except OSError as error:
        raise SdgError(f"{out} cannot be written: {error.strerror or error}.") from error
    if exists and not resume:
        raise SdgError(f"{out} exists already; go on with --resume, or name another file.")
    if not exists:
        written = {**settings, "version": __version__}
        write_text(manifest, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
        return
    if not manifest.exists():
        raise SdgError(f"{out} has no {manifest.name}, so it cannot be resumed; name another file.")
    for group, values in settings.items():
        try:
            before = json.loads(read_text(manifest))[group]
            different = [name for name in {**before, **values} if before.get(name) != values.get(name)]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise SdgError(f"{manifest} is damaged, so {out} cannot be resumed; name another file.") from None
        if different:
            was, now = (
                ", ".join(f"{name} {run.get(name)}" for name in different) for run in (before, values)
            )
            raise SdgError(f"{out} was begun with {was} and not {now}; use the same, or name another file.")


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
    SdgError for such a line, and where there are results for what is not among `keys`.
    """
    rows: dict[Key, Row] = {}
    for file in (out, partial_of(out)):
        if file.exists() and file.stat().st_size:
            rows |= dict(jsonl.read_with(file, keyed))
    if others := len(rows.keys() - keys):
        raise SdgError(
            f"{out} holds results for {others:,} {what}s that are not given now; give the same {what}s, "
            "or name another output."
        )
    return rows


@contextmanager
def journal(path: Path) -> Iterator[Callable[[Row], None]]:
    """What appends a row to a journal, which is this process's alone; a line cut off by a crash is gone."""

    def append(row: Row) -> None:
        try:
            file.write(jsonl.dump_object(row))
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(path, error) from error

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+")
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        _lock(file, path)
        file.seek(0)
        file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
        yield append


def _unwritable(path: Path, error: OSError) -> SdgError:
    return SdgError(f"{path} cannot be written: {error.strerror or error}.")


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows refuses to delete a file that another process has open anyway
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SdgError(f"{path} is being written by another process; wait for it or stop it.") from None
