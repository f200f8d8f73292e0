"""Weighted sums of scorers: the base reward R of alignment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from sdg.scorers import Scorer, Scores, load_scorer
from sdg.sections import check_name


@dataclass(frozen=True)
class ScorerRecipe:
    """A scalar scorer."""

    name: str  # under which it stands in logs and tables
    uri: str  # as `sdg.scorers.load_scorer` reads it
    scale: float = 1.0  # its values are multiplied by
    weight: float = 1.0  # in the reward's sum

    def __post_init__(self) -> None:
        check_name(self.name)


class ScaledScorer:
    """A scorer with its values times `scale`, whatever is not a number counted as missing."""

    def __init__(self, scorer: Scorer, scale: float) -> None:
        self.scorer, self.scale = scorer, scale

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Scaled scores; raises ValueError unless there is one a picture."""
        scores = self.scorer.score(pictures, prompts)
        if len(scores) != len(pictures):
            raise ValueError(f"A scorer gives one score a picture, not {len(scores)} for {len(pictures)}.")
        return [None if s is None or not math.isfinite(s) else self.scale * float(s) for s in scores]


class WeightedSum:
    """R = Σ weight·score; a picture that one scorer could not score has no reward."""

    def __init__(self, scorers: Sequence[tuple[Scorer, float]]) -> None:
        self.scorers = list(scorers)

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """The sum for each picture, None where any part is missing."""
        totals: Scores = [0.0] * len(pictures)
        for scorer, weight in self.scorers:
            scores = scorer.score(pictures, prompts)
            totals = [
                None if total is None or score is None else total + weight * score
                for total, score in zip(totals, scores, strict=True)
            ]
        return totals


def load_scaled(recipe: ScorerRecipe, device: str = "cpu") -> ScaledScorer:
    """One scorer of a recipe, on its own scale."""
    return ScaledScorer(load_scorer(recipe.uri, device), recipe.scale)


def load_reward(recipes: Sequence[ScorerRecipe], device: str = "cpu") -> WeightedSum:
    """The weighted sum of a recipe's scorers."""
    return WeightedSum([(load_scaled(recipe, device), recipe.weight) for recipe in recipes])
