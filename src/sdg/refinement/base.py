"""What every editor has in common: a request in, an edited picture out or the sentence why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from sdg.refinement.masks import Mask
from sdg.refinement.request import EditRequest


@dataclass(frozen=True, slots=True)
class EditResult:
    """What came of one request: the picture, or None and why, in one sentence.

    mask: where the picture holds, where that is not the request's mask; see `sdg.refinement.masks`.
    """

    picture: Image.Image | None
    error: str = ""
    mask: Mask | None = None


class Editor(Protocol):
    """Anything that edits pictures; what it returns outside of the mask is thrown away."""

    @property
    def concurrency(self) -> int:
        """How many threads may call `edit` at once: 1 for what runs here, more for a server."""
        ...

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One result for each request, in their order; a request that fails never raises."""
        ...
