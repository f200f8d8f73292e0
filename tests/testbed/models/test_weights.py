"""Loading the testbed's models: packaged ones where they are, and one sentence where they are not."""

import pytest
import torch

from sdg.errors import SdgError
from sdg.testbed.models import packaged as weights
from sdg.testbed.models.generator.pipeline import new_pipeline
from sdg.testbed.models.generator.vae import new_vae
from sdg.testbed.models.packaged import load_generator, load_scorer, packaged


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


def test_a_pipeline_stored_in_half_precision_loads_in_full(tmp_path):
    torch.manual_seed(0)
    pipeline = new_pipeline(new_vae())
    pipeline.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    loaded = load_generator(tmp_path / "half")
    assert loaded.transformer.dtype is torch.float32
    with pytest.raises(SdgError, match="holds no adapter"):
        load_generator(tmp_path / "half", lora=tmp_path)
