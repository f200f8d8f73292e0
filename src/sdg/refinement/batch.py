"""Refinement of many pictures: each result is on disk as soon as it is there, and a killed run goes on.

OUT/refinements.jsonl   one line a picture, with everything that happened
OUT/pictures/           the picture that was kept, where that is not the input
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from sdg.defects import Diagnosis, Status
from sdg.detectors.base import Detector, StreamingDetector
from sdg.errors import SdgError
from sdg.images import Pair, save_image
from sdg.io import jsonl
from sdg.io.files import writing
from sdg.io.paths import real_path
from sdg.refinement.loop import HeatSource, Outcome, Refinement, refine
from sdg.refinement.request import Editor, EditSettings, Mode
from sdg.refinement.sources import FATAL_ERRORS, Source, StoredHeat, read_sources
from sdg.response.strict import write_diagnosis
from sdg.runs.inputs import Item
from sdg.runs.journal import (
    Key,
    Row,
    begin_file,
    collect_parts,
    earlier,
    journal,
    part_of,
    partial_of,
    require_once,
)
from sdg.runs.processes import ALONE, Processes

T = TypeVar("T")
R = TypeVar("R")
OUTPUT: Final = "refinements.jsonl"
PICTURES: Final = "pictures"
REQUESTS: Final = "requests"
"""Where a dry run writes to, in place of the other two."""
_DIGEST: Final = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What `refine` is told about every picture; `editor` and `heat` name the editor and a folder of maps."""

    editor: str
    mode: Mode = Mode.SDG
    rounds: int = 3
    candidates: int = 1
    edit: EditSettings = field(default_factory=EditSettings)
    seed: int = 0
    heat: str = ""
    from_severity: int = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to: pictures in all, how often each outcome, those that failed."""

    pictures: int
    outcomes: dict[str, int]
    failed: tuple[Row, ...]


def refine_all(
    items: Sequence[Item],
    out: str | os.PathLike[str],
    *,
    detector: StreamingDetector,
    editor: Editor,
    plan: Plan,
    heat: HeatSource | StoredHeat | None = None,
    resume: bool = False,
    on_result: Callable[[Row, int], None] | None = None,
    processes: Processes = ALONE,
) -> Summary:
    """Refine every item into the folder `out`, as many at once as the editor allows.

    Of several `processes` each takes its share of the pictures, and all return the same summary.
    A picture that cannot be read, diagnosed or edited has status `failed` and a sentence as its `error`;
    with `resume` it is tried again, after those not tried yet, and what has another status never is.
    `on_result` gets each row of this process once it is on disk, and how many are left to it, in the
    journal's thread.
    Raises SdgError where the detector's answers are stored, for none is of an edit; where the folder holds a
    run of other settings or pictures, another process writes it or it cannot be written; and where
    FATAL_ERRORS pictures in a row could not be diagnosed or edited.
    """
    output = Path(out) / OUTPUT
    keys = [item.key for item in items]
    if not items:
        raise SdgError("There are no pictures to refine.")
    require_once(keys, "picture")
    if detector.stored:
        raise SdgError(
            "This detector looks answers up by the path of a picture, so it cannot diagnose an edit; name "
            "one that looks at pictures, or take --dry-run."
        )
    require_writable(out)
    left = 0

    def kept(row: Row) -> None:
        nonlocal left
        left -= 1
        if on_result is not None:
            on_result(row, left)

    settings = {"detector": dict(detector.identity), "plan": asdict(plan)}

    @contextmanager
    def begun() -> Iterator[dict[Key, Row]]:
        with begin_file(output, settings, resume):
            with journal(partial_of(output)):  # cuts off half a line
                pass
            collect_parts(partial_of(output))
            yield earlier(output, _keyed, set(keys), "picture")

    with processes.on_main(begun) as before:
        missing = [key for key in keys if key not in before]
        again = [key for key, row in before.items() if _failed(row)]
        # Failed ones last: eight that always fail would bar the way to the others.
        parts = [frozenset(processes.share(part)) for part in (missing, again)]
        todo = left = sum(map(len, parts))
        with journal(part_of(partial_of(output), processes.rank), kept, batch=1) as append:
            in_a_row = Counter[str]()
            with closing(_refined(items, parts, detector, editor, plan, heat)) as results:
                for number, one in enumerate(results, start=1):
                    row = _row(one, Path(out))
                    append(row)
                    for step, worked in _evidence(one).items():
                        in_a_row[step] = 0 if worked else in_a_row[step] + 1
                        if in_a_row[step] == FATAL_ERRORS and number < todo:
                            raise SdgError(
                                f"{FATAL_ERRORS} pictures in a row could not be {step}, the last because: "
                                f"{row['error']} What is done is kept; mend it and add --resume."
                            )
        processes.wait()
        if processes.is_main:
            collect_parts(partial_of(output))
            rows = earlier(output, _keyed, set(keys), "picture")
            ordered = [rows[key] for key in keys]
            jsonl.write_objects(output, ordered)
            partial_of(output).unlink()
            outcomes = Counter(row["status"] for row in ordered)
            failed = tuple(row for row in ordered if _failed(row))
            summary = Summary(len(items), dict(outcomes), failed)
        return processes.from_main(summary if processes.is_main else None)


def digest_of(item: Item) -> str:
    """A name for an item's files; what it is called itself must not choose a path."""
    return hashlib.sha256("\n".join(item.key).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def require_writable(out: str | os.PathLike[str]) -> None:
    """Raise SdgError where a run cannot write to the folder: before anything is loaded or paid for."""
    with writing(out):
        Path(out).mkdir(parents=True, exist_ok=True)
        probe = Path(out) / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process of this run may have been here


def is_output(file: Path, out: str | os.PathLike[str]) -> bool:
    """Whether a picture was written by a run, or a dry run, into the folder `out`: by its place and name."""
    root = real_path(out)
    try:
        place = (real_path(file.parent) / file.name).relative_to(root).parts
    except ValueError:
        return False
    kept = len(place) == 2 and place[0] == PICTURES and _DIGEST.fullmatch(file.stem)
    return bool(kept or (len(place) == 3 and place[0] == REQUESTS and _DIGEST.fullmatch(place[1])))


@dataclass(frozen=True, slots=True)
class _Refined:
    """A picture with what came of it, or with why it was not even begun."""

    source: Source
    result: Refinement | None = None
    error: str = ""


class _InTurn:
    """A detector for several threads: it answers one after the other, for none is made to answer two."""

    def __init__(self, detector: Detector) -> None:
        self._detector, self._lock = detector, threading.Lock()

    def diagnose(self, pairs: Sequence[Pair]) -> list[Diagnosis]:
        with self._lock:
            return self._detector.diagnose(pairs)


def _refined(
    items: Sequence[Item],
    parts: Sequence[Collection[Key]],
    detector: StreamingDetector,
    editor: Editor,
    plan: Plan,
    heat: HeatSource | StoredHeat | None,
) -> Generator[_Refined]:
    """Each item of the first part with what came of it, chunk by chunk, as they come; then of the next."""
    in_turn = _InTurn(detector)

    def work(source: Source) -> _Refined:
        if source.picture is None or source.error:
            return _Refined(source, error=source.error)
        try:
            result = refine(
                source.picture,
                source.item.prompt,
                detector=in_turn,
                editor=editor,
                mode=plan.mode,
                rounds=plan.rounds,
                candidates=plan.candidates,
                settings=plan.edit,
                heat=heat.of(source.item) if isinstance(heat, StoredHeat) else heat,
                before=source.found,
                from_severity=plan.from_severity,
                seed=plan.seed,
            )
        except SdgError as error:
            return _Refined(source, error=str(error))
        return _Refined(source, result)

    for part in parts:
        for chunk in read_sources(items, detector, part):
            yield from _as_completed(work, chunk, editor.concurrency)


def _evidence(one: _Refined) -> dict[str, bool]:
    """What a picture says about detector and editor: whether they worked, as far as they were asked."""
    if one.source.picture is None:
        return {}
    if one.source.error:
        return {"diagnosed": False}
    attempts = one.result.attempts if one.result is not None else ()
    if not attempts:
        return {"diagnosed": True}
    found = [attempt.diagnosis for attempt in attempts if attempt.diagnosis is not None]
    answered = any(diagnosis.status is not Status.FAILED for diagnosis in found)
    return {"diagnosed": answered or not found, "edited": bool(found)}


def _row(one: _Refined, out: Path) -> Row:
    item, result = one.source.item, one.result
    row: Row = {"id": item.filepath, "prompt": item.prompt, "before": _relative(Path(item.file), out)}
    row["after"] = None
    if result is None:
        return {**row, "status": Outcome.FAILED.value, "error": one.error}
    if result.outcome in (Outcome.CLEAN, Outcome.IMPROVED):
        row["after"] = f"{PICTURES}/{digest_of(item)}.png"
        save_image(result.picture, out / row["after"])
    error = result.stopped if result.outcome is Outcome.FAILED else ""
    return {
        **row,
        "status": result.outcome.value,
        "rounds": max((attempt.round for attempt in result.attempts), default=0),
        "pixels_changed": result.changed,
        "diagnosis_before": write_diagnosis(result.before),
        "diagnosis_after": write_diagnosis(result.diagnosis),
        "attempts": [
            {
                "round": attempt.round,
                "seed": attempt.seed,
                "severity": attempt.severity,
                "pixels_changed": attempt.changed,
                "diagnosis": None if attempt.diagnosis is None else write_diagnosis(attempt.diagnosis),
                "error": attempt.error,
            }
            for attempt in result.attempts
        ],
        "stopped": result.stopped,
        "error": error,
    }


def _relative(file: Path, out: Path) -> str:
    """The path from `out` to a file, once links among the folders of both are resolved."""
    return os.path.relpath(real_path(file.parent) / file.name, real_path(out))


def _failed(row: Row) -> bool:
    return row.get("status") == Outcome.FAILED.value


def _keyed(row: Mapping[str, Any]) -> tuple[Key, Row]:
    key = row.get("id"), row.get("prompt")
    if not isinstance(key[0], str) or not isinstance(key[1], str) or "status" not in row:
        raise ValueError("This is no line that `sdg refine` wrote.")
    return (key[0], key[1]), dict(row)


def _as_completed(work: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    """The result of `work` for each task; one worker takes them in order, in the caller's own thread.

    Several take them in order, and finish as they finish. What `work` raises is raised here, and no
    further task is begun then, nor once the iterator is closed. Their threads are daemons: one that waits for
    a server keeps no process alive that was told to stop.
    """
    if workers == 1:
        yield from map(work, tasks)
        return
    waiting, stop = deque(tasks), threading.Event()
    done: SimpleQueue[Future[R]] = SimpleQueue()

    def run() -> None:
        while not stop.is_set():
            try:
                task = waiting.popleft()
            except IndexError:
                return
            result: Future[R] = Future()
            try:
                result.set_result(work(task))
            except BaseException as error:  # handed to the caller's thread, which raises it
                result.set_exception(error)
            done.put(result)

    for _ in range(min(workers, len(tasks))):
        threading.Thread(target=run, name="sdg-refine", daemon=True).start()
    try:
        for _ in tasks:
            yield done.get().result()
    finally:
        stop.set()
