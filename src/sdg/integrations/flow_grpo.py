"""A reward of flow_grpo: "sdg" in `config.reward_fn`, beside its own.

In its training script take `multi_score` from here, and put `KnownOnly` around its `PerPromptStatTracker`:
a picture that could not be scored then stays out of its group and out of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.integrations.picture_rewards import SERVER, PictureRewards

NAME: Final = "sdg"
UNSCORED: Final = -10.0
"""What flow_grpo's evaluation leaves out of its means."""


def multi_score(
    device: Any, score_dict: Mapping[str, float], rewards: PictureRewards | None = None
) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """flow_grpo's `multi_score`, with "sdg" among the names; the other names are given to its own.

    rewards: by default those of an `sdg serve` on this machine. What is not known is NaN in training and
    UNSCORED in evaluation, alone and in `avg`.
    """
    weight, others = score_dict[NAME], {name: one for name, one in score_dict.items() if name != NAME}
    ours = rewards or PictureRewards(SERVER)
    theirs: Callable[..., Any] | None = None
    if others:
        import flow_grpo.rewards

        theirs = flow_grpo.rewards.multi_score(device, others)

    def score(
        images: Any, prompts: Sequence[str], metadata: Any, only_strict: bool = True
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        details: dict[str, Any] = {}
        if theirs is not None:
            details, _ = theirs(images, prompts, metadata, only_strict=only_strict)
        values = np.array([one.value for one in ours(list(images), list(prompts))])
        total = weight * values
        if theirs is not None:
            total = total + np.array([float(one) for one in details["avg"]])
        if not only_strict:  # as the evaluation asks, which averages whatever is not UNSCORED
            values, total = (np.where(np.isfinite(one), one, UNSCORED) for one in (values, total))
        return {**details, NAME: values, "avg": total}, {}

    return score


class KnownOnly:
    """A `PerPromptStatTracker` that is shown the finite rewards alone; all others get an advantage of 0.

    The training script leaves samples out whose advantages are 0.
    """

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def update(self, prompts: Sequence[str], rewards: Any, type: str = "grpo") -> NDArray[np.float64]:
        """Advantages in the shape of `rewards`, (B,) or (B, T)."""
        values = np.asarray(rewards, np.float64)
        known = np.isfinite(values).reshape(len(values), -1).all(1)
        advantages = np.zeros_like(values)
        if known.any():
            advantages[known] = self._tracker.update(np.array(prompts)[known], values[known], type)
        return advantages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)
