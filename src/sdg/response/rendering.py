"""Writing a diagnosis as a response, in the layout of the released training targets."""

from __future__ import annotations

import json

from sdg.defects import Diagnosis
from sdg.response.strict import escape_tags, write_defect


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
