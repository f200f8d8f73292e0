"""Refinement of many pictures: each result is on disk as soon as it is there, and a killed run goes on.

OUT/refinements.jsonl   one line a picture, with everything that happened
OUT/pictures/           the picture that was kept, where that is not the input
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from PIL import Image

from sdg.data import jsonl
from sdg.data.sdg30k import write_defects
from sdg.defects import Diagnosis, Status
from sdg.detectors.base import StreamingDetector
from sdg.detectors.bulk import Item
from sdg.detectors.journal import Key, Row, begin, earlier, journal, partial_of, require_once
from sdg.errors import SdgError
from sdg.files import write_text
from sdg.images import load_image, save_image
from sdg.refinement.editors import Editor
from sdg.refinement.loop import HeatSource, Outcome, Refinement, refine
from sdg.refinement.request import EditSettings, Mode, build_request

OUTPUT: Final = "refinements.jsonl"
PICTURES: Final = "pictures"
CHUNK: Final = 16
"""Pictures whose first diagnosis is asked for together."""
HOPELESS: Final = 8
"""So many pictures in a row that could not be edited end the run: the editor is down."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `refine` is told about every picture; `editor` names the editor, for the manifest."""

    editor: str
    mode: Mode = Mode.SDG
    rounds: int = 3
    candidates: int = 1
    edit: EditSettings = field(default_factory=EditSettings)
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "mode": self.mode.value}


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to: pictures in all, those worked on now, how often each outcome, those that failed."""

    pictures: int
    worked_on: int
    outcomes: dict[str, int]
    failed: tuple[Row, ...]


def refine_all(
    items: Sequence[Item],
    out: str | os.PathLike[str],
    *,
    detector: StreamingDetector,
    editor: Editor,
    plan: Plan,
    heat: HeatSource | None = None,
    resume: bool = False,
    on_result: Callable[[Row, int], None] | None = None,
) -> Summary:
    """Refine every item into the folder `out`.

    A picture that cannot be read, diagnosed or edited has status `failed` and a sentence as its `error`;
    with `resume` it is tried again, and what has another status never is. `on_result` gets each row once it
    is on disk, and how many are left.
    Raises SdgError where the folder holds a run of other settings or pictures or another process writes
    it, where it cannot be written, and where HOPELESS pictures in a row could not be edited.
    """
    output = Path(out) / OUTPUT
    keys = [item.key for item in items]
    if not items:
        raise SdgError("There are no pictures to refine.")
    require_once(keys, "picture")
    _check_writable(Path(out))
    begin(output, {"detector": dict(detector.identity), "plan": plan.as_json()}, resume)
    with journal(partial_of(output)) as append:
        rows = earlier(output, _keyed, set(keys), "picture")
        todo = [item for item in items if _failed(rows.get(item.key))]
        left, hopeless = len(todo), 0
        for item, result in _refined(todo, detector, editor, plan, heat):
            row = rows[item.key] = _row(item, result, Path(out))
            append(row)
            left -= 1
            if on_result is not None:
                on_result(row, left)
            unedited = isinstance(result, Refinement) and result.outcome is Outcome.FAILED and result.attempts
            hopeless = hopeless + 1 if unedited else 0
            if hopeless == HOPELESS and left:
                raise SdgError(
                    f"{hopeless} pictures in a row could not be edited, the last because: {row['error']} "
                    "What is done is kept; mend it and add --resume."
                )
        ordered = [rows[key] for key in keys]
        jsonl.write_objects(output, ordered)
        partial_of(output).unlink()
    outcomes = Counter(row["status"] for row in ordered)
    return Summary(len(items), len(todo), dict(outcomes), tuple(row for row in ordered if _failed(row)))


def write_requests(
    items: Sequence[Item],
    out: str | os.PathLike[str],
    *,
    detector: StreamingDetector,
    plan: Plan,
    heat: HeatSource | None = None,
) -> Iterator[tuple[Item, Path | str]]:
    """Write the first request for each item, as `refine_all` would send it, to a folder of OUT/requests.

    The folder holds picture.png, marked.png, mask.png and instruction.txt. Yields each item with its folder,
    or with why there is no request.
    """
    for item, picture, found in _diagnosed(items, detector):
        if isinstance(picture, str):
            yield item, picture
        elif found.is_clean or not found.is_informative:
            yield item, "It is clean." if found.is_clean else f"There is no diagnosis ({found.status.value})."
        else:
            maps = heat(picture, item.prompt, found) if heat is not None else None
            try:
                request = build_request(
                    picture, item.prompt, found, mode=plan.mode, settings=plan.edit, heat=maps, seed=plan.seed
                )
            except SdgError as error:
                yield item, str(error)
            else:
                folder = Path(out) / "requests" / digest_of(item)
                save_image(request.picture, folder / "picture.png")
                save_image(request.marked, folder / "marked.png")
                save_image(Image.fromarray((255 * request.mask).round().astype("uint8")), folder / "mask.png")
                write_text(folder / "instruction.txt", request.instruction + "\n")
                yield item, folder


def digest_of(item: Item) -> str:
    """A name for an item's files; what it is called itself must not choose a path."""
    return hashlib.sha256("\n".join(item.key).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _refined(
    items: Sequence[Item], detector: StreamingDetector, editor: Editor, plan: Plan, heat: HeatSource | None
) -> Iterator[tuple[Item, Refinement | str]]:
    """Each item with what came of it, or with why it could not even be begun."""
    for item, picture, found in _diagnosed(items, detector):
        if isinstance(picture, str):
            yield item, picture
            continue
        try:
            result: Refinement | str = refine(
                picture,
                item.prompt,
                detector=detector,
                editor=editor,
                mode=plan.mode,
                rounds=plan.rounds,
                candidates=plan.candidates,
                settings=plan.edit,
                heat=heat,
                before=found,
                seed=plan.seed,
            )
        except SdgError as error:
            result = str(error)
        yield item, result


def _diagnosed(
    items: Sequence[Item], detector: StreamingDetector
) -> Iterator[tuple[Item, Image.Image | str, Diagnosis]]:
    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        pictures: list[Image.Image | str] = []
        for item in chunk:
            try:
                pictures.append(load_image(item.file))
            except SdgError as error:
                pictures.append(str(error))
        readable = [n for n, picture in enumerate(pictures) if not isinstance(picture, str)]
        found = dict(
            zip(
                readable, detector.diagnose([(chunk[n].file, chunk[n].prompt) for n in readable]), strict=True
            )
        )
        for number, (item, picture) in enumerate(zip(chunk, pictures, strict=True)):
            yield item, picture, found.get(number, Diagnosis(status=Status.FAILED))


def _row(item: Item, result: Refinement | str, out: Path) -> Row:
    row: Row = {"id": item.filepath, "prompt": item.prompt, "before": os.path.relpath(item.file, out)}
    if isinstance(result, str):
        return {**row, "after": None, "status": Outcome.FAILED.value, "error": result}
    row["after"] = None
    if result.outcome in (Outcome.CLEAN, Outcome.IMPROVED):
        row["after"] = f"{PICTURES}/{digest_of(item)}.png"
        save_image(result.picture, out / row["after"])
    error = result.stopped if result.outcome is Outcome.FAILED else ""
    return {
        **row,
        "status": result.outcome.value,
        "rounds": max((attempt.round for attempt in result.attempts), default=0),
        "pixels_changed": result.changed,
        "diagnosis_before": _readable(result.before),
        "diagnosis_after": _readable(result.diagnosis),
        "attempts": [
            {
                "round": attempt.round,
                "seed": attempt.seed,
                "severity": attempt.severity,
                "pixels_changed": attempt.changed,
                "diagnosis": None if attempt.diagnosis is None else _readable(attempt.diagnosis),
                "error": attempt.error,
            }
            for attempt in result.attempts
        ],
        "stopped": result.stopped,
        "error": error,
    }


def _readable(diagnosis: Diagnosis) -> Row:
    return {"status": diagnosis.status.value, "defects": write_defects(diagnosis.defects)}


def _failed(row: Row | None) -> bool:
    return row is None or row.get("status") == Outcome.FAILED.value


def _keyed(row: Mapping[str, Any]) -> tuple[Key, Row]:
    key = row.get("id"), row.get("prompt")
    if not isinstance(key[0], str) or not isinstance(key[1], str) or "status" not in row:
        raise ValueError("This is no line that `sdg refine` wrote.")
    return (key[0], key[1]), dict(row)


def _check_writable(out: Path) -> None:
    """Before anything is loaded or paid for."""
    try:
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SdgError(f"{out} cannot be written: {error.strerror or error}.") from error
