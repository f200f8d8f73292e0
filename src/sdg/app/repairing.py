"""Chosen defects repaired, and the proof that nothing else changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdg.app.looking import Looked
from sdg.defects import Defect, Diagnosis
from sdg.detectors.base import Detector
from sdg.errors import SdgError
from sdg.geometry import iou
from sdg.images import Pair, load_image
from sdg.refinement.loop import Refinement, refine
from sdg.refinement.masks import Mask
from sdg.refinement.request import Editor, EditRequest, EditResult, EditSettings

_SAME = 0.1  # IoU from which two boxes are one defect: the lenient one of SDG-Eval


@dataclass(frozen=True, slots=True)
class Repair:
    """What came of a repair.

    before, after: the pictures at the same size. found: all that the detector finds in the repaired one.
    outside: pixels that no edit's mask reached; changed_outside: how many of them differ: none, unless there
    is a fault.
    """

    before: Image.Image
    after: Image.Image
    found: Diagnosis
    refinement: Refinement
    outside: int
    changed_outside: int


def repair(
    looked: Looked,
    chosen: Sequence[int],
    *,
    detector: Detector,
    editor: Editor,
    strength: float = 1.0,
    rounds: int = 1,
    strict: bool = True,
    seed: int = 0,
) -> Repair:
    """Repair the defects of these numbers, from 0; strength: a multiple of what importances call for.

    Only what the chosen boxes touch is edited and judged: other defects stay, whatever later rounds find.
    strict: of an edit the boxes and their soft edges alone are taken, also where the editor changed more, so
    that a repair fits in.
    Raises SdgError where nothing is chosen, the picture cannot be read or the diagnosis is of no use.
    """
    defects = looked.diagnosis.defects
    wanted = [defects[number] for number in sorted(set(chosen)) if 0 <= number < len(defects)]
    if not wanted:
        raise SdgError("Choose at least one defect to repair.")
    others = [defect for defect in defects if defect not in wanted]
    picture = load_image(looked.picture)
    watched = _Watched(editor, strict)
    result = refine(
        picture,
        looked.prompt,
        detector=_Narrowed(detector, wanted, others),
        editor=watched,
        rounds=rounds,
        settings=_scaled(strength),
        before=Diagnosis(tuple(wanted)),
        seed=seed,
    )
    (found,) = detector.diagnose([(result.picture, looked.prompt)])
    untouched = np.ones((picture.height, picture.width), bool)
    for mask in watched.masks:
        untouched &= mask == 0
    differs = (np.asarray(picture) != np.asarray(result.picture)).any(axis=-1)
    return Repair(
        picture, result.picture, found, result, int(untouched.sum()), int((differs & untouched).sum())
    )


def _scaled(strength: float) -> EditSettings:
    usual = EditSettings()

    def scaled(ends: tuple[float, float]) -> tuple[float, float]:
        low, high = (min(1.0, max(0.01, strength * end)) for end in ends)
        return low, high

    return replace(usual, artifact=scaled(usual.artifact), misalignment=scaled(usual.misalignment))


@dataclass
class _Watched:
    """An editor, and the masks through which its edits were laid into the picture."""

    editor: Editor
    strict: bool
    masks: list[Mask] = field(default_factory=list)

    @property
    def concurrency(self) -> int:
        return self.editor.concurrency

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        results = self.editor.edit(requests)
        if self.strict:  # the request's own mask holds, which is that of the boxes
            results = [replace(result, mask=None) for result in results]
        for request, result in zip(requests, results, strict=True):
            self.masks.append(request.mask if result.mask is None else result.mask)
        return results


@dataclass(frozen=True)
class _Narrowed:
    """A detector that sees only what touches the chosen boxes and is not rather one of the other defects."""

    detector: Detector
    wanted: Sequence[Defect]
    others: Sequence[Defect]

    def diagnose(self, pairs: Sequence[Pair]) -> list[Diagnosis]:
        return [self._narrowed(found) for found in self.detector.diagnose(pairs)]

    def _narrowed(self, found: Diagnosis) -> Diagnosis:
        if not found.defects:
            return found
        boxes = [defect.box for defect in found.defects]
        near = (iou(boxes, [defect.box for defect in self.wanted]) > 0).any(axis=1)
        theirs, ours = _best(found.defects, self.others), _best(found.defects, self.wanted)
        other = (theirs >= _SAME) & (theirs > ours)  # where both are near, it is the nearer one
        kept = tuple(d for d, keep in zip(found.defects, near & ~other, strict=True) if keep)
        return Diagnosis(kept, status=found.status, repairs=found.repairs)


def _best(found: Sequence[Defect], known: Sequence[Defect]) -> NDArray[np.float64]:
    """Of each defect (N,) the largest IoU with one of its type among the known; 0 where there is none."""
    same = np.array([[a.type == b.type for b in known] for a in found]).reshape(len(found), len(known))
    shared = iou([defect.box for defect in found], [defect.box for defect in known])  # (N, M)
    return np.where(same, shared, 0.0).max(axis=1, initial=0.0)
