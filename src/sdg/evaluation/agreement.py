"""How far annotators of the same images agree: the human bound that detectors are measured against.

The re-annotation is scored against the original with SDG-Eval, as a detector would be, and the other way
round (SDG §5, Table 2, the row "human").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np

from sdg.defects import Diagnosis
from sdg.errors import SdgError, path_end, quoted
from sdg.evaluation import Evaluation, evaluate
from sdg.evaluation.metrics import by_type, metrics
from sdg.evaluation.sdg_eval import intervals
from sdg.records import Record

if TYPE_CHECKING:
    from sdg.embeddings import Embedder

PER_IMAGE = ("BoxF1@0.1", "BoxF1@0.5")
"""The metrics that say something about a single image."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two annotations of one image; each annotator by name, or by file where there is none."""

    filepath: str
    first: Diagnosis
    second: Diagnosis
    annotators: tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """The second annotations scored against the first, and the first against the second.

    skipped: images with a single annotation, or with one that says nothing.
    """

    forward: Evaluation
    backward: Evaluation
    pairs: tuple[Pair, ...] = field(repr=False)
    skipped: tuple[str, ...] = ()

    def per_image(self) -> Iterator[dict[str, Any]]:
        """For each pair of annotations: the image, the annotators and, by type, boxes and BoxF1.

        BoxF1 is the same both ways; it is None where neither has a box of the type.
        """
        for pair, counts in zip(self.pairs, self.forward.details.table, strict=True):
            row: dict[str, Any] = {"filepath": pair.filepath, "annotators": list(pair.annotators)}
            for kind, scores in by_type(metrics(counts)).items():
                boxes = [len(pair.first.of_type(kind)), len(pair.second.of_type(kind))]
                row[kind] = {"boxes": boxes} | {name: scores[name] for name in PER_IMAGE}
            yield row

    def to_document(self) -> dict[str, Any]:
        """Both evaluations and what was left out, in JSON values."""
        return {
            "pairs": len(self.pairs),
            "images": len({pair.filepath for pair in self.pairs}),
            "skipped": list(self.skipped),
            "second_against_first": self.forward.to_document(),
            "first_against_second": self.backward.to_document(),
        }


def agreement(
    pairs: Iterable[Pair],
    skipped: Iterable[str] = (),
    *,
    embedder: Embedder | str | None = None,
    bootstrap: int = 0,
    seed: int = 0,
) -> Agreement:
    """Score each second annotation against the first and the other way round; options as for `evaluate`.

    Images are resampled, each with all of its pairs, as those of one image are not independent.
    Raises SdgError where there are no pairs.
    """
    kept = tuple(pairs)
    if not kept:
        raise SdgError("No image has annotations by two annotators, so there is no agreement to measure.")
    first, second = [pair.first for pair in kept], [pair.second for pair in kept]
    return Agreement(
        _of_images(evaluate(first, second, embedder=embedder), kept, bootstrap, seed),
        _of_images(evaluate(second, first, embedder=embedder), kept, bootstrap, seed),
        kept,
        tuple(skipped),
    )


def _of_images(found: Evaluation, pairs: Sequence[Pair], bootstrap: int, seed: int) -> Evaluation:
    """The evaluation of all pairs, with intervals of their images."""
    places = {path: at for at, path in enumerate(dict.fromkeys(pair.filepath for pair in pairs))}
    table = np.zeros((len(places), *found.details.table.shape[1:]))
    np.add.at(table, [places[pair.filepath] for pair in pairs], found.details.table)
    return replace(
        found,
        intervals=intervals(table, bootstrap, seed) if bootstrap else None,
        status={**found.status, "images": len(places), "evaluated": len(places), "pairs": len(pairs)},
        settings={**found.settings, "bootstrap": bootstrap, "seed": seed},
    )


def pair_files(first: Iterable[Record], second: Iterable[Record]) -> tuple[list[Pair], list[str]]:
    """Every annotation of an image in the first file with every one in the second, and unpaired images.

    Raises SdgError where one annotator has two of one image in one file.
    """
    ones, others = _by_image(first, "first"), _by_image(second, "second")
    return _paired((path, product(ones.get(path, ()), others.get(path, ()))) for path in ones | others)


def pair_annotators(records: Iterable[Record]) -> tuple[list[Pair], list[str]]:
    """Annotations of an image by different annotators, two by two, in the file's order; and other images."""
    images = _by_image(records, "").items()
    return _paired(
        (path, (both for both in combinations(of, 2) if both[0][0] != both[1][0])) for path, of in images
    )


_Annotation = tuple[str, Diagnosis]  # by whom


def _by_image(records: Iterable[Record], nameless: str) -> dict[str, list[_Annotation]]:
    """Annotations by image path, without those that say nothing; reasoning and raw text are let go.

    nameless: who annotated where nobody is named; "" in a single file.
    Raises SdgError where one of two files has two of one image by one annotator, which would count twice.
    """
    images: dict[str, list[_Annotation]] = {}
    for record in records:
        opinions = images.setdefault(record.filepath, [])
        diagnosis = record.diagnosis
        if diagnosis is not None and diagnosis.is_informative:
            name = record.annotator or nameless
            if nameless and any(name == other for other, _ in opinions):
                by = f" by {quoted(record.annotator)}" if record.annotator else ""
                raise SdgError(
                    f"{path_end(record.filepath)} has two annotations{by} in one file, and would count "
                    "twice; leave one out, or name who made each (annotator)."
                )
            opinions.append((name, Diagnosis(diagnosis.defects)))
    return images


def _paired(
    images: Iterable[tuple[str, Iterable[tuple[_Annotation, _Annotation]]]],
) -> tuple[list[Pair], list[str]]:
    """The pairs of each image, and images without any."""
    pairs: list[Pair] = []
    skipped: list[str] = []
    for filepath, found in images:
        before = len(pairs)
        pairs += [Pair(filepath, one[1], other[1], (one[0], other[0])) for one, other in found]
        if len(pairs) == before:
            skipped.append(filepath)
    return pairs, skipped
