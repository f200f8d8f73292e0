"""Parsing is total: 200,000 mutated responses, each read without an error and consistently."""

import json
import random
import time

import pytest

from sdg.defects import Status
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
PIECES = [
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


def mutate(text: str, rng: random.Random) -> str:
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        near = min(end, at + rng.randrange(12))
        match rng.randrange(8):
            case 0:
                text = text[:at]
            case 1:
                text = text[at:]
            case 2:
                text = text[:at] + text[near:]
            case 3 | 4:
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case 5:
                text = text[:at] + rng.choice(PIECES) + text[near:]
            case 6:
                text = text[:end] + text[at:end] + text[end:]
            case 7:
                text = text[:at] + chr(rng.randrange(0x3000)) + text[near:]
        if len(text) > 2000:
            text = text[:2000]
    return text


def check(text: str, closely: bool = True) -> Status:
    found = parse_response(text)
    assert found.raw == text
    assert grammar.REPAIRS.issuperset(found.repairs)
    if found.status is Status.UNPARSEABLE:
        assert found.repairs == ()
    else:
        assert (found.status is Status.OK) == (found.repairs == ())
        assert (found.status is Status.TRUNCATED) == (grammar.CUT_OFF in found.repairs)
    if not closely:
        return found.status
    if format_fault(text) is None:
        assert found.status in (Status.OK, Status.REPAIRED)
    if found.is_informative:
        again = parse_response(render_response(found))
        assert again.status is Status.OK
        assert (again.defects, again.reasoning) == (found.defects, found.reasoning)
    return found.status


@pytest.mark.slow
def test_two_hundred_thousand_mutated_responses():
    rng = random.Random(20260606)
    began = time.process_time()
    seen = dict.fromkeys(Status, 0)
    for number in range(200_000):
        text = mutate(SEEDS[number % len(SEEDS)], rng)
        seen[check(text, closely=number // len(SEEDS) % 5 == 0)] += 1
    assert time.process_time() - began < 60
    # The mutations reach every way of reading, not only one.
    assert all(seen[status] > 2_000 for status in Status if status is not Status.FAILED)


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
    assert time.process_time() - began < 2


def test_numbers_without_end():
    for number in ("9" * 1_000_000, "1e999999999", "0." + "1" * 1_000_000, "-" + "9" * 5000):
        item = json.dumps({"box_2d": [1, 2, 3, 4], "label": "artifact"}).replace("3,", f"{number},")
        check(f"<think></think><answer>[{item}]</answer>")
