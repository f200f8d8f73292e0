"""What a server counts of itself, as Prometheus reads it."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Measures:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("sdg_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.items = Counter(
            "sdg_items", "Pictures, by the detector's status.", ["status"], registry=registry
        )
        self.waiting = Gauge("sdg_waiting_items", "Pictures worked on or waiting.", registry=registry)
        self.seconds = Histogram(
            "sdg_request_seconds", "From headers to answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self.batches = Histogram(
            "sdg_batch_pictures", "Pictures of a batch.", ["model"], buckets=_SIZES, registry=registry
        )

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)
