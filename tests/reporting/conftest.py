"""A report of everything a report can show, and a headless Chromium to open it in."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # of `everything`

from everything import sections

from sdg.reporting import Report, write_report


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of everything, written once."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(Report("Shapes", sections(folder), "A page of everything."), folder / "report.html")


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Headless Chromium: the system's, or the one Playwright installed; skips where there is neither."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    system = next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as driver:
        own = Path(driver.chromium.executable_path)
        if system is None and not own.exists():
            pytest.skip("no Chromium: apt install chromium, or python -m playwright install chromium")
        started = driver.chromium.launch(executable_path=system, args=["--no-sandbox"])
        yield started
        started.close()
