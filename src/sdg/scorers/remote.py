"""`remote:http://localhost:PORT`: a scorer that `sdg serve scorer` serves from an environment of its own.

Whatever goes wrong with a request leaves its pictures without a score and is logged; it is never a score.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Final

from PIL import Image

from sdg.errors import SdgError, quoted
from sdg.io.http import Refused, TryAgain, is_address
from sdg.io.picture_client import PictureClient, finite

BATCH: Final = 16
TIMEOUT: Final = 120.0
ATTEMPTS: Final = 3

_LOG = logging.getLogger("sdg.scorers")


class RemoteScorer:
    """Sends pictures as PNG, some at a time, and takes one number for each; None for anything else.

    batch: pictures a request, at most. timeout: seconds that one attempt may take.
    """

    def __init__(
        self,
        url: str,
        *,
        batch: int = BATCH,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        first_pause: float = 1.0,
    ) -> None:
        if not is_address(url):
            raise SdgError(f"{quoted(url)} is no server's address; write remote:http://localhost:9101.")
        self.url = url.rstrip("/")
        self._client: PictureClient[float | None] = PictureClient(
            self.url + "/v1/score",
            "",
            self._scores,
            lambda reason: None,
            batch=batch,
            timeout=timeout,
            attempts=attempts,
            first_pause=first_pause,
            advice="Start a scorer with `sdg serve scorer`.",
            logger=_LOG,
        )

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """Scores in order; None where the server gave none, or none that is a number.

        Raises SdgError where it refuses every request.
        """
        return self._client.ask(list(zip(pictures, prompts, strict=True)))

    def _scores(self, answer: bytes, count: int) -> list[float | None]:
        """The scores of an answer; raises TryAgain where it is none, Refused where they are not as many."""
        try:
            scores = json.loads(answer)["scores"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise TryAgain("The server's answer holds no scores") from None
        if not isinstance(scores, list) or len(scores) != count:
            given = len(scores) if isinstance(scores, list) else "no list"
            raise Refused(f"The server gave {given} for {count} pictures, so none can be told whose it is.")
        found = [finite(score) for score in scores]
        if missing := found.count(None):
            _LOG.warning("%s gave no score for %d of %d pictures.", self.url, missing, count)
        return found
