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
from multiprocessing.connection import wait
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
    """Two processes on the CPU that work together, with the variables and the store that torchrun gives them.

    Where one fails, the other is ended, and so does the process that waits for both.
    """

    def launch() -> None:
        from torch.distributed import TCPStore

        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.environ |= {
            "ACCELERATE_USE_CPU": "true",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
        }

        def one(rank: str) -> None:
            os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
            work()

        workers = [ForkProcess(target=one, args=(rank,)) for rank in "01"]
        for worker in workers:
            worker.start()
        running = {worker.sentinel: worker for worker in workers}
        while running:
            for sentinel in wait(list(running)):
                ended = running.pop(sentinel)
                ended.join()
                if ended.exitcode:
                    for other in running.values():
                        other.terminate()
        sys.exit(max(abs(worker.exitcode or 0) for worker in workers))

    return fork(launch, stderr=stderr)
