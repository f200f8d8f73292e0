"""`sdg diagnose` of 64 pictures: cold from the command line, then loaded, against a plain `generate` loop.

Run: python benchmarks/bench_diagnose.py [CHECKPOINT]
Without a folder: the packaged weights, else untrained ones of the same size that write 120 tokens each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

import sdg
from sdg.models import batching as shrinking
from sdg.prompting import Generation, PromptProfile
from sdg.testbed.injection.sample import sample
from sdg.testbed.models.packaged import DETECTOR

PICTURES = 64
BATCHES = (1, 4, 16, 64)
WORDS = "a an two three four red green blue circle square triangle left right of above below"


def untrained(folder: Path) -> Path:
    from sdg.testbed.models.detector.build import new_model, new_processor, new_tokenizer

    profile = PromptProfile(template="caption: {caption}", generation=Generation(max_new_tokens=120))
    tokenizer = new_tokenizer([WORDS, str(profile.template)])
    new_model(tokenizer).save_pretrained(folder)
    new_processor(tokenizer).save_pretrained(folder)
    profile.save(folder)
    return folder


def scenes(folder: Path) -> list[tuple[Path, str]]:
    """Pictures of the testbed's world, clean and not, written to a folder, and their prompts."""
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(PICTURES):
        drawn = sample(rng)
        path = folder / f"{number:02}.png"
        Image.fromarray(drawn.picture).save(path)
        pairs.append((path, drawn.prompt))
    rows = [json.dumps({"filepath": path.name, "caption": prompt}) for path, prompt in pairs]
    (folder / "in.jsonl").write_text("\n".join(rows))
    return pairs


def plain_loop(checkpoint: Path, pairs: list[tuple[Path, str]]) -> float:
    """Seconds of the loop that a model card shows: one picture after the other through `generate`."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    profile = PromptProfile.load(checkpoint)
    processor: Any = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    began = time.perf_counter()
    for path, prompt in pairs:
        text = processor.apply_chat_template(profile.render(prompt), add_generation_prompt=True)
        inputs = processor(images=[Image.open(path).convert("RGB")], text=[text], return_tensors="pt")
        limit = profile.generation.max_new_tokens
        model.generate(**inputs, max_new_tokens=limit, do_sample=False)
    return time.perf_counter() - began


def cold(command: list[str]) -> float:
    """Seconds of a command from start to end; one that fails ends the benchmark with what it said."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return time.perf_counter() - began


def diagnosed(detector: Any, pairs: list[tuple[Path, str]]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    detector.diagnose(pairs)
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if len(sys.argv) > 1:
            checkpoint = Path(sys.argv[1])
        else:
            checkpoint = DETECTOR if DETECTOR.is_dir() else untrained(folder / "untrained")
        pairs = scenes(folder)
        command = [sys.executable, "-m", "sdg", "diagnose", str(folder / "in.jsonl")]
        command += ["--detector", str(checkpoint), "--device", "cpu", "--out", str(folder / "out.jsonl")]
        took = cold([*command, "--batch-size", str(PICTURES)])
        print(f"sdg diagnose, cold, {PICTURES} pictures    {took:6.1f} s")
        loop = plain_loop(checkpoint, pairs)
        print(f"plain generate loop              {loop / PICTURES:8.3f} s a picture")
        for batch_size in BATCHES:
            detector = sdg.load_detector(str(checkpoint), device="cpu", batch_size=batch_size)
            took = diagnosed(detector, pairs)
            with mock.patch.object(shrinking, "SMALLEST", PICTURES + 1):  # answers wait for the longest
                together = diagnosed(detector, pairs)
            print(
                f"loaded, batches of {batch_size:<2}            {took / PICTURES:8.3f} s a picture, "
                f"{loop / took:.1f} × the loop, {together / took:.2f} × batches that stay together"
            )


if __name__ == "__main__":
    main()
