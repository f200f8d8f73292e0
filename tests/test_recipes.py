"""Recipes: what is accepted, what is refused, and with which sentence."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from sdg.errors import SdgError
from sdg.recipes import load_recipe, parse_recipe, to_document


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
        ("a: 2024-99-99", [], "not valid YAML: month must be in 1..12"),
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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SdgError, match=r"none\.yaml cannot be read as a recipe"):
        load_recipe(Schema, tmp_path / "none.yaml")


def test_a_recipe_survives_being_written_out(tmp_path: Path) -> None:
    one = recipe(tmp_path)
    assert parse_recipe(Schema, to_document(one)) == one


def test_reading_a_recipe_does_not_load_torch() -> None:
    code = "import sys, sdg.recipes; assert 'torch' not in sys.modules and 'yaml' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_override_leaves_what_shares_an_alias_as_it_is(tmp_path: Path) -> None:
    text = "learning_rate: 1\nlora: {r: 1}\nitems: [&one {name: a, weight: 1}, *one]\n"
    found = recipe(tmp_path, text, "items.0.weight=5")
    assert [item.weight for item in found.items] == [5, 1]
    merged = "base: &base {r: 3}\nlearning_rate: 1\nlora:\n  <<: *base\n"
    with pytest.raises(SdgError, match="'base' is no key"):
        recipe(tmp_path, merged)
