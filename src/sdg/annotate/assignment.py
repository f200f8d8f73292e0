"""Who annotates, reviews and adjudicates which picture: drawn once, so that all have about as much to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdg.errors import SdgError

INDEPENDENT = 3
"""People that a share given to two needs: a third reviews and adjudicates."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The people of one picture: one or two annotators, their reviewers by round, who adjudicates if two."""

    annotators: tuple[str, ...]
    reviewers: tuple[str, ...] = ()
    adjudicator: str | None = None


def default_share(people: int) -> float:
    """Share of the pictures given to two people where nobody says: a tenth, as far as there is a third."""
    return 0.1 if people >= INDEPENDENT else 0.0


def default_reviews(people: int) -> int:
    """Rounds of review where nobody says: two, as the paper's, as far as there is somebody else."""
    return 2 if people > 1 else 0


def assign(
    pictures: int, people: Sequence[str], *, share: float, reviews: int, seed: int = 0
) -> list[Assignment]:
    """The people of each picture. share: part of the pictures that two annotate; reviews: rounds.

    Nobody reviews or adjudicates a picture that they annotated. Where there are enough people, the rounds
    and the adjudication of a picture are by different ones.
    Raises SdgError where there are too few people for that.
    """
    if len({person.casefold() for person in people}) != len(people):
        raise SdgError("Two annotators have one e-mail; give each person once.")
    if share > 0 and len(people) < INDEPENDENT:
        raise SdgError(
            f"Pictures that two people annotate need a third to adjudicate; "
            f"give {INDEPENDENT} annotators or more, or --share 0."
        )
    if reviews and len(people) < 2:
        raise SdgError("Nobody reviews their own annotations; give another annotator, or --reviews 0.")
    order = np.random.default_rng(seed).permutation(pictures).tolist()
    shared = set(order[: round(share * pictures)])
    work: Counter[str] = Counter()

    def least(among: Sequence[str], avoiding: set[str]) -> str:
        person = min(among, key=lambda one: (one in avoiding, work[one], people.index(one)))
        work[person] += 1
        return person

    annotators: dict[int, tuple[str, ...]] = {}
    for at in order:
        first = least(people, set())
        annotators[at] = (first,)
        if at in shared:
            annotators[at] += (least([one for one in people if one != first], set()),)
    found: dict[int, Assignment] = {}
    work.clear()  # reviews are shared out evenly by themselves
    for at in order:
        others = [one for one in people if one not in annotators[at]]
        reviewers: tuple[str, ...] = ()
        for _ in range(reviews):
            reviewers += (least(others, set(reviewers)),)
        adjudicator = least(others, set(reviewers)) if at in shared else None
        found[at] = Assignment(annotators[at], reviewers, adjudicator)
    return [found[at] for at in range(pictures)]
