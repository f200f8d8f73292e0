"""Components of the page with HTML of their own (a part of a report, the editor of boxes), and its events.

Each component lives in a shadow root, so that its styles and those of Gradio's page leave each other alone.
What a model wrote arrives as text that templates have escaped, or as a value that scripts write as text.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from sdg.app.working import said
from sdg.defects import SUBTYPES, TIER_FLOORS
from sdg.reporting.page import assets, palette, render_part

QUIET: dict[str, Any] = {"api_visibility": "private"}
"""Options of every event: it is the page's, and no API for others."""
MODELS: dict[str, Any] = {
    "concurrency_id": "models",
    "concurrency_limit": 1,
    "trigger_mode": "multiple",  # by default a press soon after Cancel is lost
}
"""Options of an event that asks a model."""
_HOST = '<div class="sdg"></div>'
_BASE = """
:host { display: block; color: var(--ink); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
"""
_WITHIN = "section { margin: 0; } section + section { margin-top: 1.5rem; } .filters { position: static; }"
# However small or tall a picture is, its boxes can be taken hold of.
_LARGE = """
.bench .stage { width: min(100%, 80vh * var(--ratio, 1)); max-height: none; }
.bench .stage img { width: 100%; max-height: none; }
"""
_SHOW = """
const shadow = element.querySelector(".sdg").attachShadow({ mode: "open" });
const show = () => {
  shadow.innerHTML = `<style>${props.look}</style>${props.value || ""}`;
  report(shadow);
};
watch("value", show);
show();
"""
_EDIT = """
const shadow = element.querySelector(".sdg").attachShadow({ mode: "open" });
shadow.innerHTML = `<style>${props.look}</style>${props.markup}`;
const bench = shadow.querySelector(".bench");
let given = null;
const changed = () => { props.value = structuredClone({ ...given, ...held }); };
let held = { clean: false, boxes: [] };
const editor = boxEditor(shadow, { keys: shadow, changed });
const load = () => {
  given = props.value;
  bench.hidden = !given;
  if (!given) return;
  held = { clean: given.clean, boxes: given.boxes };
  shadow.querySelector(".prompt").textContent = given.prompt;
  editor.load(given.source, held);
};
watch("value", load);
load();
"""


def progress(status: gr.HTML) -> dict[str, Any]:
    """Options of an event that takes a while and says so in `status`."""
    return {"show_progress": "minimal", "show_progress_on": [status], **QUIET}


def cancels(button: gr.Button, status: gr.HTML, runs: list[Any]) -> None:
    """Let a button break these events off, and be off itself then."""
    button.click(
        lambda: (said("Cancelled."), gr.Button(interactive=False)),
        None,
        [status, button],
        cancels=runs,
        queue=False,
        **QUIET,
    )


def style() -> str:
    """CSS of the page around the components: the colours of reports, by Gradio's switch of dark and light."""
    light, dark = (colours.replace("color-scheme: light dark;", "") for colours in palette())
    return f"""
.sdg {{ {light} color-scheme: light; --paper: var(--body-background-fill); }}
.dark .sdg {{ {dark} color-scheme: dark; --paper: var(--body-background-fill); }}
.problem {{ color: #b83b09; font-weight: 550; }} .dark .problem {{ color: #ff9a52; }}
footer {{ display: none !important; }}
#examples table {{ table-layout: fixed; }} #examples th:first-child {{ width: 7rem; }}
#examples :is(th, td, td div) {{ white-space: normal !important; max-width: none !important; }}
.dark {{ --color-accent: #60a5fa; }}
.min_value, .max_value {{ color: var(--body-text-color) !important; }}
"""


def shown_part(**options: Any) -> gr.HTML:
    """A part of a report: its value is HTML that `sdg.reporting` rendered."""
    return gr.HTML(
        "",
        html_template=_HOST,
        js_on_load=assets("report.js") + _SHOW,
        apply_default_css=False,
        look=_BASE + assets("report.css") + _WITHIN,
        **options,
    )


def box_editor(**options: Any) -> gr.HTML:
    """The editor of boxes: its value is {of, source, prompt, clean, boxes}, or None for no picture."""
    tiers = [(tier.value, floor) for tier, floor in TIER_FLOORS.items()]
    kinds = [(kind.value, names) for kind, names in SUBTYPES.items()]
    return gr.HTML(
        None,
        html_template=_HOST,
        js_on_load=assets("boxes.js") + _EDIT,
        apply_default_css=False,
        look=_BASE + assets("report.css", "study.css", "boxes.css", "annotate.css") + _LARGE,
        markup=render_part("bench.html", tiers=tiers, subtypes=kinds),
        **options,
    )
