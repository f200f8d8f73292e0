from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.annotate.assignment import assign
from sdg.errors import SdgError


@given(
    pictures=st.integers(1, 80),
    people=st.integers(3, 9),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    reviews=st.integers(0, 2),
    seed=st.integers(0, 5),
)
def test_nobody_judges_what_they_annotated_and_all_do_about_as_much(pictures, people, share, reviews, seed):
    names = [f"p{number}" for number in range(people)]
    given_out = assign(pictures, names, share=share, reviews=reviews, seed=seed)
    assert len(given_out) == pictures
    assert sum(len(one.annotators) == 2 for one in given_out) == round(share * pictures)
    for one in given_out:
        assert len(set(one.annotators)) == len(one.annotators)
        assert len(one.reviewers) == reviews
        judges = {*one.reviewers, *([one.adjudicator] if one.adjudicator else [])}
        assert not judges & set(one.annotators)
        assert (one.adjudicator is not None) == (len(one.annotators) == 2)
        if people >= 5:  # two annotators, two reviewers, an adjudicator
            assert len(judges) == len(one.reviewers) + (one.adjudicator is not None)
    work = Counter(person for one in given_out for person in one.annotators)
    assert max(work.values()) - min(work[name] for name in names) <= 2
    assert given_out == assign(pictures, names, share=share, reviews=reviews, seed=seed)


def test_too_few_people_are_told_what_to_ask_for():
    with pytest.raises(SdgError, match=r"a third to adjudicate; give 3 annotators or more, or --share 0"):
        assign(4, ["ann", "bob"], share=0.5, reviews=0)
    with pytest.raises(SdgError, match="give another annotator, or --reviews 0"):
        assign(4, ["ann"], share=0, reviews=1)
    with pytest.raises(SdgError, match="one e-mail"):
        assign(4, ["ann", "ann"], share=0, reviews=0)
    assert [one.annotators for one in assign(2, ["ann"], share=0, reviews=0)] == [("ann",), ("ann",)]
