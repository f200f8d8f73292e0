"""What a run says: log.jsonl always, Accelerate's trackers where asked for, a line an epoch on stderr."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from accelerate import Accelerator
from rich.console import Console

from sdg.errors import SdgError

NAME: Final = "log.jsonl"


class RunLog:
    """The log of one run, written by its main process only.

    Lines of epochs from `start` on, which an interrupted run left, are removed: they are done again.
    """

    def __init__(self, out: Path, accelerator: Accelerator, start: int) -> None:
        self.path, self.accelerator = out / NAME, accelerator
        self.console = Console(stderr=True, quiet=not accelerator.is_main_process, highlight=False)
        if accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            kept = [line for line in read_log(out) if line["epoch"] < start]
            # A measurement stands before the epoch that follows it, so it is done again as well.
            fresh = self.path.with_suffix(".writing")
            fresh.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            fresh.replace(self.path)
        if accelerator.log_with:
            accelerator.init_trackers("sdg-align")

    def trained(self, epoch: int, step: int, values: Mapping[str, Any]) -> None:
        """One epoch of training that ended at optimizer step `step`."""
        self._write({"kind": "train", "epoch": epoch, "step": step, **values})
        losses = " ".join(f"{loss:+.2e}" for loss in values["loss"])
        reward = "–" if values["reward"] is None else f"{values['reward']:.4f}"
        defects = "" if values["defects"] is None else f"  defects {values['defects']:.2f}"
        failed = values["samples"] - values["valid"]
        self.say(
            f"epoch {epoch}  reward {reward}{defects}  loss {losses}  left out {failed}/{values['samples']}"
        )
        if values["without_importance"]:
            self.say(f"  {values['without_importance']} defects have no importance; each weighs as 100")
        numbers = {f"train/{k}": v for k, v in values.items() if isinstance(v, (int, float))}
        self._track(numbers | {"train/loss": sum(values["loss"]) / len(values["loss"])}, step)

    def measured(self, entry: Mapping[str, Any], step: int) -> None:
        """One measurement of the monitor, before the epoch it names."""
        self._write({"kind": "monitor", "step": step, **entry})
        numbers = {k: v for k, v in entry.items() if k != "epoch" and v is not None}
        self.say("monitor  " + "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
        self._track({f"monitor/{name}": value for name, value in numbers.items()}, step)

    def say(self, text: str) -> None:
        """A message to whoever watches."""
        self.console.print(text)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")

    def _track(self, values: Mapping[str, float], step: int) -> None:
        if self.accelerator.log_with:
            self.accelerator.log(dict(values), step=step)


def read_log(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line cut off by a kill is left out."""
    path = out / NAME
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str]) -> None:
    """Raise SdgError where a run would be resumed with another recipe, naming what differs.

    free: dotted names of what may differ, all below them included.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    for name in sorted(old.keys() | new.keys()):
        may_differ = any(name == key or name.startswith(f"{key}.") for key in free)
        if not may_differ and old.get(name) != new.get(name):
            raise SdgError(
                f"{name} was {old.get(name)!r} when this run began and is {new.get(name)!r} now; resume with "
                "the recipe it began with, or start another folder."
            )


def _leaves(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Every plain value of nested JSON with its dotted name."""
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, Mapping):
        return [(name, value)]
    leaves = []
    for key, item in value.items():
        leaves += _leaves(item, f"{name}.{key}" if name else key)
    return leaves
