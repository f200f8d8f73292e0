"""Runs the application of `sdg.serve.app` until it is told to stop: sockets, connections, time limits."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sdg.errors import SdgError
from sdg.serve.app import Service
from sdg.serve.bounds import is_local

HEADERS_WITHIN: Final = 20.0
"""Seconds in which a connection has sent the headers of a request."""
MOST_CONNECTIONS: Final = 512
"""Connections at a time; one more is closed as it comes."""
STOPS_WITHIN: Final = 30
"""Seconds that requests have to be answered once the server is told to stop."""
_IDLE: Final = 15
"""Seconds for which a connection is kept between two requests."""


class _Connection(H11Protocol):
    """A connection that may not take for ever to ask."""

    _headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        asking = self._asking
        super().data_received(data)
        if self._asking:
            self._stop_waiting()
        elif not asking and self._headers_due is None and not self.transport.is_closing():
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _asking(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_headers(self) -> None:
        self._headers_due = self.loop.call_later(HEADERS_WITHIN, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None


def listening(host: str, port: int, token: str | None) -> socket.socket:
    """A socket at an address; raises SdgError where it is taken, and for one of others without a token."""
    if not is_local(f"[{host}]" if ":" in host else host) and token is None:
        raise SdgError(f"{host} can be reached by others; name the variable of a token with --token-env.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SdgError(f"{host}, port {port} cannot be served: {reason}.") from None


def server_of(service: Service) -> uvicorn.Server:
    """What serves it: `run(sockets=[listening(…)])` returns once a signal or `should_exit` has stopped it."""
    config = uvicorn.Config(
        service.app(),
        http=_Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=STOPS_WITHIN,
    )
    return uvicorn.Server(config)
