"""Whole alignment runs on toy checkpoints, from the recipes in recipes/align and the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
import toy
import toy_families
import watched
from bad_server import Reply, Server, completion
from click.testing import CliRunner
from kills import kill_and_resume
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy import RECIPES, small

from sdg import Defect, Diagnosis, render_response
from sdg.alignment.monitors import measure_pictures
from sdg.alignment.policies import FlowPolicy, load_pipeline, load_policy
from sdg.alignment.recipe import AlignRecipe, PolicyRecipe
from sdg.cli import cli, main
from sdg.errors import SdgError
from sdg.models.lora import WEIGHTS, lora_parameters, save_lora
from sdg.recipes import load_recipe
from sdg.runs.log import read_log


def align(out: Path, options: list[str], recipe: str = "boxflow-flux1-dev.yaml", *more: str) -> Any:
    return CliRunner().invoke(cli, ["align", str(RECIPES / recipe), *options, "--out", str(out), *more])


def run(
    out: Path, options: list[str], recipe: str = "boxflow-flux1-dev.yaml", *more: str
) -> list[dict[str, Any]]:
    result = align(out, options, recipe, *more)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return [line for line in read_log(out) if line["kind"] == "train"]


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert load_recipe(AlignRecipe, RECIPES / name).groups.size >= 8


@pytest.mark.parametrize("name", ["boxflow-flux1-dev.yaml", "boxflow-sd35-medium.yaml"])
def test_the_real_recipes_ask_the_released_detector_in_its_own_wording(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert load_recipe(AlignRecipe, RECIPES / name).reward.detector == (
        "openai:http://localhost:8000/v1?profile=release#P1n3/sdg-detector-grpo"
    )
    monkeypatch.setenv("SDG_RELEASE", str(tmp_path))  # which is no clone; nor is there a generator
    texts = [f"prompts.train={checkpoints / 'train.txt'}", f"prompts.held_out={checkpoints / 'held-out.txt'}"]
    options = [part for value in (*texts, "policy.model=nowhere") for part in ("--set", value)]
    with pytest.raises(SdgError, match=r"name a clone of github\.com/nianbai006/SDG"):
        run(tmp_path / "run", options, name)


def test_the_flux_recipe_holds_the_papers_settings() -> None:
    recipe = load_recipe(AlignRecipe, RECIPES / "boxflow-flux1-dev.yaml")
    assert (recipe.policy.lora.r, recipe.policy.lora.alpha) == (64, 128)
    assert (recipe.policy.height, recipe.policy.width, recipe.policy.guidance) == (512, 512, 3.5)
    assert (recipe.sampling.steps, recipe.sampling.sde_steps, recipe.sampling.noise_level) == (
        10,
        (1, 2, 3),
        0.7,
    )
    assert (recipe.groups.prompts, recipe.groups.size) == (48, 16)
    assert (recipe.optimizer.steps, recipe.optimizer.learning_rate, recipe.optimizer.clip) == (
        500,
        3e-4,
        1e-4,
    )
    assert (recipe.reward.c_artifact, recipe.reward.c_misalignment) == (0.5, 0.05)


REAL = sorted(path.name for path in RECIPES.glob("boxflow-[!nt]*.yaml"))  # neither NFT nor the testbed


@pytest.mark.usefixtures("short_text")
@pytest.mark.parametrize(
    "recipe",
    [
        name
        if name in ("boxflow-flux1-dev.yaml", "boxflow-sd35-medium.yaml")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in REAL
    ],
)
def test_the_real_recipes_run_end_to_end_on_toy_checkpoints(
    checkpoints: Path, tmp_path: Path, recipe: str
) -> None:
    family = load_recipe(AlignRecipe, RECIPES / recipe).policy.family
    height, width = toy_families.SIZES.get(family, (toy.HEIGHT, toy.WIDTH))
    values = {  # places, sizes and step counts, and one process; nothing else
        "run.sharding": "null",
        "policy.model": checkpoints / family,
        "policy.height": height,
        "policy.width": width,
        "policy.max_sequence_length": toy_families.TEXT.get(family, toy.TEXT),
        "policy.text_cache": tmp_path / "texts",
        "prompts.train": checkpoints / "train.txt",
        "prompts.held_out": checkpoints / "held-out.txt",
        "sampling.steps": 5,
        "sampling.batch_size": 4,
        "groups.prompts": 2,
        "groups.size": 4,
        "reward.scorers.0.uri": "python:toy.darkness",
        "reward.detector": "python:toy.detect",
        "optimizer.steps": 4,
        "monitor.scorers.0.uri": f"clip:{checkpoints / 'clip'}",
        "monitor.scorers.1.uri": f"clip:{checkpoints / 'clip'}?processor={checkpoints / 'clip'}",
        "monitor.every": 1,
        "monitor.prompts": 2,
        "monitor.steps": 2,
        "run.pictures_every": 2,
    }
    lines = run(
        tmp_path, [part for key, value in values.items() for part in ("--set", f"{key}={value}")], recipe
    )
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all(line["valid"] == line["samples"] == 8 and len(line["loss"]) == 2 for line in lines)
    assert all(line["first_ratio_error"] < 1e-5 for line in lines)
    assert all(line["grad_norm"] > 0 and "kl" not in line for line in lines)
    watched = [line for line in read_log(tmp_path) if line["kind"] == "monitor"]
    assert [line["epoch"] for line in watched] == [0, 1, 2]
    assert all({"reward", "PickScore", "CLIPScore", "detector/defects"} <= line.keys() for line in watched)
    assert watched[0]["CLIPScore"] == pytest.approx(watched[0]["PickScore"] / 30)  # Table 5's scales
    for name in ("final", "best"):
        assert (tmp_path / name / "pytorch_lora_weights.safetensors").is_file()
    assert len(list((tmp_path / "pictures").glob("epoch-*.png"))) == 2


@pytest.mark.parametrize("method", ["boxflow", "flow-grpo", "denseflow", "boxflow-nft", "nft"])
def test_the_testbed_recipe_runs_with_each_method(checkpoints: Path, tmp_path: Path, method: str) -> None:
    steps = {"sampling__sde_steps": "[0, 1]", "sampling__sde_steps_per_epoch": 2}
    options = small(checkpoints, optimizer__steps=2, optimizer__steps_per_epoch=2, optimizer__kl=0.1, **steps)
    options += ["--set", "policy.lora.targets=[to_q, to_k, proj_mlp]", "--set", f"method={method}"]
    nft = method.endswith("nft")
    (line,) = run(tmp_path, options, "boxflow-testbed.yaml")
    assert len(line["sde_steps"]) == (0 if nft else 2)
    assert line["kl"] > 0  # the second step's, when the adapter has moved
    assert line["grad_norm"] > 0
    assert (line["defects"] is None) == (method in ("flow-grpo", "nft"))  # which ask no detector


TWO_GROUPS = {"groups__prompts": 2}
UNWATCHED = {
    "prompts__held_out": "null", "monitor__scorers": "[]", "monitor__judges": "[]", "monitor__best": "null",
}  # fmt: skip
SMOOTH = {"method": "flow-grpo", "optimizer__clip": 0.2}
"""Two runs that do the same may round a pixel another way, for equal weights at other addresses may be added
up in another order. Here nothing turns on that: no threshold of a detector, no ratio at its clip."""


def assert_same_run(one: Path, other: Path) -> None:
    """Two runs have the same log and adapter, rounding aside. Another seed would change the gradients by a
    third and the adapter wholly."""
    same = ("kind", "epoch", "step", "sde_steps", "learning_rate", "valid")
    for ours, theirs in zip(read_log(one), read_log(other), strict=True):
        assert {name: ours.get(name) for name in same} == {name: theirs.get(name) for name in same}
        assert ours["reward"] == pytest.approx(theirs["reward"], abs=1e-4)
        if ours["kind"] == "train":
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-2)
    (metadata, weights), (expected_metadata, expected) = adapter(one), adapter(other)
    assert metadata == expected_metadata
    assert weights.keys() == expected.keys()
    ups = [name for name in weights if ".lora_B." in name]  # which began at 0
    apart = sum(np.square(weights[name] - expected[name]).sum() for name in ups)
    assert apart < 0.1**2 * sum(np.square(expected[name]).sum() for name in ups)


def test_a_resumed_run_goes_on_as_an_uninterrupted_one(checkpoints: Path, tmp_path: Path) -> None:
    def options(steps: int) -> list[str]:
        return small(checkpoints, optimizer__steps=steps, optimizer__ema_every=1, **SMOOTH, **TWO_GROUPS)

    run(tmp_path / "whole", options(8))
    run(tmp_path / "parts", options(4))
    run(tmp_path / "parts", options(8), "boxflow-flux1-dev.yaml", "--resume")
    assert len(read_log(tmp_path / "whole")) == 4 + 5  # epochs, and looks of the monitor
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_resumed_run_on_the_forward_process_goes_on_with_the_old_policy_it_had(
    checkpoints: Path, tmp_path: Path
) -> None:
    def options(steps: int) -> list[str]:
        changes = {"method": "nft", "nft__old_rise": 0.2, "nft__old_limit": 0.8, "nft__levels": 3}
        return small(checkpoints, optimizer__steps=steps, optimizer__kl=0.1, **changes)

    lines = run(tmp_path / "whole", options(8))
    run(tmp_path / "parts", options(4))
    run(tmp_path / "parts", options(8), "boxflow-flux1-dev.yaml", "--resume")
    assert [line["old_decay"] for line in lines] == pytest.approx([0.4, 0.8, 0.8, 0.8])
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def adapter(out: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and weights; a safetensors file writes its metadata in no fixed order."""
    with safe_open(out / "final" / "pytorch_lora_weights.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
        metadata = {
            name: json.loads(text) if text[:1] == "{" else text for name, text in file.metadata().items()
        }
    return metadata, weights


@pytest.mark.slow
@pytest.mark.kill
def test_killed_at_any_moment_it_ends_as_an_undisturbed_run(checkpoints: Path, tmp_path: Path) -> None:
    options = small(checkpoints, optimizer__steps=12, optimizer__schedule="linear", **SMOOTH, **TWO_GROUPS)
    recipe = RECIPES / "boxflow-flux1-dev.yaml"
    kill_and_resume("align", lambda out: ["align", recipe, *options, "--out", out], tmp_path, assert_same_run)


def test_what_was_best_after_the_last_epoch_stays_so_when_a_run_is_continued(
    checkpoints: Path, tmp_path: Path
) -> None:
    watched = {"monitor__every": 2, "optimizer__ema_every": 1, **TWO_GROUPS}
    run(tmp_path, small(checkpoints, optimizer__steps=6, **watched))  # measured after epochs 0, 2 and 3
    best, measures = tmp_path / "best", tmp_path / "best" / "measures.json"
    kept = (tmp_path / "final" / WEIGHTS).read_bytes()
    (best / WEIGHTS).write_bytes(kept)
    measures.write_text(json.dumps({"epoch": 3, "judge/defects": -1.0}))
    said = align(
        tmp_path, small(checkpoints, optimizer__steps=10, **watched), "boxflow-flux1-dev.yaml", "--resume"
    )
    assert said.exit_code == 0, said.output
    assert "best/ is of epoch 3" in said.stderr
    assert json.loads(measures.read_text())["epoch"] == 3
    assert (best / WEIGHTS).read_bytes() == kept


def test_the_learning_rate_falls_to_nothing_over_all_steps_and_not_over_others(
    checkpoints: Path, tmp_path: Path
) -> None:
    falling = {"optimizer__learning_rate": 8e-4, "optimizer__schedule": "linear", **UNWATCHED, **TWO_GROUPS}
    lines = run(tmp_path, small(checkpoints, optimizer__steps=8, **falling))
    assert [line["learning_rate"] for line in lines] == pytest.approx([8e-4, 6e-4, 4e-4, 2e-4])
    options = small(checkpoints, optimizer__steps=12, **falling)
    with pytest.raises(SdgError, match=r"optimizer\.steps was 8 and is 12 now"):
        run(tmp_path, options, "boxflow-flux1-dev.yaml", "--resume")


def test_a_gradient_is_clipped_however_small_its_norm_is_to_be(checkpoints: Path, tmp_path: Path) -> None:
    length = {"optimizer__grad_norm": 1e-12, "optimizer__learning_rate": 200}
    once = {"optimizer__steps": 1, "optimizer__steps_per_epoch": 1, "optimizer__ema_decay": 0}
    plain = small(checkpoints, **length, **once, optimizer__ema_every=1, optimizer__weight_decay=0)
    (line,) = run(tmp_path, plain)
    assert line["grad_norm"] > 1e-5  # so it was clipped
    _, weights = adapter(tmp_path)
    ups = [weight.ravel() for name, weight in weights.items() if ".lora_B." in name]
    assert float(np.linalg.norm(np.concatenate(ups))) == pytest.approx(200 * 1e-12 / 1e-8, rel=1e-3)


def test_failed_detections_are_left_out_and_counted(checkpoints: Path, tmp_path: Path) -> None:
    options = small(
        checkpoints, reward__detector="python:toy.detect_or_fail?percent=30", reward__max_failed=0.6
    )
    lines = run(tmp_path, options)
    assert all(0 < line["failed_detector"] < 16 for line in lines)
    assert all(line["valid"] == 16 - line["failed_detector"] for line in lines)
    assert all(line["failed_reward"] == 0 for line in lines)
    watched = [line["known"] for line in read_log(tmp_path) if line["kind"] == "monitor"]
    assert all(known.pop("detector") <= 3 for known in watched)
    assert watched == [{"reward": 3, "clip": 3, "judge": 3}] * 3


def test_a_run_stops_with_a_sentence_when_nothing_can_be_scored(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(SdgError, match=r"The detector gave nothing usable for 16 of 16 pictures.*max_failed"):
        run(tmp_path, small(checkpoints, reward__detector="python:toy.detect_or_fail?percent=100"))


def late(percent: int) -> Callable[[int, int], Reply]:
    """One defect a picture, but for this share of them too late: in silence, or byte by byte."""
    numbers = count()
    defect = Defect((0, 0, 500, 500), "artifact", "It is too bright here.", 50)
    found = completion(render_response(Diagnosis((defect,), "A cup.")))

    def behave(index: int, attempt: int) -> Reply:
        number = next(numbers)
        if number % 10 * 10 >= percent:
            return found
        return replace(found, drip=0.5) if number % 2 else replace(found, delay=10.0)

    return behave


def served(checkpoints: Path, server: Server, timeout: float) -> list[str]:
    uri = f"openai:{server.url}?timeout={timeout}&attempts=1&profile=default#toy"
    changes = {"reward__detector": uri, "reward__max_failed": 0.9, "sampling__batch_size": 8}
    return small(checkpoints, **changes, **UNWATCHED)


@pytest.mark.slow
def test_a_run_goes_on_while_a_server_is_too_late_for_some_pictures_and_takes_none_for_clean(
    checkpoints: Path, tmp_path: Path
) -> None:
    with Server(late(30)) as server:
        lines = run(tmp_path, served(checkpoints, server, 2.0))
    assert sum(server.asked.values()) == 32
    late_ones = (6, 5)  # requests 0–2 and 10–12; 20–22, 30 and 31; a busy machine may add to them
    assert all(line["failed_detector"] >= least for line, least in zip(lines, late_ones, strict=True))
    assert all(line["valid"] == 16 - line["failed_detector"] > 0 for line in lines)
    assert [line["failed_reward"] for line in lines] == [0, 0]
    assert [line["defects"] for line in lines] == [1.0, 1.0]  # of those answered; a clean one would lower it
    assert all(line["grad_norm"] > 0 for line in lines)


@pytest.mark.slow
def test_a_run_stops_with_a_sentence_when_a_server_is_too_late_for_every_picture(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(RECIPES / "boxflow-flux1-dev.yaml")
    with Server(late(100)) as server, pytest.raises(SystemExit) as stopped:
        main(["align", recipe, *served(checkpoints, server, 0.5), "--out", str(tmp_path)])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "sdg: The detector gave nothing usable for 16 of 16 pictures, more than the share of 0.9 that "
        "reward.max_failed allows; see to its server, then --resume."
    )
    assert not read_log(tmp_path)
    assert not (tmp_path / "final").exists()


def test_the_reward_rises(checkpoints: Path, tmp_path: Path) -> None:
    options = small(
        checkpoints, optimizer__steps=24, optimizer__learning_rate=2e-2, optimizer__ema_every=1,
        optimizer__clip=0.2, monitor__every=12, groups__size=8, sampling__batch_size=16, monitor__prompts=4,
    )  # fmt: skip
    targets = "policy.lora.targets=[to_q, to_v, ff.net.2, proj_out]"
    run(tmp_path, options, "boxflow-testbed.yaml", "--set", targets, "--set", "method=flow-grpo")
    watched = [line["reward"] for line in read_log(tmp_path) if line["kind"] == "monitor"]
    assert watched[-1] > watched[0] + 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scorer", "kl", "method", "family"),
    [
        ("darkness", 0, "boxflow", "flux"),
        ("dark_or_missing", 0, "boxflow", "flux"),
        ("dark_or_missing", 50.0, "boxflow", "flux"),
        ("dark_or_missing", 50.0, "boxflow-nft", "flux"),
        ("dark_or_missing", 0, "boxflow", "qwen-image"),
    ],
)
def test_two_processes_learn_what_one_learns(
    checkpoints: Path, tmp_path: Path, scorer: str, kl: float, method: str, family: str
) -> None:
    options = small(
        checkpoints, family, reward__scorers=f"[{{name: s, uri: 'python:toy.{scorer}'}}]", groups__prompts=8,
        optimizer__steps=2, optimizer__grad_norm=1e9, reward__max_failed=0.9, optimizer__kl=kl,
        sampling__batch_size=8, method=method, nft__levels=2, **({} if scorer == "darkness" else UNWATCHED),
    )[1::2]  # fmt: skip
    recipe = RECIPES / {"flux": "boxflow-flux1-dev.yaml"}.get(family, f"boxflow-{family}.yaml")

    def work() -> None:
        torch.save(watched.align(recipe, tmp_path / "two", options), tmp_path / f"{os.environ['RANK']}.pt")

    together = processes.torchrun(work, stderr=tmp_path / "stderr")
    one = watched.align(recipe, tmp_path / "one", options)
    together.join()
    assert together.exitcode == 0, (tmp_path / "stderr").read_text()
    two = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert [step["processes"] for step in one] == [1, 1]
    assert [step["processes"] for step in two[0]] == [2, 2]
    if scorer == "dark_or_missing":
        assert any(a["valid"] != b["valid"] for a, b in zip(*two, strict=True))
    for alone, *both in zip(one, *two, strict=True):
        assert alone["valid"] == sum(step["valid"] for step in both)
        for step in both:
            assert torch.allclose(step["advantages"], alone["advantages"], atol=1e-5)
            for name, gradient in alone["gradients"].items():
                assert torch.allclose(
                    step["gradients"][name], gradient, atol=1e-5 * float(gradient.abs().max() + 1e-3)
                )
    logs = [next(line for line in read_log(tmp_path / n) if line["kind"] == "train") for n in ("one", "two")]
    assert logs[1]["loss"] == pytest.approx(logs[0]["loss"], abs=1e-5)
    if kl:  # which is 0 in the first step, and most of the loss in the second
        assert logs[1]["kl"] == pytest.approx(logs[0]["kl"], rel=1e-4)
        assert kl * logs[0]["kl"] > 10 * 1e-5


def test_compare_measures_base_and_adapter_on_the_same_noise(checkpoints: Path, tmp_path: Path) -> None:
    options = small(checkpoints, optimizer__steps=2, optimizer__ema_every=1)
    said = align(tmp_path / "run", options).stderr
    assert "best/ is" in said
    assert "final/ is untrained" not in said
    final = tmp_path / "run" / "final"
    shutil.copytree(final, still := tmp_path / "still")
    with safe_open(final / WEIGHTS, "pt") as opened:
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        unmoved = {name: w * (".lora_B." not in name) for name, w in weights.items()}
        save_file(unmoved, still / WEIGHTS, opened.metadata())
    arguments = ["align", "compare", str(RECIPES / "boxflow-flux1-dev.yaml"), *options]
    adapters = ["--lora", f"boxflow={final}", "--lora", f"still={still}"]
    result = CliRunner().invoke(
        cli, [*arguments, *adapters, "--out", str(tmp_path / "table"), "--bootstrap", "100"]
    )
    assert result.exit_code == 0, result.output
    assert "still is untrained" in result.stderr
    assert "boxflow is untrained" not in result.stderr
    report = json.loads((tmp_path / "table" / "comparison.json").read_text())
    assert set(report["cells"]) == {"base", "boxflow", "still"}
    assert {"reward", "clip", "judge/defects", "judge/clean_rate"} <= set(report["cells"]["base"])
    assert report["cells"]["base"]["clip"]["change"] == 0
    assert report["averages"]["boxflow"] == pytest.approx(report["cells"]["boxflow"]["clip"]["change"])
    assert "| boxflow |" in result.output
    assert (tmp_path / "table" / "grid.png").is_file()


def test_compare_stops_where_a_judge_is_gone_and_asks_it_again(checkpoints: Path, tmp_path: Path) -> None:
    options = small(checkpoints, optimizer__steps=2, optimizer__ema_every=1)
    run(tmp_path / "run", options)
    gone = "monitor.judges=[{name: judge, uri: 'python:toy.detect_or_fail?percent=100'}]"
    command = ["align", "compare", str(RECIPES / "boxflow-flux1-dev.yaml"), *options, "--set", gone]
    command += ["--lora", f"boxflow={tmp_path / 'run' / 'final'}", "--out", str(tmp_path / "table")]
    result = CliRunner().invoke(cli, command)
    assert isinstance(result.exception, SdgError)
    assert "judge/defects gave nothing for" in str(result.exception)
    assert (tmp_path / "table" / "measures.jsonl").read_text() == ""


@pytest.fixture(scope="module")
def moved(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was not trained, but does change the pictures."""
    recipe = load_recipe(AlignRecipe, RECIPES / "boxflow-flux1-dev.yaml", small(checkpoints)[1::2])
    policy = load_policy(recipe.policy)
    move(policy)
    folder = tmp_path_factory.mktemp("moved")
    save_lora(policy, folder)
    return folder


def move(policy: FlowPolicy) -> None:
    torch.manual_seed(5)
    for parameter in lora_parameters(policy.transformer).values():
        parameter.data += 0.1 * torch.randn_like(parameter)


def compare(checkpoints: Path, moved: Path, out: Path, *more: str) -> Any:
    options = [*small(checkpoints), "--lora", f"moved={moved}", "--samples", "3", "--bootstrap", "100"]
    recipe = str(RECIPES / "boxflow-flux1-dev.yaml")
    return CliRunner().invoke(cli, ["align", "compare", recipe, *options, "--out", str(out), *more])


def test_compare_frees_a_generator_before_it_loads_the_next(
    checkpoints: Path, tmp_path: Path, moved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []
    loaded: list[weakref.ref[Any]] = []

    def load(recipe: PolicyRecipe, **options: Any) -> Any:
        alive.append(sum(reference() is not None for reference in loaded))
        pipeline = load_pipeline(recipe, **options)
        loaded.append(weakref.ref(pipeline.transformer))
        return pipeline

    monkeypatch.setattr("sdg.alignment.compare.load_pipeline", load)
    assert compare(checkpoints, moved, tmp_path).exit_code == 0
    assert alive == [0, 0]


def test_compare_needs_no_text_encoder_beside_the_generator_where_prompts_are_cached(
    checkpoints: Path, tmp_path: Path, moved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def load(recipe: PolicyRecipe, parts: Any = "all", **options: Any) -> Any:
        loads.append(parts)
        return load_pipeline(recipe, parts, **options)

    for module in ("compare", "policies"):
        monkeypatch.setattr(f"sdg.alignment.{module}.load_pipeline", load)
    assert compare(checkpoints, moved, tmp_path / "plain").exit_code == 0
    cached = ("--set", f"policy.text_cache={tmp_path / 'texts'}")
    assert compare(checkpoints, moved, tmp_path / "cached", *cached).exit_code == 0
    assert loads == ["all", "all", "text", "image", "image"]
    assert_same_comparison(tmp_path / "cached", tmp_path / "plain")


def write_changed(source: Path, out: Path) -> None:
    out.mkdir()
    for file in source.glob("*.safetensors"):
        tensors = {name: 2 * value for name, value in load_file(file).items()}
        save_file(tensors, out / file.name)


@pytest.mark.slow
def test_a_comparison_that_was_stopped_goes_on_with_what_it_lacks(
    checkpoints: Path, tmp_path: Path, moved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare(checkpoints, moved, tmp_path / "whole").exit_code == 0
    rows = (tmp_path / "whole" / "measures.jsonl").read_text().splitlines()
    assert len(rows) == 2 * 12

    batches: list[int] = []

    def stop(pictures: Any, *rest: Any) -> Any:
        batches.append(len(pictures))
        if len(batches) == 6:  # the second of the second generator, of three pictures as a prompt has
            raise KeyboardInterrupt
        return measure_pictures(pictures, *rest)

    parts = tmp_path / "parts"
    monkeypatch.setattr("sdg.alignment.compare.measure_pictures", stop)
    stopped = compare(checkpoints, moved, parts)
    assert stopped.exit_code == 1
    assert f"Stopped. What is measured so far is kept; go on with --resume --out {parts}." in stopped.stderr
    assert (parts / "measures.jsonl").read_text().count("\n") == 15
    with (parts / "measures.jsonl").open("a") as stream:  # as a kill leaves it: a batch cut off
        stream.write(rows[15] + "\n" + rows[16][:20])
    batches.extend([0] * 4)
    again = compare(checkpoints, moved, parts, "--resume")
    assert again.exit_code == 0, again.output
    assert batches[10:] == [3, 3, 3]  # the first of the second generator was there
    assert_same_comparison(parts, tmp_path / "whole")
    measured = (parts / "measures.jsonl").read_bytes()
    compare(checkpoints, moved, parts, "--resume")
    assert len(batches) == 13  # nothing was lacking
    refused = compare(checkpoints, moved, parts)
    assert "exists already; go on with --resume" in str(refused.exception)
    assert (parts / "measures.jsonl").read_bytes() == measured

    further = compare(checkpoints, moved, parts, "--resume", "--lora", f"further={moved}")
    assert further.exit_code == 0, further.output
    assert len(batches) == 17  # of the further one alone
    assert (parts / "measures.jsonl").read_bytes().startswith(measured)
    assert "| further |" in (parts / "table.md").read_text()
    fewer = compare(checkpoints, moved, parts, "--resume")
    assert 'adapters.1.0 was "further" and is null now' in str(fewer.exception)
    table = (parts / "table.md").read_text()
    write_changed(moved, tmp_path / "changed")
    changed = compare(checkpoints, tmp_path / "changed", parts, "--resume", "--lora", f"further={moved}")
    assert "was begun with other settings: adapters.0.1 was" in str(changed.exception)
    assert (parts / "table.md").read_text() == table


@pytest.mark.slow
def test_two_processes_compare_what_one_compares(checkpoints: Path, tmp_path: Path, moved: Path) -> None:
    words = [
        "align", "compare", str(RECIPES / "boxflow-flux1-dev.yaml"), "--lora", f"moved={moved}",
        *small(checkpoints, sampling__batch_size=3), "--bootstrap", "100",
        "--set", f"policy.text_cache={tmp_path / 'texts'}",
    ]  # fmt: skip
    two = processes.torchrun(
        lambda: main([*words, "--out", str(tmp_path / "two")]), stderr=tmp_path / "stderr"
    )
    assert processes.run(*words, "--out", tmp_path / "one").returncode == 0
    two.join()
    assert two.exitcode == 0, (tmp_path / "stderr").read_text()
    assert (tmp_path / "stderr").read_text().count("Table, measures and pictures are in") == 1
    assert_same_comparison(tmp_path / "two", tmp_path / "one")
    files = [{file.name for file in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    pictures = [sorted(file.name for file in (tmp_path / n / "pictures").iterdir()) for n in ("one", "two")]
    assert pictures[0] == pictures[1]


def assert_same_comparison(one: Path, other: Path) -> None:
    """Two comparisons are of the same pictures, but for a grey level here and there."""
    lines = [(out / "measures.jsonl").read_text().splitlines() for out in (one, other)]
    for ours, theirs in zip(*lines, strict=True):
        row, expected = json.loads(ours), json.loads(theirs)
        assert row.keys() == expected.keys()
        for name in ("generator", "picture"):
            assert row[name] == expected[name]
        for name in ("reward", "clip"):  # not defects: with the toy detector they may turn on a grey level
            assert row[name] == pytest.approx(expected[name], rel=1e-3)
    reports = [json.loads((out / "comparison.json").read_text())["cells"] for out in (one, other)]
    for cells in reports:
        assert cells.keys() == {"base", "moved"}
    for name in ("base", "moved"):
        means = [cells[name]["clip"]["mean"] for cells in reports]
        assert means[0] == pytest.approx(means[1], rel=1e-3)
    grids = [np.asarray(Image.open(out / "grid.png"), int) for out in (one, other)]
    np.testing.assert_allclose(*grids, atol=1)


@pytest.mark.slow
def test_a_comparison_is_not_resumed_with_other_settings(
    checkpoints: Path, tmp_path: Path, moved: Path
) -> None:
    assert compare(checkpoints, moved, tmp_path).exit_code == 0
    other = compare(checkpoints, moved, tmp_path, "--resume", "--set", "monitor.steps=2")
    assert isinstance(other.exception, SdgError)
    assert "recipe.monitor.steps was 3 and is 2 now" in str(other.exception)
    retrained = tmp_path / "retrained"
    shutil.copytree(moved, retrained)
    with (retrained / "pytorch_lora_weights.safetensors").open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(SdgError, match=r"adapters\.0\.1 was"):
        raise compare(checkpoints, retrained, tmp_path, "--resume").exception
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(SdgError, match=r"settings\.json is damaged"):
        raise compare(checkpoints, moved, tmp_path, "--resume").exception


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policy__lora__rr": 3}, "'rr' is no key in policy.lora .did you mean r"),
        ({"sampling__batch_size": 3}, "samples .* which 1 process.* cannot share equally"),
        ({"monitor__best": "clap"}, "best is one of clip, judge/defects"),
        ({"reward__detector": "null"}, "reward.detector is missing, which method boxflow needs"),
        ({"reward__detector": "replay:a.jsonl"}, "reward.detector is a detector that looks at pictures"),
        (
            {"monitor__judges": "[{name: a, uri: 'union:ocr|heatmap:maps'}]", "monitor__best": "null"},
            "monitor.judges, a is a detector that looks at pictures",
        ),
        ({"sampling__sde_steps": "[1, 9]"}, "sde_steps lie between 0 and 4"),
        ({"sampling__sde": "cps", "sampling__noise_level": "1.2"}, "at most 1 with cps"),
        ({"sampling__sde": "cps", "sampling__sde_steps": "[1, 4]"}, "leave out the last step"),
        ({"sampling__sde": "ddim"}, "cps"),
        (
            {"optimizer__schedule": "constant_with_warmup"},
            "optimizer.schedule is constant or linear or cosine, not 'constant_with_warmup'",
        ),
        ({"policy__attention": "xformers"}, "_native_efficient"),
        ({"policy__attention": "flash"}, "_native_flash"),
        ({"groups__size": 1}, "size is at least 2"),
        ({"method": "nft", "nft__levels": 9}, r"nft.levels is at most sampling.steps \(5\)"),
        ({"nft__old_limit": 1}, "old_limit is at least 0 and below 1"),
        ({"prompts__train": "nowhere.txt"}, "nowhere.txt cannot be read"),
        ({"reward__scorers": "[{name: a, uri: 'clap:x'}]"}, "'clap:x' is no scorer"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused(
    checkpoints: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SdgError, match=sentence):
        run(tmp_path, small(checkpoints, **changes))


def test_a_tracker_that_is_not_installed_is_refused(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "wandb" else find_spec(name, *rest)
    )
    with pytest.raises(SdgError, match="names wandb, which is not installed; pip install wandb"):
        run(tmp_path, small(checkpoints, run__trackers="[tensorboard, wandb]"))


@pytest.mark.slow
def test_tensorboard_shows_the_numbers_of_the_log(checkpoints: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, small(checkpoints, run__trackers="[tensorboard]"))
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    lines = read_log(tmp_path)
    for kind, names in (
        ("train", ("reward", "defects", "grad_norm", "approx_kl", "valid", "failed_detector")),
        ("monitor", ("reward", "clip", "judge/defects")),
    ):
        for name in names:
            shown = [(event.step, event.value) for event in events.Scalars(f"{kind}/{name}")]
            logged = [(line["step"], line[name]) for line in lines if line["kind"] == kind]
            assert [step for step, _ in shown] == [step for step, _ in logged]
            assert [value for _, value in shown] == pytest.approx([value for _, value in logged], rel=1e-6)
    losses = [sum(line["loss"]) / len(line["loss"]) for line in lines if line["kind"] == "train"]
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx(losses, rel=1e-6)


def test_prompts_that_are_trained_on_cannot_be_held_out(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(SdgError, match="both trained on and held out"):
        run(tmp_path, small(checkpoints, prompts__held_out=checkpoints / "train.txt"))


def test_an_earlier_run_is_neither_overwritten_nor_resumed_with_another_recipe(
    checkpoints: Path, tmp_path: Path
) -> None:
    assert "final/ is untrained" in align(tmp_path, small(checkpoints, optimizer__steps=2)).stderr
    with pytest.raises(SdgError, match="exists already; go on with --resume"):
        run(tmp_path, small(checkpoints, optimizer__steps=4))
    with pytest.raises(SdgError, match=r"optimizer\.clip was 0\.0001 and is 0\.5 now"):
        run(tmp_path, small(checkpoints, optimizer__clip=0.5), "boxflow-flux1-dev.yaml", "--resume")


def test_a_run_is_not_resumed_with_fewer_steps_or_other_prompts(checkpoints: Path, tmp_path: Path) -> None:
    options = {"prompts__train": tmp_path / "train.txt", "optimizer__steps": 4}
    lines = (checkpoints / "train.txt").read_text().splitlines()
    (tmp_path / "train.txt").write_text("\n".join(lines))
    run(tmp_path / "run", small(checkpoints, **options))
    with pytest.raises(SdgError, match="holds 2 epochs already and the recipe has 1"):
        run(
            tmp_path / "run",
            small(checkpoints, **options | {"optimizer__steps": 2}),
            "boxflow-flux1-dev.yaml",
            "--resume",
        )
    (tmp_path / "train.txt").write_text("\n".join(lines[::-1]))
    with pytest.raises(SdgError, match=r"prompts was .* and is .* now"):
        run(tmp_path / "run", small(checkpoints, **options), "boxflow-flux1-dev.yaml", "--resume")


def test_help_is_quick_and_names_both_commands() -> None:
    code = "import sys; from sdg.cli.align import align; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    text = CliRunner().invoke(cli, ["align", "--help"]).output
    assert "compare" in text
    assert "run" in text


def test_a_run_that_is_interrupted_says_how_to_go_on(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sdg.alignment.trainer.align", interrupted)
    command = ["align", str(RECIPES / "boxflow-flux1-dev.yaml"), *small(checkpoints)]
    done = CliRunner().invoke(cli, [*command, "--out", str(tmp_path / "run")])
    assert done.exit_code == 1
    said = f"Stopped. The newest checkpoint is kept; go on with --resume --out {tmp_path / 'run'}."
    assert said in done.stderr
