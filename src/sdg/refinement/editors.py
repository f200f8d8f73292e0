"""`load_editor`: the editor that a URI names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from PIL import Image

from sdg.errors import SdgError, described
from sdg.images import rgb_picture
from sdg.io import uri as uris
from sdg.models.device import choose_device
from sdg.refinement.diffusers_editor import DiffusersEditor
from sdg.refinement.pipelines import KNOWN, load_pipeline
from sdg.refinement.request import Editor, EditRequest, EditResult

PIPELINE_OPTIONS: Final = {
    "lora": uris.text,
    "sampling": uris.one_of("ode", "stochastic"),
    "steps": uris.count,
    "guidance": uris.temperature,
    "batch_size": uris.count,
}
"""Options of every editor that runs a pipeline here, and what reads them."""
DIFFUSERS_OPTIONS: Final = PIPELINE_OPTIONS | {"class": uris.one_of(*KNOWN)}
TESTBED: Final = f"{uris.ALIASES['testbed']}.editor"
TESTBED_OPTIONS: Final = PIPELINE_OPTIONS | {"folder": uris.text, "device": uris.text}
_FORMS: Final = {
    "testbed": "testbed, testbed:FOLDER",
    "diffusers": "diffusers:FOLDER",
    "openai": "openai:BASE_URL#MODEL",
    "python": "python:MODULE.FUNCTION",
}


def load_editor(
    uri: str = "testbed", *, device: str = "auto", dtype: str = "auto", steps: int | None = None
) -> Editor:
    """The editor of a URI.

    testbed                 the embedded generator; `testbed:FOLDER` has weights that training wrote
    diffusers:FOLDER        a pipeline of diffusers that inpaints, redraws or follows instructions; class, one
                            of `sdg.refinement.pipelines.KNOWN` in place of that which the folder is for
    these two               lora, the folder of an adapter that `sdg align` wrote (`testbed?lora=shipped` is
                            the embedded one); steps, guidance and batch_size; sampling, `ode` or
                            `stochastic`, the default of `testbed` (see `DiffusersEditor`)
    openai:BASE_URL#MODEL   an images-edit API, its key in OPENAI_API_KEY; quality, concurrency, per_minute,
                            timeout, attempts
    python:MODULE.FUNCTION  a function of an EditRequest that returns the edited picture; or a class, or a
                            function of keyword arguments alone, that makes an Editor of the options

    device and steps are for pipelines, steps after the URI's; dtype is for those of `diffusers:`; "auto" is
    bfloat16, on a CPU float32. A function that makes an editor gets those three that it has parameters for.
    Raises SdgError, in one sentence, for an unknown editor and for weights that do not load.
    """
    parsed = editor_uri(uri)
    if parsed.scheme == "openai":
        return _api(parsed)
    if parsed.scheme == uris.PYTHON:
        return uris.made_by(parsed, 1, FunctionEditor, "edit", device=device, dtype=dtype, steps=steps)
    values = uris.read_options(parsed, DIFFUSERS_OPTIONS, "editor")
    pipeline = load_pipeline(parsed.place, choose_device(device), dtype, values.get("class", ""))
    if "lora" in values:
        from sdg.models.lora import load_lora

        load_lora(pipeline, values["lora"], f"the pipeline {parsed.place}")
    return pipeline_editor(pipeline, values, steps)


def editor_uri(uri: str) -> uris.Uri:
    """The parts of an editor's URI; raises SdgError for one of no editor."""
    return uris.parse_uri(uri, "editor", _FORMS)


def pipeline_editor(
    pipeline: Any, options: Mapping[str, Any], steps: int | None = None, sampling: str = "ode"
) -> DiffusersEditor:
    """The editor of a pipeline; options: those of `PIPELINE_OPTIONS`, read; steps, sampling: without them."""
    return DiffusersEditor(
        pipeline,
        steps=options.get("steps", steps),
        guidance=options.get("guidance"),
        batch_size=options.get("batch_size", 1),
        stochastic=options.get("sampling", sampling) == "stochastic",
    )


class FunctionEditor:
    """A function of one request, which returns the edited picture, as an editor."""

    concurrency: Final = 1

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> EditResult:
        try:
            edited = self._function(request)
            if isinstance(edited, Image.Image):
                return EditResult(rgb_picture(edited))
        except Exception as error:  # whatever a function raises, or its file, costs this picture alone
            return EditResult(None, described(error))
        raise SdgError(f"The editor's function returned {type(edited).__name__}, not a picture.")


def _api(uri: uris.Uri) -> Editor:
    from sdg.refinement.openai_editor import QUALITIES, OpenAIEditor

    known = {
        "quality": uris.one_of(*QUALITIES),
        "concurrency": uris.count,
        "per_minute": uris.count,
        "timeout": uris.seconds,
        "attempts": uris.count,
    }
    values = uris.read_options(uri, known, "editor")
    base_url, _, model = uri.place.partition("#")
    return OpenAIEditor(base_url, model, **values)
