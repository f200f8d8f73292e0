"""The grammar of an answer: it lets through what the gate takes, and asks for what a profile asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from strategies import diagnoses

from sdg import Diagnosis, render_response
from sdg.prompting import AnswerParts
from sdg.response.structural import MOST_ITEMS, MOST_LETTERS, structural_tag

ITEM = {"box_2d": [0, 0, 1000, 1000], "label": "artifact", "description": "torn", "importance": 100}


def answer(**parts: bool) -> dict[str, Any]:
    """The tag around the answer."""
    [tag] = structural_tag(**parts)["format"]["tags"]
    return tag


def holds(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value meets a schema of the few words that are used here."""
    kind = schema["type"]
    if kind == "array":
        size = schema.get("minItems", 0) <= len(value) <= schema["maxItems"]
        return isinstance(value, list) and size and all(holds(schema["items"], one) for one in value)
    if kind == "object":
        known = schema["properties"]
        return set(schema["required"]) <= set(value) <= set(known) and all(
            holds(known[name], one) for name, one in value.items()
        )
    if kind == "integer":
        return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
    if "enum" in schema:
        return value in schema["enum"]
    return isinstance(value, str) and schema["minLength"] <= len(value) <= schema["maxLength"]


@given(diagnoses)
def test_every_rendered_answer_is_within_the_grammar(diagnosis: Diagnosis) -> None:
    assume(diagnosis.is_informative)
    text = render_response(diagnosis)
    tag = answer()
    _, block, rest = text.rpartition(tag["begin"])
    assert block, "it opens as the tag begins"
    content, end, after = rest.rpartition(tag["end"])
    assert (end, after) == ("\n</answer>", "")
    items = json.loads(content)
    usual = all(d.importance is not None and 0 < len(d.reason) <= MOST_LETTERS for d in diagnosis.defects)
    if usual and len(items) <= MOST_ITEMS:
        assert holds(tag["content"]["json_schema"], items)


@pytest.mark.parametrize(
    "change",
    [
        {"box_2d": [0, 0, 1001, 5]},
        {"box_2d": [-1, 0, 1, 5]},
        {"box_2d": [0, 0, 5]},
        {"box_2d": [0.5, 0, 3, 5]},
        {"label": "both"},
        {"description": ""},
        {"importance": 0},
        {"importance": 101},
        {"score": 1},
    ],
)
def test_what_the_gate_refuses_is_outside(change: dict[str, Any]) -> None:
    schema = answer()["content"]["json_schema"]
    assert holds(schema, [ITEM])
    assert not holds(schema, [ITEM | change])
    assert not holds(schema, [ITEM] * (MOST_ITEMS + 1))


@pytest.mark.parametrize(
    ("parts", "keys"),
    [
        (AnswerParts(), {"box_2d", "label", "description", "importance"}),
        (AnswerParts(description=False), {"box_2d", "label", "importance"}),
        (AnswerParts(importance=False), {"box_2d", "label", "description"}),
    ],
)
def test_each_part_that_a_profile_asks_for_is_asked_for(parts: AnswerParts, keys: set[str]) -> None:
    item = answer(**parts.rendering())["content"]["json_schema"]["items"]
    assert set(item["required"]) == set(item["properties"]) == keys


def test_thinking_is_free_and_an_answer_alone_begins_with_its_tag() -> None:
    free = structural_tag()["format"]
    assert (free["triggers"], free["stop_after_first"]) == (["<answer>"], True)
    assert structural_tag(think=False)["format"] == answer()
