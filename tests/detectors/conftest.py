"""Makes `toy_qwen3vl` importable here, and in processes that tests start, and teaches it once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that babbles: no end token, no blocks."""
    import toy_qwen3vl

    folder = tmp_path_factory.mktemp("untaught")
    toy_qwen3vl.build(folder, steps=0)
    return folder


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows its six pictures; takes some seconds, so only slow tests use it."""
    import toy_qwen3vl

    folder = tmp_path_factory.mktemp("taught")
    toy_qwen3vl.build(folder)
    return folder
