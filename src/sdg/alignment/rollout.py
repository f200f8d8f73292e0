"""Roll-outs of one epoch: plan them from seeds, draw them batch by batch, score them meanwhile.

The plan depends on neither a process's rank nor what was drawn before: any number of processes, and a
resumed run, see the same samples. Pictures are scored as they come, in whatever order servers answer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from typing import Any, Generic, TypeVar

import numpy as np
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image

from sdg.alignment.policies import FlowPolicy, Transitions
from sdg.alignment.recipe import AlignRecipe, PromptsRecipe
from sdg.defects import Diagnosis
from sdg.detectors.base import Detector, name_of
from sdg.errors import SdgError
from sdg.io.asking import Ask, Askable, Asking
from sdg.io.uri import read_prompts
from sdg.scorers import Scorer
from sdg.scorers.weighted import WeightedSum

T = TypeVar("T")
Pictures = Sequence[Image.Image]
Prompts = Sequence[str]

_LOG = logging.getLogger("sdg.alignment")

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
    """One sample of an epoch: `group` is its prompt's place in the epoch, and its group's id."""

    group: int
    sample: int
    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows that one optimizer step trains on: those of this process, and those of all processes."""

    own: list[int]
    everyone: list[int]


def noise_seed(seed: int, purpose: Purpose, epoch: int, group: int, sample: int) -> int:
    """The seed of one sample's noise."""
    sequence = np.random.SeedSequence((seed, purpose, epoch, group, sample))
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
        chosen.append(prompts[int(_order(recipe.seed, turn, len(prompts))[index])])
    return chosen


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, count: int) -> NDArray[np.int64]:
    """The order of `count` prompts in a pass over them."""
    return np.random.default_rng((seed, Purpose.CHOICE, 0, turn)).permutation(count)


def run_prompts(recipe: AlignRecipe, prompts: Sequence[str], held_out: Sequence[str]) -> list[str]:
    """Every prompt that a run draws, in training, monitors and figures."""
    drawn = [prompt for epoch in range(recipe.epochs) for prompt in epoch_prompts(recipe, prompts, epoch)]
    return [*drawn, *held_out[: max(recipe.monitor.prompts, recipe.run.pictures)]]


def group_rows(recipe: AlignRecipe, prompts: Sequence[str], purpose: Purpose, epoch: int) -> list[Row]:
    """`groups.size` samples of each prompt, one group after the other."""
    return [
        Row(group, sample, prompt, noise_seed(recipe.seed, purpose, epoch, group, sample))
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


def require_processes(recipe: AlignRecipe, processes: int) -> None:
    """Raise SdgError where weights are to be shared among processes, and there is one."""
    if recipe.run.sharding is not None and processes < 2:
        raise SdgError(
            f"run.sharding {recipe.run.sharding} shares weights among processes, and there is one; start "
            "several with torchrun, or set run.sharding to null."
        )


def gather_rows(indices: Iterable[int], values: Iterable[T], processes: int) -> list[T]:
    """The values of all processes in the order of their rows, each once, on every process alike."""
    pairs = list(zip(indices, values, strict=True))
    gathered = dict(gather_object(pairs) if processes > 1 else pairs)
    return [gathered[index] for index in sorted(gathered)]


# --- score ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Score:
    """What is known of one picture: its base reward and its defects, None where there is no information."""

    reward: float | None
    diagnosis: Diagnosis | None  # also None where no detector was asked


class _Work(Generic[T]):
    """What one scorer or the detector makes of the pictures of a roll-out; results come in their order.

    size: pictures in one call. submit: makes a call on (pictures, prompts, number of the first).
    """

    def __init__(self, size: int, submit: Callable[[Pictures, Prompts, int], Future[list[T]]]) -> None:
        self._size, self._submit = size, submit
        self._calls: list[Future[list[T]]] = []
        self._sent = 0

    def send(self, pictures: Pictures, prompts: Prompts, *, last: bool) -> None:
        """Send what has come since, in calls of `size`, and with the `last` picture what is left over."""
        while len(pictures) - self._sent >= (1 if last else self._size):
            part = slice(self._sent, self._sent + self._size)
            self._calls.append(self._submit(pictures[part], prompts[part], self._sent))
            self._sent += len(pictures[part])

    def results(self) -> list[T]:
        """Wait for all; raises what a call raised."""
        return [result for call in self._calls for result in call.result()]


class Scoring(ExitStack):
    """Scores pictures while more are drawn: a server by one request a picture, a model here in batches.

    All pictures that were drawn may be out at a server at once, in whatever order it answers, over
    connections that stay open from epoch to epoch. Scorers in memory share one thread, and the detector has
    one, each taking batches in order. Leaving the context gives up what is still out.
    """

    def __init__(self, reward: Scorer, detector: Detector | None) -> None:
        super().__init__()
        self.reward, self.detector = reward, detector
        rewards, found = self._thread("reward"), self._thread("detector")
        parts = [scorer for scorer, _ in reward.scorers] if isinstance(reward, WeightedSum) else [reward]
        self._scorers = [self._way(scorer, scorer.score, rewards) for scorer in parts]
        self._detector: _Way[Diagnosis] | None = None
        if detector is not None:
            self._detector = self._way(
                detector, lambda *of: detector.diagnose(list(zip(*of, strict=True))), found
            )

    def begin(self, together: int) -> PendingScores:
        """Scores of a roll-out that begins; together: pictures in a batch, for what is asked in batches."""
        scorers = [way(together) for way in self._scorers]
        return PendingScores(self.reward, scorers, self._detector and self._detector(together))

    def submit(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> PendingScores:
        """Begin to score pictures, and return at once."""
        pending = self.begin(max(1, len(pictures)))
        pending.add(pictures, prompts, last=True)
        return pending

    def _thread(self, name: str) -> ThreadPoolExecutor:
        """A thread that takes calls in order; what it has not begun in the end is dropped."""
        thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.callback(thread.shutdown, cancel_futures=True)
        return thread

    def _way(
        self, source: object, batch: Callable[[Pictures, Prompts], list[Any]], thread: ThreadPoolExecutor
    ) -> _Way[Any]:
        """How pictures get to a scorer or detector: one by one where it can be asked so, else in batches."""
        if not isinstance(source, Askable) or source.connected() is None:
            return lambda together: _Work(together, lambda *of: thread.submit(batch, *of[:2]))
        asking = self.enter_context(Asking(lambda: _one_by_one(source), source.at_once))
        return lambda together: _Work(
            1, lambda pictures, prompts, first: asking.submit(pictures[0], prompts[0], first)
        )


_Way = Callable[[int], _Work[T]]
"""Pictures in a batch -> the work of one roll-out."""


@asynccontextmanager
async def _one_by_one(source: Askable) -> AsyncIterator[Ask[list[Any]]]:
    """Asks about one picture, for a list of its result alone; why a diagnosis failed goes to the log."""
    connected = source.connected()
    assert connected is not None
    async with connected as ask:

        async def one(picture: Image.Image, prompt: str, number: int) -> list[Any]:
            result = await ask((picture, prompt), number)
            if isinstance(result, Diagnosis) and result.error:
                _LOG.warning("%s: %s", name_of(None, number), result.error)
            return [result]

        yield one


class PendingScores:
    """Scores of a roll-out's pictures that are being worked on, while pictures are still added."""

    def __init__(
        self, reward: Scorer, scorers: Sequence[_Work[float | None]], detector: _Work[Diagnosis] | None
    ) -> None:
        self._reward, self._scorers, self._detector = reward, scorers, detector
        self._pictures: list[Image.Image] = []
        self._prompts: list[str] = []

    def add(self, pictures: Pictures, prompts: Prompts, *, last: bool) -> None:
        """More pictures, in the order of the roll-out; last: whether these are all."""
        self._pictures += pictures
        self._prompts += prompts
        for work in self._scorers:
            work.send(self._pictures, self._prompts, last=last)
        if self._detector is not None:
            self._detector.send(self._pictures, self._prompts, last=last)

    def result(self) -> list[Score]:
        """Wait for the scores, one a picture; raises what the scorer or the detector raised.

        A diagnosis that is not informative (no response, or an unreadable one) becomes None.
        """
        parts = [work.results() for work in self._scorers]
        count = len(self._pictures)
        rewards = self._reward.summed(parts, count) if isinstance(self._reward, WeightedSum) else parts[0]
        found = [None] * count if self._detector is None else self._detector.results()
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
    pending: PendingScores

    def scores(self) -> list[Score]:
        """Wait for the scores, one a picture."""
        return self.pending.result()


@dataclass(frozen=True)
class Sampler:
    """What draws roll-outs: a policy by its recipe, and whoever scores its pictures."""

    recipe: AlignRecipe
    policy: FlowPolicy
    scoring: Scoring

    def draw(self, rows: Sequence[Row], noisy: Sequence[int]) -> Rollouts:
        """Draw the rows batch by batch, stochastic at the steps `noisy`, and score them meanwhile."""
        sampling = self.recipe.sampling
        together = self.recipe.reward.batch_size or sampling.batch_size
        drawn = Rollouts([], [], self.scoring.begin(together))
        for start in range(0, len(rows), sampling.batch_size):
            part = rows[start : start + sampling.batch_size]
            prompts = [row.prompt for row in part]
            rollout = self.policy.sample(
                prompts,
                [row.seed for row in part],
                steps=sampling.steps,
                sde_steps=noisy,
                noise_level=sampling.noise_level,
                kind=sampling.sde,
            )
            drawn.pictures.extend(rollout.pictures)
            drawn.transitions.append(rollout.transitions)
            drawn.pending.add(rollout.pictures, prompts, last=start + len(part) == len(rows))
        return drawn
