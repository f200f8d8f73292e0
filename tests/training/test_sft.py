"""SFT: what is trained on, when it changes, and that a run can be stopped and resumed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copy, copytree
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl
from kills import kill_and_resume
from PIL import Image
from torch.utils.data import DataLoader
from train_runs import CLOSE, assert_same_weights, command, finish, not_ended, start, start_two
from transformers import TrainerState

from sdg import load_detector, parse_response
from sdg.errors import SdgError
from sdg.prompting import AnswerParts, PromptProfile
from sdg.recipes import parse_recipe
from sdg.sections import LoraRecipe
from sdg.training import evaluate
from sdg.training.dataset import RowReader, Rows, target, truths, unpack_truth
from sdg.training.model import load_model, load_processor, lora_config, vision_encoder
from sdg.training.recipe import ModelRecipe, SftRecipe
from sdg.training.run import finish as write_final
from sdg.training.run import last_checkpoint, train
from sdg.training.sft import JitterCollator, LengthGroupedSampler, sft


@pytest.fixture(scope="module")
def processor(toy: Path) -> Any:
    return load_processor(ModelRecipe(str(toy / "checkpoint")))


@pytest.fixture
def rows(toy: Path, profile: PromptProfile, processor: Any) -> Rows:
    return RowReader(profile, processor, 900).read(toy / "train.jsonl", None, targets=True)


def losses(out: Path) -> dict[int, float]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def test_loss_is_on_the_target_and_its_end_and_on_nothing_else(rows, profile, processor):
    collator = JitterCollator(processor, profile, amount=0, seed=0)
    batch = collator(rows.rows[:4])
    for row, ids, labels, truth in zip(
        rows.rows, batch["input_ids"], batch["labels"], truths(rows.rows[:4]), strict=False
    ):
        learned = labels != -100
        assert torch.equal(labels[learned], ids[learned])
        assert processor.tokenizer.decode(ids[learned]) == target(truth, profile.answer) + "<|im_end|>\n"
        assert row["caption"] in processor.tokenizer.decode(ids[~learned])


def test_lengths_are_those_of_the_tokens_a_batch_really_has(rows, profile, processor):
    collator = JitterCollator(processor, profile, amount=0, seed=0)
    for row in rows.rows[:6]:
        assert collator([row])["input_ids"].shape[1] == row["length"]


def test_with_a_worker_epochs_differ_and_one_epoch_repeats(rows, profile, processor):
    collator = JitterCollator(processor, profile, amount=10, seed=0)
    loader = DataLoader(rows.dataset(), batch_size=16, collate_fn=collator, num_workers=1)

    def labels(epoch: int) -> torch.Tensor:
        collator.epoch = epoch
        return next(iter(loader))["labels"]

    first, second, again = labels(0), labels(1), labels(0)
    assert torch.equal(first, again)
    assert first.shape != second.shape or not torch.equal(first, second)


def test_jitter_moves_boxes_by_at_most_its_amount_and_nothing_else(rows, profile, processor):
    collator = JitterCollator(processor, profile, amount=10, seed=3)
    for row, truth in zip(rows.rows, truths(rows.rows), strict=True):
        moved = parse_response(collator.response(row))
        assert moved.reasoning == truth.reasoning
        for defect, before in zip(moved.defects, truth.defects, strict=True):
            assert replace(defect, box=before.box) == replace(before, subtype=None)
            assert max(abs(a - b) for a, b in zip(defect.box, before.box, strict=True)) <= 10


@pytest.mark.parametrize(
    ("answer", "gone"),
    [
        (AnswerParts(steps=(2, 3)), "Step 1"),
        (AnswerParts(steps=(1, 2)), "Step 3"),
        (AnswerParts(description=False), '"description"'),
        (AnswerParts(importance=False), '"importance"'),
        (AnswerParts(think=False), "<think>"),
    ],
)
def test_ablated_targets_lack_just_the_part(rows, answer, gone):
    truth = next(truth for truth in truths(rows.rows) if truth.defects)
    whole, ablated = target(truth, AnswerParts()), target(truth, answer)
    assert gone in whole
    assert gone not in ablated
    kept = parse_response(ablated, require_think=answer.think)
    assert [defect.box for defect in kept.defects] == [defect.box for defect in truth.defects]


MADE = [{"box_2d": [0, 0, 9, 9], "label": "artifact", "description": "", "importance": 5}]


def test_rows_that_cannot_be_used_are_counted_by_reason(toy, profile, processor, tmp_path):
    lines = (toy / "train.jsonl").read_text().splitlines()
    no_picture = {**json.loads(lines[1]), "filepath": "gone.png"}
    no_thought = {key: value for key, value in json.loads(lines[2]).items() if key != "ann_response"}
    (tmp_path / "a.jsonl").write_text("\n".join([lines[0], json.dumps(no_picture), json.dumps(no_thought)]))
    found = RowReader(profile, processor, 900).read(tmp_path / "a.jsonl", toy, targets=True)
    assert len(found) == 1
    assert sorted(found.left_out.values()) == [1, 1]
    own, half = (
        json.dumps({**json.loads(lines[0]), "caption": text}) for text in ("<|image_pad|>", "\ud83d")
    )
    said = json.loads(lines[0])
    said["ann_translated_bboxes"] = [{**defect, "description": "a \ud83d"} for defect in MADE]
    (tmp_path / "b.jsonl").write_text("\n".join([lines[0], own, half, json.dumps(said)]))
    found = RowReader(profile, processor, 900).read(tmp_path / "b.jsonl", toy, targets=True)
    assert found.left_out == {
        "prompt with one of the model's own tokens, or no whole text": 2,
        "answer with one of the model's own tokens, or no whole text": 1,
    }
    Image.new("RGB", (1, 400)).save(tmp_path / "line.png")
    thin = json.dumps({**json.loads(lines[0]), "filepath": "line.png"})
    copy(toy / "0.png", tmp_path)
    (tmp_path / "c.jsonl").write_text("\n".join([lines[0], thin]))
    found = RowReader(profile, processor, 900).read(tmp_path / "c.jsonl", None, targets=True)
    assert (len(found), found.left_out) == (1, {"picture that the model's processor refuses": 1})
    with pytest.raises(SdgError, match="more than 10 tokens"):
        RowReader(profile, processor, 10).read(tmp_path / "a.jsonl", toy, targets=True)


@pytest.mark.parametrize("targets", [True, False])
def test_an_annotation_that_lost_something_is_no_truth(toy, profile, processor, tmp_path, targets):
    item = '{"box_2d": [0, 0, 90, 90], "label": "artifact", "description": "Six fingers.", "importance": 5}'
    thought = "<think>\nStep 1: a\nStep 2: b\nStep 3: c\n</think>\n<answer>\n["
    endings = (f"{item}]\n</answer>", f'{item}, {{"box_2d": [0, 0', f'{item}, {{"label": "?"}}]\n</answer>')
    lines = [
        json.dumps({"filepath": "0.png", "caption": "a hand", "response": thought + ending})
        for ending in endings
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = RowReader(profile, processor, 900).read(tmp_path / "a.jsonl", toy, targets=targets)
    assert (len(found), found.left_out) == (1, {"annotation cut off or with unreadable items": 2})


def test_a_picture_outside_of_their_folder_is_refused_unless_that_is_meant(toy, profile, processor, tmp_path):
    line = json.loads((toy / "train.jsonl").read_text().splitlines()[0])
    out = {**line, "filepath": str(toy / line["filepath"])}
    (tmp_path / "a.jsonl").write_text(json.dumps(out))
    read = partial(RowReader(profile, processor, 900).read, tmp_path / "a.jsonl", None, targets=True)
    with pytest.raises(SdgError, match="leaves the folder"):
        read()
    assert len(read(allow_outside=True)) == 1


def test_sampler_gives_every_row_once_in_batches_of_like_length():
    lengths = [(7 * number) % 101 for number in range(103)]
    sampler = LengthGroupedSampler(lengths, 4, seed=1)
    order = list(sampler)
    assert sorted(order) == list(range(103))
    assert order == list(sampler)
    batches = [[lengths[row] for row in order[at : at + 4]] for at in range(0, 103, 4)]
    assert max(max(batch) - min(batch) for batch in batches) < 8
    sampler.epoch = 1
    assert list(sampler) != order


@pytest.mark.parametrize("frozen", [True, False])
def test_vision_is_frozen_on_request_also_for_adapters(toy, frozen):
    recipe = ModelRecipe(
        str(toy / "checkpoint"), dtype="float32", freeze_vision=frozen, lora=LoraRecipe(targets=("q_proj",))
    )
    model = load_model(recipe)
    assert all(p.requires_grad is not frozen for p in vision_encoder(model).parameters())
    assert all(p.requires_grad for p in model.model.language_model.parameters())
    names = lora_config(recipe, model).target_modules
    assert len(names) == 2
    assert not any("visual" in name for name in names)
    of_vision = replace(recipe, lora=LoraRecipe(targets=("qkv",)))
    if frozen:
        with pytest.raises(SdgError, match="qkv"):
            lora_config(of_vision, model)
    else:
        assert len(lora_config(of_vision, model).target_modules) == 2


def test_what_is_trained_says_that_its_positions_are_interleaved_for_vllm(toy, tmp_path):
    folder = tmp_path / "checkpoint"
    copytree(toy / "checkpoint", folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["text_config"]["rope_parameters"].pop("mrope_interleaved") is True
    (folder / "config.json").write_text(json.dumps(config))
    load_model(ModelRecipe(str(folder), dtype="float32")).save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["text_config"]["rope_parameters"]["mrope_interleaved"] is True


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_loss_falls_and_a_killed_run_resumes_to_the_same_losses_and_weights(sft_recipe, toy, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    final = sft(sft_recipe, whole)
    assert not [path for path in final.iterdir() if path.suffix in {".bin", ".pt", ".pth"}]
    undisturbed = losses(whole)
    assert undisturbed[4] < undisturbed[1]

    sft(sft_recipe, cut)
    # As after a kill: the last checkpoint is half written, and the log has entries past the one before.
    (cut / "checkpoint-4" / "trainer_state.json").write_text("{")
    not_ended(cut)
    assert last_checkpoint(cut) == str(cut / "checkpoint-2")
    sft(sft_recipe, cut, resume=True)
    assert losses(cut) == pytest.approx(undisturbed, rel=CLOSE)
    steps = [json.loads(line)["step"] for line in (cut / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)

    diagnoses = load_detector(str(final), device="cpu").diagnose([(toy / "0.png", "a red circle")])
    assert len(diagnoses) == 1
    with pytest.raises(SdgError, match="--resume"):
        sft(sft_recipe, whole)
    with pytest.raises(SdgError, match=r"recipe\.seed was \d+ and is 1 now"):
        sft(replace(sft_recipe, seed=1), whole, resume=True)
    before = contents(whole)
    assert sft(sft_recipe, whole, resume=True) == final
    assert contents(whole) == before, "what has ended is left as it is"
    manifest = not_ended(whole)
    (whole / "manifest.json").write_text(json.dumps(manifest | {"processes": 8}))
    with pytest.raises(SdgError, match="processes was 8 and is 1 now"):
        sft(sft_recipe, whole, resume=True)
    with pytest.raises(SdgError, match="is a file; name a folder"):
        sft(sft_recipe, whole / "manifest.json")


@pytest.mark.slow
@pytest.mark.kill
def test_killed_at_any_moment_its_losses_and_weights_are_those_of_an_undisturbed_run(sft_recipe, tmp_path):
    recipe = replace(sft_recipe, optimizer=replace(sft_recipe.optimizer, max_steps=6))

    def assert_same(killed: Path, whole: Path) -> None:
        assert losses(killed) == pytest.approx(losses(whole), rel=CLOSE)
        assert list(losses(whole)) == [1, 2, 3, 4, 5, 6]
        assert_same_weights(killed / "final", whole / "final")

    kill_and_resume("train sft", lambda out: command(recipe, out), tmp_path, assert_same)


@pytest.mark.slow
def test_two_processes_lose_and_score_what_one_does(sft_recipe, toy, tmp_path, monkeypatch):
    model = load_model(sft_recipe.model)
    torch.manual_seed(0)
    for parameter in model.parameters():  # far from uniform: rows differ in loss and in their answers
        parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "checkpoint")
    load_processor(sft_recipe.model).save_pretrained(tmp_path / "checkpoint")
    recipe = replace(
        sft_recipe,
        model=replace(sft_recipe.model, checkpoint=str(tmp_path / "checkpoint")),
        data=replace(sft_recipe.data, validation_limit=3),  # two for one process and one for the other
        optimizer=replace(sft_recipe.optimizer, max_steps=2),
        evaluation=replace(sft_recipe.evaluation, first=True, every=1),
    )
    halves = replace(recipe, optimizer=replace(recipe.optimizer, batch_size=4))
    one, two = tmp_path / "one", tmp_path / "two"
    answer_rows = evaluate.answer_rows

    def watched(model, processor, profile, rows, batch_size):
        """Keeps what the model answers, and puts the right answer in its place but for the first row."""
        found = answer_rows(model, processor, profile, rows, batch_size)
        place = f"rank{os.environ['RANK']}" if "RANK" in os.environ else "alone"
        with (tmp_path / place).open("a") as file:
            for row, answer in zip(rows, found, strict=True):
                file.write(json.dumps([row["id"], answer.text]) + "\n")
        right = [target(unpack_truth(row["truth"]), profile.answer) for row in rows]
        return [replace(a, text=t) if row["id"] else a for row, a, t in zip(rows, found, right, strict=True)]

    monkeypatch.setattr(evaluate, "answer_rows", watched)
    together = start_two(halves, two)
    finish(start(recipe, one), one)
    said = finish(together, two)
    assert said.count("Done: ") == 1

    manifests = [json.loads((out / "manifest.json").read_text()) for out in (one, two)]
    assert [manifest["processes"] for manifest in manifests] == [1, 2]
    logs = [[json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()] for out in (one, two)]
    for alone, shared in zip(*logs, strict=True):
        for name in alone.keys() - {"epoch", "total_flos", "train_loss"}:
            if not name.endswith(("runtime", "per_second")):
                assert shared[name] == pytest.approx(alone[name], rel=1e-4), name
    scores = [entry["eval_artifact_BoxF1@0.5"] for entry in logs[0] if "eval_reward" in entry]
    assert len(scores) == 3
    assert all(0 < score < 1 for score in scores)

    def answers(name: str) -> list[list[Any]]:
        return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]

    assert len({text for _, text in answers("alone")}) > 3
    assert {number for number, _ in answers("rank0")} == {0, 2}
    assert {number for number, _ in answers("rank1")} == {1, 0}  # one again: both have as many to answer
    for number in range(3):
        of_one = [text for row, text in answers("alone") if row == number]
        assert [text for row, text in answers(f"rank{number % 2}") if row == number] == of_one


@pytest.mark.slow
def test_an_adapter_is_merged_into_the_final_model_and_evaluation_is_logged(document, tmp_path):
    document["model"]["lora"] = {"r": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}
    document["optimizer"]["max_steps"] = 2
    document["run"]["precision"] = "bf16"
    document["data"]["workers"] = 1
    final = sft(parse_recipe(SftRecipe, document), tmp_path / "run")
    names = {path.name for path in final.iterdir()}
    assert {"model.safetensors", "sdg_profile.toml", "tokenizer.json"} <= names
    assert "adapter_model.safetensors" not in names
    assert (tmp_path / "run" / "checkpoint-2" / "sdg_profile.toml").exists()
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    evaluated = next(entry for entry in entries if "eval_BoxF1@0.5" in entry)
    assert 0 <= evaluated["eval_well_formed"] <= 1
    assert evaluated["eval_truncated"] <= 1
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["data"]["train"]["rows"] == 16
    assert manifest["versions"]["trl"] == trl.__version__


@pytest.mark.slow
@pytest.mark.parametrize(("evaluated", "saved", "scores"), [(1, 2, (0.9, 0.2, 0.8, 0.3)), (4, 2, (0.3,))])
def test_the_best_checkpoint_is_one_that_was_evaluated_and_saved(
    sft_recipe, tmp_path, monkeypatch, evaluated, saved, scores
):
    left = iter(scores)
    monkeypatch.setattr("sdg.training.evaluate.score", lambda *_: {"BoxF1@0.5": next(left)})
    recipe = replace(
        sft_recipe,
        evaluation=replace(sft_recipe.evaluation, every=evaluated),
        run=replace(sft_recipe.run, save_every=saved),
    )
    sft(recipe, tmp_path / "run")
    kept = sorted(folder.name for folder in (tmp_path / "run").glob("checkpoint-*"))
    assert kept == ["checkpoint-2", "checkpoint-4"]
    chosen = json.loads((tmp_path / "run" / "manifest.json").read_text())["final"]
    assert (chosen["weights"], chosen["best"]) == ("checkpoint-4", 0.3)


@pytest.mark.parametrize("steps", [2, 4])
def test_a_run_whose_folder_was_moved_still_knows_its_best_checkpoint(tmp_path, steps):
    asked = []
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None),
        train=lambda resume_from_checkpoint: asked.append(
            TrainerState.load_from_json(f"{resume_from_checkpoint}/trainer_state.json").best_model_checkpoint
        ),
        _load_from_checkpoint=asked.append,
    )
    state = TrainerState(global_step=steps, max_steps=4, best_model_checkpoint="elsewhere/run/checkpoint-1")
    (tmp_path / "checkpoint-2").mkdir()
    state.save_to_json(str(tmp_path / "checkpoint-2" / "trainer_state.json"))
    train(trainer, str(tmp_path / "checkpoint-2"))
    assert asked == [str(tmp_path / "checkpoint-1")]


def test_under_deepspeed_a_run_that_had_its_last_step_is_finished_without_an_engine(sft_recipe, tmp_path):
    model = load_model(sft_recipe.model)
    flat = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    at = 0
    for weight in model.parameters():  # DeepSpeed's weights lie one beside the other
        weight.data = flat[at : at + weight.numel()].view_as(weight)
        at += weight.numel()

    def save_model(folder: str) -> None:
        raise AttributeError("'Qwen3VLForConditionalGeneration' object has no attribute 'save_checkpoint'")

    accelerator = SimpleNamespace(
        is_main_process=True,
        unwrap_model=lambda model: model,
        wait_for_everyone=lambda: None,
        end_training=lambda: None,
    )
    trainer = SimpleNamespace(
        accelerator=accelerator, model=model, state=TrainerState(), save_model=save_model
    )
    recipe = replace(sft_recipe, run=replace(sft_recipe.run, deepspeed=tmp_path / "zero2.json"))
    other = SimpleNamespace(save_pretrained=lambda folder: None, save=lambda folder: None)
    (tmp_path / "manifest.json").write_text("{}")
    run = SimpleNamespace(out=tmp_path, recipe=recipe, processor=other, profile=other)
    final = write_final(run, trainer)
    assert_same_weights(final, Path(sft_recipe.model.checkpoint))
