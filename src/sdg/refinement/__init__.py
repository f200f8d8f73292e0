"""Refinement: what a detector found tells an editor what to repair (SDG §5.2.2)."""

from __future__ import annotations

from sdg.refinement.diffusers_editor import DiffusersEditor
from sdg.refinement.editors import load_editor
from sdg.refinement.loop import Attempt, Outcome, Refinement, refine, severity
from sdg.refinement.request import Editor, EditRequest, EditResult, EditSettings, Mode, build_request

__all__ = [
    "Attempt",
    "DiffusersEditor",
    "EditRequest",
    "EditResult",
    "EditSettings",
    "Editor",
    "Mode",
    "Outcome",
    "Refinement",
    "build_request",
    "load_editor",
    "refine",
    "severity",
]
