"""A detector over many images, resumably: each result is written as soon as it is known.

`OUT.run.json` says with what the run was begun, `OUT.partial` collects results in the order they come, and
`OUT` appears at the end, in the order of the images.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdg.defects import Diagnosis, Status
from sdg.detectors.base import Outcome, StreamingDetector
from sdg.errors import SdgError
from sdg.io import jsonl
from sdg.io.predictions import write_prediction
from sdg.records import Record
from sdg.response.strict import write_diagnosis
from sdg.runs.journal import Key, Row, begin_file, earlier, journal, partial_of, require_once


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a run: what the output calls it, its prompt, and the file it lies in."""

    filepath: str
    prompt: str
    file: Path

    @property
    def key(self) -> Key:
        """What tells the images of a run apart."""
        return self.filepath, self.prompt


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to: how many images in all, how many of them diagnosed by it, and those that failed."""

    images: int
    diagnosed: int
    failed: tuple[Row, ...]


def run(
    detector: StreamingDetector,
    items: Sequence[Item],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    on_result: Callable[[Row, int], None] | None = None,
) -> Summary:
    """Diagnose every item and write one JSON line each to `out`: filepath, caption, response, status, error.

    That is the layout of the released predictions; a failed image has response null and its reason as
    `error`. Whenever the process dies, what is in `OUT.partial` counts, whole lines only; with `resume`
    images that are missing or failed are asked for again, the others never. Resuming without an earlier
    run begins one. `on_result` gets each new row once it is on disk, and how many are left; it is called by
    the journal's thread.
    Raises SdgError where an output exists already, where it was begun with other settings or for other
    images, where another process is writing it, and for items that are there twice.
    """
    out = Path(out)
    keys = [item.key for item in items]
    if not items:
        raise SdgError("There are no images to diagnose.")
    require_once(keys, "image")
    left = 0

    def kept(row: Row) -> None:
        nonlocal left
        left -= 1
        if on_result is not None:
            on_result(row, left)

    with begin_file(out, {"detector": dict(detector.identity)}, resume):
        with journal(partial_of(out), kept) as append, _stopping(detector):
            rows = earlier(out, _keyed, set(keys), "image")
            missing = [place for place, key in enumerate(keys) if not _answered(rows.get(key))]
            left = len(missing)
            pairs = [(item.file, item.prompt) for item in items]
            for place, outcome in detector.stream(pairs, frozenset(missing)) if missing else ():
                row = rows[keys[place]] = to_row(items[place], outcome)
                append(row)
        ordered = [rows[key] for key in keys]
        jsonl.write_objects(out, ordered)
        partial_of(out).unlink()
    failed = tuple(row for row in ordered if not _answered(row))
    return Summary(len(items), len(missing), failed)


@contextmanager
def _stopping(detector: StreamingDetector) -> Iterator[None]:
    """At Ctrl-C what is answered already is still taken; a second one does not wait for that."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        if stopped or not detector.stop():
            raise KeyboardInterrupt
        stopped = True

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if stopped:
        raise KeyboardInterrupt


def ask(detector: StreamingDetector, item: Item) -> Outcome:
    """The outcome of a single image."""
    return next(outcome for _, outcome in detector.stream([(item.file, item.prompt)]))


def readable(item: Item, diagnosis: Diagnosis) -> Row:
    """A diagnosis as JSON for people and scripts, its defects under the keys of the wire format."""
    return {"filepath": item.filepath, "caption": item.prompt, **write_diagnosis(diagnosis)}


def to_row(item: Item, outcome: Outcome) -> Row:
    """One line of the output."""
    return write_prediction(Record(item.filepath, item.prompt, outcome.diagnosis), outcome.diagnosis.raw)


def _answered(row: Row | None) -> bool:
    return row is not None and row.get("status") != Status.FAILED.value


def _keyed(row: Mapping[str, Any]) -> tuple[Key, Row]:
    key = row.get("filepath"), row.get("caption")
    if not isinstance(key[0], str) or not isinstance(key[1], str) or "response" not in row:
        raise ValueError("This is no line that `sdg diagnose` wrote.")
    return (key[0], key[1]), dict(row)
