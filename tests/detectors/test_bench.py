"""The benchmark of `sdg diagnose` times runs that worked; one that failed gives no number."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "bench_diagnose.py"
specification = importlib.util.spec_from_file_location("bench_diagnose", PATH)
assert specification is not None
assert specification.loader is not None
bench = importlib.util.module_from_spec(specification)
specification.loader.exec_module(bench)


def test_a_run_that_fails_gives_no_time(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sdg", "diagnose", str(tmp_path / "none.png"), "--prompt", "a cup"]
    with pytest.raises(SystemExit, match=r"ended with 1: sdg: .*none\.png does not exist"):
        bench.cold(command)
    assert bench.cold([sys.executable, "-c", ""]) > 0


def test_scenes_are_what_the_command_reads(tmp_path: Path) -> None:
    pairs = bench.scenes(tmp_path)
    assert len(pairs) == bench.PICTURES
    assert all(path.exists() and prompt for path, prompt in pairs)
