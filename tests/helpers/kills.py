"""Commands that are killed at random moments and started again, to end as one that nothing disturbed.

Every run of the tests kills once; SDG_KILLS says how often instead (`make kill-test`).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import processes

KILLS = int(os.environ.get("SDG_KILLS", "1"))
LONGEST = 600.0
"""Seconds that a run may take."""


def kill_and_resume(
    name: str,
    command: Callable[[Path], Sequence[Any]],
    folder: Path,
    assert_same: Callable[[Path, Path], None],
    *,
    again: Sequence[str] = ("--resume",),
    suffix: str = "",
    ended: Callable[[Path], bool] = lambda out: False,
) -> int:
    """Run `sdg COMMAND` undisturbed, then kill runs of it by SIGKILL, KILLS times, and let the last one end.

    command: the arguments for an output, which is named in `folder`. again: what a started again one gets
    besides. The moments are drawn from equal parts of the time that the undisturbed run took. A run that ends
    before its kill is compared, and another one begins. ended: whether a killed run had come to its end,
    for commands that have nothing to go on with. assert_same gets a finished output and the undisturbed one.
    Returns the number of outputs that were killed or not, and ended.
    """

    def start(out: Path, *more: str) -> processes.ForkProcess:
        return processes.start(*command(out), *more, stderr=out.with_name(f"{out.name}.stderr"))

    def finish(process: processes.ForkProcess, out: Path, seconds: float) -> bool:
        """Whether it ended, well, within these seconds."""
        process.join(seconds)
        if process.exitcode is None:
            return False
        assert process.exitcode == 0, out.with_name(f"{out.name}.stderr").read_text()
        return True

    whole, began = folder / f"whole{suffix}", time.monotonic()
    assert finish(start(whole), whole, LONGEST)
    took = time.monotonic() - began
    rng = random.Random(name)
    moments = [took * (part + rng.random()) / KILLS for part in range(KILLS)]
    rng.shuffle(moments)
    runs = 0
    out = folder / f"killed-{runs}{suffix}"

    def next_run() -> None:
        nonlocal runs, out
        assert_same(out, whole)
        runs += 1
        out = folder / f"killed-{runs}{suffix}"

    for moment in moments:
        process = start(out, *again)
        while finish(process, out, moment):
            next_run()
            moment *= 0.9  # a whole run took less than it did at first
            process = start(out, *again)
        process.kill()
        process.join()
        if ended(out):
            next_run()
    assert finish(start(out, *again), out, LONGEST)
    next_run()
    print(f"{name}: {KILLS} kills, {runs} runs ended as the undisturbed one ({took:.1f} s)")
    return runs
