"""SDG, Structured Defect Grounding: where, what, why and how much is wrong with a generated image."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sdg._version import __version__
from sdg.defects import Defect, DefectType, Diagnosis, Status, Tier

if TYPE_CHECKING:
    from sdg.detectors import load_detector
    from sdg.evaluation import evaluate
    from sdg.records import Record
    from sdg.response import parse_response, render_response


# Name -> module; loaded on first use, so that `import sdg` stays quick and never loads torch.
_LAZY = {
    "Record": "sdg.records",
    "evaluate": "sdg.evaluation",
    "load_detector": "sdg.detectors",
    "parse_response": "sdg.response",
    "render_response": "sdg.response",
}

__all__ = [
    "Defect",
    "DefectType",
    "Diagnosis",
    "Record",
    "Status",
    "Tier",
    "__version__",
    "evaluate",
    "load_detector",
    "parse_response",
    "render_response",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sdg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
