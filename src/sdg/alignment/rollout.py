"""Roll-outs of one epoch: plan them from seeds, draw them batch by batch, score them meanwhile.

The plan depends on neither a process's rank nor what was drawn before: any number of processes, and a
resumed run, see the same samples. Pictures are scored in the order they are drawn in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from accelerate.utils import gather_object
from PIL import Image

from sdg.alignment.policies import FlowPolicy, Transitions
from sdg.alignment.recipe import AlignRecipe, PromptsRecipe
from sdg.defects import Diagnosis
from sdg.detectors.base import Detector
from sdg.errors import SdgError
from sdg.images import Pair
from sdg.io.uri import read_prompts
from sdg.scorers import Scorer, Scores

T = TypeVar("T")

# --- plan ----------------------------------------------------------------------------------------------


class Purpose(IntEnum):
    """What noise is for; different purposes never share it."""

    TRAINING = 0
    MONITOR = 1
    FIGURE = 2
    CHOICE = 3
    FORWARD = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One sample of an epoch: `group` is its prompt's place in the epoch, and its group's id.

    start: the seed of its first latent, where that is not drawn by `seed` as all other noise is.
    sign: of its SDE noise, −1 in the second sample of a mirrored pair.
    """

    group: int
    sample: int
    prompt: str
    seed: int
    start: int | None = None
    sign: int = 1


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows that one optimizer step trains on: those of this process, and those of all processes."""

    own: list[int]
    everyone: list[int]


def noise_seed(seed: int, purpose: Purpose, epoch: int, group: int, *sample: int) -> int:
    """The seed of one sample's noise; without a sample, of the first latent that a group's samples share."""
    sequence = np.random.SeedSequence((seed, purpose, epoch, group, *sample))
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)  # torch takes 63 bits


def read_prompt_sets(recipe: PromptsRecipe) -> tuple[list[str], list[str], str]:
    """Prompts to train on, held-out ones, and a digest of both; raises SdgError where they share one."""
    train = read_prompts(recipe.train)
    held_out = read_prompts(recipe.held_out) if recipe.held_out else []
    if shared := set(train) & set(held_out):
        raise SdgError(f"{min(shared)!r} is both trained on and held out; take it out of one of the two.")
    return train, held_out, sha256(json.dumps([train, held_out]).encode()).hexdigest()


def epoch_prompts(recipe: AlignRecipe, prompts: Sequence[str], epoch: int) -> list[str]:
    """The epoch's prompts: passes over the whole set, each in an order of its own."""
    chosen, count = [], recipe.groups.prompts
    for position in range(epoch * count, (epoch + 1) * count):
        turn, index = divmod(position, len(prompts))
        order = np.random.default_rng((recipe.seed, Purpose.CHOICE, 0, turn)).permutation(len(prompts))
        chosen.append(prompts[int(order[index])])
    return chosen


def group_rows(recipe: AlignRecipe, prompts: Sequence[str], purpose: Purpose, epoch: int) -> list[Row]:
    """`groups.size` samples of each prompt, one group after the other.

    few_step.shared_start: all of a group begin with one latent. few_step.mirrored: every second sample has
    the seed of the one before it and the other sign. The parts of the reward that are even in the noise, such
    as what any noise costs, then cancel in the gradient.
    """
    few, key = recipe.few_step, (recipe.seed, purpose, epoch)
    return [
        Row(
            group,
            sample,
            prompt,
            seed=noise_seed(*key, group, sample - sample % 2 if few.mirrored else sample),
            start=noise_seed(*key, group) if few.shared_start else None,
            sign=-1 if few.mirrored and sample % 2 else 1,
        )
        for group, prompt in enumerate(prompts)
        for sample in range(recipe.groups.size)
    ]


def sde_steps(recipe: AlignRecipe, epoch: int) -> list[int]:
    """The steps that are stochastic for all samples of an epoch; none for training on the forward process."""
    if recipe.forward:
        return []
    rng = np.random.default_rng((recipe.seed, Purpose.CHOICE, 1, epoch))
    sampling = recipe.sampling
    drawn = rng.choice(sampling.sde_steps, sampling.sde_steps_per_epoch, replace=False)
    return sorted(int(step) for step in drawn)


def share(recipe: AlignRecipe, rank: int, processes: int) -> list[StepRows]:
    """One process's rows of an epoch, by optimizer step: equal numbers, in whole batches.

    An optimizer step trains on whole groups, the same ones however many processes there are.
    Raises SdgError where the recipe's numbers do not divide.
    """
    rows = recipe.groups.prompts * recipe.groups.size
    steps, batch = recipe.optimizer.steps_per_epoch, recipe.sampling.batch_size
    of_step = rows // steps
    if of_step % (processes * batch):
        raise SdgError(
            f"Each optimizer step trains on {of_step} samples (groups.prompts × groups.size ÷ "
            f"optimizer.steps_per_epoch), which {processes} process(es) of sampling.batch_size {batch} "
            "cannot share equally; change one of these numbers."
        )
    own = of_step // processes
    parts = []
    for first in range(0, rows, of_step):
        everyone = list(range(first, first + of_step))
        parts.append(StepRows(everyone[rank * own : (rank + 1) * own], everyone))
    return parts


def gather_rows(indices: Iterable[int], values: Iterable[T], processes: int) -> list[T]:
    """The values of all processes in the order of their rows, on every process alike."""
    pairs = list(zip(indices, values, strict=True))
    gathered = gather_object(pairs) if processes > 1 else pairs
    return [value for _, value in sorted(gathered, key=lambda pair: pair[0])]


# --- score ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Score:
    """What is known of one picture: its base reward and its defects, None where there is no information."""

    reward: float | None
    diagnosis: Diagnosis | None  # also None where no detector was asked


class Scoring:
    """Two threads, one for the base reward and one for the detector, each taking pictures in order."""

    def __init__(self, reward: Scorer, detector: Detector | None) -> None:
        self.reward, self.detector = reward, detector
        self._rewards = ThreadPoolExecutor(1, thread_name_prefix="reward")
        self._found = ThreadPoolExecutor(1, thread_name_prefix="detector")

    def submit(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> PendingScores:
        """Begin to score pictures, and return at once."""
        rewards = self._rewards.submit(self.reward.score, pictures, prompts)
        found = None
        if self.detector is not None:
            pairs: list[Pair] = list(zip(pictures, prompts, strict=True))
            found = self._found.submit(self.detector.diagnose, pairs)
        return PendingScores(len(pictures), rewards, found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in (self._rewards, self._found):
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class PendingScores:
    """Scores of `count` pictures that are being worked on."""

    count: int
    rewards: Future[Scores]
    found: Future[list[Diagnosis]] | None

    def result(self) -> list[Score]:
        """Wait for the scores, one a picture; raises what the scorer or the detector raised.

        A diagnosis that is not informative (no response, or an unreadable one) becomes None.
        """
        rewards = self.rewards.result()
        found = [None] * self.count if self.found is None else self.found.result()
        return [
            Score(reward, diagnosis if diagnosis is not None and diagnosis.is_informative else None)
            for reward, diagnosis in zip(rewards, found, strict=True)
        ]


def check_failures(scores: Sequence[Score], max_failed: float, *, detector: bool) -> None:
    """Raise SdgError when more than `max_failed` of all pictures lack a reward or, if asked, a diagnosis."""
    for what, missing in (
        ("base reward", sum(score.reward is None for score in scores)),
        ("detector", sum(score.diagnosis is None for score in scores) if detector else 0),
    ):
        if missing > max_failed * len(scores):
            raise SdgError(
                f"The {what} gave nothing usable for {missing} of {len(scores)} pictures, more than the "
                f"share of {max_failed:g} that reward.max_failed allows; see to its server, then --resume."
            )


# --- draw ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rollouts:
    """A process's roll-outs: batches of transitions, all their pictures, and scores under way."""

    transitions: list[Transitions]
    pictures: list[Image.Image]
    pending: list[PendingScores]

    def scores(self) -> list[Score]:
        """Wait for the scores, one a picture."""
        return [score for chunk in self.pending for score in chunk.result()]


@dataclass(frozen=True)
class Sampler:
    """What draws roll-outs: a policy by its recipe, and whoever scores its pictures."""

    recipe: AlignRecipe
    policy: FlowPolicy
    scoring: Scoring

    def draw(self, rows: Sequence[Row], noisy: Sequence[int]) -> Rollouts:
        """Draw the rows batch by batch, stochastic at the steps `noisy`, and score them meanwhile."""
        drawn = Rollouts([], [], [])
        sampling = self.recipe.sampling
        together = self.recipe.reward.batch_size or sampling.batch_size
        chunks = [slice(at, min(at + together, len(rows))) for at in range(0, len(rows), together)]
        for start in range(0, len(rows), sampling.batch_size):
            part = rows[start : start + sampling.batch_size]
            rollout = self.policy.sample(
                [row.prompt for row in part],
                [row.seed for row in part],
                starts=[row.start for row in part],
                signs=[row.sign for row in part],
                steps=sampling.steps,
                sde_steps=noisy,
                noise_level=sampling.noise_level,
                kind=self.recipe.few_step.sde,
            )
            drawn.pictures.extend(rollout.pictures)
            drawn.transitions.append(rollout.transitions)
            while chunks and chunks[0].stop <= len(drawn.pictures):
                chunk = chunks.pop(0)
                prompts = [row.prompt for row in rows[chunk]]
                drawn.pending.append(self.scoring.submit(drawn.pictures[chunk], prompts))
        return drawn
