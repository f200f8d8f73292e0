"""A report of everything a report can show."""

from __future__ import annotations

from pathlib import Path

import pytest
from everything import sections

from sdg.reporting import Report, write_report


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of everything, written once."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(Report("Shapes", sections(folder), "A page of everything."), folder / "report.html")
