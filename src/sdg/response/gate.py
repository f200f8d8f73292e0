"""The strict gate before a training reward: what an answer must be to earn anything (SDG App. D.1).

`structural_tag` says the same as a grammar, to which a server with structured outputs holds a model.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeGuard

from sdg.defects import BOX_SCALE
from sdg.response.grammar import LABELS, TAG

_BLOCKS: Final = ("<think>", "</think>", "<answer>", "</answer>")
MOST_ITEMS: Final = 32
"""Defects in an answer; without a bound a model may go on until its token limit."""
MOST_LETTERS: Final = 400
"""Characters of a description."""


def format_fault(
    text: str,
    *,
    require_think: bool = True,
    require_importance: bool = True,
    require_description: bool = True,
) -> str | None:
    """What is wrong with a response's format, in one sentence; None where it is valid.

    Valid: a think block, then an answer block, each tag exactly once and nothing but blanks around the
    blocks; in the answer strict JSON (no fence, no NaN, no key twice), a list of objects, each with
    `box_2d`: 4 numbers in 0..1000 with x0 < x1 and y0 < y1, also once rounded; `label`: "artifact" or
    "misalignment"; `description`: a text that is not blank; `importance`: a number in 1..100. Other keys do
    not matter. The `require_…` switches are for prompt profiles that do not ask for a part: then a think
    block may be there or not, and the key is not looked at.
    """
    fault, answer = _answer(text, require_think)
    if fault is not None:
        return fault
    try:
        items = _DECODER.decode(answer)
    except RecursionError:
        return "The answer is nested too deeply."
    except ValueError as error:
        return f"The answer is not strict JSON: {error}."
    if not isinstance(items, list):
        return "The answer is not a JSON list."
    for number, item in enumerate(items, start=1):
        fault = _item_fault(item, require_description, require_importance)
        if fault is not None:
            return f"Item {number} {fault}."
    return None


def _answer(text: str, require_think: bool) -> tuple[str | None, str]:
    """The fault in the blocks, or None and what stands in the answer block."""
    tags = list(TAG.finditer(text))
    found = tuple(tag[0] for tag in tags)
    if found != _BLOCKS and (require_think or found != _BLOCKS[2:]):
        wanted = " ".join(_BLOCKS if require_think else _BLOCKS[2:])
        return f"The tags must be {wanted}, each once and in this order.", ""
    before = text[: tags[0].start()]
    between = text[tags[-3].end() : tags[-2].start()] if len(tags) == 4 else ""
    if before.strip() or between.strip() or text[tags[-1].end() :].strip():
        return "There is text outside of the blocks.", ""
    return None, text[tags[-2].end() : tags[-1].start()]


def _item_fault(item: Any, require_description: bool, require_importance: bool) -> str | None:
    """What is wrong with an item, to be read after its number."""
    if not isinstance(item, dict):
        return "is not an object"
    box = item.get("box_2d")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return "has no box_2d of 4 numbers"
    if not all(0 <= coordinate <= BOX_SCALE for coordinate in box):
        return f"has a coordinate outside 0..{BOX_SCALE}"
    x0, y0, x1, y1 = map(round, box)
    if not (x0 < x1 and y0 < y1):
        return "has a box without area or with swapped corners"
    label = item.get("label")
    if not isinstance(label, str) or label not in LABELS:
        return "has an unknown label"
    if require_description:
        description = item.get("description")
        if not isinstance(description, str) or not description.strip():
            return "has no description"
    if require_importance:
        importance = item.get("importance")
        if not _is_number(importance) or not 1 <= importance <= 100:
            return "has no importance in 1..100"
    return None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    item = dict(pairs)
    if len(item) < len(pairs):
        raise ValueError("an object has a key twice")
    return item


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_distinct_keys)


def structural_tag(
    *, think: bool = True, description: bool = True, importance: bool = True
) -> dict[str, Any]:
    """A structural tag of XGrammar for the answers that a prompt profile asks for.

    With `think` all text is free up to `<answer>`; after the block the response ends. The switches are those
    of `render_response`. What a grammar cannot say is left to the reader: that x0 < x1 and y0 < y1, and that
    an answer comes at all where the model never opens the block.
    """
    item: dict[str, Any] = {
        "box_2d": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 1000},
            "minItems": 4,
            "maxItems": 4,
        },
        "label": {"type": "string", "enum": list(LABELS)},
    }
    if description:
        item["description"] = {"type": "string", "minLength": 1, "maxLength": MOST_LETTERS}
    if importance:
        item["importance"] = {"type": "integer", "minimum": 1, "maximum": 100}
    schema = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": item,
            "required": list(item),
            "additionalProperties": False,
        },
        "maxItems": MOST_ITEMS,
    }
    answer = {
        "type": "tag",
        "begin": "<answer>\n",
        "content": {"type": "json_schema", "json_schema": schema},
        "end": "\n</answer>",
    }
    free = {"type": "triggered_tags", "triggers": ["<answer>"], "tags": [answer], "stop_after_first": True}
    return {"type": "structural_tag", "format": free if think else answer}
