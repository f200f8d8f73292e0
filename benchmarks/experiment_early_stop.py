"""How often monitors stop a run that is sound, and one that learns to please its reward, in simulation.

Run: python benchmarks/experiment_early_stop.py [RUNS]
A run has 11 measurements, as boxflow-flux1-dev.yaml has, or 41, of 64 prompts. Each prompt has a quality of
its own, and noise of standard deviation 1 at each measurement, so that a noise unit, the standard error of a
mean, is 1/8. The reward rises by two noise units a measurement. "Before" is the rule of a measure that is not
better than its best four times in a row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.alignment.monitors import BY_PROMPT, best_entry, hacking
from sdg.alignment.recipe import MonitorRecipe
from sdg.scorers.weighted import ScorerRecipe

PROMPTS: Final = 64
UNIT: Final = PROMPTS**-0.5
WATCH: Final = MonitorRecipe(
    scorers=(ScorerRecipe("quality", "clip:x"),), best="quality", goal="max", patience=1
)
Course = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""(generator, measurements) -> what is added to the quality: (measurements, prompts) or (measurements, 1)."""


def flat(rng: np.random.Generator, times: int) -> NDArray[np.float64]:
    return np.zeros((times, 1))


def gain(rng: np.random.Generator, times: int) -> NDArray[np.float64]:
    """A true gain of one noise unit over the run."""
    return UNIT * np.linspace(0, 1, times)[:, None]


def prompts_walk(rng: np.random.Generator, times: int) -> NDArray[np.float64]:
    """Each prompt walks at random, by 1, so that the mean does by one noise unit."""
    return np.cumsum(rng.normal(size=(times, PROMPTS)), 0)


def mean_walks(rng: np.random.Generator, times: int) -> NDArray[np.float64]:
    """All prompts walk at random together, by one noise unit."""
    return UNIT * np.cumsum(rng.normal(size=(times, 1)), 0)


def hacked(slope: float) -> Course:
    """Quality rises for a third of the run, then falls by so many noise units a measurement."""

    def course(rng: np.random.Generator, times: int) -> NDArray[np.float64]:
        at, peak = np.arange(times), times // 3
        return UNIT * np.where(at <= peak, at / 2, peak / 2 - slope * (at - peak))[:, None]

    return course


SOUND: Final[dict[str, Course]] = {
    "noise alone": flat,
    "true gain of one noise unit": gain,
    "random walk of each prompt": prompts_walk,
    "random walk of the mean": mean_walks,
}
HACKED: Final[dict[str, Course]] = {
    f"falls by {slope:g} units a measurement": hacked(slope) for slope in (0.5, 1, 2, 3)
}


def simulate(course: Course, times: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The history of a run."""
    own = rng.normal(scale=2, size=PROMPTS)
    quality = own + rng.normal(size=(times, PROMPTS)) + course(rng, times)
    reward = rng.normal(size=(times, PROMPTS)) + 2 * UNIT * np.arange(times)[:, None]
    return [
        {"quality": float(q.mean()), "reward": float(r.mean()), BY_PROMPT: {"quality": q, "reward": r}}
        for q, r in zip(quality, reward, strict=True)
    ]


def before(history: Sequence[dict[str, Any]], times: int, patience: int = 4) -> bool:
    """The rule without knowledge of noise: not better than the best so often, at a higher reward."""
    best = best_entry(history, "quality", "max")
    if best is None or len(history) - 1 - best < patience:
        return False
    return all(entry["reward"] > history[best]["reward"] for entry in history[-patience:])


def paired(history: Sequence[dict[str, Any]], times: int) -> bool:
    """The rule of `sdg align`."""
    return hacking(history, WATCH, times)


def stopped(
    course: Course, times: int, rule: Callable[..., bool], runs: int, seed: int = 0
) -> list[int | None]:
    """At which measurement each run is stopped; None where it is not."""
    found: list[int | None] = []
    for run in range(runs):
        history = simulate(course, times, np.random.default_rng((seed, run)))
        ends = (now for now in range(1, times) if rule(history[: now + 1], times))
        found.append(next(ends, None))
    return found


def main(runs: int = 400) -> None:
    print(f"| {runs} runs, stopped | before, of 11 | paired, of 11 | before, of 41 | paired, of 41 |")
    print("|---|---|---|---|---|")
    for name, course in {**SOUND, **HACKED}.items():
        cells = []
        for times in (11, 41):
            for rule in (before, paired):
                ends = [end for end in stopped(course, times, rule, runs) if end is not None]
                when = f", after {np.median(ends) - times // 3:.0f}" if ends and name in HACKED else ""
                cells.append(f"{100 * len(ends) / runs:.1f} %{when}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
