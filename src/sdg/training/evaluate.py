"""SDG-Eval while training: the model in memory answers the validation rows greedily and is scored.

The scores are part of the trainer's own evaluation, so that they are logged and may choose the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from accelerate.utils import gather_object
from transformers.trainer_utils import EvalLoopOutput
from trl.models import unwrap_model_for_generation

from sdg.defects import DefectType, Diagnosis, Status
from sdg.embeddings import Embedder, TokenF1
from sdg.errors import SdgError, first_line
from sdg.evaluation import PAPER_METRICS, evaluate
from sdg.io.files import writing
from sdg.models.vlm import Answer, LoadedModel
from sdg.prompting import PromptProfile
from sdg.response import cut_off, format_fault, parse_response
from sdg.runs.processes import even_share
from sdg.training.dataset import Row, truths
from sdg.training.reward import composite_rewards

_WRITER: Final = ("inline_container", "unexpected pos", "PytorchStreamWriter", "iostream error")
"""What torch's errors of writing a file name, one of them each."""
_UNDEFINED: Final = (
    "evaluation.best is {}, which is undefined on the validation rows: they have no such defects; "
    "take more rows or another metric."
)


def asked_greedily(model: Any, processor: Any, profile: PromptProfile, batch_size: int) -> LoadedModel:
    """A model that is asked as a detector asks, and answers greedily."""
    greedy = replace(profile, generation=replace(profile.generation, temperature=0.0))
    return LoadedModel(model, processor, greedy, batch_size)


def answer_rows(
    model: Any, processor: Any, profile: PromptProfile, rows: Sequence[Row], batch_size: int
) -> list[Answer]:
    """Greedy answers of a loaded model to rows, in their order, asked as a detector asks.

    A row that cannot be asked, as its prompt holds one of the model's own tokens, has an empty answer.
    """
    loaded = asked_greedily(model, processor, profile, batch_size)
    answers = dict(loaded.answers([(row["image"], row["caption"]) for row in rows]))
    return [answers[index] for index in range(len(rows))]


def score(
    answers: Sequence[Answer], truth: Sequence[Diagnosis], profile: PromptProfile, embedder: Embedder | None
) -> dict[str, float]:
    """SDG-Eval and the state of the answers, under the names the log has.

    "artifact_BoxF1@0.5", … and without a type the mean over the types that the truth holds; what is undefined
    is left out, and so are rows that could not be asked. well_formed, truncated: shares of the answers;
    reward: mean composite reward; length: mean number of characters. Without an embedder, rewards compare
    reasons by common words.
    """
    predicted = [_diagnosis(answer, profile) for answer in answers]
    table = evaluate(truth, predicted, embedder=embedder).to_dict()
    present = present_types(truth)
    values: dict[str, float] = {}
    for name in PAPER_METRICS:
        defined = {kind.value: value for kind in DefectType if (value := table[kind.value][name]) is not None}
        values |= {f"{kind}_{name}": value for kind, value in defined.items()}
        # Always over the same types, or a model that invents no more defects could fall in the mean.
        counted = [value for kind, value in defined.items() if kind in present or name == "ClnAcc"]
        if counted:
            values[name] = float(np.mean(counted))
    asked = [place for place, answer in enumerate(answers) if not answer.error]
    if not asked:
        return values
    answers, truth = [answers[place] for place in asked], [truth[place] for place in asked]
    predicted = [predicted[place] for place in asked]
    gate = profile.answer.gate()
    texts = [answer.text for answer in answers]
    rewards = composite_rewards(texts, truth, (embedder or TokenF1()).similarity, **gate)
    return values | {
        "well_formed": float(np.mean([format_fault(text, **gate) is None for text in texts])),
        "truncated": float(np.mean([not answer.whole for answer in answers])),
        "unparseable": float(np.mean([d.status is Status.UNPARSEABLE for d in predicted])),
        "reward": float(np.mean([reward.total for reward in rewards])),
        "length": float(np.mean([len(text) for text in texts])),
    }


def present_types(truth: Sequence[Diagnosis]) -> set[str]:
    """The types of which there is a defect."""
    return {defect.type.value for diagnosis in truth for defect in diagnosis.defects}


def _diagnosis(answer: Answer, profile: PromptProfile) -> Diagnosis:
    if answer.error:
        return Diagnosis(status=Status.FAILED)
    diagnosis = parse_response(answer.text, require_think=profile.answer.think)
    if answer.whole or diagnosis.status is Status.UNPARSEABLE:
        return diagnosis
    return cut_off(diagnosis)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run's best checkpoint compares with the weights it began with.

    checkpoint: name of the best one's folder. best, start: what the metric was there and before the first
    step; None where that was not measured.
    """

    metric: str
    checkpoint: str | None = None
    best: float | None = None
    start: float | None = None

    @classmethod
    def of(cls, state: Any, metric: str) -> Outcome:
        """The outcome of a trainer's state, also of one that was resumed."""
        # The start's evaluation is in the log alone: the trainer chooses among checkpoints.
        key = f"eval_{metric}"
        start = next((log[key] for log in state.log_history if log["step"] == 0 and key in log), None)
        if state.best_model_checkpoint is None:
            return cls(metric, start=start)
        return cls(metric, Path(state.best_model_checkpoint).name, state.best_metric, start)

    @property
    def start_is_better(self) -> bool:
        """Whether the start's score is above the best checkpoint's."""
        return self.start is not None and self.best is not None and self.start > self.best

    @property
    def weights(self) -> str:
        """Where the final detector's weights are from: "start", "checkpoint-N", or "last step"."""
        return "start" if self.start_is_better else self.checkpoint or "last step"

    def sentence(self) -> str | None:
        """The comparison in one sentence; None where the start or no checkpoint was evaluated."""
        if self.start is None or self.best is None:
            return None
        scores = (
            f"{self.metric} was {self.start:.4f} at the start and is {self.best:.4f} at best, "
            f"in {self.checkpoint}"
        )
        if self.start_is_better:
            return f"No checkpoint is better than the start, so the final detector is the start's: {scores}."
        return f"The final detector is the best checkpoint: {scores}."


@dataclass(frozen=True, slots=True)
class Validation:
    """What an evaluation during training looks at; best: the metric that must be there."""

    rows: tuple[Row, ...]
    profile: PromptProfile
    batch_size: int
    best: str
    embedder: Embedder | None = None

    def __post_init__(self) -> None:
        """Raises SdgError where the truth leaves `best` undefined, whatever is answered."""
        kind, _, name = self.best.rpartition("_")
        present = present_types(truths(self.rows))
        if name in PAPER_METRICS and name != "ClnAcc" and not (kind in present if kind else present):
            raise SdgError(_UNDEFINED.format(self.best))


class SdgEvalMixin:
    """Mixed into a trainer: its evaluation is SDG-Eval of `validation`, shared out over the processes."""

    def __init__(self, *args: Any, validation: Validation, **kwargs: Any) -> None:
        self.validation = validation
        super().__init__(*args, **kwargs)

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """Greedy answers of the model as it is now."""
        trainer: Any = self
        todo = self.validation
        with (
            unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model,
            trainer.compute_loss_context_manager(),
        ):
            return answer_rows(model, trainer.processing_class, todo.profile, rows, todo.batch_size)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # What a full disk leaves half written has no state, and is passed over when the run is resumed.
        trainer: Any = self
        library: Any = super()
        with writing(Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"):
            try:
                library._save_checkpoint(*args, **kwargs)
            except RuntimeError as error:  # torch's own writer, of optimizer and random state
                if not any(words in str(error) for words in _WRITER):
                    raise
                raise OSError(first_line(error)) from error

    def _determine_best_metric(self, metrics: Any, trial: Any) -> bool:
        # The library would remember the score of weights that are not saved, and choose no checkpoint by it.
        trainer: Any = self
        library: Any = super()
        return bool(trainer.control.should_save) and library._determine_best_metric(metrics, trial)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Metrics of the validation rows; the arguments are those of `transformers.Trainer`."""
        trainer: Any = self
        accelerator, todo = trainer.accelerator, self.validation
        trainer.model.eval()
        # As many on each process, some of them twice: a server of all is asked by all together.
        count = len(todo.rows)
        mine = even_share(count, accelerator.process_index, accelerator.num_processes)
        found = self.answers([todo.rows[index] for index in mine])
        numbered = dict(gather_object(list(zip(mine, found, strict=True))))
        answers = [numbered[index] for index in range(count)]
        metrics = score(answers, truths(todo.rows), todo.profile, todo.embedder)
        if todo.best not in metrics:
            raise SdgError(_UNDEFINED.format(todo.best))
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=named, num_samples=len(todo.rows))
