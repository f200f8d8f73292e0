"""What each epoch draws: prompts, noise seeds and stochastic steps, from seeds alone.

Nothing depends on a process's rank or on what was drawn before: any number of processes, and a resumed
run, see the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from sdg.alignment.recipe import AlignRecipe
from sdg.errors import SdgError


class Purpose(IntEnum):
    """What noise is for; different purposes never share it."""

    TRAINING = 0
    MONITOR = 1
    FIGURE = 2
    CHOICE = 3


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


def noise_seed(seed: int, purpose: Purpose, epoch: int, group: int, *sample: int) -> int:
    """The seed of one sample's noise; without a sample, of the first latent that a group's samples share."""
    sequence = np.random.SeedSequence((seed, purpose, epoch, group, *sample))
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)  # torch takes 63 bits


def epoch_prompts(prompts: Sequence[str], count: int, epoch: int, seed: int) -> list[str]:
    """The epoch's prompts: passes over the whole set, each in an order of its own."""
    chosen = []
    for position in range(epoch * count, (epoch + 1) * count):
        turn, index = divmod(position, len(prompts))
        order = np.random.default_rng((seed, Purpose.CHOICE, 0, turn)).permutation(len(prompts))
        chosen.append(prompts[int(order[index])])
    return chosen


def sde_steps(recipe: AlignRecipe, epoch: int) -> list[int]:
    """The steps that are stochastic for all samples of an epoch."""
    rng = np.random.default_rng((recipe.seed, Purpose.CHOICE, 1, epoch))
    sampling = recipe.sampling
    drawn = rng.choice(sampling.sde_steps, sampling.sde_steps_per_epoch, replace=False)
    return sorted(int(step) for step in drawn)


def group_rows(
    prompts: Sequence[str],
    size: int,
    seed: int,
    purpose: Purpose,
    epoch: int,
    *,
    shared_start: bool = False,
    mirrored: bool = False,
) -> list[Row]:
    """`size` samples of each prompt, one group after the other; with `shared_start` all from one latent.

    mirrored: every second sample has the seed of the one before it, and the other sign. The parts of the
    reward that are even in the noise, such as what any noise costs, then cancel in the gradient.
    """
    return [
        Row(
            group,
            sample,
            prompt,
            noise_seed(seed, purpose, epoch, group, sample - sample % 2 if mirrored else sample),
            noise_seed(seed, purpose, epoch, group) if shared_start else None,
            -1 if mirrored and sample % 2 else 1,
        )
        for group, prompt in enumerate(prompts)
        for sample in range(size)
    ]


def recipe_rows(recipe: AlignRecipe, prompts: Sequence[str], purpose: Purpose, epoch: int) -> list[Row]:
    """`group_rows` of these prompts as the recipe groups and samples them."""
    return group_rows(
        prompts,
        recipe.groups.size,
        recipe.seed,
        purpose,
        epoch,
        shared_start=recipe.sampling.shared_start,
        mirrored=recipe.sampling.mirrored,
    )


def share(recipe: AlignRecipe, rank: int, processes: int) -> list[list[int]]:
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
    starts = [step * of_step + rank * own for step in range(steps)]
    return [list(range(start, start + own)) for start in starts]
