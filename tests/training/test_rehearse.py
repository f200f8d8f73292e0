"""A dry run: the real detector at its size on the meta device, and the first thing that would fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sdg.cli import cli
from sdg.io import jsonl
from sdg.models.meta import vision_language_model
from sdg.recipes import load_recipe
from sdg.runs.rehearsal import GPUS, Rehearsal
from sdg.training.recipe import GrpoRecipe, SftRecipe
from sdg.training.rehearse import rehearse

RECIPES = Path(__file__).parents[2] / "recipes" / "detector"


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    row = {"filepath": "a.png", "caption": "a cup", "ann_translated_bboxes": [], "ann_response": ""}
    jsonl.write_objects(tmp_path / "rows.jsonl", [{**row, "filepath": f"{n}.png"} for n in range(32)])
    return [f"data.{part}={tmp_path / 'rows.jsonl'}" for part in ("train", "validation")]


def test_the_papers_sft_fits_and_its_parts_are_those_of_zero_2(data: list[str]) -> None:
    recipe = load_recipe(SftRecipe, RECIPES / "sft-qwen3vl-4b.yaml", data)
    page = rehearse(recipe, gpu="H100", processes=16, tokens=64)
    assert page.fault is None, str(page)
    weights = page.memory["weights"]
    assert weights == pytest.approx(2 * 4.44e9, rel=0.01)
    # Trained is all but the vision encoder, 0.42 B: 2 and 12 bytes a parameter, over 16 processes.
    assert page.memory["gradients, shared out"] == pytest.approx(2 * 4.02e9 / 16, rel=0.01)
    assert page.memory["optimizer, fp32, shared out"] == pytest.approx(12 * 4.02e9 / 16, rel=0.01)
    # 3 passes over 32 rows by 16 at a time; forward, again, and backward are 8 FLOP a parameter and token.
    assert page.numbers["steps"] == 6
    tokens = 1024 + 64 + int(str(page).split("words ")[1].split(",")[0])
    floor = 8 * 3.6e9 * tokens / 1e12
    assert floor < page.numbers["TFLOP a pass"] < 1.35 * floor
    assert json.loads(json.dumps(page.to_dict()))["ok"] is True


def fault(recipe: GrpoRecipe, processes: int) -> str:
    return str(rehearse(recipe, gpu="H100", processes=processes).fault)


def test_what_would_fail_is_named(data: list[str], tmp_path: Path) -> None:
    recipe = load_recipe(
        GrpoRecipe,
        RECIPES / "grpo-qwen3vl-4b.yaml",
        [*data, "model.checkpoint=P1n3/sdg-detector-sft", "profile=default", "model.lora.targets=[q_prj]"],
    )
    assert "model.lora: model.lora.targets names q_prj" in fault(recipe, 8)
    missing = replace(recipe, model=replace(recipe.model, checkpoint=str(tmp_path)))
    assert "model: The configuration of" in fault(missing, 8)
    three = replace(missing, optimizer=replace(recipe.optimizer, batch_size=1))
    assert "groups: batch_size × accumulate × processes is 6, to be" in fault(three, 3)


def test_too_few_rows_and_a_folder_of_them_would_fail(data: list[str], tmp_path: Path) -> None:
    recipe = load_recipe(
        GrpoRecipe, RECIPES / "grpo-qwen3vl-4b.yaml", [*data, "profile=default", "data.limit=8"]
    )
    missing = replace(recipe, model=replace(recipe.model, checkpoint=str(tmp_path)))
    assert "a step: A step asks about 16 rows" in fault(missing, 16)
    folder = replace(missing, data=replace(recipe.data, train=tmp_path))
    assert f"data.train: {tmp_path} is a folder; write one file of it: sdg data convert" in fault(folder, 8)


def test_a_gpu_that_is_too_small_is_said() -> None:
    page = Rehearsal("4090", 1)
    page.memory["weights"] = 23e9
    page.require_memory()
    assert page.fault == "memory: about 24.5 GB a GPU, 1.5 of them CUDA's; 4090: 24 GB"
    page.say_time("one step", GPUS["4090"].tflops * 1e12 * 0.4 * 3600, "validation comes on top")
    assert page.numbers["hours"] == pytest.approx(1)


def test_the_known_configuration_is_that_of_the_papers_model() -> None:
    import torch

    model: Any = vision_language_model("Qwen/Qwen3-VL-4B-Instruct", torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(4.44e9, rel=0.001)
    assert all(parameter.device.type == "meta" for parameter in model.parameters())


def test_the_command_prints_a_page_and_ends_with_the_first_fault(tmp_path: Path) -> None:
    command = ["train", "sft", str(RECIPES / "sft-qwen3vl-4b.yaml"), "--dry-run"]
    done = CliRunner().invoke(cli, [*command, "--set", "model.checkpoint=nowhere/at/all", "--processes", "2"])
    assert "FAILS  data.train" in done.output
    assert str(done.exception).startswith("The run would fail. data.train: data/sdg30k/splits/train.jsonl")
    assert CliRunner().invoke(cli, command[:-1]).exit_code == 2


def test_a_checkpoint_that_is_not_trained_yet_is_a_path_that_is_not_there() -> None:
    recipe = load_recipe(GrpoRecipe, RECIPES / "grpo-qwen3vl-4b.yaml")
    said = {one.what: one.said for one in rehearse(recipe, gpu="H100", processes=8).findings}
    assert said["profile"].startswith("There is no folder runs/sft-4b/final; ")
    assert said["model"].startswith("There is no folder runs/sft-4b/final; train what it comes from first")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["train", "sft", str(RECIPES / "sft-qwen3vl-4b.yaml")], ["--processes", "16"]),
        (["train", "sft", str(RECIPES / "sft-qwen3vl-4b.yaml")], ["--tokens", "2048"]),
        (["train", "grpo", str(RECIPES / "grpo-qwen3vl-4b.yaml")], ["--json", "page.json"]),
        (["align", str(RECIPES.parent / "align/boxflow-testbed.yaml")], ["--gpu", "H200"]),
    ],
)
def test_a_run_takes_no_option_of_a_dry_one(command: list[str], option: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [*command, *option, "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert f"{option[0]} is of a dry run alone, with --dry-run" in done.output
    assert not (tmp_path / "run").exists()
