"""`sdg train` in processes of its own, for tests that need several of them or kill one."""

from __future__ import annotations

import json
import time
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import processes
import torch
import yaml
from safetensors.torch import load_file

from sdg.cli import main
from sdg.recipes import to_document
from sdg.training.recipe import Recipe
from sdg.training.run import last_checkpoint

CLOSE = 1e-5
"""Numbers of two runs that do the same: relative, for another process may add in another order."""


def _command(recipe: Recipe, out: Path) -> list[Any]:
    kind = type(recipe).__name__.removesuffix("Recipe").lower()
    settings = out.with_suffix(".yaml")
    settings.write_text(yaml.safe_dump(to_document(recipe)))
    return ["train", kind, str(settings), "--out", str(out)]


def start(recipe: Recipe, out: Path) -> ForkProcess:
    """`sdg train` by this recipe, with what the test has patched; its stderr is a file beside `out`."""
    return processes.start(*_command(recipe, out), stderr=out.with_suffix(".stderr"))


def start_two(recipe: Recipe, out: Path) -> ForkProcess:
    """The same by two processes that train together."""
    command = _command(recipe, out)
    return processes.torchrun(lambda: main(command), stderr=out.with_suffix(".stderr"))


def finish(process: ForkProcess, out: Path) -> str:
    """Wait for the end, which is to be a good one; what was said on stderr."""
    process.join()
    said = out.with_suffix(".stderr").read_text()
    assert process.exitcode == 0, said
    return said


def kill_after_a_checkpoint(process: ForkProcess, out: Path) -> int:
    """Kill the process as soon as there is a whole checkpoint; its number of steps."""
    deadline = time.monotonic() + 900
    while last_checkpoint(out) is None and time.monotonic() < deadline:
        assert process.exitcode is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.join()
    return int(Path(str(last_checkpoint(out))).name.removeprefix("checkpoint-"))


def not_ended(out: Path) -> dict[str, Any]:
    """Make a run that ended one that was killed before its end was written down; returns its manifest."""
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    del manifest["final"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    return manifest


def assert_same_weights(one: Path, other: Path) -> None:
    """Two checkpoints hold the same weights, rounding aside: a few steps move them much further."""
    weights, expected = (load_file(folder / "model.safetensors") for folder in (one, other))
    torch.testing.assert_close(weights, expected, rtol=CLOSE, atol=1e-5)
