"""Models in memory, each loaded once, when it is first needed, and asked by one user at a time."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sdg.app.offer import EMBEDDED, Offer
from sdg.errors import SdgError, quoted

if TYPE_CHECKING:
    from sdg.detectors import StreamingDetector
    from sdg.refinement.request import Editor

_LOG = logging.getLogger("sdg.app")


class Held:
    """The detectors and editors of an offer, and a folder for its pages' files, which goes with the process.

    Several looks need a detector that samples: its weights are in memory twice once one asks for them.
    An offer of the embedded models alone has them work on one thread, unless OMP_NUM_THREADS says otherwise:
    they are so small that threads wait for each other longer than they work.
    """

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._folder = TemporaryDirectory(prefix="sdg-app-", ignore_cleanup_errors=True)
        self.scratch = Path(self._folder.name)
        self._models: dict[tuple[str, ...], Any] = {}
        self._loading = threading.Lock()
        self._turns: dict[tuple[str, ...], threading.Lock] = {}
        if all(uri.partition("?")[0] == EMBEDDED for uri in (*offer.detectors, *offer.editors)):
            os.environ.setdefault("OMP_NUM_THREADS", "1")  # which torch reads when it is imported

    def warm(self) -> None:
        """Load the first detector, on a thread of its own, before anyone asks."""
        threading.Thread(target=self._load_first, daemon=True).start()

    def _load_first(self) -> None:
        uri, examples = self._offer.detectors[0], self._offer.examples
        try:
            with self.detector(uri) as detector:
                if examples and uri == EMBEDDED:  # its first answer takes longer; any other may cost money
                    detector.diagnose([(examples[0].picture, examples[0].prompt)])
        except Exception as error:  # whoever asks is told on the page
            _LOG.warning("%s: %s", uri, error)

    @contextmanager
    def detector(self, uri: str, looks: int = 1, agree: float | None = None) -> Iterator[StreamingDetector]:
        """The detector of an offered URI, for the caller alone; see `sdg.detectors.consensus` for looks.

        Raises SdgError where it does not load.
        """
        from sdg.detectors import load_detector
        from sdg.detectors.consensus import AGREE, ConsensusDetector

        self._require(uri, self._offer.detectors, "detector")
        sampled = looks > 1
        options = {"temperature": 1.0} if sampled else {}
        key = ("detector", uri, str(sampled))
        with self._alone(key, lambda: load_detector(uri, **options)) as detector:
            share = AGREE if agree is None else agree
            yield ConsensusDetector(detector, looks, share) if sampled else detector

    @contextmanager
    def editor(self, uri: str) -> Iterator[Editor]:
        """The editor of an offered URI, for the caller alone; raises SdgError where it does not load."""
        from sdg.refinement.editors import load_editor

        self._require(uri, self._offer.editors, "editor")
        with self._alone(("editor", uri), lambda: load_editor(uri)) as editor:
            yield editor

    @contextmanager
    def _alone(self, key: tuple[str, ...], load: Callable[[], Any]) -> Iterator[Any]:
        with self._loading:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            if key not in self._models:
                self._models[key] = load()
            yield self._models[key]

    @staticmethod
    def _require(uri: str, offered: Sequence[str], what: str) -> None:
        if uri not in offered:  # a request may hold anything
            raise SdgError(f"{quoted(uri)} is no {what} of this app; choose one of {', '.join(offered)}.")
