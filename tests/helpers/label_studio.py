"""People at a Label Studio server: each signs up, sees the tasks of their projects, and submits."""

from __future__ import annotations

from typing import Any

import httpx2


class Person:
    """Somebody with an account, in a session of their own, as a browser has one."""

    def __init__(self, url: str, invitation: str, email: str) -> None:
        self.email = email
        self._client = httpx2.Client(base_url=url, timeout=120, trust_env=False)
        self._sign_up(invitation)

    def open_tasks(self) -> list[tuple[str, dict[str, Any]]]:
        """Phase and task of whatever nobody has entered anything for, in their own projects."""
        found = []
        for project in self._get("/api/projects?page_size=100")["results"]:
            phase, _, whose = project["title"].partition(" · ")
            if whose == self.email:
                tasks = self._get(f"/api/tasks?project={project['id']}&page_size=200&fields=all")["tasks"]
                found += [(phase, task) for task in tasks if not task["annotations"]]
        return found

    def submit(
        self, task: dict[str, Any], result: list[Any], *, skip: bool = False, seconds: float = 90
    ) -> None:
        """Enter a result, as the page's button does."""
        body = {"result": result, "lead_time": seconds, "was_cancelled": skip}
        answer = self._client.post(
            f"/api/tasks/{task['id']}/annotations/",
            json=body,
            headers={"X-CSRFToken": self._client.cookies["csrftoken"], "Referer": str(self._client.base_url)},
        )
        assert answer.status_code == 201, answer.text

    def get(self, path: str) -> httpx2.Response:
        """Whatever else the server has."""
        return self._client.get(path)

    def _sign_up(self, address: str) -> None:
        self._client.get(address).raise_for_status()
        form = {
            "email": self.email,
            "password": "a-Long-enough-word-7",
            "csrfmiddlewaretoken": self._client.cookies["csrftoken"],
        }
        answer = self._client.post(address, data=form, headers={"Referer": str(self._client.base_url)})
        assert answer.status_code == 302, answer.text[-2000:]

    def _get(self, path: str) -> Any:
        answer = self._client.get(path)
        answer.raise_for_status()
        return answer.json()


def seeded(task: dict[str, Any]) -> list[Any]:
    """What a task begins with, as the page shows it."""
    return [region for prediction in task["predictions"] for region in prediction["result"]]


def verdict(name: str, comment: str = "") -> list[Any]:
    """What the page enters for the whole picture of a review."""
    found = [{"id": "v", "from_name": "verdict", "type": "choices", "value": {"choices": [name]}}]
    if comment:
        found.append({"id": "c", "from_name": "comment", "type": "textarea", "value": {"text": [comment]}})
    return [one | {"to_name": "image", "origin": "manual"} for one in found]
