"""SDG-Eval against a brute force that tries every assignment in plain Python, and worked numbers."""

from __future__ import annotations

import doctest
import math
import random
from importlib import import_module
from itertools import permutations

import numpy as np
import pytest

import sdg
from sdg import Defect, Diagnosis
from sdg.evaluation import METRICS, PAPER_METRICS, evaluate

TYPES = ("artifact", "misalignment")
WORDS = ("hand", "fused", "wall", "red", "cat", "text", "shadow")


def overlap(a, b):
    width = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    height = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    shared = max(width, 0) * max(height, 0)
    area = [(d.box[2] - d.box[0]) * (d.box[3] - d.box[1]) for d in (a, b)]
    return shared / (sum(area) - shared)


def best_pairs(truth, predicted):
    """Of all one-to-one assignments of min(n, m) pairs, the one with the greatest sum of IoU."""
    if len(truth) > len(predicted):
        return [(a, b) for b, a in best_pairs(predicted, truth)]
    scores = [[overlap(a, b) for b in predicted] for a in truth]
    chosen = max(
        permutations(range(len(predicted)), len(truth)),
        key=lambda columns: math.fsum(scores[row][column] for row, column in enumerate(columns)),
    )
    return [(truth[row], predicted[column]) for row, column in enumerate(chosen)]


def greedy_pairs(truth, predicted, threshold):
    truth, predicted, pairs = list(truth), list(predicted), []
    while truth and predicted:
        a, b = max(((a, b) for a in truth for b in predicted), key=lambda pair: overlap(*pair))
        if overlap(a, b) < threshold:
            break
        pairs.append((a, b))
        truth.remove(a)
        predicted.remove(b)
    return pairs


def ratio(numerator, denominator):
    return numerator / denominator if denominator else None


def mean(values):
    return sum(values) / len(values) if values else None


def brute_force(truth, predicted, matching, similarity):
    """Every metric of spec §3, read off its definition one image at a time."""
    result = {}
    for kind in TYPES:
        sides = [
            ([d for d in g if d.type == kind], [d for d in p if d.type == kind])
            for g, p in zip(truth, predicted, strict=True)
        ]
        matched = {0.1: [], 0.5: []}
        for g, p in sides:
            once = best_pairs(g, p)
            for tau in matched:
                pairs = once if matching == "hungarian" else greedy_pairs(g, p, tau)
                matched[tau] += [(a, b) for a, b in pairs if overlap(a, b) >= tau]
        hit = sum(1 for g, p in sides if g and p)
        wrong = sum(1 for g, p in sides if bool(g) != bool(p))
        clean = [p for g, p in sides if not g]
        n_true, n_predicted = sum(len(g) for g, _ in sides), sum(len(p) for _, p in sides)
        said = [(a, b) for a, b in matched[0.1] if a.reason and b.reason]
        weighed = [(a, b) for a, b in matched[0.1] if None not in (a.importance, b.importance)]
        result[kind] = {
            "DetTypeF1": ratio(2 * hit, 2 * hit + wrong),
            "ClnAcc": ratio(sum(not p for p in clean), len(clean)),
            "DescCos@0.1": mean([similarity([a.reason], [b.reason])[0] for a, b in said]),
            "ImpAcc@0.1": mean([1 - abs(a.importance - b.importance) / 100 for a, b in weighed]),
        }
        for tau, pairs in matched.items():
            result[kind][f"BoxPr@{tau}"] = ratio(len(pairs), n_predicted)
            result[kind][f"BoxRe@{tau}"] = ratio(len(pairs), n_true)
            result[kind][f"BoxF1@{tau}"] = ratio(2 * len(pairs), n_true + n_predicted)
    return result


def random_defect(rng, near=None):
    if near is None:
        x0, y0 = rng.randint(0, 800), rng.randint(0, 800)
        box = (x0, y0, x0 + rng.randint(50, 200), y0 + rng.randint(50, 200))
    else:
        x0, y0, x1, y1 = (min(max(c + rng.randint(-60, 60), 0), 1000) for c in near.box)
        box = (min(x0, x1), min(y0, y1), max(x0, x1) + (x0 == x1), max(y0, y1) + (y0 == y1))
    return Defect(
        box,
        rng.choice(TYPES) if near is None or rng.random() < 0.1 else near.type,
        " ".join(rng.choices(WORDS, k=rng.randint(0, 4))),
        rng.choice([None, rng.randint(1, 100), rng.randint(1, 100)]),
    )


def random_set(rng, images):
    truth, predicted = [], []
    for _ in range(images):
        g = [random_defect(rng) for _ in range(rng.choice([0, 0, 1, 2, 3, 4]))]
        p = [random_defect(rng, near) for near in g if rng.random() < 0.7]
        p += [random_defect(rng) for _ in range(rng.choice([0, 0, 1, 2]))]
        truth.append(g)
        predicted.append(p)
    return truth, predicted


def jaccard(a, b):
    return np.array(
        [len({*x.split()} & {*y.split()}) / len({*x.split(), *y.split()}) for x, y in zip(a, b, strict=True)]
    )


@pytest.mark.parametrize("matching", ["hungarian", "greedy"])
def test_every_metric_equals_the_brute_force(matching):
    compared = 0
    for seed in range(40):
        rng = random.Random(seed)
        truth, predicted = random_set(rng, rng.randint(0, 8))
        found = evaluate(truth, predicted, embedder=jaccard, matching=matching).to_dict()
        expected = brute_force(truth, predicted, matching, jaccard)
        for kind in TYPES:
            assert found[kind].keys() == expected[kind].keys() == set(METRICS)
            for name, value in expected[kind].items():
                assert (found[kind][name] is None) == (value is None), (seed, kind, name)
                assert value is None or found[kind][name] == pytest.approx(value, abs=1e-12), (seed, name)
                compared += value is not None
    assert compared > 500


def test_worked_numbers():
    truth = [
        [Defect((0, 0, 100, 100), "artifact", "fused hand", 80), Defect((500, 500, 600, 600), "artifact")],
        [Defect((0, 0, 100, 100), "misalignment", "no hat", 50)],
        [],
    ]
    predicted = [
        [Defect((0, 0, 100, 50), "artifact", "fused", 60), Defect((0, 0, 100, 20), "misalignment")],
        [Defect((0, 0, 100, 20), "misalignment", "a hat", 90), Defect((700, 700, 800, 800), "misalignment")],
        [],
    ]
    result = evaluate(truth, predicted, embedder="token-f1").to_dict()
    assert result["artifact"] == {
        "DetTypeF1": 1.0,
        "ClnAcc": 1.0,
        "BoxF1@0.1": pytest.approx(2 / 3),
        "BoxF1@0.5": pytest.approx(2 / 3),  # an IoU of exactly 0.5 counts
        "DescCos@0.1": pytest.approx(2 / 3),
        "ImpAcc@0.1": pytest.approx(0.8),
        "BoxPr@0.1": 1.0,
        "BoxRe@0.1": 0.5,
        "BoxPr@0.5": 1.0,
        "BoxRe@0.5": 0.5,
    }
    assert result["misalignment"] == {
        "DetTypeF1": pytest.approx(2 / 3),
        "ClnAcc": 0.5,
        "BoxF1@0.1": 0.5,
        "BoxF1@0.5": 0.0,
        "DescCos@0.1": 0.5,
        "ImpAcc@0.1": pytest.approx(0.6),
        "BoxPr@0.1": pytest.approx(1 / 3),
        "BoxRe@0.1": 1.0,
        "BoxPr@0.5": 0.0,
        "BoxRe@0.5": 0.0,
    }


def test_one_matching_serves_both_thresholds():
    # The greatest sum pairs (0.45, 0.45) rather than (0.6, 0): nothing reaches 0.5, although greedy would.
    truth = [[Defect((0, 0, 1000, 600), "artifact"), Defect((0, 600, 1000, 1000), "artifact")]]
    predicted = [[Defect((0, 0, 1000, 1000), "artifact"), Defect((0, 0, 1000, 250), "artifact")]]
    hungarian = evaluate(truth, predicted).to_dict()["artifact"]
    greedy = evaluate(truth, predicted, matching="greedy").to_dict()["artifact"]
    assert (hungarian["BoxRe@0.1"], hungarian["BoxRe@0.5"]) == (1.0, 0.0)
    assert (greedy["BoxRe@0.1"], greedy["BoxRe@0.5"]) == (0.5, 0.5)


def test_undefined_is_none_and_never_zero():
    nothing = evaluate([], []).to_dict()
    assert all(value is None for kind in TYPES for value in nothing[kind].values())
    clean = evaluate([[]], [[]]).to_dict()["artifact"]
    assert {name for name, value in clean.items() if value is not None} == {"ClnAcc"}
    missed = evaluate([[Defect((0, 0, 9, 9), "artifact", "x", 5)]], [[]]).to_dict()["artifact"]
    assert (missed["BoxF1@0.1"], missed["BoxRe@0.1"], missed["DetTypeF1"]) == (0.0, 0.0, 0.0)
    assert missed["BoxPr@0.1"] is missed["ImpAcc@0.1"] is missed["ClnAcc"] is None


def test_without_an_embedder_descriptions_are_not_scored():
    same = [[Defect((0, 0, 9, 9), "artifact", "x", 5)]]
    result = evaluate(same, same)
    assert result.to_dict()["artifact"]["DescCos@0.1"] is None
    assert result.settings["embedder"] is None
    assert evaluate(same, same, embedder="token-f1").settings["embedder"] == "token-f1"


def test_failed_is_left_out_and_unparseable_predicts_nothing():
    defect = Defect((0, 0, 9, 9), "artifact", "x", 5)
    truth = [[defect]] * 4
    predicted = [
        Diagnosis((defect,)),
        Diagnosis(status="failed"),
        Diagnosis(status="unparseable"),
        Diagnosis((defect,), status="repaired", repairs=("code-fence", "code-fence")),
    ]
    result = evaluate(truth, predicted)
    assert result.to_dict()["artifact"]["BoxRe@0.1"] == pytest.approx(2 / 3)
    assert dict(result.status) == {
        "images": 4,
        "evaluated": 3,
        "ok": 1,
        "repaired": 1,
        "truncated": 0,
        "unparseable": 1,
        "failed": 1,
        "unknown_truth": 0,
        "repairs": {"code-fence": 2},
    }


def test_an_image_whose_truth_is_unknown_is_left_out():
    defect = Defect((0, 0, 9, 9), "artifact")
    result = evaluate([Diagnosis(status="failed"), [defect]], [[defect], [defect]])
    assert (result.status["evaluated"], result.status["unknown_truth"]) == (1, 1)
    assert result.to_dict()["artifact"]["BoxPr@0.1"] == 1.0


def test_the_papers_example_against_itself_is_perfect(ballerina):
    diagnosis = sdg.parse_response(ballerina)
    assert len(diagnosis.defects) == 4
    clean = Diagnosis()
    result = evaluate([diagnosis, clean], [diagnosis, clean], embedder="token-f1", bootstrap=50)
    for kind in TYPES:
        assert result.metrics[kind] == dict.fromkeys(METRICS, 1.0)
        assert [bounds for bounds in result.intervals[kind].values() if bounds] == [(1.0, 1.0)] * len(METRICS)


def test_order_of_images_and_defects_does_not_matter():
    rng = random.Random(1)
    truth, predicted = random_set(rng, 30)
    base = evaluate(truth, predicted, embedder=jaccard).to_dict()
    order = rng.sample(range(30), 30)
    shuffled = evaluate(
        [rng.sample(truth[i], len(truth[i])) for i in order],
        [rng.sample(predicted[i], len(predicted[i])) for i in order],
        embedder=jaccard,
    ).to_dict()
    for kind in TYPES:
        assert shuffled[kind] == pytest.approx(base[kind])


def test_the_worst_images_come_first():
    small, large = (
        Defect((0, 0, 9, 9), "artifact", importance=20),
        Defect((0, 0, 9, 9), "artifact", importance=90),
    )
    elsewhere = Defect((500, 500, 600, 600), "artifact")
    result = evaluate([[small], [large], [large], []], [[], [large], [elsewhere], []])
    worst = result.worst(10)
    assert [(case.image, case.cost) for case in worst] == [(2, pytest.approx(1.4)), (0, pytest.approx(0.2))]
    assert (worst[0].missed, worst[0].spurious, worst[0].matched) == ((large,), (elsewhere,), ())
    assert result.worst(1) == worst[:1]


def test_it_prints_as_the_papers_table():
    defect = Defect((0, 0, 9, 9), "artifact", "x", 5)
    result = evaluate([[defect], []], [[defect], Diagnosis(status="failed")], bootstrap=20)
    lines = str(result).splitlines()
    assert lines[0].split() == list(PAPER_METRICS)
    assert lines[1].split() == ["artifact", "1.000", "–", "1.000", "1.000", "–", "1.000"]
    assert "1 of 2 images evaluated" in lines[-2]
    assert "1 failed (left out)" in lines[-2]
    assert "hungarian" in lines[-1]


def test_the_document_is_json(tmp_path):
    import json

    defect = Defect((0, 0, 9, 9), "artifact", "x", 5)
    result = evaluate([[defect]], [[defect]], bootstrap=10, seed=3)
    document = json.loads(json.dumps(result.to_document(), allow_nan=False))
    assert document.keys() == {"metrics", "intervals", "status", "settings"}
    assert document["metrics"]["artifact"]["BoxF1@0.5"] == 1.0
    assert document["intervals"]["artifact"]["BoxF1@0.5"] == [1.0, 1.0]
    assert document["settings"] == {"matching": "hungarian", "embedder": None, "bootstrap": 10, "seed": 3}


def test_an_interval_that_no_resample_defines_is_none():
    import json

    defect = Defect((0, 0, 9, 9), "artifact", "x", 5)
    images = [[defect], *[[]] * 4]
    result = evaluate(images, images, bootstrap=1, seed=0)  # which draws the last four
    assert result.metrics["artifact"]["BoxF1@0.5"] == 1.0
    assert result.intervals["artifact"]["BoxF1@0.5"] is None
    json.dumps(result.to_document(), allow_nan=False)
    assert "nan" not in str(result)


@pytest.mark.parametrize("module", ["sdg.evaluation.sdg_eval", "sdg.embeddings"])
def test_the_examples_in_docstrings_hold(module):
    result = doctest.testmod(import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="there are 1 and 2"):
        evaluate([[]], [[], []])
    with pytest.raises(ValueError, match="hungarian"):
        evaluate([[]], [[]], matching="optimal")
    with pytest.raises(ValueError, match="0 or more"):
        evaluate([[]], [[]], bootstrap=-1)
    with pytest.raises(ValueError, match="Image 0"):
        evaluate([["a box"]], [[]])
