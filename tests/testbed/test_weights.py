"""Loading the testbed's models: packaged ones where they are, and one sentence where they are not."""

import pytest
import torch

from sdg.errors import SdgError
from sdg.testbed import weights
from sdg.testbed.generator.build import new_pipeline
from sdg.testbed.generator.sampling import held_out_prompts, sample_pictures
from sdg.testbed.generator.vae import new_vae
from sdg.testbed.oracle import diagnose
from sdg.testbed.weights import GENERATOR, SCORER, export_half, load_generator, load_scorer, packaged


def test_weights_that_are_not_packaged_are_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "GENERATOR", tmp_path / "generator")
    monkeypatch.setattr(weights, "SCORER", tmp_path / "scorer")
    with pytest.raises(SdgError, match="no weights of the testbed's generator: train it"):
        load_generator()
    with pytest.raises(SdgError, match="no weights of the testbed's scorer: train it"):
        load_scorer()
    assert packaged(tmp_path) == tmp_path


def test_a_folder_that_holds_something_else_is_never_looked_up_on_the_hub(tmp_path):
    with pytest.raises(SdgError, match=r"holds no pipeline \(model_index.json is missing\)"):
        load_generator(tmp_path / "nowhere")
    with pytest.raises(SdgError, match=r"holds no scorer \(config.json is missing\)"):
        load_scorer(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(SdgError, match="cannot be loaded as a FluxPipeline"):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text("not JSON")
    with pytest.raises(SdgError, match="cannot be loaded as a CLIPModel"):
        load_scorer(tmp_path)


def test_a_pipeline_exported_in_half_precision_is_half_the_size_and_loads_in_full(tmp_path):
    torch.manual_seed(0)
    pipeline = new_pipeline(new_vae())
    pipeline.save_pretrained(tmp_path / "full")
    full = sum(path.stat().st_size for path in (tmp_path / "full").rglob("*.safetensors"))
    assert export_half(pipeline, tmp_path / "half") < 0.55 * full
    loaded = load_generator(tmp_path / "half")
    assert loaded.transformer.dtype is torch.float32
    with pytest.raises(SdgError, match="holds no adapter"):
        load_generator(tmp_path / "half", lora=tmp_path)


@pytest.mark.skipif(not GENERATOR.is_dir(), reason="this build holds no generator")
def test_the_packaged_generator_is_small_and_draws_what_is_asked_for():
    assert sum(path.stat().st_size for path in GENERATOR.rglob("*")) <= 16e6
    prompts = held_out_prompts(12, seed=1)
    pictures = sample_pictures(load_generator(), prompts, steps=12)
    clean = [diagnose(picture, prompt).is_clean for picture, prompt in zip(pictures, prompts, strict=True)]
    assert 0 < sum(clean) < len(clean)  # good but visibly imperfect


@pytest.mark.skipif(not SCORER.is_dir(), reason="this build holds no scorer")
def test_the_packaged_scorer_is_small_and_tells_a_prompt_from_its_near_twin():
    from sdg.testbed.scorer import retrieval_accuracy

    assert sum(path.stat().st_size for path in SCORER.rglob("*")) <= 4e6
    model, tokenizer = load_scorer()
    assert retrieval_accuracy(model, tokenizer, count=30)["against one changed fact"] > 0.7
