"""What a run says: log.jsonl always, Accelerate's trackers where asked for, a line an epoch on stderr.

Pictures with their boxes become panels of their own in W&B and TensorBoard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image
from rich.console import Console

from sdg.defects import BOX_SCALE, Defect, DefectType, Diagnosis
from sdg.errors import SdgError, shortened
from sdg.io.files import write_text, writing
from sdg.overlay import draw_overlay

if TYPE_CHECKING:
    from accelerate import Accelerator

NAME: Final = "log.jsonl"
MOST: Final = 50
"""Pictures of one step that trackers get, at most: each is a file on the tracker's server."""
_PANELS: Final = "samples"
_CLASSES: Final = {number: kind.value for number, kind in enumerate(DefectType)}


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture, its prompt and what was found; diagnosis None is not known."""

    picture: Image.Image
    prompt: str
    diagnosis: Diagnosis | None


class RunLog:
    """The log of one run, written by its main process only.

    Lines of epochs from `start` on, which an interrupted run left, are removed: they are done again.
    """

    def __init__(self, out: Path, accelerator: Accelerator, start: int) -> None:
        self.path, self.accelerator = out / NAME, accelerator
        self.console = Console(stderr=True, quiet=not accelerator.is_main_process, highlight=False)
        if accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            # A measurement stands before the epoch that follows it, so it is done again as well.
            trim_log(out, lambda line: line["epoch"] < start)
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
        numbers = {k: v for k, v in entry.items() if k != "epoch" and isinstance(v, (int, float))}
        self.say("monitor  " + "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
        self._track({f"monitor/{name}": value for name, value in numbers.items()}, step)

    def pictured(self, panels: Sequence[Panel], step: int) -> None:
        """Sample pictures with their boxes, for trackers that show pictures."""
        if self.accelerator.is_main_process:
            track_panels(self.accelerator.trackers, panels, step)

    def say(self, text: str) -> None:
        """A message to whoever watches."""
        self.console.print(text, markup=False)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.accelerator.is_main_process:
            append_log(self.path.parent, line)

    def _track(self, values: Mapping[str, float], step: int) -> None:
        if self.accelerator.log_with:
            self.accelerator.log(dict(values), step=step)


def read_log(out: Path, name: str = NAME) -> list[dict[str, Any]]:
    """The lines of a run's log, of which there may be none; a line cut off by a kill is left out.

    Raises SdgError where the log cannot be read.
    """
    path, lines = out / name, []
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    except OSError as error:
        raise SdgError(f"{path} cannot be read: {error.strerror or error}.") from None
    for text in texts:
        with suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict):
                lines.append(line)
    return lines


def trim_log(out: Path, keep: Callable[[dict[str, Any]], bool], name: str = NAME) -> None:
    """Leave only lines to be kept: what was logged after a checkpoint is done, and logged, again."""
    if (out / name).exists():
        lines = read_log(out, name)
        write_text(out / name, "".join(json.dumps(line) + "\n" for line in lines if keep(line)))


def append_log(out: Path, line: Mapping[str, Any], name: str = NAME) -> None:
    """Add a line to a run's log; raises SdgError where the disk refuses."""
    with writing(out / name), (out / name).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def track_panels(trackers: Iterable[Any], panels: Sequence[Panel], step: int) -> None:
    """Send the first MOST panels to each of Accelerate's trackers that shows pictures."""
    shown = panels[:MOST]
    for tracker in trackers:
        if not shown:
            return
        if tracker.name == "wandb":
            import wandb

            images = [
                wandb.Image(one.picture, caption=shortened(one.prompt, 300), boxes=wandb_boxes(one.diagnosis))
                for one in shown
            ]
            tracker.tracker.log({_PANELS: images}, step=step)
        elif tracker.name == "tensorboard":
            for number, one in enumerate(shown):
                known = one.diagnosis is not None  # else a legend would say "No defects."
                defects = one.diagnosis.defects if one.diagnosis else ()
                drawn = draw_overlay(
                    one.picture, defects, legend="right" if known else None, caption=one.prompt
                )
                pixels = np.asarray(drawn)  # (H, W, 3) uint8
                tracker.writer.add_image(f"{_PANELS}/{number}", pixels, step, dataformats="HWC")


def wandb_boxes(diagnosis: Diagnosis | None) -> dict[str, Any] | None:
    """The boxes of a `wandb.Image`: position as shares of the sides, importance as score, reason as caption.

    None where nothing is known, so that such a picture does not look clean.
    """
    if diagnosis is None:
        return None
    data = [_wandb_box(defect) for defect in diagnosis.defects]
    return {"defects": {"box_data": data, "class_labels": _CLASSES}}


def _wandb_box(defect: Defect) -> dict[str, Any]:
    x0, y0, x1, y1 = (value / BOX_SCALE for value in defect.box)
    box: dict[str, Any] = {
        "position": {"minX": x0, "maxX": x1, "minY": y0, "maxY": y1},
        "class_id": list(DefectType).index(defect.type),
        "box_caption": shortened(defect.reason, 300) or defect.type.value,
    }
    if defect.importance is not None:
        box["scores"] = {"importance": defect.importance}
    return box
