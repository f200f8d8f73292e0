"""The recipes of the repository: whole, alike but for values, and the paper's where they say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdg.errors import SdgError
from sdg.prompting import AnswerParts, ImageLimits, PromptProfile
from sdg.recipes import load_recipe, parse_recipe
from sdg.training.model import load_processor, load_profile
from sdg.training.recipe import GrpoRecipe, SftRecipe

FOLDER = Path(__file__).parents[2] / "recipes" / "detector"


def keys(value: Any, at: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {at}
    return set().union(*(keys(item, f"{at}.{name}") for name, item in value.items()))


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_the_small_and_the_large_recipe_differ_in_values_only(kind):
    small, large = (
        yaml.safe_load((FOLDER / f"{kind}-{size}.yaml").read_text()) for size in ("testbed", "qwen3vl-4b")
    )
    assert keys(small) == keys(large)


def test_the_sft_recipe_is_the_papers():
    recipe = load_recipe(SftRecipe, FOLDER / "sft-qwen3vl-4b.yaml")
    assert 16 * recipe.optimizer.batch_size * recipe.optimizer.accumulate == 16
    assert (recipe.optimizer.learning_rate, recipe.optimizer.warmup, recipe.optimizer.epochs) == (
        3e-5,
        0.05,
        3,
    )
    assert (recipe.data.max_length, recipe.data.jitter, recipe.model.freeze_vision) == (5100, 10, True)
    assert isinstance(recipe.profile, PromptProfile)
    assert recipe.profile.template == PromptProfile().template
    assert recipe.profile.image == ImageLimits(200_704, 1_280_000, 1024)


def test_the_grpo_recipe_is_the_papers():
    recipe = load_recipe(GrpoRecipe, FOLDER / "grpo-qwen3vl-4b.yaml")
    assert 16 * recipe.optimizer.batch_size * recipe.optimizer.accumulate % recipe.rollout.group == 0
    assert (recipe.rollout.group, recipe.rollout.top_p, recipe.rollout.temperature) == (8, 0.85, 1.0)
    assert (recipe.beta, recipe.optimizer.learning_rate, recipe.rollout.max_tokens) == (0.01, 5e-6, 4096)
    assert recipe.image == ImageLimits(200_704, 1_003_520, 1024)


@pytest.mark.parametrize("size", ["testbed", "qwen3vl-4b"])
def test_neither_training_takes_the_others_recipe(size: str) -> None:
    with pytest.raises(SdgError, match=r": rollout is missing"):
        load_recipe(GrpoRecipe, FOLDER / f"sft-{size}.yaml")
    with pytest.raises(SdgError, match=r"'rollout' is no key"):
        load_recipe(SftRecipe, FOLDER / f"grpo-{size}.yaml")


@pytest.mark.parametrize("name", ["grpo-qwen3vl-4b.yaml", "grpo-testbed.yaml"])
def test_grpo_keeps_the_checkpoints_profile_but_for_the_limits_on_pictures(name, tmp_path):
    trained = PromptProfile(
        name="mine",
        system="",
        template="Look: {caption}",
        answer=AnswerParts(think=False),
        image=ImageLimits(max_pixels=1_280_000),
    )
    trained.save(tmp_path)
    recipe = load_recipe(GrpoRecipe, FOLDER / name, [f"model.checkpoint={tmp_path}"])
    assert recipe.image not in (None, trained.image)
    assert load_profile(recipe) == replace(trained, image=recipe.image)
    assert load_profile(replace(recipe, image=None)) == trained


@pytest.mark.parametrize(
    "override",
    [
        "profile.answer.steps=[2, 3]",
        "profile.answer.steps=[1, 2]",
        "profile.answer.description=false",
        "profile.answer.importance=false",
        "profile.answer.think=false",
        "data.jitter=0",
        "model.freeze_vision=false",
    ],
)
def test_every_ablation_of_table_7_is_one_setting(override):
    path = FOLDER / "sft-qwen3vl-4b.yaml"
    assert load_recipe(SftRecipe, path, [override]) != load_recipe(SftRecipe, path)


def test_an_unknown_metric_for_the_best_checkpoint_is_refused():
    with pytest.raises(SdgError, match=r"evaluation: best is one of"):
        load_recipe(SftRecipe, FOLDER / "sft-testbed.yaml", ["evaluation.best=loss"])


def test_a_checkpoint_that_is_not_there_is_said_before_a_hub_is_asked():
    recipe = load_recipe(SftRecipe, FOLDER / "sft-testbed.yaml")
    with pytest.raises(SdgError, match=f"There is no folder {recipe.model.checkpoint} to start from"):
        load_processor(recipe.model)


def test_checkpoints_and_evaluations_fall_on_the_same_steps_now_and_then(document):
    recipe = document | {"evaluation": {"every": 20}, "run": {"save_every": 50}}
    with pytest.raises(SdgError, match=r"save_every 50 is no multiple or divisor of evaluation\.every 20"):
        parse_recipe(SftRecipe, recipe)
    for every in (5, 20, 60):
        parse_recipe(SftRecipe, document | {"evaluation": {"every": 20}, "run": {"save_every": every}})


def test_the_address_of_an_engine_is_one(document):
    with pytest.raises(SdgError, match="server is an address"):
        parse_recipe(GrpoRecipe, document | {"rollout": {"server": "node1:9000"}})


def test_roll_outs_are_held_to_no_grammar(document):
    with pytest.raises(SdgError, match=r"rollout\.structured cannot be: a grammar would hide the malformed"):
        parse_recipe(GrpoRecipe, document | {"rollout": {"structured": True}})
