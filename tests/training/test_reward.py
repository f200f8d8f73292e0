"""The composite reward: every branch by hand, and the whole against a search of all assignments."""

import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg.defects import Defect, Diagnosis
from sdg.response import render_response
from sdg.training.reward import Reward, composite_reward, composite_rewards

THINK = "<think>\nThe hand is odd.\n</think>\n"


def respond(*defects, think=THINK):
    items = [
        {"box_2d": d.box, "label": d.type.value, "description": d.reason, "importance": d.importance}
        for d in defects
    ]
    return f"{think}<answer>{json.dumps(items)}</answer>"


def artifact(box, reason="A fused hand.", importance=40):
    return Defect(box, "artifact", reason, importance)


def misalignment(box, reason="There is no dog.", importance=90):
    return Defect(box, "misalignment", reason, importance)


def constant(value):
    return lambda a, b: [value] * len(a)


def score(response, truth, similarity=None, **options):
    return composite_reward(response, truth, similarity or constant(0.9), **options)


def check(reward, location, description, importance):
    total = 0.6 * location + 0.25 * description + 0.15 * importance
    assert reward.format_valid
    assert (reward.location, reward.description, reward.importance, reward.total) == pytest.approx(
        (location, description, importance, total)
    )


HAND, DOG = artifact((100, 100, 300, 300)), misalignment((500, 500, 900, 900))


# --- location ---


def test_nothing_to_find_and_nothing_said():
    check(score(respond(), ()), 0.3, 0, 0)
    assert score(respond(), Diagnosis()).total == pytest.approx(0.18)


def test_everything_missed():
    check(score(respond(), (HAND, DOG)), -0.8, 0, 0)


def test_everything_invented():
    check(score(respond(HAND, DOG), ()), -0.3, 0, 0)


def test_a_perfect_answer():
    check(score(respond(HAND, DOG), (DOG, HAND)), 1, 1, 1)
    assert score(respond(HAND, DOG), (DOG, HAND)).total == pytest.approx(1)


def test_half_overlapping_boxes():
    # (0, 0, 200, 100) and (100, 0, 300, 100): IoU 1/3, centres 100 apart, enclosing box 300 × 100.
    said, true = artifact((100, 0, 300, 100)), artifact((0, 0, 200, 100))
    check(score(respond(said), (true,)), 1 / 3 - 100**2 / (300**2 + 100**2), 1, 1)


def test_a_pair_of_one_type_counts_however_far_apart():
    # Opposite corners: IoU 0, centres (900, 900) apart, enclosing box 1000 × 1000.
    said, true = artifact((0, 0, 100, 100)), artifact((900, 900, 1000, 1000))
    check(score(respond(said), (true,)), -0.81, 1, 1)


def test_types_never_pair_and_each_side_left_over_costs_a_half():
    # The same box under the other type: two unmatched, n = 1: −0.5·2 = −1.
    twin = misalignment(HAND.box)
    check(score(respond(twin), (HAND,)), -1, 0, 0)
    # One right, one missed of two: (1 − 0.5)/2.
    check(score(respond(HAND), (HAND, DOG)), 0.25, 0.5, 0.5)
    # One right, two invented: (1 − 2·0.5)/3.
    check(score(respond(HAND, twin, DOG), (HAND,)), 0, 1 / 3, 1 / 3)


def test_location_never_falls_below_minus_one():
    # Three missed artifacts, three invented misalignments: −0.5·6/3 = −1; a far pair more would go below.
    far = [artifact((0, 0, 1, 1)), *(misalignment((i, 0, i + 1, 1)) for i in range(2))]
    true = [artifact((999, 999, 1000, 1000)), *(artifact((0, i, 1, i + 1)) for i in range(2))]
    assert score(respond(*far), true).location >= -1
    said = [misalignment((0, 0, 1, 1)), misalignment((5, 0, 6, 1))]
    check(score(respond(*said), (HAND, artifact((1, 1, 2, 2)))), -1, 0, 0)


def test_the_matching_maximises_the_sum_not_the_first_best_pair():
    true = [artifact((0, 0, 100, 100)), artifact((50, 0, 150, 100))]
    said = [artifact((40, 0, 140, 100)), artifact((-0, 0, 10, 100))]
    # Said 0 overlaps true 1 most, and said 1 only true 0.
    first, second = iou_minus_distance(said[0].box, true[1].box), iou_minus_distance(said[1].box, true[0].box)
    assert score(respond(*said), true).location == pytest.approx((first + second) / 2)


# --- description and importance ---


@pytest.mark.parametrize(
    ("cosine", "expected"), [(-1, 0), (0.5, 0), (0.6, 0.25), (0.7, 0.5), (0.9, 1), (1, 1)]
)
def test_similarity_earns_from_a_half_to_nine_tenths(cosine, expected):
    check(score(respond(HAND), (HAND,), constant(cosine)), 1, expected, 1)


@pytest.mark.parametrize(("said", "expected"), [(40, 1), (50, 0.8), (15, 0.5), (90, 0), (100, 0)])
def test_importance_earns_down_to_a_difference_of_fifty(said, expected):
    check(score(respond(artifact(HAND.box, importance=said)), (HAND,)), 1, 1, expected)


def test_a_missing_true_importance_is_taken_as_fifty():
    check(score(respond(HAND), (artifact(HAND.box, importance=None),)), 1, 1, 0.8)


def test_a_missing_predicted_importance_earns_nothing():
    text = THINK + render_response(Diagnosis((HAND,)), think=False, importance=False)
    check(score(text, (HAND,), require_importance=False), 1, 1, 0)
    assert not score(text, (HAND,)).format_valid


def test_an_empty_reason_on_either_side_earns_nothing_and_is_not_compared():
    def never(a, b):
        raise AssertionError

    check(score(respond(HAND), (artifact(HAND.box, " "),), never), 1, 0, 1)
    text = respond(artifact(HAND.box, ""))
    check(score(text, (HAND,), never, require_description=False), 1, 0, 1)
    assert not score(text, (HAND,)).format_valid


def test_a_part_that_is_not_asked_for_earns_nothing_also_where_it_is_given():
    check(score(respond(HAND), (HAND,), require_description=False), 1, 0, 1)
    check(score(respond(HAND), (HAND,), require_importance=False), 1, 1, 0)
    assert score(respond(HAND), (HAND,), require_description=False).total == pytest.approx(0.75)
    assert score(respond(HAND), (HAND,), require_importance=False).total == pytest.approx(0.85)


# --- the gate ---


@pytest.mark.parametrize(
    "response",
    [
        "",
        "No defects.",
        respond(HAND)[:-9],
        respond(HAND, think=""),
        respond(artifact(HAND.box, "")),
        respond(artifact(HAND.box, importance=None)),
        respond(HAND).replace("[100,", "[300.0,"),
        respond(HAND).replace('"artifact"', '"both"'),
        respond().replace("[]", "```json\n[]\n```"),
    ],
)
@pytest.mark.parametrize("truth", [(), (HAND,)])
def test_a_malformed_response_gets_minus_one(response, truth):
    assert score(response, truth) == Reward(-1.0, 0.0, 0.0, 0.0, format_valid=False)


def test_without_the_think_block_where_it_is_not_asked_for():
    check(score(respond(HAND, think=""), (HAND,), require_think=False), 1, 1, 1)
    check(score(respond(HAND), (HAND,), require_think=False), 1, 1, 1)


# --- batches ---


def test_one_similarity_call_for_all_completions():
    calls = []

    def similarity(a, b):
        calls.append((a, b))
        return np.linspace(0.5, 0.9, len(a))

    other = artifact((0, 0, 50, 50), "A warped cup.", 10)
    rewards = composite_rewards(
        [respond(HAND), "nonsense", respond(other, DOG), respond()],
        [(artifact(HAND.box, "true hand"),), (HAND,), (DOG, other), (HAND,)],
        similarity,
    )
    assert len(calls) == 1
    assert set(zip(*calls[0], strict=True)) == {
        ("true hand", "A fused hand."),
        ("There is no dog.", "There is no dog."),
        ("A warped cup.", "A warped cup."),
    }
    assert [reward.format_valid for reward in rewards] == [True, False, True, True]


def test_no_completions_at_all():
    assert composite_rewards([], [], constant(1)) == []


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="as many truths"):
        composite_rewards([respond()], [], constant(1))
    for truth in (Diagnosis(status="failed"), Diagnosis(status="unparseable"), Diagnosis(status="truncated")):
        with pytest.raises(ValueError, match="says nothing"):
            score(respond(), truth)
        with pytest.raises(ValueError, match="says nothing"):
            score("malformed", truth)
    for wrong in ([0.5, 0.5], [[0.5]], 0.5, [float("nan")]):
        with pytest.raises(ValueError, match="similarity must give 1 finite"):
            score(respond(HAND), (HAND,), lambda a, b, wrong=wrong: wrong)


# --- against an independent search of all assignments ---


def iou_minus_distance(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    apart = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    hull = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    return common / union - apart / hull


def cosine_of(a, b):
    return 1 - abs(len(a) - len(b)) / 10


def assignments(truth, said):
    """Every complete pairing of one type's defects, each of the smaller side used once."""
    if len(truth) > len(said):
        return [[(t, s) for s, t in pairs] for pairs in assignments(said, truth)]
    return [list(zip(truth, chosen, strict=True)) for chosen in permutations(said, len(truth))]


def best_by_search(truth, said):
    """R by the definition: for each type the pairing of greatest summed DIoU among all there are."""
    if not truth and not said:
        return 0.6 * 0.3
    if not said or not truth:
        return 0.6 * (-0.3 if said else -0.8)
    pairs = []
    for kind in ("artifact", "misalignment"):
        of_kind = [[d for d in side if d.type == kind] for side in (truth, said)]
        pairs += max(assignments(*of_kind), key=lambda p: sum(iou_minus_distance(t.box, s.box) for t, s in p))
    n = max(len(truth), len(said))
    overlap = sum(iou_minus_distance(t.box, s.box) for t, s in pairs)
    location = (overlap - 0.5 * (len(truth) + len(said) - 2 * len(pairs))) / n
    described = sum(min(max((cosine_of(t.reason, s.reason) - 0.5) / 0.4, 0), 1) for t, s in pairs) / n
    weighed = sum(min(max(1 - abs(t.importance - s.importance) / 50, 0), 1) for t, s in pairs) / n
    return 0.6 * min(max(location, -1), 1) + 0.25 * described + 0.15 * weighed


@st.composite
def defects(draw):
    x0, y0 = draw(st.integers(0, 900)), draw(st.integers(0, 900))
    box = (x0, y0, x0 + draw(st.integers(1, 100)), y0 + draw(st.integers(1, 100)))
    kind = draw(st.sampled_from(["artifact", "misalignment"]))
    return Defect(box, kind, "x" * draw(st.integers(1, 9)), draw(st.integers(1, 100)))


def lonely(pairs):
    return len({round(iou_minus_distance(*pair), 9) for pair in pairs}) == len(pairs)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.lists(defects(), max_size=4)] * 2), min_size=1, max_size=4))
def test_rewards_equal_a_search_of_all_assignments(cases):
    # Ties between assignments leave the reasons' score open; they need equal DIoU sums, so equal terms.
    cases = [
        (truth, said)
        for truth, said in cases
        if lonely([(t.box, s.box) for t in truth for s in said if t.type == s.type])
    ]
    rewards = composite_rewards(
        [respond(*said) for _, said in cases],
        [truth for truth, _ in cases],
        lambda a, b: [cosine_of(*pair) for pair in zip(a, b, strict=True)],
    )
    expected = [best_by_search(truth, said) for truth, said in cases]
    assert [reward.total for reward in rewards] == pytest.approx(expected)
