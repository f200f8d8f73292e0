"""A detector and an editor of `sdg refine` as servers on 127.0.0.1, and pictures to give to both."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import processes
from bad_server import Reply, Server, completion
from PIL import Image

import sdg
from sdg import Defect, Diagnosis

SIZE = (48, 32)


def detector() -> Server:
    """Finds one defect, over the whole picture, as important as its first pixel is red; black is clean."""

    def behave(red: int, attempt: int) -> Reply:
        importance = -(-red * 100 // 255)
        found = (Defect((0, 0, 1000, 1000), "artifact", "too bright", importance),) if red else ()
        return completion(sdg.render_response(Diagnosis(found, "a look")))

    return Server(behave)


def pictures(folder: Path, **levels: int) -> Path:
    """A JSON Lines file of grey pictures with their prompts, `of NAME`."""
    rows = []
    for name, level in levels.items():
        Image.new("RGB", SIZE, (level,) * 3).save(folder / f"{name}.png")
        rows.append(json.dumps({"filepath": f"{name}.png", "caption": f"of {name}"}))
    (folder / "in.jsonl").write_text("\n".join(rows))
    return folder / "in.jsonl"


def refine(folder: Path, *arguments: str) -> CompletedProcess[str]:
    """What `sdg refine` of in.jsonl says and how it ends."""
    return processes.run("refine", "in.jsonl", *arguments, folder=folder)


def rows(out: Path) -> list[dict]:
    """The lines of refinements.jsonl."""
    return [json.loads(line) for line in (out / "refinements.jsonl").read_text().splitlines()]
