"""Recipes: what is accepted, what is refused, and with which sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from sdg.alignment.recipe import AlignRecipe
from sdg.errors import SdgError
from sdg.recipes import RENAMED, load_recipe, parse_recipe, to_document
from sdg.training.recipe import GrpoRecipe, SftRecipe

RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class Lora:
    r: int
    alpha: float = 1.0
    targets: tuple[str, ...] = ("to_q",)


@dataclass(frozen=True)
class Item:
    name: str
    weight: float | None = None


@dataclass(frozen=True)
class Schema:
    learning_rate: float
    lora: Lora
    method: Literal["boxflow", "flow-grpo"] = "boxflow"
    out: Path | None = None
    resume: bool = False
    items: tuple[Item, ...] = ()
    extra: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError("learning_rate is above 0.")


TEXT = """
learning_rate: 3e-4
lora: {r: 64, alpha: 128, targets: [to_q, to_k]}
out: runs/one
items:
  - {name: clip, weight: 0.5}
  - name: pick
extra: {a: 1}
"""


def recipe(tmp_path: Path, text: str = TEXT, *overrides: str) -> Schema:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(Schema, path, overrides)


def test_a_recipe_is_read_into_its_types(tmp_path: Path) -> None:
    assert recipe(tmp_path) == Schema(
        learning_rate=0.0003,  # which YAML itself reads as text
        lora=Lora(64, 128.0, ("to_q", "to_k")),
        out=Path("runs/one"),
        items=(Item("clip", 0.5), Item("pick")),
        extra={"a": 1.0},
    )


def test_any_key_can_be_overridden_also_in_lists_and_missing_sections(tmp_path: Path) -> None:
    changed = recipe(
        tmp_path, "learning_rate: 1", "lora.r=8", "items=[{name: a}]", "items.0.weight=2", "out=null",
        "method=flow-grpo", "resume=true", "learning_rate=1e-5",
    )  # fmt: skip
    assert changed == Schema(1e-5, Lora(8), "flow-grpo", None, True, (Item("a", 2.0),))


def test_every_fault_is_named_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    text = "learning_rat: 1\nlora: {r: 1.5, alpa: 2}\nmethod: boxfow\nitems: [{weight: x}]\nresume: 1"
    with pytest.raises(SdgError) as caught:
        recipe(tmp_path, text)
    message = str(caught.value)
    for part in (
        "recipe.yaml",
        "'learning_rat' is no key (did you mean learning_rate?)",
        "learning_rate is missing",
        "'alpa' is no key in lora (did you mean alpha?)",
        "lora.r is a whole number, not 1.5",
        "method is boxflow or flow-grpo, not 'boxfow'",
        "items.0.name is missing",
        "items.0.weight is a number, not 'x'",
        "resume is true or false, not 1",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "overrides", "sentence"),
    [
        ("learning_rate: -1\nlora: {r: 1}", [], "learning_rate is above 0"),
        ("learning_rate: .nan\nlora: {r: 1}", [], "learning_rate is a number"),
        ("learning_rate: true\nlora: {r: 1}", [], "learning_rate is a number"),
        ("a: 1\na: 2", [], "'a' stands twice"),
        ("a: [", [], "not valid YAML at line 1"),
        ("a: !!int [1]", [], "not valid YAML at line 1: expected a scalar node"),
        ("learning_rate: 2024-99-99\nlora: {r: 1}", [], "learning_rate is a number, not '2024-99-99'"),
        ("[" * 5000, [], "nested too deeply"),
        ("learning_rate: " + "9" * 400 + "\nlora: {r: 1}", [], "learning_rate is a number"),
        ("- 1", [], "is no recipe"),
        ("lora: 3\nlearning_rate: 1", [], "lora holds keys with values, not 3"),
        (TEXT, ["lora.r"], "write --set section.key=value"),
        (TEXT, ["items.7.name=a"], "a list of 2"),
        (TEXT, ["learning_rate.x=a"], "has no keys"),
        (TEXT, ["lora.rr=1"], "did you mean r?"),
        ("", [], "learning_rate is missing"),
        (TEXT, ["extra=3"], "extra is a set of names with values"),
        (TEXT, ["items=a"], "items is a list, not 'a'"),
        (TEXT, ["out=3"], "out is a path, not 3"),
    ],
)
def test_a_bad_recipe_is_refused_with_a_sentence(
    tmp_path: Path, text: str, overrides: list[str], sentence: str
) -> None:
    with pytest.raises(SdgError, match=sentence.replace("?", r"\?").replace("[", r"\[")):
        recipe(tmp_path, text, *overrides)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_of_an_earlier_release_is_refused_with_its_new_name(old: str, new: str) -> None:
    path = RECIPES / "align" / "boxflow-testbed.yaml"
    with pytest.raises(SdgError, match=re.escape(f"{old} is called {new} now")):
        load_recipe(AlignRecipe, path, [f"{old}=1"])
    value = to_document(load_recipe(AlignRecipe, path))
    for key in new.split("."):
        value = value[key]


@pytest.mark.parametrize(("schema", "name"), [(SftRecipe, "sft-testbed"), (GrpoRecipe, "grpo-testbed")])
def test_detectors_too_are_trained_by_an_optimizer(schema: type, name: str) -> None:
    with pytest.raises(SdgError, match="optimiser is called optimizer now"):
        load_recipe(schema, RECIPES / "detector" / f"{name}.yaml", ["optimiser.learning_rate=1"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SdgError, match=r"none\.yaml cannot be read as a recipe"):
        load_recipe(Schema, tmp_path / "none.yaml")


def test_a_recipe_survives_being_written_out(tmp_path: Path) -> None:
    one = recipe(tmp_path)
    assert parse_recipe(Schema, to_document(one)) == one


def test_reading_a_recipe_does_not_load_torch() -> None:
    code = "import sys, sdg.recipes; assert 'torch' not in sys.modules and 'yaml' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB, "at line 1: anchors and aliases are not read"),
        ("lora: *one", "anchors and aliases are not read"),
        ("lora: &one {r: 1}", "anchors and aliases are not read"),
        ("lora: {<<: {r: 1}}", "'<<' is no key in lora"),
        ("a: " + "[" * 30 + "]" * 30, "it is nested too deeply"),
        ("\n".join(" " * n + "a:" for n in range(60)), "it is nested too deeply"),
        ("? {a: 1}\n: 2", "a key is a plain value"),
        ("? [a]\n: 2", "a key is a plain value"),
        ("a: !!timestamp x", "the tag 'tag:yaml.org,2002:timestamp' is not read"),
        ("a: !!timestamp 2020-01-01", "is not read; write a plain value"),
        ("a: !!binary eA==", "is not read"),
        ("a: !!set {x}", "is not read"),
        ("a: !!python/name:os.system ''", "is not read"),
        ("a: !!python/object/apply:os.getpid []", "is not read"),
        ("a: !mine x", "the tag '!mine' is not read"),
        ("a: !!bool maybe", "'maybe' is not of the kind bool"),
        ("a: !!bool ''", "is not of the kind bool"),
        ("a: !!int ''", "'' is not of the kind int"),
        ("a: !!int x", "'x' is not of the kind int"),
        ("a: !!int '-'", "is not of the kind int"),
        ("a: !!int 0x", "is not of the kind int"),
        ("a: !!int 1:x", "is not of the kind int"),
        ("a: !!float ''", "'' is not of the kind float"),
        ("a: !!float x", "'x' is not of the kind float"),
        ("a: !!map [1]", "is not of the kind map"),
        ("a: !!seq {b: 1}", "expected a sequence node"),
        ("a: \x00", "special characters are not allowed"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("%YAML 9.9\n--- a", "found incompatible YAML document"),
        ("x: " + "y" * 200_000, "more than 131,072 bytes"),
    ],
)
def test_what_a_recipe_has_no_use_for_is_refused_at_once(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SdgError) as caught:
        recipe(tmp_path, text)
    assert sentence in str(caught.value)
    override = text.partition(": ")[2]
    if "\n" not in text and "<<" not in text:
        with pytest.raises(SdgError):
            recipe(tmp_path, TEXT, f"learning_rate={override}")


@pytest.mark.parametrize("text", ["!!int 3", "!!str 3", "!!float 3", "!!null ''", "!!bool true", "3"])
def test_the_core_tags_are_read(tmp_path: Path, text: str) -> None:
    wanted = {"!!str 3": "3", "!!null ''": None, "!!bool true": True}.get(text, 3)
    (tmp_path / "recipe.yaml").write_text(f"a: {text}")

    @dataclass(frozen=True)
    class Anything:
        a: Any

    assert load_recipe(Anything, tmp_path / "recipe.yaml").a == wanted


LONG = "y" * 5000


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("items.²=1", "a list of 2; name an item by its number, from 0"),
        ("items.٠=1", "a list of 2"),
        ("items.-1=1", "a list of 2"),
        ("items." + "9" * 5000 + "=1", "a list of 2"),
        (f"{LONG}=1", "is no key"),
        (f"lora.{LONG}=1", "is no key in lora"),
        (f"method={LONG}", "method is boxflow or flow-grpo, not 'yyy"),
        (f"lora={LONG}", "lora holds keys with values, not 'yyy"),
        (f"lora.r={LONG}", "lora.r is a whole number, not 'yyy"),
        ("lora.r=" + "9" * 5000, "is not of the kind int"),
        ("lora.r=0x" + "f" * 5000, "lora.r is a whole number, not a value too large to show"),
        ("lora.r=1" + "0" * 30, "lora.r is a whole number, not 1000"),
        ("lora.r=" + ":".join(["59"] * 3000), "lora.r is a whole number"),
        ("learning_rate=1e999", "learning_rate is a number, not inf"),
        ("learning_rate=0x" + "f" * 5000, "learning_rate is a number, not a value too large"),
        ("lora.r=[" + "1," * 500 + "]", "lora.r is a whole number, not [1, 1"),
        (LONG, "has no effect; write --set section.key=value"),
        (".".join(["a"] * 999) + "=1", "is longer than any recipe"),
        ("a=" + "y" * 200_000, "is longer than any recipe"),
        (f"learning_rate.{LONG}=a", "learning_rate is a value and has no keys"),
        ('out="\\0"', "out is a path, not '\\x00'"),
        ('out="\\x1b[31m"', ""),
        ("out=\x1b", "special characters are not allowed"),
        (f"extra={{{LONG[:900]}: a}}", "extra.yyy"),
        ("extra={1: 2}", "extra is a set of names with values, not {1: 2}"),
    ],
)
def test_a_fault_of_a_value_is_a_sentence_of_at_most_three_hundred_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(TEXT)
    if not sentence:
        assert load_recipe(Schema, "recipe.yaml", [override]).out == Path("\x1b[31m")
        return
    with pytest.raises(SdgError) as caught:
        load_recipe(Schema, "recipe.yaml", [override])
    said = str(caught.value)
    assert sentence in said
    assert len(said) <= 300
    assert said.isprintable()
    assert said.endswith(".")


def test_of_very_many_faults_the_first_are_named(tmp_path: Path) -> None:
    with pytest.raises(SdgError, match=r"'k19' is no key .*; and 4,982 more\.$"):
        recipe(tmp_path, "\n".join(f"k{number}: 1" for number in range(5000)))


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "x/" * 3000])
def test_a_name_that_no_file_has_is_said(name: str) -> None:
    with pytest.raises(SdgError, match="cannot be read as a recipe"):
        load_recipe(Schema, name)
