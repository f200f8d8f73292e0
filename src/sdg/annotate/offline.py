"""A few pictures and one person: a page of one file that needs no server, and what is downloaded from it.

The page writes what Label Studio would export, so that both are checked by the same reader.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sdg.annotate.results import read_annotation
from sdg.defects import SUBTYPES, TIER_FLOORS
from sdg.errors import SdgError, quoted, reasons
from sdg.io.jsonl import load_document
from sdg.records import Fault, Record, as_name, text_of
from sdg.reporting.page import write_page
from sdg.reporting.thumbnails import TO_JUDGE, show_or_refuse
from sdg.runs.inputs import Item
from sdg.runs.journal import require_once

MOST: Final = 200
"""Pictures of a page at most: they all lie inside of the one file."""
SIDE: Final = 1024
"""Longer side of each picture in pixels at most."""


def write_offline(path: str | os.PathLike[str], items: Sequence[Item]) -> Path:
    """Write a page on which one person annotates these pictures; returns its path.

    Raises SdgError where a picture cannot be read, where there are too many, or the file cannot be written.
    """
    if len(items) > MOST:
        raise SdgError(f"A page holds {MOST} pictures at most, not {len(items):,}; use `sdg annotate start`.")
    require_once([item.key for item in items], "picture")
    digest = hashlib.sha256(json.dumps([item.key for item in items]).encode()).hexdigest()
    return write_page(
        path,
        "annotate.html",
        scripts=("person.js", "boxes.js", "annotate.js"),
        styles=("study.css", "boxes.css", "annotate.css"),
        page=digest[:16],
        total=len(items),
        tiers=[(tier.value, floor) for tier, floor in TIER_FLOORS.items()],
        subtypes=[(kind.value, names) for kind, names in SUBTYPES.items()],
        pictures=((item, show_or_refuse(item.file, SIDE, TO_JUDGE)) for item in items),
    )


def read_offline(path: str | os.PathLike[str]) -> tuple[list[Record], list[Fault]]:
    """What was downloaded from a page: the records of sound annotations, and the fault of each other picture.

    Raises SdgError where the file is none of a page.
    """
    tasks = load_document(path)
    if not isinstance(tasks, list) or not tasks:
        raise SdgError(f"{path} holds no annotations; give a file downloaded from the page.")
    records: list[Record] = []
    faults: list[Fault] = []
    for number, task in enumerate(tasks, start=1):
        try:
            records.append(_record(task))
        except ValueError as error:
            place = f"picture {number}"
            faults += [Fault(str(path), place, reason) for reason in reasons(error)]
    return records, faults


def read_all(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Record], list[Fault]]:
    """`read_offline` of several files; raises SdgError where two hold what one person says of one picture.

    A page keeps what was entered, so that it is easily downloaded twice.
    """
    records: list[Record] = []
    faults: list[Fault] = []
    known: dict[tuple[str, str, str], str | os.PathLike[str]] = {}
    for path in paths:
        found, more = read_offline(path)
        said = [(one.annotator, one.filepath, one.prompt) for one in found if one.annotator is not None]
        for key in said:
            if key in known:
                raise SdgError(
                    f"{known[key]} and {path} both hold what {key[0]} says of {key[1]}; give the newer alone."
                )
        known |= dict.fromkeys(said, path)
        records += found
        faults += more
    return records, faults


def _record(task: object) -> Record:
    if not isinstance(task, Mapping) or not isinstance(task.get("data"), Mapping):
        raise ValueError(f"A picture is an object with 'data', not {quoted(task)}.")
    filepath, prompt = text_of(task["data"], "filepath"), text_of(task["data"], "prompt")
    annotations = task.get("annotations")
    if not isinstance(annotations, list) or len(annotations) > 1:
        raise ValueError(f"'annotations' is a list of one, not {quoted(annotations)}.")
    if not annotations:
        raise ValueError(
            f"{filepath} is not annotated yet; open the page and draw a box, or say it is clean."
        )
    annotation = annotations[0]
    if not isinstance(annotation, Mapping):
        raise ValueError(f"An annotation is an object, not {quoted(annotation)}.")
    person = annotation.get("completed_by")
    annotator = as_name("completed_by", person.get("email") if isinstance(person, Mapping) else person)
    diagnosis = read_annotation(annotation.get("result"))
    seconds = annotation.get("lead_time")
    history: dict[str, Any] = {"annotator": annotator, "pass": 1, "reviews": []}
    if isinstance(seconds, int | float) and 0 <= seconds < 1e6:
        history["minutes"] = round(seconds / 60, 2)
    return Record(filepath, prompt, diagnosis, annotator=annotator, metadata={"annotation": [history]})
