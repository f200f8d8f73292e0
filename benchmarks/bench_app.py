"""`sdg app` with the embedded detector in headless Chromium: cold start, and the first diagnosis after it.

Run: python benchmarks/bench_app.py [RUNS]
Prints wall and processor seconds, and the load: on a machine with other work, processor seconds say what
an idle one would take. Ready: the first detector is loaded and has answered once, before anyone asks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 300_000  # ms
STILL = 2.0  # seconds without work, after which it counts as ready


def processor_seconds(pid: int) -> float:
    """Of a process and all of its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def ready(pid: int) -> float:
    """Waits until a process works no more, beside what any server does; the time at which it stopped."""
    since, used = time.monotonic(), processor_seconds(pid)
    while time.monotonic() - since < STILL:
        time.sleep(0.5)
        before, used = used, processor_seconds(pid)
        if used - before > 0.05:
            since = time.monotonic()
    return since


def first_diagnosis(page: Any, address: str) -> float:
    """Seconds from the press of the button to the picture with its boxes."""
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator("#examples tbody td").first.click()
    page.locator("#picture img").first.wait_for()
    began = time.monotonic()
    page.get_by_role("button", name="Diagnose", exact=True).click()
    page.locator("#diagnosis .card").wait_for()
    return time.monotonic() - began


def main(runs: int) -> None:
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    system = next(filter(None, map(shutil.which, names)), None)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as out:
        browser = driver.chromium.launch(executable_path=system, args=["--no-sandbox"])
        print("seconds, wall (processor)   address          ready    first diagnosis   load")
        for _ in range(runs):
            began = time.monotonic()
            app = subprocess.Popen(
                [sys.executable, "-m", "sdg", "app", "--out", out],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert app.stdout is not None
            address = app.stdout.readline().strip()
            times = [(time.monotonic() - began, processor_seconds(app.pid))]
            times.append((ready(app.pid) - began, processor_seconds(app.pid)))
            context = browser.new_context()
            took = first_diagnosis(context.new_page(), address)
            times.append((took, processor_seconds(app.pid) - times[-1][1]))
            context.close()
            app.terminate()
            app.wait()
            cells = "   ".join(f"{wall:6.1f} ({used:4.1f})" for wall, used in times)
            print(f"{'':24}{cells}   {os.getloadavg()[0]:8.1f}", flush=True)
        browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
