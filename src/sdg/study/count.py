"""Good/Same/Bad: ratings of a blind study, checked against its key and counted (SDG §5.2.2, Table 6).

Good is where A's picture is better. Pairs are the independent units: intervals resample pairs, each with all
of its ratings, and the sign test asks for the side that most annotators of a pair are on.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from sdg.errors import SdgError, quoted
from sdg.evaluation.resampling import bootstrap_sums, interval
from sdg.evaluation.tables import p_cell
from sdg.io.jsonl import load_document
from sdg.study.make import Key
from sdg.tables import Table

VERDICTS: Final = ("good", "same", "bad")
RESAMPLES: Final = 10_000
SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Ratings:
    """One annotator's verdict on each pair of the key, in its order; "same" where it was not shown."""

    annotator: str
    verdicts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shares:
    """How often each verdict was given, its share of all with 95 % bounds, and the two-sided sign test.

    p_value: None where no pair has a better side.
    """

    counts: Mapping[str, int]
    shares: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    p_value: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two annotators on the pairs that were shown: share of equal verdicts, and Cohen's kappa.

    kappa: None where both gave one and the same verdict throughout.
    """

    annotators: tuple[str, str]
    share: float
    kappa: float | None


@dataclass(frozen=True, slots=True)
class Tally:
    """A study counted: systems A and B, pairs in all and identical ones, each annotator, all, agreement."""

    a: str
    b: str
    pairs: int
    identical: int
    annotators: Mapping[str, Shares]
    pooled: Shares
    agreement: tuple[Agreement, ...]
    resamples: int
    seed: int

    def to_document(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def read_ratings(path: str | os.PathLike[str], key: Key) -> Ratings:
    """What one annotator downloaded, held against the key.

    Raises SdgError for ratings of another study, of pairs or pictures the key does not know, of a pair
    rated twice, and for ratings that are not complete.
    """
    value = load_document(path)
    try:
        study, annotator = value["study"], value["annotator"]
        given = [(one["pair"], one["better"]) for one in value["ratings"]]
        texts = (annotator, *(text for one in given for text in one))
        if not all(type(text) is str for text in texts):
            raise TypeError
        # Invisible joiners are part of names; they may also hide or turn text, so they are left out.
        annotator = "".join(sign for sign in annotator if unicodedata.category(sign) != "Cf")
        if not annotator.strip() or not annotator.isprintable():
            raise TypeError
    except (LookupError, TypeError):
        raise SdgError(f"{path} holds no ratings; give a file downloaded from the study's page.") from None
    if study != key.study:
        raise SdgError(f"{path} holds ratings of another study, {quoted(study)}, not of {key.study!r}.")
    known = {pair.id: {pair.a: "good", "same": "same", pair.b: "bad"} for pair in key.shown}
    verdicts: dict[str, str] = {}
    for pair, better in given:
        if better not in known.get(pair, ()):
            raise SdgError(
                f"{path} names {quoted(better)} as better of {quoted(pair)}, "
                "which the study's key does not know."
            )
        if pair in verdicts:
            raise SdgError(f"{path} rates the pair {quoted(pair)} twice; download the ratings again.")
        verdicts[pair] = known[pair][better]
    if missing := len(known) - len(verdicts):
        raise SdgError(
            f"{path} lacks {missing:,} of {len(known):,} pairs; let {annotator} rate them and download again."
        )
    return Ratings(annotator, tuple(verdicts.get(pair.id, "same") for pair in key.pairs))


def count(key: Key, ratings: Sequence[Ratings]) -> Tally:
    """Good, Same and Bad by annotator and over all ratings, and how far annotators agree.

    Raises SdgError for two sets of ratings by one annotator, ValueError for none.
    """
    if not ratings:
        raise ValueError("There are no ratings to count.")
    name, times = Counter(one.annotator for one in ratings).most_common(1)[0]
    if times > 1:
        raise SdgError(f"{times} of the files hold ratings by {name}; give one for each annotator.")
    tables = [_table(one.verdicts) for one in ratings]
    shown = [at for at, pair in enumerate(key.pairs) if not pair.identical]
    return Tally(
        a=key.a,
        b=key.b,
        pairs=len(key.pairs),
        identical=len(key.pairs) - len(shown),
        annotators={one.annotator: _shares(table) for one, table in zip(ratings, tables, strict=True)},
        pooled=_shares(np.sum(tables, axis=0)),
        agreement=tuple(_agreement(one, other, shown) for one, other in combinations(ratings, 2)),
        resamples=RESAMPLES,
        seed=SEED,
    )


def kappa(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Cohen's kappa of two equally long lists of verdicts; None where chance alone would agree throughout."""
    observed = _share_equal(one, other)
    ones, others = Counter(one), Counter(other)
    by_chance = sum(ones[verdict] * others[verdict] for verdict in ones) / len(one) ** 2
    return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def tally_tables(tally: Tally) -> Iterator[Table]:
    """The paper's Table 6, with an interval under each row, and the agreement of annotators."""
    listed = [*tally.annotators.items()]
    if len(listed) > 1:
        listed.append(("all", tally.pooled))
    rows = []
    for name, found in listed:
        rows.append((name, *(_percent(found.shares[verdict]) for verdict in VERDICTS), p_cell(found.p_value)))
        rows.append(("95 % interval", *(_bounds(found.intervals[verdict]) for verdict in VERDICTS), ""))
    title = f"{tally.a} against {tally.b}, {tally.pairs:,} pairs"
    yield Table(
        title,
        ("annotator", "Good", "Same", "Bad", "sign test p"),
        tuple(rows),
        frozenset(range(1, len(rows), 2)),
    )
    if tally.agreement:
        pairs = tuple(
            (
                " and ".join(one.annotators),
                _percent(one.share),
                "–" if one.kappa is None else f"{one.kappa:.3f}",
            )
            for one in tally.agreement
        )
        title = f"Agreement on {tally.pairs - tally.identical:,} pairs that were shown"
        yield Table(title, ("annotators", "the same verdict", "Cohen's kappa"), pairs)


def _table(verdicts: Sequence[str]) -> NDArray[np.float64]:
    """(pairs, 3): one for the verdict that was given."""
    return np.array([[verdict == name for name in VERDICTS] for verdict in verdicts], np.float64)


def _shares(table: NDArray[np.float64]) -> Shares:
    counts = table.sum(0)
    low, high = interval(bootstrap_sums(table, RESAMPLES, SEED) / counts.sum())
    leaning = table[:, 0] - table[:, 2]
    better, worse = int((leaning > 0).sum()), int((leaning < 0).sum())
    return Shares(
        counts={name: int(value) for name, value in zip(VERDICTS, counts, strict=True)},
        shares={name: float(value) for name, value in zip(VERDICTS, counts / counts.sum(), strict=True)},
        intervals={name: (float(low[at]), float(high[at])) for at, name in enumerate(VERDICTS)},
        p_value=float(binomtest(better, better + worse).pvalue) if better + worse else None,
    )


def _agreement(one: Ratings, other: Ratings, shown: Sequence[int]) -> Agreement:
    first, second = ([ratings.verdicts[at] for at in shown] for ratings in (one, other))
    return Agreement((one.annotator, other.annotator), _share_equal(first, second), kappa(first, second))


def _share_equal(one: Sequence[str], other: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _bounds(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.2f}–{100 * bounds[1]:.2f}"
