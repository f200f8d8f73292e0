"""Label Studio's API as far as `sdg annotate` asks for it, in memory, and made to fail."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "t" * 40


class FakeLabelStudio:
    """A server that answers until `dies_after` requests are written, and again once that is None."""

    def __init__(self) -> None:
        self.projects: list[dict[str, Any]] = []
        self.tasks: dict[int, list[dict[str, Any]]] = {}
        self.storages: list[dict[str, Any]] = []
        self.users = {1: "owner@study.local"}
        self.dies_after: int | None = None
        self.shows_pictures = True
        self.asked: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self._answer("GET", None)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer("POST", body)

            def _answer(self, method: str, body: Any) -> None:
                status, value = fake._answer(method, self.path, body, self.headers.get("Authorization", ""))
                content = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def project(self, phase: str, person: str) -> list[dict[str, Any]]:
        """The tasks of a project."""
        (found,) = (one["id"] for one in self.projects if one["title"] == f"{phase} · {person}")
        return self.tasks[found]

    def enter(self, task: dict[str, Any], person: str, result: list[Any]) -> None:
        """Somebody submits."""
        number = next((number for number, email in self.users.items() if email == person), 0)
        if not number:
            number = len(self.users) + 1
            self.users[number] = person
        entered = sum(len(one["annotations"]) for tasks in self.tasks.values() for one in tasks) + 1
        task["annotations"].append({"id": entered, "completed_by": number, "result": result, "lead_time": 60})

    def _answer(self, method: str, path: str, body: Any, authorization: str) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if authorization != f"Token {TOKEN}":
            return 401, {"detail": "Invalid token."}
        if method == "POST" and self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                return 503, {"detail": "I am dying"}
        place, _, query = path.partition("?")
        if place == "/api/current-user/whoami":
            return 200, {"id": 1}
        if place == "/api/users":
            return 200, [{"id": number, "email": email} for number, email in self.users.items()]
        if place == "/api/invite":
            return 200, {"invite_url": "/user/signup/?token=x"}
        if place == "/data/local-files/":
            return (200, {}) if self.shows_pictures else (404, {"detail": "Not found."})
        if place == "/api/projects" and method == "POST":
            assert len(body["title"]) <= 50
            self.projects.append(body | {"id": len(self.projects) + 1})
            self.tasks[len(self.projects)] = []
            return 201, self.projects[-1]
        if place == "/api/projects":
            page, size = (int(re.search(rf"{name}=(\d+)", query)[1]) for name in ("page", "page_size"))
            return 200, {
                "count": len(self.projects),
                "results": self.projects[(page - 1) * size : page * size],
            }
        if place == "/api/storages/localfiles" and method == "POST":
            self.storages.append(body)
            return 201, body
        if place == "/api/storages/localfiles":
            return 200, [one for one in self.storages if f"project={one['project']}" == query]
        project = int(re.fullmatch(r"/api/projects/(\d+)/(?:export|import)", place)[1])
        if method == "GET":
            return 200, self.tasks[project]
        for task in body:
            number = sum(map(len, self.tasks.values())) + 1
            self.tasks[project].append(task | {"id": number, "annotations": []})
        return 201, {"task_count": len(body)}
