"""Prompt profiles: what is said to the model, read from files that are never executed, and checked whole."""

import dataclasses
import re
import subprocess
import sys
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.defects import SUBTYPES, TIER_FLOORS, Defect, Diagnosis
from sdg.errors import SdgError
from sdg.prompting import PROFILE_FILE, AnswerParts, Generation, ImageLimits, PromptProfile, trim_reasoning
from sdg.response import format_fault, parse_response, render_response

WRITTEN = """
name = "mine"
system = ""
template = '''Look at "{caption}" and answer [{"box_2d": []}].'''

[answer]
steps = [2, 3]
importance = false

[image]
max_pixels = 1280000
min_pixels = 200704

[generation]
max_new_tokens = 512
temperature = 1
top_p = 0.85
"""


def write(folder, text, name="profile.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def user_text(profile, caption):
    return profile.render(caption)[-1]["content"][1]["text"]


# --- messages ---


def test_messages_are_a_system_turn_and_a_user_turn_with_the_image_first():
    profile = PromptProfile(template="Caption: {caption}")
    assert profile.render("a cat") == [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Caption: a cat"}]},
    ]
    assert [turn["role"] for turn in PromptProfile(system="").render("a cat")] == ["user"]


def test_an_image_mark_at_the_beginning_of_a_template_is_dropped():
    assert user_text(PromptProfile(template="<image>\nCaption: {caption}"), "a cat") == "\nCaption: a cat"
    assert user_text(PromptProfile(template="{caption}"), "<image>") == "<image>"


@given(st.text())
def test_captions_go_in_as_they_are(caption):
    profile = PromptProfile(template='{"a": {}} {caption} {caption}')
    assert user_text(profile, caption) == '{"a": {}} ' + caption + " " + caption


@pytest.mark.parametrize(
    "caption", ["{caption}", "{{caption}}", "{0} {x!r} %s $caption \\1 \\g<0>", "{", "}}"]
)
def test_a_caption_that_looks_like_a_placeholder_stays_text(caption):
    assert user_text(PromptProfile(template="<{caption}>"), caption) == f"<{caption}>"
    doubled = PromptProfile(template="{{<{caption}>}}", doubled_braces=True)
    assert user_text(doubled, caption) == f"{{<{caption}>}}"


@given(
    st.lists(st.sampled_from(["{{", "}}", "{caption}", "a", "{{{caption}}}", ": "]), max_size=8), st.text()
)
def test_doubled_braces_mean_what_they_mean_to_str_format(pieces, caption):
    template = "".join([*pieces, "{caption}"])
    profile = PromptProfile(template=template, doubled_braces=True)
    assert user_text(profile, caption) == template.format(caption=caption)


def test_another_placeholder():
    profile = PromptProfile(template="{caption} <PROMPT>", placeholder="<PROMPT>")
    assert user_text(profile, "a cat") == "{caption} a cat"


def test_misuse_is_refused():
    with pytest.raises(ValueError, match=r"no \{caption\}"):
        PromptProfile(template="Look!")
    with pytest.raises(ValueError, match=r"no \{caption\}"):
        PromptProfile(template="Q: {{caption}}", doubled_braces=True)
    with pytest.raises(ValueError, match="cannot be empty"):
        PromptProfile(template="Look!", placeholder="")
    with pytest.raises(SdgError, match="prompt is text"):
        PromptProfile().render(None)


# --- the default wording ---


def test_the_default_wording_says_everything_in_order():
    text = user_text(PromptProfile(), "A CAT")
    landmarks = [
        "You inspect",
        "artifact:",
        "misalignment:",
        "A CAT",
        "Find every defect",
        "<think>…</think>, then <answer>…</answer>",
        "Step 1: Caption Understanding",
        "Step 2: Visual Analysis",
        "Step 3: Localization",
        '"box_2d"',
        "90–100 critical",
        "18 to 45 words",
    ]
    positions = [text.index(landmark) for landmark in landmarks]
    assert positions == sorted(positions)
    assert text.count("A CAT") == 1
    assert "{extra}" not in text
    assert all(name in text for names in SUBTYPES.values() for name in names)
    floors = [int(low) for low in re.findall(r"^- (\d+)–\d+ ", text, re.MULTILINE)]
    assert floors == list(TIER_FLOORS.values())


@pytest.mark.parametrize(
    ("parts", "absent"),
    [
        (AnswerParts(steps=(2, 3)), ["Step 1"]),
        (AnswerParts(steps=(1, 2)), ["Step 3", "Localization"]),
        (AnswerParts(description=False), ["description", "18 to 45", "why it is one"]),
        (AnswerParts(importance=False), ["importance", "Importance", "critical", "how much it hurts"]),
        (AnswerParts(think=False), ["think", "Step"]),
    ],
)
def test_an_ablation_does_not_mention_what_it_leaves_out(parts, absent):
    text, full = (user_text(PromptProfile(answer=answer), "a cat") for answer in (parts, AnswerParts()))
    assert [word for word in absent if word in text] == []
    assert all(word in full for word in absent)
    kept = {"Step 1", "Step 2", "Step 3", "description", "importance", "<think>", "<answer>", "box_2d"}
    gone = {word for word in kept if any(part in word or word in part for part in absent)}
    assert all(word in text for word in kept - gone)


def test_the_example_of_the_wording_is_the_wire_format():
    for parts in (AnswerParts(), AnswerParts(description=False), AnswerParts(importance=False)):
        text = user_text(PromptProfile(answer=parts), "a cat")
        example = text[text.index("[\n  {") : text.index("\n]\n") + 3]
        assert format_fault(f"<think></think><answer>{example}</answer>", **parts.gate()) is None


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("description", [True, False])
@pytest.mark.parametrize("importance", [True, False])
def test_what_a_profile_renders_passes_the_gate_it_asks_for(think, description, importance):
    parts = AnswerParts(think=think, description=description, importance=importance)
    diagnosis = Diagnosis((Defect((1, 2, 3, 4), "artifact", "A fused hand.", 40),), "Hm.")
    text = render_response(diagnosis, **parts.rendering())
    assert format_fault(text, **parts.gate()) is None
    assert (format_fault(text) is None) == (think and description and importance)
    assert parse_response(text, require_think=think).status == "ok"


def test_without_the_think_block_there_are_no_steps():
    assert AnswerParts(think=False).steps == ()
    for steps in ((), (2, 1), (1, 1), (4,)):
        with pytest.raises(ValueError, match="1, 2, 3"):
            AnswerParts(steps=steps)


def test_reasoning_is_trimmed_to_the_steps_asked_for():
    one, two, three = (
        "### Step 1: Caption\n- a\n\n",
        "### Step 2: Spots\n- Step 3 of a stair\n\n",
        "**Step 3**\n- b",
    )
    full = one + two + three
    assert trim_reasoning(full, (1, 2, 3)) == full
    assert trim_reasoning(full, (2, 3)) == two + three
    assert trim_reasoning(full, (1, 2)) == (one + two).rstrip()
    assert trim_reasoning(full, (1, 3)) == one + three
    assert trim_reasoning("Hm.\n" + full, (3,)) == "Hm.\n" + three
    assert trim_reasoning("The hand is odd.", (1,)) == "The hand is odd."


# --- limits ---


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(10**6, 10**7),
    st.none() | st.integers(1, 4000),
)
def test_fitted_sizes_keep_limits_and_shape(width, height, low, high, side):
    limits = ImageLimits(low, high, side)
    w, h = limits.fit(width, height)
    if high and min(w, h) > 1:
        assert w * h <= high
    if side:
        assert max(w, h) <= side
    elif low:
        assert (w + 1) * (h + 1) > low
    # Some scale gives both sides up to a pixel each.
    assert (w - 1) / width <= (h + 1) / height
    assert (h - 1) / height <= (w + 1) / width


def test_worked_sizes():
    assert ImageLimits().fit(3000, 2000) == (3000, 2000)
    assert ImageLimits(longest_side=1024).fit(3000, 2000) == (1024, 682)
    assert ImageLimits(longest_side=1024).fit(1024, 1024) == (1024, 1024)
    assert ImageLimits(longest_side=1024).fit(512, 300) == (512, 300)
    assert ImageLimits(max_pixels=1_000_000).fit(2000, 2000) == (1000, 1000)
    assert ImageLimits(min_pixels=200_704).fit(224, 224) == (448, 448)
    assert ImageLimits(min_pixels=200_704, longest_side=300).fit(224, 224) == (300, 300)


@pytest.mark.parametrize(
    "build",
    [
        lambda: ImageLimits(max_pixels=0),
        lambda: ImageLimits(min_pixels=10, max_pixels=9),
        lambda: Generation(max_new_tokens=0),
        lambda: Generation(temperature=-0.1),
        lambda: Generation(temperature=float("nan")),
        lambda: Generation(temperature=float("inf")),
        lambda: Generation(top_p=0),
        lambda: Generation(top_p=1.01),
        lambda: Generation(seed=-1),
    ],
)
def test_impossible_limits_are_refused(build):
    with pytest.raises(ValueError, match=r"not|above"):
        build()


# --- files ---


def test_a_written_profile(tmp_path):
    profile = PromptProfile.load(write(tmp_path, WRITTEN))
    assert profile == PromptProfile(
        name="mine",
        system="",
        template='Look at "{caption}" and answer [{"box_2d": []}].',
        answer=AnswerParts(steps=(2, 3), importance=False),
        image=ImageLimits(min_pixels=200704, max_pixels=1280000),
        generation=Generation(512, 1.0, 0.85),
    )


def test_a_file_with_nothing_but_a_name_is_the_default(tmp_path):
    assert PromptProfile.load(write(tmp_path, 'name = "default"')) == PromptProfile()


@pytest.mark.parametrize(
    "profile",
    [
        PromptProfile(),
        PromptProfile(answer=AnswerParts(think=False, importance=False)),
        PromptProfile(image=ImageLimits(), generation=Generation(7, 0.3, 0.85, 3)),
        PromptProfile(template='"""\r\n\t{caption} \\ \x00 é 😀\r\n', doubled_braces=True, system="a\nb"),
        PromptProfile(template="  <P>\n\n\n", placeholder="<P>", system=""),
    ],
)
def test_a_profile_travels_with_its_checkpoint(tmp_path, profile):
    path = profile.save(tmp_path / "checkpoint")
    assert path == tmp_path / "checkpoint" / PROFILE_FILE
    again = PromptProfile.load(tmp_path / "checkpoint")
    assert again == profile == PromptProfile.load(path)
    assert again.digest == profile.digest
    assert tomllib.loads(path.read_text(encoding="utf-8"))["template"] == profile.template
    assert list(path.parent.iterdir()) == [path]


def test_the_digest_tells_profiles_apart():
    base = PromptProfile()
    others = [
        dataclasses.replace(base, template=base.template + " "),
        dataclasses.replace(base, generation=Generation(temperature=0.1)),
        dataclasses.replace(base, image=ImageLimits()),
        PromptProfile(answer=AnswerParts(steps=(1, 2))),
    ]
    digests = {profile.digest for profile in [base, *others]}
    assert len(digests) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    assert PromptProfile().digest == base.digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('templete = "{caption}"', "did you mean template"),
        ("[generation]\nmax_tokens = 5", "did you mean max_new_tokens"),
        ("[answer]\nimportence = false", "did you mean importance"),
        ("[answer]\nsteps = [0]", "1, 2, 3"),
        ("[answer]\nthink = 1", "true or false"),
        ("[image]\nmax_pixels = 0", "at least 1"),
        ("[generation]\ntemperature = inf", "a number"),
        ('template = "Look!"', "no {caption}"),
        ("template = 3", "text"),
        ('template = "{caption}"\ntemplate_from = {file = "a.py", constant = "A"}', "keep one"),
        ('template_from = {file = "a.py"}', "constant is missing"),
        ('template_from = {file = "a.py", constant = "A", x = 1}', "no key"),
        ('template_from = {file = "nowhere.py", constant = "A"}', "does not exist"),
        ("name = ", "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("", "is empty"),
        ("a" + ".a" * 30_000 + " = 1", "a key of more than 16 parts"),
        ("[" + "'a' . " * 10_000 + "a]", "a key of more than 16 parts"),
        ('x = {"a"' + '."a b"' * 5_000 + " = 1}", "a key of more than 16 parts"),
        ("x = " + "{a = " * 5000, "not valid TOML"),
        ("x = " + "9" * 5000, "not valid TOML"),
        ("# " + "x" * 200_000, "is larger than the 131,072 bytes"),
        ("[generation]\nseed = 0x" + "f" * 5000, "a whole number, not a value too large to show"),
        ("[generation]\nseed = 2020-01-01", "a whole number, not datetime.date"),
        ("[generation]\nmax_new_tokens = " + "9" * 30, "a whole number, not 9999"),
        ("[image]\nmin_pixels = 1000000000", "min_pixels is at most 67108864"),
        ("name = [" + "[" * 200 + "]" * 200 + "]", "name is text, not [[[["),
        ("image = 3", "image holds keys with values, not 3"),
        ("[[image]]\nmax_pixels = 3", "image holds keys with values, not [{"),
        ("y" * 5000 + " = 1", "is no key"),
        ('"\\u001b[31m" = 1', "'\\x1b[31m' is no key"),
        ('template_from = {file = "\\u0000", constant = "A"}', "file is a path, not '\\x00'"),
    ],
)
def test_faults_of_a_file_are_one_sentence(tmp_path, text, said):
    with pytest.raises(SdgError, match=re.escape(said)) as error:
        PromptProfile.load(write(tmp_path, text))
    assert str(error.value).endswith(".")
    assert str(error.value).isprintable()
    assert len(str(error.value)) <= 300


def test_a_template_of_many_points_is_no_long_key(tmp_path):
    text = "Look..... at a.b, www.a.example/x.html, 1.2.3, and so on. {caption}" + "\na. b. c. " * 40
    assert PromptProfile.load(write(tmp_path, f'template = """{text}"""')).template == text


def test_a_folder_without_a_profile_says_what_to_do(tmp_path):
    with pytest.raises(SdgError, match=r"holds no sdg_profile\.toml; put the profile there"):
        PromptProfile.load(tmp_path)
    with pytest.raises(SdgError, match="does not exist"):
        PromptProfile.load(tmp_path / "nowhere.toml")
    with pytest.raises(SdgError, match="half a character"):
        PromptProfile(template="{caption}\ud800").save(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- constants of Python files ---

SOURCE = r'''
import nowhere.to_be_found
from elsewhere import THING as OTHER

raise RuntimeError("this file must never be executed")

HEAD = "Look at the picture. "  # adjacent and added literals
BODY: str = ("Caption: {caption}\n" 'Answer with [{"box_2d": []}].'
             " \d")
PROMPT = HEAD + BODY
PADDED = """
  {caption}
""".strip()
GROWN = "a"
GROWN += "{caption}"
TWICE = f(1)
TWICE = "{caption}"
NUMBER = 3
FORMATTED = f"{HEAD}{{caption}}"
LOADED = open("prompt.txt").read()
JOINED = HEAD + OTHER
FIRST, SECOND = "{caption}", "b"
if NUMBER:
    HIDDEN = "{caption}"
    REPLACED = "b"
BEFORE = "{caption}"
while BEFORE:
    BEFORE = BEFORE[1:]
def FUNCTION(): ...
'''


@pytest.mark.parametrize(
    ("constant", "text"),
    [
        ("PROMPT", 'Look at the picture. Caption: {caption}\nAnswer with [{"box_2d": []}]. \\d'),
        ("BODY", 'Caption: {caption}\nAnswer with [{"box_2d": []}]. \\d'),
        ("PADDED", "{caption}"),
        ("GROWN", "a{caption}"),
        ("TWICE", "{caption}"),
    ],
)
def test_a_template_is_read_out_of_a_file_that_would_raise_if_executed(tmp_path, constant, text):
    source = tmp_path / "data"
    source.mkdir()
    write(source, SOURCE, "prepare.py")
    path = write(tmp_path, f'template_from = {{file = "data/prepare.py", constant = "{constant}"}}')
    profile = PromptProfile.load(path)
    assert profile.template == text
    profile.save(tmp_path / "checkpoint")
    assert PromptProfile.load(tmp_path / "checkpoint") == profile  # without the Python file


@pytest.mark.parametrize(
    "constant", ["NUMBER", "FORMATTED", "LOADED", "JOINED", "FIRST", "HIDDEN", "BEFORE", "OTHER", "FUNCTION"]
)
def test_what_only_running_the_file_could_tell_is_refused(tmp_path, constant):
    write(tmp_path, SOURCE, "prepare.py")
    path = write(tmp_path, f'template_from = {{file = "prepare.py", constant = "{constant}"}}')
    with pytest.raises(SdgError, match=f"{constant} in .*prepare.py is not constant text"):
        PromptProfile.load(path)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (SOURCE, "no constant MISSING at its top level; its text constants are HEAD, BODY"),
        ("x = 1", "it has no text constants"),
        ("def f(:", r"not valid Python \(line 1\)"),
        ("a = '\x00'", "not valid Python"),
        ("MISSING = " + " + ".join(["'a'"] * 20_000), "not valid Python"),
        ("MISSING = " + "(" * 50_000, "not valid Python"),
        ("MISSING = " + "-" * 100_000 + "1", "not valid Python"),
        ("# " + "x" * 300_000, "is larger than"),
        ("MISSING = 'aaaaaaaa'" + "\nMISSING += MISSING" * 60, "is not constant text"),
    ],
    ids=["other names", "no names", "syntax", "null", "too deep", "brackets", "minus", "large", "doubled"],
)
def test_a_python_file_without_the_constant(tmp_path, source, said):
    write(tmp_path, source, "prepare.py")
    path = write(tmp_path, 'template_from = {file = "prepare.py", constant = "MISSING"}')
    with pytest.raises(SdgError, match=said):
        PromptProfile.load(path)


def test_asking_needs_no_deep_learning():
    heavy = ("torch", "transformers", "tomli_w")
    code = f"import sdg.prompting, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
