"""The tab Diagnose: a picture and its prompt in; boxes with their reasons, JSON and overlay out."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from sdg.app.held import Held
from sdg.app.looking import Looked, page_of, require_picture, words, write_downloads
from sdg.app.offer import Offer
from sdg.app.shown import MODELS, QUIET, cancels, progress, shown_part
from sdg.app.working import Work, said
from sdg.errors import SdgError
from sdg.images import save_image

MOST_LOOKS = 16
_SHOWN = 48  # examples to click on; further ones are opened by their address
_IDLE = said("Drop or paste a picture and give its prompt, or take an example.")
# Gradio's component reads the clipboard at its button alone, and not on Ctrl+V.
_PASTE = """
document.addEventListener("paste", async (event) => {
  const place = document.getElementById("picture");
  const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
  if (!file || !place?.offsetParent) return; // text, or another tab
  event.preventDefault();
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(file);
  const target = () => place.querySelector("[aria-dropeffect]");
  if (!target()) place.querySelector('[aria-label="Upload file"]')?.click(); // after its own button
  for (let frame = 0; !target() && frame < 60; frame++) await new Promise(requestAnimationFrame);
  target()?.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
});
"""


def build(offer: Offer, held: Held) -> gr.State:
    """The tab's content; returns the state that holds what was found last."""
    looked = gr.State(None)
    with gr.Row(elem_classes="sdg-columns"):
        with gr.Column(scale=2, min_width=300):
            picture = gr.Image(
                type="filepath",
                sources=["upload", "clipboard"],
                label="Picture",
                height=320,
                buttons=[],
                elem_id="picture",
            )
            # The file as it was dropped: decoded by this package's own loader, and by nothing before it.
            picture.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
            prompt = gr.Textbox(label="Prompt that it was made for", lines=2, max_lines=8)
            if any(isinstance(one.picture, Path) for one in offer.examples):
                address = gr.Textbox(label="Or the address of a picture of this app", placeholder="file:///…")
                address.submit(_open(offer), [address], [picture, address], **QUIET)
            detector = gr.Dropdown(
                list(offer.detectors),
                value=offer.detectors[0],
                label="Detector",
                visible=len(offer.detectors) > 1,
            )
            with gr.Accordion("Several looks", open=False):
                looks = gr.Slider(1, MOST_LOOKS, 1, step=1, label="Looks: sampled answers to merge")
                agree = gr.Slider(
                    0.05,
                    1.0,
                    0.375,
                    step=0.005,
                    label="Threshold: share of the looks that must find a defect",
                )
            with gr.Row():
                go = gr.Button("Diagnose", variant="primary")
                cancel = gr.Button("Cancel", interactive=False)
        with gr.Column(scale=3, min_width=300):
            status = gr.HTML(_IDLE, js_on_load=_PASTE)
            card = shown_part(elem_id="diagnosis")
            with gr.Row():
                as_json = gr.DownloadButton("JSON", interactive=False)
                as_overlay = gr.DownloadButton("Overlay", interactive=False)
    if offer.examples:
        gr.Examples(
            [[str(_file(one.picture, held.scratch)), one.prompt] for one in offer.examples[:_SHOWN]],
            [picture, prompt],
            cache_examples=False,
            examples_per_page=6,
            label="Examples",
            elem_id="examples",
        )
    outputs = [status, card, as_json, as_overlay, looked, cancel]
    inputs = [picture, prompt, detector, looks, agree]
    run = gr.on(
        [go.click, prompt.submit],
        _diagnose(held),
        inputs,
        outputs,
        **MODELS,
        **progress(status),
    )
    cancels(cancel, status, [run])
    return looked


def _open(offer: Offer) -> Any:
    def opened(address: str) -> tuple[Any, Any]:
        try:
            return str(offer.located(address)), gr.skip()
        except SdgError as error:
            gr.Warning(str(error))
            return gr.skip(), gr.skip()

    return opened


def _diagnose(held: Held) -> Any:
    def diagnose(
        picture: str | None, prompt: str, detector: str, looks: float, agree: float
    ) -> Iterator[tuple[Any, ...]]:
        off = gr.DownloadButton(interactive=False)
        try:
            file = require_picture(picture, prompt)
        except SdgError as error:
            yield said(str(error), problem=True), "", off, off, None, gr.Button(interactive=False)
            return

        def look() -> tuple[Looked, tuple[Path | None, Path | None]]:
            with held.detector(detector, int(looks), agree) as model:
                (found,) = model.diagnose([(str(file), prompt)])
            result = Looked(file, prompt, found, detector)
            folder = held.scratch / secrets.token_hex(8)
            folder.mkdir()
            return result, write_downloads(result, folder)

        work = Work(look)
        for seconds in work.seconds():
            text = said(f"{detector} is looking… {seconds} s" if seconds else f"{detector} is looking…")
            yield text, gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.Button(interactive=True)
        idle = gr.Button(interactive=False)
        if work.result is None:
            yield said(work.problem, problem=True), "", off, off, None, idle
            return
        result, files = work.result
        buttons = [
            off if one is None else gr.DownloadButton(value=str(one), interactive=True) for one in files
        ]
        problem = not result.diagnosis.is_informative
        yield said(words(result.diagnosis), problem=problem), page_of(result), *buttons, result, idle

    return diagnose


def _file(picture: Any, scratch: Path) -> Path:
    """The picture's file; one that is in memory is written first."""
    if isinstance(picture, Path):
        return picture
    return save_image(picture, scratch / f"example-{secrets.token_hex(4)}.png")
