"""`sdg bench`: published prompt sets, and the tables of the paper by one command each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdg.cli.options import ALLOW_OUTSIDE, FOLDER, PATH, comparing, recipe, resumable
from sdg.cli.progress import diagnosed, embedder_of
from sdg.cli.terminal import say, show

if TYPE_CHECKING:
    from sdg.bench.bench_table import BenchTable

_OUT = click.option("--out", type=PATH, required=True, metavar="DIR", help="Folder for .json, .md and .tex.")
_SCORES = click.option(
    "--scores", multiple=True, metavar="NAME=FILE", help="What `sdg evaluate --json` wrote. May be repeated."
)
_EMBEDDER = click.option(
    "--embedder", metavar="NAME", help="Compares reasons, as in `sdg evaluate`; the paper's is qwen3."
)
_ALLOW_MISSING = click.option("--allow-missing", is_flag=True, help="Leave out pictures without an answer.")


@click.group()
def bench() -> None:
    """Published prompt sets, and the paper's tables: your numbers beside the published ones.

    \b
    Example:
      sdg bench prompts partiprompts --category Animals --limit 20
      sdg bench table2 --truth test.jsonl --detector ours=hf:ORG/NAME --embedder qwen3 --out table2
    """


@bench.command("prompts")
@click.argument("name", metavar="NAME")
@click.option("--path", type=PATH, metavar="PATH", help="Your copy: a file or folder as it was published.")
@click.option("--split", metavar="NAME", help="Of the files that are fetched [default: the set's first].")
@click.option("--category", metavar="NAME", help="Only prompts of this category.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first so many.")
@click.option(
    "--without",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Leave out the prompts of this annotation file. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON Lines with caption and category, not plain text.")
def prompts_(name: str, as_json: bool, **options: Any) -> None:
    """Print the prompts of a published set, one a line.

    NAME is drawbench, partiprompts, geneval, t2i-compbench, dpg-bench or pick-a-pic. In a recipe the same is
    prompts.train: bench:NAME?path=…&category=…&limit=…

    \b
    Example:
      sdg bench prompts t2i-compbench --path examples/dataset --category color > prompts.txt
    """
    from sdg.bench.prompts import read_prompt_set

    found = read_prompt_set(name, **options)
    for prompt in found:
        if as_json:
            show(json.dumps(prompt.to_dict(), ensure_ascii=False))
        else:
            show(prompt.text, exact=True)  # of one line, as they are read
    counts = Counter(prompt.category for prompt in found if prompt.category)
    kinds = "".join(f"; {kind} {count:,}" for kind, count in counts.most_common(12)) if counts else ""
    say(f"{len(found):,} prompts{kinds}")


@bench.command()
@click.option("--truth", type=PATH, metavar="FILE", help="Annotations of the test split.")
@click.option("--images", type=FOLDER, metavar="DIR", help="Its pictures [default: the file's folder].")
@ALLOW_OUTSIDE
@click.option("--detector", "detectors", multiple=True, metavar="NAME=URI", help="Diagnosed here, resumably.")
@click.option("--predictions", multiple=True, metavar="NAME=FILE", help="What a detector has answered.")
@_SCORES
@_EMBEDDER
@_ALLOW_MISSING
@click.option("--resume", is_flag=True, help="Keep what detectors have answered in --out.")
@_OUT
def table2(
    truth: Path | None,
    detectors: tuple[str, ...],
    predictions: tuple[str, ...],
    scores: tuple[str, ...],
    embedder: str | None,
    allow_missing: bool,
    resume: bool,
    out: Path,
    **reading: Any,
) -> None:
    """Detectors on a test split by SDG-Eval, beside the published rows.

    Rows are detectors that are run here, files of predictions, or evaluations that are there already.
    Evaluations of different truths, embedders, matchings or seeds are refused.

    \b
    Example:
      sdg bench table2 --truth test.jsonl --predictions ours=predictions.jsonl --embedder qwen3 --out table2
    """
    from sdg.bench.bench_table import named_paths, named_texts
    from sdg.bench.detection import table2 as tabulate
    from sdg.detectors import load_detector
    from sdg.detectors.bulk import run
    from sdg.errors import SdgError
    from sdg.runs.inputs import gather

    files = named_paths(predictions, "--predictions")
    if (detectors or files) and truth is None:
        raise click.UsageError("Give --truth, which predictions are held against.")
    for name, uri in named_texts(detectors, "--detector", "URI").items():
        if name in files or "/" in name or name.startswith("."):
            raise SdgError(f"--detector {name}: a name is that of one row, and of a file in --out.")
        assert truth is not None
        items = gather([truth], **reading)
        file = out / f"{name}.jsonl"
        with resumable(out), diagnosed(len(items)) as advance:
            run(load_detector(uri), items, file, resume=resume, on_result=advance)
        files[name] = file
    documents = _read_scores(scores)
    if both := sorted(files.keys() & documents.keys()):
        raise SdgError(f"{both[0]} names predictions and scores; give each row a name of its own.")
    evaluated = _evaluated(truth, files, embedder, allow_missing)
    _finish(tabulate(evaluated | documents), out)
    if empty := [name for name, one in evaluated.items() if not one["status"]["evaluated"]]:
        raise SdgError(f"Nothing was scored of {', '.join(empty)}: no picture has a truth and an answer.")


@bench.command()
@click.argument("records", nargs=-1, required=True, type=PATH, metavar="TFRECORD...")
@click.option("--predictions", multiple=True, metavar="NAME=FILE", help="Answers of a detector on UID.png.")
@click.option("--heat", multiple=True, metavar="NAME=DIR", help="Heat maps that a model predicted, by uid.")
@_ALLOW_MISSING
@_OUT
def table3(
    records: tuple[Path, ...],
    predictions: tuple[str, ...],
    heat: tuple[str, ...],
    allow_missing: bool,
    out: Path,
) -> None:
    """Image-level precision, recall and F1 by type on RichHF-18K, beside the published rows.

    TFRECORD is a file of RichHF-18K or a folder of them. Its pictures are those of Pick-a-Pic v1, named by
    their uid: diagnose them with `sdg diagnose`. Needs the extra `bench`.

    \b
    Example:
      sdg bench table3 richhf/test.tfrecord --predictions ours=predictions.jsonl --out table3
    """
    from sdg.bench.bench_table import named_paths
    from sdg.bench.image_level import table3 as tabulate

    answers, maps = named_paths(predictions, "--predictions"), named_paths(heat, "--heat")
    _finish(tabulate(records, answers, maps, allow_missing=allow_missing), out)


@bench.command()
@recipe("monitor.steps=50")
@click.option("--prompts", metavar="SOURCE", help="In place of prompts.held_out: bench:NAME?path=….")
@comparing
@_OUT
def table5(
    recipe: Path,
    overrides: tuple[str, ...],
    prompts: str | None,
    adapters: tuple[str, ...],
    out: Path,
    **options: Any,
) -> None:
    """Generators by the scorers and judges of RECIPE's monitor, beside the published rows.

    RECIPE names the base generator, scorers and judges, and how pictures are drawn; published rows stand
    beside scorers named PickScore, CLIPScore, HPSv3, DeQA and P(real). All have the same prompts and noise.

    \b
    Example:
      sdg bench table5 recipes/align/boxflow-flux1-dev.yaml --lora BoxFlow-GRPO=runs/flux/best \\
          --prompts bench:drawbench --out table5
    """
    from sdg.alignment.recipe import AlignRecipe
    from sdg.recipes import load_recipe

    if prompts is not None:
        overrides += (f"prompts.held_out={json.dumps(prompts)}",)
    settings = load_recipe(AlignRecipe, recipe, overrides)
    from sdg.alignment.compare import compare_generators, parse_adapters
    from sdg.bench.generators import table5 as tabulate

    with resumable(out, "What is measured so far is kept"):
        found = compare_generators(settings, parse_adapters(adapters), out, **options)
    averaged = [scorer.name for scorer in settings.monitor.scorers] or ["reward"]
    used = {"recipe": str(recipe), "prompts": settings.prompts.held_out, "seed": settings.seed}
    _finish(tabulate(found, averaged, used), out)


@bench.command()
@click.argument("studies", nargs=-1, required=True, metavar="NAME=FILE...")
@_OUT
def table6(studies: tuple[str, ...], out: Path) -> None:
    """Good, Same and Bad of blind studies, beside the published rows.

    \b
    Example:
      sdg study count study ratings-*.json --json gsb.json
      sdg bench table6 "SDG against Fixed, ours=gsb.json" --out table6
    """
    from sdg.bench.bench_table import named_paths
    from sdg.bench.generators import table6 as tabulate

    _finish(tabulate(named_paths(studies, "Study")), out)


@bench.command()
@click.option("--base", "bases", multiple=True, metavar="STAGE=FILE", help="sft=FILE, and grpo=FILE.")
@click.option("--ablation", "ablations", multiple=True, metavar="NAME=FILE", help="What was evaluated.")
@click.option("--seed", "seeds", multiple=True, metavar="NAME=SEED", help="Of its training, where known.")
@click.option("--list", "list_only", is_flag=True, help="Print the ablations and the settings they are.")
@click.option("--out", type=PATH, metavar="DIR", help="Folder for .json, .md and .tex.")
def table7(
    bases: tuple[str, ...],
    ablations: tuple[str, ...],
    seeds: tuple[str, ...],
    list_only: bool,
    out: Path | None,
) -> None:
    """Ablated detectors, and whether each difference goes the way it does in the paper.

    FILE is what `sdg evaluate --json` wrote of each detector, all against one truth.

    \b
    Example:
      sdg bench table7 --list
      sdg bench table7 --base sft=sft.json --ablation no-jitter=no-jitter.json --out table7
    """
    from sdg.bench.bench_table import named_texts
    from sdg.bench.detection import OVERRIDES
    from sdg.bench.detection import table7 as tabulate

    if list_only:
        for name, (stage, override) in OVERRIDES.items():
            show(f"{name}\t{stage}\t--set '{override}'")
        return
    if out is None:
        raise click.UsageError("Give --out, the folder to write to.")
    known = named_texts(seeds, "--seed", "SEED")
    _finish(tabulate(_read_scores(bases), _read_scores(ablations), known), out)


@bench.command()
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@_OUT
def figure3(files: tuple[Path, ...], out: Path) -> None:
    """Defects a picture, what pictures hold and how much they matter, by generator.

    FILE is annotations or predictions in any known format. Also draws figure3.png where matplotlib is there.

    \b
    Example:
      sdg bench figure3 train.jsonl test.jsonl --out figure3
    """
    from importlib.util import find_spec

    from sdg.bench.generators import figure3 as tabulate

    table = tabulate(list(files))
    if find_spec("matplotlib") is not None:
        from sdg.data.statistics import plot_statistics

        plot_statistics(table.numbers, out / "figure3.png")
    _finish(table, out)


def _finish(table: BenchTable, out: Path) -> None:
    from sdg.tables import print_tables

    table.write(out)
    print_tables(table.tables)
    for note in table.notes:
        show(note)
    say(f"{table.name}.json, .md and .tex are in {out}; `sdg report --bench` shows the first.")


def _evaluated(
    truth: Path | None, files: dict[str, Path], embedder: str | None, allow_missing: bool
) -> dict[str, Any]:
    """The evaluation of each file of predictions."""
    from sdg.evaluation.from_files import evaluate_files, join_files

    if truth is None or not files:
        return {}
    found = {}
    with embedder_of(embedder) as reader:
        for name, file in files.items():
            joined = join_files(truth, file, allow_missing=allow_missing, say=say)
            found[name] = evaluate_files(joined, embedder=reader).to_document()
    return found


def _read_scores(texts: tuple[str, ...]) -> dict[str, Any]:
    from sdg.bench.bench_table import named_paths
    from sdg.reporting import read_scores

    return {name: read_scores(path)[1] for name, path in named_paths(texts, "Scores").items()}
