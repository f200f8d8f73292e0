"""Training on the forward process: DiffusionNFT (arXiv 2509.16117), and BoxFlow-NFT, its spatial form.

The old policy draws pictures by the plain ODE. Their latents are noised anew, and the model learns to move
its velocity there towards what good pictures want and away from what bad ones do: no likelihoods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from sdg.alignment.losses import mean_over_valid, nft_loss
from sdg.alignment.policies import FlowPolicy, Transitions
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.rollout import Purpose, Rollouts, StepRows, noise_seed
from sdg.alignment.update import Learner, Piece, Signal
from sdg.models.lora import Ema
from sdg.models.sharding import share_of


def optimality(advantages: Tensor, limit: float) -> Tensor:
    """r = ½ + A/(2·limit), A cut to ±limit: the probability that a sample, or a place in it, is good."""
    return 0.5 + advantages.clamp(-limit, limit) / (2 * limit)


class ForwardLearner(Learner):
    """A policy that is trained on the forward process, beside the old policy that draws its pictures."""

    measured: ClassVar[tuple[str, ...]] = ("velocity_change",)
    """Mean squared difference between the trained velocity and the old policy's."""

    def __init__(self, recipe: AlignRecipe, accelerator: Accelerator, policy: FlowPolicy) -> None:
        super().__init__(recipe, accelerator, policy)
        self.old = Ema(self.parameters, recipe.nft.old_limit)
        self.levels = policy.sigmas(recipe.sampling.steps)[:-1]  # (steps,), without the picture's own, 0
        self._is_old = False

    def _tensors(self) -> dict[str, Tensor]:
        """The learner's, and the old policy's weights."""
        return super()._tensors() | {f"old.{name}": value for name, value in self.old.average.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """Go on from the `state` after so many epochs."""
        super().restore(tensors, epoch)
        for name, average in self.old.average.items():
            average.copy_(share_of(tensors[f"old.{name}"], average))

    def sampling(self) -> AbstractContextManager[None]:
        """The old policy draws."""
        return self.old.applied()

    def learn(self, epoch: int, steps: Sequence[StepRows], drawn: Rollouts, signal: Signal) -> dict[str, Any]:
        """An epoch's optimizer steps, after which the old policy follows the trained one."""
        values = super().learn(epoch, steps, drawn, signal)
        decay = self.recipe.nft.decay((epoch + 1) * len(steps))
        self.old.move(decay)
        return values | {"old_decay": decay}

    def step(self, *given: Any, **named: Any) -> dict[str, float]:
        """`Learner.step`; while the policy is still the old one, its own velocity is the old one's."""
        self._is_old = not self.sharded and all(
            torch.equal(parameter, self.old.average[name]) for name, parameter in self.parameters.items()
        )
        return super().step(*given, **named)

    def passes(self, batch: Transitions) -> int:
        """Noise levels that each picture is trained at."""
        return self.recipe.nft.levels or len(self.levels)

    def piece(
        self,
        batch: Transitions,
        at: int,
        rows: Sequence[int],
        signal: Signal,
        denominator: float,
        epoch: int,
    ) -> Piece:
        """The loss of a batch's pictures, each at the `at`-th of its own levels, with fresh noise."""
        settings, nft, policy = self.recipe.optimizer, self.recipe.nft, self.policy
        valid, advantages = (v[rows].to(policy.device) for v in (signal.valid, signal.advantages))
        t = torch.stack([self._level(epoch, row, at) for row in rows]).to(policy.device)  # (B,)
        seeds = [noise_seed(self.recipe.seed, Purpose.FORWARD, epoch, row, at) for row in rows]
        noise = policy.noise([torch.Generator().manual_seed(seed) for seed in seeds])
        level = t.view(-1, *[1] * (noise.ndim - 1))
        x_t = (1 - level) * batch.final + level * noise
        # Other weights go in and out before the forward pass whose activations are kept.
        v_old = None
        if not self._is_old:
            with torch.no_grad(), self.old.applied():
                v_old = policy.velocity(x_t, t, batch.prompts)
        if settings.kl > 0:
            with torch.no_grad(), policy.reference():
                reference = policy.velocity(x_t, t, batch.prompts)
        v = policy.velocity(x_t, t, batch.prompts, self.model)
        v_old = v.detach() if v_old is None else v_old
        loss = nft_loss(
            v,
            v_old,
            x_t,
            batch.final,
            t,
            optimality(advantages, settings.advantage_limit),
            nft.beta,
            settings.advantage_limit,
            valid,
            policy.channel_dim,
            denominator=denominator,
        )
        count = int(valid.sum())
        sums = {"velocity_change": float(mean_over_valid((v.detach() - v_old).square(), valid)) * count}
        if settings.kl > 0:
            distance = (v - reference).square()
            loss = loss + settings.kl * mean_over_valid(distance, valid, denominator=denominator)
            sums["kl"] = float(mean_over_valid(distance.detach(), valid)) * count
        return Piece(loss, sums)

    def _level(self, epoch: int, row: int, at: int) -> Tensor:
        """One of the sampler's noise levels; a row's are all different in an epoch."""
        rng = np.random.default_rng((self.recipe.seed, Purpose.FORWARD, epoch, row))
        return self.levels[int(rng.permutation(len(self.levels))[at])]
