"""Metrics for Prometheus. Counters are fed once per request. Gauges are read from the model table at scrape time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from chaku.engines.base import State
from chaku.serve.exchange import Exchange
from chaku.serve.table import ModelTable

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_BETWEEN_TOKENS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)


class _Gauges(Collector):
    def __init__(self, table: ModelTable) -> None:
        self._table = table

    def collect(self) -> Iterator[Metric]:
        """Read the table now."""
        running = GaugeMetricFamily("chaku_slots_in_use", "Slots taken by running requests", labels=["model"])
        slots = GaugeMetricFamily("chaku_slots", "Requests that the engine runs at once", labels=["model"])
        waiting = GaugeMetricFamily("chaku_queue_length", "Requests waiting for a slot", labels=["model"])
        ready = GaugeMetricFamily("chaku_engine_ready", "1 where the engine takes requests", labels=["model"])
        restarts = GaugeMetricFamily("chaku_engine_restarts", "Times the engine was restarted", labels=["model"])
        for served in self._table:
            labels = [served.name]
            status = served.status()
            running.add_metric(labels, served.admission.num_running)
            slots.add_metric(labels, served.admission.slots or 0)
            waiting.add_metric(labels, served.admission.num_waiting)
            ready.add_metric(labels, status.state in (State.READY, State.UNLOADED))
            restarts.add_metric(labels, status.num_restarts)
        yield from (running, slots, waiting, ready, restarts)


class Metrics:
    """One registry per gateway, so that several can live in one process."""

    def __init__(self, table: ModelTable) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(table))
        by_route = ("model", "route")

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=self._registry)

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, text, labels, registry=self._registry)

        self._requests = counter("chaku_requests", "Requests answered", ("model", "route", "status"))
        self._errors = counter("chaku_errors", "Requests that failed, by the kind of error", ("model", "code"))
        self._retries = counter("chaku_retries", "Times that another replica was tried", ("model",))
        self._continued = counter("chaku_continued", "Times that an answer was continued elsewhere", ("model",))
        self._prompt = counter("chaku_prompt_tokens", "Prompt tokens read", ("model",))
        self._cached = counter("chaku_cached_prompt_tokens", "Prompt tokens that came out of a cache", ("model",))
        self._completion = counter("chaku_completion_tokens", "Tokens generated", ("model",))
        self._duration = histogram("chaku_request_seconds", "Request to last byte", by_route, _SECONDS)
        self._queue = histogram("chaku_queue_seconds", "Time in line for a slot", ("model",), _SECONDS)
        self._first = histogram("chaku_time_to_first_token_seconds", "Request to first token", by_route, _SECONDS)
        self._between = histogram(
            "chaku_inter_token_seconds", "Mean time between a stream's tokens", by_route, _BETWEEN_TOKENS
        )
        self.moderation = counter("chaku_moderation", "Texts that moderation flagged", ("where", "category", "action"))
        self._children: dict[Any, Any] = {}

    def _child(self, metric: Counter | Histogram, *labels: str) -> Any:
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def count(self, exchange: Exchange) -> None:
        """Account for one finished request."""
        model = exchange.model if exchange.is_known_model else "unknown"
        route = exchange.route
        self._child(self._requests, model, route, str(exchange.status)).inc()
        self._child(self._duration, model, route).observe(exchange.duration_s)
        if exchange.error_kind is not None:
            self._child(self._errors, model, exchange.error_kind).inc()
        if exchange.num_retries:
            self._child(self._retries, model).inc(exchange.num_retries)
        if exchange.num_continued:
            self._child(self._continued, model).inc(exchange.num_continued)
        if exchange.queue_s is not None:
            self._child(self._queue, model).observe(exchange.queue_s)
        if exchange.first_token_s is not None:
            self._child(self._first, model, route).observe(exchange.first_token_s)
            if exchange.completion_tokens > 1:
                gap_s = (exchange.duration_s - exchange.first_token_s) / (exchange.completion_tokens - 1)
                self._child(self._between, model, route).observe(gap_s)
        if exchange.prompt_tokens or exchange.completion_tokens:
            self._child(self._prompt, model).inc(exchange.prompt_tokens)
            self._child(self._completion, model).inc(exchange.completion_tokens)
            if exchange.cached_tokens:
                self._child(self._cached, model).inc(exchange.cached_tokens)

    def add(self, collector: Collector) -> None:
        """Show what a collector finds, too."""
        self._registry.register(collector)

    def page(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)
