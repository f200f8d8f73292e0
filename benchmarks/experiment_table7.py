"""The ablations of SDG Table 7 on the testbed: every detector trained from one base with an equal budget.

    python benchmarks/experiment_table7.py --corpus runs/corpus --base runs/base/speak/detector --trial 10
    python benchmarks/experiment_table7.py --corpus runs/corpus --base runs/base/speak/detector

The first says what all of it will take; the second runs it, and goes on after a stop or a `kill -9` (a
training that outlives the script ends by itself; start the script again then). Each of --jobs trainings has
one thread.

Trained are SFT and its six ablations, and GRPO from SFT, with and without the think block. The vision encoder
is frozen but where that is ablated. Best checkpoints are chosen on validation, and what is reported are the
test pictures. One more row is the grounded trace (arXiv 2606.16122): step 3 names each box with its
coordinates. Those are the answer's, which jitter would move away from them, so it is trained and compared
without jitter, in so many steps that the tokens it learns are as many.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Final

from experiment_alignment import sdg, settings

from sdg import DefectType, Diagnosis
from sdg.bench.detection import OVERRIDES, table7
from sdg.data.formats.sdg30k import read_annotations, write_annotations
from sdg.embeddings import Embedder, load_embedder
from sdg.errors import SdgError
from sdg.evaluation import PAPER_METRICS, Comparison, Evaluation, compare, evaluate
from sdg.evaluation.result import cell
from sdg.io.files import write_text
from sdg.io.jsonl import read_objects
from sdg.io.predictions import read_prediction
from sdg.prompting import PromptProfile
from sdg.recipes import load_recipe
from sdg.response import format_fault
from sdg.runs.begin import begin
from sdg.runs.log import read_log
from sdg.training.dataset import RowReader, target, unpack_truth
from sdg.training.model import load_processor, load_profile
from sdg.training.recipe import SftRecipe

ROOT: Final = Path(__file__).resolve().parents[1]
RECIPES: Final = {stage: ROOT / f"recipes/detector/{stage}-testbed.yaml" for stage in ("sft", "grpo")}
GRPO_START: Final = "sft-no-think"
"""The SFT that GRPO without think goes on from; no row of the table."""
GROUNDED: Final = "grounded-trace"
PLAIN: Final = "no-jitter"
"""What the grounded trace is compared with."""
MEASUREMENTS: Final = 4
"""Validations of a training, of which the best chooses the checkpoint."""
RESAMPLES: Final = 1000
_BOX: Final = re.compile(r"^Box (\d+)(?: \(\w+\))?(?=:)", re.MULTILINE)


@dataclass(frozen=True)
class Training:
    """A detector to be trained with each seed; start: the training it goes on from, None for the base."""

    name: str
    stage: str = "sft"
    overrides: tuple[str, ...] = ()
    start: str | None = None


TRAININGS: Final = (
    Training("sft"),
    *(
        Training(GRPO_START if stage == "grpo" else name, "sft", (override,))
        for name, (stage, override) in OVERRIDES.items()
    ),
    Training(GROUNDED, "sft", (OVERRIDES[PLAIN][1],)),
    Training("grpo", "grpo", (), "sft"),
    Training("grpo-no-think", "grpo", (), GRPO_START),
)


@dataclass(frozen=True)
class Scored:
    """A trained detector on the test pictures; well_formed: share of its answers that have its own format."""

    evaluation: Evaluation
    well_formed: float


def run_name(name: str, seed: int) -> str:
    """What a training's folder, log and answers are called."""
    return f"{name}-seed{seed}"


def grounded(diagnosis: Diagnosis) -> Diagnosis:
    """The diagnosis whose trace names each box of step 3 with its coordinates, as the answer writes them.

    Raises SdgError where the trace does not name every box once.
    """
    named = [int(number) for number in _BOX.findall(diagnosis.reasoning)]
    if named != list(range(1, len(diagnosis.defects) + 1)):
        raise SdgError(
            f"A trace names the boxes {named} of {len(diagnosis.defects)} defects; a corpus of "
            "`sdg testbed` names each once."
        )

    def located(line: re.Match[str]) -> str:
        return f"{line[0]} {list(diagnosis.defects[int(line[1]) - 1].box)}"

    return replace(diagnosis, reasoning=_BOX.sub(located, diagnosis.reasoning))


def write_grounded(train: Path, out: Path) -> None:
    """The training rows with grounded traces; nothing where they are there."""
    if out.is_file():
        return
    records = (
        record if record.diagnosis is None else replace(record, diagnosis=grounded(record.diagnosis))
        for record in read_annotations(train)
    )
    write_annotations(out, records)


def target_tokens(recipe: SftRecipe) -> float:
    """Mean number of tokens that a row of a recipe teaches."""
    data, profile, processor = recipe.data, load_profile(recipe), load_processor(recipe.model)
    rows = RowReader(profile, processor, data.max_length).read(
        data.train,
        data.images,
        targets=True,
        limit=data.limit,
        allow_outside=data.allow_outside,
    )
    texts = [target(unpack_truth(row["truth"]), profile.answer) for row in rows.rows]
    for reason, count in rows.left_out.items():
        print(f"{data.train}: {count:,} rows left out: {reason}", file=sys.stderr)
    return fmean(map(len, processor.tokenizer(texts, add_special_tokens=False)["input_ids"]))


class Experiment:
    """All trainings in one folder, with everything they share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.runs = options, options.runs
        corpus, images = options.corpus, options.images or options.corpus
        self.shared = [
            f"data.train={corpus / 'train.jsonl'}",
            f"data.validation={corpus / 'validation.jsonl'}",
            f"data.images={images}",
            "model.freeze_vision=true",
        ]
        self.tests: list[Path] = options.test or [corpus]
        self.grounded_train = self.runs / "grounded.jsonl"

    def identity(self) -> dict[str, Any]:
        """What the numbers depend on, for the folder to be gone on with or refused."""
        given = self.options
        weights = sorted(given.base.glob("*.safetensors"))
        if not weights:
            raise SdgError(f"{given.base} has no weights; give the checkpoint that every SFT starts from.")
        files = [given.corpus / f"{split}.jsonl" for split in ("train", "validation")]
        files += [*(folder / "test.jsonl" for folder in self.tests), *weights]
        try:
            digests = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        except OSError as error:
            raise SdgError(f"{error.filename} cannot be read: {error.strerror}.") from None
        return {
            "base": str(given.base),
            "files": digests,
            "recipes": {
                stage: hashlib.sha256(file.read_bytes()).hexdigest() for stage, file in RECIPES.items()
            },
            "steps": {"sft": given.steps, "grpo": given.grpo_steps},
            "overrides": {"sft": given.sft, "grpo": given.grpo},
        }

    def overrides(self, training: Training, seed: int) -> list[str]:
        """All overrides of a training's recipe."""
        steps = self.options.steps if training.stage == "sft" else self.options.grpo_steps
        start = self.options.base
        if training.start is not None:
            start = self.runs / run_name(training.start, seed) / "final"
        chosen = [*self.shared, f"model.checkpoint={start}", f"seed={seed}"]
        chosen += [*getattr(self.options, training.stage), *training.overrides]
        if training.name == GROUNDED:
            plain = self.recipe([*chosen, f"optimizer.max_steps={steps}"])
            chosen.append(f"data.train={self.grounded_train}")
            own = self.recipe([*chosen, f"optimizer.max_steps={steps}"])
            steps = max(1, round(steps * target_tokens(plain) / target_tokens(own)))
        every = max(1, steps // MEASUREMENTS)  # of its own steps, so that the last ones are measured, too
        return [*chosen, f"optimizer.max_steps={steps}", f"evaluation.every={every}"]

    def recipe(self, overrides: Sequence[str]) -> SftRecipe:
        return load_recipe(SftRecipe, RECIPES["sft"], overrides)

    def train(self, training: Training, seed: int) -> None:
        """Train one detector and let it answer the test pictures; what is there already stays."""
        name = run_name(training.name, seed)
        folder, console = self.runs / name, self.runs / f"{name}.txt"
        began = time.monotonic()
        if not (folder / "final").is_dir() or "final" not in manifest(folder):
            chosen = settings(self.overrides(training, seed))
            recipe = str(RECIPES[training.stage])
            sdg(["train", training.stage, recipe, *chosen, "--out", str(folder), "--resume"], console)
        if training.name != GRPO_START:
            for place, test in enumerate(self.tests):
                out = self.answers(training.name, seed, place)
                if not out.is_file():
                    words = ["diagnose", str(test / "test.jsonl"), "--detector", str(folder / "final")]
                    words += ["--device", "cpu", "--batch-size", "50", "--out", str(out), "--resume"]
                    sdg(words, console)
        print(f"{name}: {(time.monotonic() - began) / 60:.0f} minutes", flush=True)

    def answers(self, name: str, seed: int, place: int) -> Path:
        """The file of what a detector says of the test pictures of one folder."""
        return self.runs / "answers" / f"{run_name(name, seed)}-{place}.jsonl"

    def train_all(self) -> None:
        """Every training, --jobs at a time; the first failure is raised once the others have ended.

        After Ctrl-C none is begun any more.
        """
        write_grounded(self.options.corpus / "train.jsonl", self.grounded_train)
        for later in (False, True):
            with ThreadPoolExecutor(self.options.jobs) as pool:
                work = [
                    pool.submit(self.train, training, seed)
                    for seed in self.options.seeds
                    for training in TRAININGS
                    if (training.start is not None) == later
                ]
                try:
                    wait(work)
                except KeyboardInterrupt:
                    pool.shutdown(cancel_futures=True)
                    raise
            for future in work:
                future.result()

    def truth(self) -> list[Diagnosis]:
        return [known(record.diagnosis) for test in self.tests for record in read_test(test)]

    def score(self, name: str, seed: int, truth: Sequence[Diagnosis], embedder: Embedder) -> Scored:
        """A trained detector's answers by SDG-Eval."""
        final = self.runs / run_name(name, seed) / "final"
        answer = PromptProfile.load(final).answer
        rows: list[Mapping[str, Any]] = []
        for place, test in enumerate(self.tests):
            out = self.answers(name, seed, place)
            found = list(read_objects(out))
            if [row["filepath"] for row in found] != [record.filepath for record in read_test(test)]:
                raise SdgError(f"{out} holds the answers to other pictures than {test}'s; remove it.")
            rows += found
        said = [known(read_prediction(row, require_think=answer.think).diagnosis) for row in rows]
        formed = [format_fault(row["response"] or "", **answer.gate()) is None for row in rows]
        result = evaluate(truth, said, embedder=embedder, bootstrap=RESAMPLES)
        return Scored(result, sum(formed) / len(formed))

    def trial(self, steps: int) -> None:
        """Time some steps of both stages and answers, and say what the experiment will take."""
        validation = self.recipe([*self.shared, *self.options.sft])
        batch, limit = validation.evaluation.batch_size, validation.data.validation_limit
        measured = limit or sum(1 for _ in read_annotations(self.options.corpus / "validation.jsonl"))
        with TemporaryDirectory() as folder:

            def timed(stage: str, number: int) -> tuple[float, list[dict[str, Any]]]:
                training = Training("trial", stage)
                chosen = [*self.overrides(training, 0), f"data.validation_limit={batch}", "run.log_every=1"]
                chosen += [f"optimizer.max_steps={number}", f"evaluation.every={number}"]
                if stage == "grpo":  # the base need not have a profile
                    start = Path(folder) / f"sft-{1 + steps}" / "final"
                    chosen += ["evaluation.first=false", f"model.checkpoint={start}"]
                out, began = Path(folder) / f"{stage}-{number}", time.monotonic()
                sdg(
                    ["train", stage, str(RECIPES[stage]), *settings(chosen), "--out", str(out)],
                    Path(folder) / f"{stage}-{number}.txt",
                )
                return time.monotonic() - began, read_log(out)

            once, _ = timed("sft", 1)
            whole, log = timed("sft", 1 + steps)
            _, grpo_log = timed("grpo", 2)
        step = max(0.0, whole - once) / steps
        answering = next(line["eval_runtime"] for line in reversed(log) if "eval_runtime" in line) / batch
        rollout = min(line["step_time"] for line in grpo_log if "step_time" in line)
        fixed = max(0.0, once - step - batch * answering)
        tested = sum(1 for test in self.tests for _ in read_test(test))
        pictures = MEASUREMENTS * measured + tested
        sft = fixed + self.options.steps * step + pictures * answering
        grpo = fixed + self.options.grpo_steps * rollout + (pictures + measured) * answering
        seeds = len(self.options.seeds)
        trained = [sum(one.stage == stage for one in TRAININGS) for stage in RECIPES]
        total = seeds * (trained[0] * sft + trained[1] * grpo)
        print(
            f"SFT: {step:.1f} s a step, {sft / 60:.0f} minutes a training. GRPO: {rollout:.1f} s a step, "
            f"{grpo / 60:.0f} minutes a training. Answers: {answering:.2f} s a picture.\n"
            f"{seeds * trained[0]} × SFT and {seeds * trained[1]} × GRPO, {self.options.jobs} at a time: "
            f"about {total / self.options.jobs / 3600:.1f} hours."
        )


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a training, empty where there is none yet."""
    path = folder / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def known(diagnosis: Diagnosis | None) -> Diagnosis:
    assert diagnosis is not None
    return diagnosis


def read_test(folder: Path) -> Iterator[Any]:
    return read_annotations(folder / "test.jsonl")


def averaged(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One evaluation from several: means of metrics, None where one has none; sums of counts."""
    first = documents[0]

    def mean(kind: str, metric: str) -> float | None:
        values = [document["metrics"][kind][metric] for document in documents]
        return None if None in values else fmean(values)

    return {
        "metrics": {
            kind: {metric: mean(kind, metric) for metric in of} for kind, of in first["metrics"].items()
        },
        "intervals": None,
        "status": {
            name: sum(document["status"][name] for document in documents)
            for name, value in first["status"].items()
            if isinstance(value, int)
        },
        "settings": first["settings"],
    }


Differences = dict[tuple[str, str, str], list[tuple[float, tuple[float, float]] | None]]
"""(ablation, type, metric) -> of each seed the difference to its base and its interval, paired by picture."""


def differences(pairs: Mapping[str, Sequence[Comparison]]) -> Differences:
    found: Differences = {}
    for name, by_seed in pairs.items():
        for kind in map(str, DefectType):
            for metric in PAPER_METRICS:
                cells = []
                for one in by_seed:
                    value, bounds = one.difference[kind][metric], one.intervals[kind][metric]
                    cells.append(None if value is None or bounds is None else (value, bounds))
                found[name, kind, metric] = cells
    return found


def difference_lines(
    ours: Differences, published: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]
) -> list[str]:
    """Every difference with its interval, a column a seed, and how many of them have the paper's sign.

    published: `differences` of the table's numbers.
    """
    columns = ["ablation", "type", "metric", *(f"seed {seed} (95 % interval)" for seed in seeds), "paper"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    agreeing = alike = sure = sure_agreeing = compared = 0
    for key, cells in ours.items():
        shown = [
            "–" if one is None else f"{one[0]:+.3f} ({one[1][0]:+.3f} to {one[1][1]:+.3f})" for one in cells
        ]
        name, kind, metric = key
        paper = published[name][kind]["published"][metric]
        lines.append(f"| {' | '.join([*key, *shown, '–' if paper is None else f'{paper:+.3f}'])} |")
        if not paper or None in cells:
            continue
        compared += 1
        signs = {(value > 0) - (value < 0) for value, _ in filter(None, cells)}
        if len(signs) > 1 or 0 in signs:
            continue
        alike += 1
        agrees = (signs == {1}) == (paper > 0)
        agreeing += agrees
        if all(low > 0 or high < 0 for _, (low, high) in filter(None, cells)):
            sure += 1
            sure_agreeing += agrees
    return [
        f"Of {compared} differences that the paper has, {alike} have one sign in all seeds, {agreeing} of "
        f"them the paper's. Of the {sure} whose intervals leave out 0 in all seeds, {sure_agreeing} have it.",
        "",
        *lines,
        "",
    ]


def grounded_lines(plain: Sequence[Scored], traced: Sequence[Scored], seeds: Sequence[int]) -> list[str]:
    """The grounded trace beside the plain one, both without jitter, by type, metric and seed."""
    columns = ["type", "metric", "seed", "plain", "grounded", "difference (95 % interval)"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for kind in map(str, DefectType):
        for metric in PAPER_METRICS:
            for seed, one, other in zip(seeds, plain, traced, strict=True):
                found = compare(other.evaluation, one.evaluation, resamples=RESAMPLES)
                value, bounds = found.difference[kind][metric], found.intervals[kind][metric]
                shown = "–"
                if value is not None and bounds is not None:
                    shown = f"{value:+.3f} ({bounds[0]:+.3f} to {bounds[1]:+.3f})"
                values = [cell(of.evaluation.metrics[kind][metric]) for of in (one, other)]
                lines.append(f"| {' | '.join([kind, metric, str(seed), *values, shown])} |")
    return [*lines, ""]


def training_lines(runs: Path, scored: Mapping[str, Sequence[Scored]], seeds: Sequence[int]) -> list[str]:
    """What each training was, and the share of its answers that have its format."""
    lines = ["| training | seed | steps | chosen | well-formed |", "|---|---|---|---|---|"]
    for name, of in scored.items():
        for seed, one in zip(seeds, of, strict=True):
            told = manifest(runs / run_name(name, seed))
            steps, chosen = told["recipe"]["optimizer"]["max_steps"], told["final"]["weights"]
            lines.append(f"| {name} | {seed} | {steps} | {chosen} | {100 * one.well_formed:.1f} % |")
    return [*lines, ""]


def report(experiment: Experiment, say: Callable[[str], object] = print) -> None:
    """Score everything and write table7.json, .md and .tex, summary.md, scores.json and logs/."""
    options, seeds = experiment.options, experiment.options.seeds
    truth, embedder = experiment.truth(), load_embedder(options.embedder)
    names = [one.name for one in TRAININGS if one.name != GRPO_START]
    scored = {name: [experiment.score(name, seed, truth, embedder) for seed in seeds] for name in names}
    documents = {name: averaged([one.evaluation.to_document() for one in of]) for name, of in scored.items()}
    table = table7(
        {stage: documents[stage] for stage in RECIPES}, {name: documents[name] for name in OVERRIDES}
    )
    pairs = {
        name: [
            compare(one.evaluation, base.evaluation, resamples=RESAMPLES)
            for one, base in zip(scored[name], scored[OVERRIDES[name][0]], strict=True)
        ]
        for name in OVERRIDES
    }
    page = [
        table.markdown(),
        f"Means over seeds {', '.join(map(str, seeds))}, on {len(truth):,} pictures of the test split, on "
        f"whose prompts nothing was trained. SFT has {options.steps} steps from the base, GRPO "
        f"{options.grpo_steps} from SFT.",
        "",
        "## By seed",
        "",
        *difference_lines(differences(pairs), table.numbers["differences"], seeds),
        "## The grounded trace",
        "",
        *grounded_lines(scored[PLAIN], scored[GROUNDED], seeds),
        "## Trainings",
        "",
        *training_lines(experiment.runs, scored, seeds),
    ]
    for training in TRAININGS:
        for seed in seeds:
            own = run_name(training.name, seed)
            log = (experiment.runs / own / "log.jsonl").read_text(encoding="utf-8")
            write_text(options.out / "logs" / f"{own}.jsonl", log)
    numbers = {
        name: {
            str(seed): one.evaluation.to_document() | {"well_formed": one.well_formed}
            for seed, one in zip(seeds, of, strict=True)
        }
        for name, of in scored.items()
    }
    table.write(options.out)
    write_text(options.out / "scores.json", json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    write_text(options.out / "summary.md", "\n".join(page))
    say("\n".join(page))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True, help="checkpoint that every SFT starts from")
    parser.add_argument("--corpus", type=Path, required=True, help="with train.jsonl, validation.jsonl")
    parser.add_argument("--images", type=Path, help="folder of their pictures [default: --corpus]")
    parser.add_argument(
        "--test", type=Path, action="append", help="folder of a test.jsonl, repeatable [default: --corpus]"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=300, help="of each SFT")
    parser.add_argument("--grpo-steps", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, one thread each")
    parser.add_argument("--trial", type=int, metavar="STEPS", help="only time so many steps, and end")
    parser.add_argument("--embedder", default="minilm", help="compares reasons for DescCos")
    for stage in RECIPES:
        parser.add_argument(
            f"--set-{stage}", dest=stage, action="append", default=[], metavar="KEY=VALUE", help="override"
        )
    parser.add_argument("--runs", type=Path, default=Path("runs/table7"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs/experiments/ablations")
    options = parser.parse_args()
    if min(options.steps, options.grpo_steps, options.jobs, options.trial or 1) < 1:
        parser.error("steps, jobs and --trial are at least 1")
    if len(set(options.seeds)) < len(options.seeds):
        parser.error("--seeds names a seed twice")
    return options


def main() -> None:
    experiment = Experiment(parse())
    runs = experiment.runs
    try:
        if experiment.options.trial:
            experiment.trial(experiment.options.trial)
            return
        with begin(runs, runs / "experiment.json", experiment.identity(), resume=True):
            experiment.train_all()
            report(experiment)
    except SdgError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
