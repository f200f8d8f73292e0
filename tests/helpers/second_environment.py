"""A virtual environment without torch, and a scorer that `sdg serve scorer` serves from it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(folder: Path) -> Path:
    """The Python of an environment of the core's dependencies; skips where there is no package index."""
    core = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    options = ["--quiet", "--no-compile", "--timeout", "10", "--retries", "1"]
    done = subprocess.run([python, "-m", "pip", "install", *options, *core], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1:]}")
    has = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert has.returncode != 0, "the environment is to have no torch"
    return python


@contextmanager
def serving(python: Path, function: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The `remote:` URI of a function of the helpers that this Python serves, and its process."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "helpers")])
    process = subprocess.Popen(
        [python, "-m", "sdg", "serve", "scorer", f"python:{function}", "--port", "0"],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        uri = said.rpartition(" ")[2].strip()
        assert uri.startswith("remote:http://127.0.0.1:"), said
        yield uri, process
    finally:
        process.kill()
        process.communicate()
