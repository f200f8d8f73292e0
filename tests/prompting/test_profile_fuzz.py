"""Profiles spoiled in any way: they are read, or one short sentence says why they are not."""

import random
from collections import Counter

import pytest
from fuzz import budget, mutate, report

from sdg.errors import SdgError
from sdg.prompting import PromptProfile

PROFILES = [
    """name = "release"
system = "Look."
template_from = { file = "prepare.py", constant = "PROMPT" }
image = { min_pixels = 200704, max_pixels = 1280000 }
generation = { max_new_tokens = 4096, temperature = 0.7 }
""",
    '''template = """Look at {{this}}: <caption>"""
placeholder = "<caption>"
doubled_braces = true
[answer]
steps = [1, 3]
importance = false
[generation]
seed = 3
''',
]
SOURCE = 'HEAD = "Look at {caption}. "\nPROMPT = HEAD + "Say what is wrong.".strip()\nPROMPT += " Now."\n'
PIECES = [
    *"[]{}=.,#'\"\\\n \t",
    *('"""', "'''", "[[a]]\n", "a.b.c = 1\n", "nan", "-inf", "0x" + "f" * 5000, "9" * 30, "9" * 5000),
    *(
        "2020-01-01",
        "true",
        "\\u0000",
        "\\ud800",
        "\x1b",
        "é",
        "template",
        "[image]\n",
        "-1",
        "1e400",
        "()",
        "+",
    ),
]


@pytest.mark.parametrize("spoiled", ["sdg_profile.toml", "prepare.py"])
def test_profiles_spoiled_in_any_way(tmp_path, monkeypatch, spoiled):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(spoiled)
    seen = Counter()
    for number in range(budget(1_000)):
        texts = {"prepare.py": SOURCE, "sdg_profile.toml": PROFILES[number % len(PROFILES)]}
        texts[spoiled] = mutate(texts[spoiled], rng, PIECES, most=8000)
        for name, text in texts.items():
            (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            profile = PromptProfile.load("sdg_profile.toml")
        except SdgError as error:
            said = str(error)
            assert len(said) <= 300 * (1 + said.count("; ")), said
            assert said.isprintable(), said
            seen["refused"] += 1
        else:
            assert "a cup" in profile.user_text("a cup")
            assert len(profile.digest) == 64
            width, height = profile.image.fit(640, 480)
            assert 0 < width * height < 2**27
            seen["read"] += 1
    report(f"profiles with a spoiled {spoiled}", seen)
    assert min(seen.values()) > budget(1_000) / 100
