"""From the JSON value of an answer that needs mending to defects, with the repairs named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from sdg.defects import BOX_SCALE, DROPPED_ITEM, Defect, DefectType
from sdg.response import grammar as g

MAX_WRAPPERS: Final = 8
"""Lists and dicts around the items are looked through to this depth."""

_NUMBER: Final = re.compile(
    # Without optional blanks next to one another, which take quadratic time where there are many.
    r"([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)(?:\s*(?:%|/\s*100))?"
)
_NAMES: Final = frozenset(g.ALIASES).union(*g.ALIASES.values())
_SPELLINGS: Final = {
    **{name: (kind,) for name, kind in g.LABELS.items()},
    **{f"{name}s": (kind,) for name, kind in g.LABELS.items()},
    "artefact": (DefectType.ARTIFACT,),
    "artefacts": (DefectType.ARTIFACT,),
    "both": (DefectType.ARTIFACT, DefectType.MISALIGNMENT),
}


def is_item(value: Any) -> bool:
    """Whether a value is a dict with at least one of an item's keys."""
    return isinstance(value, dict) and any(_plain(key) in _NAMES for key in value)


def is_answer(value: Any, depth: int = 0) -> bool:
    """Whether a list or dict can be an answer: an empty list, an item, or something with items in it."""
    if depth > MAX_WRAPPERS:
        return False
    if isinstance(value, list):
        return not value or any(isinstance(inner, dict) or is_answer(inner, depth + 1) for inner in value)
    if isinstance(value, dict):
        return is_item(value) or any(is_answer(inner, depth + 1) for inner in value.values())
    return False


def mended_defects(
    value: list[Any] | dict[str, Any], open: tuple[Any, ...], repairs: list[str]
) -> tuple[Defect, ...]:
    """The defects of an answer's value, with what had to be mended appended to `repairs`.

    open: the lists and dicts that the end of the text left open; an item among them was cut off.
    """
    if is_item(value):
        repairs.append(g.MISSING_LIST)
        value = [value]
    elif isinstance(value, dict):
        repairs.append(g.WRAPPED_LIST)
        value = [inner for inner in value.values() if is_answer(inner)]
    elif any(isinstance(inner, list) for inner in value):
        repairs.append(g.WRAPPED_LIST)
    cut = {id(container) for container in open}
    defects: list[Defect] = []
    for item in _items(value):
        if id(item) not in cut:
            defects += _defects(item, repairs)
    return tuple(defects)


def _items(value: list[Any], depth: int = 0) -> Iterator[Any]:
    """The items of a list, those of lists and wrapping dicts within it included."""
    for inner in value:
        if isinstance(inner, dict) and not is_item(inner):
            lists = [v for v in inner.values() if isinstance(v, list | dict)]
            if lists and depth < MAX_WRAPPERS:
                yield from _items(lists, depth + 1)
                continue
        elif isinstance(inner, list) and depth < MAX_WRAPPERS and _holds_containers(inner):
            yield from _items(inner, depth + 1)
            continue
        yield inner


def _holds_containers(value: list[Any]) -> bool:
    return not value or any(isinstance(inner, list | dict) for inner in value)


def _defects(item: Any, repairs: list[str]) -> list[Defect]:
    """The defect of one item, two where its label is `both`, none (and a repair) where it is unreadable."""
    if not isinstance(item, dict):
        repairs.append(DROPPED_ITEM)
        return []
    notes: list[str] = []
    fields = _fields(item, notes)
    kinds = _kinds(fields.get("label"), notes)
    box = _box(fields.get("box_2d"), notes)
    if not kinds or box is None:
        repairs.append(DROPPED_ITEM)
        return []
    reason = _reason(fields.get("description"), notes)
    importance = _importance(fields.get("importance"), notes)
    repairs += notes
    return [Defect(box, kind, reason, importance) for kind in kinds]


def _plain(key: str) -> str:
    return key.strip().lower()


def _fields(item: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The item under the keys of the wire format; a well-named key counts before its aliases."""
    plain = {_plain(key): value for key, value in item.items()}
    plain |= {name: item[name] for name in g.ALIASES if name in item}  # another spelling does not hide it
    fields: dict[str, Any] = {}
    for name, aliases in g.ALIASES.items():
        found = next((key for key in (name, *aliases) if plain.get(key) is not None), None)
        if found is not None:
            fields[name] = plain[found]
            if found != name or found not in item:
                notes.append(g.KEY_ALIAS)
    return fields


def _kinds(label: Any, notes: list[str]) -> tuple[DefectType, ...]:
    if not isinstance(label, str):
        return ()
    plain = _plain(label)
    kinds = _SPELLINGS.get(plain, ())
    if len(kinds) == 2:
        notes.append(g.LABEL_BOTH)
    if kinds and label not in g.LABELS and label != "both":
        notes.append(g.LABEL_SPELLING)
    return kinds


def _box(value: Any, notes: list[str]) -> tuple[int, int, int, int] | None:
    """Four ints 0–1000 with x0 < x1 and y0 < y1; None where there is no such box to be made."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [_number(coordinate) for coordinate in value]
    if None in numbers:
        return None
    if any(isinstance(coordinate, str) for coordinate in value):
        notes.append(g.NUMBER_AS_TEXT)
    if any(isinstance(number, float) for number in numbers):
        notes.append(g.ROUNDED_BOX)
    clamped = [min(max(number, 0), BOX_SCALE) for number in numbers if number is not None]
    if clamped != numbers:
        notes.append(g.CLAMPED_BOX)
    x0, y0, x1, y1 = (round(number) for number in clamped)
    if x0 > x1 or y0 > y1:
        notes.append(g.SWAPPED_CORNERS)
    if x0 == x1 or y0 == y1:
        return None
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _reason(value: Any, notes: list[str]) -> str:
    if isinstance(value, str):
        return value
    if value is not None:
        notes.append(g.UNREADABLE_REASON)
    return ""


def _importance(value: Any, notes: list[str]) -> int | None:
    if value is None:
        return None
    number = _number(value)
    if number is None:
        notes.append(g.UNREADABLE_IMPORTANCE)
        return None
    if isinstance(value, str):
        notes.append(g.NUMBER_AS_TEXT)
    if isinstance(number, float):
        notes.append(g.ROUNDED_IMPORTANCE)
    clamped = min(max(number, 1), 100)
    if clamped != number:
        notes.append(g.CLAMPED_IMPORTANCE)
    return round(clamped)


def _number(value: Any) -> int | float | None:
    """The number a JSON value or a text stands for, possibly infinite; None for anything else, NaN too."""
    if isinstance(value, str) and (found := _NUMBER.fullmatch(value.strip())):
        number = float(found[1])
        return int(number) if number.is_integer() else number
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return value
