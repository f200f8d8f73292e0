"""A Hugging Face Space as a folder: the app for a named detector, or a report as a static page.

The folder holds a copy of this package, so that a Space needs of the package index only what this package
needs, and runs the very code it was exported with.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
from collections.abc import Sequence
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sdg._version import __version__
from sdg.app.offer import EMBEDDED, OTHER_WORLDS, usual_editors
from sdg.detectors import answers_by_path, parts_of
from sdg.errors import SdgError, path_end, quoted
from sdg.io.files import is_folder, replace_folder, write_text, writing
from sdg.io.paths import leads_inside, real_path
from sdg.io.uri import ALIASES, PYTHON, split_options

_PACKAGE: Final = "structured-defect-grounding"
_EXTRAS: Final = {"hf": "models", EMBEDDED: "models", "openai": "api", "ocr": "ocr", "diffusers": "models"}
_WEIGHTS: Final = "weights"  # the one folder of this name
_LONGEST: Final = 100  # characters of a title
_FILES: Final = ("folder", "lora", "processor", "profile")  # options that may name a file or folder

_README: Final = """\
---
title: {title}
emoji: 🔎
colorFrom: blue
colorTo: gray
{settings}
pinned: false
---

{body}
"""
_APP: Final = '''\
"""The app for one detector, written by `sdg app export-space`; `sdg` is the folder beside this file."""

from pathlib import Path

from sdg.app.offer import Offer, drawn_examples
from sdg.app.page import run_space
{examples}
HERE = Path(__file__).parent
offer = Offer(detectors={detectors}, editors={editors}, examples=EXAMPLES)

if __name__ == "__main__":
    run_space(offer)
'''
_DRAWN: Final = """\
from sdg.testbed.entry import examples

EXAMPLES = drawn_examples(examples())"""
_NONE: Final = "\nEXAMPLES = drawn_examples(())"
_OWN_COPY: Final = (
    "The folder `sdg` is this package as it was exported. `requirements.txt` lists what that copy needs, so "
    "the package itself need not be installed. To run it elsewhere: `pip install -r requirements.txt`, then "
    "`python app.py`."
)


def export_app(folder: Path, detector: str, editors: Sequence[str] = (), *, title: str = "") -> Path:
    """Write the Space of a detector into a new folder; returns the folder. A detector in a folder goes along.

    Raises SdgError where the folder holds anything already or lies inside of the detector's, or a file cannot
    be written, for stored answers (replay:, heatmap:), functions (python:), servers of this machine alone,
    and other files and folders of it: an editor's, a profile, a part of a union.
    """
    import gradio

    _require_new(folder)
    if answers_by_path(detector):
        raise SdgError(
            f"A Space shows new pictures, to which {quoted(detector)} has no answer; name a model."
        )
    checkpoint, parts = _checkpoint(detector), parts_of(detector)
    editors = tuple(editors) or usual_editors((detector,))
    for uri in (*parts, *editors):
        if _scheme(uri) == PYTHON:
            raise SdgError(
                f"A Space does not hold the code of {quoted(uri)}; name a model on a hub or a server."
            )
        if _is_here(uri):
            raise SdgError(
                f"A Space cannot reach the server of {quoted(uri)}, which only this machine can; name one "
                "on the internet."
            )
    named = [*chain(*map(_paths, parts)), *chain(*map(_paths, editors))]
    for path in named if checkpoint is None else named[1:]:
        if os.path.exists(path):  # noqa: PTH110 (pathlib's raises for a name that is too long)
            raise SdgError(f"A Space cannot reach {path_end(path)} on this machine; put it on a hub first.")
    if checkpoint is not None and leads_inside(folder, checkpoint[0]):
        raise SdgError(f"{folder} lies inside of the detector that goes along; name a folder elsewhere.")
    schemes = set(map(_scheme, (*parts, *editors)))

    def write(fresh: Path) -> None:
        if checkpoint is not None:
            shutil.copytree(checkpoint[0], fresh / "model")
        _copy_package(fresh / "sdg", weights=EMBEDDED in schemes)
        shown = repr(detector)
        if checkpoint is not None:
            shown = 'str(HERE / "model")' + (f" + {checkpoint[1]!r}" if checkpoint[1] else "")
        write_text(
            fresh / "app.py",
            _APP.format(
                detectors=f"({shown},)",
                editors=repr(tuple(editors)),
                examples=_DRAWN if _scheme(detector) == EMBEDDED else _NONE,
            ),
        )
        extras = {"app", *(_EXTRAS.get(scheme, "models") for scheme in schemes)}
        write_text(fresh / "requirements.txt", "\n".join(requirements(extras)) + "\n")
        settings = f'sdk: gradio\nsdk_version: {gradio.__version__}\npython_version: "3.11"\napp_file: app.py'
        body = f"Defects of generated pictures, found by `{detector}` (sdg {__version__})."
        if _scheme(detector) == EMBEDDED:
            body += f"\n\n{OTHER_WORLDS}"
        body += f"\n\n{_OWN_COPY}"
        _write_readme(fresh, title or "Structured defects", settings, body)

    with writing(folder):
        replace_folder(real_path(folder), write)
    return folder


def export_report(folder: Path, report: Path, *, title: str = "") -> Path:
    """Write the static Space of a report, one HTML file, into a new folder; returns the folder.

    Raises SdgError where the report is no HTML file, the folder holds anything already or cannot be written.
    """
    if report.suffix.lower() not in (".html", ".htm") or not report.is_file():
        raise SdgError(f"{report} is no HTML file; give a report, as sdg report writes them.")
    _require_new(folder)

    def write(fresh: Path) -> None:
        shutil.copyfile(report, fresh / "index.html")
        settings = "sdk: static\napp_file: index.html"
        _write_readme(fresh, title or report.stem, settings, f"A report of sdg {__version__}.")

    with writing(folder):
        replace_folder(real_path(folder), write)
    return folder


def requirements(extras: set[str]) -> list[str]:
    """What this package needs with these extras, and the Gradio that is here, as lines for pip.

    Raises SdgError where the package is not installed, so that nothing is known of it.
    """
    from packaging.requirements import Requirement  # which Gradio brings

    try:
        named = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise SdgError(f"{_PACKAGE} is not installed here; install it with pip, then export again.") from None
    lines = {f"gradio=={metadata.version('gradio')}"}  # as `sdk_version` has it
    for one in map(Requirement, named):
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
            one.marker = None
            lines |= {str(one)} if one.name != "gradio" else set()
    return sorted(lines)


def _scheme(uri: str) -> str:
    if _checkpoint(uri) is not None:
        return "hf"
    return re.split(r"[:?]", uri, maxsplit=1)[0]


def _checkpoint(uri: str) -> tuple[str, str] | None:
    """Folder and options, "?NAME=VALUE" or "", of a detector that lies on this machine; else None."""
    whole = uri.removeprefix("hf:")
    folder, mark, options = whole.partition("?")
    if folder.partition(":")[0] in ALIASES:
        return None
    if whole and is_folder(whole):
        return whole, ""
    return (folder, mark + options) if folder and is_folder(folder) else None


def _paths(uri: str) -> list[str]:
    """What may be a path in a URI: its place, and options that name files."""
    if (found := _checkpoint(uri)) is not None and not found[1]:
        return [found[0]]
    address, options = split_options(uri)
    scheme, colon, place = address.partition(":")
    first = place if colon else "" if scheme in ALIASES else address
    return [first, *(value for name, value in options.items() if name in _FILES)]


def _is_here(uri: str) -> bool:
    """Whether a URI names a server that only this machine reaches."""
    try:
        host = urlsplit(uri.partition(":")[2]).hostname or ""
    except ValueError:  # of an open bracket
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _copy_package(target: Path, *, weights: bool) -> None:
    left_out = ("__pycache__",) if weights else ("__pycache__", _WEIGHTS)
    shutil.copytree(Path(__file__).parents[1], target, ignore=shutil.ignore_patterns(*left_out))


def _write_readme(folder: Path, title: str, settings: str, body: str) -> None:
    name = json.dumps(" ".join(title.split())[:_LONGEST], ensure_ascii=False)
    write_text(folder / "README.md", _README.format(title=name, settings=settings, body=body))


def _require_new(folder: Path) -> None:
    here = real_path(folder) == Path.cwd()  # another takes its place, and whoever stands in it is nowhere
    if here or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise SdgError(f"{folder} is there already; name a new folder.")
