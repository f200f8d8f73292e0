"""A folder of the generator's pictures (`sdg testbed sample`), drawn in batches and resumable.

OUT/000000.png …    OUT/pictures.jsonl (what was asked for)    OUT/settings.json
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from sdg.data.formats import write_records
from sdg.errors import SdgError
from sdg.io.files import atomic_writer
from sdg.records import Record
from sdg.runs.begin import begin
from sdg.testbed.world.prompts import parse_prompt

if TYPE_CHECKING:
    from diffusers import FluxPipeline

BATCH: Final = 16
"""Pictures drawn at a time."""


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise SdgError for a prompt that is not of the testbed's world."""
    for prompt in prompts:
        try:
            parse_prompt(prompt)
        except ValueError as error:
            raise SdgError(f'{error} Say it as in "Two blue stars on a white background".') from None


def draw_folder(
    pipeline: FluxPipeline,
    prompts: Sequence[str],
    out: Path,
    *,
    steps: int,
    seed: int,
    weights: Mapping[str, str | None] | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Draw one picture a prompt into a folder; returns how many are drawn, fewer if max_minutes ended it.

    weights: fingerprints that tell the pipeline from others. resume: keep the batches that lie there
    already. Raises SdgError where the folder holds something and is not to be resumed, holds pictures of
    other prompts, settings or weights, or cannot be written.
    """
    from sdg.testbed.models.generator.sampling import sample_pictures

    settings = {"steps": steps, "seed": seed, **(weights or {}), "prompts": list(prompts)}
    with begin(out, out / "settings.json", settings, resume=resume):
        paths = [f"{number:06d}.png" for number in range(len(prompts))]
        began, done = monotonic(), 0
        for first in range(0, len(prompts), BATCH):
            numbers = range(first, min(first + BATCH, len(prompts)))
            if not all((out / paths[number]).exists() for number in numbers):
                if max_minutes is not None and monotonic() - began > 60 * max_minutes:
                    return done
                texts = [prompts[number] for number in numbers]
                drawn = sample_pictures(pipeline, texts, steps=steps, seed=seed, numbers=numbers)
                for number, picture in zip(numbers, drawn, strict=True):
                    with atomic_writer(out / paths[number]) as file:
                        picture.save(file, "PNG")
            done = numbers.stop
            if on_progress is not None:
                on_progress(done)
        records = (Record(p, t, generator=f"testbed-{steps}") for p, t in zip(paths, prompts, strict=True))
        write_records(out / "pictures.jsonl", records, "sdg")
        return done
