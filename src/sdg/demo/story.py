"""The demo from first to last: pictures, diagnosis, scores, alignment, refinement, and one page of it all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from sdg._version import __version__
from sdg.demo.page import Story, write_page
from sdg.demo.part_alignment import align, compare
from sdg.demo.part_pictures import diagnose, draw, score
from sdg.demo.part_refinement import repair
from sdg.demo.settings import Settings
from sdg.demo.stages import Say, Stages, hush_libraries
from sdg.errors import SdgError
from sdg.io.files import write_text, writing
from sdg.reporting import Part

REPORT: Final = "report.html"
FOLDERS: Final = ("pictures", "alignment", "base", "aligned", "refined")  # base: of 0.1
FILES: Final = ("pictures.jsonl", "predictions.jsonl", "truth.jsonl", "scores.json", "comparison.json")
_MARK: Final = "demo.json"  # what a folder holds that the demo may write over


@dataclass(frozen=True, slots=True)
class Ending:
    """Where the report is, and what each part came to."""

    report: Path
    parts: Sequence[Part]

    @property
    def failed(self) -> list[Part]:
        """The parts that failed; the report names them too."""
        return [part for part in self.parts if part.state == "failed"]


def run_demo(settings: Settings, out: Path, say: Say) -> Ending:
    """Run every part, and write out/report.html with what each came to; say gets a line or two for each.

    A part that fails is told in the report, and those that need it are left out. What an earlier demo wrote
    to `out` is replaced, its report at the end and at once. Raises SdgError where `out` holds anything else
    or cannot be written.
    """
    _prepare(out, settings)
    hush_libraries()
    stages = Stages(6, say)
    drawn = stages.run("Pictures", partial(draw, settings, out))
    found = stages.run("Diagnosis", partial(diagnose, settings, out), drawn)
    scores = stages.run("SDG-Eval", partial(score, settings, out), drawn, found)
    run = stages.run("BoxFlow-NFT", partial(align, settings, out), found)
    aligned = stages.run("Aligned generator", partial(compare, settings, out), drawn, found)
    repaired = stages.run("Refinement", partial(repair, settings, out), drawn, found)
    write_page(settings, Story(drawn, found, scores, run, aligned, repaired), stages.parts, out / REPORT)
    return Ending(out / REPORT, stages.parts)


def _prepare(out: Path, settings: Settings) -> None:
    """Make the folder, or take what an earlier demo wrote out of it, its report excepted."""
    with writing(out):
        if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
            raise SdgError(f"{out} holds something that is no demo; name a new folder with --out.")
        document = {"version": __version__, "settings": asdict(settings)}
        write_text(out / _MARK, json.dumps(document, indent=2, default=str) + "\n")
        for name in FOLDERS:
            if (out / name).is_dir():
                shutil.rmtree(out / name)
        for name in FILES:
            (out / name).unlink(missing_ok=True)
