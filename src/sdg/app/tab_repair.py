"""The tab Repair: chosen defects edited away, before and after under one slider."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from sdg import reporting
from sdg.app.held import Held
from sdg.app.looking import Looked, rendered
from sdg.app.offer import Offer
from sdg.app.repairing import Repair, repair
from sdg.app.shown import MODELS, QUIET, cancels, progress, shown_part
from sdg.app.working import Work, said
from sdg.errors import shortened
from sdg.refinement.loop import Outcome

_IDLE = said("Diagnose a picture first; then choose here what to repair.")
_OUTCOMES = {
    Outcome.ALREADY_CLEAN: "Nothing was wrong.",
    Outcome.LEFT_ALONE: "Too little was wrong.",
    Outcome.CLEAN: "What was chosen is repaired.",
    Outcome.IMPROVED: "What was chosen is better, and not all of it is gone.",
    Outcome.NO_BETTER: "No edit was better, so the picture is kept as it was.",
    Outcome.FAILED: "Nothing is gained, for no edit of the last round could be made or judged.",
}


def build(offer: Offer, held: Held, looked: gr.State) -> None:
    """The tab's content; looked: the state that holds what was found last."""
    with gr.Row(elem_classes="sdg-columns"):
        with gr.Column(scale=2, min_width=300):
            chosen = gr.CheckboxGroup([], label="Defects to repair", elem_id="chosen")
            editor = gr.Dropdown(
                list(offer.editors), value=offer.editors[0], label="Editor", visible=len(offer.editors) > 1
            )
            strength = gr.Slider(
                0.25, 2.0, 1.0, step=0.05, label="Strength: a multiple of what the importance calls for"
            )
            rounds = gr.Slider(1, 5, 1, step=1, label="Rounds: edits one upon another")
            strict = gr.Checkbox(True, label="Change the boxes and their soft edges alone")
            with gr.Row():
                go = gr.Button("Repair", variant="primary", interactive=False)
                cancel = gr.Button("Cancel", interactive=False)
        with gr.Column(scale=3, min_width=300):
            status = gr.HTML(_IDLE)
            shown = shown_part(elem_id="repaired")
    looked.change(_load, [looked], [chosen, status, go, shown], show_progress="hidden", **QUIET)
    run = go.click(
        _repair(held),
        [looked, chosen, editor, strength, rounds, strict],
        [status, shown, cancel],
        **MODELS,
        **progress(status),
    )
    cancels(cancel, status, [run])


def _load(looked: Looked | None) -> tuple[Any, ...]:
    if looked is None or not looked.diagnosis.defects:
        text = _IDLE if looked is None else said("There is nothing to repair in this picture.")
        return gr.CheckboxGroup(choices=[], value=[]), text, gr.Button(interactive=False), ""
    choices = []
    for number, defect in enumerate(looked.diagnosis.defects):
        weight = "" if defect.importance is None else f" {defect.importance}"
        reason = shortened(defect.reason, 80) or "no reason given"
        choices.append((f"{number + 1} · {defect.type.value}{weight} · {reason}", number))
    return (
        gr.CheckboxGroup(choices=choices, value=[number for _, number in choices]),
        said("Choose what to repair."),
        gr.Button(interactive=True),
        "",
    )


def _repair(held: Held) -> Any:
    def repaired(
        looked: Looked | None, chosen: Sequence[int], uri: str, strength: float, rounds: float, strict: bool
    ) -> Iterator[tuple[Any, ...]]:
        idle = gr.Button(interactive=False)
        if looked is None:
            yield _IDLE, "", idle
            return

        def work_on() -> tuple[Repair, str]:
            with held.detector(looked.detector) as detector, held.editor(uri) as editor:
                result = repair(
                    looked,
                    chosen,
                    detector=detector,
                    editor=editor,
                    strength=strength,
                    rounds=int(rounds),
                    strict=strict,
                )
            return result, rendered((_section(looked, result),))

        work = Work(work_on)
        for seconds in work.seconds():
            text = said(f"{uri} is repairing… {seconds} s" if seconds else f"{uri} is repairing…")
            yield text, gr.skip(), gr.Button(interactive=True)
        if work.result is None:
            yield said(work.problem, problem=True), gr.skip(), idle
            return
        result, html = work.result
        failed = result.refinement.outcome is Outcome.FAILED
        yield said(words(result, strict), problem=failed or bool(result.changed_outside)), html, idle

    return repaired


def words(result: Repair, strict: bool) -> str:
    """What came of it, and how much changed where nothing was to change."""
    done = result.refinement
    text = " ".join(filter(None, (_OUTCOMES[done.outcome], done.stopped)))
    place = "the boxes and their soft edges" if strict else "where the editor worked"
    return f"{text} Outside of {place} {result.changed_outside:,} of {result.outside:,} pixels changed."


def _section(looked: Looked, result: Repair) -> reporting.Refinements:
    done = result.refinement
    item = reporting.Refinement(
        looked.name,
        looked.prompt,
        result.before,
        result.after,
        looked.diagnosis,
        result.found,
        len({attempt.round for attempt in done.attempts}),
        done.changed,
        done.outcome.value,
    )
    return reporting.Refinements((item,), "Before and after")
