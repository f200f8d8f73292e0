import pytest

from sdg.errors import SdgError
from sdg.teacher.plan import Plan
from sdg.teacher.preview import Estimate, estimate, read_price

TEACHER = "openai:http://127.0.0.1:9/v1#m"


def test_the_estimate_counts_pictures_texts_and_answers(given):
    stages = Plan(TEACHER).stages
    cost = estimate(given, stages, tries=3)
    # 32 × 24 pixels are one patch; four characters are one token.
    texts = [stages[0].question.text(one.record.prompt, one.diagnosis) for one in given]
    assert cost.tokens_in == sum(1 + -(-len(text) // 4) for text in texts)
    # Four clean pictures, four with one and four with two defects; 31.5 words of 1.4 tokens a reason.
    assert cost.tokens_out == sum(round(120 + 45 * n + n * (45 + 31.5 * 1.4)) for n in (0, 1, 2) * 4)
    assert (cost.images, cost.requests, cost.most_requests) == (12, 12, 36)


def test_jobs_apart_and_votes_ask_about_clean_pictures_for_their_trace_alone(given):
    apart = Plan(TEACHER, apart=True, voters=("openai:http://127.0.0.1:9/v1#n",))
    cost = estimate(given, apart.stages, tries=2)
    assert (cost.requests, cost.most_requests) == (8 + 12 + 8 + 8, 72)


def test_the_price_is_that_of_millions():
    cost = Estimate(1, 1, 3, 2_000_000, 500_000)
    assert cost.price((0.3, 2.5)) == pytest.approx(1.85)
    assert ("price, about", "1.85") in cost.table((0.3, 2.5)).rows
    assert read_price("0.30/2.50") == (0.3, 2.5)


@pytest.mark.parametrize("text", ["", "1", "1/", "a/b", "-1/2", "nan/1", "1/inf"])
def test_a_price_that_is_none_is_refused(text):
    with pytest.raises(SdgError, match="A price is IN/OUT"):
        read_price(text)
