"""The process group's time-out: above what any server may take, so that a run ends in a sentence."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import processes
import pytest
from accelerate.utils import DistributedType
from bad_server import Server, completion
from plain_recipe import RECIPE, REWARD
from toy import RECIPES, small

from sdg import Diagnosis, render_response
from sdg.alignment import trainer
from sdg.alignment.accelerator import MARGIN, group_timeout, require_same_start, start_accelerator
from sdg.alignment.recipe import AlignRecipe, MonitorRecipe
from sdg.cli import main
from sdg.errors import SdgError
from sdg.recipes import load_recipe
from sdg.scorers.weighted import ScorerRecipe

SERVED = "openai:http://x/v1?timeout=100&attempts=3"


def wait(detector: str, **changes: object) -> float:
    """Seconds for 24 pictures an epoch, and two at a time of the monitor."""
    recipe = replace(RECIPE, reward=replace(REWARD, detector=detector), monitor=MonitorRecipe(prompts=2))
    return (group_timeout(replace(recipe, **changes)) - MARGIN).total_seconds()


def test_it_is_the_servers_attempts_and_the_longest_pauses_they_may_ask_for() -> None:
    assert wait(f"{SERVED}#m") == 3 * 100 + 2 * 600
    assert wait("openai:http://x/v1#m") == 6 * 300 + 5 * 600
    assert wait("testbed") == 0
    assert wait("openai:http://x/v1?timeout=soon#m") == wait("openai:http://x/v1#m")  # is refused later


@pytest.mark.parametrize("apple", [True, False])
def test_a_gpu_without_float64_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apple: bool
) -> None:
    given: dict[str, object] = {}

    def accelerator(**options: object) -> SimpleNamespace:
        given.update(options)
        return SimpleNamespace(distributed_type=DistributedType.NO)

    monkeypatch.setattr("sdg.alignment.accelerator.Accelerator", accelerator)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: apple)
    start_accelerator([], tmp_path, timedelta(hours=1))
    assert given["cpu"] is apple


def test_servers_add_up_and_so_do_rounds_of_a_limited_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    one = wait(f"{SERVED}#m")
    judge = ScorerRecipe("judge", "unified-reward:http://y/v1?timeout=7#m")
    both = wait(f"{SERVED}#m", reward=replace(REWARD, detector=f"{SERVED}#m", scorers=(judge,)))
    assert both == one + 6 * 7 + 5 * 600
    slow = ScorerRecipe("slow", "remote:http://y?timeout=5&attempts=2")
    scored = wait("testbed", reward=replace(REWARD, detector="testbed", scorers=(slow,)))
    assert scored == 24 / RECIPE.sampling.batch_size * (2 * 5 + 600)  # a request of each batch that is drawn
    few = replace(slow, uri=slow.uri + "&batch=1")
    assert wait("testbed", reward=replace(REWARD, detector="testbed", scorers=(few,))) == 24 * (2 * 5 + 600)
    assert wait(f"union:ocr|{SERVED}#m | {SERVED}#n") == 2 * one
    assert wait(f"{SERVED}&concurrency=4#m") == 24 / 4 * one
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert wait(f"{SERVED}&concurrency=4#m") == 24 / 3 / 4 * one


def test_the_shipped_recipes_wait_longer_than_nccl_does_by_itself() -> None:
    for name in ("boxflow-flux1-dev.yaml", "boxflow-sd35-medium.yaml"):
        assert group_timeout(load_recipe(AlignRecipe, RECIPES / name)) > timedelta(hours=1)


@pytest.mark.slow
@pytest.mark.parametrize("derived", [True, False])
def test_a_judge_too_slow_for_one_process_ends_the_run_in_a_sentence(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, derived: bool
) -> None:
    """The other process has its scores at once, and waits; with a shorter time-out it would not."""
    if derived:
        monkeypatch.setattr("sdg.alignment.accelerator.MARGIN", timedelta(seconds=30))
    else:
        monkeypatch.setattr(trainer, "group_timeout", lambda recipe: timedelta(seconds=3))
    found = completion(render_response(Diagnosis()))
    stderr = tmp_path / "stderr"
    with Server(lambda *_: found) as quick, Server(lambda *_: replace(found, delay=60.0)) as slow:

        def work() -> None:
            url = (quick, slow)[int(os.environ["RANK"])].url
            options = small(
                checkpoints, reward__detector=f"openai:{url}?timeout=10&attempts=1&profile=default#toy",
                reward__max_failed=0.2, prompts__held_out="null", monitor__scorers="[]",
                monitor__judges="[]", monitor__best="null",
            )  # fmt: skip
            main(["align", str(RECIPES / "boxflow-flux1-dev.yaml"), *options, "--out", str(tmp_path / "run")])

        together = processes.torchrun(work, stderr=stderr)
        together.join()
    said = stderr.read_text()
    sentence = "sdg: The detector gave nothing usable for 8 of 16 pictures, more than the share of 0.2"
    assert together.exitcode != 0
    assert (sentence in said) is derived
    assert ("RuntimeError" in said) is not derived


def test_processes_that_see_different_checkpoints_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[int] = [4]
    monkeypatch.setattr("sdg.alignment.accelerator.gather_object", lambda own: [*own, *others])
    require_same_start(4, 2)
    others[0] = 0  # whose machine has a folder of its own, without any checkpoint
    with pytest.raises(SdgError, match="has to be a folder that all machines see"):
        require_same_start(4, 2)
    require_same_start(4, 1)


@pytest.mark.slow
def test_a_run_is_not_resumed_by_machines_of_which_one_does_not_see_its_folder(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwatched = {"prompts__held_out": "null", "monitor__scorers": "[]", "monitor__judges": "[]"}
    unwatched["monitor__best"] = "null"
    words = ["align", str(RECIPES / "boxflow-flux1-dev.yaml"), "--out", str(tmp_path / "run")]
    main_of = [*words, *small(checkpoints, optimizer__steps=2, **unwatched)]
    assert processes.run(*main_of).returncode == 0
    here = trainer.resume_point
    monkeypatch.setattr(
        trainer, "resume_point", lambda *given: None if os.environ.get("RANK") == "1" else here(*given)
    )
    further = [*words, "--resume", *small(checkpoints, optimizer__steps=4, **unwatched)]
    together = processes.torchrun(lambda: main(further), stderr=tmp_path / "stderr")
    together.join()
    assert together.exitcode != 0
    assert "sdg: The processes of this run see different checkpoints" in (tmp_path / "stderr").read_text()
