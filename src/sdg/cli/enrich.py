"""`sdg data enrich`: short annotations made into training targets by a teacher."""

from __future__ import annotations

from pathlib import Path

import click

from sdg.cli.options import ALLOW_OUTSIDE, FOLDER, PAGE, PATH, RESUME, resumable, write_numbers
from sdg.cli.progress import counted
from sdg.cli.terminal import say, show
from sdg.data.formats import FORMATS, Format
from sdg.errors import SdgError
from sdg.tables import print_tables


@click.command()
@click.argument("path", type=PATH, metavar="FILE")
@click.option("--teacher", required=True, help="A detector's URI, such as openai:BASE_URL#MODEL.")
@click.option("--out", required=True, type=PATH, help="JSON Lines file to write, as SDG-30K's annotations.")
@click.option("--images", type=FOLDER, help="Folder of the pictures [default: the file's].")
@ALLOW_OUTSIDE
@click.option("--format", type=click.Choice(FORMATS), help="Format of FILE [default: found from its start].")
@click.option(
    "--jobs", default="reasons,think,importance", help="What it is to write, in a list with commas."
)
@click.option("--apart", is_flag=True, help="One request for each job instead of one for all.")
@click.option("--words", default="18-45", help="Words of a reason, from and to.")
@click.option(
    "--vote", "voters", multiple=True, metavar="URI", help="Another model that scores importance too."
)
@click.option("--tries", type=click.IntRange(1), default=3, help="Answers asked for, at most, a picture.")
@click.option("--max-requests", type=click.IntRange(0), help="Requests of the whole run, at most.")
@click.option("--dry-run", is_flag=True, help="Show the first question and what all will cost; send nothing.")
@click.option("--price", metavar="IN/OUT", help="Price of a million tokens in and out, for --dry-run.")
@click.option("--sample", type=click.IntRange(1), help="Ask about so many pictures only, and show them.")
@click.option("--html", type=PAGE, help="Page to show the pictures on [default: OUT.sample.html].")
@click.option("--json", "json_path", type=PATH, help="Also write the counts as JSON; - for stdout.")
@RESUME
def enrich(
    path: Path,
    teacher: str,
    out: Path,
    images: Path | None,
    allow_outside: bool,
    format: Format | None,
    jobs: str,
    apart: bool,
    words: str,
    voters: tuple[str, ...],
    tries: int,
    max_requests: int | None,
    dry_run: bool,
    price: str | None,
    sample: int | None,
    html: Path | None,
    json_path: Path | None,
    resume: bool,
) -> None:
    """Make training targets of short annotations: reasons, think traces, importance, by a teacher.

    Boxes, labels and their number stay exactly as they are. An answer that does not keep to this, or is not
    English, too long or short, or names coordinates or annotations in its trace is asked for again with its
    fault named; after --tries the picture is left for a person, in OUT.left.jsonl. Exit code 1 if anything is
    left or unanswered.

    \b
    Examples:
      sdg data enrich short.jsonl --teacher openai:https://api.openai.com/v1#MODEL --out train.jsonl --dry-run
      sdg data enrich short.jsonl --teacher openai:URL#MODEL --out train.jsonl --sample 12
      sdg data enrich short.jsonl --teacher openai:URL#MODEL --out train.jsonl --resume
    """
    from sdg.data.formats import read_records
    from sdg.io.jsonl import is_parquet
    from sdg.teacher.enrich import LEFT, UNANSWERED, choose_sample, left_of
    from sdg.teacher.enrich import enrich as run
    from sdg.teacher.plan import Plan, prepare
    from sdg.teacher.preview import estimate, read_price, write_page

    if is_parquet(out):
        raise click.BadParameter("Training targets are JSON Lines; name a .jsonl file.", param_hint="--out")
    asked = tuple(part.strip() for part in jobs.split(",") if part.strip())
    plan = Plan(teacher, asked, apart, _range(words), voters, tries, max_requests)  # type: ignore[arg-type]
    per_million = None if price is None else read_price(price)
    given, unknown = prepare(
        read_records(path, format), path.parent if images is None else images, allow_outside=allow_outside
    )
    if unknown:
        say(f"{len(unknown):,} pictures have no annotation, or a broken one, and are left out.")
    if dry_run:
        cost = estimate(given, plan.stages, tries)
        if not write_numbers(json_path, cost.to_dict(per_million)):
            if given:
                show(plan.stages[0].question.text(given[0].record.prompt, given[0].diagnosis) + "\n")
            print_tables([cost.table(per_million)])
        say("Nothing was sent.")
        return
    only = None if sample is None else choose_sample(given, sample)
    pictures = [given[index] for index in (range(len(given)) if only is None else only)]
    with counted("Answers", len(pictures) * len(plan.stages)) as advance:
        answers = 0

        def on_row(row: object) -> None:
            nonlocal answers
            answers += 1
            advance(answers)

        with resumable(out, "What is answered so far is kept"):
            result = run(given, out, plan, resume=resume, only=only, on_row=on_row)
    if sample is not None or html is not None:
        page = html or out.with_name(out.name.removesuffix(".jsonl") + ".sample.html")
        say(f"Page: {write_page(pictures, result, page, 'What the teacher wrote', f'Teacher: {teacher}')}")
    if not write_numbers(json_path, result.to_dict()):
        print_tables(result.tables())
    if result.exhausted:
        raise SdgError(
            f"{result.requests:,} requests are sent, and no more were allowed; "
            "go on with --resume and a larger --max-requests."
        )
    if silent := result.statuses[UNANSWERED]:
        error = next(row["error"] for row in result.rows.values() if row["status"] == UNANSWERED)
        raise SdgError(f"{silent:,} pictures got no answer; ask again with --resume. The first: {error}")
    if sample is not None:
        say(f"Look at the page, then ask about the rest with --resume --out {out}.")
        return
    if left := result.statuses[LEFT]:
        raise SdgError(f"{left:,} of {result.images:,} pictures are left for a person, in {left_of(out)}.")


def _range(text: str) -> tuple[int, int]:
    least, _, most = text.partition("-")
    if not all(side.strip().isdecimal() and len(side) < 10 for side in (least, most)):
        raise click.BadParameter(f"{text!r} is not FROM-TO, such as 18-45.", param_hint="--words")
    return int(least), int(most)
