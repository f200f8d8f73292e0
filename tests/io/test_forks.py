"""Tasks shared by processes: each done once, and what is left when a process dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdg.io import forks
from sdg.io.forks import MOST_TASKS, Baton, Crew, can_fork


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("tasks", [0, 1, 7, MOST_TASKS])
def test_each_task_is_given_once_and_in_order(processes: int, tasks: int) -> None:
    found = Crew(list, tasks, processes).results()
    assert len(found) == processes
    assert all(part is not None and part == sorted(part) for part in found)
    assert sorted(task for part in found if part is not None for task in part) == list(range(tasks))


def test_with_no_more_processes_to_have_fewer_do_all(monkeypatch: pytest.MonkeyPatch) -> None:
    fork, before = os.fork, set(Path("/proc/self/fd").iterdir())
    made: list[int] = []

    def scarce() -> int:
        if made:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        made.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", scarce)
    found = Crew(list, 5, 4).results()
    assert len(found) == 2
    assert sorted(task for part in found for task in part or []) == list(range(5))
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_there_are_only_so_many_tasks() -> None:
    with pytest.raises(ValueError, match="1024 tasks at most, not 1025"):
        Crew(list, MOST_TASKS + 1, 2)


def test_a_process_that_comes_to_grief_has_no_result() -> None:
    own = os.getpid()

    def work(tasks: Iterator[int]) -> str:
        if os.getpid() == own:
            return f"{len(list(tasks))} left"
        if next(tasks) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError

    crew = Crew(work, 2, 3)
    time.sleep(0.3)  # so that each has taken a task
    found = crew.results()
    assert found[1:] == [None, None]


def test_what_this_process_raises_is_raised_when_the_others_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    own, fork = os.getpid(), os.fork
    made: list[int] = []

    def noted() -> int:
        made.append(fork())
        return made[-1]

    monkeypatch.setattr(os, "fork", noted)

    def work(tasks: Iterator[int]) -> None:
        if os.getpid() == own:
            raise ValueError("mine")

    crew = Crew(work, 3, 3)
    with pytest.raises(ValueError, match="mine"):
        crew.results()
    assert len(made) == 2
    for process in made:  # nobody is left to wait for; the test runner may have children of its own
        with pytest.raises(ChildProcessError):
            os.waitpid(process, os.WNOHANG)


def test_one_process_at_a_time_holds_the_baton_and_a_dead_one_lets_go() -> None:
    baton, own = Baton(bytes(4)), os.getpid()

    def work(_: Iterator[int]) -> int:
        for _ in range(200):
            with baton.held() as content:
                count = int.from_bytes(content[:], "little") + 1
                content[:] = count.to_bytes(4, "little")
                if count == 150 and os.getpid() != own:
                    os.kill(os.getpid(), signal.SIGKILL)
        return count

    found = Crew(work, 0, 3).results()
    with baton.held() as content:
        counted = int.from_bytes(content[:], "little")
    baton.close()
    assert counted == 600 if None not in found else 400 < counted < 600


def test_processes_are_made_where_there_are_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks.threading, "active_count", lambda: 1)
    assert can_fork() == hasattr(os, "memfd_create")
    monkeypatch.setattr(forks.threading, "active_count", lambda: 2)
    assert not can_fork()
