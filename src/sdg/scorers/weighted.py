"""Weighted sums of scorers, the base reward R of alignment; and a scaled scorer as a function of columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sdg.images import Pair
from sdg.io.asking import Ask, Askable, asked_over
from sdg.io.batch_function import BatchFunction
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

    @property
    def sparse(self) -> bool:
        """Whether it may have nothing to say of most pictures: `ocr` of prompts without quotation marks."""
        return self.uri.partition(":")[0] == "ocr"


class ScaledScorer:
    """A scorer with its values times `scale`, whatever is not a number counted as missing."""

    def __init__(self, scorer: Scorer, scale: float) -> None:
        self.scorer, self.scale = scorer, scale

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Scaled scores; raises ValueError unless there is one a picture."""
        scores = self.scorer.score(pictures, prompts)
        if len(scores) != len(pictures):
            raise ValueError(f"A scorer gives one score a picture, not {len(scores)} for {len(pictures)}.")
        return [self._scaled(score) for score in scores]

    @property
    def at_once(self) -> int | None:
        """As of the scorer, see `sdg.io.asking.Askable`."""
        return self.scorer.at_once if isinstance(self.scorer, Askable) else None

    def connected(self) -> AbstractAsyncContextManager[Ask[float | None]] | None:
        """As of the scorer, with its values scaled; None where it is asked in batches."""
        opened = self.scorer.connected() if isinstance(self.scorer, Askable) else None
        return None if opened is None else asked_over(opened, self._asked)

    async def _asked(self, ask: Ask[float | None], pair: Pair, index: int) -> float | None:
        return self._scaled(await ask(pair, index))

    def _scaled(self, score: float | None) -> float | None:
        return None if score is None or not math.isfinite(score) else self.scale * float(score)


class WeightedSum:
    """R = Σ weight·score; a picture that one scorer could not score has no reward."""

    def __init__(self, scorers: Sequence[tuple[Scorer, float]]) -> None:
        self.scorers = list(scorers)

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """The sum for each picture, None where any part is missing."""
        return self.summed([scorer.score(pictures, prompts) for scorer, _ in self.scorers], len(pictures))

    def summed(self, parts: Sequence[Scores], pictures: int) -> Scores:
        """The sum for each picture of what each of the scorers said, None where any part is missing."""
        totals: Scores = [0.0] * pictures
        for (_, weight), scores in zip(self.scorers, parts, strict=True):
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


class BatchScorer(BatchFunction[ScaledScorer, "tuple[float | None, str]"]):
    """A scorer as a function of columns: `sdg.scorers.load_scorer(uri, device)`, loaded on the first call.

    In: `image` and `prompt`, see `BatchFunction`. Out: the same columns, `score` (times `scale`), None where
    the picture could not be scored, and `error`, one sentence, where that is because it could not be read.
    """

    def __init__(self, uri: str, device: str = "cpu", scale: float = 1.0) -> None:
        super().__init__(uri, device=device, scale=scale)
        self.device, self.scale = device, scale

    def _load(self) -> ScaledScorer:
        return ScaledScorer(load_scorer(self.uri, self.device), self.scale)

    def _run(
        self, loaded: ScaledScorer, pairs: Sequence[tuple[Image.Image, str]]
    ) -> Sequence[tuple[float | None, str]]:
        scores = loaded.score([picture for picture, _ in pairs], [prompt for _, prompt in pairs])
        return [(score, "") for score in scores]

    def _unread(self, reason: str) -> tuple[float | None, str]:
        return None, reason

    def _columns(self) -> Sequence[str]:
        return "score", "error"

    def _features(self) -> Mapping[str, Any]:
        from datasets import Value

        return {"score": Value("float64"), "error": Value("string")}

    def _row(self, result: tuple[float | None, str]) -> Mapping[str, Any]:
        score, error = result
        return {"score": score, "error": error or None}
