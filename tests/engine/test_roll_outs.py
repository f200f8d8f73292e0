"""GRPO with roll-outs by a real vLLM: the right tokens, a first ratio of 1, well-formed answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "recipes" / "detector" / "grpo-testbed.yaml"


def test_roll_outs_are_scored_as_they_were_sampled(
    python: str, surroundings: dict[str, str], pictures: Path, tmp_path: Path
) -> None:
    words = [python, str(HERE / "roll_out.py"), str(RECIPE), str(pictures.parent), str(tmp_path / "run")]
    subprocess.run(words, env=surroundings, check=True)
    seen = json.loads((tmp_path / "run" / "seen.json").read_text())
    assert len(seen["ratios"]) == 2 * 16, "each completion of two steps"
    print(f"\nlargest |ratio - 1|: {max(seen['ratios']):.1e}")
    assert max(seen["ratios"]) < 1e-3
    steps = [entry for entry in seen["log"] if "loss" in entry]
    assert len(steps) == 2
    assert all(entry["sdg/malformed"] < 0.5 and entry["grad_norm"] > 0 for entry in steps)
    start, end = (entry for entry in seen["log"] if "eval_well_formed" in entry)
    assert start["eval_well_formed"] == end["eval_well_formed"] == 1.0
