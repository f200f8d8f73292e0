"""The way of one sample through the package's files: how often the next function lies in another file.

Run: python benchmarks/walk.py [grpo|align]
Runs `sdg train grpo` or `sdg align` on a toy up to the first optimizer step and notes each function of the
package when it is first called. Printed is a line a file, with the functions that are called there one after
another; a change is where the next one lies in another file. Lines with a star belong to the sample: it is
read, asked about, answered, rewarded. The others read the recipe, begin the run and load the models.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby, pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sdg"
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
Step = tuple[str, str, bool]
"""File, function, and whether a sample is on its way through it."""
SAMPLE = {
    # Annotations to rows, rows to questions, answers to rewards.
    "grpo": ("RowReader.read", "Rows.questions.<locals>.read", "reward_function.<locals>.composite"),
    "align": (  # drawn, scored by threads of their own meanwhile, from scores to advantages, optimized
        *("Sampler.draw", "ScaledScorer.score", "StreamingDetector.diagnose", "Rollouts.scores"),
        *("training_signal", "Learner.learn"),
    ),
}
"""Functions in which a sample is on its way, until they return."""


class Ended(BaseException):
    """Ends a run after its first step."""


@contextmanager
def noted(walk: list[Step], roots: tuple[str, ...]) -> Iterator[None]:
    """Adds each function of the package to the walk, when it is first called, on its way below the roots."""
    seen: set[CodeType] = set()
    inside = threading.local()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(str(SOURCE)):
            return
        if code.co_qualname in roots:
            inside.depth = getattr(inside, "depth", 0) + (1 if event == "call" else -1)
        on_way = getattr(inside, "depth", 0) > 0
        # What a reader meets: no module, class or comprehension.
        if event == "call" and code not in seen and not code.co_name.startswith("<") and code.co_flags & 2:
            seen.add(code)
            walk.append((str(Path(code.co_filename).relative_to(SOURCE)), code.co_qualname, on_way))

    sys.setprofile(note)
    threading.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def grpo(folder: Path) -> Callable[[], None]:
    """A run of `sdg train grpo` on a toy, whose completions are those of one annotated picture."""
    import numpy as np
    from PIL import Image
    from tiny_qwen3vl import tiny_model, tiny_processor
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    from sdg import Record, render_response
    from sdg.cli import main
    from sdg.data.formats.sdg30k import write_annotations
    from sdg.testbed.injection import sample
    from sdg.testbed.models.detector.build import new_tokenizer

    drawn = [sample(np.random.default_rng(seed), size=64, kind="both") for seed in range(4)]
    records = [Record(f"{number}.png", one.prompt, one.diagnosis) for number, one in enumerate(drawn)]
    for record, one in zip(records, drawn, strict=True):
        Image.fromarray(one.picture).save(folder / record.filepath)
    write_annotations(folder / "rows.jsonl", records)
    texts = [render_response(one.diagnosis) for one in drawn]
    tokenizer = new_tokenizer([*texts, *(record.prompt for record in records)])
    tiny_model(tokenizer).save_pretrained(folder / "start")
    tiny_processor(tokenizer).save_pretrained(folder / "start")
    written = tokenizer(f"{texts[0]}<|im_end|>")["input_ids"]

    class Stop(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            raise Ended

    def generate(self: Any, prompt_ids: list[Any], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        self.callback_handler.callbacks.insert(0, Stop())
        return [list(written) for _ in prompt_ids], None

    GRPOTrainer._generate_single_turn = generate
    recipe = {
        "model": {"checkpoint": str(folder / "start"), "dtype": "float32", "gradient_checkpointing": False},
        "data": {"train": str(folder / "rows.jsonl"), "validation": str(folder / "rows.jsonl"), "workers": 0},
        "optimizer": {"learning_rate": 1e-3, "max_steps": 1, "batch_size": 2},
        "profile": {"system": "", "template": "{caption}", "image": {"max_pixels": 64 * 64}},
        "rollout": {"group": 2},
        "similarity": "token-f1",
        "evaluation": {"every": 1, "first": False},
        "run": {"device": "cpu", "precision": "fp32"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return lambda: main(["train", "grpo", str(folder / "recipe.yaml"), "--out", str(folder / "run")])


def align(folder: Path) -> Callable[[], None]:
    """A run of `sdg align` on a toy FLUX, judged by functions of the tests."""
    import toy

    from sdg.cli import main

    toy.flux_pipeline().save_pretrained(folder / "flux")
    toy.save_clip(folder / "clip")
    (folder / "train.txt").write_text("\n".join(toy.PROMPTS[:8]))
    (folder / "held-out.txt").write_text("\n".join(toy.PROMPTS[8:]))
    unwatched = {"prompts__held_out": "null", "monitor__scorers": "[]", "monitor__judges": "[]"}
    options = toy.small(folder, optimizer__steps=1, monitor__best="null", **unwatched)

    def stop(*_: Any) -> None:
        raise Ended

    def run() -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(stop)
        recipe = str(toy.RECIPES / "boxflow-flux1-dev.yaml")
        main(["align", recipe, *options, "--out", str(folder / "run")])

    return run


def changes(walk: list[Step]) -> int:
    """How often the next function lies in another file."""
    return sum(one[0] != following[0] for one, following in pairwise(walk))


def main(kind: str = "grpo") -> None:
    walk: list[Step] = []
    with tempfile.TemporaryDirectory() as folder:
        run = {"grpo": grpo, "align": align}[kind](Path(folder))
        with suppress(Ended), noted(walk, SAMPLE[kind]):
            run()
    for (file, on_way), steps in groupby(walk, lambda step: (step[0], step[2])):
        print(f"{'*' if on_way else ' '} {file:<32} {', '.join(name for _, name, _ in steps)}")
    for what, part in (("of the sample", [step for step in walk if step[2]]), ("from the command on", walk)):
        files = len({file for file, _, _ in part})
        print(f"{kind}, {what}: {len(part)} functions in {files} files, {changes(part)} changes of the file")


if __name__ == "__main__":
    main(*sys.argv[1:])
