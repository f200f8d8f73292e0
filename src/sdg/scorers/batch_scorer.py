"""A scorer as a function of columns, for Ray Data, Daft, Spark and `datasets.map`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from sdg.io.batch_function import BatchFunction
from sdg.scorers.weighted import ScaledScorer


class BatchScorer(BatchFunction[ScaledScorer, "tuple[float | None, str]"]):
    """A scorer as a function of columns: `sdg.scorers.load_scorer(uri, device)`, loaded on the first call.

    In: `image` and `prompt`, see `BatchFunction`. Out: the same columns, `score` (times `scale`), None where
    the picture could not be scored, and `error`, one sentence, where that is because it could not be read.
    """

    def __init__(self, uri: str, device: str = "cpu", scale: float = 1.0) -> None:
        super().__init__(uri, device=device, scale=scale)
        self.device, self.scale = device, scale

    def _load(self) -> ScaledScorer:
        from sdg.scorers import load_scorer

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
