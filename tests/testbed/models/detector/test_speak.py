"""The language stage: the real model's logits, its losses by brute force, a few steps of training."""

import dataclasses
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sdg.detectors import load_detector
from sdg.errors import SdgError
from sdg.prompting import Generation
from sdg.testbed.models.detector import see, speak
from sdg.testbed.models.detector.build import new_model, new_processor
from sdg.testbed.models.detector.rows import IGNORED, Lessons, base_tokenizer, embedded_profile
from sdg.testbed.models.detector.speak import Speaker, save_base, speech_loss, token_losses, train_language
from sdg.testbed.models.loop import Run, fit


@pytest.fixture(scope="module")
def tokenizer():
    return base_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return new_model(tokenizer, seed=1).eval()


@pytest.fixture(scope="module")
def batch(tokenizer):
    return Lessons(tokenizer, None, 4, 10, 0)[9]


def test_logits_are_the_models_own_whatever_the_padding(model, tokenizer, batch):
    speaker = Speaker(model, tokenizer)
    processor = new_processor(tokenizer)
    with torch.no_grad():
        _, logits = speaker(batch)
        for rows, found in zip(batch["rows"], logits, strict=True):
            at = 0
            for index, ids, labels in zip(rows.pictures, rows.ids, rows.labels, strict=True):
                picture = Image.fromarray(batch["pictures"][index].numpy())
                end = int((labels != IGNORED).nonzero().max()) + 1
                own = model(
                    input_ids=ids[None, :end],
                    mm_token_type_ids=(ids[None, :end] == model.config.image_token_id).int(),
                    **processor.image_processor([picture], return_tensors="pt"),
                ).logits[0]
                wanted = own[:-1][labels[1:end] != IGNORED]
                torch.testing.assert_close(found[at : at + len(wanted)], wanted, atol=1e-4, rtol=1e-3)
                at += len(wanted)
            assert at == len(found)


def test_a_coordinate_is_learned_as_a_triangle_around_the_truth(model, tokenizer, batch):
    speaker = Speaker(model, tokenizer)
    rows = max(batch["rows"], key=lambda rows: int((rows.coordinate >= 0).sum()))
    labels = rows.labels[:, 1:][rows.labels[:, 1:] != IGNORED]
    coordinates = rows.coordinate[:, 1:][rows.labels[:, 1:] != IGNORED]
    logits = torch.randn(len(labels), len(tokenizer), generator=torch.Generator().manual_seed(0))
    assert (coordinates >= 0).any()
    coordinates[coordinates >= 0] = torch.where(
        torch.rand(int((coordinates >= 0).sum())) < 0.3, 1000, coordinates[coordinates >= 0]
    )
    changed = rows.coordinate.clone()
    changed[:, 1:][rows.labels[:, 1:] != IGNORED] = coordinates
    found = token_losses(speaker, logits, type(rows)(rows.pictures, rows.ids, rows.labels, changed))
    for number, (label, value) in enumerate(zip(labels.tolist(), coordinates.tolist(), strict=True)):
        log_prob = logits[number].double().log_softmax(0)
        if value < 0:
            expected = -log_prob[label]
        else:
            shares = {v: 11 - abs(v - value) for v in range(value - 10, value + 11) if 0 <= v <= 1000}
            expected = -sum(
                share / sum(shares.values()) * log_prob[tokenizer.convert_tokens_to_ids(str(v))]
                for v, share in shares.items()
            )
        assert found[number].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_loss_reaches_tower_language_model_and_heads(model, tokenizer, batch):
    speaker = Speaker(model, tokenizer)
    parts = speech_loss(speaker, batch)
    parts["loss"].backward()
    for weight in (
        model.model.visual.patch_embed.proj.weight,
        model.model.language_model.layers[0].self_attn.q_proj.weight,
        model.get_input_embeddings().weight,
        speaker.head.weight,
    ):
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0
    model.zero_grad(set_to_none=True)
    speech_loss(speaker, batch | {"learns_to_see": False})["loss"].backward()
    assert model.model.visual.patch_embed.proj.weight.grad is None
    assert model.model.language_model.layers[0].self_attn.q_proj.weight.grad is not None
    model.zero_grad(set_to_none=True)


@pytest.mark.slow
def test_a_few_steps_lower_the_loss_and_leave_a_detectors_folder(tmp_path, tokenizer, monkeypatch):
    seeing = tmp_path / "seeing"
    new_model(tokenizer, 0).save_pretrained(seeing)
    short = dataclasses.replace(embedded_profile(), generation=Generation(max_new_tokens=16))
    monkeypatch.setattr(speak, "embedded_profile", lambda: short)
    sooner = partial(dataclasses.replace, report_every=10)
    monkeypatch.setattr(speak, "fit", lambda *most, **more: fit(*most[:4], sooner(most[4]), **more))
    settings = {"batch_size": 2, "learning_rate": 2e-3, "workers": 0, "validate": 2}
    train_language(seeing, Run(tmp_path / "run", 12), **settings)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 12]
    assert lines[-1]["words"] < lines[0]["words"]
    (check,) = (tmp_path / "run" / "validation.jsonl").read_text().splitlines()
    assert json.loads(check)["step"] == 12
    detector = load_detector(str(tmp_path / "run" / "detector"))
    picture = Image.fromarray(np.full((128, 128, 3), 200, np.uint8))
    (found,) = detector.diagnose([(picture, "a red star")])
    assert found.status in {"ok", "repaired", "truncated", "unparseable", "failed"}


def test_a_checkpoint_that_is_scored_again_has_one_line(tmp_path, monkeypatch):
    def fit(*_, on_save, **settings):
        for step in (250, 500, 500):
            on_save(SimpleNamespace(model=None), step)
        return SimpleNamespace(model=None)

    untrained = SimpleNamespace(
        model=SimpleNamespace(visual=SimpleNamespace(load_state_dict=lambda state: None)),
        set_attn_implementation=lambda name: None,
    )
    for name, stand_in in {"new_model": untrained, "_tower": {}, "held_out": [1], "score_base": {}}.items():
        monkeypatch.setattr(speak, name, lambda *_, stand_in=stand_in: stand_in)
    for name in ("Speaker", "Lessons", "save_base"):
        monkeypatch.setattr(speak, name, lambda *_: None)
    monkeypatch.setattr(speak, "fit", fit)
    train_language(tmp_path, Run(tmp_path, 500))
    lines = (tmp_path / "validation.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 250}, {"step": 500}]


def test_a_saved_base_model_answers_as_the_one_in_memory(tmp_path, model, tokenizer):
    save_base(model, tokenizer, tmp_path / "base")
    known = load_detector(str(tmp_path / "base"))
    assert known.identity["profile"] == embedded_profile().digest[:12]


def test_a_folder_without_a_tower_is_said(tmp_path):
    with pytest.raises(SdgError, match="learned to see"):
        train_language(tmp_path / "nothing", Run(tmp_path / "run", 1))


def test_a_tower_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(SdgError, match="cannot be loaded as a model that has learned to see"):
        train_language(tmp_path, Run(tmp_path / "run", 1))


def test_a_tower_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    class Half:
        def save_pretrained(self, folder):
            (folder / "config.json").write_text("new")
            raise KeyboardInterrupt

    def fit(*_, on_save):
        on_save(None, 1)

    (tmp_path / "seeing").mkdir()
    (tmp_path / "seeing" / "config.json").write_text("old")
    monkeypatch.setattr(see, "DenseReader", lambda model: None)
    monkeypatch.setattr(see, "_take_over", lambda model, reader: Half())
    monkeypatch.setattr(see, "fit", fit)
    model = SimpleNamespace(set_attn_implementation=lambda name: None)
    with pytest.raises(KeyboardInterrupt):
        see.train_vision(model, Run(tmp_path, 1))
    assert (tmp_path / "seeing" / "config.json").read_text() == "old"
