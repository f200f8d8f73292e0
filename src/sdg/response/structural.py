"""The answer block as a grammar, to which a server with structured outputs holds a model."""

from __future__ import annotations

from typing import Any, Final

from sdg.response.grammar import LABELS

MOST_ITEMS: Final = 32
"""Defects in an answer; without a bound a model may go on until its token limit."""
MOST_LETTERS: Final = 400
"""Characters of a description."""


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
