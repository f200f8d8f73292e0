"""The demo's page: every part of the story that came to something, under a summary of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdg._version import __version__
from sdg.demo.part_alignment import Aligned
from sdg.demo.part_pictures import Drawn, Found
from sdg.demo.part_refinement import Repaired
from sdg.demo.settings import EMBEDDED, Settings
from sdg.reporting import (
    AlignmentRun,
    Entry,
    Gallery,
    Part,
    Refinements,
    Report,
    Scores,
    Summary,
    write_report,
)
from sdg.reporting.page import Section


@dataclass(frozen=True)
class Story:
    """What the parts gave; None where one did not succeed."""

    drawn: Drawn | None
    found: Found | None
    scores: dict[str, Any] | None
    run: AlignmentRun | None
    aligned: Aligned | None
    repaired: Repaired | None


def write_page(settings: Settings, story: Story, parts: Sequence[Part], path: Path) -> Path:
    """Write the report; parts that failed or were left out are named in its summary."""
    note = (
        f"Everything here was computed in one run of sdg demo (version {__version__}, seed {settings.seed}), "
        "except the weights of the small models and what is labelled as shipped."
    )
    return write_report(
        Report("Structured defects, from picture to repair", sections(settings, story, parts), note), path
    )


def sections(settings: Settings, story: Story, parts: Sequence[Part]) -> list[Section]:
    """The sections in the order of the story."""
    found: list[Section] = [Summary(facts(story), parts, "In short")]
    if story.drawn is not None:
        found.append(_gallery(settings, story.drawn, story.found))
    if story.scores is not None:
        found.append(_scores(story.scores))
    if story.run is not None:
        found.append(_run(story.run))
    if story.aligned is not None:
        found += _aligned(story.aligned)
    if story.repaired is not None and story.repaired.items:
        found.append(
            Refinements(
                story.repaired.items,
                "Refinement of the worst pictures",
                "Only what lies in a box may change. The boxes are the detector's; the oracle, which took no "
                "part, counts once more. Drag the slider from before, left, to after, right.",
            )
        )
    return found


def facts(story: Story) -> list[tuple[str, str]]:
    """The headline: (number, what it counts)."""
    numbers: list[tuple[str, str]] = []
    if story.drawn is not None:
        numbers.append((str(len(story.drawn.pictures)), "pictures drawn"))
    if story.found is not None:
        total = sum(len(diagnosis.defects) for diagnosis in story.found.diagnoses)
        numbers.append((str(total), "defects found"))
    if story.scores is not None:
        for kind, values in story.scores["metrics"].items():
            if values["BoxF1@0.1"] is not None:
                numbers.append((f"{values['BoxF1@0.1']:.2f}", f"BoxF1@0.1, {kind}s"))
    if story.repaired is not None and story.repaired.items:
        counts = f"{story.repaired.before} → {story.repaired.after}"
        numbers.append(
            (counts, f"defects in the {len(story.repaired.items)} refined pictures, by the oracle")
        )
    return numbers


def _gallery(settings: Settings, drawn: Drawn, found: Found | None) -> Gallery:
    diagnoses = [None] * len(drawn.pictures) if found is None else found.diagnoses
    entries = [
        Entry(name, prompt, diagnosis, None, picture)
        for name, prompt, diagnosis, picture in zip(
            drawn.names, drawn.prompts, diagnoses, drawn.pictures, strict=True
        )
    ]
    by = "the embedded detector" if settings.detector == EMBEDDED else settings.detector
    note = (
        ""
        if found is None
        else f"Drawn by the small generator, diagnosed by {by}: where, what, why, how much."
    )
    return Gallery(entries, "Diagnosed pictures", note)


def _scores(document: dict[str, Any]) -> Scores:
    images = document["status"]["evaluated"]
    return Scores(
        [("detector", document)],
        "How good is the detector?",
        "Against the oracle, which measures pictures of this world by classical vision. 1 is best "
        "everywhere. DetTypeF1 asks whether a picture has a defect of the type at all, ClnAcc whether one "
        "without is left alone, BoxF1 whether the boxes lie where the oracle's do, DescCos and ImpAcc "
        "whether reason and importance agree where they do. The lines are 95 % intervals: with "
        f"{images} pictures they are wide, and a value anywhere on its line is plausible.",
    )


def _run(run: AlignmentRun) -> AlignmentRun:
    note = (
        "What is trained is an adapter of the generator; the detector's boxes lower the reward where the "
        "defects lie. The oracle (oracle/…) judges held-out prompts and is no reward. So few steps move "
        "these curves by chance only; what there is to see is in the figures: what the reward says, place by "
        "place."
    )
    return replace(run, title="A few steps of BoxFlow-NFT", note=note)


def _aligned(aligned: Aligned) -> list[Section]:
    table = AlignmentRun(
        (),
        comparison=aligned.comparison,
        title="Aligned generator (shipped adapter)",
        note="The shipped adapter was trained before, by the same recipe at full length; it is no result of "
        "this run, but the pictures and measures are. Both generators had the same prompts and noise.",
    )
    pairs = Refinements(
        aligned.pairs,
        "Without and with the shipped adapter",
        "The same prompt and noise, without the adapter on the left and with it on the right. The boxes are "
        "the oracle's.",
    )
    return [table, pairs]
