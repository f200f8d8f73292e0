"""Settings of every test: one thread a process, for the suite itself runs on all cores; shared helpers."""

import asyncio
import fcntl
import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("sdg", deadline=None)  # a loaded machine is no fault
settings.load_profile("sdg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is first imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
HELPERS = str(Path(__file__).parent / "helpers")  # imported by name, also by processes that tests start
sys.path.insert(0, HELPERS)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HELPERS, os.environ.get("PYTHONPATH")]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first: none is begun when the other workers have run out of files."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What the imports have made stays: garbage collection, which tests cause often, need not look at it."""
    gc.collect()
    gc.freeze()


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` has filled for all workers of this run: the first to need it does."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / f"shared-{name}", base / f"shared-{name}.done"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="module", autouse=True)
def _own_accelerator() -> Iterator[None]:
    """Each file of tests begins as a process does: Accelerate keeps one precision a process for good."""
    yield
    if (accelerate := sys.modules.get("accelerate.state")) is not None:
        accelerate.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients of servers would pause: noted, and not waited for."""
    asked_for: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float, *rest: object) -> None:
        asked_for.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    return asked_for


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Headless Chromium: the system's, or the one Playwright installed; skips where there is neither.

    For one file at a time: while Playwright is up, an event loop runs here, and no other may.
    """
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


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy-size checkpoints: clip, and one a family (flux as FLUX.1-dev, sd3 as SD3.5-medium)."""
    import toy
    import toy_families

    def make(folder: Path) -> None:
        toy.flux_pipeline().save_pretrained(folder / "flux")
        toy.sd3_pipeline().save_pretrained(folder / "sd3")
        toy_families.save(folder)
        toy.save_clip(folder / "clip")
        (folder / "train.txt").write_text("\n".join(toy.PROMPTS[:8]))
        (folder / "held-out.txt").write_text("\n".join(toy.PROMPTS[8:]))

    return made_once(tmp_path_factory, "checkpoints", make)


@pytest.fixture
def short_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every family's toy takes a few text tokens."""
    import toy_families

    toy_families.shorten_text(monkeypatch)


@pytest.fixture(scope="session")
def second_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the core's dependencies and no torch."""
    import second_environment

    return made_once(tmp_path_factory, "second", second_environment.make) / "bin" / "python"


@pytest.fixture(scope="session")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that babbles: no end token, no blocks."""
    import toy_qwen3vl

    return made_once(tmp_path_factory, "untaught", lambda folder: toy_qwen3vl.build(folder, steps=0))


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows its six pictures; takes some seconds, so only slow tests use it."""
    import toy_qwen3vl

    return made_once(tmp_path_factory, "taught", toy_qwen3vl.build)
