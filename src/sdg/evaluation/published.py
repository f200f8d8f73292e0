"""Rows the paper published for the SDG-30K test split (Table 2), to stand beside one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sdg.evaluation.columns import TYPES
from sdg.evaluation.metrics import PAPER_METRICS, Metrics


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of Table 2: the model, and the paper's six metrics by type, None where it gives none."""

    model: str
    metrics: Metrics


def published_row(model: str, *values: tuple[float | None, ...]) -> PublishedRow:
    """A row of the six metrics, artifact then misalignment, in the paper's order."""
    by_type = {
        str(kind): dict(zip(PAPER_METRICS, row, strict=True)) for kind, row in zip(TYPES, values, strict=True)
    }
    return PublishedRow(model, by_type)


PUBLISHED: Final = (
    published_row(
        "GPT-5.4",
        (0.736, 0.118, 0.237, 0.035, 0.868, 0.812),
        (0.654, 0.513, 0.457, 0.292, 0.837, 0.820),
    ),
    published_row(
        "Gemini 3 Pro",
        (0.733, 0.076, 0.337, 0.200, 0.885, 0.824),
        (0.696, 0.672, 0.464, 0.307, 0.891, 0.851),
    ),
    published_row(
        "SDG (SFT)",
        (0.776, 0.697, 0.402, 0.255, 0.904, 0.883),
        (0.636, 0.799, 0.499, 0.376, 0.893, 0.892),
    ),
    published_row(
        "SDG (GRPO)",
        (0.772, 0.560, 0.404, 0.263, 0.904, 0.887),
        (0.675, 0.732, 0.511, 0.387, 0.888, 0.893),
    ),
    published_row(
        "human",
        (0.792, 0.774, 0.462, 0.278, None, None),
        (0.712, 0.818, 0.563, 0.409, None, None),
    ),
)
"""SDG-30K test split, 1,151 images, matched by the Hungarian algorithm; SDG Table 2."""
