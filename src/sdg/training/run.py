"""What SFT and GRPO runs share: the folder of a run, trainer arguments, resuming, the final model.

OUT/manifest.json   recipe, versions, processes, digests and counts of the data; at the end, what was chosen
OUT/log.jsonl       every log entry
OUT/checkpoint-N/   a detector's folder each, with optimizer and random state to resume from
OUT/final/          the best checkpoint, or the start where that scored better, as a whole model, loadable by
                    `load_detector("OUT/final")`
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from peft import LoraConfig
from transformers import PreTrainedModel, TrainerCallback, TrainerState

from sdg._version import __version__
from sdg.embeddings import load_embedder
from sdg.errors import SdgError
from sdg.io.files import replace_folder, write_text, writing
from sdg.models.device import autocast_precision
from sdg.prompting import PromptProfile
from sdg.recipes import to_document
from sdg.runs.begin import begin_together, read_settings, refuse_changes
from sdg.runs.log import NAME as LOG
from sdg.runs.log import append_log, trim_log
from sdg.sections import require_trackers
from sdg.training.dataset import RowReader, Rows
from sdg.training.evaluate import Outcome, Validation
from sdg.training.model import load_model, load_processor, load_profile, lora_config, needed, zero_stage
from sdg.training.recipe import GrpoRecipe, Recipe

MANIFEST: Final = "manifest.json"
FINAL: Final = "final"
WAITING: Final = timedelta(hours=2)
FREE: Final = (
    "recipe.data.workers",
    "recipe.evaluation.batch_size",
    "recipe.run.keep",
    "recipe.run.trackers",
)
"""What neither weights nor scores depend on, and so may differ when a run is resumed, as after it ran out of
memory in an evaluation."""
"""How long one process may keep the others waiting, such as by the longest answers of a validation."""
_PACKAGES: Final = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "vllm")


@dataclass(frozen=True)
class Run:
    """All that a trainer is made of, loaded and checked.

    checkpoint: to go on from, None where a run begins. arguments: those that `SFTConfig` and `GRPOConfig`
    share.
    """

    recipe: Recipe
    out: Path
    processor: Any
    rows: Rows
    validation: Validation
    model: PreTrainedModel
    adapter: LoraConfig | None
    checkpoint: str | None
    arguments: dict[str, Any]

    @property
    def profile(self) -> PromptProfile:
        """How the model is asked, in training and validation."""
        return self.validation.profile


@contextmanager
def prepared(recipe: Recipe, out: Path, *, targets: bool, resume: bool) -> Iterator[Run]:
    """Open the run in `out` with all that it needs; targets: whether rows' own responses are learned.

    Raises SdgError, in every process, for anything a user can mend: files, checkpoints, libraries, a folder
    that is taken or holds another run.
    """
    check_environment(recipe)
    processes = join_processes(recipe)  # before anything is loaded, which would go to the first GPU otherwise
    profile, processor = load_profile(recipe), load_processor(recipe.model)
    rows, validation, summary = read_splits(recipe, profile, processor, targets=targets)
    if isinstance(recipe, GrpoRecipe):
        recipe.require_step(len(rows), processes.num_processes)
    settings = {
        "kind": type(recipe).__name__.removesuffix("Recipe").lower(),
        "recipe": to_document(recipe),
        "profile": profile.digest,
        "data": summary,
        "processes": processes.num_processes,
    }
    notes = {"versions": _versions()}
    with begin_together(out, out / MANIFEST, settings, notes=notes, resume=resume, free=FREE) as begun:
        checkpoint = last_checkpoint(out) if begun else None
        model = load_model(recipe.model)
        adapter = lora_config(recipe.model, model)
        if processes.is_main_process:
            print(needed(recipe.run, model, adapter, out), file=sys.stderr)
        arguments = trainer_arguments(recipe, out, resumed=checkpoint is not None)
        yield Run(recipe, out, processor, rows, validation, model, adapter, checkpoint, arguments)


def on_cpu(recipe: Recipe) -> bool:
    """Whether the run is on the CPU, because the recipe says so or because there is no GPU."""
    return recipe.run.device == "cpu" or not torch.cuda.is_available()


def join_processes(recipe: Recipe) -> PartialState:
    """This process among those that train together, with a device of its own from now on.

    Raises SdgError for one process that sees several GPUs: transformers would spread each batch over them, so
    that it is as many times larger, and would cut a batch's pictures and its texts at different places.
    """
    state = PartialState(cpu=on_cpu(recipe), timeout=WAITING)
    alone = state.distributed_type is DistributedType.NO  # as a launcher's only process is not
    if alone and not on_cpu(recipe) and (gpus := torch.cuda.device_count()) > 1:
        raise SdgError(
            f"One process sees {gpus} GPUs: start it with `accelerate launch --num_processes {gpus} -m sdg "
            "train …`, or name the one to use, as CUDA_VISIBLE_DEVICES=0."
        )
    return state


def check_environment(recipe: Recipe) -> None:
    """Raises SdgError where the recipe asks for a library that is not installed, or not in this version."""
    if recipe.run.deepspeed is not None:
        if on_cpu(recipe):
            raise SdgError(
                "run.deepspeed is set, but this run is on the CPU, where transformers would leave it out: "
                "run on GPUs, or --set run.deepspeed=null."
            )
        if importlib.util.find_spec("deepspeed") is None:
            raise SdgError(
                "run.deepspeed is set, but DeepSpeed is not installed: `pip install deepspeed`, "
                "or --set run.deepspeed=null."
            )
        if not recipe.run.deepspeed.is_file():
            raise SdgError(f"run.deepspeed is {recipe.run.deepspeed}, which is no file.")
        zero_stage(recipe.run.deepspeed)
    require_trackers(recipe.run.trackers)
    if isinstance(recipe, GrpoRecipe) and recipe.rollout.engine != "transformers":
        _check_vllm(recipe)


def _check_vllm(recipe: GrpoRecipe) -> None:
    engine = recipe.rollout.engine
    instead = "or --set rollout.engine=transformers."
    if importlib.util.find_spec("vllm") is None:
        raise SdgError(
            f"rollout.engine is {engine}, but vLLM is not installed: `pip install "
            f'"structured-defect-grounding[gpu]"` on a machine with GPUs, {instead}'
        )
    from trl.import_utils import is_vllm_available

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        is_vllm_available()
    if said:  # the range is TRL's own, and so are the words
        raise SdgError(
            f"rollout.engine is {engine}, and the wrong vLLM is installed: "
            f"{str(said[0].message).partition('. We')[0]}; `pip install "
            f'"structured-defect-grounding[gpu]"` brings one that works, {instead}'
        )
    if engine == "vllm-server" and on_cpu(recipe):
        raise SdgError(
            "rollout.engine is vllm-server, which gets the weights from a GPU, and this run is on the CPU: "
            "run on GPUs, or --set rollout.engine=transformers."
        )


def read_splits(
    recipe: Recipe, profile: PromptProfile, processor: Any, *, targets: bool
) -> tuple[Rows, Validation, dict[str, Any]]:
    """Training rows, what is validated on, and the summary of both for the manifest; raises SdgError."""
    data, check = recipe.data, recipe.evaluation
    read = partial(
        RowReader(profile, processor, data.max_length).read,
        images=data.images,
        allow_outside=data.allow_outside,
    )
    train = read(data.train, targets=targets, limit=data.limit)
    held_out = read(data.validation, targets=False, limit=data.validation_limit)
    embedder = load_embedder(check.embedder) if check.embedder else None
    validation = Validation(held_out.rows, profile, check.batch_size, check.best, embedder)
    return train, validation, {"train": train.summary(), "validation": held_out.summary()}


def ended(recipe: Recipe, out: Path, *, resume: bool) -> Path | None:
    """The folder of the final detector, where a run that is to be gone on with has ended already.

    Raises SdgError where it was another run.
    """
    if not resume or not (out / MANIFEST).is_file():
        return None
    manifest = read_settings(out, out / MANIFEST)
    if "final" not in manifest or not (out / FINAL).is_dir():
        return None
    refuse_changes(out, manifest, {"recipe": to_document(recipe)}, FREE)
    if join_processes(recipe).is_main_process:
        print(f"This run has ended already: the detector is in {out / FINAL}.", file=sys.stderr)
    return out / FINAL


def last_checkpoint(out: Path) -> str | None:
    """The newest whole checkpoint; one that a kill left half written has no readable state."""
    found = sorted(
        (int(folder.name.removeprefix("checkpoint-")), folder)
        for folder in out.glob("checkpoint-*")
        if folder.name.removeprefix("checkpoint-").isdecimal()
    )
    for _, folder in reversed(found):
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(folder)
    return None


def trainer_arguments(recipe: Recipe, out: Path, *, resumed: bool) -> dict[str, Any]:
    """The arguments that `SFTConfig` and `GRPOConfig` share."""
    optimizer, check, run = recipe.optimizer, recipe.evaluation, recipe.run
    return {
        "output_dir": str(out),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "learning_rate": optimizer.learning_rate,
        "num_train_epochs": optimizer.epochs,
        "max_steps": optimizer.max_steps or -1,
        "per_device_train_batch_size": optimizer.batch_size,
        "per_device_eval_batch_size": check.batch_size,
        "gradient_accumulation_steps": optimizer.accumulate,
        "lr_scheduler_type": optimizer.schedule,
        "warmup_steps": optimizer.warmup,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.betas[0],
        "adam_beta2": optimizer.betas[1],
        "max_grad_norm": optimizer.grad_norm,
        "gradient_checkpointing": recipe.model.gradient_checkpointing,
        "use_cpu": on_cpu(recipe),
        "bf16": autocast_precision(run.precision, "cpu" if on_cpu(recipe) else "cuda") == "bf16",
        "deepspeed": None if run.deepspeed is None else os.fspath(run.deepspeed),
        "dataloader_num_workers": recipe.data.workers,
        "dataloader_pin_memory": not on_cpu(recipe),
        "remove_unused_columns": False,
        "logging_steps": run.log_every,
        "report_to": list(run.trackers) or "none",
        "eval_strategy": "steps",
        "eval_steps": check.every,
        "eval_on_start": check.first and not resumed,
        "save_strategy": "steps",
        "save_steps": check.every,
        "save_total_limit": run.keep + 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": check.best,
        "greater_is_better": True,
    }


def train(trainer: Any, checkpoint: str | None) -> None:
    """Train, from a checkpoint where there is one; one of the last step leaves nothing but to load the best.

    The library would take a step more there, where the steps end within a pass over the data. It knows the
    best checkpoint by the path it was written to, and forgets it where the run's folder has another by now.
    """
    if checkpoint is not None:
        file = Path(checkpoint) / "trainer_state.json"
        state = TrainerState.load_from_json(str(file))
        if (known := state.best_model_checkpoint) is not None:
            state.best_model_checkpoint = str(Path(checkpoint).with_name(Path(known).name))
        if 0 < state.max_steps <= state.global_step:
            trainer.state = state
            trainer._load_from_checkpoint(state.best_model_checkpoint or checkpoint)
            return
        if state.best_model_checkpoint != known:
            if trainer.accelerator.is_main_process:
                write_text(file, json.dumps(asdict(state), indent=2, sort_keys=True) + "\n")
            trainer.accelerator.wait_for_everyone()
    trainer.train(resume_from_checkpoint=checkpoint)


class RunLog(TrainerCallback):
    """Writes each log entry to log.jsonl, and the profile into each checkpoint; says when one is due."""

    def __init__(self, run: Run) -> None:
        self.out, self.profile, self.every = run.out, run.profile, run.recipe.run.save_every

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        # The library's own interval must be a multiple of the evaluations'.
        if self.every is not None:
            control.should_save = state.global_step % self.every == 0 or control.should_training_stop
        return control

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # What was logged after the checkpoint that a run resumes from will be logged again; a run that
        # begins anew measures its start anew, too.
        if state.is_world_process_zero:
            done = {json.dumps(line, sort_keys=True) for line in state.log_history if state.global_step}
            trim_log(self.out, lambda line: json.dumps(line, sort_keys=True) in done)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        # Without the library's last words, on this process's time: a run in two parts has others.
        if state.is_world_process_zero and state.log_history and "train_runtime" not in state.log_history[-1]:
            append_log(self.out, state.log_history[-1])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.profile.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def finish(run: Run, trainer: Any) -> Path:
    """Write the final model, adapters merged in, with processor and profile; returns the folder.

    It is the trainer's model, the best checkpoint, or the start's weights where they scored better; the
    manifest says which, and so does stderr. A kill never leaves half a folder. Raises SdgError where the disk
    refuses.
    """
    final, main = run.out / FINAL, trainer.accelerator.is_main_process
    outcome = Outcome.of(trainer.state, run.recipe.evaluation.best)
    model = trainer.accelerator.unwrap_model(trainer.model)
    merges = hasattr(model, "merge_and_unload")
    # By ZeRO's stages 1 and 2 each process has all weights. The trainer's own way asks DeepSpeed's engine for
    # them, which a run that is gone on with after its last step has none of.
    gathers = not (outcome.start_is_better or merges or run.recipe.run.deepspeed)

    def write(folder: Path) -> None:
        if outcome.start_is_better:
            load_model(run.recipe.model).save_pretrained(folder)
        elif merges:
            model.merge_and_unload().save_pretrained(folder)
        elif not gathers:
            model.save_pretrained(folder)
        else:
            trainer.save_model(str(folder))
            # The trainer's pickle of its arguments; the manifest says them in JSON.
            (folder / "training_args.bin").unlink(missing_ok=True)
        run.processor.save_pretrained(folder)
        run.profile.save(folder)

    if main:
        with writing(final):
            replace_folder(final, write)
        _record(run.out, outcome)
        if (sentence := outcome.sentence()) is not None:
            print(sentence, file=sys.stderr)
        print(f"Done: the detector is in {final}, the log in {run.out / LOG}.", file=sys.stderr)
    elif gathers:
        trainer.save_model(str(final))  # writes nothing, but gathers what the main process writes
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return final


def _record(out: Path, outcome: Outcome) -> None:
    manifest = read_settings(out, out / MANIFEST)
    manifest["final"] = {
        "weights": outcome.weights,
        "metric": outcome.metric,
        "best": outcome.best,
        "start": outcome.start,
    }
    write_text(out / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def _versions() -> dict[str, str]:
    found = {"sdg": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
