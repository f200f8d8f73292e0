"""Batches for SFT: pictures decoded, coordinates jittered anew each epoch, loss on the target only.

Everything here is a function of (seed, epoch, row), so that workers, processes and a resumed run all see the
same, and no two epochs do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from sdg.images import rgb_picture
from sdg.prompting import PromptProfile
from sdg.training.dataset import Row, target, unpack_truth
from sdg.training.jitter import jitter


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
