"""A detector in memory, run by several processes: one a part of the cores, or one a GPU.

Each process loads the detector and takes every so-manieth batch, so that batches, and with them answers, are
those of a single process.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from sdg.detectors.base import Stream, StreamingDetector
from sdg.errors import SdgError, described
from sdg.images import Pair

_READY: Final = "ready"
_DONE: Final = "done"
_FAULT: Final = "fault"
_ENDING: Final = 2.0  # seconds that a process is given to end by itself


class JobsDetector(StreamingDetector):
    """The detector of a URI in `jobs` processes; results come as any of them has one.

    device "auto", or none, gives each process a GPU of its own where there are several and the detector
    takes a device. On a CPU the cores are shared out. Raises SdgError as `load_detector` does, where the URI
    is a server's, and, while it streams, where a process dies: what it answered before is kept.
    """

    def __init__(self, uri: str, jobs: int, **options: object) -> None:
        if jobs < 1:
            raise ValueError(f"There is at least one job, not {jobs}.")
        context = multiprocessing.get_context("spawn")  # a forked torch may hang
        self._workers: list[tuple[Any, Connection]] = []
        try:
            for number in range(jobs):
                ours, theirs = context.Pipe()
                arguments = (theirs, uri, options, number, jobs)
                process = context.Process(target=_work, args=arguments, name=f"sdg-job-{number}", daemon=True)
                process.start()
                theirs.close()
                self._workers.append((process, ours))
            told = [self._receive(process, ours) for process, ours in self._workers]
            identity, self.stored = told[0][1]
            self._identity: dict[str, str | int | float] = identity
            atexit.register(self.close)
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return self._identity

    def stream(self, pairs: Sequence[Pair], wanted: Collection[int] | None = None) -> Stream:
        busy: dict[Any, Any] = {ours: process for process, ours in self._workers}
        task = list(pairs), None if wanted is None else frozenset(wanted)
        for process, connection in self._workers:
            self._send(process, connection, task)
        try:
            while busy:
                ready: list[Any] = wait(list(busy))  # of those given, of another class on Windows
                for ours in ready:
                    kind, value = self._receive(busy[ours], ours)
                    if kind == _DONE:
                        del busy[ours]
                    else:
                        yield kind, value
        finally:
            if busy:  # broken off: what they still say would be taken for the next answers
                self.close()

    def close(self) -> None:
        """End the processes."""
        for _, ours in self._workers:
            ours.close()  # one that waits for a task ends by itself then, and leaves nothing behind
        for process, _ in self._workers:
            process.join(_ENDING)
            process.terminate()
            process.join()
        self._workers = []

    def _send(self, process: Any, ours: Connection, value: object) -> None:
        try:
            ours.send(value)
        except OSError:
            raise _died(process) from None

    def _receive(self, process: Any, ours: Connection) -> tuple[Any, Any]:
        try:
            kind, value = ours.recv()
        except (EOFError, OSError):
            raise _died(process) from None
        if kind == _FAULT:
            raise SdgError(value)
        return kind, value


def _died(process: Any) -> SdgError:
    process.join(5)
    return SdgError(
        f"A process of --jobs ended (exit code {process.exitcode}), for want of memory perhaps; what is "
        "answered is kept: go on with --resume and fewer --jobs."
    )


def _work(theirs: Connection, uri: str, options: dict[str, object], number: int, jobs: int) -> None:
    """Load the detector, then answer one task after another; ends with the process that began it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if not os.environ.get("OMP_NUM_THREADS"):  # which torch reads when it is imported
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    from sdg.detectors import load_detector

    try:
        detector = load_detector(uri, **_placed(uri, options, number))
        if detector.connected() is not None:
            raise SdgError("A server is asked from one process; raise --concurrency instead of --jobs.")
        theirs.send((_READY, (dict(detector.identity), detector.stored)))
        while True:
            pairs, wanted = theirs.recv()
            own = _share(detector, pairs, wanted, number, jobs)
            for index, diagnosis in detector.stream(pairs, own) if own else ():
                theirs.send((index, diagnosis))
            theirs.send((_DONE, None))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except SdgError as error:
        fault = str(error)
    except Exception as error:  # it would end in a traceback between the parent's lines
        fault = f"The detector failed ({described(error)})."
    with suppress(OSError):  # of a parent that has heard the same from another process
        theirs.send((_FAULT, fault))


def _share(
    detector: StreamingDetector, pairs: Sequence[Pair], wanted: Collection[int] | None, number: int, jobs: int
) -> frozenset[int]:
    """The places that are this process's: whole batches."""
    own = frozenset(place for part in detector.batches(pairs)[number::jobs] for place in part)
    return own if wanted is None else own & frozenset(wanted)


def _placed(uri: str, options: dict[str, object], number: int) -> dict[str, object]:
    """The options, with a GPU of this process's own where there are several and one is to be chosen."""
    from sdg.detectors import needs_device

    if options.get("device") not in (None, "auto") or not needs_device(uri):
        return options
    try:
        import torch
    except ImportError:
        return options
    count = torch.cuda.device_count()
    return {**options, "device": f"cuda:{number % count}"} if count > 1 else options


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
