"""The oracle: what is wrong with a picture of the testbed's kind, by classical vision alone.

    >>> from sdg.testbed.oracle import diagnose
    >>> diagnose(picture, "A red ring to the left of a green cross").defects

It shares no code with defect injection and no weights with the learned models; it annotates and judges,
and is never an alignment reward. What it cannot see is listed in docs/oracle.md.
"""

from sdg.testbed.oracle.diagnosis import diagnose
from sdg.testbed.oracle.parallel import diagnose_all
from sdg.testbed.oracle.traces import vocabulary

__all__ = ["diagnose", "diagnose_all", "vocabulary"]
