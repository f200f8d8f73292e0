"""`load_editor`: the editor that a URI names."""

from __future__ import annotations

from typing import Any, Final

from sdg.detectors.hf import choose_device
from sdg.errors import SdgError
from sdg.io import uri as uris
from sdg.refinement.base import Editor
from sdg.refinement.diffusers_editor import STEPS, DiffusersEditor, load_pipeline

SHIPPED: Final = "shipped"
"""In place of an adapter's folder: the one inside the package."""


def load_editor(
    uri: str = "testbed", *, device: str = "auto", dtype: str = "auto", steps: int = STEPS
) -> Editor:
    """The editor of a URI: `testbed` (embedded), `testbed:FOLDER` (weights that training wrote),
    `diffusers:FOLDER`, any pipeline that diffusers can turn into inpainting or image-to-image, or
    `openai:BASE_URL#MODEL`, an images-edit API, whose key is in the environment (OPENAI_API_KEY); its
    options are quality, concurrency, per_minute, timeout and attempts, as in `openai:…#MODEL?quality=low`.
    The others have the option lora, the folder of an adapter that `sdg align` wrote, as in
    `diffusers:FOLDER?lora=runs/flux/best`; `testbed?lora=shipped` is the embedded one. Their option sampling
    is `ode` or `stochastic` (see `DiffusersEditor`), which is what `testbed` does by default.

    device and steps are for pipelines, dtype is for those of `diffusers:`; "auto" is bfloat16, on a CPU
    float32. Raises SdgError, in one sentence, for an unknown editor and for weights that do not load.
    """
    if uri.startswith("openai:"):
        return _api(uri.removeprefix("openai:"))
    address, options = uris.split_address(uri)
    scheme, _, place = address.partition(":")
    if scheme == "testbed":
        from diffusers import FluxInpaintPipeline

        from sdg.testbed.models.packaged import ALIGNED, load_generator, packaged

        lora, sampling = _pipeline_options(scheme, place, options, "stochastic")
        if lora == SHIPPED:
            lora = str(packaged(ALIGNED))
        generator = load_generator(place or None, choose_device(device), lora=lora)
        pipeline: Any = FluxInpaintPipeline.from_pipe(generator)
    elif scheme == "diffusers" and place:
        lora, sampling = _pipeline_options(scheme, place, options, "ode")
        pipeline = load_pipeline(place, choose_device(device), dtype)
        if lora is not None:
            from sdg.models.lora import load_lora

            load_lora(pipeline, lora, f"the pipeline {place}")
    else:
        raise SdgError(
            f"{uri!r} is no editor; editors are testbed, testbed:FOLDER, diffusers:FOLDER "
            "and openai:BASE_URL#MODEL."
        )
    return DiffusersEditor(pipeline, steps=steps, stochastic=sampling == "stochastic")


def _pipeline_options(
    scheme: str, place: str, options: dict[str, str], sampling: str
) -> tuple[str | None, str]:
    """An adapter's folder, if one is named, and how to sample, by default as `sampling` says."""
    known = {"lora": uris.text, "sampling": uris.one_of("ode", "stochastic")}
    values = uris.read_options(uris.DetectorUri(scheme, place, options), known, "editor")
    return values.get("lora"), values.get("sampling", sampling)


def _api(place: str) -> Editor:
    from sdg.refinement.openai_editor import QUALITIES, OpenAIEditor

    place, options = uris.split_address(place)
    known = {
        "quality": uris.one_of(*QUALITIES),
        "concurrency": uris.count,
        "per_minute": uris.count,
        "timeout": uris.seconds,
        "attempts": uris.count,
    }
    values = uris.read_options(uris.DetectorUri("openai", place, options), known, "editor")
    base_url, _, model = place.partition("#")
    return OpenAIEditor(base_url, model, **values)
