"""Guards of a GRPO run: they read the log, and stop the run before it learns something worthless.

Pure state in, sentence out; the callback only carries log entries here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from transformers import TrainerCallback

from sdg.training.recipe import GuardsRecipe
from sdg.training.reward import MALFORMED_SHARE, SPREAD

LENGTH: Final = "completions/mean_length"


@dataclass(slots=True)
class Guards:
    """Counts how many log entries in a row are past each limit."""

    limits: GuardsRecipe
    first_length: float | None = None
    strikes: dict[str, int] = field(default_factory=dict)

    def look(self, logs: Mapping[str, Any]) -> str | None:
        """Take in one log entry; the reason to stop, in one sentence, or None."""
        for name, fault in (
            (MALFORMED_SHARE, self._malformed(logs)),
            (SPREAD, self._spread(logs)),
            (LENGTH, self._length(logs)),
        ):
            if logs.get(name) is None:
                continue
            self.strikes[name] = self.strikes.get(name, 0) + 1 if fault else 0
            if fault and self.strikes[name] >= self.limits.patience:
                return f"{fault}, for {self.strikes[name]} log entries in a row."
        return None

    def _malformed(self, logs: Mapping[str, Any]) -> str | None:
        share = logs.get(MALFORMED_SHARE)
        if share is None or share <= self.limits.malformed:
            return None
        return f"{share:.0%} of the completions are malformed, above guards.malformed"

    def _spread(self, logs: Mapping[str, Any]) -> str | None:
        spread = logs.get(SPREAD)
        if spread is None or spread >= self.limits.spread:
            return None
        return (
            f"The reward's spread within groups is {spread:.4f}, below guards.spread, so nothing is learned"
        )

    def _length(self, logs: Mapping[str, Any]) -> str | None:
        length = logs.get(LENGTH)
        if length is None:
            return None
        if self.first_length is None:
            self.first_length = max(float(length), 1.0)
        ratio = max(float(length), 1.0) / self.first_length
        if max(ratio, 1 / ratio) <= self.limits.length:
            return None
        return (
            f"Completions have {length:.0f} tokens on average where they began with "
            f"{self.first_length:.0f}, a drift beyond guards.length"
        )


class GuardCallback(TrainerCallback):
    """Stops training where a guard says so; `reason` then holds its sentence."""

    def __init__(self, limits: GuardsRecipe) -> None:
        self.limits, self.guards, self.reason = limits, Guards(limits), None

    reason: str | None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A resumed run goes on counting where it was: the earlier entries are in its state.
        self.guards, self.reason = Guards(self.limits), None
        for entry in state.log_history:
            self.guards.look(entry)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> Any:
        reason = self.guards.look(logs or {})
        if reason is not None:
            self.reason, control.should_training_stop = reason, True
        return control
