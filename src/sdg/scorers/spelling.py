"""`ocr`: how much of the text that a prompt quotes stands in the picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from sdg.models.ocr import TextReader, find_text, quoted_texts, reader


class SpellingScorer:
    """Scores by 1 − normalised edit distance, the mean over the quoted texts; None where none is quoted."""

    def __init__(self, text_reader: TextReader | None = None) -> None:
        """text_reader: by default the process's own; raises SdgError where rapidocr is not installed."""
        self._reader = text_reader or reader()

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """From 0, where nothing of it can be read, to 1."""
        scores: list[float | None] = []
        for picture, prompt in zip(pictures, prompts, strict=True):
            texts = quoted_texts(prompt)
            lines = self._reader.read(picture) if texts else ()
            scores.append(sum(find_text(text, lines).score for text in texts) / len(texts) if texts else None)
        return scores
