"""The wire form, read and written strictly: truth in files, and what commands write for people and scripts.

An item is `{"box_2d", "label", "description", "importance"}`, as in a response; `subtype` is ours. What
models write is read, and mended, by `parse_response`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from sdg.defects import Defect, DefectType, Diagnosis
from sdg.errors import Faults, quoted

BoxOrder = Literal["xyxy", "yxyx"]
"""Order of the four coordinates in a file. SDG's is xyxy; some models answer yxyx."""

LABELS: Final = {**{kind.value: (kind,) for kind in DefectType}, "both": tuple(DefectType)}
"""Label in a file -> types; `both`, in the released data, is one defect of each."""

# A tag in running text is written with a backslash after its "<", and one with n backslashes with n + 1:
# no text loses anything, and text without tags stays as it is.
_TAG_IN_TEXT: Final = re.compile(r"<(?=\\*[ \t]?/?[ \t]?(?:think|answer)[ \t]?>)", re.IGNORECASE | re.ASCII)
_ESCAPED_TAG: Final = re.compile(r"<\\(?=\\*[ \t]?/?[ \t]?(?:think|answer)[ \t]?>)", re.IGNORECASE | re.ASCII)


def escape_tags(text: str) -> str:
    """Text that holds no tag; `unescape_tags` gives back exactly what it was."""
    return _TAG_IN_TEXT.sub(r"<\\", text) if "<" in text else text


def unescape_tags(text: str) -> str:
    """Undo `escape_tags`."""
    return _ESCAPED_TAG.sub("<", text) if "<\\" in text else text


def think_content(block: str) -> str:
    """The reasoning inside a think block: without the line breaks next to the tags, tags unescaped."""
    return unescape_tags(block.removeprefix("\n").removesuffix("\n"))


def read_defects(items: object, box_order: BoxOrder = "xyxy") -> tuple[Defect, ...]:
    """Defects of a list of items, strictly.

    A missing description or importance stays unknown; `desc` is an alias.
    Raises Faults, each of which names the defect, counted from 1.
    """
    if not isinstance(items, list):
        raise ValueError(f"The defects are a JSON list, not {quoted(items)}.")
    defects: list[Defect] = []
    faults: list[str] = []
    for number, item in enumerate(items, start=1):
        try:
            box = tuple(item["box_2d"])
            if box_order == "yxyx":
                y0, x0, y1, x1 = box
                box = (x0, y0, x1, y1)
            reason = item["description"] if "description" in item else item.get("desc", "")
            importance, subtype = item.get("importance"), item.get("subtype")
            for kind in LABELS[item["label"]]:
                defects.append(Defect(box, kind, reason, importance, subtype))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append(f"Defect {number}: {_fault(item, error)}")
    if faults:
        raise Faults(faults)
    return tuple(defects)


def write_defects(defects: Iterable[Defect]) -> list[dict[str, Any]]:
    """The list that `read_defects` reads; keys of unknown values are left out."""
    return [
        write_defect(defect) | ({} if defect.subtype is None else {"subtype": defect.subtype})
        for defect in defects
    ]


def write_defect(defect: Defect, *, description: bool = True, importance: bool = True) -> dict[str, Any]:
    """The item that a response has for a defect; `description` and `importance` can be left out."""
    item: dict[str, Any] = {"box_2d": list(defect.box), "label": defect.type.value}
    if description:
        item["description"] = defect.reason
    if importance and defect.importance is not None:
        item["importance"] = defect.importance
    return item


def render_response(
    diagnosis: Diagnosis, *, think: bool = True, description: bool = True, importance: bool = True
) -> str:
    """The response that says this diagnosis: a think block, then an answer block with one item a line.

    Whatever the texts hold, `parse_response(render_response(d)) == d` for every d with status `ok`; other
    readable ones come back with status `ok`. "<" is written `\\u003c` inside the JSON, and a tag inside the
    reasoning gets a backslash (`<\\think>`), so that tags stand only where they mean something.
    `think`, `description` and `importance` leave out what a prompt profile does not ask for; an importance
    that is None is left out always. Raises ValueError for a diagnosis that says nothing about the image
    (`failed`, `unparseable`, or all items lost): it must never be rendered as a clean one.
    """
    if not diagnosis.is_informative:
        raise ValueError(
            f"A diagnosis with status {diagnosis.status.value!r} and no readable defect cannot be rendered: "
            "it would read as a clean image."
        )
    lines = (
        json.dumps(write_defect(defect, description=description, importance=importance), ensure_ascii=False)
        for defect in diagnosis.defects
    )
    items = ",\n".join("  " + line.replace("<", "\\u003c") for line in lines)
    answer = f"<answer>\n[\n{items}\n]\n</answer>" if items else "<answer>\n[]\n</answer>"
    return f"<think>\n{escape_tags(diagnosis.reasoning)}\n</think>\n{answer}" if think else answer


def read_diagnosis(value: Mapping[str, Any]) -> Diagnosis:
    """The inverse of `write_diagnosis`, where only `defects` has to be there; raises ValueError."""
    if not isinstance(value, Mapping) or "defects" not in value:
        raise ValueError(f"A diagnosis is an object with 'status' and 'defects', not {quoted(value)}.")
    defects = [defect.to_dict() for defect in read_defects(value["defects"])]
    return Diagnosis.from_dict({**value, "defects": defects})


def write_diagnosis(diagnosis: Diagnosis) -> dict[str, Any]:
    """A diagnosis for people and scripts: status, defects as items, reasoning, and any repairs and error."""
    value: dict[str, Any] = {
        "status": diagnosis.status.value,
        "defects": write_defects(diagnosis.defects),
        "reasoning": diagnosis.reasoning,
    }
    if diagnosis.repairs:  # which say whether items were lost
        value["repairs"] = list(diagnosis.repairs)
    return value | ({"error": diagnosis.error} if diagnosis.error else {})


def _fault(item: object, error: Exception) -> str:
    """Why one item could not be read; looked into only once it has failed, to keep reading fast."""
    if not isinstance(item, dict):
        return f"A defect is a JSON object, not {quoted(item)}."
    for key in ("box_2d", "label"):
        if key not in item:
            return f"{key!r} is missing."
    box, label = item["box_2d"], item["label"]
    if not isinstance(box, list) or len(box) != 4:
        return f"A box is four integers [x0, y0, x1, y1], not {quoted(box)}."
    if not isinstance(label, str) or label not in LABELS:
        return f"The label is 'artifact', 'misalignment' or 'both', not {quoted(label)}."
    return str(error)
