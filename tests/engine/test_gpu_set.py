"""The extra `gpu` can be installed: pip finds one set of versions for all that GRPO by vLLM needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
SHOWN = ("vllm", "torch", "transformers", "trl", "accelerate", "peft", "diffusers", "datasets")


def index_is_reachable(python: str) -> bool:
    found = subprocess.run([python, "-m", "pip", "index", "versions", "trl"], capture_output=True)
    return found.returncode == 0


@pytest.mark.engine
def test_pip_finds_versions_for_the_extra_gpu() -> None:
    if not os.environ.get("SDG_GPU_SET"):
        pytest.skip("asks the package index for minutes: make gpu-set")
    if not index_is_reachable(sys.executable):
        pytest.skip("the package index is out of reach")
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(one for name in ("models", "api", "train", "gpu") for one in extras[name]),
    ]
    words = ["install", "--dry-run", "--ignore-installed", "--quiet", "--no-input", "--report", "-", *wanted]
    pip = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert pip.returncode == 0, pip.stderr[-3000:]
    install = json.loads(pip.stdout)["install"]
    found = {one["metadata"]["name"].lower(): one["metadata"]["version"] for one in install}
    print("\n" + "\n".join(f"{name}=={found[name]}" for name in SHOWN))
