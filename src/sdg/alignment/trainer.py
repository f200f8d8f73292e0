"""BoxFlow-GRPO and its baselines, from top to bottom: sample groups, score, advantages, optimize (SDG §4.2).

`align` is the whole algorithm; everything it draws comes from `sdg.alignment.plan`, by seeds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from sdg.alignment.drawing import draw_figure, roll_out
from sdg.alignment.monitors import Measures, Monitor, best_entry, hacking
from sdg.alignment.optimizing import adapter_optimizer, optimize
from sdg.alignment.plan import Purpose, epoch_prompts, recipe_rows, sde_steps, share
from sdg.alignment.policies import FlowPolicy, load_policy
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.scoring import Scoring, check_failures
from sdg.alignment.signals import epoch_values, training_signal
from sdg.detectors import load_detector
from sdg.errors import SdgError
from sdg.io.uri import read_prompts
from sdg.models.lora import Ema, lora_parameters, save_lora
from sdg.recipes import to_document
from sdg.runs.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from sdg.runs.log import FREE, RunLog, refuse_changes
from sdg.scorers.weighted import load_reward


def align(recipe: AlignRecipe, out: Path, *, resume: bool = False) -> Path:
    """Align a generator as the recipe says; returns the folder of the final adapter, out/final.

    In `out`: log.jsonl (one line an epoch and a measurement), checkpoints/, best/ (by the monitor), final/,
    pictures/. `resume` goes on from the newest checkpoint; on a CPU the losses are then those of an
    uninterrupted run. Raises SdgError, before anything is drawn, where recipe and machine do not fit, and
    when too many pictures cannot be scored.
    """
    accelerator = _accelerator(recipe, out)
    rank, processes = accelerator.process_index, accelerator.num_processes
    own_rows = share(recipe, rank, processes)
    checkpoint = latest_checkpoint(out)
    if checkpoint is not None and not resume:
        raise SdgError(f"{out} holds an earlier run; add --resume to go on with it, or name another folder.")
    train_prompts = read_prompts(recipe.prompts.train)
    held_out = read_prompts(recipe.prompts.held_out) if recipe.prompts.held_out else []
    prompts_digest = sha256(json.dumps([train_prompts, held_out]).encode()).hexdigest()
    if shared := set(train_prompts) & set(held_out):
        raise SdgError(f"{min(shared)!r} is both trained on and held out; take it out of one of the two.")

    # First what a wrong address or a missing profile stops at once; the generator takes minutes to load.
    detector = load_detector(recipe.reward.detector or "") if recipe.needs_detector else None
    reward = load_reward(recipe.reward.scorers, str(accelerator.device))
    policy = load_policy(recipe.policy, accelerator.device, recipe.precision, recipe.seed)
    _check_levels(recipe, policy)
    monitor = Monitor(recipe, held_out, reward, detector, str(accelerator.device)) if held_out else None

    parameters = lora_parameters(policy.transformer)
    model = accelerator.prepare_model(policy.transformer)
    optimizer = adapter_optimizer(parameters.values(), recipe.optimizer)
    ema = Ema(parameters, recipe.optimizer.ema_decay)
    start, history = 0, []
    if checkpoint is not None:
        tensors, progress = load_checkpoint(checkpoint)
        free = set(FREE)
        if recipe.optimizer.schedule != "constant":  # falls over all steps, so with their number
            free.remove("optimizer.steps")
        refuse_changes(progress["recipe"], to_document(recipe), free)
        _restore(parameters, ema, optimizer, tensors)
        start, history = progress["epoch"], progress["history"]
        if start > recipe.epochs:
            raise SdgError(
                f"{out} holds {start} epochs already and the recipe has {recipe.epochs}; "
                "raise optimizer.steps, or name another folder."
            )
        if progress.get("prompts", prompts_digest) != prompts_digest:
            raise SdgError(
                f"The prompts are not those that the run in {out} was begun with; "
                "go on with those, or name another folder."
            )
    schedule = _schedule(recipe, optimizer, start * recipe.optimizer.steps_per_epoch)

    log = RunLog(out, accelerator, start)
    with Scoring(reward, detector) as scoring:
        for epoch in range(start, recipe.epochs + 1):
            last = epoch == recipe.epochs
            # 0. Watch: held-out prompts, under the averaged adapter, from before the first epoch on.
            if monitor is not None and (epoch % recipe.monitor.every == 0 or last):
                with ema.applied():
                    history.append({"epoch": epoch, **monitor.measure(policy, rank, processes)})
                    _keep_best(recipe, accelerator, policy, history, out)
                log.measured(history[-1], epoch * recipe.optimizer.steps_per_epoch)
            if recipe.run.pictures_every and (epoch % recipe.run.pictures_every == 0 or last):
                with ema.applied():
                    draw_figure(recipe, accelerator, policy, scoring, held_out, epoch, out)
            if last or hacking(history, recipe.monitor):
                break

            # 1. Sample groups, and score them while the next are drawn.
            began = time.monotonic()
            prompts = epoch_prompts(train_prompts, recipe.groups.prompts, epoch, recipe.seed)
            rows = recipe_rows(recipe, prompts, Purpose.TRAINING, epoch)
            noisy = sde_steps(recipe, epoch)
            mine = [index for step in own_rows for index in step]
            drawn = roll_out(recipe, policy, scoring, [rows[index] for index in mine], noisy)
            sampled = time.monotonic()

            # 2. Everyone learns every score: groups lie across processes.
            pairs = list(zip(mine, drawn.scores(), strict=True))
            gathered = dict(gather_object(pairs) if processes > 1 else pairs)
            scores = [gathered[index] for index in range(len(rows))]
            check_failures(scores, recipe.reward.max_failed, detector=detector is not None)
            scored = time.monotonic()

            # 3. Advantages, over the whole epoch.
            groups = torch.tensor([row.group for row in rows])
            signal = training_signal(
                recipe.method, scores, groups, policy.grid, recipe.reward, recipe.optimizer
            )

            # 4. Optimize: each step on its share of the groups.
            size = recipe.sampling.batch_size
            values: dict[str, Any] = epoch_values(signal, scores)
            losses, first_ratio_error = [], 0.0
            rate = schedule.get_last_lr()[0]
            for step, indices in enumerate(own_rows):
                batches = drawn.transitions[step * len(indices) // size : (step + 1) * len(indices) // size]
                everyone = range(step * len(rows) // len(own_rows), (step + 1) * len(rows) // len(own_rows))
                outcome = optimize(
                    recipe, accelerator, policy, model, optimizer, batches, indices, everyone, signal
                )
                losses.append(outcome.pop("loss"))
                schedule.step()
                if step == 0:
                    first_ratio_error = outcome["ratio_error"]
                values |= outcome
            if (epoch + 1) % recipe.optimizer.ema_every == 0:
                ema.update((epoch + 1) // recipe.optimizer.ema_every - 1)

            ended = time.monotonic()
            values |= {"loss": losses, "first_ratio_error": first_ratio_error, "sde_steps": noisy}
            values |= {"learning_rate": rate}
            values |= {"sampling_seconds": sampled - began, "scoring_seconds": scored - sampled}
            values |= {"optimizing_seconds": ended - scored}
            log.trained(epoch, (epoch + 1) * recipe.optimizer.steps_per_epoch, values)
            if recipe.optimizer.clip < first_ratio_error:
                log.say("the first ratio is off by more than the clip range; run in higher precision")
            if (epoch + 1) % recipe.run.save_every == 0 or epoch + 1 == recipe.epochs:
                if accelerator.is_main_process:
                    state = _state(parameters, ema, optimizer)
                    progress = {
                        "epoch": epoch + 1,
                        "history": history,
                        "recipe": to_document(recipe),
                        "prompts": prompts_digest,
                    }
                    save_checkpoint(out, epoch + 1, state, progress, recipe.run.keep)
                accelerator.wait_for_everyone()
    if epoch < recipe.epochs:
        log.say(f"stopped at epoch {epoch}: {recipe.monitor.best} got worse while the reward rose")
    if accelerator.is_main_process:
        with ema.applied():
            save_lora(policy, out / "final")
    log.say(f"done: the adapter is in {out / 'final'}, the log in {log.path}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return out / "final"


def _accelerator(recipe: AlignRecipe, out: Path) -> Accelerator:
    from importlib.util import find_spec

    for tracker in recipe.run.trackers:
        if find_spec(tracker) is None:
            raise SdgError(f"run.trackers names {tracker}, which is not installed; pip install {tracker}.")
    # The policy applies autocast itself, in roll-out and training alike, so Accelerate must not.
    accelerator = Accelerator(
        mixed_precision="no", log_with=list(recipe.run.trackers) or None, project_dir=str(out)
    )
    plain = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if accelerator.distributed_type not in plain:
        raise SdgError(
            "Alignment trains an adapter by plain data parallelism; start it with torchrun or with an "
            "accelerate configuration without DeepSpeed and FSDP."
        )
    return accelerator


def _check_levels(recipe: AlignRecipe, policy: FlowPolicy) -> None:
    """Raise SdgError where a step is to be trained at which the adapter does not act."""
    levels = policy.sigmas(recipe.sampling.steps).tolist()
    for step in recipe.sampling.sde_steps:
        if levels[step] <= recipe.policy.lora.above:
            raise SdgError(
                f"Step {step} of sampling.sde_steps is at noise level {levels[step]:.3f}, and by "
                f"policy.lora.above the adapter acts above {recipe.policy.lora.above}; change one of the two."
            )


def _schedule(recipe: AlignRecipe, optimizer: torch.optim.Optimizer, done: int) -> LRScheduler:
    """The learning rate's course, from after `done` steps on."""
    from diffusers.optimization import get_scheduler

    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]  # what a schedule that does not begin at 0 asks for
    steps = recipe.epochs * recipe.optimizer.steps_per_epoch
    return get_scheduler(
        recipe.optimizer.schedule,
        optimizer,
        num_warmup_steps=0,
        num_training_steps=steps,
        last_epoch=done - 1,
    )


def _state(parameters: dict[str, Any], ema: Ema, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = {f"lora.{name}": parameter.detach() for name, parameter in parameters.items()}
    state |= {f"ema.{name}": value for name, value in ema.average.items()}
    return state | optimizer_tensors(optimizer)


@torch.no_grad()
def _restore(
    parameters: dict[str, Any], ema: Ema, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(tensors[f"lora.{name}"])
        ema.average[name].copy_(tensors[f"ema.{name}"])
    restore_optimizer(optimizer, tensors)


def _keep_best(
    recipe: AlignRecipe,
    accelerator: Accelerator,
    policy: FlowPolicy,
    history: Sequence[Measures],
    out: Path,
) -> None:
    """Save the present adapter to out/best if its measure is the best so far."""
    watch = recipe.monitor
    if watch.best is None or best_entry(history, watch.best, watch.goal) != len(history) - 1:
        return
    if accelerator.is_main_process:
        save_lora(policy, out / "best")
        (out / "best" / "measures.json").write_text(json.dumps(history[-1], indent=1), encoding="utf-8")
