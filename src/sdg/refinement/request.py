"""What an editor is told: the prompt, the boxes drawn, the defects in words, a mask (SDG §5.2.2).

And what every editor has in common: an edited picture comes back, or the sentence why there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sdg.defects import UNKNOWN_IMPORTANCE, Defect, DefectType, Diagnosis
from sdg.errors import SdgError
from sdg.geometry import touched_pixels
from sdg.refinement.masks import Mask, as_picture, box_mask, heat_mask, strength_map

SMALLEST_SIDE: Final = 16
_BOX_COLOUR: Final = "#FF0000"


class Mode(StrEnum):
    """How much the editor is told."""

    SDG = "sdg"  # where, what, why and importance; the boxes are the mask
    FIXED = "fixed"  # the prompt alone; the whole picture is the mask
    HEATMAP = "heatmap"  # the detector's text and its two heat maps, joined they are the mask


@dataclass(frozen=True, slots=True)
class EditSettings:
    """How edits are asked for, by what is wrong.

    artifact, misalignment: strength at importance 1 and 100, in between linearly; 0 to 1, the share of the
    noise schedule that an editor of pictures goes through. An artifact is a right thing drawn badly, and a
    little noise lets it be drawn again; what contradicts the prompt has to go, and little of it may be left
    to go by. artifact_reach, misalignment_reach: how far around a box the strength falls to nothing, as a
    share of the picture's shorter side, for editors that grade it: what is repaired has to fit what is around
    it, and what is missing or in the wrong place needs room. feather: width of a mask's soft edge, likewise.
    """

    artifact: tuple[float, float] = (0.3, 0.6)
    misalignment: tuple[float, float] = (0.8, 1.0)
    artifact_reach: float = 0.4
    misalignment_reach: float = 1.0
    feather: float = 0.03

    def __post_init__(self) -> None:
        if not all(0 < low <= high <= 1 for low, high in (self.artifact, self.misalignment)):
            raise ValueError("Strengths need 0 < weakest <= strongest <= 1.")
        if not 0 <= self.feather <= 0.5:
            raise ValueError("A feather is a share of the shorter side from 0 to 0.5.")
        if not (0 <= self.artifact_reach <= 1 and 0 <= self.misalignment_reach <= 1):
            raise ValueError("A reach is a share of the shorter side from 0 to 1.")

    def escalated(self, times: int) -> EditSettings:
        """After `times` rounds without gain: each halves what strengths lack to 1 and doubles reaches.

        Little noise in a small place comes first, as it changes least; what that cannot repair is drawn anew.
        """
        return replace(
            self,
            artifact=tuple(1 - (1 - strength) / 2**times for strength in self.artifact),
            misalignment=tuple(1 - (1 - strength) / 2**times for strength in self.misalignment),
            artifact_reach=min(1.0, self.artifact_reach * 2**times),
            misalignment_reach=min(1.0, self.misalignment_reach * 2**times),
        )

    def strength(self, defect: Defect) -> float:
        """Strength that a defect calls for."""
        artifact = defect.type is DefectType.ARTIFACT
        weakest, strongest = self.artifact if artifact else self.misalignment
        return weakest + (strongest - weakest) * (importance_of(defect) - 1) / 99

    def largest(self, defects: Sequence[Defect]) -> float:
        """The largest strength that a defect calls for; an artifact's weakest where there is none."""
        return max(map(self.strength, defects), default=self.artifact[0])

    def strengths(self, defects: Sequence[Defect], size: tuple[int, int]) -> Mask:
        """(H, W), the strength that each pixel of a picture of `size`, (width, height), calls for."""
        reach = {
            DefectType.ARTIFACT: round(self.artifact_reach * min(size)),
            DefectType.MISALIGNMENT: round(self.misalignment_reach * min(size)),
        }
        return strength_map(
            defects, size, [*map(self.strength, defects)], [reach[defect.type] for defect in defects]
        )


SHOWN: Final = ("picture.png", "marked.png", "artifact-heat.png", "misalignment-heat.png")
"""Files of the pictures that an editor may be shown, which of them depends on the mode."""


@dataclass(frozen=True, slots=True)
class EditRequest:
    """One picture to edit, and everything an editor may use.

    picture, marked: the same size, the second with a red frame around every defect, unlabelled.
    instruction: what is wrong and what to do, most important first; summary: the same without what the
    detector thought, for editors that read less. mask: (H, W), see `sdg.refinement.masks`.
    strengths: (H, W), how strongly each pixel is to be edited, for editors that grade it; `strength` is the
    largest of them. heat: in mode `heatmap` the maps of artifacts and of misalignments, grey, of the
    picture's size.
    """

    picture: Image.Image
    marked: Image.Image
    prompt: str
    instruction: str
    mask: Mask
    strength: float
    strengths: Mask
    seed: int = 0
    heat: tuple[Image.Image, ...] = ()
    summary: str = ""

    @property
    def shown(self) -> list[tuple[str, Image.Image]]:
        """The input images of an editor, as files: the one to edit, then what its mode puts beside it."""
        shown = [(SHOWN[0], self.picture)]
        if self.marked.tobytes() != self.picture.tobytes():
            shown.append((SHOWN[1], self.marked))
        return shown + list(zip(SHOWN[2:], self.heat, strict=False))


@dataclass(frozen=True, slots=True)
class EditResult:
    """What came of one request: the picture, or None and why, in one sentence.

    mask: where the picture holds, where that is not the request's mask; see `sdg.refinement.masks`.
    """

    picture: Image.Image | None
    error: str = ""
    mask: Mask | None = None


class Editor(Protocol):
    """Anything that edits pictures; what it returns outside of the mask is thrown away."""

    @property
    def concurrency(self) -> int:
        """How many threads may call `edit` at once: 1 for what runs here, more for a server."""
        ...

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One result for each request, in their order; a request that fails never raises."""
        ...


def build_request(
    picture: Image.Image,
    prompt: str,
    diagnosis: Diagnosis,
    *,
    mode: Mode | str = Mode.SDG,
    settings: EditSettings | None = None,
    heat: Sequence[NDArray[np.floating]] | None = None,
    seed: int = 0,
) -> EditRequest:
    """The request for one picture whose defects are known.

    `fixed` gets the same strength as `sdg`, so that what the two are told is their only difference. `heat`:
    the map of artifacts and that of misalignments, (h, w) of any size, 0 to 1; for mode `heatmap` alone.
    Raises SdgError for a picture without a prompt or smaller than 16 pixels; ValueError where a heat map
    is missing.
    """
    mode, settings = Mode(mode), settings or EditSettings()
    if not prompt.strip():
        raise SdgError("The picture has no prompt, so an editor would not know what it is to show; give one.")
    if min(picture.size) < SMALLEST_SIDE:
        raise SdgError(
            f"The picture has {picture.width} × {picture.height} pixels; "
            f"give one with at least {SMALLEST_SIDE} on each side."
        )
    picture = picture.convert("RGB")
    defects = by_importance(diagnosis.defects)
    shown: tuple[Image.Image, ...] = ()
    strength = settings.largest(defects)
    if mode is Mode.FIXED:
        mask: Mask = np.ones((picture.height, picture.width))
        strengths = strength * mask
        marked, text = picture.copy(), fixed_instruction(prompt)
        summary = text
    elif mode is Mode.SDG:
        mask = box_mask(defects, picture.size, round(settings.feather * min(picture.size)))
        strengths = settings.strengths(defects, picture.size)
        marked, text = draw_frames(picture, defects), instruction(prompt, defects, diagnosis.reasoning)
        summary = instruction(prompt, defects)
    else:
        if heat is None or len(heat) != 2:
            raise ValueError("Mode 'heatmap' needs the picture's heat maps of artifacts and misalignments.")
        maps = [heat_mask(one, picture.size) for one in heat]
        mask, shown = np.maximum(*maps), tuple(as_picture(one) for one in maps)
        # Relative to the brightest spot, which has the full strength as a box has in `sdg`.
        strengths = strength * mask / max(float(mask.max()), 1e-6)
        marked, text = picture.copy(), _heat_instruction(prompt, defects, diagnosis.reasoning)
        summary = _heat_instruction(prompt, defects, "")
    return EditRequest(picture, marked, prompt, text, mask, strength, strengths, seed, shown, summary)


def importance_of(defect: Defect) -> int:
    """Importance, 1 to 100; 50 where the detector gives none."""
    return UNKNOWN_IMPORTANCE if defect.importance is None else defect.importance


def by_importance(defects: Sequence[Defect]) -> tuple[Defect, ...]:
    """Most important first; equals in their order."""
    return tuple(sorted(defects, key=importance_of, reverse=True))


def fixed_instruction(prompt: str) -> str:
    """What every editor is told that knows the prompt alone."""
    return (
        f"This picture was generated for the prompt: {prompt}\n"
        "Correct what looks wrong in it and what contradicts the prompt. Change nothing else."
    )


def instruction(prompt: str, defects: Sequence[Defect], reasoning: str = "") -> str:
    """The prompt, then each defect with what, where, importance and why, in the order given."""
    lines = [f"This picture was generated for the prompt: {prompt}"]
    if reasoning.strip():
        lines += ["", "What an inspection of it noted:", reasoning.strip()]
    if not defects:
        return "\n".join([*lines, "", "No defect was found. Keep the picture as it is."])
    lines += ["", "Correct these defects, framed in red in the marked copy, the most important first:"]
    # Without numbers: the reasoning above may count its boxes in another order.
    lines += [f"- {_line(defect)}" for defect in defects]
    lines += ["", "Keep everything outside of the frames as it is. The result has no frames."]
    return "\n".join(lines)


def draw_frames(picture: Image.Image, defects: Sequence[Defect]) -> Image.Image:
    """A copy of the picture, at its own size, with a red frame along the pixels each box touches."""
    marked = picture.convert("RGB").copy()
    draw = ImageDraw.Draw(marked)
    line = max(1, round(min(marked.size) / 200))
    for x0, y0, x1, y1 in touched_pixels([defect.box for defect in defects], marked.size).tolist():
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=_BOX_COLOUR, width=line)
    return marked


def _line(defect: Defect) -> str:
    x0, y0, x1, y1 = (f"{value / 10:.0f} %" for value in defect.box)
    weight = "" if defect.tier is None else f", importance {defect.importance} of 100 ({defect.tier.value})"
    why = defect.reason.strip() or "no reason given"
    return f"{defect.type.value}{weight}, from {x0} to {x1} across and {y0} to {y1} down: {why}"


def _heat_instruction(prompt: str, defects: Sequence[Defect], reasoning: str) -> str:
    noted = [text for text in (reasoning.strip(), *(defect.reason.strip() for defect in defects)) if text]
    lines = [fixed_instruction(prompt), ""]
    if noted:
        lines += ["What an inspection of it noted:", *noted, ""]
    lines.append(
        "Beside the picture are two heat maps of it: the first shows artifacts, the second what contradicts "
        "the prompt, the brighter the worse. Work where they are bright."
    )
    return "\n".join(lines)
