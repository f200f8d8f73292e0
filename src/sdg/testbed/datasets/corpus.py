"""The small analogue of SDG-30K: half injected pictures, half the generator's, annotated by the oracle.

The generator comes in four variants, which differ in their sampling steps as the paper's four generators do
in quality; `generator` is "injected", "testbed-4", … (SDG §3.3, App. A). The splits share no prompt content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sdg._version import __version__
from sdg.records import Record
from sdg.testbed.datasets import injected as dataset
from sdg.testbed.datasets.folder import building, image_path
from sdg.testbed.oracle import diagnose_all
from sdg.testbed.world.prompts import Split, parse_prompt, phrase, sample_request, split_of

if TYPE_CHECKING:
    from diffusers import FluxPipeline

VARIANTS: Final = (4, 8, 12, 20)
"""Sampling steps of the generator's variants."""
MOST_DEFECTS: Final = 4
"""Defects annotated on a picture, the most important ones, so that a target fits the small detector."""
ANNOTATOR: Final = "oracle"

Drawn = tuple[NDArray[np.uint8], Record]
"""A picture (H, W, 3) and its annotation."""


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """Everything the bytes of a corpus depend on; `weights` is the generator's fingerprint."""

    count: int
    seed: int
    weights: str
    variants: tuple[int, ...] = VARIANTS
    injected: bool = True  # every second picture
    version: str = __version__


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """A picture to be generated: its number in the data set, its prompt, the sampling steps."""

    number: int
    prompt: str
    steps: int


def generate_corpus(
    out: str | os.PathLike[str],
    count: int,
    *,
    pipeline: Path | None = None,
    injected: bool = True,
    seed: int = 0,
    max_minutes: float | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[Split, int] | None:
    """Write a corpus of `count` pictures to the new folder `out`; returns the pictures of each split.

    pipeline: folder of the generator, by default the packaged one; without `injected` it draws all pictures.
    on_progress is told how many pictures are done. None where max_minutes ended it early; the same call then
    goes on where it stopped. The bytes are the same for a seed on one machine with one number of threads;
    others may round the generator's sums differently. Raises SdgError as `building` and `load_generator` do.
    """
    from sdg.testbed.models.packaged import GENERATOR, load_generator

    if count < 1:
        raise ValueError("A corpus needs at least one picture.")
    generator = load_generator(pipeline)
    settings = CorpusSettings(count, seed, fingerprint(pipeline or GENERATOR), injected=injected)
    with building(out, count, asdict(settings)) as unfinished:
        draw = partial(draw_chunk, generator, settings)
        return unfinished.fill(draw, max_minutes=max_minutes, on_progress=on_progress)


def draw_chunk(pipeline: FluxPipeline, settings: CorpusSettings, numbers: Iterable[int]) -> Iterator[Drawn]:
    """Pictures of these numbers, in order: even ones injected, odd ones by the generator's variants in turn.

    Without `settings.injected` the generator draws the even ones too. The injected picture of a number is
    that of `sdg testbed generate` with the same seed.
    """
    numbers = list(numbers)
    by_generator = [number for number in numbers if number % 2 or not settings.injected]
    wanted = [picture_request(settings, number) for number in by_generator]
    generated = draw_generated(pipeline, wanted, settings.seed, most=MOST_DEFECTS)
    recipe = dataset.InjectedSettings(settings.count, settings.seed, "core", 128)
    for number in numbers:
        if number % 2 or not settings.injected:
            yield next(generated)
        else:
            drawn = dataset.draw(recipe, number)
            yield drawn.picture, dataset.to_record(drawn, image_path(number))


def picture_request(settings: CorpusSettings, number: int) -> PictureRequest:
    """What the generator is asked for as picture `number`."""
    rng = np.random.default_rng([settings.seed, number])
    prompt = phrase(sample_request(rng), rng)
    return PictureRequest(number, prompt, settings.variants[number // 2 % len(settings.variants)])


def draw_generated(
    pipeline: FluxPipeline, wanted: Sequence[PictureRequest], seed: int, *, most: int | None = None
) -> Iterator[Drawn]:
    """Generate pictures and let the oracle annotate them; those of one number of steps are drawn together.

    most: keep only so many defects of a picture, the most important ones.
    """
    from sdg.testbed.models.generator.sampling import sample_pictures

    pictures: dict[int, NDArray[np.uint8]] = {}
    for steps in sorted({one.steps for one in wanted}):
        alike = [one for one in wanted if one.steps == steps]
        drawn = sample_pictures(
            pipeline,
            [one.prompt for one in alike],
            steps=steps,
            seed=seed,
            numbers=[one.number for one in alike],
        )
        pictures |= {one.number: np.asarray(picture) for one, picture in zip(alike, drawn, strict=True)}
    cases = ((pictures[one.number], one.prompt) for one in wanted)
    for one, diagnosis in zip(wanted, diagnose_all(cases, workers=1, most=most), strict=True):
        record = Record(
            image_path(one.number),
            one.prompt,
            diagnosis,
            generator=f"testbed-{one.steps}",
            split=split_of(parse_prompt(one.prompt)),
            annotator=ANNOTATOR,
        )
        yield pictures[one.number], record


def fingerprint(pipeline: Path) -> str:
    """Sixteen hexadecimal digits that tell one generator's weights from another's."""
    digest = hashlib.sha256()
    for file in sorted(pipeline.rglob("*.safetensors")):
        digest.update(file.relative_to(pipeline).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def fingerprints(pipeline: Path | None, lora: Path | None) -> dict[str, str | None]:
    """What tells a generator, by default the packaged one, and its adapter from others."""
    from sdg.testbed.models.packaged import GENERATOR

    return {
        "weights": fingerprint(pipeline or GENERATOR),
        "lora": None if lora is None else fingerprint(lora),
    }
