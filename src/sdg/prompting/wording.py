"""The default wording of the user turn, composed from what the answer is to hold (SDG §3.1, App. A).

In this order: role, types, caption, goal, blocks, think steps, answer schema, importance tiers, style.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

STEPS: Final = (1, 2, 3)

_ROLE: Final = (
    "You inspect pictures made by text-to-image models. You look closely, you report only what can be seen, "
    "and you say where it is."
)

TYPES: Final = """A defect is of one of two types:
- artifact: something that looks wrong whatever the caption says. Kinds: anatomy (fused fingers, a surplus \
limb), geometry (impossible or warped shapes), texture (smeared or repeating surfaces), edges (broken or \
bleeding contours), garbled text, lighting (shadows or reflections that contradict each other).
- misalignment: something that contradicts the caption, however well it is drawn. Kinds: missing object, \
extra object, wrong attribute (colour, count, material), wrong relation in space, wrong action, wrong style.
Eyes of another colour than the caption asks for are a misalignment; malformed eyes are an artifact. A \
stylisation that the caption asks for, or that suits it, is no defect."""

CAPTION: Final = "The caption the picture was made from:\n{caption}"

_GOAL: Final = (
    "Find every defect in the picture{extra}. A picture without defects is a possible outcome; invent none."
)

BLOCKS: Final = {
    True: "Reply with two blocks and nothing else: first <think>…</think>, then <answer>…</answer>.",
    False: "Reply with one block and nothing else: <answer>…</answer>.",
}
"""Whether there is to be a think block -> what stands around the answer."""

THINK_STEPS: Final = {
    1: """### Step 1: Caption Understanding
List what the caption asks for: subjects, their attributes and number, actions, setting, style. Do not judge \
the picture yet.""",
    2: """### Step 2: Visual Analysis & Defect Spotting
Compare the picture with the caption, then look it over by itself; name each defect with its type and what \
shows it. Give no positions in numbers.""",
    3: """### Step 3: Localization
One line for each box of the answer, in the same order: its type, the part it encloses, roughly where that \
part lies and how large it is. Write no coordinates.""",
}

_BOX: Final = (
    '"box_2d": [x0, y0, x1, y1], the smallest box around the defect: left, top, right, bottom, as whole '
    "numbers from 0 to 1000 across the width and down the height of the picture; for something missing, "
    "the place where it belongs"
)
_LABEL: Final = '"label": "artifact" or "misalignment"'
_DESCRIPTION: Final = '"description": one sentence that says what is wrong'
_IMPORTANCE: Final = '"importance": a whole number from 1 to 100, how much the defect hurts the picture'

TIERS: Final = """Importance, judged first by how much the defect catches the eye, then by how much it \
changes the meaning, by its area, and by whether it touches the main subject:
- 90–100 critical: the picture fails because of it
- 70–89 major: seen at once, spoils the main subject or an explicit request
- 40–69 moderate: clearly seen, the picture still works
- 15–39 minor: seen on a closer look
- 1–14 negligible: hardly seen"""

_STYLE: Final = (
    "A description is one plain sentence of 18 to 45 words. It names the part, says where on the subject it "
    "is, and gives the concrete evidence; it does not guess at causes and does not repeat the coordinates."
)

_HEADING: Final = re.compile(
    r"^[#* \t]*Step[ \t]*([1-3])(?=[ \t*]*(?:[:.)–—-]|$))", re.IGNORECASE | re.MULTILINE
)


def default_template(*, think: bool, steps: Sequence[int], description: bool, importance: bool) -> str:
    """The default wording with the parts that are asked for; the caption goes where `{caption}` stands."""
    asked = [
        part for part, wanted in (("why it is one", description), ("how much it hurts", importance)) if wanted
    ]
    extra = f", where it is, {' and '.join(asked)}" if asked else " and where it is"
    sections = [_ROLE, TYPES, CAPTION, _GOAL.replace("{extra}", extra), BLOCKS[think]]
    if think:
        inside = "\n".join(THINK_STEPS[step] for step in steps)
        sections.append(f"Inside <think>, under these headings:\n{inside}")
    sections.append(_schema(description, importance))
    if importance:
        sections.append(TIERS)
    if description:
        sections.append(_STYLE)
    return "\n\n".join(sections)


def trim_reasoning(reasoning: str, steps: Sequence[int]) -> str:
    """The reasoning with only the given steps, for a profile that does not ask for all three (SDG Table 7).

    A step runs from its heading ("### Step 2: …") to the next one. Text before the first heading stays, and
    so does reasoning without any.
    """
    found = list(_steps(reasoning))
    if all(step in steps for step, _ in found):
        return reasoning
    before = reasoning[: len(reasoning) - sum(len(text) for _, text in found)]
    return (before + "".join(text for step, text in found if step in steps)).rstrip()


def step_lines(reasoning: str) -> dict[int, list[str]]:
    """The lines of each step that are not blank, that of its heading first, in the order of the headings."""
    return {step: [line for line in text.splitlines() if line.strip()] for step, text in _steps(reasoning)}


def _steps(reasoning: str) -> Iterator[tuple[int, str]]:
    """Each step's number and its text, from its heading to the next one."""
    headings = list(_HEADING.finditer(reasoning))
    ends = [*(heading.start() for heading in headings[1:]), len(reasoning)]
    for heading, end in zip(headings, ends, strict=False):  # without a heading there is nothing to end
        yield int(heading[1]), reasoning[heading.start() : end]


def _schema(description: bool, importance: bool) -> str:
    keys = [_BOX, _LABEL]
    example = '{"box_2d": [120, 80, 310, 260], "label": "artifact"'
    if description:
        keys.append(_DESCRIPTION)
        example += ', "description": "…"'
    if importance:
        keys.append(_IMPORTANCE)
        example += ', "importance": 55'
    lines = "\n".join(f"- {key}" for key in keys)
    return (
        f"Inside <answer>, a JSON list with one object for each defect, and [] where there is none:\n"
        f"[\n  {example}}}\n]\n{lines}"
    )
