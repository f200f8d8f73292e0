"""A dry run: what an editor would be told about each picture, written and not sent; what can be said of it.

OUT/requests/DIGEST/   picture.png, mask.png, instruction.txt; in mode sdg marked.png, in heatmap two maps
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sdg.detectors.base import StreamingDetector
from sdg.errors import SdgError
from sdg.images import save_image
from sdg.io import uri as uris
from sdg.io.chat import require_served
from sdg.io.files import write_text
from sdg.models.lora import require_lora
from sdg.models.meta import pipeline_parts
from sdg.refinement.batch import REQUESTS, Plan, digest_of
from sdg.refinement.editors import DIFFUSERS_OPTIONS, TESTBED, TESTBED_OPTIONS, editor_uri, load_editor
from sdg.refinement.loop import HeatSource, severity
from sdg.refinement.masks import as_picture
from sdg.refinement.openai_editor import KEY_NAME
from sdg.refinement.pipelines import KNOWN, class_of, require_index, require_together
from sdg.refinement.request import SHOWN, EditRequest, build_request
from sdg.refinement.sources import FATAL_ERRORS, Source, StoredHeat, read_sources
from sdg.runs.inputs import Item
from sdg.runs.rehearsal import Rehearsal


@dataclass(frozen=True, slots=True)
class Written:
    """The folder of an item's request, or why there is none: left where it needs none, error otherwise."""

    item: Item
    folder: Path | None
    error: str = ""
    left: str = ""


def write_requests(
    items: Sequence[Item],
    out: str | os.PathLike[str],
    *,
    detector: StreamingDetector,
    plan: Plan,
    heat: HeatSource | StoredHeat | None = None,
) -> Iterator[Written]:
    """Write the first request for each item, as `refine_all` would send it, to a folder of OUT/requests.

    Raises SdgError where FATAL_ERRORS pictures in a row got no diagnosis, and where a file cannot be written.
    """
    in_a_row = 0
    for chunk in read_sources(items, detector):
        for source in chunk:
            if source.picture is not None:
                in_a_row = in_a_row + 1 if source.error else 0
            yield _written(source, Path(out), plan, heat)
            if in_a_row == FATAL_ERRORS:
                raise SdgError(
                    f"{FATAL_ERRORS} pictures in a row could not be diagnosed, "
                    f"the last because: {source.error}"
                )


def _written(source: Source, out: Path, plan: Plan, heat: HeatSource | StoredHeat | None) -> Written:
    item, picture, found = source.item, source.picture, source.found
    if picture is None or source.error:
        return Written(item, None, source.error)
    if found.is_clean:
        return Written(item, None, left="It is clean.")
    if (least := severity(found)) is None:
        return Written(item, None, f"The input could not be diagnosed ({found.status.value}).")
    if least < plan.from_severity:
        return Written(item, None, left=f"Its severity is {least}, below {plan.from_severity}.")
    read_heat = heat.of(item) if isinstance(heat, StoredHeat) else heat
    try:
        maps = None if read_heat is None else read_heat(picture, item.prompt, found)
        request = build_request(
            picture, item.prompt, found, mode=plan.mode, settings=plan.edit, heat=maps, seed=plan.seed
        )
    except SdgError as error:
        return Written(item, None, str(error))
    folder = out / REQUESTS / digest_of(item)
    _save(request, folder)
    return Written(item, folder)


def _save(request: EditRequest, folder: Path) -> None:
    """Write a request in place of an earlier one, which may have been of another mode."""
    shown = dict(request.shown)
    for name in SHOWN:
        if name in shown:
            save_image(shown[name], folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    save_image(as_picture(request.mask), folder / "mask.png")
    write_text(folder / "instruction.txt", request.instruction + "\n")


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
        page.check("options", lambda: load_editor(uri), lambda _: _named(parsed.options))  # sends nothing
        page.check(
            "server",
            lambda: require_served(base_url, os.environ.get(KEY_NAME, ""), model),
            lambda _: f"{model} at {base_url}, which was asked for no edit",
        )
    elif parsed.scheme == "diffusers":
        _check_pipeline(page, parsed, dtype)
    elif parsed.place == TESTBED:
        _check_testbed(page, parsed)
    else:
        page.check(
            "function",
            lambda: uris.require_made(parsed, 1, device="auto", dtype=dtype, steps=None),
            lambda _: "which was not called",
        )
    return page


def _named(options: Iterable[str]) -> str:
    return ", ".join(options) or "none"


def _check_testbed(page: Rehearsal, parsed: uris.Uri) -> None:
    options = page.check(
        "options",
        lambda: uris.read_options(replace(parsed, scheme="testbed"), TESTBED_OPTIONS, "editor"),
        _named,
    )
    if options and "folder" in options:
        page.check("class", lambda: class_of(options["folder"]), str)
    if options and options.get("lora", "shipped") != "shipped":  # which is the embedded one
        page.check("lora", lambda: require_lora(options["lora"]), str)


def _class_for(folder: str, options: Mapping[str, Any]) -> str:
    # The class that will edit; raises SdgError where it, or how it samples, takes no batches as asked for.
    require_index(folder)
    name = str(options.get("class") or class_of(folder))
    stochastic = options.get("sampling") == "stochastic"
    require_together(name, KNOWN[name], options.get("batch_size", 1), stochastic=stochastic)
    return name


def _check_pipeline(page: Rehearsal, parsed: uris.Uri, dtype: str) -> None:
    options = page.check(
        "options",
        lambda: uris.read_options(parsed, DIFFUSERS_OPTIONS, "editor"),
        _named,
    )
    options = options or {}
    name = page.check(
        "class",
        lambda: _class_for(parsed.place, options),
        lambda found: f"{found}, which gets {'the instruction' if KNOWN[found].instructed else 'the prompt'}",
    )
    if "lora" in options:
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
