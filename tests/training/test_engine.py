"""GRPO by vLLM: the tokens that the engine read are those that are scored, and it validates as well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stub_vllm import StubVllm

from sdg.errors import SdgError
from sdg.training import engine
from sdg.training.grpo import GrpoTrainer, grpo
from sdg.training.recipe import GrpoRecipe


def test_a_run_of_the_pictures_token_becomes_one_and_other_runs_stay() -> None:
    assert engine.without_places([5, 9, 9, 9, 4, 4, 9, 2], 9) == [5, 9, 4, 4, 9, 2]
    assert engine.without_places([5, 4, 4], 9) == [5, 4, 4]


@pytest.fixture
def vllm_recipe(grpo_recipe: GrpoRecipe, graded: None, monkeypatch: pytest.MonkeyPatch) -> GrpoRecipe:
    """A recipe of one step by the stub, which samples from the whole distribution."""
    StubVllm.calls.clear()
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", StubVllm)
    monkeypatch.setattr("sdg.training.run.check_environment", lambda recipe: None)

    return replace(
        grpo_recipe,
        rollout=replace(grpo_recipe.rollout, engine="vllm", top_p=1.0, max_tokens=6),
        optimizer=replace(grpo_recipe.optimizer, max_steps=1),
        evaluation=replace(grpo_recipe.evaluation, first=True),
    )


def entries(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_first_ratio_is_1_and_validation_is_by_the_engine_with_the_answers_of_the_model(
    vllm_recipe: GrpoRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[tuple[list[list[int]], torch.Tensor]] = []
    method = GrpoTrainer._get_per_token_logps_and_entropies

    def watched(self: Any, model: Any, ids: Any, mask: Any, *rest: Any, **more: Any) -> Any:
        found = method(self, model, ids, mask, *rest, **more)
        rows = [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]
        scored.append((rows, found[0].detach()))
        return found

    monkeypatch.setattr(GrpoTrainer, "_get_per_token_logps_and_entropies", watched)
    grpo(vllm_recipe, tmp_path / "vllm")

    first, rollout, last = StubVllm.calls
    assert (first["temperature"], rollout["temperature"], last["temperature"]) == (0.0, 1.0, 0.0)
    assert (first["max_tokens"], rollout["max_tokens"]) == (24, 6)
    assert [call["synchronised"] for call in (first, rollout, last)] == [1, 1, 2], "after a step only"
    assert all(set(call["bias"].values()) == {-100.0} for call in StubVllm.calls)
    assert len(scored) == 2, "by the starting checkpoint, for the KL term, and by the model"
    whole = [read + own for read, own in zip(rollout["read"], rollout["written"], strict=True)]
    for rows, logs in scored:
        assert sorted(rows) == sorted(whole), "shuffled, but the very tokens"
        for place, row in enumerate(rows):
            chances = torch.tensor([chance for [chance] in rollout["chances"][whole.index(row)]])
            ratio = torch.exp(logs[place, : len(chances)] - chances)
            torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-4)

    here = replace(vllm_recipe, rollout=replace(vllm_recipe.rollout, engine="transformers"))
    grpo(here, tmp_path / "here")
    start, expected = (next(e for e in entries(tmp_path / run) if e["step"] == 0) for run in ("vllm", "here"))
    names = {name for name in expected if name.startswith("eval_") and "seconds" not in name}
    names -= {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    assert {name: start[name] for name in names} == pytest.approx({name: expected[name] for name in names})
    assert start["eval_length"] > 0


@pytest.mark.slow
def test_an_engine_that_reads_other_tokens_ends_the_run_before_anything_is_learned(
    vllm_recipe: GrpoRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StubVllm, "extra", 1)
    with pytest.raises(
        SdgError, match=r"vLLM read a prompt of \d+ tokens where the trainer scores one of \d+"
    ):
        grpo(vllm_recipe, tmp_path / "run")


def test_a_checkpoint_that_vllm_would_read_otherwise_is_refused(
    grpo_recipe: GrpoRecipe, toy: Path, tmp_path: Path
) -> None:
    config = json.loads((toy / "checkpoint" / "config.json").read_text())
    del config["text_config"]["rope_parameters"]["mrope_interleaved"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    recipe = replace(grpo_recipe, model=replace(grpo_recipe.model, checkpoint=str(tmp_path)))
    engine.check_checkpoint(recipe)
    by_vllm = replace(recipe, rollout=replace(recipe.rollout, engine="vllm"))
    with pytest.raises(SdgError, match="leaves out mrope_interleaved"):
        engine.check_checkpoint(by_vllm)
    engine.check_checkpoint(replace(by_vllm, model=grpo_recipe.model))


def test_only_errors_of_the_server_become_its_sentence(grpo_recipe: GrpoRecipe) -> None:
    rollout = replace(grpo_recipe.rollout, engine="vllm-server")
    said = r"rollout\.server http://127\.0\.0\.1:8000 cannot roll out: no flag"
    with pytest.raises(SdgError, match=said), engine.server_errors(rollout):
        raise RuntimeError("no flag")
    with pytest.raises(RuntimeError), engine.server_errors(grpo_recipe.rollout):
        raise RuntimeError("of the trainer's own")
