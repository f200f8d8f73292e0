"""`sdg train` in processes of its own, for tests that need several of them or kill one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from sdg.recipes import to_document
from sdg.training.recipe import Recipe
from sdg.training.run import last_checkpoint


def start(recipe: Recipe, out: Path, *, processes: int = 1, before: str = "") -> subprocess.Popen[Any]:
    """Train as the recipe says after running some code; stderr goes into a file beside `out`."""
    kind = type(recipe).__name__.removesuffix("Recipe").lower()
    script, settings = out.with_suffix(".py"), out.with_suffix(".yaml")
    script.write_text(f"{before}\nfrom sdg.cli import main\nmain()\n")
    settings.write_text(yaml.safe_dump(to_document(recipe)))
    launcher = [sys.executable]
    if processes > 1:
        torchrun = Path(sys.executable).with_name("torchrun")
        launcher = [str(torchrun), "--standalone", "--nproc_per_node", str(processes)]
    with out.with_suffix(".stderr").open("w") as stderr:
        return subprocess.Popen(
            [*launcher, script, "train", kind, settings, "--out", out],
            env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
            stderr=stderr,
        )


def finish(process: subprocess.Popen[Any], out: Path) -> str:
    """Wait for the end, which is to be a good one; what was said on stderr."""
    code = process.wait()
    said = out.with_suffix(".stderr").read_text()
    assert code == 0, said
    return said


def kill_after_a_checkpoint(process: subprocess.Popen[Any], out: Path) -> int:
    """Kill the process as soon as there is a whole checkpoint; its number of steps."""
    deadline = time.monotonic() + 900
    while last_checkpoint(out) is None and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    return int(Path(str(last_checkpoint(out))).name.removeprefix("checkpoint-"))
