"""Roll-outs: groups of samples drawn batch by batch, scored while the next is drawn; and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image

from sdg.alignment.pictures import signal_figure
from sdg.alignment.plan import Purpose, Row, recipe_rows, sde_steps
from sdg.alignment.policies import FlowPolicy, Transitions
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.scoring import PendingScores, Score, Scoring
from sdg.alignment.signals import training_signal
from sdg.images import save_image


@dataclass(frozen=True)
class Drawn:
    """A process's roll-outs: batches of transitions, all their pictures, and scores under way."""

    transitions: list[Transitions]
    pictures: list[Image.Image]
    pending: list[PendingScores]

    def scores(self) -> list[Score]:
        """Wait for the scores, one a picture."""
        return [score for chunk in self.pending for score in chunk.result()]


def roll_out(
    recipe: AlignRecipe, policy: FlowPolicy, scoring: Scoring, rows: Sequence[Row], noisy: Sequence[int]
) -> Drawn:
    """Draw the rows batch by batch; what is drawn is scored while the next is."""
    drawn = Drawn([], [], [])
    size = recipe.sampling.batch_size
    scored, together = 0, recipe.reward.batch_size or size
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        prompts = [row.prompt for row in part]
        rollout = policy.sample(
            prompts,
            [row.seed for row in part],
            starts=[row.start for row in part],
            signs=[row.sign for row in part],
            steps=recipe.sampling.steps,
            sde_steps=noisy,
            noise_level=recipe.sampling.noise_level,
            kind=recipe.sampling.sde,
        )
        drawn.pictures.extend(rollout.pictures)
        drawn.transitions.append(rollout.transitions)
        ended = len(drawn.pictures) == len(rows)
        while scored < len(drawn.pictures) and (ended or scored + together <= len(drawn.pictures)):
            chunk = slice(scored, scored + together)
            asked = [row.prompt for row in rows[chunk]]
            drawn.pending.append(scoring.submit(drawn.pictures[chunk], asked))
            scored += len(asked)
    return drawn


def draw_figure(
    recipe: AlignRecipe,
    accelerator: Accelerator,
    policy: FlowPolicy,
    scoring: Scoring,
    prompts: Sequence[str],
    epoch: int,
    out: Path,
) -> None:
    """Groups of fixed prompts and noise, with what the method would learn from them, as one figure."""
    chosen = list(prompts[: recipe.run.pictures])
    rows = recipe_rows(recipe, chosen, Purpose.FIGURE, 0)
    rank, processes = accelerator.process_index, accelerator.num_processes
    mine = list(range(rank, len(rows), processes))
    drawn = roll_out(recipe, policy, scoring, [rows[i] for i in mine], sde_steps(recipe, 0))
    triples = list(zip(mine, drawn.pictures, drawn.scores(), strict=True))
    gathered = sorted(gather_object(triples) if processes > 1 else triples, key=lambda item: item[0])
    if not accelerator.is_main_process:
        return
    groups = torch.tensor([row.group for row in rows])
    scores = [score for _, _, score in gathered]
    signal = training_signal(recipe.method, scores, groups, policy.grid, recipe.reward, recipe.optimizer)
    shown = [i for i, row in enumerate(rows) if row.sample < 2]  # two samples a group
    captions = [
        f"{rows[i].prompt}   R {float(signal.rewards[i]):.3f}   A {float(signal.advantages[i].mean()):+.2f}"
        + ("" if signal.valid[i] else "   [not scored]")
        for i in shown
    ]
    figure = signal_figure(
        [gathered[i][1] for i in shown],
        [scores[i].diagnosis for i in shown],
        captions,
        None if signal.maps is None else signal.maps[shown],
        signal.advantages[shown],
    )
    save_image(figure, out / "pictures" / f"epoch-{epoch:06d}.png")
