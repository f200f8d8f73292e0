"""A dry run: what can be checked before a GPU is rented, and what the run will take, on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage
from typing import Any, Final, TypeVar

from sdg.errors import SdgError
from sdg.tables import Table

T = TypeVar("T")
GB: Final = 1e9
CUDA: Final = 1.5e9
"""Bytes that CUDA, its kernels and fragments take beside tensors, about."""
USE: Final = 0.4
"""Share of a GPU's arithmetic that training is taken to use."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by its maker's numbers."""

    memory: float  # GB
    tflops: float  # dense bf16, a second


GPUS: Final[Mapping[str, Gpu]] = {
    "H100": Gpu(80, 989),
    "H200": Gpu(141, 989),
    "A100": Gpu(80, 312),
    "4090": Gpu(24, 165),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked, or could not be; ok None: said for the reader to judge."""

    what: str
    ok: bool | None
    said: str


@dataclass(slots=True)
class Rehearsal:
    """Findings in order, memory of each GPU by part in bytes, and numbers of the run by name."""

    gpu: str
    processes: int
    findings: list[Finding] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def check(self, what: str, test: Callable[[], T], said: Callable[[T], str]) -> T | None:
        """The test's result and a finding on it; None, and a fault, where it raises SdgError."""
        try:
            found = test()
        except SdgError as error:
            self.findings.append(Finding(what, False, str(error)))
            return None
        self.findings.append(Finding(what, True, said(found)))
        return found

    def holds(self, what: str) -> bool:
        """Whether nothing was found wrong with it."""
        return all(one.ok is not False for one in self.findings if one.what == what)

    def say(self, what: str, said: str) -> None:
        """A finding that is neither right nor wrong."""
        self.findings.append(Finding(what, None, said))

    def require(self, what: str, holds: bool, said: str) -> None:
        """A finding that is a fault where it does not hold."""
        self.findings.append(Finding(what, holds, said))

    def require_memory(self) -> None:
        """A fault where the parts do not fit on the GPU."""
        if not self.memory:
            return
        need, has = sum(self.memory.values()) + CUDA, GPUS[self.gpu].memory * GB
        self.require(
            "memory",
            need <= has,
            f"about {need / GB:.1f} GB a GPU, {CUDA / GB:.1f} of them CUDA's; {self.gpu}: {has / GB:.0f} GB",
        )

    def require_disk(self, said: str, most: float, place: Path | None) -> None:
        """A fault where less than so many bytes are free where `place` is or will be."""
        found = next(
            (one for one in (place, *(place.parents if place else ())) if one and one.exists()), None
        )
        if found is None:
            self.say("disk", said)
            return
        free = disk_usage(found).free
        self.require("disk", most <= free, f"{said}; {free / GB:.0f} GB are free at {found}")

    def say_time(self, work: str, flop: float, beside: str) -> None:
        """How long so much arithmetic on each GPU takes; beside: what is not counted."""
        self.numbers["hours"] = hours = flop / (GPUS[self.gpu].tflops * 1e12 * USE) / 3600
        self.say(
            "time",
            f"{work}: about {hours:.1f} hours on {self.processes} × {self.gpu} at {100 * USE:.0f} % of their "
            f"arithmetic; {beside}",
        )

    @property
    def fault(self) -> str | None:
        """The first thing that would fail, in a sentence."""
        first = next((one for one in self.findings if one.ok is False), None)
        return None if first is None else f"{first.what}: {first.said}"

    def __str__(self) -> str:
        """The page."""
        marks = {True: "ok", False: "FAILS", None: ""}
        width = max((len(one.what) for one in self.findings), default=0)
        lines = [f"{marks[one.ok]:<7}{one.what:<{width}}  {one.said}" for one in self.findings]
        if self.memory:
            parts = tuple((name, f"{value / GB:.1f}") for name, value in self.memory.items())
            lines += ["", str(Table("Memory of each GPU", ("part", "GB"), parts))]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "ok": self.fault is None,
            "gpu": self.gpu,
            "processes": self.processes,
            "findings": [{"what": one.what, "ok": one.ok, "said": one.said} for one in self.findings],
            "memory": {name: round(value) for name, value in self.memory.items()},
            "numbers": self.numbers,
        }
