"""Reinforcement of a detector with TRL's GRPOTrainer and the composite reward (SDG §4.1, App. D.4).

Guards read the log, and stop a run before it learns something worthless.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from sdg.embeddings import load_embedder
from sdg.errors import SdgError
from sdg.models.vlm import Answer
from sdg.prompting import PromptProfile
from sdg.training import engine
from sdg.training.dataset import Row
from sdg.training.evaluate import Outcome, SdgEvalMixin, asked_greedily
from sdg.training.recipe import GrpoRecipe, GuardsRecipe
from sdg.training.reward import MALFORMED_SHARE, SPREAD, reward_function
from sdg.training.run import RunLog, ended, finish, last_checkpoint, prepared, train
from sdg.training.sft import EpochClock

LENGTH: Final = "completions/mean_length"


class EpochSampler(RepeatSampler):
    """TRL's groups of prompts, in the order of `epoch` wherever a run is resumed.

    An epoch has the order that TRL's own sampler gives it in a run without a stop: there it is drawn from
    where the epoch before left off, so that a resumed run would begin with the first epoch's.
    """

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed)
        for _ in range(self.epoch):
            torch.randperm(self.num_samples, generator=self.generator)
        yield from super().__iter__()


class GrpoTrainer(SdgEvalMixin, GRPOTrainer):
    """GRPOTrainer with SDG-Eval in place of roll-outs on the validation rows, and vLLM asked rightly."""

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        trls = super()._get_train_sampler(dataset)
        names = ("data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed")
        sampler = EpochSampler(**{name: getattr(trls, name) for name in names})
        self.add_callback(EpochClock(sampler))
        return sampler

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, **kwargs: Any
    ) -> Any:
        if not self.use_vllm:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, **kwargs
            )
        return engine.sample(self, prompt_ids, images, num_generations)

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """Greedy answers of the model as it is now, by the engine that rolls out."""
        if not self.use_vllm:
            return super().answers(rows)
        profile = self.validation.profile
        model = self.accelerator.unwrap_model(self.model)
        loaded = asked_greedily(model, self.processing_class, profile, self.validation.batch_size)
        pairs = [(row["image"], row["caption"]) for row in rows]
        return engine.answers(self, loaded, pairs, profile.generation.max_new_tokens)


def grpo(recipe: GrpoRecipe, out: Path, *, resume: bool = False) -> Path:
    """Train as the recipe says; returns the folder of the final detector, the best checkpoint by its metric.

    With `evaluation.first` it is the start's weights where no checkpoint scored better.
    Raises SdgError for anything a user can mend, and where a guard stopped the run; its checkpoints stay.
    """
    if (final := ended(recipe, out, resume=resume)) is not None:
        return final
    engine.check_checkpoint(recipe)
    with prepared(recipe, out, targets=False, resume=resume) as run:
        guard = GuardCallback(recipe.guards)
        shared = run.validation.embedder if recipe.similarity == recipe.evaluation.embedder else None
        similarity = (shared or load_embedder(recipe.similarity)).similarity
        with engine.server_errors(recipe.rollout):
            trainer = GrpoTrainer(
                model=run.model,
                reward_funcs=reward_function(run.profile, similarity, recipe.rollout.group),
                args=grpo_arguments(recipe, run.arguments, run.profile),
                train_dataset=run.rows.questions(run.profile),
                # Stands in: `validation` is what is evaluated.
                eval_dataset=run.rows.dataset().select(range(1)),
                processing_class=run.processor,
                callbacks=[RunLog(run), guard],
                peft_config=run.adapter,
                validation=run.validation,
            )
        train(trainer, run.checkpoint)
        if guard.reason is not None:
            kept = trainer.state.best_model_checkpoint or last_checkpoint(out)
            where = f"the best checkpoint is {kept}" if kept else "no checkpoint was saved yet"
            if Outcome.of(trainer.state, recipe.evaluation.best).start_is_better:
                where += f", and scored below {recipe.model.checkpoint}"
            raise SdgError(
                f"The run stopped at step {trainer.state.global_step}: {guard.reason} "
                f"Lower the learning rate or start from a better checkpoint; {where}."
            )
        return finish(run, trainer)


def grpo_arguments(recipe: GrpoRecipe, shared: Mapping[str, Any], profile: PromptProfile) -> GRPOConfig:
    """TRL's arguments with every value that differs from the paper's set; raises SdgError for batches that
    do not hold whole groups."""
    rollout = recipe.rollout
    vllm: dict[str, Any] = {}
    if rollout.engine != "transformers":
        longest = max(rollout.max_tokens, profile.generation.max_new_tokens)
        vllm = {
            "use_vllm": True,
            "vllm_mode": "server" if rollout.engine == "vllm-server" else "colocate",
            "vllm_server_base_url": rollout.server,
            "vllm_enable_sleep_mode": rollout.vllm_sleep,
            "vllm_gpu_memory_utilization": rollout.vllm_memory,
            "vllm_max_model_length": recipe.data.max_length + longest,
            # With top-p below 1 vLLM's probabilities are those of the cut distribution: no true ratio.
            "vllm_importance_sampling_correction": False,
        }
    try:
        return GRPOConfig(
            **shared,
            **vllm,
            num_generations=rollout.group,
            num_generations_eval=1,
            max_completion_length=rollout.max_tokens,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            beta=recipe.beta,
            epsilon=recipe.clip,
            num_iterations=1,
            loss_type="grpo",
            scale_rewards="group",
            # Of the reference, which is loaded by the checkpoint's name alone.
            model_init_kwargs=None if recipe.model.revision is None else {"revision": recipe.model.revision},
        )
    except ValueError as error:
        if "num_generations" not in str(error):
            raise
        raise SdgError(
            f"optimizer.batch_size {recipe.optimizer.batch_size} × accumulate "
            f"{recipe.optimizer.accumulate} × processes must be a multiple of rollout.group "
            f"{rollout.group}, so that a batch holds whole groups."
        ) from None


@dataclass(slots=True)
class Guards:
    """Counts how many log entries in a row are past each limit."""

    limits: GuardsRecipe
    first_length: float | None = None
    strikes: dict[str, int] = field(default_factory=dict)

    def look(self, logs: Mapping[str, Any]) -> str | None:
        """Take in one log entry; the reason to stop, in one sentence, or None."""
        for name, fault in self._faults(logs):
            self.strikes[name] = self.strikes.get(name, 0) + 1 if fault else 0
            if fault and self.strikes[name] >= self.limits.patience:
                return f"{fault}, for {self.strikes[name]} log entries in a row."
        return None

    def _faults(self, logs: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
        """What an entry holds of each limit, and how it is past that; None where it is not."""
        if (share := logs.get(MALFORMED_SHARE)) is not None:
            said = f"{share:.0%} of the completions are malformed, above guards.malformed"
            yield MALFORMED_SHARE, None if share <= self.limits.malformed else said
        if (spread := logs.get(SPREAD)) is not None:
            said = f"The reward's spread within groups is {spread:.4f}, below guards.spread, so nothing is"
            yield SPREAD, None if spread >= self.limits.spread else f"{said} learned"
        if (length := logs.get(LENGTH)) is not None:
            self.first_length = self.first_length or max(float(length), 1.0)
            ratio = max(float(length), 1.0) / self.first_length
            said = f"Completions have {length:.0f} tokens on average where they began with "
            said += f"{self.first_length:.0f}, a drift beyond guards.length"
            yield LENGTH, None if max(ratio, 1 / ratio) <= self.limits.length else said


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
