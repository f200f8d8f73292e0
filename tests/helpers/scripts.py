"""Loads the scripts of benchmarks/, which are no package, and runs what they run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import TextIO

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    """The script benchmarks/NAME.py as a module."""
    specification = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # where dataclasses look for it
    specification.loader.exec_module(module)
    return module


def forked(
    command: list[str], *, stdout: TextIO, stderr: TextIO, env: dict[str, str]
) -> CompletedProcess[str]:
    """`subprocess.run` of `python -m sdg …` in a fork, which has what the test has patched.

    What is to be started by torchrun is one process here.
    """
    import processes  # late: it loads diffusers

    assert command[:2] == [sys.executable, "-m"]
    process = processes.start(*command[command.index("sdg") + 1 :], stderr=Path(stderr.name))
    process.join()
    return CompletedProcess(command, process.exitcode or 0)
