"""Metrics of the HTTP API, as Prometheus scrapes them: requests, their seconds, and the tasks that are
published.
"""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from tracking.mlflow import versions
from tracking.mlflow.client import TrackingUnavailable

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that have a name among the labels: a client can invent others without end."""


class RequestMetrics:
    """Metrics of one application, in a registry of their own."""

    def __init__(self, uri: str):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "lscal_api_requests",
            "Requests by the route's template.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "lscal_api_request_seconds",
            "Time until the answer was complete.",
            ["route"],
            registry=self.registry,
        )
        self.registry.register(Store(uri))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format 0.0.4."""
        return generate_latest(self.registry)

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """A request was answered."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)


class Counted:
    """Notes each request that reaches an application. The gate is before it: HEAD comes as GET, and 304 is
    made of 200 later.
    """

    def __init__(self, app: ASGIApp, request_metrics: RequestMetrics):
        self.app, self.request_metrics = app, request_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500  # of an application that breaks before it answers

        async def sent(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            self.request_metrics.note(scope, status, time.perf_counter() - started)


class Store(Collector):
    """The tracking store as it is when the metrics are asked for."""

    def __init__(self, uri: str):
        self.uri = uri

    @override
    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Whether it answers and, where it does, how many tasks are published."""
        try:
            published = versions.published(self.uri)
        except TrackingUnavailable:
            yield GaugeMetricFamily("lscal_tracking_up", "Whether the tracking store answers.", 0)
        else:
            yield GaugeMetricFamily("lscal_tracking_up", "Whether the tracking store answers.", 1)
            yield GaugeMetricFamily(
                "lscal_published_tasks", "Tasks that have a recommended version.", published
            )
