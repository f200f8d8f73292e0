"""Defect injection: scenes changed and pictures damaged in known ways, with boxes, reasons and traces.

    >>> import numpy as np
    >>> from sdg.testbed.injection import sample
    >>> drawn = sample(np.random.default_rng(7), kind="misalignment")
    >>> drawn.picture.shape, [defect.subtype for defect in drawn.diagnosis.defects]
    ((128, 128, 3), ['wrong count'])

What each subtype means, and which box it has, is written in docs/background/testbed-conventions.md.
"""

from sdg.testbed.injection.artifacts import EFFECTS
from sdg.testbed.injection.effects import CORE_EFFECTS
from sdg.testbed.injection.misalignments import CHANGES
from sdg.testbed.injection.sample import KIND_SHARES, Kind, Sample, SeenObject, sample
from sdg.testbed.injection.thinking import vocabulary

ARTIFACTS = {"core": tuple(CORE_EFFECTS), "rich": tuple(EFFECTS)}
"""Artifact subtypes of each level."""
MISALIGNMENTS = {
    "core": tuple(name for name in CHANGES if name not in ("wrong size", "wrong text")),
    "rich": tuple(CHANGES),
}
"""Misalignment subtypes of each level."""

__all__ = [
    "ARTIFACTS",
    "KIND_SHARES",
    "MISALIGNMENTS",
    "Kind",
    "Sample",
    "SeenObject",
    "sample",
    "vocabulary",
]
