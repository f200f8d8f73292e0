"""Settings of every test: one thread a process, for the suite itself runs on all cores; shared helpers."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is first imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))  # of `tiny_qwen3vl`


@pytest.fixture(scope="module", autouse=True)
def _own_accelerator() -> Iterator[None]:
    """Each file of tests begins as a process does: Accelerate keeps one precision a process for good."""
    yield
    if (accelerate := sys.modules.get("accelerate.state")) is not None:
        accelerate.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Headless Chromium: the system's, or the one Playwright installed; skips where there is neither."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    system = next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as driver:
        try:
            started = driver.chromium.launch(executable_path=system, args=["--no-sandbox"])
        except playwright.Error:
            if system is not None:
                raise
            pytest.skip("no Chromium: make browser")
        yield started
        started.close()
