"""How good the testbed's small models are: the generator by the oracle, the scorer by retrieval.

The oracle counts per picture. Several pictures of one prompt are not independent, so intervals come from
resampling prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sdg._version import __version__
from sdg.data.formats.sdg30k import read_annotations
from sdg.defects import DefectType
from sdg.evaluation.resampling import bootstrap_sums, interval
from sdg.records import Record
from sdg.runs.begin import read_settings, refuse_changes
from sdg.tables import Table
from sdg.testbed.datasets.corpus import Drawn, PictureRequest, draw_generated, fingerprints
from sdg.testbed.datasets.folder import MANIFEST, building

if TYPE_CHECKING:
    from diffusers import FluxPipeline

RESAMPLES: Final = 2000
TIMED: Final = 16
"""Pictures in the batch whose drawing is timed."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something is seen: share of the pictures, its 95 % interval, mean number a picture.

    type: of the defect, None for "clean"; a name that equals its type stands for all of that type.
    """

    name: str
    type: str | None
    share: float
    low: float
    high: float
    per_picture: float


@dataclass(frozen=True, slots=True)
class GeneratorQuality:
    """The generator on held-out prompts; seconds is for `TIMED` pictures at once, None where not timed."""

    prompts: int
    pictures: int
    steps: int
    seconds: float | None
    rates: tuple[Rate, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def table(self) -> str:
        """The rates as a Markdown table."""
        said = (
            f"{self.pictures:,} pictures of {self.prompts:,} held-out prompts, {self.steps} sampling steps, "
            "judged by the oracle."
        )
        rows = []
        for rate in self.rates:
            name = f"**{rate.name}**" if rate.type in (None, rate.name) else rate.name
            number = "" if rate.type is None else f"{rate.per_picture:.2f}"
            bounds = f"{100 * rate.low:.1f}–{100 * rate.high:.1f} %"
            rows.append((name, f"{100 * rate.share:.1f} %", bounds, number))
        table = Table("", ("", "pictures with it", "95 % interval", "per picture"), tuple(rows))
        time = [] if self.seconds is None else [f"{TIMED} pictures take {self.seconds:.1f} s."]
        return "\n\n".join([said, table.markdown(), *time])


@dataclass(frozen=True, slots=True)
class ScorerQuality:
    """The scorer's retrieval accuracy on held-out scenes, with 95 % (Wilson) intervals, by task."""

    scenes: int
    accuracy: dict[str, tuple[float, float, float]]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; an accuracy is [share, low, high]."""
        return asdict(self)

    def table(self) -> str:
        """The accuracies as a Markdown table."""
        rows = tuple(
            (task, f"{100 * share:.1f} %", f"{100 * low:.1f}–{100 * high:.1f} %")
            for task, (share, low, high) in self.accuracy.items()
        )
        table = Table("", ("picking the prompt", "right", "95 % interval"), rows)
        return f"{self.scenes:,} held-out scenes.\n\n{table.markdown()}"


def measure_generator(
    out: Path,
    *,
    pipeline: Path | None = None,
    lora: Path | None = None,
    prompts: int = 500,
    seeds: int = 2,
    steps: int = 20,
    seed: int = 0,
    max_minutes: float | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> GeneratorQuality | None:
    """Draw `seeds` pictures of each of `prompts` held-out prompts, let the oracle judge them, and count.

    The pictures and the oracle's annotations are kept in `out`, a data set folder; the same call goes on with
    an interrupted one and counts a complete one again. Pictures of different generators have the same noise.
    None where max_minutes ended it early. Raises SdgError as `load_generator` and `building` do.
    """
    from sdg.testbed.models.generator.sampling import held_out_prompts
    from sdg.testbed.models.packaged import load_generator

    generator = load_generator(pipeline, lora=lora)
    settings = {
        "prompts": prompts,
        "seeds": seeds,
        "steps": steps,
        "seed": seed,
        **fingerprints(pipeline, lora),
        "version": __version__,
    }
    texts = held_out_prompts(prompts, seed)

    def draw(numbers: range) -> Iterator[Drawn]:
        wanted = [PictureRequest(number, texts[number % prompts], steps) for number in numbers]
        return draw_generated(generator, wanted, seed)

    if (out / MANIFEST).is_file():
        refuse_changes(out, read_settings(out, out / MANIFEST), settings)
    else:
        with building(out, prompts * seeds, settings) as unfinished:
            if unfinished.fill(draw, max_minutes=max_minutes, on_progress=on_progress) is None:
                return None
    rates = defect_rates(read_annotations(out / "test.jsonl"), seed)
    return GeneratorQuality(prompts, prompts * seeds, steps, time_sampling(generator, texts, steps), rates)


def defect_rates(records: Iterable[Record], seed: int = 0) -> tuple[Rate, ...]:
    """How often pictures are clean, have a defect of each type, and of each subtype.

    Most frequent subtypes first within a type. Raises ValueError for a record without a diagnosis.
    """
    rows: list[dict[tuple[str, str | None], int]] = []
    prompts: list[str] = []
    for record in records:
        if record.diagnosis is None:
            raise ValueError(f"{record.filepath} has no diagnosis.")
        row: dict[tuple[str, str | None], int] = {("clean", None): int(record.diagnosis.is_clean)}
        for defect in record.diagnosis.defects:
            kind = defect.type.value
            for key in {(kind, kind), (defect.subtype or kind, kind)}:
                row[key] = row.get(key, 0) + 1
        rows.append(row)
        prompts.append(record.prompt)
    names: list[tuple[str, str | None]] = [("clean", None)]
    for kind in (DefectType.MISALIGNMENT.value, DefectType.ARTIFACT.value):
        seen = {key for row in rows for key in row if key[1] == kind and key[0] != kind}
        often = {key: sum(key in row for row in rows) for key in seen}
        names += [(kind, kind), *sorted(seen, key=lambda key: (-often[key], key[0]))]
    counts = np.array([[row.get(name, 0) for name in names] for row in rows], float)
    low, high = _by_prompt(counts > 0, prompts, seed)
    share, mean = (counts > 0).mean(0), counts.mean(0)
    return tuple(
        Rate(name, kind, float(share[i]), float(low[i]), float(high[i]), float(mean[i]))
        for i, (name, kind) in enumerate(names)
    )


def _by_prompt(present: np.ndarray[Any, Any], prompts: Sequence[str], seed: int) -> Iterator[Any]:
    """Bounds of the columns' means (N, K) when prompts, with all their pictures, are drawn anew."""
    _, group = np.unique(prompts, return_inverse=True)
    sums = np.zeros((group.max() + 1, present.shape[1] + 1))
    np.add.at(sums, group, np.column_stack([present, np.ones(len(present))]))
    drawn = bootstrap_sums(sums, RESAMPLES, seed)
    return iter(interval(drawn[:, :-1] / drawn[:, -1:]))


def time_sampling(pipeline: FluxPipeline, prompts: Sequence[str], steps: int) -> float:
    """Seconds for `TIMED` pictures in one batch, after a first short one that warms up."""
    from sdg.testbed.models.generator.sampling import sample_pictures

    batch = [prompts[i % len(prompts)] for i in range(TIMED)]
    sample_pictures(pipeline, batch, steps=1)
    start = perf_counter()
    sample_pictures(pipeline, batch, steps=steps)
    return perf_counter() - start


def measure_scorer(folder: Path | None = None, *, scenes: int = 1000, seed: int = 1) -> ScorerQuality:
    """The scorer's accuracy on `scenes` held-out scenes, an even number: half are the others' near twins.

    Raises SdgError where there is no scorer.
    """
    from scipy.stats import binomtest

    from sdg.testbed.models.packaged import load_scorer
    from sdg.testbed.models.scorer import retrieval_accuracy

    if scenes < 2 or scenes % 2:
        raise ValueError(f"Scenes come in pairs: {scenes} is no even number.")
    model, tokenizer = load_scorer(folder)
    accuracy = {}
    for task, share in retrieval_accuracy(model, tokenizer, count=scenes // 2, seed=seed).items():
        bounds = binomtest(round(share * scenes), scenes).proportion_ci(method="wilson")
        accuracy[task] = (share, float(bounds.low), float(bounds.high))
    return ScorerQuality(scenes, accuracy)
