import json

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from sdg import Defect, Diagnosis, parse_response
from sdg.prompting.teaching import JOBS, Question
from sdg.teacher.acceptance import Unacceptable, accepted, english_check

CAPTION = "A ballerina with 300 red ribbons, annotated in chalk"
GIVEN = Diagnosis(
    (
        Defect((120, 80, 317, 263), "artifact", "fused fingers"),
        Defect((500, 404, 911, 880), "misalignment", "only two ribbons"),
    )
)
REASONS = (
    "The fingers of the dancer's raised left hand melt into one another, so that only three tips can be told "
    "apart, and none of them has a nail.",
    "The caption asks for hundreds of red ribbons around the skirt, yet only two of them hang there, and the "
    "rest of the skirt is plain white cloth.",
)
TRACE = (
    "### Step 1: Caption Understanding\nA dancer with red ribbons, 300 of them, annotated in chalk.\n\n"
    "### Step 2: Visual Analysis & Defect Spotting\nThe raised hand is malformed, an artifact. There are two "
    "ribbons instead of hundreds, a misalignment.\n\n"
    "### Step 3: Localization\n"
    "- artifact: the fingers of the raised hand, in the upper left quarter, small\n"
    "- misalignment: the skirt, right of the middle, large"
)


@pytest.fixture(scope="module")
def is_english():
    return english_check()


def items(**changed):
    texts = {"description": REASONS, "importance": (72, 45), "tier": ("major", "moderate")}
    listed = [
        {"box_2d": list(defect.box), "label": defect.type.value}
        | {key: values[at] for key, values in texts.items()}
        for at, defect in enumerate(GIVEN.defects)
    ]
    for key, value in changed.items():
        listed[0][key] = value
    return listed


def answer(listed, trace=TRACE):
    return f"<think>\n{trace}\n</think>\n<answer>\n{json.dumps(listed, ensure_ascii=False)}\n</answer>"


GOOD = answer(items())


def test_a_good_answer_brings_all_three(is_english):
    written = accepted(GOOD, GIVEN, CAPTION, Question(), is_english)
    assert (written.reasons, written.importances, written.reasoning) == (REASONS, (72, 45), TRACE)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>Let me look at box_2d [120, 80, 317, 263] first.</think>\n{GOOD}",
        f"Here you are:\n{GOOD}",
        GOOD.replace("<answer>\n", "<answer>\n```json\n").replace("\n</answer>", "\n```\n</answer>"),
        GOOD.replace("description", "desc"),
        answer([{**item, "box_2d": [float(c) for c in item["box_2d"]]} for item in items()]),
        answer([{key: value for key, value in item.items() if key != "tier"} for item in items()]),
        answer(items(description=f"  {REASONS[0]}\n")),
    ],
)
def test_what_is_right_is_kept_however_it_is_packed(is_english, text):
    written = accepted(text, GIVEN, CAPTION, Question(), is_english)
    assert (written.reasons, written.importances, written.reasoning) == (REASONS, (72, 45), TRACE)


GERMAN = (
    "Die Finger der erhobenen linken Hand der Tänzerin gehen ineinander über, sodass nur drei Spitzen zu "
    "erkennen sind, und keine davon hat einen Nagel."
)
CHINESE = "舞者举起的左手手指融合在一起 " * 9


@pytest.mark.parametrize(
    ("text", "kind", "fault"),
    [
        (answer(items()[:1]), "count", "Defects in the answer: 1; given: 2."),
        (answer([*items(), items()[0]]), "count", "Defects in the answer: 3"),
        (answer([]), "count", "Defects in the answer: 0"),
        (answer(items()[::-1]), "box", "Defect 1 has the box [500, 404, 911, 880]"),
        (answer(items(box_2d=[121, 80, 317, 263])), "box", "and [120, 80, 317, 263] was given"),
        (answer(items(box_2d=[80, 120, 263, 317])), "box", "Defect 1"),
        (answer(items(label="misalignment")), "label", "and artifact was given"),
        (answer(items(label="both")), "unreadable", ""),
        (answer(items(label="blur")), "unreadable", "unknown label"),
        (answer(items(description="The fingers are fused.")), "length", "has 4 words; write 18 to 45"),
        (answer(items(description="word " * 46)), "length", "has 46 words"),
        (answer(items(description=GERMAN)), "language", "description of defect 1 is not in English"),
        (answer(items(description=CHINESE)), "length", ""),
        (answer(items(description=f"{CHINESE} {CHINESE} a a")), "language", "is not in English"),
        (answer(items(description=REASONS[1])), "repeated", "defect 2 is the same sentence"),
        (answer(items(description=REASONS[0].replace("raised", "(120, 80)"))), "coordinates", ""),
        (answer(items(description=f"The annotator notes it. {REASONS[0]}")), "annotation", "annotator"),
        (answer(items(importance=0)), "unreadable", "importance in 1..100"),
        (answer(items(importance=None)), "importance", "Defect 1 has no importance"),
        (answer(items(importance=55.5)), "unreadable", ""),
        (answer(items(importance=95)), "tier", "importance 95, which is critical, not 'major'"),
        (GOOD[: GOOD.rindex("misalignment")], "cut off", "cut off before its end"),
        ("I cannot help with that.", "unreadable", ""),
        (GOOD[GOOD.index("<answer>") :], "steps", "needs step 1, step 2 and step 3"),
        (
            answer(items(), TRACE.replace("### Step 2", "### Next")),
            "steps",
            "needs step 1, step 2 and step 3",
        ),
        (
            answer(items(), TRACE.rpartition("\n")[0]),
            "steps",
            "the heading of step 3: 1; boxes: 2.",
        ),
        (answer(items(), TRACE.replace("- misalignment:", "- artifact:")), "steps", "another type"),
        (answer(items(), TRACE.replace("small", "from 120 to 317")), "coordinates", "coordinate 120"),
        (answer(items(), TRACE.replace("small", "[12, 8, 31, 26]")), "coordinates", "Step 3"),
        (answer(items(), TRACE.replace("small", "x0 = 12")), "coordinates", "Step 3"),
        (answer(items(), TRACE.replace("small", "119, 82")), "coordinates", "Step 3"),
        (answer(items(), TRACE.replace("small", "40% from the left")), "coordinates", "Step 3"),
        (answer(items(), TRACE.replace("malformed", "marked, see the given boxes")), "annotation", "Step 2"),
        (answer(items(), TRACE.replace("The raised", "As the note says the raised")), "annotation", ""),
        (answer(items(), TRACE.replace("The raised hand is malformed", GERMAN * 2)), "language", "Step 2"),
        (answer(items(), TRACE.replace("large", "word " * 1000)), "length", "more than 1000 words"),
    ],
)
def test_what_is_wrong_is_refused_with_its_fault(is_english, text, kind, fault):
    with pytest.raises(Unacceptable) as error:
        accepted(text, GIVEN, CAPTION, Question(), is_english)
    assert (error.value.kind, fault in str(error.value)) == (kind, True), str(error.value)


def test_an_answer_that_the_server_cut_off_is_refused_however_whole_it_looks(is_english):
    with pytest.raises(Unacceptable, match="cut off"):
        accepted(GOOD, GIVEN, CAPTION, Question(), is_english, cut_off=True)


CLEAN_TRACE = (
    "### Step 1: Caption Understanding\nA dancer with ribbons.\n### Step 2: Analysis\nEverything fits.\n"
    "### Step 3: Localization\n"
)


def test_a_clean_picture_has_a_trace_alone(is_english):
    text = answer([], f"{CLEAN_TRACE}No box.")
    written = accepted(text, Diagnosis(), CAPTION, Question(), is_english)
    assert (written.reasons, written.importances) == ((), ())


@pytest.mark.parametrize("end", ["Box 1: the hand", "No box.\nThe hand.", ""])
def test_the_trace_of_a_clean_picture_has_no_box(is_english, end):
    with pytest.raises(Unacceptable, match=r"[Ss]tep 3"):
        accepted(answer([], CLEAN_TRACE + end), Diagnosis(), CAPTION, Question(), is_english)


@pytest.mark.parametrize("job", JOBS)
def test_a_job_of_its_own_is_checked_for_itself_and_brings_nothing_else(is_english, job):
    asked = {"reasons": ("description",), "importance": ("importance",), "think": ()}[job]
    kept = {"box_2d", "label", *asked}
    listed = [{key: value for key, value in item.items() if key in kept} for item in items()]
    text = answer(listed) if job == "think" else answer(listed).partition("</think>\n")[2]
    written = accepted(text, GIVEN, CAPTION, Question((job,)), is_english)
    assert [written.reasons, written.reasoning, written.importances] == [
        REASONS if job == "reasons" else None,
        TRACE if job == "think" else None,
        (72, 45) if job == "importance" else None,
    ]


def test_a_question_shows_what_is_given_and_not_the_importance_that_is_asked_for():
    known = Diagnosis((Defect((120, 80, 317, 263), "artifact", "fused {caption} fingers", 97, "anatomy"),))
    text = Question().text("a {defects} cat", known)
    assert "a {defects} cat" in text
    assert (
        '{"box_2d": [120, 80, 317, 263], "label": "artifact", "description": "fused {caption} fingers"'
        in text
    )
    assert '"kind": "anatomy"' in text
    assert "97" not in text
    assert "97" in Question(("think",)).text("a cat", known)
    again = Question().text("a cat", known, ("my answer {fault}", "It was bad."))
    assert again.index("my answer {fault}") < again.index("It cannot be used. It was bad.")


def test_the_digest_tells_wordings_apart():
    digests = [Question().digest, Question(("think",)).digest, Question(words=(8, 45)).digest]
    assert len(set(digests)) == 3
    assert Question().digest == digests[0]


def test_the_example_in_the_tests_is_what_the_reader_takes():
    assert [defect.box for defect in parse_response(GOOD).defects] == [defect.box for defect in GIVEN.defects]


@examples(
    st.integers(0, len(GOOD)),
    st.integers(0, 40),
    st.text(max_size=20) | st.sampled_from(["<think>", "</answer>", "[]", "1e999", "\ud800", '"tier": 3']),
)
def test_a_spoiled_answer_is_refused_or_brings_one_text_and_number_a_defect(start, length, text):
    spoiled = GOOD[:start] + text + GOOD[start + length :]
    try:
        written = accepted(spoiled, GIVEN, CAPTION, Question(), lambda text: True)
    except Unacceptable:
        return
    assert len(written.reasons) == len(written.importances) == len(GIVEN.defects)
    assert all(1 <= importance <= 100 for importance in written.importances)
    assert all(18 <= len(reason.split()) <= 45 for reason in written.reasons)
