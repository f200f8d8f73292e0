"""What commands and recipes name of the testbed: prompts whose splits share nothing, and its models."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdg.detectors import load_detector
from sdg.errors import SdgError
from sdg.refinement import load_editor
from sdg.testbed.entry import background, load_generator, open_background, prompts
from sdg.testbed.world.prompts import parse_prompt, split_of
from sdg.testbed.world.renderer import render
from sdg.testbed.world.scene import Scene, Thing


def test_prompts_are_different_and_of_their_split() -> None:
    for split in ("train", "validation", "test"):
        found = prompts(split, count=50)
        assert len(set(found)) == 50
        requests = [parse_prompt(prompt) for prompt in found]
        assert all(request is not None and split_of(request) == split for request in requests)


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    assert prompts("test", count=30)[:10] == prompts("test", count=10)
    assert prompts("test", count=10, seed=1) != prompts("test", count=10)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="train, validation, test"):
        prompts("held-out")  # type: ignore[arg-type]


def test_the_models_are_those_of_the_alias(tmp_path: Path) -> None:
    named, plain = (load_detector(uri).identity for uri in ("python:sdg.testbed.entry.detector", "testbed"))
    assert named == plain
    assert plain["detector"] == "testbed"
    assert load_detector("testbed?batch_size=3", batch_size=4).identity["batch_size"] == 4
    with pytest.raises(SdgError, match="holds no adapter"):
        load_generator(lora=tmp_path)
    with pytest.raises(SdgError, match="holds no adapter"):
        load_editor(f"python:sdg.testbed.entry.editor?lora={tmp_path}")
    with pytest.raises(SdgError, match="holds no pipeline"):
        load_editor(f"testbed:{tmp_path}")
    assert type(load_generator(lora="shipped")).__name__ == "FluxPipeline"


def test_a_background_is_judged_where_the_prompt_names_one() -> None:
    picture = render(Scene((Thing("ring", "red", 64, 64, 20),), "white"))
    white, black, open_ = (
        f"A red ring{where}" for where in (" on a white background", " on a black background", "")
    )
    assert background(picture, white).is_clean
    assert [defect.subtype for defect in background(picture, black).defects] == ["wrong background"]
    assert not background(picture, open_).is_informative
    missing = background(picture, "A red ring left of a green cross on a white background")
    assert missing.is_clean  # what else is wrong is not its matter


@pytest.mark.parametrize(
    ("name", "light"), [("white", True), ("cream", True), ("grey", False), ("black", False)]
)
def test_a_light_background_is_told_where_the_prompt_names_none(name: str, light: bool) -> None:
    picture = render(Scene((Thing("ring", "red", 64, 64, 20),), name))
    assert bool(open_background(picture, "A red ring").defects) == light
    assert not open_background(picture, f"A red ring on a {name} background").is_informative
