"""The strict gate: everything the reader would mend is a fault here, said in one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import diagnoses

from sdg import Diagnosis, render_response
from sdg.defects import DROPPED_ITEM, Status
from sdg.prompting import AnswerParts
from sdg.response import format_fault, grammar, parse_response
from sdg.response.gate import MOST_ITEMS, MOST_LETTERS, structural_tag

THINK = "<think>The hand is odd.</think>"
HAND = {"box_2d": [10, 20, 30, 40], "label": "artifact", "description": "A fused hand.", "importance": 40}


def answer(*items, think=THINK):
    return f"{think}<answer>{json.dumps(items)}</answer>"


@pytest.mark.parametrize(
    "text",
    [
        answer(),
        answer(HAND),
        answer(HAND, {**HAND, "label": "misalignment"}),
        f" {THINK}\n\n<answer>\n[]\n</answer>\n",
        answer({**HAND, "box_2d": [0, 0.5, 1000, 999.5]}),
        answer({**HAND, "note": "kept aside"}),
        answer(HAND, think="<think></think>"),
    ],
)
def test_valid(text):
    assert format_fault(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "tags"),
        (answer(HAND, think=""), "tags"),
        (f"{answer(HAND, think='')}{THINK}", "tags"),
        (answer(HAND)[: -len("</answer>")], "tags"),
        (answer(HAND) + answer(HAND, think=""), "tags"),
        (THINK + answer(HAND), "tags"),
        (answer(HAND, think="<think>I use <answer>.</think>"), "tags"),
        (answer({**HAND, "description": "a </answer>"}), "tags"),
        (answer(HAND).replace("<answer>", "<ANSWER>"), "tags"),
        (f"Sure. {answer(HAND)}", "outside"),
        (f"{answer(HAND)} Done.", "outside"),
        (answer(HAND, think=f"{THINK} So: "), "outside"),
        (f"{THINK}<answer></answer>", "strict JSON"),
        (f"{THINK}<answer>```json\n[]\n```</answer>", "strict JSON"),
        (f"{THINK}<answer>{[HAND]}</answer>", "strict JSON"),
        (f"{THINK}<answer>[{json.dumps(HAND)},]</answer>", "strict JSON"),
        (f"{THINK}<answer>[{json.dumps(HAND)[:-1]}]</answer>", "strict JSON"),
        (answer({**HAND, "importance": float("nan")}), "strict JSON"),
        (answer({**HAND, "box_2d": [0, 0, float("inf"), 9]}), "strict JSON"),
        (answer(HAND).replace('"label"', '"label": "artifact", "label"'), "key twice"),
        (f"{THINK}<answer>{'[' * 100_000}</answer>", "too deeply"),
        (f"{THINK}<answer>{{}}</answer>", "not a JSON list"),
        (f"{THINK}<answer>null</answer>", "not a JSON list"),
        (answer(HAND, [HAND]), "Item 2 is not an object"),
        (answer({**HAND, "box_2d": [10, 20, 30]}), "4 numbers"),
        (answer({**HAND, "box_2d": "10 20 30 40"}), "4 numbers"),
        (answer({**HAND, "box_2d": [10, 20, 30, "40"]}), "4 numbers"),
        (answer({**HAND, "box_2d": [False, 20, 30, 40]}), "4 numbers"),
        (answer({key: HAND[key] for key in ("label", "description", "importance")}), "4 numbers"),
        (answer({**HAND, "box_2d": [-0.1, 20, 30, 40]}), "outside 0..1000"),
        (answer({**HAND, "box_2d": [10, 20, 30, 1001]}), "outside 0..1000"),
        (answer({**HAND, "box_2d": [30, 20, 10, 40]}), "swapped"),
        (answer({**HAND, "box_2d": [10, 40, 30, 40]}), "without area"),
        (answer({**HAND, "box_2d": [10.1, 20, 10.2, 40]}), "without area"),
        (answer({**HAND, "label": "both"}), "label"),
        (answer({**HAND, "label": "Artifact"}), "label"),
        (answer({**HAND, "label": ["artifact"]}), "label"),
        (answer({**HAND, "description": " \n"}), "description"),
        (answer({**HAND, "description": None}), "description"),
        (answer({("desc" if key == "description" else key): HAND[key] for key in HAND}), "description"),
        (answer({**HAND, "importance": 0}), "importance"),
        (answer({**HAND, "importance": 101}), "importance"),
        (answer({**HAND, "importance": "40"}), "importance"),
        (answer({**HAND, "importance": True}), "importance"),
        (answer({**HAND, "importance": 10**400}), "importance"),
        (answer({key: HAND[key] for key in ("box_2d", "label", "description")}), "importance"),
    ],
)
def test_faults(text, said):
    fault = format_fault(text)
    assert said in fault
    assert fault.endswith(".")
    assert "\n" not in fault


def test_a_part_the_profile_does_not_ask_for_is_not_looked_at():
    bare = {"box_2d": [10, 20, 30, 40], "label": "artifact"}
    assert format_fault(answer(bare), require_description=False, require_importance=False) is None
    odd = {**bare, "description": 3, "importance": "high"}
    assert format_fault(answer(odd), require_description=False, require_importance=False) is None
    assert format_fault(answer(HAND, think=""), require_think=False) is None
    assert format_fault(answer(HAND), require_think=False) is None
    assert "tags" in format_fault(answer(HAND, think="</think>"), require_think=False)


numbers = st.integers(-5, 1005) | st.floats(-5, 1005) | st.sampled_from(["7", None, True, 10**400])
items = st.fixed_dictionaries(
    {},
    optional={
        "box_2d": st.lists(numbers, min_size=3, max_size=4) | st.just([1, 2, 30, 40]),
        "label": st.sampled_from(["artifact", "misalignment", "both", "x", None]),
        "description": st.sampled_from(["A hand.", "", None, 3]),
        "importance": st.integers(-5, 120) | st.floats(0, 101) | st.none(),
    },
)


@given(st.lists(st.just(HAND) | items, max_size=3))
def test_what_passes_the_gate_is_read_without_loss(listed):
    text = answer(*listed)
    if format_fault(text) is None:
        found = parse_response(text)
        assert len(found.defects) == len(listed)
        assert set(found.repairs) <= {grammar.ROUNDED_BOX, grammar.ROUNDED_IMPORTANCE}
    else:
        found = parse_response(text)
        assert found.status is not Status.OK or any(
            item.get("description") in (None, "") or item.get("importance") is None for item in listed
        )
        assert len(found.defects) + found.repairs.count(DROPPED_ITEM) >= len(listed)


ITEM = {"box_2d": [0, 0, 1000, 1000], "label": "artifact", "description": "torn", "importance": 100}


def grammar_of(**parts: bool) -> dict[str, Any]:
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
    tag = grammar_of()
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
    schema = grammar_of()["content"]["json_schema"]
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
    item = grammar_of(**parts.rendering())["content"]["json_schema"]["items"]
    assert set(item["required"]) == set(item["properties"]) == keys


def test_thinking_is_free_and_an_answer_alone_begins_with_its_tag() -> None:
    free = structural_tag()["format"]
    assert (free["triggers"], free["stop_after_first"]) == (["<answer>"], True)
    assert structural_tag(think=False)["format"] == grammar_of()
