"""SDG-Eval: metrics, confidence intervals, slices, comparisons, and the rows the paper published."""

from sdg.evaluation.comparison import Comparison, compare
from sdg.evaluation.join import Joined, join
from sdg.evaluation.metrics import METRICS, PAPER_METRICS, Counts
from sdg.evaluation.published import PUBLISHED, PublishedRow
from sdg.evaluation.result import Case, Evaluation
from sdg.evaluation.sdg_eval import evaluate
from sdg.evaluation.slices import Slice, slices

__all__ = [
    "METRICS",
    "PAPER_METRICS",
    "PUBLISHED",
    "Case",
    "Comparison",
    "Counts",
    "Evaluation",
    "Joined",
    "PublishedRow",
    "Slice",
    "compare",
    "evaluate",
    "join",
    "slices",
]
