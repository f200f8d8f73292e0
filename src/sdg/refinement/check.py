"""What can be said of an editor before it is loaded or sent anything: class, memory, whether it is served."""

from __future__ import annotations

import os
from typing import Final

from sdg.errors import SdgError
from sdg.io import uri as uris
from sdg.io.chat import require_served
from sdg.models.lora import require_lora
from sdg.models.meta import pipeline_parts
from sdg.refinement.editors import PIPELINE_OPTIONS, editor_uri
from sdg.refinement.openai_editor import KEY_NAME
from sdg.refinement.pipelines import KNOWN, class_of, known_class
from sdg.runs.rehearsal import Rehearsal

_BYTES: Final = {"auto": 2, "bfloat16": 2, "float16": 2, "float32": 4}


def check_editor(uri: str, *, gpu: str, processes: int = 1, dtype: str = "auto") -> Rehearsal:
    """A page on the editor of a URI, with the memory of its weights on a GPU; nothing is loaded or sent.

    An API is asked for its list of models alone.
    """
    page = Rehearsal(gpu, processes)
    parsed = page.check("editor", lambda: editor_uri(uri), lambda found: str(found))
    if parsed is None:
        return page
    if parsed.scheme == "openai":
        base_url, _, model = parsed.place.partition("#")
        page.check(
            "server",
            lambda: require_served(base_url, os.environ.get(KEY_NAME, ""), model),
            lambda _: f"{model} at {base_url}, which was asked for no edit",
        )
    elif parsed.scheme == "diffusers":
        _check_pipeline(page, parsed, dtype)
    return page


def _check_pipeline(page: Rehearsal, parsed: uris.Uri, dtype: str) -> None:
    known = PIPELINE_OPTIONS | {"class": known_class}
    options = page.check(
        "options",
        lambda: uris.read_options(parsed, known, "editor"),
        lambda found: ", ".join(found) or "none",
    )
    name = page.check(
        "class",
        lambda: (options or {}).get("class") or class_of(parsed.place),
        lambda found: f"{found}, which gets {'the instruction' if KNOWN[found].instructed else 'the prompt'}",
    )
    if options and "lora" in options:
        page.check("lora", lambda: require_lora(options["lora"]), str)
    if name is None:
        return
    try:
        parts = pipeline_parts(parsed.place)
    except SdgError as error:
        page.say("memory", f"not known. {error}")
        return
    page.memory |= {part: _BYTES[dtype] * count for part, count in parts.items()}
    page.require_memory()
