"""The tab Compare: two detectors, or two files of predictions, side by side on the same pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from sdg.app.comparing import look_twice, read_two
from sdg.app.held import Held
from sdg.app.looking import rendered
from sdg.app.offer import Example, Offer
from sdg.app.shown import MODELS, cancels, progress, shown_part
from sdg.app.working import Work, said
from sdg.defects import Diagnosis

_IDLE = said("Compare two detectors on this app's pictures, or two files of predictions.")


def build(offer: Offer, held: Held) -> None:
    """The tab's content."""
    detectors, most = list(offer.detectors), len(offer.examples)
    if most:
        with gr.Row(elem_classes="sdg-columns"):
            first = gr.Dropdown(detectors, value=detectors[0], label="First detector")
            second = gr.Dropdown(detectors, value=detectors[-1], label="Second detector")
            looks = gr.Slider(1, 16, 8 if len(detectors) == 1 else 1, step=1, label="Looks of the second")
            count = gr.Slider(1, max(2, most), min(4, most), step=1, label="Pictures")
        go = gr.Button("Compare detectors", variant="primary")
    with gr.Accordion("Two files of predictions", open=not most), gr.Column():
        with gr.Row(elem_classes="sdg-columns"):
            one, other, truth = (
                gr.File(label=label, file_types=[".jsonl"], height=120)
                for label in (
                    "First predictions.jsonl",
                    "Second predictions.jsonl",
                    "Annotations, if there are any",
                )
            )
        read = gr.Button("Compare files")
    with gr.Row():
        status = gr.HTML(_IDLE)
        cancel = gr.Button("Cancel", interactive=False, scale=0, min_width=120)
    shown = shown_part(elem_id="compared")
    outputs = [status, shown, cancel]
    runs: list[Any] = [read.click(_files(offer), [one, other, truth], outputs, **progress(status))]
    if most:
        runs.append(
            go.click(
                _detectors(offer, held),
                [first, second, looks, count],
                outputs,
                **MODELS,
                **progress(status),
            )
        )
    cancels(cancel, status, runs)


def _detectors(offer: Offer, held: Held) -> Any:
    def compared(first: str, second: str, looks: float, count: float) -> Iterator[tuple[Any, ...]]:
        examples = offer.examples[: max(1, int(count))]
        done = [0]
        name = second if looks == 1 else f"{second}, {int(looks)} looks"
        if name == first:
            yield (
                said("These are the same; choose another detector, or several looks.", problem=True),
                "",
                _OFF,
            )
            return

        def ask(which: str, example: Example) -> Diagnosis:
            uri, times = (first, 1) if which == first else (second, int(looks))
            with held.detector(uri, times) as detector:
                (found,) = detector.diagnose([(example.picture, example.prompt)])
            return found

        def on_picture(number: int) -> bool:
            done[0] = number
            return not work.abandoned.is_set()

        work: Work[str] = Work(
            lambda: rendered(look_twice(examples, (first, name), ask, on_picture).sections())
        )
        for _ in work.seconds():
            yield said(f"{done[0]} of {len(examples)} pictures…"), gr.skip(), gr.Button(interactive=True)
        yield _ended(work)

    return compared


def _files(offer: Offer) -> Any:
    def compared(one: str | None, other: str | None, truth: str | None) -> Iterator[tuple[Any, ...]]:
        if not one or not other:
            yield said("Give two files, as sdg diagnose writes them.", problem=True), "", _OFF
            return

        def read() -> str:
            known = Path(truth) if truth else None
            return rendered(read_two(Path(one), Path(other), known, offer.examples).sections())

        work = Work(read)
        for _ in work.seconds():
            yield said("Reading…"), gr.skip(), gr.Button(interactive=True)
        yield _ended(work)

    return compared


_OFF: dict[str, Any] = gr.update(interactive=False)


def _ended(work: Work[str]) -> tuple[Any, ...]:
    if work.result is None:
        return said(work.problem, problem=True), gr.skip(), _OFF
    return said("Done."), work.result, _OFF
