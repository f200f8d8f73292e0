"""`sdg serve`: a detector and base rewards behind HTTP, for trainers and pipelines with code of their own.

Every request is bounded before it is read: who asks, how long it is, how long it takes, what it holds. What
could not be answered is null with a reason, never 0 and never clean.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from sdg._version import __version__
from sdg.serve import bounds, chat, guard
from sdg.serve.bounds import Refusal
from sdg.serve.models import Measures, Models
from sdg.serve.openapi import describe, page
from sdg.serve.reward_rows import reward_rows, why_unknown

SLOWEST: Final = 60.0
"""Seconds from the first to the last byte of a request's body."""
MOST_HELD: Final = 4 * bounds.MOST_BYTES
"""Bytes of all bodies that are being read, at most."""
SMALL: Final = 1 << 16
"""Bytes of a body that is read at once: a thread of its own would take longer to come to it."""

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Service:
    """What is answered at each path.

    name: of the detector, as `/v1/models` has it. token: what a caller has to bring; None asks for none.
    local: whether callers have to name this machine in their Host header.
    """

    def __init__(
        self, models: Models, measures: Measures, name: str, token: str | None, *, local: bool
    ) -> None:
        self._models, self._measures, self._name = models, measures, name
        self._token, self._local, self._held = token, local, 0

    def app(self) -> Starlette:
        """The ASGI application."""
        description = describe(__version__, closed=self._token is not None)
        about = page(description)
        routes = [
            self._route("/v1/diagnose", self.diagnose),
            self._route("/v1/reward", self.reward),
            self._route("/v1/guard", self.guard),
            self._route("/v1/chat/completions", self.chat, chat.FORM),
            self._read("/v1/models", lambda: _json(chat.models(self._name))),
            self._read("/metrics", lambda: Response(self._measures.text(), media_type=CONTENT_TYPE_LATEST)),
            self._read("/healthz", lambda: _json({"status": "ok"}), closed=False),
            self._read("/openapi.json", lambda: _json(description), closed=False),
            self._read("/docs", lambda: HTMLResponse(about, headers=_PAGE_HEADERS), closed=False),
        ]
        return Starlette(
            routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: _no_such_path}
        )

    async def diagnose(self, document: dict[str, Any]) -> dict[str, Any]:
        """`/v1/diagnose`."""
        diagnoses, _ = await self._models.ask(bounds.read_items(document), rewards=False)
        return {
            "items": [
                {"status": one.status.value, "defects": one.known_defects(), "error": why_unknown(one)}
                for one in diagnoses
            ]
        }

    async def reward(self, document: dict[str, Any]) -> dict[str, Any]:
        """`/v1/reward`."""
        asked = bounds.read_items(document, "grid")
        grid = _grid(document.get("grid"), len(asked))
        diagnoses, rewards = await self._models.ask(asked, rewards=self._models.has_reward)
        return {"items": await asyncio.to_thread(reward_rows, diagnoses, rewards, grid)}

    async def guard(self, document: dict[str, Any]) -> dict[str, Any]:
        """`/v1/guard`."""
        asked = bounds.read_items(document, "rewards", "history")
        own, history = guard.own_rewards(document, len(asked)), guard.read_history(document, len(asked))
        scored = own is None and self._models.has_reward
        diagnoses, rewards = await self._models.ask(asked, rewards=scored)
        rows = guard.rows_of(diagnoses, rewards if scored else own or [None] * len(asked))
        return await asyncio.to_thread(guard.verdict, history, rows)

    async def chat(self, document: dict[str, Any]) -> dict[str, Any]:
        """`/v1/chat/completions`."""
        item = chat.item_of(document, self._models.profile)
        diagnoses, _ = await self._models.ask([item], rewards=False)
        return chat.completion(diagnoses[0], document.get("model"))

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self._models.close)

    def _route(self, path: str, answer: Answer, form: str = bounds.FORM) -> Route:
        async def endpoint(request: Request) -> Response:
            begun, status = time.perf_counter(), 499  # nginx's for a caller that has gone
            try:
                response = await self._answered(request, answer, form)
                status = response.status_code
                return response
            except Refusal as refusal:
                status = refusal.status
                return _refused(refusal)
            except Exception:
                status = 500
                raise
            finally:
                self._measures.requests.labels(path, status).inc()
                self._measures.seconds.labels(path).observe(time.perf_counter() - begun)

        return Route(path, endpoint, methods=["POST"])

    def _read(self, path: str, answer: Callable[[], Response], *, closed: bool = True) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                self._let_in(request, closed=closed)
            except Refusal as refusal:
                return _refused(refusal)
            return answer()

        return Route(path, endpoint, methods=["GET"])

    def _let_in(self, request: Request, *, closed: bool = True) -> None:
        """Raises Refusal for whoever may not ask."""
        if self._local and not bounds.is_local(request.headers.get("Host", "")):
            raise Refusal(403, "this server is asked as localhost only")
        if closed and self._token is not None:
            kind, _, given = request.headers.get("Authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode("utf-8"), self._token.encode("utf-8"))
            if kind.lower() != "bearer" or not right:
                raise Refusal(401, "the header Authorization: Bearer TOKEN is missing or wrong", **_WHO)

    async def _answered(self, request: Request, answer: Answer, form: str) -> Response:
        self._let_in(request)
        if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "the content type is application/json", **_CLOSE)
        body = await self._body(request)
        self._models.require_room()  # before anything is made of it
        if len(body) <= SMALL:
            document = bounds.read_document(body, form)
        else:
            document = await asyncio.to_thread(bounds.read_document, body, form)
        del body
        asked = asyncio.ensure_future(answer(document))
        del document
        gone = asyncio.ensure_future(request.receive())  # after the body: that the caller has left
        try:
            await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise Refusal(499, "the caller has gone")
            return await asyncio.to_thread(_json, asked.result())
        finally:
            asked.cancel()
            gone.cancel()

    async def _body(self, request: Request) -> bytes:
        """The body of a request; raises Refusal for one that is too large, or comes too slowly."""
        length = request.headers.get("Content-Length", "0")
        too_long = Refusal(413, f"a request has {bounds.MOST_BYTES:,} bytes at most", **_CLOSE)
        if length.isdecimal() and (len(length) > 12 or int(length) > bounds.MOST_BYTES):
            raise too_long
        body, taken = bytearray(), 0
        try:
            async with asyncio.timeout(SLOWEST):
                async for chunk in request.stream():
                    taken += len(chunk)
                    self._held += len(chunk)
                    body += chunk
                    if taken > bounds.MOST_BYTES:
                        raise too_long
                    if self._held > MOST_HELD:
                        after = str(self._models.retry_after)
                        raise Refusal(
                            429, "too much is being sent at once", **_CLOSE, **{"Retry-After": after}
                        )
            return bytes(body)
        except TimeoutError:
            raise Refusal(408, f"a request comes within {SLOWEST:g} seconds", **_CLOSE) from None
        finally:
            self._held -= taken


_CLOSE: Final = {"Connection": "close"}  # what follows of the request is not read
_WHO: Final = {"WWW-Authenticate": "Bearer", **_CLOSE}
_PAGE_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def _grid(value: Any, count: int) -> tuple[int, int] | None:
    """The grid that maps are asked for at, (H, W); raises Refusal where it is none."""
    if value is None:
        return None
    if not bounds.is_grid(value):
        raise Refusal(400, f"a grid is [H, W], each from 1 to {bounds.LONGEST_SIDE}")
    rows, columns = value
    if 2 * count * rows * columns > bounds.MOST_CELLS:
        most = f"{bounds.MOST_CELLS:,}"
        raise Refusal(413, f"the maps of a request have {most} cells at most; send fewer items")
    return rows, columns


def _json(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    try:
        content = orjson.dumps(value)
    except TypeError:  # half a surrogate pair in a model's words
        content = json.dumps(value, allow_nan=False).encode("ascii")
    return Response(content, status, headers, media_type="application/json")


def _refused(refusal: Refusal) -> Response:
    return _json({"error": {"message": str(refusal)}}, refusal.status, refusal.headers)


async def _no_such_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": {"message": f"{error.detail}; see /docs"}}, error.status_code, error.headers)
