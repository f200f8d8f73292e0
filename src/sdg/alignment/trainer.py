"""BoxFlow-GRPO and its baselines (SDG §4.2): sample groups, score them, take advantages, optimize.

`align` is the whole algorithm; `rollout` holds what steps 1 and 2 do, `update` what steps 3 and 4 do.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

import torch

from sdg.alignment.accelerator import group_timeout, require_same_start, start_accelerator
from sdg.alignment.figures import draw_figure
from sdg.alignment.forward import ForwardLearner
from sdg.alignment.monitors import (
    BY_PROMPT,
    KNOWN,
    MEASURES,
    Monitor,
    hacking,
    is_best,
    said_of_best,
    standing_best,
)
from sdg.alignment.policies import load_policy
from sdg.alignment.policies.trained import save_trained
from sdg.alignment.recipe import AlignRecipe, compared
from sdg.alignment.rollout import (
    Purpose,
    Sampler,
    Scoring,
    check_failures,
    epoch_prompts,
    gather_rows,
    group_rows,
    read_prompt_sets,
    require_processes,
    run_prompts,
    sde_steps,
    share,
)
from sdg.alignment.update import Learner, epoch_values, said_of_average, training_signal
from sdg.detectors import load_detector
from sdg.io.files import write_text
from sdg.models.sharding import process_mesh
from sdg.recipes import to_document
from sdg.runs.begin import begin_together
from sdg.runs.checkpoint import FOLDER as CHECKPOINTS
from sdg.runs.checkpoint import resume_point, save_checkpoint
from sdg.runs.log import RunLog
from sdg.scorers.weighted import load_reward

MANIFEST: Final = "manifest.json"
"""In a run's folder: what it was begun with."""


def align(recipe: AlignRecipe, out: Path, *, resume: bool = False) -> Path:
    """Align a generator as the recipe says; returns the folder of what was trained in the end, out/final.

    In `out`: log.jsonl (one line an epoch and a measurement), checkpoints/, best/ (by the monitor), final/,
    pictures/. `resume` goes on from the newest checkpoint; on a CPU the losses are then those of an
    uninterrupted run. Raises SdgError, before anything is drawn, where recipe and machine do not fit, and
    when too many pictures cannot be scored.
    """
    # First of all: what is loaded before a process has its device would go to the first GPU.
    accelerator = start_accelerator(
        recipe.run.trackers, out, group_timeout(recipe), some_idle=recipe.policy.lora is None
    )
    rank, processes = accelerator.process_index, accelerator.num_processes
    main = accelerator.is_main_process
    steps = share(recipe, rank, processes)
    own = [index for step in steps for index in step.own]
    require_processes(recipe, processes)
    prompts, held_out, digest = read_prompt_sets(recipe.prompts)
    settings = {"recipe": to_document(recipe), "prompts": digest}
    work = [out / CHECKPOINTS]
    same = {"free": recipe.free, "compared": compared}
    with begin_together(out, out / MANIFEST, settings, resume=resume, work=work, **same) as begun:
        # First what a wrong address or a missing profile stops at once; the generator takes minutes to load.
        detector = load_detector(recipe.reward.detector or "") if recipe.needs_detector else None
        reward = load_reward(recipe.reward.scorers, str(accelerator.device))
        policy = load_policy(
            recipe.policy,
            accelerator.device,
            recipe.precision,
            recipe.seed,
            prompts=run_prompts(recipe, prompts, held_out) if recipe.policy.text_cache else (),
            mesh=process_mesh(accelerator.device) if recipe.run.sharding else None,
        )
        policy.sigmas(recipe.sampling.steps)  # raises where the schedule has too few steps
        monitor = Monitor(recipe, held_out, reward, detector, str(accelerator.device)) if held_out else None
        learner = (ForwardLearner if recipe.forward else Learner)(recipe, accelerator, policy)
        start, history = 0, []
        point = resume_point(out, recipe.epochs) if begun else None
        if point is not None:
            start, history = point.progress["epoch"], point.progress["history"]
        require_same_start(start, processes)
        if point is not None:
            learner.restore(point.tensors, start)
            if monitor is not None:
                history += standing_best(out / "best", start, monitor)

        log = RunLog(out, accelerator, start)
        with Scoring(reward, detector) as scoring:
            sampler = Sampler(recipe, policy, scoring)
            for epoch in range(start, recipe.epochs + 1):
                last = epoch == recipe.epochs
                # 0. Watch: held-out prompts, under the averaged adapter, from before the first epoch on.
                with learner.ema.applied():
                    if monitor is not None and monitor.due(epoch):
                        found = monitor.measure(policy, rank, processes)
                        measured = {"epoch": epoch, **found.means, KNOWN: found.known}
                        history.append({**measured, BY_PROMPT: found.by_prompt})
                        log.measured(measured, epoch * recipe.optimizer.steps_per_epoch)
                        if is_best(history, recipe.monitor):
                            save_trained(policy, out / "best", write=main)
                            if main:
                                write_text(out / "best" / MEASURES, json.dumps(measured, indent=1))
                    if recipe.run.pictures_every and (epoch % recipe.run.pictures_every == 0 or last):
                        path = out / "pictures" / f"epoch-{epoch:06d}.png"
                        panels = draw_figure(sampler, held_out, rank, processes, path)
                        log.pictured(panels, epoch * recipe.optimizer.steps_per_epoch)
                if last or hacking(history, recipe.monitor, recipe.measurements):
                    break

                # 1. Sample groups, and score them while the next are drawn.
                began = time.monotonic()
                rows = group_rows(recipe, epoch_prompts(recipe, prompts, epoch), Purpose.TRAINING, epoch)
                noisy = sde_steps(recipe, epoch)
                with learner.sampling():
                    drawn = sampler.draw([rows[index] for index in own], noisy)
                sampled = time.monotonic()

                # 2. Everyone learns every score: groups lie across processes.
                scores = gather_rows(own, drawn.scores(), processes)
                check_failures(scores, recipe.reward.max_failed, detector=detector is not None)
                scored = time.monotonic()

                # 3. Advantages, over the whole epoch.
                groups = torch.tensor([row.group for row in rows])
                signal = training_signal(recipe, scores, groups, policy.grid)

                # 4. Optimize: each step on its share of the groups.
                values: dict[str, Any] = {"sde_steps": noisy, **epoch_values(signal, scores)}
                values |= learner.learn(epoch, steps, drawn, signal)
                values |= {"sampling_seconds": sampled - began, "scoring_seconds": scored - sampled}
                values |= {"optimizing_seconds": time.monotonic() - scored}
                log.trained(epoch, (epoch + 1) * recipe.optimizer.steps_per_epoch, values)
                if recipe.optimizer.clip < values["first_ratio_error"]:
                    log.say("the first ratio is off by more than the clip range; run in higher precision")
                if (epoch + 1) % recipe.run.save_every == 0 or epoch + 1 == recipe.epochs:
                    state = learner.state(keep=main)
                    if main:
                        progress = {"epoch": epoch + 1, "history": history}
                        save_checkpoint(out, epoch + 1, state, progress, recipe.run.keep)
                    accelerator.wait_for_everyone()
        if epoch < recipe.epochs:
            log.say(
                f"stopped at epoch {epoch}: {recipe.monitor.best} fell beyond chance while the reward rose"
            )
        with learner.ema.applied():
            save_trained(policy, out / "final", write=main)
        what = "transformer" if recipe.policy.lora is None else "adapter"
        log.say(f"done: the {what} is in {out / 'final'}, the log in {log.path}")
        for sentence in (said_of_best(history, recipe.monitor), said_of_average(recipe, epoch)):
            if sentence:
                log.say(sentence)
        accelerator.wait_for_everyone()
        accelerator.end_training()
    return out / "final"
