"""Parts 4 and 5: a few steps of BoxFlow-NFT, by the recipe and the trainer of `sdg align`; then what the
shipped adapter changes: the same prompts and noise, with and without it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sdg.defects import Diagnosis
from sdg.demo.part_pictures import Drawn, Found, draw_pictures
from sdg.demo.settings import Settings, demo_recipe
from sdg.demo.stages import LeftOut, watched
from sdg.images import save_image
from sdg.io.files import write_text
from sdg.reporting import AlignmentRun, Refinement, read_run
from sdg.testbed.models.packaged import ALIGNED
from sdg.testbed.oracle import diagnose_all

FOLDER: Final = "alignment"
NAME: Final = "aligned (shipped)"


def align(settings: Settings, folder: Path, found: Found) -> tuple[AlignmentRun, str]:
    """Train in folder/alignment; the run as a section of the report. `found` says that a detector works."""
    from sdg.alignment.trainer import align as train

    recipe = demo_recipe(settings)
    train(recipe, folder / FOLDER)
    run = read_run(folder / FOLDER)
    epochs = [line for line in run.lines if line["kind"] == "train"]
    samples = sum(line["samples"] for line in epochs)
    told = (
        f"{settings.steps} optimizer {'step' if settings.steps == 1 else 'steps'} on {samples:,} pictures in "
        f"{len(epochs)} {'epoch' if len(epochs) == 1 else 'epochs'}: enough to see how it works, too few "
        "to tell by the few pictures watched whether the generator is better."
    )
    return run, told


@dataclass(frozen=True)
class Aligned:
    """Base and aligned pictures: the table of `sdg align compare`, and pairs for sliders."""

    comparison: dict[str, Any]
    pairs: Sequence[Refinement]


def compare(settings: Settings, folder: Path, drawn: Drawn, found: Found) -> tuple[Aligned, str]:
    """Draw the same pictures with the adapter, into folder/aligned, and measure both.

    The boxes of the pairs are the oracle's, which took no part in the adapter's training. Raises LeftOut
    where this build ships without an adapter, or with one of another generator.
    """
    from sdg.alignment.compare import BASE, tabulate
    from sdg.alignment.monitors import Measures, defect_measures, measure_pictures
    from sdg.scorers.weighted import load_reward
    from sdg.testbed.models.packaged import load_generator

    if not settings.aligned.is_dir():
        raise LeftOut("This build ships without an aligned adapter, so there is nothing to compare.")
    if settings.pipeline is not None and settings.aligned == ALIGNED:
        raise LeftOut("The shipped adapter belongs to the embedded generator, and another one was named.")
    recipe = demo_recipe(settings)
    pipeline = load_generator(settings.pipeline, lora=settings.aligned)
    aligned = draw_pictures(pipeline, drawn.prompts, settings.seed, "drawing with the adapter")
    for file, picture in zip(drawn.names, aligned, strict=True):
        save_image(picture, folder / "aligned" / Path(file).name)
    pictures = {BASE: drawn.pictures, NAME: aligned}
    detected = {
        BASE: found.diagnoses,
        NAME: found.detector.diagnose(list(zip(aligned, drawn.prompts, strict=True))),
    }
    scorers = {"reward": load_reward(recipe.reward.scorers, "cpu")}
    rows: dict[str, list[Measures]] = {}
    seen: dict[str, list[Diagnosis]] = {}
    for name, of_name in pictures.items():
        cases = diagnose_all(zip(of_name, drawn.prompts, strict=True), workers=1)
        seen[name] = list(watched(cases, len(of_name), "measuring"))
        rows[name] = measure_pictures(of_name, drawn.prompts, scorers, {})
        for row, by_detector, by_oracle in zip(rows[name], detected[name], seen[name], strict=True):
            row |= defect_measures("detector", by_detector) | defect_measures("oracle", by_oracle)
    comparison = asdict(tabulate(rows, ["reward"], seed=settings.seed))
    write_text(folder / "comparison.json", json.dumps(comparison, indent=1) + "\n")
    pairs = [
        Refinement(name, prompt, before, changed, *diagnoses)
        for name, prompt, before, changed, *diagnoses in zip(
            drawn.names, drawn.prompts, *pictures.values(), seen[BASE], seen[NAME], strict=True
        )
    ]
    counts = [sum(len(diagnosis.defects) for diagnosis in of) for of in seen.values()]
    told = f"With the shipped adapter the oracle counts {counts[1]} defects in {len(drawn.prompts)} "
    told += f"pictures, without it {counts[0]}{_change(comparison)}."
    return Aligned(comparison, pairs), told


def _change(comparison: dict[str, Any]) -> str:
    """The paired change with its interval, in words; "" where there was nothing to change."""
    cell = comparison["cells"][NAME]["oracle/defects"]
    if cell["change"] is None or cell["change_interval"] is None:
        return ""
    low, high = (f"{100 * end:+.0f}".replace("-", "−") for end in cell["change_interval"])
    change = f"{100 * cell['change']:+.0f}".replace("-", "−")
    return f": {change} %, 95 % interval {low} to {high} %"
