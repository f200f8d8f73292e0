"""The rubric of docs/background/testbed-conventions.md, against sums by hand."""

import pytest

from sdg.testbed.importance import SEMANTIC, artifact_importance, misalignment_importance
from sdg.testbed.world.prompts import parse_prompt

REQUEST = parse_prompt("three red circles left of a blue square")
SIDE = 128
BOX = (0, 0, 32, 64)  # √(0.125 / 0.2) = 0.79057 of what counts as large


@pytest.mark.parametrize(
    ("subtype", "group", "colours", "expected"),
    [
        ("wrong relation", None, ["red", "blue"], 30 + 35 * 0.8 + 20 * 0.79057 + 15),
        ("wrong count", 0, ["red"], 30 * 2 / 3 + 35 * 0.7 + 20 * 0.79057 + 15),
        ("wrong count", 0, ["red"] * 9, 30 + 35 * 0.7 + 20 * 0.79057 + 15),
        ("missing object", 0, [], 30 + 35 + 20 * 0.75**0.5 + 15),
        ("missing object", 1, [], 30 + 35 + 20 * 0.25**0.5 + 7.5),
        ("extra object", None, ["red"], 30 * 0.7 + 35 * 0.6 + 20 * 0.79057 + 4.5),
        ("wrong text", None, [], 30 + 35 * 0.7 + 20 * 0.79057 + 7.5),
        ("wrong background", None, [], 30 * 0.7 + 35 * 0.5 + 20 * 0.79057),
        ("wrong shape", 1, ["blue"], 30 * 0.7 + 35 * 0.75 + 20 * 0.79057 + 7.5),
        ("wrong colour", 1, ["blue"], 35 * 0.7 + 20 * 0.79057 + 7.5),  # as if it were the right one
        ("wrong colour", 1, ["yellow"], 30 + 35 * 0.7 + 20 * 0.79057 + 7.5),
    ],
)
def test_misalignments(subtype: str, group: int | None, colours: list[str], expected: float) -> None:
    assert misalignment_importance(REQUEST, subtype, group, colours, BOX, SIDE) == min(97, round(expected))
    large = tuple(2 * value for value in BOX)
    assert misalignment_importance(REQUEST, subtype, group, colours, large, 2 * SIDE) == min(
        97, round(expected)
    )


@pytest.mark.parametrize(
    ("subtype", "group", "change", "expected"),
    [
        ("missing chunk", 0, 55, 30 * 0.5 + 35 * 0.7 + 20 * 0.79057 + 15),
        ("smear", 1, 220, 30 + 35 * 0.5 + 20 * 0.79057 + 7.5),
        ("warp", -1, 11, 30 * 0.1 + 35 * 0.55 + 20 * 0.79057 + 4.5),
        ("stray mark", None, 0, 35 * 0.3 + 20 * 0.79057),
        ("garbled letters", None, 110, 30 + 35 * 0.5 + 20 * 0.79057 + 7.5),
    ],
)
def test_artifacts(subtype: str, group: int | None, change: float, expected: float) -> None:
    assert artifact_importance(subtype, group, change, BOX, SIDE) == round(expected)


def test_nothing_is_below_five_or_above_ninety_seven() -> None:
    speck = (0, 0, 1, 1)
    assert artifact_importance("stray mark", None, 0, speck, 512) == 11  # 35 * 0.3 and hardly any area
    whole = (0, 0, SIDE, SIDE)
    assert misalignment_importance(REQUEST, "missing object", 0, [], whole, SIDE) == 97
    assert min(SEMANTIC.values()) == 0.3
