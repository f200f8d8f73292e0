"""A real vLLM that serves the embedded detector, in an environment and processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from sdg.testbed.models.packaged import DETECTOR

START = 600.0
"""Seconds that a server may take to start; two busy cores need three minutes."""


class VllmServer:
    """`vllm serve` of the embedded detector in fp32; a process group, so that it can be killed whole."""

    def __init__(self, python: str, environment: dict[str, str], log: Path) -> None:
        self._python, self._environment, self._log = python, environment, log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.root = f"http://127.0.0.1:{self.port}"
        self.uri = f"openai:{self.root}/v1#detector"

    def start(self) -> None:
        words = [
            self._python,
            "-m",
            "vllm.entrypoints.cli.main",
            "serve",
            str(DETECTOR),
            "--dtype",
            "float32",
        ]
        words += ["--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", "detector"]
        words += ["--max-model-len", "1024", "--max-num-seqs", "16", "--enforce-eager", "--enable-scale-out"]
        words += ["--no-enable-prefix-caching"]  # or pictures asked again would come too quickly
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                words, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + START
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.root}/health", timeout=5):
                return
            time.sleep(2)
        raise RuntimeError(f"vLLM did not start: {self._log.read_text()[-3000:]}")

    def kill(self) -> None:
        """`kill -9` of the server and of its engine."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def responses(file: Path) -> dict[str, str]:
    """filepath -> response, of a file of predictions; only of pictures that were answered."""
    rows = map(json.loads, file.read_text().splitlines())
    return {row["filepath"]: row["response"] for row in rows if row["status"] != "failed"}
