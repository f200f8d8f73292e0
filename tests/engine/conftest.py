"""A real vLLM, from the environment that SDG_ENGINE names; without it these tests are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from vllm_server import VllmServer

import sdg


@pytest.fixture(scope="session")
def python() -> str:
    """The interpreter of the environment that `tests/engine/prepare_vllm.py` made."""
    folder = os.environ.get("SDG_ENGINE")
    if not folder:
        pytest.skip("SDG_ENGINE names no environment with vLLM: make engine-test")
    return str(Path(folder).absolute() / "bin" / "python")


@pytest.fixture(scope="session")
def surroundings() -> dict[str, str]:
    """Variables for processes of that environment: our sources, no network, little memory."""
    return {
        **os.environ,
        "PYTHONPATH": str(Path(sdg.__file__).parents[1]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }


@pytest.fixture(scope="session")
def server(
    python: str, surroundings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    server = VllmServer(python, surroundings, tmp_path_factory.mktemp("vllm") / "server.log")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSON Lines file of 40 testbed pictures with their prompts and defects."""
    folder = tmp_path_factory.mktemp("pictures") / "shapes"
    words = [sys.executable, "-m", "sdg", "testbed", "generate", "--count", "40", "--seed", "5"]
    subprocess.run([*words, "--out", str(folder), "--workers", "1"], check=True)
    parts = [(folder / f"{part}.jsonl").read_text() for part in ("train", "validation", "test")]
    (folder / "all.jsonl").write_text("".join(parts))
    assert len("".join(parts).splitlines()) == 40
    return folder / "all.jsonl"
