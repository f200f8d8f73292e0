"""A Label Studio server by its HTTP API: projects, tasks, people. Tried with 1.23, community edition."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from sdg.errors import SdgError, quoted
from sdg.io.http import HttpClient, Refused, TryAgain, Unanswered, is_address

TIMEOUT: Final = 300.0
"""Seconds for one request: an export of a large project takes a minute."""
ATTEMPTS: Final = 4
CHUNK: Final = 200
"""Tasks sent at once."""
MOST_BYTES: Final = 1 << 30
_PAGE: Final = 100


class Server:
    """Label Studio at `url` as the user whose token this is: a legacy one or a personal access token.

    What only reads is asked for again where the server is busy; what writes is sent once, and whoever calls
    looks first at what is there. All methods raise SdgError, in one sentence, where the server refuses or
    does not answer.
    """

    def __init__(self, url: str, token: str, *, timeout: float = TIMEOUT) -> None:
        if not is_address(url):
            raise SdgError(f"{quoted(url)} is no address of a server, such as http://127.0.0.1:8080.")
        self.url = url.rstrip("/")
        self._client = HttpClient(self.url, token, timeout=timeout, attempts=ATTEMPTS, most_bytes=MOST_BYTES)
        self._refresh = token if token.count(".") == 2 else None
        self._authorization, self._renewed = f"Token {token}", 0.0

    def connect(self) -> Self:
        """Make sure that the server is there, and that the token is one of it."""
        self._renew()
        self._ask("GET", "/api/current-user/whoami")
        return self

    def _renew(self) -> None:
        """A personal access token only serves to get one that holds for minutes."""
        if self._refresh is not None:
            self._authorization = ""
            answer = self._ask("POST", "/api/token/refresh/", {"refresh": self._refresh})
            self._authorization = f"Bearer {_of(answer, 'access', str)}"
            self._renewed = time.monotonic()

    def emails(self) -> dict[int, str]:
        """The e-mail of every user, by number."""
        return {_of(one, "id", int): _of(one, "email", str) for one in _list(self._ask("GET", "/api/users"))}

    def invitation(self) -> str:
        """The address at which people sign up."""
        address = _of(self._ask("GET", "/api/invite"), "invite_url", str)
        return address if address.startswith("http") else self.url + address

    def projects(self) -> Iterator[tuple[int, str]]:
        """Number and description of every project."""
        page, count = 1, 1
        while (page - 1) * _PAGE < count:
            found = self._ask("GET", f"/api/projects?page={page}&page_size={_PAGE}&include=id,description")
            count = _of(found, "count", int)
            for one in _list(_of(found, "results", list)):
                yield _of(one, "id", int), str(one.get("description") or "")
            page += 1

    def create_project(self, title: str, description: str, config: str, instruction: str) -> int:
        """Make a project whose tasks come in their order, what is drawn already being shown; its number."""
        settings = {
            "title": title[:50],  # all that it takes
            "description": description,
            "label_config": config,
            "expert_instruction": instruction,
            "show_instruction": False,
            "show_skip_button": True,
            "enable_empty_annotation": False,
            "show_collab_predictions": True,
            "sampling": "Sequential sampling",
            "maximum_annotations": 1,
        }
        return _of(self._ask("POST", "/api/projects", settings), "id", int)

    def serve_pictures(self, project: int, folder: Path) -> None:
        """Let a project show the pictures of a folder on the server's disk."""
        path = str(folder)
        found = _list(self._ask("GET", f"/api/storages/localfiles?project={project}"))
        if not any(one.get("path") == path for one in found):
            storage = {"project": project, "path": path, "title": "pictures", "use_blob_urls": True}
            self._ask("POST", "/api/storages/localfiles", storage)

    def require_picture(self, address: str) -> None:
        """Raise SdgError where the server does not show a picture."""
        try:
            self._ask("GET", address, read=lambda content: None)
        except SdgError as error:
            raise SdgError(
                f"{error} So it shows no pictures: start it with "
                "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT at "
                "the folder that --document-root names."
            ) from None

    def tasks(self, project: int) -> list[Mapping[str, Any]]:
        """All tasks of a project, each with its annotations."""
        path = f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true"
        return _list(self._ask("GET", path))

    def add_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Add tasks, in their order."""
        for start in range(0, len(tasks), CHUNK):
            part = tasks[start : start + CHUNK]
            answer = self._ask("POST", f"/api/projects/{project}/import", list(part))
            if _of(answer, "task_count", int) != len(part):
                raise SdgError(f"The server took only a part of {len(part):,} tasks: {quoted(answer)}.")

    def _ask(self, method: str, path: str, body: object = None, read: Any = None) -> Any:
        used = self._authorization
        request: dict[str, Any] = {"headers": {"Authorization": used} if used else {}}
        if body is not None:
            request["content"] = json.dumps(body).encode("ascii")
            request["headers"]["Content-Type"] = "application/json"
        attempts = 1 if method == "POST" else None

        try:
            return self._client.once(method, path, read or _value, attempts=attempts, **request)
        except Refused as error:
            if error.status == 401 and used.startswith("Bearer") and time.monotonic() > self._renewed + 60:
                self._renew()
                return self._ask(method, path, body, read)
            hint = " Is the token one of this server?" if error.status in (401, 403) else ""
            raise SdgError(f"{self.url}{path.partition('?')[0]}: {error}{hint}") from None
        except Unanswered as error:
            raise SdgError(f"{self.url}{path.partition('?')[0]}: {error}") from None


def picture_address(path: str) -> str:
    """Where the server shows a picture; path: relative to its document root."""
    return "/data/local-files/?d=" + quote(path)


def _value(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except (ValueError, RecursionError):
        raise TryAgain("The server's answer is no JSON; is it Label Studio") from None


def _list(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise SdgError(f"The server's answer is no list of objects, but {quoted(value)}; is it Label Studio?")
    return value


def _of(value: object, key: str, kind: type) -> Any:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise SdgError(f"The server's answer has no {key!r}, but is {quoted(value)}; is it Label Studio?")
    return found
