"""The scorer: pairs that differ in one fact, held-out content, a few steps of training."""

import numpy as np
import pytest
import torch
from PIL import Image

from sdg.runs.checkpoint import latest_checkpoint
from sdg.scorers.clip import ClipScorer
from sdg.testbed.models.generator.pipeline import new_tokenizer, tokenize
from sdg.testbed.models.generator.vae import to_tensor
from sdg.testbed.models.loop import Run
from sdg.testbed.models.packaged import load_scorer
from sdg.testbed.models.scorer import (
    alter,
    contrastive_loss,
    new_scorer,
    retrieval_accuracy,
    sample_pairs,
    save_scorer,
    train_scorer,
)
from sdg.testbed.world.prompts import parse_prompt, sample_request, split_of
from sdg.testbed.world.renderer import render
from sdg.testbed.world.scene import Scene, Thing


def differences(first, second):
    """Number of facts in which two requests differ."""
    facts = int(first.relation != second.relation) + int(first.background != second.background)
    for one, other in zip(first.groups, second.groups, strict=True):
        facts += (one.count != other.count) + (one.colour != other.colour) + (one.shape != other.shape)
    return facts


def test_an_altered_request_differs_in_exactly_one_fact_and_stays_in_the_core():
    rng = np.random.default_rng(0)
    for _ in range(500):
        request = sample_request(rng)
        other = alter(request, rng)
        assert differences(request, other) == 1
        assert 1 <= sum(group.count for group in other.groups) <= 4


def test_pairs_are_of_their_split_and_row_by_row_one_fact_apart():
    pictures, prompts = sample_pairs(np.random.default_rng(1), 12)
    assert pictures.shape == (24, 128, 128, 3)
    requests = [parse_prompt(prompt) for prompt in prompts]
    assert {split_of(request) for request in requests} == {"train"}
    for request, other in zip(requests[:12], requests[12:], strict=True):
        assert differences(request, other) == 1
    _, held_out = sample_pairs(np.random.default_rng(1), 12, split="test")
    assert {split_of(parse_prompt(prompt)) for prompt in held_out[:12]} == {"test"}


def test_the_loss_is_that_of_guessing_for_a_model_that_sees_nothing():
    class Blind:
        def __call__(self, pixel_values, input_ids):
            return type("Output", (), {"logits_per_image": torch.zeros(8, 8)})

    parts = contrastive_loss(Blind(), torch.zeros(8), torch.zeros(8))
    assert float(parts["loss"]) == pytest.approx(np.log(8))
    assert float(parts["right"]) == pytest.approx(1 / 8)


def test_training_on_one_batch_learns_it():
    torch.manual_seed(0)
    model = new_scorer()
    pictures, prompts = sample_pairs(np.random.default_rng(2), 4)
    pixels, ids = to_tensor(pictures), tokenize(new_tokenizer(start=True), prompts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = contrastive_loss(model, pixels, ids)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_a_few_steps_leave_a_scorer_that_the_rewards_can_load(tmp_path):
    train_scorer(Run(tmp_path, 2), pairs=4)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "000002"
    picture = render(Scene((Thing("ring", "red", 64, 64, 25),), "white"))
    prompt = "A red ring"
    model, tokenizer = load_scorer(tmp_path / "scorer")
    with torch.no_grad():
        ours = model(
            pixel_values=to_tensor(picture[None]), input_ids=tokenize(tokenizer, [prompt])
        ).logits_per_image.item()
    scores = ClipScorer(str(tmp_path / "scorer")).score([Image.fromarray(picture)], [prompt])
    assert scores == pytest.approx([ours], abs=1e-3)


def test_retrieval_accuracy_is_right_for_models_that_know_all_and_nothing():
    class Knowing:
        def __init__(self, sign):
            self.sign = sign

        def __call__(self, pixel_values, input_ids):
            return type("Output", (), {"logits_per_image": self.sign * torch.eye(len(input_ids))})

    tokenizer = new_tokenizer(start=True)
    assert set(retrieval_accuracy(Knowing(1), tokenizer, count=6).values()) == {1.0}
    assert set(retrieval_accuracy(Knowing(-1), tokenizer, count=6).values()) == {0.0}


def test_a_saved_scorer_is_the_same_scorer(tmp_path):
    torch.manual_seed(0)
    model = new_scorer().eval()
    save_scorer(model, tmp_path)
    again, tokenizer = load_scorer(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    ids = tokenize(tokenizer, ["Two blue stars on a grey background"])
    pixels = torch.zeros(1, 3, 128, 128)
    with torch.no_grad():  # weights at other addresses may be added up in another order
        torch.testing.assert_close(
            again(pixel_values=pixels, input_ids=ids).logits_per_image,
            model(pixel_values=pixels, input_ids=ids).logits_per_image,
            rtol=1e-5,
            atol=1e-5,
        )
