"""The model's own tokens: which there are, special or not, and what a prompt may not hold."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tiny_qwen3vl import tiny_processor
from tokenizers import AddedToken

from sdg.errors import SdgError
from sdg.models.vlm import control_tokens, special_tokens
from sdg.testbed.models.detector.build import new_tokenizer
from sdg.training.model import load_processor
from sdg.training.recipe import ModelRecipe

TAGS = ("<think>", "</think>", "<tool_call>")


def with_tags(special: bool):
    """A tokenizer with the tags that Qwen3's has, which are not special there."""
    tokenizer = new_tokenizer(["a red cup"])
    tokenizer.add_tokens([AddedToken(tag, special=special, normalized=False) for tag in TAGS], special)
    return tokenizer


def test_a_think_token_is_the_models_own_whether_it_is_special_or_not() -> None:
    ordinary, special = with_tags(special=False), with_tags(special=True)
    assert not set(TAGS) & set(special_tokens(ordinary))
    assert set(TAGS) <= set(control_tokens(ordinary))
    assert set(TAGS) <= set(special_tokens(special))
    for tokenizer in (ordinary, special):
        for tag in TAGS:  # one token, wherever it stands: what the guard is for
            assert tokenizer.convert_tokens_to_ids(tag) in tokenizer(f"a {tag} cup")["input_ids"]


def test_added_tokens_that_are_no_tags_may_stand_in_a_prompt() -> None:
    texts = ("[]", "<", "a < b", "cup")
    added = {n: SimpleNamespace(content=text, special=False) for n, text in enumerate(texts)}
    tokenizer = SimpleNamespace(added_tokens_decoder=added, all_special_tokens=["<|end|>"])
    assert control_tokens(tokenizer) == ("<|end|>",)


def test_a_tokenizer_that_drops_tags_from_answers_is_refused_before_training(tmp_path) -> None:
    for special in (False, True):
        tiny_processor(with_tags(special)).save_pretrained(tmp_path / str(special))
    load_processor(ModelRecipe(str(tmp_path / "False")))
    with pytest.raises(SdgError, match=r"<think>, </think> as special tokens, which decoding leaves out"):
        load_processor(ModelRecipe(str(tmp_path / "True")))
