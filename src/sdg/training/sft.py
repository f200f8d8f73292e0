"""Supervised fine-tuning of a detector with TRL's SFTTrainer (SDG §4.1, App. D.3).

Pictures are decoded, and coordinates jittered anew each epoch, when a batch is made. That is a function of
(seed, epoch, row), so that workers, processes and a resumed run all see the same, and no two epochs do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from sdg.images import rgb_picture
from sdg.prompting import PromptProfile
from sdg.training.dataset import Row, jitter, target, unpack_truth
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


class JitterCollator:
    """Makes a batch of rows: input_ids, attention_mask, labels (B, L), and the processor's picture tensors.

    Labels are −100 but on the target and the token that ends it. Set `epoch` before the loader's workers
    start; they get a copy.
    """

    def __init__(self, processor: Any, profile: PromptProfile, *, amount: float, seed: int) -> None:
        self.profile, self.amount, self.seed, self.epoch = profile, amount, seed, 0
        self._collate = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)

    def response(self, row: Row) -> str:
        """The target of a row in this epoch (SDG App. D.3: offsets are drawn anew each epoch)."""
        truth = unpack_truth(row["truth"])
        rng = np.random.default_rng((self.seed, self.epoch, row["id"]))
        return target(jitter(truth, rng, self.amount), self.profile.answer)

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        # Rows are already checked against the length limit; cutting one here would cut its answer.
        batch: dict[str, torch.Tensor] = self._collate([self._example(row) for row in rows])
        return batch

    def _example(self, row: Row) -> dict[str, Any]:
        return {
            "prompt": self.profile.render(row["caption"]),
            "completion": [{"role": "assistant", "content": self.response(row)}],
            "images": [rgb_picture(row["image"], self.profile.image.fit)],
        }


class LengthGroupedSampler(Sampler[int]):
    """Every row once an epoch, in an order of (seed, epoch); rows of like length share a batch.

    Shuffled, cut into chunks of 50 batches, sorted by length inside each, and then the batches shuffled.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = np.asarray(lengths), batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        chunk = 50 * self.batch
        batches: list[np.ndarray] = []
        for start in range(0, len(order), chunk):
            rows = order[start : start + chunk]
            rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
            batches += [rows[at : at + self.batch] for at in range(0, len(rows), self.batch)]
        # Only the last batch may be short, or the ones after it would straddle two lengths.
        last = [batches.pop()] if len(batches[-1]) < self.batch else []
        shuffled = [batches[at] for at in rng.permutation(len(batches))]
        return iter([int(row) for rows in shuffled + last for row in rows])


class EpochClock(TrainerCallback):
    """Tells the collator and the sampler which epoch begins."""

    def __init__(self, *listeners: Any) -> None:
        self.listeners = listeners

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for listener in self.listeners:
            listener.epoch = int(state.epoch or 0)
