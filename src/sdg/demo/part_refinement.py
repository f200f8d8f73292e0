"""Part 6: the worst pictures are edited where the detector says so, and diagnosed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdg.defects import Diagnosis
from sdg.demo.part_pictures import SAMPLING_STEPS, Drawn, Found
from sdg.demo.settings import Settings
from sdg.demo.stages import watched
from sdg.errors import SdgError
from sdg.images import save_image
from sdg.refinement import Outcome, refine, severity
from sdg.reporting import Refinement
from sdg.testbed.oracle import diagnose as judge

ROUNDS: Final = 3
CANDIDATES: Final = 2


@dataclass(frozen=True)
class Repaired:
    """The refined pictures, and how many defects the oracle counts in them, before and after."""

    items: Sequence[Refinement] = ()
    before: int = 0
    after: int = 0


def repair(settings: Settings, folder: Path, drawn: Drawn, found: Found) -> tuple[Repaired, str]:
    """Refine the pictures that the detector finds worst; pictures go to folder/refined.

    Detector and editor never see what the oracle counts before and after. Raises SdgError where not one edit
    could be made or judged.
    """
    from diffusers import FluxInpaintPipeline

    from sdg.refinement import DiffusersEditor

    pipeline = FluxInpaintPipeline.from_pipe(drawn.pipeline)
    pipeline.set_progress_bar_config(disable=True)
    editor = DiffusersEditor(pipeline, steps=SAMPLING_STEPS, stochastic=True)
    chosen = worst(found.diagnoses, settings.refined)
    if not chosen:
        return Repaired(), "The detector found nothing to refine."
    shown: list[Refinement] = []
    counts, changed, failed = [], [], []
    for number in watched(chosen, len(chosen), "refining"):
        picture, prompt, name = drawn.pictures[number], drawn.prompts[number], drawn.names[number]
        result = refine(
            picture,
            prompt,
            detector=found.detector,
            editor=editor,
            rounds=ROUNDS,
            candidates=CANDIDATES,
            seed=settings.seed,
        )
        save_image(result.picture, folder / "refined" / Path(name).name)
        kept = result.picture if result.outcome in (Outcome.CLEAN, Outcome.IMPROVED) else None
        before, after = (len(judge(image, prompt).defects) for image in (picture, result.picture))
        counts.append((len(result.before.defects), len(result.diagnosis.defects), before, after))
        changed.append(result.changed)
        if result.outcome is Outcome.FAILED:
            failed.append(result.stopped)
        told = f"{result.outcome.value}; by the oracle {before} → {after} defects"
        shown.append(
            Refinement(
                name,
                prompt,
                picture,
                kept,
                result.before,
                result.diagnosis if kept else None,
                max((attempt.round for attempt in result.attempts), default=0),
                result.changed,
                told,
                result.stopped,
            )
        )
    if len(failed) == len(chosen):
        raise SdgError(f"No edit could be made or judged: {failed[0]}")
    sums = [sum(column) for column in zip(*counts, strict=True)]
    return Repaired(shown, sums[2], sums[3]), (
        f"The {len(chosen)} worst pictures: {sums[0]} → {sums[1]} defects by the detector, "
        f"{sums[2]} → {sums[3]} by the oracle, which took no part; "
        f"{100 * sum(changed) / len(changed):.0f} % of their pixels changed."
    )


def worst(diagnoses: Sequence[Diagnosis], count: int) -> list[int]:
    """Numbers of the pictures whose defects weigh most, worst first; clean and unknown ones never."""
    weights = {number: severity(diagnosis) for number, diagnosis in enumerate(diagnoses)}
    ranked = sorted((number for number in weights if weights[number]), key=lambda n: -(weights[n] or 0))
    return ranked[:count]
