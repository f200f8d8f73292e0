"""`sdg app`: look, correct, repair and compare in a browser, and the same as a Space."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import click

from sdg.cli.options import PATH, prompts_of
from sdg.cli.terminal import say, show


class _Opening(click.Group):
    """`sdg app` opens the app: what names none of the commands are its options and pictures."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["open", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Opening)
def app() -> None:
    """Look at pictures, correct, repair and compare in a browser, on this machine.

    Without one of the commands below this is `sdg app open`.

    \b
    Examples:
      sdg app
      sdg app --detector hf:out/grpo --detector testbed --out corrections pictures/
    """


@app.command("open")
@click.argument("pictures", nargs=-1, type=PATH, metavar="[IMAGE|FOLDER|FILE.jsonl]...")
@click.option(
    "--detector",
    "detectors",
    multiple=True,
    default=("testbed",),
    metavar="URI",
    help="As for `sdg diagnose`; may be repeated, to choose from and to compare.",
)
@click.option(
    "--editor",
    "editors",
    multiple=True,
    show_default="testbed, where a detector is",
    metavar="URI",
    help="As for `sdg refine`; may be repeated.",
)
@prompts_of
@click.option(
    "--out",
    type=PATH,
    default=Path("corrections"),
    metavar="DIR",
    help="Folder that corrected pictures are saved to, as rows of SDG-30K.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    show_default="the first free one from 7860 on",
    help="Port on 127.0.0.1.",
)
def open_app(
    pictures: tuple[Path, ...],
    detectors: tuple[str, ...],
    editors: tuple[str, ...],
    out: Path,
    port: int | None,
    **reading: Any,
) -> None:
    """Open the app on this machine, until Ctrl-C; no other machine reaches it.

    Pictures are those to begin with, by default some of the embedded world. A JSON Lines file of annotations
    brings their truth as well.

    \b
    Example:
      sdg app --detector openai:http://localhost:8000/v1#ORG/NAME pictures/ --prompt "a cat on a mat"
    """
    from sdg.app.offer import Offer, drawn_examples, examples_of, known_truth, usual_editors
    from sdg.runs.inputs import gather

    if pictures:
        if reading["prompt"] is None and reading["prompts"] is None:
            reading["prompt"] = ""  # to be given in the page
        items = gather(pictures, **reading)
        examples = examples_of(items, known_truth(pictures, reading["images"]))
    else:
        from sdg.testbed.entry import examples as drawn

        examples = drawn_examples(drawn())
    editors = tuple(dict.fromkeys(editors)) or usual_editors(detectors)
    offer = Offer(tuple(dict.fromkeys(detectors)), editors, examples, out)
    from sdg.app.page import build, launch  # last: it takes seconds, which a wrong path need not wait for

    page = build(offer)
    show(launch(page, offer, port))
    say("Open this address in a browser; Ctrl-C stops the app.")
    _wait()
    page.close(verbose=False)
    say("Stopped.")


def _wait() -> None:
    """Until Ctrl-C or SIGTERM, also where a shell that started it in the background had Ctrl-C ignored."""
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    ended.wait()
    for number, handler in before.items():  # a second one ends what is left at once
        signal.signal(number, handler)


@app.command("export-space")
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--detector", metavar="URI", help="As for `sdg diagnose`; a checkpoint's folder is copied.")
@click.option(
    "--editor", "editors", multiple=True, metavar="URI", help="As for `sdg refine`; may be repeated."
)
@click.option("--report", type=PATH, metavar="FILE.html", help="A report, for a static Space.")
@click.option("--title", default="", show_default=False, help="Title of the Space.")
def export_space(
    folder: Path, detector: str | None, editors: tuple[str, ...], report: Path | None, title: str
) -> None:
    """Write a Hugging Face Space into a new folder: the app for a detector, or a report as a static page.

    The folder holds a copy of this package; its requirements are those of the package. Nothing is uploaded.

    \b
    Examples:
      sdg app export-space space --detector hf:ORG/NAME
      sdg app export-space page --report report.html
    """
    from sdg.app.space import export_app, export_report

    if (detector is None) == (report is None):
        raise click.UsageError("Name a --detector or a --report.")
    if report is not None:
        show(export_report(folder, report, title=title))
    elif detector is not None:
        show(export_app(folder, detector, editors, title=title))
    say("Look at it, then push it to a Space: git push, or hf upload ORG/NAME.")
