"""Corrections: what a person made of a detector's answer, as rows of a data set that grows in a folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sdg.app.looking import SIDE, Looked
from sdg.data.formats import sdg30k
from sdg.defects import BOX_SCALE, Defect, Diagnosis
from sdg.errors import SdgError, quoted
from sdg.images import load_image
from sdg.io import jsonl
from sdg.io.files import atomic_writer, read_bytes
from sdg.records import Record
from sdg.reporting.thumbnails import show_or_refuse
from sdg.runs.begin import hold

ROWS: Final = "annotations.jsonl"
_MOST: Final = 200  # boxes of a picture
_LONGEST: Final = 2000  # characters of a reason
_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
_SAVING: Final = threading.Lock()


def to_edit(looked: Looked) -> dict[str, Any]:
    """A picture and its defects for the editor of boxes; raises SdgError where it cannot be read."""
    shown = show_or_refuse(looked.picture, SIDE)
    boxes = [
        {
            "box": list(defect.box),
            "kind": defect.type.value,
            "reason": defect.reason,
            "importance": "" if defect.importance is None else str(defect.importance),
            "subtype": defect.subtype or "",
        }
        for defect in looked.diagnosis.defects
    ]
    return {
        "of": _name_of(looked),
        "source": shown.uri,
        "prompt": looked.prompt,
        "clean": looked.diagnosis.is_clean,
        "boxes": boxes,
    }


def _name_of(looked: Looked) -> str:
    """What tells one diagnosis from another."""
    said = [str(looked.picture), looked.prompt, looked.detector, looked.diagnosis.to_dict()]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def corrected(value: object, looked: Looked) -> Diagnosis:
    """The diagnosis that the editor holds; the reasoning stays where no defect was changed.

    Raises SdgError, in one sentence that names the box, for what is no whole annotation, and where the editor
    still holds another diagnosis.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("boxes"), list):
        raise SdgError("There is nothing to save yet; diagnose a picture first.")
    if value.get("of") != _name_of(looked):
        raise SdgError("The editor still held an earlier diagnosis; look at its boxes now, and save again.")
    boxes, clean = value["boxes"], value.get("clean") is True
    if len(boxes) > _MOST:
        raise SdgError(f"A picture has {_MOST} boxes at most, not {len(boxes)}.")
    if clean and boxes:
        raise SdgError("There is no problem, and there are boxes: keep one or the other.")
    if not clean and not boxes:
        raise SdgError("Draw a box, or say that there is no problem.")
    defects, faults = [], []
    for number, box in enumerate(boxes, start=1):
        try:
            defects.append(_defect(box))
        except ValueError as error:
            faults.append(f"Box {number}: {error}")
    if faults:
        raise SdgError(" ".join(faults[:3]))
    found, before = tuple(defects), looked.diagnosis
    return Diagnosis(found, before.reasoning if found == before.defects else "")


def _defect(box: object) -> Defect:
    if not isinstance(box, Mapping):
        raise ValueError(f"A box is an object, not {quoted(box)}.")
    reason, importance, corners = box.get("reason"), box.get("importance"), box.get("box")
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError("It has no reason.")
    if len(reason) > _LONGEST:
        raise ValueError(f"Its reason has more than {_LONGEST:,} characters.")
    if not isinstance(importance, str) or not (importance.isascii() and importance.isdigit()):
        raise ValueError("It needs an importance: a whole number from 1 to 100.")
    if not isinstance(corners, list) or not all(_is_place(at) for at in corners):
        raise ValueError(f"A box is four numbers from 0 to {BOX_SCALE}, not {quoted(corners)}.")
    subtype = box.get("subtype")
    return Defect(
        tuple(round(at) for at in corners),  # Defect refuses another number of them,
        box.get("kind"),  # type: ignore[arg-type]  # and what is no type
        reason.strip(),
        int(importance[:4]),
        subtype if isinstance(subtype, str) and subtype else None,
    )


def _is_place(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= BOX_SCALE  # which NaN is not


def save(looked: Looked, diagnosis: Diagnosis, folder: Path) -> tuple[Path, int]:
    """Add a row, and the picture in `folder`/pictures, or replace the row of this picture and prompt.

    Returns the file of rows, in the format of SDG-30K, and how many it holds. The row's metadata keep what
    the detector had said. Raises SdgError where anything cannot be read or written; the rows stay as before.
    """
    content = read_bytes(looked.picture)
    load_image(looked.picture)  # no row without a readable picture
    suffix = looked.picture.suffix.lower()
    name = hashlib.sha256(content).hexdigest()[:24] + (suffix if suffix in _SUFFIXES else ".png")
    place = Path("pictures", name)
    said = {"detector": looked.detector, **looked.diagnosis.to_dict()}
    said.pop("raw", None)
    record = Record(place.as_posix(), looked.prompt, diagnosis, metadata={"corrected_from": said})
    row = sdg30k.to_annotation(record)
    file = folder / ROWS
    with _SAVING, hold(file, file, wait=True):  # another page's process may add to the same folder
        rows = list(jsonl.read_objects(file)) if file.exists() else []
        kept = [
            one
            for one in rows
            if (one.get("filepath"), one.get("caption")) != (row["filepath"], row["caption"])
        ]
        if not (folder / place).exists():
            with atomic_writer(folder / place) as picture:
                picture.write(content)
        jsonl.write_objects(file, [*kept, row])
    return file, len(kept) + 1
