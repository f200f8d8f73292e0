"""`sdg annotate`: people annotate pictures on a Label Studio server, and their work becomes rows."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdg.cli.options import PAGE, PATH, SEED, sources_and_prompts, together, write_numbers
from sdg.cli.progress import counted, embedder_of
from sdg.cli.terminal import say, show
from sdg.errors import SdgError
from sdg.tables import print_tables

if TYPE_CHECKING:
    from sdg.annotate.api import Server
    from sdg.annotate.study import Study
    from sdg.defects import Diagnosis

_PROJECT = click.option("--project", required=True, type=PATH, metavar="DIR", help="Folder of the study.")


_server_options = together(
    _PROJECT,
    click.option(
        "--url",
        envvar="LABEL_STUDIO_URL",
        show_envvar=True,
        help="A server that is there already [default: that of `sdg annotate serve`].",
    ),
    click.option(
        "--token-env",
        default="LABEL_STUDIO_API_KEY",
        metavar="NAME",
        help="Environment variable that holds the token.",
    ),
)


@click.group()
def annotate() -> None:
    """Annotate pictures by people: two passes, reviews, adjudication, rows to train on.

    \b
    Example:
      sdg annotate serve --project study                  (in a terminal of its own)
      sdg annotate start pictures/ --prompts prompts.jsonl --annotators ann@lab.org,bob@lab.org,eva@lab.org \\
          --project study
      sdg annotate next --project study                   (as often as you like)
      sdg annotate collect --project study --out annotations.jsonl
    """


@annotate.command()
@_PROJECT
@click.option("--port", type=click.IntRange(1, 65535), default=8080)
@click.option(
    "--label-studio",
    "executable",
    metavar="PROGRAM",
    help="Where label-studio lies [default: SDG_LABEL_STUDIO, then the PATH].",
)
def serve(project: Path, port: int, executable: str | None) -> None:
    """Start a Label Studio server for the study in DIR, on this machine alone, and keep it running.

    What people enter lies in DIR/server; stopping the server with Ctrl-C, or a crash, loses nothing that
    was saved. The first start takes a minute or two.

    \b
    Example:
      sdg annotate serve --project study --label-studio ls/bin/label-studio
    """
    from rich.console import Console

    from sdg.annotate.serve import LOGIN, find_label_studio, serving

    program = find_label_studio(executable)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    spinner = Console(stderr=True).status("Starting Label Studio")
    spinner.start()
    try:
        with serving(
            project,
            program,
            port=port,
            on_wait=lambda waited: spinner.update(f"Starting Label Studio, {waited:.0f} s"),
        ) as (login, process):
            spinner.stop()
            say(f"Label Studio runs at {login.url}. Its owner's account is in {project / LOGIN}.")
            say("Stop it with Ctrl-C; what was saved stays.")
            process.wait()
            raise SdgError("The server stopped by itself; start it again, what was saved is still there.")
    except KeyboardInterrupt:
        say("Stopped.")
    finally:
        spinner.stop()


@annotate.command()
@sources_and_prompts
@click.option(
    "--annotators",
    required=True,
    metavar="N|E-MAILS",
    help="E-mails with commas between; or a number, and they are annotator-1@study.local and so on.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    help="Part of the pictures given to two people, for agreement [default: 0.1 where there are three].",
)
@click.option(
    "--reviews",
    type=click.IntRange(0, 2),
    help="Rounds of review, each by somebody else [default: 2 where there are two people].",
)
@click.option(
    "--proposals", metavar="DETECTOR", help="Begin pass 1 with a detector's boxes, marked in the rows."
)
@click.option(
    "--document-root",
    type=PATH,
    help="Folder that the server serves local files from [default: DIR/files].",
)
@SEED
@_server_options
def start(
    sources: tuple[Path, ...],
    annotators: str,
    share: float | None,
    reviews: int | None,
    proposals: str | None,
    document_root: Path | None,
    seed: int,
    project: Path,
    url: str | None,
    token_env: str,
    **reading: Any,
) -> None:
    """Share pictures out among annotators, and give each their first pass on the server.

    Everybody has projects of their own, whose pictures go by numbers. People sign up themselves at the
    address that is printed, with these e-mails. Called again with the same arguments, it goes on.

    \b
    Example:
      sdg annotate start pictures/ --prompts prompts.jsonl --annotators 3 --project study
    """
    from sdg.annotate.assignment import default_reviews, default_share
    from sdg.annotate.study import FILES, Settings, begin_study
    from sdg.io.paths import real_path
    from sdg.runs.inputs import gather

    people = _people(annotators)
    items = gather(sources, **reading)
    server = _connect(project, url, token_env)
    settings = Settings(
        people,
        default_share(len(people)) if share is None else share,
        default_reviews(len(people)) if reviews is None else reviews,
        seed,
        proposals or "",
        str(real_path(document_root or project / FILES)),
    )

    def propose() -> Mapping[tuple[str, str], Diagnosis]:
        from sdg.detectors import bulk, load_detector
        from sdg.io.predictions import read_prediction

        out = project / "proposals.jsonl"
        with counted("Proposals", len(items)) as done:
            summary = bulk.run(
                load_detector(proposals or ""),
                items,
                out,
                resume=True,
                on_result=lambda _, left: done(len(items) - left),
            )
        if summary.failed:
            raise SdgError(
                f"The detector has no answer for {len(summary.failed):,} of {len(items):,} pictures, "
                f"the first because: {summary.failed[0]['error']} The same command asks for those again."
            )
        from sdg.io import jsonl

        rows = jsonl.read_with(out, read_prediction)
        return {(row.filepath, row.prompt): row.diagnosis for row in rows if row.diagnosis is not None}

    study = begin_study(project, items, settings, propose if proposals else None)
    say(f"{len(study.pictures):,} pictures, {len(people)} annotators.")
    _advance(study, server, begins=True)
    say(f"Annotators sign up, with their e-mail, at {server.invitation()}")
    say(f"When they have entered something, go on with: sdg annotate next --project {project}")


@annotate.command("next")
@_server_options
def next_(project: Path, url: str | None, token_env: str) -> None:
    """Give everybody what comes next for each picture: second pass, review, adjudication, another look.

    It follows from what is on the server, so it may be called at any time and as often as you like.
    What does not hold (no reason, an importance of 55.5, an empty annotation, a skipped picture) goes back
    to whoever entered it, with the reason on top of the page.

    \b
    Example:
      sdg annotate next --project study
    """
    from sdg.annotate.study import read_study

    _advance(read_study(project), _connect(project, url, token_env))


@annotate.command()
@click.option("--json", "json_path", type=PATH, metavar="FILE", help="Also write it as JSON; - for stdout.")
@_server_options
def status(project: Path, url: str | None, token_env: str, json_path: Path | None) -> None:
    """Who has done how much, minutes a picture, and how far annotators agree so far.

    \b
    Example:
      sdg annotate status --project study
    """
    from sdg.annotate.advance import agreed_so_far, agreement_table, look, progress_table
    from sdg.annotate.study import read_study

    study = read_study(project)
    state = look(study, _connect(project, url, token_env))
    with embedder_of("token-f1") as embedder:
        agreed = agreed_so_far(state, embedder)
    document = {
        "pictures": len(state.outcomes),
        "finished": len(state.finished),
        "waiting": len(state.needs),
        "progress": [
            {"phase": phase, "person": person, "given": one.given, "done": one.done, "back": one.back}
            | {"minutes": round(one.seconds / 60, 2)}
            for (phase, person), one in state.progress.items()
        ],
        "agreement": None if agreed is None else agreed.to_document(),
    }
    if write_numbers(json_path, document):
        return
    print_tables([progress_table(study, state), *([] if agreed is None else [agreement_table(agreed)])])
    if state.needs:
        show(f"{len(state.needs):,} tasks can be given out: sdg annotate next --project {project}")


@annotate.command()
@sources_and_prompts
@click.option("--out", required=True, type=PAGE, metavar="PAGE.html")
def page(sources: tuple[Path, ...], out: Path, **reading: Any) -> None:
    """Write a few pictures into one HTML file on which one person annotates them; it needs no server.

    Boxes are drawn by mouse or touch. What is downloaded from the page is read by `sdg annotate read`.

    \b
    Example:
      sdg annotate page pictures/ --prompts prompts.jsonl --out annotate.html
    """
    from sdg.annotate.offline import write_offline
    from sdg.runs.inputs import gather

    items = gather(sources, **reading)
    written = write_offline(out, items)
    say(f"{len(items):,} pictures: {written} ({written.stat().st_size / 1e6:.1f} MB)")


@annotate.command()
@click.argument("entered", type=PATH, nargs=-1, required=True, metavar="ANNOTATIONS.json...")
@click.option("--out", required=True, type=PATH, metavar="FILE", help="Rows as SDG-30K's.")
def read(entered: tuple[Path, ...], out: Path) -> None:
    """Rows of what was downloaded from pages of `sdg annotate page`, checked as `collect` checks.

    What does not hold is listed with the reason, for whoever entered it, and left out; exit code 1 then.

    \b
    Example:
      sdg annotate read annotations-ann.json --out annotations.jsonl
    """
    from sdg.annotate.offline import read_all
    from sdg.data.formats.sdg30k import write_annotations
    from sdg.io.paths import real_path

    if real_path(out) in map(real_path, entered):
        raise SdgError(f"{out} is what was downloaded, and would be replaced; name another output.")
    records, faults = read_all(entered)
    for fault in faults:
        say(fault)
    count = write_annotations(out, records)
    say(f"{count:,} pictures are annotated: {out}")
    if faults:
        raise SdgError(
            f"{len(faults):,} faults are left, listed above; mend them on the page and download again."
        )


@annotate.command()
@click.option("--out", required=True, type=PATH, metavar="FILE", help="Rows as SDG-30K's, one a picture.")
@click.option(
    "--opinions",
    type=PATH,
    metavar="FILE",
    help="Also what each of two annotators said before any review, for `sdg data agreement`.",
)
@_server_options
def collect(project: Path, url: str | None, token_env: str, out: Path, opinions: Path | None) -> None:
    """Write a row for every picture that is finished, and give back what does not hold, as `next` does.

    Each row says who annotated, in how many minutes, and what each review decided. Rows that are there
    already are replaced, but never by none.

    \b
    Example:
      sdg annotate collect --project study --out annotations.jsonl
    """
    from sdg.annotate import advance
    from sdg.annotate.study import read_study
    from sdg.data.formats.sdg30k import write_annotations

    study = read_study(project)
    state = _advance(study, _connect(project, url, token_env))
    _keep_rows(out, bool(state.finished))
    if opinions is not None:
        _keep_rows(opinions, next(advance.opinions(state), None) is not None)
    count = write_annotations(out, advance.rows(study, state.outcomes))
    say(f"{count:,} of {len(state.outcomes):,} pictures are finished: {out}")
    if opinions is not None:
        pairs = write_annotations(opinions, advance.opinions(state))
        say(f"{pairs:,} annotations of pictures that two annotate: {opinions}")


def _keep_rows(file: Path, found: bool) -> None:
    from sdg.io.files import writing

    with writing(file):
        lost = not found and file.is_file() and file.stat().st_size > 0
    if lost:
        raise SdgError(f"There are no rows yet, and those in {file} would be lost; name another output.")


def _advance(study: Study, server: Server, *, begins: bool = False) -> Any:
    from sdg.annotate.advance import advance

    state, added = advance(study, server, begins=begins)
    for one in added:
        back = f", {one.back:,} of them to look at again" if one.back else ""
        say(f"{one.person}: {one.tasks:,} tasks for {one.phase}{back}.")
    if not added:
        say("There is nothing new to give out.")
    return state


def _people(text: str) -> tuple[str, ...]:
    if text.isdecimal():
        if not (len(text) < 10 and 1 <= int(text) <= 1000):
            raise click.BadParameter("There can be 1 to 1000 annotators.", param_hint="--annotators")
        return tuple(f"annotator-{number}@study.local" for number in range(1, int(text) + 1))
    people = tuple(part.strip() for part in text.split(",") if part.strip())
    if not people:
        raise click.BadParameter("Name at least one annotator.", param_hint="--annotators")
    for person in people:
        name, _, place = person.partition("@")
        if not (name and place and person.isprintable() and " " not in person and len(person) < 200):
            raise click.BadParameter(f"{person!r} is no e-mail.", param_hint="--annotators")
    return people


def _connect(folder: Path, url: str | None, token_env: str) -> Server:
    """The server that is named, or else that of `sdg annotate serve`, if its token is right."""
    from sdg.annotate.api import Server
    from sdg.annotate.serve import read_login, require_running

    login = None if url else read_login(folder)
    if login is not None:
        require_running(folder, login)
    token = os.environ.get(token_env) or (login.token if login is not None else "")
    address = url or (login.url if login is not None else "")
    if not address:
        raise SdgError(
            f"There is no server yet: start one with `sdg annotate serve --project {folder}`, or give --url."
        )
    if not token:
        raise SdgError(f"{address} asks for a token; put one into the environment variable {token_env}.")
    return Server(address, token).connect()
