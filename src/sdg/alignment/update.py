"""From an epoch's scores to optimizer steps: advantages (SDG §4.2 eq. 4, 5), then the objective (eq. 6).

Advantages are over the whole epoch, on all processes alike; each process trains on its share of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from sdg.alignment.advantages import scalar_advantages, spatial_advantages
from sdg.alignment.losses import (
    boxflow_loss,
    denseflow_loss,
    flow_grpo_loss,
    mean_over_valid,
    ratio_stats,
    step_kl,
)
from sdg.alignment.policies import FlowPolicy, Transitions
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.reward_map import alphas, heat_maps, spatial_rewards
from sdg.alignment.rollout import Rollouts, Score, StepRows
from sdg.defects import Defect
from sdg.errors import SdgError
from sdg.models.lora import Ema, lora_parameters
from sdg.models.sharding import clip_gradients, is_sharded, share_of, whole
from sdg.runs.checkpoint import optimizer_tensors, restore_optimizer

# --- advantages ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signal:
    """What the objective of N samples needs, rows as in the scores given."""

    valid: Tensor  # (N,) bool: scored, as far as the method needs it
    rewards: Tensor  # (N,) float64, NaN where missing
    advantages: Tensor  # (N, H, W) for boxflow, else (N,); 0 in invalid rows
    maps: Tensor | None = None  # (N, H, W) spatial rewards R_D, for boxflow
    heat: Tensor | None = None  # (N, H, W), for denseflow; 0 in invalid rows


def training_signal(
    recipe: AlignRecipe, scores: Sequence[Score], groups: Tensor, grid: tuple[int, int]
) -> Signal:
    """Advantages by the recipe's method; groups: (N,) integer ids of the samples' prompts."""
    reward = recipe.reward
    eps, limit, spread = (
        recipe.optimizer.advantage_eps,
        recipe.optimizer.advantage_limit,
        recipe.optimizer.advantage_spread,
    )
    rewards = torch.tensor([torch.nan if s.reward is None else s.reward for s in scores], dtype=torch.float64)
    valid = rewards.isfinite()
    whole: Literal["group", "epoch"] = "epoch" if spread == "epoch" else "group"  # a scalar has no locations
    if recipe.method in ("flow-grpo", "nft"):
        return Signal(valid, rewards, scalar_advantages(rewards, groups, valid, eps, limit, whole).float())

    valid &= torch.tensor([score.diagnosis is not None for score in scores])
    defects: list[Sequence[Defect] | None] = [
        None if score.diagnosis is None else score.diagnosis.defects for score in scores
    ]
    if recipe.method == "denseflow":
        heat = heat_maps(defects, grid)
        heat[~valid] = 0.0
        advantages = scalar_advantages(rewards, groups, valid, eps, limit, whole)
        return Signal(valid, rewards, advantages.float(), heat=heat)

    weights = alphas(rewards, groups, valid, reward.c_artifact, reward.c_misalignment)
    maps = spatial_rewards(defects, rewards, grid, *weights)
    return Signal(valid, rewards, spatial_advantages(maps, groups, valid, eps, spread).float(), maps.float())


def epoch_values(signal: Signal, scores: Sequence[Score]) -> dict[str, float | int | None]:
    """What an epoch's scores were like, for the log."""
    known = signal.rewards[signal.rewards.isfinite()]
    found = [score.diagnosis for score in scores if score.diagnosis is not None]
    defects = [defect for diagnosis in found for defect in diagnosis.defects]
    return {
        "reward": float(known.mean()) if len(known) else None,
        "reward_std": float(known.std()) if len(known) > 1 else None,
        "defects": len(defects) / len(found) if found else None,
        "without_importance": sum(defect.importance is None for defect in defects),  # weigh as 100
        "valid": int(signal.valid.sum()),
        "samples": len(scores),
        "failed_reward": sum(score.reward is None for score in scores),
        "failed_detector": sum(score.diagnosis is None for score in scores) if found else 0,
    }


# --- optimizer steps -----------------------------------------------------------------------------------


def said_of_average(recipe: AlignRecipe, epochs: int) -> str:
    """That what is saved after so many epochs is untrained, in a sentence; "" where it is not."""
    if epochs >= (every := recipe.optimizer.ema_every):
        return ""
    return (
        f"final/ is untrained: its average is updated every {every} epochs (optimizer.ema_every), "
        f"and there are {epochs}"
    )


@dataclass(frozen=True)
class Piece:
    """The loss of one forward pass, its share of the step's, and sums over its valid rows for the log."""

    loss: Tensor
    sums: Mapping[str, float]
    ratio_error: float = 0.0  # largest |ρ − 1|


class Learner:
    """A policy that is trained: its weights, their average, the optimizer, its learning rate."""

    measured: ClassVar[tuple[str, ...]] = ("clip_fraction", "approx_kl")
    """What a step says of its valid rows beside the loss; with a KL term also `kl`."""

    def __init__(self, recipe: AlignRecipe, accelerator: Accelerator, policy: FlowPolicy) -> None:
        self.recipe, self.accelerator, self.policy = recipe, accelerator, policy
        self.parameters = lora_parameters(policy.transformer)
        self.sharded = is_sharded(policy.transformer)
        self.model = policy.transformer if self.sharded else accelerator.prepare_model(policy.transformer)
        settings = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=settings.learning_rate,
            betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay,
        )
        self.ema = Ema(self.parameters, settings.ema_decay)
        self._schedule(done=0)

    def state(self, *, keep: bool = True) -> dict[str, Tensor]:
        """All that another learner needs to go on from here, but for the number of epochs: whole tensors.

        keep: whether this process wants them; of sharded weights all have to call this.
        """
        held = {name: whole(value, keep=keep) for name, value in self._tensors().items()}
        return {name: value for name, value in held.items() if value is not None}

    def _tensors(self) -> dict[str, Tensor]:
        """What `state` holds, as it lies on this process."""
        tensors: dict[str, Tensor] = {f"lora.{name}": p for name, p in self.parameters.items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.average.items()}
        return tensors | optimizer_tensors(self.optimizer)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """Go on from the `state` after so many epochs, of however many processes."""
        for name, parameter in self.parameters.items():
            parameter.copy_(share_of(tensors[f"lora.{name}"], parameter))
            self.ema.average[name].copy_(share_of(tensors[f"ema.{name}"], parameter))
        restore_optimizer(self.optimizer, tensors, place=share_of)
        self._schedule(done=epoch * self.recipe.optimizer.steps_per_epoch)

    def sampling(self) -> AbstractContextManager[None]:
        """The policy that draws roll-outs inside: the present one."""
        return nullcontext()

    def learn(self, epoch: int, steps: Sequence[StepRows], drawn: Rollouts, signal: Signal) -> dict[str, Any]:
        """An epoch's optimizer steps, each on its own groups; what they were like, for the log."""
        values: dict[str, Any] = {"learning_rate": self.schedule.get_last_lr()[0]}
        losses: list[float] = []
        batches = len(drawn.transitions) // len(steps)
        for number, rows in enumerate(steps):
            own = drawn.transitions[number * batches : (number + 1) * batches]
            outcome = self.step(rows, own, signal, epoch)
            self.schedule.step()
            losses.append(outcome.pop("loss"))
            values.setdefault("first_ratio_error", outcome["ratio_error"])
            values |= outcome
        settings = self.recipe.optimizer
        if (epoch + 1) % settings.ema_every == 0:
            per_epoch = 1 / settings.ema_every if settings.ema_time == "updates" else settings.steps_per_epoch
            self.ema.update(round((epoch + 1) * per_epoch) - 1)
        return values | {"loss": losses}

    def step(
        self, rows: StepRows, batches: Sequence[Transitions], signal: Signal, epoch: int = 0
    ) -> dict[str, float]:
        """One optimizer step on this process's batches; the loss is the mean over all valid rows of the step.

        Returns loss, grad_norm, ratio_error (largest |ρ − 1|) and means over valid rows: clip_fraction,
        approx_kl (from the policy that drew) and, where the recipe has that term, kl (from the model before
        training); the same on every process.
        """
        settings, accelerator, policy = self.recipe.optimizer, self.accelerator, self.policy
        names = (*self.measured, *(("kl",) if settings.kl > 0 else ()))
        valid_rows = int(signal.valid[rows.everyone].sum())
        if valid_rows == 0:  # nothing was scored: no step, on any process
            return dict.fromkeys(("loss", "grad_norm", "ratio_error", *names), 0.0)
        passes = self.passes(batches[0])
        # Gradients are averaged over processes.
        denominator = valid_rows * passes / accelerator.num_processes
        sums = torch.zeros(2 + len(names), dtype=torch.float64)  # loss; valid (row, pass)s; by name
        ratio_error, size = 0.0, self.recipe.sampling.batch_size
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(batches):
            chosen = rows.own[number * size : (number + 1) * size]
            for at in range(passes):
                # Sharded gradients are added up after each pass: nowhere is room for whole ones.
                together = self.sharded or (number == len(batches) - 1 and at == passes - 1)
                with nullcontext() if together else accelerator.no_sync(self.model):
                    piece = self.piece(batch, at, chosen, signal, denominator, epoch)
                    accelerator.backward(piece.loss)
                ratio_error = max(ratio_error, piece.ratio_error)
                sums[0] += float(piece.loss.detach()) / accelerator.num_processes
                sums[1] += int(signal.valid[chosen].sum())
                sums[2:] += torch.tensor([piece.sums[name] for name in names], dtype=torch.float64)
        grad_norm = clip_gradients(self.parameters.values(), settings.grad_norm)
        self.optimizer.step()
        total = accelerator.reduce(sums.to(policy.device), "sum").cpu()
        worst = accelerator.gather(torch.tensor([ratio_error], device=policy.device)).max()
        values = {"loss": float(total[0]), "grad_norm": grad_norm, "ratio_error": float(worst)}
        values |= {name: float(value / total[1]) for name, value in zip(names, total[2:], strict=True)}
        if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
            raise SdgError("The loss or its gradient is no longer a number; lower optimizer.learning_rate.")
        return values

    def passes(self, batch: Transitions) -> int:
        """Forward passes a row is trained by: its stochastic steps."""
        return len(batch.x)

    def piece(
        self,
        batch: Transitions,
        at: int,
        rows: Sequence[int],
        signal: Signal,
        denominator: float,
        epoch: int,
    ) -> Piece:
        """The objective of the method on a batch's stochastic step `at`; rows: its rows of the epoch."""
        settings, policy = self.recipe.optimizer, self.policy
        valid = signal.valid[rows].to(policy.device)
        if settings.kl > 0:  # before the pass whose activations are kept
            with torch.no_grad(), policy.reference():
                reference = policy.score(batch, at).mean
        scored = policy.score(batch, at, self.model)
        new, old = scored.log_prob, batch.old_log_prob[at]
        loss = self._loss(new, old, signal, rows, denominator)
        sums = {}
        if settings.kl > 0:
            kl = step_kl(scored.mean, reference, scored.std, policy.channel_dim)
            loss = loss + settings.kl * mean_over_valid(kl, valid, denominator=denominator)
            sums["kl"] = float(mean_over_valid(kl.detach(), valid)) * int(valid.sum())
        stats = ratio_stats(new.detach(), old, settings.clip, valid)
        if not stats.rows:  # all NaN, also times no rows
            return Piece(loss, sums | {"clip_fraction": 0.0, "approx_kl": 0.0})
        sums |= {"clip_fraction": stats.clip_fraction * stats.rows, "approx_kl": stats.approx_kl * stats.rows}
        return Piece(loss, sums, max(abs(stats.ratio_max - 1), abs(stats.ratio_min - 1)))

    def _loss(
        self, new: Tensor, old: Tensor, signal: Signal, rows: Sequence[int], denominator: float
    ) -> Tensor:
        """The method's objective on a batch, whose rows of the epoch are `rows`."""
        valid, advantages = (values[rows].to(new.device) for values in (signal.valid, signal.advantages))
        clip = self.recipe.optimizer.clip
        if self.recipe.method == "boxflow":
            return boxflow_loss(new, old, advantages, clip, valid, denominator=denominator)
        if self.recipe.method == "flow-grpo":
            return flow_grpo_loss(new, old, advantages, clip, valid, denominator=denominator)
        assert signal.heat is not None
        heat = signal.heat[rows].to(new.device)
        return denseflow_loss(new, old, advantages, heat, clip, valid, denominator=denominator)

    def _schedule(self, done: int) -> None:
        """The learning rate's course, from after `done` steps on."""
        from diffusers.optimization import get_scheduler

        settings = self.recipe.optimizer
        for group in self.optimizer.param_groups:
            group["initial_lr"] = settings.learning_rate  # what a schedule that does not begin at 0 asks for
        self.schedule = get_scheduler(
            settings.schedule,
            self.optimizer,
            num_warmup_steps=0,
            num_training_steps=self.recipe.epochs * settings.steps_per_epoch,
            last_epoch=done - 1,
        )
