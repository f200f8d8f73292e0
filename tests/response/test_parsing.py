"""The wire format: what the reader mends and says so, and what the writer promises it gives back."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdg.defects import DROPPED_ITEM, Defect, Diagnosis, Status
from sdg.response import grammar, parse_response, render_response

THINK = "<think>\nThe hand is odd.\n</think>\n"
HAND = {"box_2d": [10, 20, 30, 40], "label": "artifact", "description": "A fused hand.", "importance": 40}
DOG = {"box_2d": [5, 6, 700, 800], "label": "misalignment", "description": "No dog.", "importance": 90}
HAND_DEFECT = Defect((10, 20, 30, 40), "artifact", "A fused hand.", 40)
DOG_DEFECT = Defect((5, 6, 700, 800), "misalignment", "No dog.", 90)
BALLERINA = """<think>
### Step 1: Caption Understanding
- The caption describes a "petite American ballerina" doing a "star jump upside down".
</think>
<answer>
[
  {"box_2d": [600, 48, 641, 100], "label": "artifact", "description": "Fused fingers.", "importance": 22},
  {"box_2d": [223, 48, 657, 840], "label": "misalignment", "description": "She stands upright; \
the caption asks for 'upside down'.", "importance": 95}
]
</answer>"""

texts = st.text(
    st.characters(exclude_categories=()) | st.sampled_from("<>/\\\n\r\x00\u2028`'\"\ud83d\ude00 "),
    max_size=40,
) | st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<answer>",
            "</ANSWER >",
            "<\\answer>",
            "<",
            "\\",
            "\n",
            " ",
            "```json",
            "[]",
            '"',
        ]
    ),
    max_size=8,
).map("".join)


@st.composite
def defects(draw):
    x0, x1 = sorted(draw(st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(draw(st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True)))
    kind = draw(st.sampled_from(["artifact", "misalignment"]))
    return Defect((x0, y0, x1, y1), kind, draw(texts), draw(st.none() | st.integers(1, 100)))


diagnoses = st.builds(Diagnosis, st.lists(defects(), max_size=4).map(tuple), texts)


def answer(*items, think=THINK):
    return f"{think}<answer>{json.dumps(items)}</answer>"


def read(text, **options):
    found = parse_response(text, **options)
    assert found.raw == text
    assert set(found.repairs) <= grammar.REPAIRS
    return found


def check(text, defects, *repairs, status=Status.REPAIRED):
    found = read(text)
    assert (found.defects, found.repairs, found.status) == (tuple(defects), repairs, status)


# --- the well-formed response ---


@given(diagnoses)
@example(Diagnosis())
@example(Diagnosis((HAND_DEFECT,), reasoning="\n"))
@example(Diagnosis((HAND_DEFECT,), reasoning="</think>\n<answer>\n[]\n</answer>"))
@example(Diagnosis((Defect((0, 0, 1, 1), "artifact", "a sign </answer> <\\think>"),), "<\\\\think>"))
@example(
    Diagnosis((Defect((0, 0, 1, 1), "artifact", "\ud83d\ude00 \ud83d\ude00"[:2]),), "\r\x00\u2028 \udfff")
)
def test_what_is_rendered_reads_back_equal(diagnosis):
    found = read(render_response(diagnosis))
    assert found == diagnosis
    assert found.repairs == ()


@given(diagnoses, st.booleans(), st.booleans())
def test_parts_left_out_in_rendering_read_back_as_absent(diagnosis, description, importance):
    text = render_response(diagnosis, think=False, description=description, importance=importance)
    found = read(text, require_think=False)
    assert (found.status, found.reasoning) == (Status.OK, "")
    for before, after in zip(diagnosis.defects, found.defects, strict=True):
        assert (after.box, after.type) == (before.box, before.type)
        assert after.reason == (before.reason if description else "")
        assert after.importance == (before.importance if importance else None)


def test_the_rendered_layout_is_the_released_one():
    found = read(BALLERINA)
    assert found.status is Status.OK
    assert [defect.importance for defect in found.defects] == [22, 95]
    assert render_response(found) == BALLERINA


def test_the_papers_worked_example_reads_as_its_four_defects():
    path = Path(__file__).parents[3] / "shared/examples/real/ballerina.response.txt"
    if not path.exists():
        pytest.skip("the worked example lies outside of the repository")
    text = path.read_text()
    found = read(text)
    assert (found.status, found.repairs) == (Status.OK, ())
    assert [(d.box, d.type.value, d.importance) for d in found.defects] == [
        ((600, 48, 641, 100), "artifact", 22),
        ((223, 345, 285, 385), "artifact", 22),
        ((474, 220, 530, 281), "artifact", 32),
        ((223, 48, 657, 840), "misalignment", 95),
    ]
    assert found.reasoning.startswith("### Step 1: Caption Understanding\n")
    assert found.reasoning.endswith("standing upright on the board.")
    assert render_response(found) == text.strip()


def test_ordinary_text_is_rendered_as_it_is():
    diagnosis = Diagnosis((HAND_DEFECT,), 'It says "a < b", “naïve” — <b>bold</b> and C:\\dir.')
    assert f"<think>\n{diagnosis.reasoning}\n</think>" in render_response(diagnosis)


def test_no_tag_of_a_text_survives_rendering_as_a_tag():
    tags = "<think></think><answer></answer>"
    text = render_response(Diagnosis((Defect((0, 0, 9, 9), "artifact", tags),), tags))
    assert [text.count(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "diagnosis",
    [
        Diagnosis(status="failed"),
        Diagnosis(status="unparseable", reasoning="Hm."),
        Diagnosis(status="truncated"),
        Diagnosis(status="repaired", repairs=(DROPPED_ITEM,)),
    ],
)
def test_what_is_not_known_is_never_rendered_as_clean(diagnosis):
    with pytest.raises(ValueError, match="cannot be rendered"):
        render_response(diagnosis)


def test_blanks_around_the_blocks_do_not_matter():
    check(f"\n \t{THINK}\n\n<answer>\n\n[]\n </answer>\r\n", [], status=Status.OK)


def test_a_missing_reason_or_importance_is_no_fault():
    item = {"box_2d": [10, 20, 30, 40], "label": "artifact"}
    check(answer(item), [Defect((10, 20, 30, 40), "artifact")], status=Status.OK)
    check(
        answer({**item, "importance": None, "description": None, "score": 0.5}),
        [Defect((10, 20, 30, 40), "artifact")],
        status=Status.OK,
    )


# --- the blocks ---


def test_a_missing_think_block_is_a_repair_unless_none_is_expected():
    check(answer(HAND, think=""), [HAND_DEFECT], grammar.MISSING_THINK)
    assert read(answer(HAND, think=""), require_think=False).status is Status.OK
    assert read(answer(HAND), require_think=False).reasoning == "The hand is odd."


def test_half_a_think_block_still_gives_its_reasoning():
    for text, repair in [
        (answer(HAND, think="The hand is odd.\n</think>\n"), grammar.UNOPENED_THINK),
        (answer(HAND, think="<think>\nThe hand is odd.\n"), grammar.UNCLOSED_THINK),
    ]:
        check(text, [HAND_DEFECT], repair)
        assert read(text).reasoning == "The hand is odd."


def test_text_around_the_blocks():
    check(f"Sure!\n{answer(HAND)}", [HAND_DEFECT], grammar.OUTSIDE_TEXT)
    check(f"{answer(HAND)}<|im_end|>", [HAND_DEFECT], grammar.OUTSIDE_TEXT)
    check(f"{THINK}So:\n{answer(HAND, think='')}", [HAND_DEFECT], grammar.OUTSIDE_TEXT)


def test_the_answer_may_come_before_the_think_block():
    found = read(f"{answer(HAND, think='')}\n{THINK}")
    assert (found.defects, found.reasoning) == ((HAND_DEFECT,), "The hand is odd.")


def test_a_fence_inside_the_answer_or_around_the_whole_reply():
    listed = json.dumps([HAND])
    check(f"{THINK}<answer>\n```json\n{listed}\n```\n</answer>", [HAND_DEFECT], grammar.CODE_FENCE)
    check(f"```\n{answer(HAND)}\n```", [HAND_DEFECT], grammar.CODE_FENCE)
    check(
        f"```json\n{listed}\n```",
        [HAND_DEFECT],
        grammar.MISSING_THINK,
        grammar.MISSING_ANSWER,
        grammar.CODE_FENCE,
    )


def test_a_bare_list_without_tags():
    check(f"{THINK}{json.dumps([HAND])}", [HAND_DEFECT], grammar.MISSING_ANSWER)
    check("[]", [], grammar.MISSING_THINK, grammar.MISSING_ANSWER)
    check(f"{THINK}{json.dumps([HAND])}</answer>", [HAND_DEFECT], grammar.MISSING_ANSWER)


@pytest.mark.parametrize(
    "text", ["", "Looks fine.", "- [ ] hands\n- [ ]", "[ ] hands [] face", "[10, 20]", "{}"]
)
def test_prose_is_no_answer(text):
    assert read(text).status is Status.UNPARSEABLE
    assert not read(text).is_informative


@pytest.mark.parametrize("body", ["", "none", "null", "NaN", '"clean"', "{}", '{"answer": "clean"}', "42"])
def test_an_answer_block_without_a_list_is_unparseable(body):
    found = read(f"{THINK}<answer>{body}</answer>")
    assert (found.status, found.defects, found.reasoning) == (Status.UNPARSEABLE, (), "The hand is odd.")


def test_tags_in_another_spelling():
    text = answer(HAND).replace("<answer>", "<Answer>").replace("</answer>", "</ answer>")
    check(text, [HAND_DEFECT], grammar.TAG_SPELLING, grammar.TAG_SPELLING)


def test_of_several_answers_the_last_complete_one_counts():
    first, second = answer(HAND, think=""), answer(DOG, HAND, think="")
    check(f"{THINK}{first}\n{second}", [DOG_DEFECT, HAND_DEFECT], grammar.EXTRA_ANSWER)
    check(f"{THINK}{second}\n{first}", [HAND_DEFECT], grammar.EXTRA_ANSWER)
    check(f"{THINK}{first}\n{second[:-30]}", [HAND_DEFECT], grammar.EXTRA_ANSWER)
    check(f"{THINK}{first}\n{first[:-9]}", [HAND_DEFECT], grammar.EXTRA_ANSWER)
    check(f"{THINK}{first}<answer>as above</answer>", [HAND_DEFECT], grammar.EXTRA_ANSWER)


def test_an_answer_quoted_in_the_think_block_is_not_the_answer():
    think = "<think>I write <answer>[]</answer> for a clean image.</think>"
    check(answer(HAND, think=think), [HAND_DEFECT], grammar.STRAY_TAG)
    found = read(answer(HAND, think=think)[:-20])
    assert (found.status, found.defects) == (Status.TRUNCATED, ())
    check(f"<think>Hm. {answer(HAND, think='')}</think>", [HAND_DEFECT], grammar.NESTED_ANSWER)


@pytest.mark.parametrize("end", ["", "</think>", "</think>\n<ans", "<think>"])
@pytest.mark.parametrize("rest", [" for a clean image. The hand ", ""])
def test_a_clean_answer_that_stands_in_a_thought_says_nothing(rest, end):
    assert read(f"<think>I write <answer>[]</answer>{rest}{end}").status is Status.UNPARSEABLE


def test_a_tag_inside_a_text_of_the_list():
    item = {**HAND, "description": "A sign says </answer> here."}
    defect = Defect((10, 20, 30, 40), "artifact", "A sign says </answer> here.", 40)
    check(answer(item, DOG), [defect, DOG_DEFECT], grammar.STRAY_TAG)


# --- clean needs evidence ---


@pytest.mark.parametrize(
    "text",
    [
        f"{THINK}<answer>[]</answer>",
        f"{THINK}<Answer>\n[ ]\r\n</ answer>",
        f"<answer>[]</answer>\n{THINK}",
        f"{THINK}[]",
        f"{THINK}```json\n[]\n```",
        f"```\n{THINK}<answer>[]</answer>\n```",
        f"{THINK}<answer>```json\n[]\n```</answer>",
        f"{THINK}<answer>[]",
        f"{THINK}[]</answer>",
        f'{THINK}<answer>{{"defects": []}}</answer>',
        "{'defects' : [\n] }",
        "The hand is fine.</think>\n<answer>[]</answer>",
        "<think>I write <answer>[]</answer> or <think>.</think><answer>[]</answer>",
        " []\n",
    ],
)
def test_an_empty_list_and_nothing_else_is_clean(text):
    found = read(text)
    assert (found.status in (Status.OK, Status.REPAIRED), found.is_clean) == (True, True)


ERRORS = [
    '{"error": {"message": "overloaded", "details": []}}',
    '{"detail": []}',
    '{"errors": []}',
    '{"choices": []}',
    '{"error": null, "defects": []}',
    '{"defects": [], "error": "CUDA out of memory"}',
    '{"defects": ["unknown"], "defects": []}',
    '{"defects": [[]]}',
    '{"defects": {}}',
    '{"result": {"defects": []}}',
    '[{"defects": []}]',
    "[{}]",
    "[[]]",
    "[null]",
    "[][]",
    "[]\n[]",
    "[],",
    "[]]",
    "[[]",
    "[...]",
    "[…]",
    "[,]",
    "[None]",
    "[ERROR]",
    "[/]",
    "\\[\\]",
    '"[]"',
    "`[]`",
    "**[]**",
    "<p>[]</p>",
    "［］",
    "【】",
    "[\u200b]",
    "[\u3000]",
    "\ufeff[]",
    "[]\x00",
    "()",
    "[] # none",
    "// []",
    "data: []",
    "I am sorry, I cannot help with that. []",
    "[] I cannot see the image.",
    "litellm.Timeout: request failed, fallbacks=[]",
    "2026-01-01 ERROR worker[3]: requests=[]",
    '{"level": "error", "defects": []}\n[]',
    "<html><body>502 Bad Gateway []</body></html>",
    "```error\n[]\n```",
    "```json\nTimeout\n```\n[]",
    "<|im_end|>[]",
]


@pytest.mark.parametrize("said", ERRORS)
def test_an_empty_list_beside_anything_else_is_no_evidence(said):
    for text in (said, f"{THINK}{said}", f"{THINK}<answer>{said}</answer>", f"<answer>{said}</answer>"):
        found = read(text)
        assert not found.defects
        assert found.status in (Status.UNPARSEABLE, Status.TRUNCATED), text
        assert not found.is_clean
        assert read(text, require_think=False) == found


@pytest.mark.parametrize(
    "text",
    [
        f"Sorry.\n{THINK}<answer>[]</answer>",
        f"{THINK}So:\n<answer>[]</answer>",
        f"{THINK}<answer>[]</answer>\nCould not load the image.",
        f"{THINK}<answer>[]</answer><answer>[]</answer>",
        f"{THINK}<answer>[]</answer><answer>{{}}</answer>",
        f"{THINK}<answer><answer>[]</answer></answer>",
        f"{THINK}</answer>[]<answer>",
        f"{answer(HAND)}<answer>[]</answer>",
        f"{answer(HAND)[:-9]}[]</answer>",
        "<think>[]</think>",
        "<think>\n<answer>[]</answer>\n</think>\n",
        "[<think>a</think>]",
        "<answer><think>a</think>[]</answer>",
        "<think>a</think><think>b</think>c</think>[]",
        "<think>a</think>b</think><answer>[]</answer>",
        "upstream connect error</think>[]",
        "<think>Out of memory []",
        "<think>Hm.</think><answer>[]</answer></think>",
    ],
)
def test_an_empty_answer_beside_other_words_or_blocks_is_no_evidence(text):
    found = read(text)
    assert (found.defects, found.is_informative) == ((), False)
    assert found.status in (Status.UNPARSEABLE, Status.TRUNCATED)


words = st.sampled_from(
    [
        *("error", "Error:", "exception", "timeout", "overloaded", "refused", "sorry", "cannot", "null"),
        *("[]", "[ ]", "[...]", "{}", '{"defects": []}', '{"error": []}', '"details": []', "fallbacks=[]"),
        *("[", "]", "{", "}", '"', "'", ",", ":", "\n", " ", "```", "```json", "\\", "\u200b", "\ud800"),
    ]
)
WORDY = ("error", "exception", "timeout", "overloaded", "refused", "sorry", "cannot")


@given(st.lists(words | st.text(max_size=6), max_size=9).map("".join), st.sampled_from(WORDY), st.data())
def test_no_text_with_words_of_an_error_and_without_the_wire_format_is_clean(text, word, data):
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + word + text[at:]
    if not grammar.TAG.search(text):
        for wrapped in (text, f"<answer>{text}</answer>", f"{THINK}<answer>{text}</answer>"):
            found = read(wrapped)
            assert not found.is_clean
            assert found.status not in (Status.OK, Status.REPAIRED) or found.defects


# --- truncation ---


def test_a_cut_answer_keeps_its_complete_items_wherever_it_is_cut():
    text = answer(HAND, DOG)
    first_end, second_end = text.index("}") + 1, text.rindex("}") + 1
    for end in range(text.index("<answer>") + len("<answer>"), text.rindex("]")):
        found = read(text[:end])
        expected = (HAND_DEFECT, DOG_DEFECT)[: (end >= first_end) + (end >= second_end)]
        assert (found.status, found.defects) == (Status.TRUNCATED, expected), text[:end]
        assert found.is_informative == bool(expected)


def test_only_the_end_tag_missing_is_a_repair():
    check(answer(HAND)[: -len("</answer>")], [HAND_DEFECT], grammar.UNCLOSED_ANSWER)
    check(f"{THINK}<answer>[]", [], grammar.UNCLOSED_ANSWER)


@pytest.mark.parametrize("text", ["<think>The hand", "<think>\nThe [hand", THINK, THINK + "<answ"])
def test_a_response_cut_before_its_answer_is_unparseable(text):
    found = read(text)
    assert (found.status, found.defects) == (Status.UNPARSEABLE, ())
    assert found.reasoning.strip().startswith("The")


def test_an_item_cut_off_inside_a_closed_block_counts_as_truncated():
    text = f"{THINK}<answer>[{json.dumps(HAND)}, {json.dumps(DOG)[:50]}</answer>"
    check(text, [HAND_DEFECT], grammar.CUT_OFF, status=Status.TRUNCATED)


# --- loose JSON ---


@pytest.mark.parametrize(
    "body",
    [
        str([HAND, DOG]),
        str([HAND, DOG]).replace("[10, 20, 30, 40]", "(10, 20, 30, 40)"),
        json.dumps([HAND, DOG])[:-1] + ",]",
        json.dumps([HAND, DOG]).replace("40}", "40,}").replace("40]", "40,]"),
        json.dumps([HAND, DOG]).replace("}, {", "} {"),
        json.dumps([HAND, DOG]).replace("}, {", ", {"),
        json.dumps([HAND, DOG])[:-1],
        json.dumps([HAND, DOG])[:-2] + "]",
        json.dumps([HAND, DOG]).replace('"label"', "label").replace('"artifact"', "artifact"),
        json.dumps([HAND, DOG]).replace("40]", "40"),
    ],
    ids=[
        "python",
        "tuple",
        "trailing comma",
        "trailing commas",
        "missing comma",
        "missing brace between",
        "missing bracket",
        "missing brace",
        "bare words",
        "missing box bracket",
    ],
)
def test_json_as_models_write_it(body):
    check(f"{THINK}<answer>{body}</answer>", [HAND_DEFECT, DOG_DEFECT], grammar.LOOSE_JSON)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"the sign reads "STOP" in red"', 'the sign reads "STOP" in red'),
        ('"the "red", round ball"', 'the "red", round ball'),
        ("'the woman's hand'", "the woman's hand"),
        (r"'a \'b\' \x41 \u00e9 \ud83d\ude00 \q'", "a 'b' A é 😀 \\q"),
        ('"two\nlines"', "two\nlines"),
    ],
)
def test_texts_in_loose_json(written, meant):
    body = json.dumps([HAND]).replace('"A fused hand."', written)
    check(
        f"{THINK}<answer>{body}</answer>",
        [Defect((10, 20, 30, 40), "artifact", meant, 40)],
        grammar.LOOSE_JSON,
    )


def test_the_list_inside_a_dict_or_a_list_or_missing_altogether():
    listed, one = json.dumps([HAND, DOG]), json.dumps(HAND)
    both = [HAND_DEFECT, DOG_DEFECT]
    check(f'{THINK}<answer>{{"defects": {listed}}}</answer>', both, grammar.WRAPPED_LIST)
    check(f'{THINK}<answer>{{"size": [9, 9], "defects": {listed}}}</answer>', both, grammar.WRAPPED_LIST)
    check(f"{THINK}<answer>[{listed}]</answer>", both, grammar.WRAPPED_LIST)
    check(f"{THINK}<answer>{one}</answer>", [HAND_DEFECT], grammar.MISSING_LIST)
    check(f"{THINK}<answer>{one}\n{json.dumps(DOG)}</answer>", both, grammar.MISSING_LIST)
    check(f'{THINK}<answer>{{"defects": []}}</answer>', [], grammar.WRAPPED_LIST)


def test_a_cut_list_inside_a_dict_keeps_its_complete_items():
    text = f'{THINK}<answer>{{"image": "a.png", "defects": {json.dumps([HAND, DOG])[:-20]}'
    check(text, [HAND_DEFECT], grammar.CUT_OFF, grammar.WRAPPED_LIST, status=Status.TRUNCATED)


# --- the items ---


@pytest.mark.parametrize(
    ("box", "meant", "repairs"),
    [
        ([10.4, 20.0, 29.6, 40], (10, 20, 30, 40), [grammar.ROUNDED_BOX]),
        (["10", "20", " 30 ", "40"], (10, 20, 30, 40), [grammar.NUMBER_AS_TEXT]),
        ([30, 20, 10, 40], (10, 20, 30, 40), [grammar.SWAPPED_CORNERS]),
        ([30, 40, 10, 20], (10, 20, 30, 40), [grammar.SWAPPED_CORNERS]),
        ([-5, 20, 30, 1024], (0, 20, 30, 1000), [grammar.CLAMPED_BOX]),
        ([10, 20, float("inf"), 10**400], (10, 20, 1000, 1000), [grammar.ROUNDED_BOX, grammar.CLAMPED_BOX]),
    ],
)
def test_a_box_that_can_be_mended(box, meant, repairs):
    check(answer({**HAND, "box_2d": box}), [Defect(meant, "artifact", "A fused hand.", 40)], *repairs)


@pytest.mark.parametrize(
    "box",
    [
        [10, 20, 10, 40],
        [10, 20, 10.3, 40],
        [1100, 20, 1200, 40],
        [10, 20, 30],
        [10, 20, 30, 40, 50],
        [10, 20, 30, float("nan")],
        [10, 20, 30, True],
        [10, 20, 30, None],
        [10, 20, 30, "forty"],
        [10, 20, 30, [40]],
        "the hand",
        {"x0": 10},
        None,
    ],
    ids=str,
)
def test_an_item_without_a_box_with_area_is_dropped_and_counted(box):
    check(answer({**HAND, "box_2d": box}, DOG), [DOG_DEFECT], DROPPED_ITEM)


@pytest.mark.parametrize("label", ["blurry", "", None, 3, ["artifact"], {"artifact": 1}], ids=str)
def test_an_item_with_an_unknown_label_is_dropped_and_counted(label):
    check(answer({**HAND, "label": label}, DOG), [DOG_DEFECT], DROPPED_ITEM)


@pytest.mark.parametrize("item", [[1, 2, 3, 4], "none", 7, None, {}, {"note": "clean"}], ids=str)
def test_what_is_no_item_is_dropped_and_the_image_is_not_taken_for_clean(item):
    found = read(answer(item))
    assert (found.defects, found.status) == ((), Status.UNPARSEABLE)
    assert found.repairs.count(DROPPED_ITEM) == 1
    assert not found.is_clean


def test_each_occurrence_of_a_repair_is_named():
    odd = {**HAND, "box_2d": [30, 20, 10, 40]}
    check(
        answer(odd, odd, {**odd, "label": "?"}),
        [HAND_DEFECT, HAND_DEFECT],
        grammar.SWAPPED_CORNERS,
        grammar.SWAPPED_CORNERS,
        DROPPED_ITEM,
    )


@pytest.mark.parametrize("label", ["Artifact", " artifact ", "ARTIFACTS", "artefact"])
def test_labels_in_another_spelling(label):
    check(answer({**HAND, "label": label}), [HAND_DEFECT], grammar.LABEL_SPELLING)


def test_the_label_both_becomes_one_defect_of_each_type():
    twin = Defect((10, 20, 30, 40), "misalignment", "A fused hand.", 40)
    check(answer({**HAND, "label": "both"}), [HAND_DEFECT, twin], grammar.LABEL_BOTH)


@pytest.mark.parametrize("alias", ["bbox", "bbox_2d", "desc", "Importance"])
def test_keys_under_another_name(alias):
    key = {"bbox": "box_2d", "bbox_2d": "box_2d", "desc": "description", "Importance": "importance"}[alias]
    item = {alias if name == key else name: value for name, value in HAND.items()}
    check(answer(item), [HAND_DEFECT], grammar.KEY_ALIAS)


def test_another_spelling_of_a_key_does_not_hide_it():
    item = {**HAND, "Label": "none", "IMPORTANCE": 3}
    assert parse_response(answer(item)).defects == (HAND_DEFECT,)


def test_a_number_followed_by_many_blanks_is_read_in_a_moment():
    item = {**HAND, "importance": "1" + " " * 200_000 + "x"}
    assert parse_response(answer(item)).defects[0].importance is None


def test_a_well_named_key_counts_before_its_alias():
    check(answer({**HAND, "desc": "Something else."}), [HAND_DEFECT], status=Status.OK)


@pytest.mark.parametrize(
    ("importance", "meant", "repairs"),
    [
        (41.6, 42, [grammar.ROUNDED_IMPORTANCE]),
        ("42", 42, [grammar.NUMBER_AS_TEXT]),
        ("42/100", 42, [grammar.NUMBER_AS_TEXT]),
        (0, 1, [grammar.CLAMPED_IMPORTANCE]),
        (250, 100, [grammar.CLAMPED_IMPORTANCE]),
        (float("inf"), 100, [grammar.ROUNDED_IMPORTANCE, grammar.CLAMPED_IMPORTANCE]),
        ("high", None, [grammar.UNREADABLE_IMPORTANCE]),
        (True, None, [grammar.UNREADABLE_IMPORTANCE]),
        ([40], None, [grammar.UNREADABLE_IMPORTANCE]),
        (float("nan"), None, [grammar.UNREADABLE_IMPORTANCE]),
    ],
)
def test_importance_is_mended_or_missing(importance, meant, repairs):
    expected = Defect((10, 20, 30, 40), "artifact", "A fused hand.", meant)
    check(answer({**HAND, "importance": importance}), [expected], *repairs)


@pytest.mark.parametrize("reason", [0, 7, ["a"], {"text": "a"}, False])
def test_a_reason_that_is_no_text_is_empty(reason):
    expected = Defect((10, 20, 30, 40), "artifact", "", 40)
    check(answer({**HAND, "description": reason}), [expected], grammar.UNREADABLE_REASON)
