"""When a measure of held-out prompts has changed beyond chance: tests paired by prompt, without torch."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FALSE_STOPS: Final = 0.05
"""Probability at most that a run is stopped whose quality did not fall."""
FEWEST: Final = 8
"""Prompts that are known at both times, without which nothing is concluded."""


def quality_fell(quality: NDArray[np.float64], measurements: int) -> bool:
    """Whether the mean over prompts is lower in the last measurement than in the first, beyond chance.

    quality: (measurements, prompts), NaN where unknown; more is better. Chance is the prompts' own noise, and
    a random walk of the mean by one noise unit a measurement: the standard error of a mean over the prompts,
    estimated from successive measurements. By any pair of all the `measurements` of a run that is not worse,
    a false alarm has a probability of at most FALSE_STOPS (one-sided t-test, Bonferroni).
    """
    drop = quality[0] - quality[-1]
    drop = drop[np.isfinite(drop)]
    if len(drop) < FEWEST:
        return False
    successive = np.diff(quality, axis=0)
    noise = float(np.nanmean(np.nanvar(successive, axis=1, ddof=1))) / 2
    steps = len(quality) - 1
    error = np.sqrt((drop.var(ddof=1) + steps * noise) / len(drop))
    pairs = max(1, measurements * (measurements - 1) // 2)
    return bool(drop.mean() > error * stats.t.isf(FALSE_STOPS / pairs, len(drop) - 1))


def rose(gain: NDArray[np.float64]) -> bool:
    """Whether the mean gain over prompts is above 0, by a t-test at 5 %; gain: (prompts,), NaN unknown."""
    gain = gain[np.isfinite(gain)]
    if len(gain) < FEWEST:
        return False
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    return bool(gain.mean() > error * stats.t.isf(0.05, len(gain) - 1))
