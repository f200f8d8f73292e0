"""Processes of their own, for tests that read what `sdg` says, need several processes, or kill one.

They are forked: they begin with the modules that the tests have loaded, and so at once.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import thread
from multiprocessing.context import ForkProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from diffusers import FluxPipeline  # noqa: F401  loaded here once, and not by every process anew


def fork(
    work: Callable[[], object], *, stderr: Path, stdout: Path | None = None, folder: Path | None = None
) -> ForkProcess:
    """A process, already running, that works in this folder and begins as a new one does."""

    def begin() -> None:
        thread._threads_queues.clear()  # threads that this process does not have cannot be waited for
        if folder is not None:
            os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
        if (accelerate := sys.modules.get("accelerate.state")) is not None:
            accelerate.AcceleratorState._reset_state(reset_partial_state=True)
        for number, name, file in ((1, "stdout", stdout), (2, "stderr", stderr)):
            os.dup2(os.open(file or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            setattr(sys, name, os.fdopen(number, "w", buffering=1))
        work()

    process = ForkProcess(target=begin)
    process.start()
    return process


def start(
    *arguments: Any, stderr: Path, stdout: Path | None = None, folder: Path | None = None
) -> ForkProcess:
    """`sdg …` in such a process."""
    from sdg.cli import main

    return fork(lambda: main([str(word) for word in arguments]), stderr=stderr, stdout=stdout, folder=folder)


def run(*arguments: Any, folder: Path | None = None) -> CompletedProcess[str]:
    """What `sdg …` says in this folder and how it ends."""
    with tempfile.TemporaryDirectory() as place:
        stdout, stderr = Path(place) / "stdout", Path(place) / "stderr"
        process = start(*arguments, stderr=stderr, stdout=stdout, folder=folder)
        process.join()
        return CompletedProcess(arguments, process.exitcode or 0, stdout.read_text(), stderr.read_text())


def torchrun(work: Callable[[], object], *, stderr: Path) -> ForkProcess:
    """Two processes on the CPU that work together, as torchrun --standalone starts them."""
    from torch.distributed.launcher import LaunchConfig, elastic_launch

    def one() -> None:
        try:
            work()
        except SystemExit as end:  # the launcher waits for workers that return
            if end.code:
                raise

    def launch() -> None:
        os.environ["ACCELERATE_USE_CPU"] = "true"
        config = LaunchConfig(
            1,
            1,
            2,
            run_id="test",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            start_method="fork",
            max_restarts=0,  # as torchrun's
        )
        elastic_launch(config, one)()

    return fork(launch, stderr=stderr)
