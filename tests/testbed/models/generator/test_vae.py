"""The generator's autoencoder: shapes, what it is trained on, and a few steps of its training."""

import json

import numpy as np
import pytest
import torch

from sdg.errors import SdgError
from sdg.runs.checkpoint import latest_checkpoint
from sdg.testbed.models.generator import vae as vae_module
from sdg.testbed.models.generator.vae import (
    calibrate,
    load_vae,
    new_vae,
    sample_crops,
    to_tensor,
    train_vae,
    vae_loss,
)
from sdg.testbed.models.loop import Run


def test_a_picture_becomes_sixteen_by_sixteen_latents_and_a_picture_again():
    torch.manual_seed(0)
    vae = new_vae()
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 128, 128)).latent_dist.mean
        assert latents.shape == (1, 8, 16, 16)
        assert vae.decode(latents).sample.shape == (1, 3, 128, 128)


def test_bytes_become_numbers_from_minus_one_to_one():
    pictures = np.array([0, 255, 51], np.uint8).reshape(1, 1, 1, 3)
    assert to_tensor(pictures).flatten().tolist() == pytest.approx([-1, 1, -0.6])


def test_crops_are_the_same_for_a_seed_and_show_something():
    first = sample_crops(np.random.default_rng(3), count=6)
    np.testing.assert_array_equal(first, sample_crops(np.random.default_rng(3), count=6))
    assert first.shape == (6, 64, 64, 3)
    assert all(crop.std() > 2 for crop in first)


def test_the_loss_of_a_picture_against_itself_is_that_of_its_code_alone():
    class Perfect:
        def __init__(self, pictures):
            self.pictures = pictures

        def encode(self, pictures):
            mean = torch.ones(1, 2)
            posterior = type("P", (), {"mean": mean, "logvar": 0 * mean, "sample": lambda self: mean})()
            return type("E", (), {"latent_dist": posterior})

        def decode(self, latents):
            return type("D", (), {"sample": self.pictures})

    pictures = torch.rand(1, 3, 16, 16)
    parts = vae_loss(Perfect(pictures), pictures)
    assert float(parts["pixels"]) == 0
    assert float(parts["kl"]) == pytest.approx(0.5)  # half of mean²
    assert float(parts["loss"]) == pytest.approx(2e-4 * 0.5)


def reconstruction_error(vae):
    """Mean absolute error of whole pictures through the autoencoder and back."""
    pictures = vae_module._scenes(1, 2)
    with torch.no_grad():
        decoded = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    return float((decoded - pictures).abs().mean())


def test_a_few_steps_lower_the_loss_and_leave_a_calibrated_autoencoder(tmp_path, monkeypatch):
    scenes = vae_module._scenes
    monkeypatch.setattr(vae_module, "_scenes", lambda seed, count: scenes(seed, 2))  # the default takes long
    torch.manual_seed(0)
    fresh = reconstruction_error(new_vae())
    train_vae(Run(tmp_path, 4), batch_size=2, workers=0)
    vae = load_vae(tmp_path / "vae")
    assert vae.config.scaling_factor > 0
    assert vae.config.scaling_factor != 0.18215  # diffusers' default
    assert reconstruction_error(vae) < fresh
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 4
    train_vae(Run(tmp_path, 5, resume=True), batch_size=2, workers=0)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "000005"


def test_calibrated_latents_have_mean_0_and_deviation_1():
    torch.manual_seed(0)
    vae = new_vae()
    calibrate(vae, seed=4, count=4)
    with torch.no_grad():
        latents = vae.encode(vae_module._scenes(4, 4)).latent_dist.mean
    scaled = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scaled.std()) == pytest.approx(1, abs=1e-4)


def test_a_folder_without_an_autoencoder_is_a_sentence(tmp_path):
    with pytest.raises(SdgError, match="holds no autoencoder; train one"):
        load_vae(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SdgError, match="cannot be loaded"):
        load_vae(tmp_path)
