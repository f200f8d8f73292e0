"""How far teachers agree on importance, where several score it; the median of their scores is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sdg.defects import importance_tier
from sdg.tables import Table


@dataclass(frozen=True, slots=True)
class Pairwise:
    """Two models' scores of the same defects: 1 − the mean |difference|/100, the share in one tier."""

    first: str
    second: str
    defects: int
    agreement: float
    same_tier: float
    difference: float  # mean of second − first


@dataclass(frozen=True, slots=True)
class Votes:
    """Each voter against the teacher."""

    pairs: tuple[Pairwise, ...] = ()

    def to_dict(self) -> list[dict[str, Any]]:
        """JSON values."""
        return [asdict(pair) for pair in self.pairs]

    def table(self) -> Table:
        """The same, to print."""
        rows = tuple(
            (
                f"{pair.first}, {pair.second}",
                f"{pair.defects:,}",
                f"{pair.agreement:.3f}",
                f"{pair.same_tier:.1%}",
                f"{pair.difference:+.1f}",
            )
            for pair in self.pairs
        )
        columns = ("teacher, voter", "defects", "1 − |Δ|/100", "same tier", "mean Δ")
        return Table("Agreement on importance", columns, rows)


def count_votes(annotations: Iterable[Mapping[str, Any]]) -> Votes:
    """The agreement in annotations whose provenance holds the votes."""
    scores: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for annotation in annotations:
        votes = annotation["teacher"].get("votes", {})
        for voter in list(votes)[1:]:
            teacher = next(iter(votes))
            scores.setdefault((teacher, voter), []).extend(zip(votes[teacher], votes[voter], strict=True))
    return Votes(tuple(_pair(*names, np.array(pairs)) for names, pairs in scores.items() if pairs))


def _pair(first: str, second: str, scores: np.ndarray) -> Pairwise:
    """scores: (N, 2) ints, 1–100."""
    difference = scores[:, 1] - scores[:, 0]
    same = [importance_tier(int(a)) is importance_tier(int(b)) for a, b in scores]
    return Pairwise(
        first,
        second,
        len(scores),
        round(float(1 - np.abs(difference).mean() / 100), 4),
        round(float(np.mean(same)), 4),
        round(float(difference.mean()), 2),
    )
