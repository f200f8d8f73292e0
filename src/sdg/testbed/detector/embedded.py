"""The embedded detector: packaged weights that say so when they are asked about another world."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from sdg.detectors.base import Outcome, Pair, failed, picture
from sdg.detectors.transformers_ import TransformersDetector
from sdg.errors import SdgError
from sdg.testbed.familiar import strangeness


class EmbeddedDetector(TransformersDetector):
    """A `TransformersDetector` of the testbed's weights; a picture or prompt of another world is `failed`.

    It would answer such a pair as confidently as any, and most often find it clean.
    """

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {**super().identity, "detector": "testbed"}

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        wanted = range(len(pairs)) if wanted is None else wanted
        known: list[int] = []
        for index in sorted(wanted):
            try:
                strange = strangeness(picture(pairs[index][0]), pairs[index][1])
            except SdgError as error:
                strange = str(error)
            if strange:
                yield index, failed(strange)
            else:
                known.append(index)
        if known:
            yield from super().stream(pairs, frozenset(known))
