"""The testbed's prompts for alignment: splits that share nothing they ask for."""

from __future__ import annotations

import pytest

from sdg.testbed.entry import prompts
from sdg.testbed.world.prompts import parse_prompt, split_of


def test_prompts_are_different_and_of_their_split() -> None:
    for split in ("train", "validation", "test"):
        found = prompts(split, count=50)
        assert len(set(found)) == 50
        requests = [parse_prompt(prompt) for prompt in found]
        assert all(request is not None and split_of(request) == split for request in requests)


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    assert prompts("test", count=30)[:10] == prompts("test", count=10)
    assert prompts("test", count=10, seed=1) != prompts("test", count=10)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="train, validation, test"):
        prompts("held-out")  # type: ignore[arg-type]
