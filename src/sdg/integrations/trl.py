"""Reward functions for TRL's `GRPOTrainer`, to be given as `reward_funcs`.

What could not be scored is None: TRL leaves it out of its group's mean and gives it no advantage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sdg.defects import Defect
from sdg.embeddings import load_embedder
from sdg.errors import SdgError, quoted
from sdg.integrations.picture_rewards import SERVER, PictureRewards
from sdg.prompting import PromptProfile
from sdg.training.reward import composite_rewards

Rewards = list[float | None]


class PictureRewardFunction:
    """R of the picture that each completion led to, for a model that draws by a tool or a `rollout_func`.

    The picture is the last one in a tool's message of the completion; or, where `column` is named, what the
    roll-out put under that name. It is held against the `caption` column where there is one, else against the
    last user turn of the prompt. No picture, no reward. options: those of `PictureRewards`.
    """

    __name__ = "sdg_picture"

    def __init__(self, source: str = SERVER, *, column: str | None = None, **options: Any) -> None:
        self._rewards, self._column = PictureRewards(source, **options), column

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Sequence[Any],
    ) -> Rewards:
        """One reward a completion, None where there is no picture or it could not be scored."""
        if self._column is None:
            pictures = [_last_picture(completion) for completion in completions]
        elif self._column in columns:
            pictures = list(columns[self._column])
        else:
            raise SdgError(f"There is no column {quoted(self._column)} of pictures.")
        captions = columns.get("caption") or [_last_request(prompt) for prompt in prompts]
        drawn = [place for place, picture in enumerate(pictures) if picture is not None]
        found = self._rewards([pictures[place] for place in drawn], [captions[place] for place in drawn])
        rewards: Rewards = [None] * len(pictures)
        for place, one in zip(drawn, found, strict=True):
            rewards[place] = one.reward
            if log_metric is not None and one.severity is not None:
                log_metric("sdg/severity", one.severity)
        if log_metric is not None:
            for reward in rewards:
                log_metric("sdg/unscored", float(reward is None))
        return rewards


class AnswerRewardFunction:
    """The composite reward of SDG §4.1 of each answer, to train a detector by a script of one's own.

    column: of the data set, what people found: a list of defects as `Defect.to_dict` writes them, or its JSON
    text; a row without one has no reward. similarity: an embedder, see `sdg.embeddings.load_embedder`.
    profile: which parts an answer has to have.
    """

    __name__ = "sdg_answer"

    def __init__(
        self, column: str = "defects", similarity: str = "minilm", profile: PromptProfile | None = None
    ) -> None:
        self._column, self._similarity = column, load_embedder(similarity).similarity
        self._gate = (profile or PromptProfile()).answer.gate()

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Sequence[Any],
    ) -> Rewards:
        """One reward a completion, from −1 for a malformed one up; None where the truth is not known."""
        if self._column not in columns:
            raise SdgError(f"There is no column {quoted(self._column)} of defects.")
        truths = [_truth(value) for value in columns[self._column]]
        known = [place for place, truth in enumerate(truths) if truth is not None]
        found = composite_rewards(
            [_text(completions[place]) for place in known],
            [truths[place] or () for place in known],
            self._similarity,
            **self._gate,
        )
        rewards: Rewards = [None] * len(truths)
        for place, one in zip(known, found, strict=True):
            rewards[place] = one.total
            if log_metric is not None:
                log_metric("sdg/malformed", float(not one.format_valid))
        return rewards


def _last_picture(completion: Any) -> Any:
    """The last picture that a tool gave back; None where there is none, as in plain text."""
    messages = completion if isinstance(completion, list) else []
    for message in reversed(messages):
        content = message.get("content")
        if message.get("role") == "tool" and isinstance(content, list):
            for part in reversed(content):
                if isinstance(part, Mapping) and part.get("type") == "image":
                    return part.get("image")
    return None


def _last_request(prompt: Any) -> str:
    """The text of the last user turn."""
    if isinstance(prompt, str):
        return prompt
    turns = [message for message in prompt if message.get("role") == "user"]
    return _text(turns[-1:])


def _text(messages: Any) -> str:
    """A completion's text: itself, or that of the last message."""
    if isinstance(messages, str):
        return messages
    content = messages[-1].get("content") if messages else ""
    if isinstance(content, str):
        return content
    parts = [part for part in content or () if isinstance(part, Mapping)]
    return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")


def _truth(value: Any) -> tuple[Defect, ...] | None:
    """The defects of a row; raises SdgError where they are none."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
        return None if found is None else tuple(map(Defect.from_dict, found))
    except (ValueError, TypeError) as error:
        raise SdgError(f"A row's defects cannot be read: {error}") from None
