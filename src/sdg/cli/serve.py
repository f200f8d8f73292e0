"""`sdg serve`: models behind HTTP on this machine."""

from __future__ import annotations

import click

from sdg.cli.terminal import say


@click.group()
def serve() -> None:
    """Serve a scorer on this machine, from an environment of its own.

    \b
    Example:
      sdg serve scorer python:hpsv3_scorer.score --port 9101
    """


@serve.command()
@click.argument("uri", metavar="URI")
@click.option("--port", type=click.IntRange(0, 65535), default=9101, show_default=True, help="0: a free one.")
@click.option("--device", default="cpu", show_default=True, help="Where its weights are loaded.")
def scorer(uri: str, port: int, device: str) -> None:
    """Answer for the scorer of URI, such as python:MODULE.FUNCTION, on 127.0.0.1 until Ctrl-C.

    This needs the core of the package alone, so it installs into the environment of any model. Recipes and
    commands elsewhere ask it as remote:http://localhost:PORT.

    \b
    Example:
      PYTHONPATH=scorers/hpsv3 sdg serve scorer python:hpsv3_scorer.score --port 9101
    """
    from sdg.scorers import load_scorer
    from sdg.serve.scorer import ScorerServer

    with ScorerServer(load_scorer(uri, device), port) as server:
        say(f"Serving {uri}; ask it as remote:{server.address}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("Stopped.")
