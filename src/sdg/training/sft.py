"""Supervised fine-tuning of a detector with TRL's SFTTrainer (SDG §4.1, App. D.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from sdg.training.collate import EpochClock, JitterCollator, LengthGroupedSampler
from sdg.training.evaluate import SdgEvalMixin
from sdg.training.recipe import SftRecipe
from sdg.training.run import RunLog, ended, finish, prepared, train


class SftTrainer(SdgEvalMixin, SFTTrainer):
    """SFTTrainer with our order of rows, and SDG-Eval in place of a loss on the validation rows."""

    def __init__(self, *args: Any, sampler: LengthGroupedSampler, **kwargs: Any) -> None:
        self.sampler = sampler
        super().__init__(*args, **kwargs)
        # Qwen3-VL says no of its own loss, but TRL computes another. Without this a step would be the mean of
        # the processes' means, in which a token weighs more where the other rows are short.
        self.model_accepts_loss_kwargs = True

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        # The library's own draws from the global state, which a resumed run does not repeat.
        return self.sampler


def sft(recipe: SftRecipe, out: Path, *, resume: bool = False) -> Path:
    """Train as the recipe says; returns the folder of the final detector, the best checkpoint by its metric.

    With `evaluation.first` it is the start's weights where no checkpoint scored better.
    resume: go on from the newest checkpoint in `out`, with the losses an undisturbed run would have had.
    Raises SdgError for anything a user can mend: files, checkpoints, libraries, a folder that is taken.
    """
    if (final := ended(recipe, out, resume=resume)) is not None:
        return final
    with prepared(recipe, out, targets=True, resume=resume) as run:
        arguments = SFTConfig(
            **run.arguments,
            max_length=None,  # longer rows are left out already; the trainer would cut their answers
            completion_only_loss=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        dataset = run.rows.dataset()
        collator = JitterCollator(run.processor, run.profile, amount=recipe.data.jitter, seed=recipe.seed)
        together = arguments.per_device_train_batch_size * arguments.world_size
        sampler = LengthGroupedSampler(dataset["length"], together, recipe.seed)
        trainer = SftTrainer(
            model=run.model,
            args=arguments,
            data_collator=collator,
            train_dataset=dataset,
            eval_dataset=dataset.select(range(1)),  # stands in: `validation` is what is evaluated
            processing_class=run.processor,
            callbacks=[EpochClock(collator, sampler), RunLog(run)],
            peft_config=run.adapter,
            validation=run.validation,
            sampler=sampler,
        )
        train(trainer, run.checkpoint)
        return finish(run, trainer)
