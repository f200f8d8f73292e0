"""The page: its tabs, and the server behind it, on this machine only."""

from __future__ import annotations

import os
import threading
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported, which asks at once

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from sdg.app import tab_compare, tab_correct, tab_diagnose, tab_repair
from sdg.app.held import Held
from sdg.app.offer import Offer
from sdg.app.shown import style
from sdg.app.working import said
from sdg.errors import SdgError, first_line

HOST = "127.0.0.1"
_LARGEST = 64 * 2**20  # bytes of a file that is dropped
_WAITING = 64
_OWN_NAMES = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])


def build(offer: Offer) -> gr.Blocks:
    """The app, for `launch` or `run_space` to serve; the first detector is being loaded meanwhile."""
    held = Held(offer)
    with gr.Blocks(title="Structured defects", analytics_enabled=False, delete_cache=(3600, 86400)) as app:
        gr.HTML("<h1>Structured defects</h1>" + (said(offer.note) if offer.note else ""), elem_id="head")
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("Diagnose"):
                looked = tab_diagnose.build(offer, held)
            with gr.Tab("Correct"):
                tab_correct.build(offer, looked)
            if offer.editors:
                with gr.Tab("Repair"):
                    tab_repair.build(offer, held, looked)
            with gr.Tab("Compare"):
                tab_compare.build(offer, held)
    held.warm()
    app.queue(max_size=_WAITING, default_concurrency_limit=4)
    return app


def run_space(offer: Offer) -> None:
    """Serve the app where a Space's environment says, until it is stopped."""
    launch(build(offer), offer, host=None)
    threading.Event().wait()


def launch(app: gr.Blocks, offer: Offer, port: int | None = None, host: str | None = HOST) -> str:
    """Serve the app on this machine and return its address; nothing of the environment opens it further.

    port: None for the first free one from 7860 on. host: None for where the environment says, as on a Space.
    Raises SdgError where the port is taken.
    """
    files = [str(one.picture) for one in offer.examples if isinstance(one.picture, Path)]
    try:
        _, address, _ = app.launch(
            share=False,
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            allowed_paths=files or [os.devnull],  # none would leave it to the environment
            theme=_theme(),
            css=style(),
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            max_file_size=_LARGEST,
            quiet=True,
            # A page elsewhere may reach this machine by a name of its own (DNS rebinding).
            app_kwargs={"middleware": [_OWN_NAMES]} if host == HOST else None,
        )
    except OSError as error:
        where = "No port from 7860 on" if port is None else f"Port {port}"
        raise SdgError(f"{where} is free; name another --port. ({first_line(error)})") from None
    return str(address)


def _theme() -> gr.themes.Base:
    """Fonts of the system, as reports have them: nothing is fetched."""
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(  # text of 4.5 : 1 and more
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        color_accent="*primary_600",
    )
