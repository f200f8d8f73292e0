"""`sdg serve`: models behind HTTP on this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import click

from sdg.cli.options import together
from sdg.cli.terminal import say
from sdg.errors import SdgError

FEWEST_WAITING = 64  # one request's items at most, which must fit an empty queue


_serving = together(
    click.option("--host", default="127.0.0.1", help="Others than this need --token-env."),
    click.option("--port", type=click.IntRange(0, 65535), default=8009, help="0: a free one."),
    click.option(
        "--token-env", metavar="NAME", help="Environment variable of the token that callers must bring."
    ),
    click.option(
        "--queue",
        type=click.IntRange(FEWEST_WAITING),
        default=256,
        help="Pictures that are worked on or wait; more are told to come back (429).",
    ),
)
"""Options of a server of detectors."""


@click.group(invoke_without_command=True)
@click.option("--detector", "uri", metavar="URI", help="Detector, as of `sdg diagnose`.")
@click.option(
    "--scorer", "scorers", metavar="URI", multiple=True, help="Part of the reward R; may be repeated."
)
@click.option("--device", help="Where scorers load weights; a GPU if there is one [default: auto].")
@_serving
@click.pass_context
def serve(
    context: click.Context,
    uri: str | None,
    scorers: tuple[str, ...],
    device: str | None,
    **serving: Any,
) -> None:
    """Serve a detector and rewards over HTTP, for trainers and pipelines of your own.

    Answers /v1/diagnose, /v1/reward and /v1/guard, and OpenAI's /v1/chat/completions; /docs says in which
    form. Until Ctrl-C. Without --detector one of the commands below is named.

    \b
    Example:
      sdg serve --detector testbed --port 8009
      sdg serve --detector hf:out/grpo --scorer clip:openai/clip-vit-large-patch14
    """
    if context.invoked_subcommand is not None:
        if any(
            context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
            for name in context.params
        ):
            raise click.UsageError(f"Options come behind {context.invoked_subcommand}.")
        return
    if uri is None:
        raise click.UsageError("Name a --detector, or one of the commands: detector, scorer.")
    if device is not None and not scorers:
        raise click.UsageError("--device is the scorers'; a detector's stands in its URI, as ?device=cuda:1.")
    _serve_detector(uri, scorers, device=device or "auto", **serving)


@serve.command()
@click.argument("uri", metavar="URI")
@_serving
def detector(uri: str, **serving: Any) -> None:
    """Serve the detector of URI; short for `sdg serve --detector URI`.

    Whatever speaks openai: can use it, such as openai:http://127.0.0.1:8009/v1#testbed.

    \b
    Example:
      sdg serve detector "testbed?looks=8"
    """
    _serve_detector(uri, (), device="auto", **serving)


def _serve_detector(
    uri: str,
    scorers: tuple[str, ...],
    *,
    device: str,
    host: str,
    port: int,
    token_env: str | None,
    queue: int,
) -> None:
    from sdg.serve.server import listening, server_of

    token = os.environ.get(token_env, "").strip() if token_env else None
    if token_env and not token:
        raise SdgError(f"The environment variable {token_env} is empty or not set; it holds the token.")
    with listening(host, port, token) as place:
        from sdg.detectors import load_detector
        from sdg.models.device import choose_device
        from sdg.scorers import load_scorer
        from sdg.serve.app import Service
        from sdg.serve.bounds import is_local
        from sdg.serve.models import Measures, Models

        measures = Measures()
        # A scorer elsewhere, as remote:, needs no torch here.
        torch = bool(scorers) and (device != "auto" or find_spec("torch") is not None)
        loaded = [load_scorer(one, choose_device(device) if torch else "cpu") for one in scorers]
        models = Models(load_detector(uri), loaded, queue, measures)
        shown = f"[{host}]" if ":" in host else host
        server = server_of(Service(models, measures, uri, token, local=is_local(shown)))
        say(f"Serving {uri} at http://{shown}:{place.getsockname()[1]}; /docs says how to ask.")
        with suppress(KeyboardInterrupt):  # which uvicorn raises again once it has stopped
            server.run(sockets=[place])
        say("Stopped.")


@serve.command()
@click.argument("uri", metavar="URI")
@click.option("--port", type=click.IntRange(0, 65535), default=9101, help="0: a free one.")
@click.option("--device", default="cpu", help="Where its weights are loaded.")
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
