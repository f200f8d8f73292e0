"""Part 3: SDG-Eval of the detector against the oracle, which measures every picture by classical vision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from sdg.demo.part_pictures import Drawn, Found, write_records
from sdg.demo.settings import Settings
from sdg.embeddings import Embedder, load_embedder
from sdg.errors import SdgError
from sdg.evaluation import evaluate
from sdg.evaluation.result import cell
from sdg.io.files import write_text
from sdg.testbed.datasets.corpus import MOST_DEFECTS
from sdg.testbed.oracle import diagnose_all

RESAMPLES: Final = 1000


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
