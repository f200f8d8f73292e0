"""The oracle: what is wrong with a picture of the testbed's kind, by classical vision alone.

    >>> from sdg.testbed.oracle import diagnose
    >>> from sdg.testbed.world.renderer import render
    >>> from sdg.testbed.world.scene import Scene, Thing
    >>> picture = render(Scene((Thing("ring", "red", 32, 64, 20),), "white"))
    >>> [defect.subtype for defect in diagnose(picture, "A red ring left of a green cross").defects]
    ['missing object']

It shares no code with defect injection but the world's and the rubric of importance, and no weights with
the learned models; it annotates and judges, and is never an alignment reward. What it cannot see is listed
in docs/background/oracle.md.
"""

from sdg.testbed.oracle.diagnosis import diagnose, diagnose_all
from sdg.testbed.oracle.traces import vocabulary

__all__ = ["diagnose", "diagnose_all", "vocabulary"]
