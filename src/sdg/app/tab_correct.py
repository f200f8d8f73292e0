"""The tab Correct: the detector's answer made right by hand, and saved as a row of a data set."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sdg.app.correcting import corrected, save, to_edit
from sdg.app.looking import Looked, rendered
from sdg.app.offer import Offer
from sdg.app.shown import QUIET, box_editor, shown_part
from sdg.app.working import said
from sdg.errors import SdgError
from sdg.reporting import SideBySide, Twice

_IDLE = said("Diagnose a picture first; its boxes can then be moved, added, deleted and described here.")
_HOW = (
    "Drag on the picture to draw a box. A chosen box is moved by its middle and resized by its corners. "
    "Keys, once the picture or a box has the focus: N adds a box, arrows move, Shift with arrows resizes, "
    "1 and 2 choose the type of the next box, Delete removes, Ctrl+Z and Ctrl+Shift+Z undo and redo."
)


def build(offer: Offer, looked: gr.State) -> None:
    """The tab's content; looked: the state that holds what was found last."""
    status = gr.HTML(_IDLE)
    gr.HTML(said(_HOW).replace(' role="status"', ""))
    editor = box_editor(elem_id="editor")
    button = gr.Button("Save as a row", variant="primary", interactive=False)
    both = shown_part(elem_id="corrected")
    looked.change(_load(offer), [looked], [status, editor, button, both], show_progress="hidden", **QUIET)
    button.click(_save(offer), [editor, looked], [status, both], concurrency_limit=4, **QUIET)


def _load(offer: Offer) -> Any:
    def load(looked: Looked | None) -> tuple[Any, ...]:
        if looked is None:
            return _IDLE, None, gr.Button(interactive=False), ""
        try:
            value = to_edit(looked)
        except SdgError as error:
            return said(str(error), problem=True), None, gr.Button(interactive=False), ""
        where = f"Rows go to {offer.folder}." if offer.folder else "Start sdg app with --out to save rows."
        return said(where), value, gr.Button(interactive=offer.folder is not None), ""

    return load


def _save(offer: Offer) -> Any:
    def saved(value: Any, looked: Looked | None) -> tuple[str, Any]:
        try:
            if looked is None or offer.folder is None:
                raise SdgError("There is nothing to save yet; diagnose a picture first.")
            diagnosis = corrected(value, looked)
            file, count = save(looked, diagnosis, offer.folder)
        except SdgError as error:
            return said(str(error), problem=True), gr.skip()
        both = Twice(looked.name, looked.prompt, looked.diagnosis, diagnosis, looked.picture)
        rows = "1 row" if count == 1 else f"{count:,} rows"
        shown = SideBySide((both,), "before", "after", "Before and after")
        return said(f"Saved: {file} holds {rows}."), rendered((shown,))

    return saved
