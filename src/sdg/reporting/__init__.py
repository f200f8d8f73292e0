"""Reports: one HTML file that needs no network, with pictures, scores, refinements and alignment runs.

>>> from sdg.reporting import Entry, Gallery, Report, write_report
>>> from sdg import Diagnosis
>>> write_report(Report("Look", (Gallery((Entry("a.png", "a cat", Diagnosis()),)),)), "look.html")
PosixPath('look.html')
"""

from sdg.reporting.alignment import AlignmentRun, read_run
from sdg.reporting.gallery import Entry, Gallery, entries_of
from sdg.reporting.page import Report, write_report
from sdg.reporting.refinement import Refinement, Refinements, read_refinements
from sdg.reporting.scores import Scores, read_scores
from sdg.reporting.side_by_side import SideBySide, Twice
from sdg.reporting.summary import Part, Summary, Tables, read_bench

__all__ = [
    "AlignmentRun",
    "Entry",
    "Gallery",
    "Part",
    "Refinement",
    "Refinements",
    "Report",
    "Scores",
    "SideBySide",
    "Summary",
    "Tables",
    "Twice",
    "entries_of",
    "read_bench",
    "read_refinements",
    "read_run",
    "read_scores",
    "write_report",
]
