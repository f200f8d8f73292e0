"""Parts 1 to 3: the generator draws held-out prompts, the detector says what is wrong with each picture, and
SDG-Eval holds that against the oracle, which measures every picture by classical vision.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from sdg.data import formats
from sdg.defects import DefectType, Diagnosis
from sdg.demo.settings import EMBEDDED, Settings
from sdg.demo.stages import LeftOut, watched
from sdg.detectors.base import Detector
from sdg.embeddings import Embedder, load_embedder
from sdg.errors import SdgError
from sdg.evaluation import evaluate
from sdg.evaluation.result import cell
from sdg.images import save_image
from sdg.io.files import write_text
from sdg.records import Record
from sdg.testbed.datasets.corpus import MOST_DEFECTS
from sdg.testbed.oracle import diagnose_all

if TYPE_CHECKING:
    from diffusers import FluxPipeline

BATCH: Final = 8
SAMPLING_STEPS: Final = 20
RESAMPLES: Final = 1000


@dataclass(frozen=True)
class Drawn:
    """Pictures of held-out prompts, and the generator that drew them."""

    pipeline: FluxPipeline
    prompts: Sequence[str]
    pictures: Sequence[Image.Image]
    names: Sequence[str]


@dataclass(frozen=True)
class Found:
    """What a detector found in each picture."""

    detector: Detector
    diagnoses: Sequence[Diagnosis]


def draw(settings: Settings, folder: Path) -> tuple[Drawn, str]:
    """One picture a held-out prompt, into folder/pictures and folder/pictures.jsonl."""
    from sdg.testbed.models.generator.sampling import held_out_prompts
    from sdg.testbed.models.packaged import load_generator

    pipeline = load_generator(settings.pipeline)
    prompts = held_out_prompts(settings.prompts, settings.seed)
    pictures = draw_pictures(pipeline, prompts, settings.seed, "drawing")
    names = [f"pictures/{number:03d}.png" for number in range(len(prompts))]
    for name, picture in zip(names, pictures, strict=True):
        save_image(picture, folder / name)
    records = (Record(n, p, generator="testbed") for n, p in zip(names, prompts, strict=True))
    formats.write_records(folder / "pictures.jsonl", records, "sdg")
    told = f"{_count(len(pictures), 'picture')} of prompts that the generator was never trained on."
    return Drawn(pipeline, prompts, pictures, names), told


def draw_pictures(pipeline: FluxPipeline, prompts: Sequence[str], seed: int, what: str) -> list[Image.Image]:
    """One picture a prompt; the same seed gives every generator the same noise."""
    from sdg.testbed.models.generator.sampling import sample_pictures

    pictures: list[Image.Image] = []
    starts = range(0, len(prompts), BATCH)
    for start in watched(starts, len(starts), what):
        numbers = range(start, min(start + BATCH, len(prompts)))
        texts = [prompts[number] for number in numbers]
        pictures += sample_pictures(pipeline, texts, steps=SAMPLING_STEPS, seed=seed, numbers=numbers)
    return pictures


def diagnose(settings: Settings, folder: Path, drawn: Drawn) -> tuple[Found, str]:
    """The detector's diagnosis of each picture, also as folder/predictions.jsonl.

    Raises LeftOut where this build ships without the embedded detector, SdgError where no answer can be used.
    """
    from sdg.detectors import load_detector
    from sdg.testbed.models.packaged import DETECTOR

    if settings.detector == EMBEDDED and not DETECTOR.is_dir():
        raise LeftOut("This build ships without the embedded detector; name one of your own with --detector.")
    detector = load_detector(settings.detector)
    pairs = list(zip(drawn.pictures, drawn.prompts, strict=True))
    diagnoses: list[Diagnosis] = []
    starts = range(0, len(pairs), BATCH)
    for start in watched(starts, len(starts), "diagnosing"):
        diagnoses += detector.diagnose(pairs[start : start + BATCH])
    write_records(folder / "predictions.jsonl", drawn, diagnoses)
    known = [diagnosis for diagnosis in diagnoses if diagnosis.is_informative]
    if not known:
        raise SdgError(f"The detector {settings.detector} gave no usable answer for any picture.")
    numbers = {kind: sum(len(diagnosis.of_type(kind)) for diagnosis in known) for kind in DefectType}
    told = " and ".join(_count(number, kind.value) for kind, number in numbers.items())
    clean = sum(diagnosis.is_clean for diagnosis in known)
    told = f"The detector finds {told}; {clean} of {_count(len(known), 'picture')} look clean to it."
    if lost := len(diagnoses) - len(known):
        told += f" It gave no usable answer for {lost}."
    return Found(detector, diagnoses), told


def write_records(path: Path, drawn: Drawn, diagnoses: Sequence[Diagnosis]) -> None:
    """The pictures with these diagnoses as our own JSON Lines, which every command reads."""
    records = (Record(n, p, d) for n, p, d in zip(drawn.names, drawn.prompts, diagnoses, strict=True))
    formats.write_records(path, records, "sdg")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def score(settings: Settings, folder: Path, drawn: Drawn, found: Found) -> tuple[dict[str, Any], str]:
    """The scores as `sdg evaluate --json` writes them, also as folder/scores.json; the truth in truth.jsonl.

    The truth has at most as many defects a picture as the detector was trained to name, the worst ones.
    """
    pairs = zip(drawn.pictures, drawn.prompts, strict=True)
    truth = list(diagnose_all(pairs, workers=1, most=MOST_DEFECTS))
    write_records(folder / "truth.jsonl", drawn, truth)
    result = evaluate(truth, found.diagnoses, embedder=_embedder(), bootstrap=RESAMPLES, seed=settings.seed)
    document = result.to_document()
    write_text(folder / "scores.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    parts = [f"{cell(values['BoxF1@0.1'])} for {kind}s" for kind, values in result.metrics.items()]
    clean = sum(diagnosis.is_clean for diagnosis in truth)
    told = (
        f"BoxF1@0.1 is {' and '.join(parts)}, 1 being best; the oracle calls {clean} of {len(truth)} "
        "pictures clean."
    )
    return document, told


def _embedder() -> Embedder:
    """The packaged sentence embedder, or token overlap where it is not installed; scores name which."""
    try:
        return load_embedder("minilm")
    except SdgError:
        return load_embedder("token-f1")
