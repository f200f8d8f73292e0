"""`sdg train` in processes of its own, for tests that need several of them or kill one."""

from __future__ import annotations

import json
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

CLOSE = 1e-5
"""Numbers of two runs that do the same: relative, for another process may add in another order."""


def command(recipe: Recipe, out: Path) -> list[Any]:
    """The words after `sdg` that train by this recipe, which is written beside `out`."""
    kind = type(recipe).__name__.removesuffix("Recipe").lower()
    settings = out.with_suffix(".yaml")
    settings.write_text(yaml.safe_dump(to_document(recipe)))
    return ["train", kind, str(settings), "--out", str(out)]


def start(recipe: Recipe, out: Path) -> ForkProcess:
    """`sdg train` by this recipe, with what the test has patched; its stderr is a file beside `out`."""
    return processes.start(*command(recipe, out), stderr=out.with_suffix(".stderr"))


def start_two(recipe: Recipe, out: Path) -> ForkProcess:
    """The same by two processes that train together."""
    words = command(recipe, out)
    return processes.torchrun(lambda: main(words), stderr=out.with_suffix(".stderr"))


def finish(process: ForkProcess, out: Path) -> str:
    """Wait for the end, which is to be a good one; what was said on stderr."""
    process.join()
    said = out.with_suffix(".stderr").read_text()
    assert process.exitcode == 0, said
    return said


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
