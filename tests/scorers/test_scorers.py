"""Scalar scorers: what they compute, and that what they cannot score is missing, never 0."""

from __future__ import annotations

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from bad_server import Reply, Server, completion, error, tagged
from PIL import Image
from tiny_qwen3vl import tiny_model, tiny_processor
from transformers import AutoProcessor, CLIPModel

from sdg.errors import SdgError
from sdg.scorers import load_scorer
from sdg.scorers.real import QUESTION, p_real
from sdg.scorers.unified_reward import UnifiedReward, read_scores
from sdg.scorers.weighted import ScaledScorer, ScorerRecipe, WeightedSum, load_reward
from sdg.testbed.models.detector.build import new_tokenizer


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)) for _ in range(count)]


def test_a_clip_score_is_the_scaled_cosine_of_picture_and_prompt(checkpoints: Path) -> None:
    prompts = ["a red cup", "a blue dog hat car a red blue green cup hat"]  # the second is cut
    scores = load_scorer(f"clip:{checkpoints / 'clip'}").score(pictures(2), prompts)
    model = CLIPModel.from_pretrained(checkpoints / "clip").eval()
    mean, std = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    for picture, prompt, score in zip(pictures(2), prompts, scores, strict=True):
        words = [*[toy.WORDS.index(word) for word in prompt.split()][: toy.TEXT - 1], 2]
        ids = torch.tensor([words + [0] * (toy.TEXT - len(words))])
        pixels = (torch.from_numpy(np.array(picture)).float() / 255 - mean) / std
        with torch.no_grad():
            image = model.visual_projection(model.vision_model(pixels.permute(2, 0, 1)[None]).pooler_output)
            text = model.text_projection(
                model.text_model(ids, attention_mask=(ids != 0).long()).pooler_output
            )
        cosine = torch.cosine_similarity(image, text)
        assert score == pytest.approx(float(model.logit_scale.detach().exp() * cosine), rel=1e-3)


@pytest.mark.parametrize(
    ("alignment", "coherence", "style", "score"),
    [
        ("Alignment Score (1-5): 4", "Coherence Score (1-5): 3", "Style Score (1-5): 2", 3.7 / 5),
        ("**Alignment Score (1-5):** 4.5", "Coherence score: 5", "Style Score (1-5): 1.0", 4.2 / 5),
        ("Alignment Score (1-5): 5", "Coherence Score (1-5): 5", "", None),  # one is missing
        ("Alignment Score (1-5): 9", "Coherence Score (1-5): 3", "Style Score (1-5): 2", None),  # too high
        ("Alignment Score (1-5): 0", "Coherence Score (1-5): 3", "Style Score (1-5): 2", None),
        ("Alignment Score (1-5): X", "Coherence Score (1-5): Y", "Style Score (1-5): Z", None),
        ("Alignment Score: 1\nAlignment Score: 5", "Coherence Score: 3", "Style Score: 2", None),  # two
        ("", "", "", None),
    ],
)  # fmt: skip
def test_unified_reward_answers_are_read_whole_or_not_at_all(
    alignment: str, coherence: str, style: str, score: float | None
) -> None:
    assert read_scores(f"Sure.\n{alignment}\n{coherence}\n{style}") == (
        None if score is None else pytest.approx(score)
    )


GOOD = "Alignment Score (1-5): {}\nCoherence Score (1-5): 3\nStyle Score (1-5): 3"


@pytest.mark.parametrize(
    "said",
    [
        f"<think>{GOOD.format(4)}",
        f"<think>{GOOD.format(4)}</think>",
        f"</think><think>{GOOD.format(4)}",
        json.dumps({"error": {"message": GOOD.format(4)}}),
        "Error: " + GOOD.format(4),
        GOOD.format("4 cannot be given"),
        GOOD.format(4).replace("\n", " "),
        GOOD.format("4.5.6"),
        GOOD.format("40"),
        GOOD.format("٤"),
    ],
)
def test_scores_that_are_only_mentioned_are_none(said: str) -> None:
    assert read_scores(said) is None
    assert read_scores(f"<think>{said}</think>\n{GOOD.format('4/5')}") == pytest.approx(3.8 / 5)


def test_an_answer_that_was_cut_off_or_comes_with_an_error_has_no_score() -> None:
    bad = [
        completion(GOOD.format(5), "length"),
        completion(GOOD.format(5), "content_filter"),
        completion(GOOD.format(5), "error"),
        completion(GOOD.format(5), refusal="No."),
        completion("", reasoning_content=GOOD.format(5)),
    ]
    with Server(lambda index, attempt: bad[index]) as server:
        assert unified(server).score([tagged(i) for i in range(5)], ["a cup"] * 5) == [None] * 5


def unified(server: Server, **options: Any) -> UnifiedReward:
    return UnifiedReward(
        server.url, "judge", **({"timeout": 2.0, "attempts": 3, "first_pause": 0.01} | options)
    )


def test_a_served_model_is_asked_for_each_picture_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    good = [completion(GOOD.format(5)), completion("I had rather not say."), completion(GOOD.format(1))]
    good[0].delay = 0.1
    with Server(lambda index, attempt: good[index]) as server:
        scorer = load_scorer(f"unified-reward:{server.url}#judge?timeout=10&parallel=2")
        scores = scorer.score([tagged(i) for i in range(3)], ["a cup", "a hat", "a car"])
    assert scores == [pytest.approx(0.92), None, pytest.approx(0.28)]
    assert server.asked == {0: 1, 1: 1, 2: 1}
    assert server.busiest == 2
    assert {(b["model"], b["temperature"], b["max_completion_tokens"]) for b in server.bodies} == {
        ("judge", 0, 256)
    }
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
    texts = [body["messages"][0]["content"][1]["text"] for body in server.bodies]
    assert all(sum(caption in text for text in texts) == 1 for caption in ("a cup", "a hat", "a car"))


def test_a_served_model_sees_the_very_pixels_and_its_thoughts_are_no_scores() -> None:
    shown = pictures(1)
    answer = completion(GOOD.format(5), reasoning_content="Perhaps Alignment Score (1-5): 2?")
    with Server(lambda index, attempt: answer) as server:
        assert unified(server).score(shown, ["a cup"]) == [pytest.approx(0.92)]
    url = server.bodies[0]["messages"][0]["content"][0]["image_url"]["url"]
    sent = Image.open(BytesIO(base64.b64decode(url.split(",")[1])))
    assert np.array_equal(np.asarray(sent), np.asarray(shown[0]))


def test_a_busy_server_of_scores_is_left_alone_as_long_as_it_asks_and_then_answers(
    pauses: list[float],
) -> None:
    def behave(index: int, attempt: int) -> Reply:
        return error(429, "slow down", Retry_After="90") if attempt == 1 else completion(GOOD.format(5))

    with Server(behave) as server:
        assert unified(server).score([tagged(0)], ["a cup"]) == [pytest.approx(0.92)]
    assert max(pauses) == 90


def test_a_score_that_drips_in_past_the_deadline_is_missing() -> None:
    slow = completion(GOOD.format(5))
    slow.drip = 0.1  # each byte well within the deadline, the answer far beyond it
    with Server(lambda index, attempt: slow if index else completion(GOOD.format(5))) as server:
        scores = unified(server, timeout=1.0, attempts=2).score([tagged(0), tagged(1)], ["a cup", "a hat"])
    assert scores == [pytest.approx(0.92), None]
    assert 0 < server.dripped < len(slow.content)  # in both attempts together
    assert server.asked[1] == 2


@pytest.mark.parametrize("status", [400, 413, 500])
def test_a_picture_the_server_of_scores_cannot_take_is_missing_and_the_others_are_not(status: int) -> None:
    with Server(lambda i, attempt: error(status) if i else completion(GOOD.format(1))) as server:
        scores = unified(server).score([tagged(1), tagged(0)], ["a cup", "a hat"])
    assert scores == [None, pytest.approx(0.28)]
    assert server.asked[1] == (3 if status == 500 else 1)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_stops_with_a_sentence(status: int) -> None:
    with (
        Server(lambda index, attempt: error(status)) as server,
        pytest.raises(SdgError, match=rf"refuses model judge \(HTTP {status}\); check the address"),
    ):
        unified(server).score([tagged(0), tagged(1)], ["a cup", "a hat"])


def test_an_absent_server_is_missing_not_zero() -> None:
    with Server(lambda index, attempt: completion("")) as server:
        pass
    assert unified(server).score(pictures(1), ["a cup"]) == [None]


def test_a_server_of_scores_on_this_machine_is_not_sought_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with Server(lambda index, attempt: completion(GOOD.format(5))) as server:
        assert unified(server, attempts=1).score([tagged(0)], ["a cup"]) == [pytest.approx(0.92)]


def test_scores_are_asked_for_inside_of_a_running_event_loop_too() -> None:
    async def notebook() -> list[float | None]:
        with Server(lambda index, attempt: completion(GOOD.format(5))) as server:
            return unified(server).score([tagged(0)], ["a cup"])

    # In a thread of its own: a browser test earlier in this process leaves a running loop in the main one.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(asyncio.run, notebook()).result() == [pytest.approx(0.92)]


def test_a_weighted_sum_is_missing_where_a_part_is() -> None:
    class Fixed:
        def __init__(self, *scores: float | None) -> None:
            self.scores = list(scores)

        def score(self, pictures: Any, prompts: Any) -> list[float | None]:
            return self.scores

    one = ScaledScorer(Fixed(1.0, None, 3.0, float("nan")), scale=10)
    both = WeightedSum([(one, 0.5), (Fixed(2.0, 2.0, -1.0, 2.0), 2.0)])
    assert both.score(pictures(4), [""] * 4) == [9.0, None, 13.0, None]
    with pytest.raises(ValueError, match="one score a picture, not 4 for 2"):
        one.score(pictures(2), [""] * 2)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("picky", r"failed \(RuntimeError: CUDA out of memory at \S+red_scorer\.py:\d+\)"),
        ("too_few", "returned 1 scores for 2 pictures"),
        ("words", r"failed \(ValueError: could not convert string to float: 'good'\)"),
    ],
)
def test_a_function_that_gives_no_scores_is_named_in_one_sentence(function: str, said: str) -> None:
    scorer = load_scorer(f"python:red_scorer.{function}")
    with pytest.raises(SdgError, match=rf"^python:red_scorer\.{function} {said}\.$"):
        scorer.score([Image.new("RGB", (4, 4))] * 2, ["", ""])


def test_a_recipe_weighs_and_scales_its_scorers() -> None:
    dark = ScorerRecipe("a", "python:toy.darkness", scale=2.0, weight=3.0)
    (score,) = load_reward([dark]).score([Image.new("RGB", (4, 4), "black")], ["x"])
    assert score == pytest.approx(6.0)


def judge(folder: Path, words: str) -> Any:
    """An untrained Qwen3-VL in `folder` that knows these words as single tokens."""
    tokenizer = new_tokenizer([words])
    model, processor = tiny_model(tokenizer), tiny_processor(tokenizer)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)  # so that its answers differ
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval()


def test_p_real_is_the_softmax_of_two_words_after_the_mean_over_their_capitals() -> None:
    logits = torch.tensor([[2.0, 4.0, 1.0, 9.0], [0.0, 0.0, 0.0, -7.0]])
    # Row 1: real 3, fake 1; row 2: nothing to choose by.
    scores = p_real(logits, [0, 1], [2])
    assert scores.tolist() == pytest.approx([1 / (1 + np.exp(-2)), 0.5])


def test_p_real_asks_a_model_about_each_picture_alone(tmp_path: Path) -> None:
    model = judge(tmp_path, "real Real REAL fake Fake Is this picture ?")
    scorer = load_scorer(f"p-real:{tmp_path}")
    shown = [picture.resize((48, 32 + 16 * i)) for i, picture in enumerate(pictures(3))]
    scores = scorer.score(shown, ["a red cup"] * 3)
    assert len(set(scores)) == 3
    assert scores == pytest.approx([scorer.score([picture], [""])[0] for picture in shown], abs=1e-5)
    assert scorer.score([], []) == []

    processor = AutoProcessor.from_pretrained(tmp_path)
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    inputs = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        logits = model(**processor(images=[shown[1]], text=[inputs], return_tensors="pt")).logits[0, -1]
    ids = processor.tokenizer.convert_tokens_to_ids
    real = torch.stack([logits[ids(word)] for word in ("real", "Real", "REAL")]).mean()
    fake = torch.stack([logits[ids(word)] for word in ("fake", "Fake")]).mean()  # FAKE is several tokens
    assert scores[1] == pytest.approx(float(torch.sigmoid(real - fake)), abs=1e-5)


def test_p_real_needs_a_token_for_both_words(tmp_path: Path) -> None:
    judge(tmp_path, "Is this picture real ?")
    with pytest.raises(SdgError, match="no token for 'fake'"):
        load_scorer(f"p-real:{tmp_path}")


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("clap:x", "is no scorer"),
        ("clip:", "does not say which one; scorers are clip:FOLDER_OR_ID"),
        ("clip:/nowhere", "There is no folder /nowhere; check the path"),
        (f"clip:{Path(__file__).parent}", "cannot be loaded as a CLIPModel"),
        ("p-real:/nowhere", "There is no folder /nowhere"),
        (f"p-real:{Path(__file__).parent}", "cannot be loaded as an image-text-to-text model"),
        ("p-real:x?processor=y", "has no option 'processor'; it has none"),
        ("clip:x?process=y", "has no option 'process'; did you mean 'processor'?"),
        ("unified-reward:http://x/v1", "names no model"),
        ("unified-reward:x#m", "no server's address"),
        ("unified-reward:http://x/v1#m?timeout=soon", "timeout is a number"),
        ("unified-reward:http://x/v1#m?timeout=nan", "timeout is a number of seconds above 0, not 'nan'"),
        ("unified-reward:http://x/v1#m?parallel=²", "parallel is a whole number from 1"),
        ("unified-reward:http://x/v1#m?parallel=" + "9" * 5000, "parallel is a whole number from 1"),
        ("unified-reward:http://[::1#m", "no server's address"),
        ("unified-reward:http://x:99999/v1#m", "no server's address"),
        ("unified-reward:http:// x/v1#m", "no server's address"),
        ("unified-reward:http://x\x00/v1#m", "no server's address"),
        ("unified-reward:http://ü/v1#m", "no server's address"),
        ("clip:/" + "x" * 300, "There is no folder /xxx"),
        ("clip:/a\x00b", "There is no folder /a"),
        ("python:", "does not say which one"),
        ("python:.x.y", "names no function"),
        ("python:x..y", "names no function"),
        ("python:os.", "names no function"),
        ("python:os", "names no function"),
        ("python:os.path\x00.y", "names no function"),
        ("python:" + "x" * 5000, "names no function"),
        ("python:os.getpid", "takes neither 2 arguments nor makes what has `score`, but int"),
        ("python:os.getpid?a=1", "cannot be called with what it gets here"),
        ("python:textwrap.indent?prefx=9", "gets here: got an unexpected keyword argument 'prefx'"),
        ("python:toy.nothing", "names no function"),
        ("python:toy.TEXT", "names int, not a function"),
    ],
)
def test_a_uri_that_names_no_scorer_is_refused(uri: str, sentence: str) -> None:
    with pytest.raises(SdgError) as caught:
        load_scorer(uri)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isprintable()
