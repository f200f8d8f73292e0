"""Counting: each rating on the right side, shares and tests with worked numbers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg.errors import SdgError
from sdg.study.count import Ratings, count, kappa, read_ratings, tally_tables
from sdg.study.make import Key, Pair

KEY = Key(
    "study-1",
    "ours",
    "theirs",
    tuple(Pair(f"p{n}", f"a{n}", f"b{n}", n == 2, f"{n}.png", "a cat") for n in range(4)),
)
RATED = [("p3", "b3"), ("p0", "a0"), ("p1", "same")]


def downloaded(path: Path, *, study="study-1", annotator="Ann", ratings=RATED) -> Path:
    listed = [{"pair": pair, "better": better} for pair, better in ratings]
    path.write_text(json.dumps({"study": study, "annotator": annotator, "ratings": listed}))
    return path


def long_key(pairs: int) -> Key:
    return Key("s", "ours", "theirs", tuple(Pair(f"p{n}", "a", "b", False, str(n), "") for n in range(pairs)))


def test_ratings_are_told_from_a_and_identical_pairs_are_the_same(tmp_path: Path) -> None:
    read = read_ratings(downloaded(tmp_path / "r.json"), KEY)
    assert read == Ratings("Ann", ("good", "same", "same", "bad"))


def test_a_name_may_hold_joiners_and_none_that_turn_the_text(tmp_path: Path) -> None:
    joined = "\u0639\u0644\u06cc\u200c\u067e\u0648\u0631"
    assert read_ratings(downloaded(tmp_path / "r.json", annotator=joined), KEY).annotator == joined.replace(
        "\u200c", ""
    )
    assert read_ratings(downloaded(tmp_path / "r.json", annotator="A\u202enn"), KEY).annotator == "Ann"


REFUSED = {
    "another study": ({"study": "study-2"}, "holds ratings of another study, 'study-2', not of 'study-1'."),
    "a pair that is not there": ({"ratings": [*RATED, ("p9", "same")]}, "names 'same' as better of 'p9'"),
    "an identical pair": ({"ratings": [*RATED, ("p2", "same")]}, "names 'same' as better of 'p2'"),
    "a picture of another pair": (
        {"ratings": [("p0", "a1")]},
        "names 'a1' as better of 'p0', which the study",
    ),
    "a pair twice": ({"ratings": [*RATED, RATED[0]]}, "rates the pair 'p3' twice"),
    "a pair left out": ({"ratings": RATED[1:]}, "lacks 1 of 3 pairs; let Ann rate them and download again."),
    "no name": ({"annotator": " "}, "holds no ratings; give a file downloaded from the study's page."),
    "a name that moves the cursor": ({"annotator": "\x1b[2J"}, "holds no ratings"),
    "a number for a choice": ({"ratings": [("p0", 1)]}, "holds no ratings"),
}


@pytest.mark.parametrize(("changed", "sentence"), REFUSED.values(), ids=REFUSED)
def test_ratings_that_do_not_fit_the_key_are_refused(tmp_path: Path, changed, sentence: str) -> None:
    path = downloaded(tmp_path / "r.json", **changed)
    with pytest.raises(SdgError) as refused:
        read_ratings(path, KEY)
    assert str(refused.value).startswith(f"{path} ")
    assert sentence in str(refused.value)


@pytest.mark.parametrize("text", ["[1]", "{}", '"x"', '{"study": "s", "annotator": "A", "ratings": ["p0"]}'])
def test_what_are_no_ratings_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(SdgError, match=r"r\.json holds no ratings"):
        read_ratings(tmp_path / "r.json", KEY)


def test_shares_and_sign_test_of_one_annotator() -> None:
    tally = count(long_key(20), [Ratings("Ann", ("good",) * 8 + ("same",) * 10 + ("bad",) * 2)])
    ann = tally.annotators["Ann"]
    assert ann.counts == {"good": 8, "same": 10, "bad": 2}
    assert ann.shares == {"good": 0.4, "same": 0.5, "bad": 0.1}
    assert ann.p_value == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # 2·P(at most 2 of 10 coins)
    assert ann == tally.pooled
    # The normal approximation: 0.4 ± 1.96·sqrt(0.4·0.6/20), to within what 20 pairs allow.
    assert ann.intervals["good"] == pytest.approx((0.185, 0.615), abs=0.04)


def test_pooled_intervals_resample_pairs_with_all_their_ratings() -> None:
    """Two annotators who always agree know no more than one: the interval stays as wide."""
    verdicts = ("good",) * 30 + ("same",) * 60 + ("bad",) * 10
    once = count(long_key(100), [Ratings("Ann", verdicts)])
    twice = count(long_key(100), [Ratings("Ann", verdicts), Ratings("Bob", verdicts)])
    assert twice.pooled.intervals == once.pooled.intervals
    assert twice.pooled.p_value == once.pooled.p_value
    assert twice.pooled.counts == {"good": 60, "same": 120, "bad": 20}


def test_the_pooled_sign_test_asks_most_annotators_of_each_pair() -> None:
    one, other = ("good", "good", "good", "bad", "same"), ("good", "same", "bad", "bad", "same")
    tally = count(long_key(5), [Ratings("Ann", one), Ratings("Bob", other)])
    assert tally.pooled.p_value == pytest.approx(1.0)  # good, good, –, bad, –: two of three coins
    assert tally.pooled.counts == {"good": 4, "same": 3, "bad": 3}


def test_without_a_better_side_there_is_no_sign_test() -> None:
    tally = count(long_key(3), [Ratings("Ann", ("same",) * 3)])
    assert tally.pooled.p_value is None
    assert tally.pooled.intervals["same"] == (1.0, 1.0)
    assert tally.to_document()["pooled"]["p_value"] is None
    assert next(tally_tables(tally)).rows[0] == ("Ann", "0.00 %", "100.00 %", "0.00 %", "–")


def test_kappa_of_the_usual_example() -> None:
    """50 grants judged by two readers, 20 both yes, 15 both no, 5 and 10 apart: kappa is 0.4."""
    one = ["good"] * 25 + ["bad"] * 25
    other = ["good"] * 20 + ["bad"] * 5 + ["good"] * 10 + ["bad"] * 15
    assert kappa(one, other) == pytest.approx(0.4)
    assert kappa(["same"] * 4, ["same"] * 4) is None


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(["good", "same", "bad"])] * 2), min_size=1, max_size=30))
def test_kappa_is_symmetric_and_1_at_full_agreement_only(given_) -> None:
    one, other = [list(side) for side in zip(*given_, strict=True)]
    found = kappa(one, other)
    assert found == kappa(other, one)
    if found is not None:
        assert -1 - 1e-9 <= found <= 1
        assert (found == 1) == (one == other)


def test_agreement_is_that_on_pairs_that_were_shown(tmp_path: Path) -> None:
    ann = read_ratings(downloaded(tmp_path / "a.json"), KEY)
    others = [("p0", "a0"), ("p1", "b1"), ("p3", "b3")]
    bob = read_ratings(downloaded(tmp_path / "b.json", annotator="Bob", ratings=others), KEY)
    (agreement,) = count(KEY, [ann, bob]).agreement
    assert agreement.annotators == ("Ann", "Bob")
    assert agreement.share == pytest.approx(2 / 3)
    assert agreement.kappa == pytest.approx((2 / 3 - 3 / 9) / (1 - 3 / 9))


def test_one_annotator_twice_is_refused() -> None:
    with pytest.raises(SdgError, match="2 of the files hold ratings by Ann; give one for each annotator"):
        count(KEY, [Ratings("Ann", ("same",) * 4)] * 2)


def test_the_table_is_that_of_the_paper_with_a_row_for_all() -> None:
    verdicts = ("good",) * 11 + ("same",) * 85 + ("bad",) * 4
    first, second = tally_tables(
        count(long_key(100), [Ratings("Ann", verdicts), Ratings("Bob", verdicts[::-1])])
    )
    assert first.columns == ("annotator", "Good", "Same", "Bad", "sign test p")
    assert [row[0] for row in first.rows] == [
        "Ann",
        "95 % interval",
        "Bob",
        "95 % interval",
        "all",
        "95 % interval",
    ]
    assert first.rows[4][1:4] == ("11.00 %", "85.00 %", "4.00 %")
    assert second.rows[0][:2] == ("Ann and Bob", "78.00 %")
