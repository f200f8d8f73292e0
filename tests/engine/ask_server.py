"""Greedy answers as a run with `rollout.engine: vllm-server` gets them: `ask_server.py URL PICTURES OUT`.

All but the exchange of weights, which needs GPUs. Runs in the environment that `prepare_vllm.py` makes, and
writes the answers as a JSON list.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from accelerate import Accelerator
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

from sdg.prompting import PromptProfile
from sdg.testbed.models.packaged import DETECTOR
from sdg.training import engine
from sdg.training.evaluate import asked_greedily


def main(url: str, pictures: Path, out: Path) -> None:
    VLLMClient.init_communicator = lambda self, device: None
    model = AutoModelForImageTextToText.from_pretrained(DETECTOR)
    processor = AutoProcessor.from_pretrained(DETECTOR)
    profile = PromptProfile.load(DETECTOR)
    generation = VLLMGeneration(model, Accelerator(cpu=True), processor, mode="server", server_base_url=url)
    trainer = SimpleNamespace(
        vllm_generation=generation, model=model, state=SimpleNamespace(global_step=0), _last_loaded_step=0
    )
    rows = map(json.loads, pictures.read_text().splitlines())
    pairs = [(pictures.parent / row["filepath"], row["caption"]) for row in rows]
    loaded = asked_greedily(model, processor, profile, 8)
    found = engine.answers(trainer, loaded, pairs, profile.generation.max_new_tokens)
    out.write_text(json.dumps([answer.text for answer in found]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
