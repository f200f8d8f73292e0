"""Supervised fine-tuning of a detector with TRL's SFTTrainer (SDG §4.1, App. D.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from sdg.training.collate import EpochClock, JitterCollator, LengthGroupedSampler
from sdg.training.evaluate import SdgEvalMixin, Validation
from sdg.training.recipe import SftRecipe
from sdg.training.run import (
    RunLog,
    check_environment,
    load_model,
    load_processor,
    load_profile,
    lora_config,
    open_run,
    read_splits,
    save_final,
    trainer_arguments,
)


class SftTrainer(SdgEvalMixin, SFTTrainer):
    """SFTTrainer with our order of rows, and SDG-Eval in place of a loss on the validation rows."""

    def __init__(
        self, *args: Any, validation: Validation, sampler: LengthGroupedSampler, **kwargs: Any
    ) -> None:
        self.validation, self.sampler = validation, sampler
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
    check_environment(recipe)
    profile = load_profile(recipe)
    processor = load_processor(recipe.model)
    rows, validation, summary = read_splits(recipe, profile, processor, targets=True)
    checkpoint = open_run(recipe, out, summary, profile, resume)
    trainer = sft_trainer(recipe, out, processor, validation, rows.dataset(), resumed=checkpoint is not None)
    trainer.train(resume_from_checkpoint=checkpoint)
    final = save_final(trainer, recipe, processor, profile, out)
    trainer.accelerator.end_training()
    return final


def sft_trainer(
    recipe: SftRecipe,
    out: Path,
    processor: ProcessorMixin,
    validation: Validation,
    dataset: Any,
    *,
    resumed: bool = False,
) -> SftTrainer:
    """The trainer of a recipe over a data set of rows; `train()` starts it."""
    arguments = SFTConfig(
        **trainer_arguments(recipe, out, resumed=resumed),
        max_length=None,  # longer rows are left out already; the trainer would cut their answers
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    model = load_model(recipe.model)
    collator = JitterCollator(processor, validation.profile, amount=recipe.data.jitter, seed=recipe.seed)
    together = arguments.per_device_train_batch_size * arguments.world_size
    sampler = LengthGroupedSampler(dataset["length"], together, recipe.seed)
    return SftTrainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=dataset,
        eval_dataset=dataset.select(range(1)),  # stands in: `validation` is what is evaluated
        processing_class=processor,
        callbacks=[EpochClock(collator, sampler), RunLog(out, validation.profile)],
        peft_config=lora_config(recipe.model, model),
        validation=validation,
        sampler=sampler,
    )
