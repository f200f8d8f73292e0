"""A Label Studio server of a study's own, on this machine alone, started without a browser."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sdg.annotate.study import FILES
from sdg.errors import SdgError
from sdg.io.files import writing
from sdg.io.http import HttpClient, Refused, Unanswered
from sdg.io.jsonl import load_document
from sdg.io.paths import real_path

HOST: Final = "127.0.0.1"
PORT: Final = 8080
LOGIN: Final = "server.json"
LOG: Final = "server.log"
EXECUTABLE: Final = "SDG_LABEL_STUDIO"
"""Environment variable that says where `label-studio` lies."""
STARTING: Final = 600.0
"""Seconds that a start may take: the first one makes a database, a minute or two on two cores."""
_STOPPING: Final = 20.0


@dataclass(frozen=True, slots=True)
class Login:
    """Where a study's own server is, and its owner's account.

    token: of its API. secret: what the server signs sessions with, "" where an earlier version made the file.
    """

    url: str
    username: str
    password: str
    token: str
    secret: str = ""


def find_label_studio(named: str | None = None) -> Path:
    """The program: what is named, else the environment's SDG_LABEL_STUDIO, else the PATH's `label-studio`.

    Raises SdgError where there is none.
    """
    wanted = named or os.environ.get(EXECUTABLE) or "label-studio"
    found = shutil.which(wanted)
    if found is None:
        raise SdgError(
            f"{wanted} is not there; install it into an environment of its own (python -m venv ls; "
            f"ls/bin/pip install label-studio) and name it: --label-studio ls/bin/label-studio."
        )
    return Path(found)


def read_login(folder: Path) -> Login | None:
    """The login of the server that `serving` started for a study; None where it never did."""
    path = folder / LOGIN
    if not path.exists():
        return None
    try:
        login = Login(**load_document(path))
        if all(isinstance(value, str) for value in asdict(login).values()) and _port(login):
            return login
    except (TypeError, ValueError):  # of other keys, or none; a port that is no number
        pass
    raise SdgError(f"{path} is damaged; remove it and start the server again.")


def _port(login: Login) -> int:
    """Raises ValueError where the address names one that is none."""
    return urlsplit(login.url).port or PORT


def require_running(folder: Path, login: Login) -> None:
    """Raises SdgError where nothing listens at the address of a study's own server."""
    if not _listening(_port(login)):
        raise SdgError(
            f"The study's server at {login.url} is not up. Start it with `sdg annotate serve --project "
            f"{folder}`, and wait until it says that it runs."
        )


@contextmanager
def serving(
    folder: Path, executable: Path, *, port: int = PORT, on_wait: Callable[[float], object] | None = None
) -> Iterator[tuple[Login, subprocess.Popen[bytes]]]:
    """A server of the study in `folder` that is ready, until the block ends.

    What people enter lies in `folder`/server, so that the next start finds it. Local files are served from
    `folder`/files alone. on_wait: is told every second how long it has been starting.
    Raises SdgError where it does not start, in ten minutes at most.
    """
    if _listening(port):
        raise SdgError(f"Something is listening on port {port} already; stop it, or give another --port.")
    login = _login(folder, port)
    files = real_path(folder / FILES)
    files.mkdir(parents=True, exist_ok=True)
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(real_path(folder / "server")),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(files),
        # Not as arguments, which every user of the machine can list.
        "LABEL_STUDIO_USERNAME": login.username,
        "LABEL_STUDIO_PASSWORD": login.password,
        "LABEL_STUDIO_USER_TOKEN": login.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        # Of the keys that it draws one in fifty begins with "$"; read back, that is a name of a variable, so
        # it draws another at each start and signs everybody out.
        "SECRET_KEY": login.secret,
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    command = [str(executable), "start", "--no-browser", "--internal-host", HOST, "--port", str(port)]
    # Its own packages are not ours.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=folder
        )
        try:
            _wait(process, login.url, folder / LOG, on_wait)
            yield login, process
        finally:
            process.terminate()
            try:
                process.wait(_STOPPING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _login(folder: Path, port: int) -> Login:
    """The study's login, made at its first start, in a file that only its owner can read."""
    url = f"http://{HOST}:{port}"
    known = read_login(folder)
    if known is None:
        known = Login(url, "owner@study.local", secrets.token_urlsafe(12), secrets.token_hex(20))
    login = replace(known, url=url, secret=known.secret or secrets.token_hex(32))
    path = folder / LOGIN
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{LOGIN}.tmp"
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(login), file, indent=2)
        temporary.replace(path)
    return login


def _wait(
    process: subprocess.Popen[bytes], url: str, log: Path, on_wait: Callable[[float], object] | None
) -> None:
    client = HttpClient(url, "", timeout=10, attempts=1)

    def healthy() -> bool:
        try:
            return client.once("GET", "/health", lambda content: b"UP" in content)
        except (Refused, Unanswered):
            return False

    began = time.monotonic()
    while not healthy():
        waited = time.monotonic() - began
        if process.poll() is not None or waited > STARTING:
            how = "did not start" if process.poll() is not None else f"is not up after {waited:.0f} s"
            raise SdgError(f"The server {how}; {log} says why.")
        if on_wait is not None:
            on_wait(waited)
        time.sleep(1)
