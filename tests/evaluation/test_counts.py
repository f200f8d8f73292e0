"""Counts of shards add up to those of the whole, and to its metrics."""

from __future__ import annotations

import json
import random

import pytest

from sdg import Defect, Diagnosis
from sdg.evaluation import Counts, evaluate


def image(rng: random.Random) -> list[Defect]:
    found = []
    for _ in range(rng.randrange(4)):
        (x0, x1), (y0, y1) = (sorted(rng.sample(range(0, 1001, 100), 2)) for _ in "xy")
        kind, reason = rng.choice(("artifact", "misalignment")), rng.choice(("a hand", ""))
        found.append(Defect((x0, y0, x1, y1), kind, reason, rng.choice((None, 40))))
    return found


def test_shards_add_up_to_the_whole() -> None:
    rng = random.Random(4)
    truth = [image(rng) for _ in range(60)]
    predicted: list[object] = [image(rng) for _ in range(60)]
    predicted[7], predicted[31] = Diagnosis(status="failed"), Diagnosis(status="unparseable")
    whole = evaluate(truth, predicted, embedder="token-f1")
    cuts = [slice(0, 13), slice(13, 14), slice(14, 60)]
    shards = [evaluate(truth[cut], predicted[cut], embedder="token-f1").counts for cut in cuts]
    again = [Counts.from_dict(json.loads(json.dumps(counts.to_dict()))) for counts in shards]
    together = sum(again)
    assert isinstance(together, Counts)
    assert (together.images["images"], together.images["failed"]) == (60, 1)
    assert together.images == whole.counts.images
    for kind, values in together.metrics().items():
        assert all(
            value is None
            if (expected := whole.metrics[kind][name]) is None
            else value == pytest.approx(expected)
            for name, value in values.items()
        )
    assert whole.metrics["artifact"]["BoxF1@0.1"] not in (None, 0)


def test_counts_made_in_different_ways_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        evaluate([[]], [[]]).counts + evaluate([[]], [[]], embedder="token-f1").counts


def test_what_are_no_counts_is_refused() -> None:
    good = evaluate([[]], [[]]).counts.to_dict()
    with pytest.raises(ValueError, match="no counts of SDG-Eval"):
        Counts.from_dict({**good, "sums": {}})
    good["sums"]["artifact"]["truth"] = -1
    with pytest.raises(ValueError, match="not negative"):
        Counts.from_dict(good)
