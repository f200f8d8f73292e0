"""Any response is read without an error and consistently, and none is clean without evidence."""

import json
import random
import re
import time
from collections import Counter

import pytest
from fuzz import budget, mutate, report

from sdg.defects import DROPPED_ITEM, Status
from sdg.response import format_fault, grammar, parse_response, render_response

SEEDS = [
    "<think>\nOdd.\n</think>\n<answer>\n[\n"
    '  {"box_2d": [600, 48, 641, 100], "label": "artifact", "description": "\\"Toe\\"", "importance": 2},\n'
    '  {"box_2d": [2, 48, 657, 840], "label": "misalignment", "description": "No.", "importance": 95}\n'
    "]\n</answer>",
    "<think>\nNothing.\n</think>\n<answer>\n[]\n</answer>",
    '<answer>```json\n[{"box_2d": [1.5, "2", 30, 40], "label": "both", "desc": "a"}]\n```</answer>',
    "{'defects': [{'bbox': (9, 8, 7, 6), 'label': 'Artifacts', 'desc': 'the man's', 'importance': None},]}",
]
ERRORS = [
    '{"error": {"message": "overloaded", "type": "server_error", "details": []}}',
    '{"detail": []}',
    '{"error": "CUDA out of memory", "defects": []}',
    "<answer>[]</answer>\nlitellm.Timeout: request failed, fallbacks=[]",
    "I am sorry, I cannot help with that. []",
    "2026-01-01 00:00:00 ERROR engine: Traceback (most recent call last): [] []",
    '{"id": "1", "choices": [{"message": {"content": "[]"}, "finish_reason": "error"}]}',
    "<html><body><h1>502 Bad Gateway</h1><!-- [] --></body></html>",
    "<think>I cannot see the image, so <answer>[]</answer>",
    '{"level": "error"}\n[]\n{"level": "error"}',
    "upstream connect error</think>[]",
    "```json\n[]\n```\nThe image could not be loaded.",
]
PIECES = [
    *("[]", "[ ]", '{"defects": []}', "error", "null", "</think><answer>", "...", "\u200b", "［］"),
    *(
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<\\answer>",
        "```json",
        "```",
        "<",
        "\\",
        "\\u00",
        "\n",
        " ",
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        '"',
        "'",
        "(",
        ")",
        "[[[[",
        "{{{{",
        '{"',
        "null",
        "NaN",
        "-Infinity",
        "1e999",
    ),
    *(
        "-",
        ".",
        "e",
        "9" * 25,
        "true",
        "None",
        "both",
        "box_2d",
        "\x00",
        "\ud83d",
        "\ude00",
        "\u2028",
        "É",
        "//",
    ),
]


# What is left of a response that says "clean", without its think block, tags, fences and blanks.
EVIDENCE = ("[]", '{"defects":[]}', "{'defects':[]}")
THOUGHT = re.compile(
    r"<[ \t]?think[ \t]?>.*?<[ \t]?/[ \t]?think[ \t]?>|^.*?<[ \t]?/[ \t]?think[ \t]?>", re.I | re.S
)
AROUND = re.compile(r"<[ \t]?/?[ \t]?answer[ \t]?>|```[ \t]*(?:json|python|text)?|\s", re.I)


def is_evidence(text: str) -> bool:
    return AROUND.sub("", THOUGHT.sub("", text, count=1)).lower() in EVIDENCE


def check(text: str, closely: bool = True) -> Status:
    found = parse_response(text)
    assert found.raw == text
    assert grammar.REPAIRS.issuperset(found.repairs)
    if found.status is Status.UNPARSEABLE:
        assert found.repairs == () or DROPPED_ITEM in found.repairs
    else:
        assert (found.status is Status.OK) == (found.repairs == ())
        assert (found.status is Status.TRUNCATED) == (grammar.CUT_OFF in found.repairs)
    if not found.defects:
        assert found.is_clean == (found.status in (Status.OK, Status.REPAIRED))
        assert not found.is_clean or is_evidence(text)
    if not closely:
        return found.status
    if format_fault(text) is None:
        assert found.status in (Status.OK, Status.REPAIRED)
    if found.is_informative:
        again = parse_response(render_response(found))
        assert again.status is Status.OK
        assert (again.defects, again.reasoning) == (found.defects, found.reasoning)
    return found.status


def test_mutated_responses() -> None:
    rng = random.Random(20260606)
    seen: Counter[str] = Counter()
    for number in range(count := budget(20_000)):
        text = mutate(SEEDS[number % len(SEEDS)], rng, PIECES)
        seen[check(text, closely=number // len(SEEDS) % 5 == 0)] += 1
    report("responses", seen)
    # The mutations reach every way of reading, not only one.
    assert all(seen[status] > count / 100 for status in Status if status is not Status.FAILED)


def test_mutated_errors_are_never_clean() -> None:
    rng = random.Random(20261128)
    seen: Counter[str] = Counter()
    for number in range(budget(6_000)):
        text = mutate(ERRORS[number % len(ERRORS)], rng, PIECES)
        seen[check(text, closely=False)] += 1
    report("errors", seen)


@pytest.mark.parametrize(
    "unit",
    [
        "[",
        "[{",
        '"',
        "\\",
        "<answer>",
        "<think>",
        "</answer>",
        "[] ",
        "```json []",
        '{"a":',
        '[" ,',
        "<",
        "9",
        "\ud800",
    ],
)
@pytest.mark.parametrize(
    "before", ["", "<think></think><answer>", '<think></think><answer>[{"description": "']
)
def test_a_hundred_thousand_characters_of_anything_take_a_moment(unit, before):
    text = before + unit * (100_000 // len(unit))
    began = time.process_time()
    check(text)
    assert time.process_time() - began < 20  # of the CPU's; what is not linear takes minutes


def test_numbers_without_end():
    for number in ("9" * 1_000_000, "1e999999999", "0." + "1" * 1_000_000, "-" + "9" * 5000):
        item = json.dumps({"box_2d": [1, 2, 3, 4], "label": "artifact"}).replace("3,", f"{number},")
        check(f"<think></think><answer>[{item}]</answer>")
