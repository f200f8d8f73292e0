"""SDG-Eval: predicted defects scored against true ones, by type (SDG §3.2, App. C)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdg.defects import Defect, Diagnosis, Status
from sdg.evaluation.columns import TYPES, columns
from sdg.evaluation.metrics import METRICS, Count, Counts, metrics
from sdg.evaluation.resampling import bootstrap_sums, interval
from sdg.evaluation.result import Details, Evaluation, Intervals, Scores, bounds_by_type
from sdg.evaluation.scoring import Matching, count_table, pair

if TYPE_CHECKING:
    from sdg.embeddings import Embedder

Image = Diagnosis | Sequence[Defect]


def evaluate(
    truth: Sequence[Image],
    predicted: Sequence[Image],
    *,
    embedder: Embedder | str | None = None,
    matching: Matching = "hungarian",
    bootstrap: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Score predictions against the truth, image by image in the same order (SDG §3.2).

    truth, predicted: one Diagnosis (or sequence of Defects) an image. An `unparseable` prediction counts as
    predicting nothing; images whose prediction `failed`, or whose truth is not known, are left out and
    counted. embedder: compares reasons for DescCos, which is None without one (`sdg.embeddings`). matching:
    "hungarian" (the paper) or "greedy" (the authors' code). bootstrap: resamples of images for the 95 %
    intervals, 0 for none. Raises ValueError for sequences of different length.

    >>> from sdg import Defect
    >>> truth = [[Defect((0, 0, 500, 500), "artifact", "Six fingers.", 80)], []]
    >>> result = evaluate(truth, [[Defect((0, 0, 500, 250), "artifact", "A hand.", 60)], []])
    >>> result.to_dict()["artifact"]["BoxF1@0.5"], result.to_dict()["artifact"]["ImpAcc@0.1"]
    (1.0, 0.8)
    """
    if len(truth) != len(predicted):
        raise ValueError(
            f"Truth and predictions pair image by image, but there are {len(truth)} and {len(predicted)}."
        )
    if bootstrap < 0:
        raise ValueError(f"The number of resamples is 0 or more, not {bootstrap}.")
    reader = None if embedder is None else _reader(embedder)
    statuses = [image.status if isinstance(image, Diagnosis) else Status.OK for image in predicted]
    unknown = np.array([isinstance(i, Diagnosis) and not i.is_informative for i in truth], bool)
    evaluated = ~(unknown | np.array([status is Status.FAILED for status in statuses], bool))
    true = columns(_kept(truth, evaluated))
    guess = columns(_kept(predicted, evaluated))
    pairs = pair(true, guess, matching, reader)
    table = count_table(true, guess, pairs, len(evaluated))
    table[~evaluated] = 0
    status = {
        "images": len(evaluated),
        "evaluated": int(evaluated.sum()),
        **{str(status): statuses.count(status) for status in Status},
        "unknown_truth": int(unknown.sum()),
        "repairs": _repairs(predicted),
    }
    scores = scores_of(
        table[evaluated], status, matching, None if reader is None else reader.name, bootstrap, seed
    )
    return Evaluation(
        scores.metrics,
        scores.intervals,
        scores.status,
        scores.settings,
        scores.counts,
        Details(evaluated, table, true, guess, pairs),
    )


def scores_of(
    scored: NDArray[np.float64],
    status: Mapping[str, Any],
    matching: Matching,
    embedder: str | None,
    bootstrap: int,
    seed: int,
    drawn: NDArray[np.float64] | None = None,
) -> Scores:
    """Metrics and intervals of a table of counts, (D, len(TYPES), len(Count)) of the images evaluated.

    drawn: the sums of its bootstrap resamples, see `bootstrap_sums`, where they are known.
    """
    settings = {"matching": matching, "embedder": embedder}
    images = {name: int(number) for name, number in status.items() if isinstance(number, int)}
    counts = Counts(scored.sum(0), images, settings)
    return Scores(
        counts.metrics(),
        intervals(scored, bootstrap, seed, drawn) if bootstrap else None,
        status,
        {**settings, "bootstrap": bootstrap, "seed": seed},
        counts,
    )


def intervals(
    table: NDArray[np.float64], resamples: int, seed: int, drawn: NDArray[np.float64] | None = None
) -> Intervals:
    """95 % percentile intervals of every metric from resampling images: (D, len(TYPES), len(Count)).

    drawn: as in `scores_of`.
    """
    if not len(table):
        return {str(kind): dict.fromkeys(METRICS) for kind in TYPES}
    sums = bootstrap_sums(table.reshape(len(table), -1), resamples, seed) if drawn is None else drawn
    low, high = interval(metrics(sums.reshape(resamples, len(TYPES), len(Count))))
    return bounds_by_type(low, high, undefined=np.isnan(metrics(table.sum(0))))


def _reader(embedder: Embedder | str) -> Embedder:
    from sdg.embeddings import as_embedder  # most evaluations compare no reasons

    return as_embedder(embedder)


def _kept(images: Sequence[Image], evaluated: NDArray[np.bool_]) -> list[Sequence[Defect]]:
    """Defects of each image, none of those left out; raises ValueError for anything else."""
    kept: list[Sequence[Defect]] = []
    for at, (image, keep) in enumerate(zip(images, evaluated.tolist(), strict=True)):
        if isinstance(image, Diagnosis):
            kept.append(image.defects if keep else ())
        elif all(isinstance(defect, Defect) for defect in image):
            kept.append(image if keep else ())
        else:
            raise ValueError(f"Image {at} is neither a Diagnosis nor a sequence of Defects.")
    return kept


def _repairs(predicted: Sequence[Image]) -> dict[str, int]:
    """How often each repair was made."""
    mended = (image.repairs for image in predicted if isinstance(image, Diagnosis) and image.repairs)
    return dict(sorted(Counter(chain.from_iterable(mended)).items()))
